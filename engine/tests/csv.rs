//! Batch boundaries and headers: a file always gives the same batches, and no byte is lost or read
//! twice.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use cortado_engine::csv::{Cut, Cutter, HeaderRead, HeaderReadError, read_header};
use cortado_protocol::limits::RECORD_BYTES;
use proptest::prelude::*;

/// Offset, length, line breaks and whether it is a batch.
type Piece = (usize, usize, u64, bool);

/// Cuts a file that arrives in chunks of these sizes, which repeat.
fn pieces(file: &[u8], target: usize, chunks: &[usize]) -> Vec<Piece> {
    let mut cutter = Cutter::new(target);
    let mut sizes = chunks.iter().cycle();
    let (mut at, mut have, mut pieces) = (0, 0, Vec::new());
    loop {
        match cutter.next(&file[at..have], have == file.len()) {
            Cut::Batch { len, lines } => {
                pieces.push((at, len, lines, true));
                at += len;
            }
            Cut::Skip { len, lines } => {
                // The lengths of skips depend on the chunks; only their sum is compared.
                match pieces.last_mut() {
                    Some((_, last, breaks, false)) => {
                        (*last, *breaks) = (*last + len, *breaks + lines)
                    }
                    _ => pieces.push((at, len, lines, false)),
                }
                at += len;
            }
            Cut::NeedMore => have = file.len().min(have + sizes.next().unwrap().max(&1)),
            Cut::End => return pieces,
        }
    }
}

fn batches(file: &[u8], target: usize) -> Vec<&[u8]> {
    let pieces = pieces(file, target, &[file.len()]);
    pieces.iter().filter(|p| p.3).map(|p| &file[p.0..p.0 + p.1]).collect()
}

proptest! {
    #[test]
    fn pieces_make_up_the_file(text in "[a,\"\n\r]{0,60}", target in 1usize..40) {
        let file = text.as_bytes();
        let cut = pieces(file, target, &[file.len()]);
        let mut at = 0;
        for (start, len, lines, _) in &cut {
            prop_assert_eq!(*start, at);
            prop_assert!(*len > 0);
            at += len;
            let breaks = file[*start..at].iter().filter(|b| **b == b'\n').count();
            prop_assert_eq!(*lines, breaks as u64);
        }
        prop_assert_eq!(at, file.len());
        // Small chunks never reach the window, so the cuts wait for the end of the file.
        prop_assert_eq!(pieces(file, target, &[1]), cut);
    }

    #[test]
    fn headers_do_not_depend_on_chunks(text in "(\u{feff})?[ab,\"\n\r]{0,20}") {
        let whole = read_header(text.as_bytes(), true);
        let mut last = Ok(HeaderRead::NeedMore);
        for len in 0..=text.len() {
            last = read_header(&text.as_bytes()[..len], len == text.len());
            if last != Ok(HeaderRead::NeedMore) {
                break;
            }
        }
        prop_assert_eq!(last, whole);
    }
}

#[test]
fn large_files_are_cut_the_same_however_they_arrive() {
    let mut file = Vec::new();
    for n in 0..40_000u32 {
        let row = match n % 1000 {
            7 => format!("{n},\"two\nlines, and \"\"quotes\"\"\",x\n"),
            _ => format!("{n},{:0width$},x\r\n", n, width = (n % 90) as usize),
        };
        file.extend_from_slice(row.as_bytes());
    }
    // A quote that is never closed, and a line beyond the limit, with rows after each.
    file.extend_from_slice(b"open,\"quote,x\n");
    file.extend_from_slice(&b"plain,row,x\n".repeat(2 * RECORD_BYTES / 12));
    file.extend_from_slice(&vec![b'y'; 2 * RECORD_BYTES]);
    file.extend_from_slice(b"\nlast,row,x");
    for target in [1000, 300_000, 1 << 20] {
        let expected = pieces(&file, target, &[file.len()]);
        for chunks in [&[65_536][..], &[1_000_003], &[1 << 20, 17, 3 << 20]] {
            assert_eq!(pieces(&file, target, chunks), expected);
        }
        let cut = batches(&file, target);
        assert!(cut.iter().all(|batch| batch.len() <= target.max(RECORD_BYTES + 1)));
        assert!(cut.contains(&&b"open,\"quote,x\n"[..]));
        assert_eq!(expected.iter().filter(|piece| !piece.3).count(), 1);
        assert!(cut.last().unwrap().ends_with(b"last,row,x"));
    }
}

