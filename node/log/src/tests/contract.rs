//! One suite for every storage.

use std::io::ErrorKind;
use std::sync::Arc;

use super::{append, open_any, payload, prefix};
use crate::{FileStorage, LockError, MemStorage, ReadError, StateError, StateFiles, Storage};

fn on_both(test: impl Fn(Arc<dyn Storage>)) {
    test(Arc::new(MemStorage::new()));
    let directory = tempfile::tempdir().unwrap();
    test(Arc::new(FileStorage::open(directory.path().join("log")).unwrap()));
}

fn names(storage: &dyn Storage) -> Vec<(String, u64)> {
    let mut names = storage.list().unwrap();
    names.retain(|(name, _)| name != "lock");
    names.sort();
    names
}

#[test]
fn files_are_created_written_read_and_deleted() {
    on_both(|storage| {
        storage.create("a").unwrap();
        assert_eq!(storage.create("a").unwrap_err().kind(), ErrorKind::AlreadyExists);
        storage.write_at("a", 3, b"xyz").unwrap();
        storage.sync("a").unwrap();
        storage.sync_dir().unwrap();
        assert_eq!(names(&*storage), vec![("a".to_owned(), 6)]);
        let mut bytes = [9; 8];
        assert_eq!(storage.read_at("a", 0, &mut bytes).unwrap(), 6);
        assert_eq!(&bytes[..6], b"\0\0\0xyz");
        assert_eq!(storage.read_at("a", 6, &mut bytes).unwrap(), 0);
        assert_eq!(storage.read_at("a", 600, &mut bytes).unwrap(), 0);
        storage.delete("a").unwrap();
        assert_eq!(storage.delete("a").unwrap_err().kind(), ErrorKind::NotFound);
        assert!(names(&*storage).is_empty());
        assert!(storage.free_bytes().unwrap() > 0);
    });
}

#[test]
fn resizing_grows_with_zeros_and_cuts() {
    on_both(|storage| {
        storage.create("a").unwrap();
        storage.write_at("a", 0, b"abcdef").unwrap();
        storage.resize("a", 3).unwrap();
        storage.resize("a", 5000).unwrap();
        assert_eq!(names(&*storage), vec![("a".to_owned(), 5000)]);
        let mut bytes = [9; 6];
        storage.read_at("a", 0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"abc\0\0\0");
    });
}

#[test]
fn renaming_replaces() {
    on_both(|storage| {
        for name in ["a", "b"] {
            storage.create(name).unwrap();
            storage.write_at(name, 0, name.as_bytes()).unwrap();
        }
        storage.rename("a", "b").unwrap();
        let mut byte = [0];
        storage.read_at("b", 0, &mut byte).unwrap();
        assert_eq!(&byte, b"a");
        for result in [
            storage.rename("a", "c"),
            storage.sync("a"),
            storage.resize("a", 1),
            storage.write_at("a", 0, b"x"),
            storage.read_at("a", 0, &mut byte).map(|_| ()),
        ] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::NotFound);
        }
    });
}

#[test]
fn state_files_are_replaced_as_a_whole_and_checked() {
    on_both(|storage| {
        let state = StateFiles::new(Arc::clone(&storage));
        assert_eq!(state.read("term").unwrap(), None);
        state.write("term", b"one").unwrap();
        state.write("term", b"twenty-two").unwrap();
        assert_eq!(state.read("term").unwrap().unwrap(), b"twenty-two");
        state.write("empty", b"").unwrap();
        assert_eq!(state.read("empty").unwrap().unwrap(), b"");
        for offset in 0..22 {
            let mut byte = [0];
            storage.read_at("state-term", offset, &mut byte).unwrap();
            storage.write_at("state-term", offset, &[byte[0] ^ 4]).unwrap();
            assert!(matches!(state.read("term"), Err(StateError::Damaged(_))), "byte {offset}");
            storage.write_at("state-term", offset, &byte).unwrap();
        }
        for name in ["", "../x", "A", "a.b"] {
            assert!(matches!(state.write(name, b""), Err(StateError::Name(_))), "{name}");
        }
    });
}

#[test]
fn a_log_is_delivered_again_however_often_it_is_opened() {
    on_both(|storage| {
        for round in 0..6 {
            let (mut log, recovery, delivered) = open_any(&storage);
            assert_eq!(delivered, prefix(round * 9));
            assert_eq!(recovery.report.fresh, round == 0);
            assert_eq!((recovery.report.torn_bytes, recovery.report.damage.len()), (0, 0));
            let refs = append(&mut log, round * 9 + 1..=round * 9 + 9);
            log.sync().unwrap();
            for (number, record) in (round * 9 + 1..).zip(refs) {
                let (meta, bytes) = log.reader().read(record).unwrap();
                assert_eq!(
                    (meta.sequence, meta.wall_ms, &bytes[..]),
                    (number, number, &payload(number)[..])
                );
            }
        }
        // Opening alone leaves nothing behind.
        let before = open_any(&storage).0.segments().count();
        assert_eq!(open_any(&storage).0.segments().count(), before);
    });
}

#[test]
fn a_wrong_reference_is_refused() {
    on_both(|storage| {
        let (mut log, ..) = open_any(&storage);
        let record = append(&mut log, [1])[0];
        let reader = log.reader();
        for wrong in [
            crate::RecordRef { offset: record.offset + 1, ..record },
            crate::RecordRef { len: record.len - 1, ..record },
            crate::RecordRef { len: record.len + 1, ..record },
            crate::RecordRef { len: u32::MAX, ..record },
            crate::RecordRef { offset: u32::MAX, ..record },
        ] {
            assert!(matches!(reader.read(wrong), Err(ReadError::Damaged { .. })), "{wrong:?}");
        }
        let gone = crate::RecordRef { segment: 99, ..record };
        assert!(matches!(reader.read(gone), Err(ReadError::Gone(99))));
    });
}

#[test]
fn a_directory_belongs_to_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let first = FileStorage::open(directory.path()).unwrap();
    assert!(matches!(FileStorage::open(directory.path()), Err(LockError::InUse(_))));
    drop(first);
    FileStorage::open(directory.path()).unwrap();
}

/// A thread that lists the files is not told of an error because another one replaces some meanwhile: the
/// log would take it for a broken disk, and the node would stop.
#[test]
fn files_that_are_replaced_while_they_are_listed_are_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let storage = FileStorage::open(directory.path()).unwrap();
    storage.create("stays").unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for name in ["a", "b", "c", "d"] {
                    let next = format!("{name}-next");
                    storage.create(&next).unwrap();
                    storage.rename(&next, name).unwrap();
                }
            }
        });
        let listed: Vec<_> = (0..5_000).map(|_| storage.list()).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for files in listed {
            let files = files.expect("no error");
            assert!(files.iter().any(|(name, _)| name == "stays"));
        }
    });
}