#[test]
fn an_unclosed_quote_costs_one_line() {
    assert_eq!(batches(b"a,b\nc,\"d\ne,f\n", 100), [&b"a,b\n"[..], b"c,\"d\n", b"e,f\n"]);
    assert_eq!(batches(b"\"", 100), [b"\""]);
}

#[test]
fn a_record_beyond_the_limit_is_one_batch_and_the_next_one_starts_after_it() {
    let blob = |breaks: &str| format!("{breaks}{}", "x".repeat(900_000)).repeat(3);
    let long = [
        format!("{},1\n", "x".repeat(2_000_000)),
        format!("{},\"a\nb\"\n", "x".repeat(2_000_000)),
        format!("k,\"{}\"\n", blob("\n")),
        format!("k,\"{}\",\"{}\"\n", blob("\n\"\""), blob(",\n")),
        format!("k,\"{}\n", "x".repeat(3_000_000)),
    ];
    for record in long {
        for before in [0, 10, RECORD_BYTES - 3, RECORD_BYTES, RECORD_BYTES + 5] {
            let rows = "a,1\n".repeat(before.div_ceil(4));
            let file = format!("{rows}{record}b,2\n").into_bytes();
            for chunk in [file.len(), RECORD_BYTES + 1, 256 << 10, 77_777] {
                let cut = pieces(&file, 1 << 20, &[chunk]);
                let first = cut.iter().find(|piece| piece.0 == rows.len()).unwrap();
                assert_eq!(*first, (rows.len(), RECORD_BYTES + 1, first.2, true));
                let last = cut.last().unwrap();
                assert_eq!((&file[last.0..], last.3), (&b"b,2\n"[..], true));
                assert_eq!(cut.iter().filter(|piece| !piece.3).count(), 1);
            }
        }
    }
}

#[test]
fn lines_at_the_limit_are_kept_apart_from_the_next() {
    for len in RECORD_BYTES - 2..RECORD_BYTES + 3 {
        let mut file = vec![b'x'; len];
        file.extend_from_slice(b"\nnext\n");
        let cut = pieces(&file, 1 << 20, &[file.len()]);
        let last = cut.last().unwrap();
        assert_eq!(&file[last.0..], b"next\n", "{len}");
    }
}

#[test]
fn headers_are_read_with_everything_exports_do() {
    let read = |bytes: &[u8]| match read_header(bytes, true) {
        Ok(HeaderRead::Header { fields, bytes, lines }) => (fields.join("|"), bytes, lines),
        other => panic!("{other:?}"),
    };
    assert_eq!(read(b"a,b\n1,2"), ("a|b".into(), 4, 1));
    assert_eq!(read(b"\xef\xbb\xbfa,\"b,\"\"c\" \r\n1"), ("a|b,\"c".into(), 15, 1));
    assert_eq!(read(b"\n\r\n\"x\ny\",b\n"), ("x\ny|b".into(), 11, 4));
    assert_eq!(read(b"a,b"), ("a|b".into(), 3, 0));
    assert_eq!(read(b""), (String::new(), 0, 0));
    assert_eq!(read(b"\xef\xbb\xbf"), (String::new(), 3, 0));
    assert_eq!(read(b"\n\n"), (String::new(), 2, 2));
    assert_eq!(read_header(b"a,b", false), Ok(HeaderRead::NeedMore));
    assert_eq!(read_header(b"a,\"b\n", true), Err(HeaderReadError::Unclosed));
    assert_eq!(read_header(b"a,\xff\n", true), Err(HeaderReadError::NotUtf8));
    let long = vec![b'x'; RECORD_BYTES + 1];
    assert_eq!(read_header(&long, false), Err(HeaderReadError::TooLong));
}
