//! Checks that docs/protocol.md describes every message, and that the hostile tests have a sample
//! of it.

use std::path::Path;

use anyhow::{Context, Result};
use syn::Item;

/// File and type of the messages, and the heading of their description.
const MESSAGES: [(&str, &str, &str); 4] = [
    ("protocol/src/peer.rs", "PeerMessage", "Messages between nodes"),
    ("protocol/src/client.rs", "ClientRequest", "Messages of clients"),
    ("protocol/src/stream.rs", "StreamRequest", "Requests about a stream"),
    ("protocol/src/job.rs", "JobEntry", "Entries of a job's log"),
];

/// Lists the missing descriptions and samples.
pub(crate) fn wrong(root: &Path) -> Result<Vec<String>> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).context(path.to_owned());
    let (described, samples) = (read("docs/protocol.md")?, read("tests/hostile/src/sample.rs")?);
    let mut wrong = Vec::new();
    for (path, name, heading) in MESSAGES {
        let rows = rows(&described, heading);
        if rows.is_empty() {
            wrong.push(format!("docs/protocol.md has no table under \"{heading}\""));
        }
        let variants = variants(&read(path)?, name)?;
        for variant in &variants {
            if !rows.contains(variant) {
                wrong.push(format!("{name}::{variant} has no row in docs/protocol.md"));
            }
            if !has_word(&samples, &format!("{name}::{variant}")) {
                wrong.push(format!(
                    "{name}::{variant} has no sample in tests/hostile/src/sample.rs"
                ));
            }
        }
        // The greetings of a link and the frames of an upload are in the same tables.
        let others = ["Hello", "Ack", "BatchHeader", "BatchReply"];
        for row in rows.iter().filter(|row| !variants.contains(row)) {
            if !others.contains(&row.as_str()) {
                wrong.push(format!("docs/protocol.md describes {row}, which {name} does not have"));
            }
        }
    }
    Ok(wrong)
}

/// The names of a type's variants.
fn variants(text: &str, name: &str) -> Result<Vec<String>> {
    let items = syn::parse_file(text)?.items;
    let found = items.into_iter().find_map(|item| match item {
        Item::Enum(item) if item.ident == name => Some(item),
        _ => None,
    });
    let found = found.with_context(|| format!("there is no {name}"))?;
    Ok(found.variants.iter().map(|variant| variant.ident.to_string()).collect())
}

/// The names at the beginning of the rows of the tables under a heading.
fn rows(text: &str, heading: &str) -> Vec<String> {
    let lines = text.lines().skip_while(|line| line.trim_start_matches('#').trim() != heading);
    let under = lines.skip(1).take_while(|line| !line.starts_with('#'));
    under.filter_map(|line| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned())).collect()
}

/// Whether a text has this name as a whole word, not only as the beginning of a longer one.
fn has_word(text: &str, name: &str) -> bool {
    let after = |(at, _): (usize, &str)| text[at + name.len()..].chars().next();
    text.match_indices(name).any(|found| after(found).is_none_or(|next| !next.is_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_found_by_its_own_name_only() {
        let text = "## Messages\n| message | what |\n|---|---|\n| `Stored` | x |\n## Other\n| `Ask` | y |\n";
        assert_eq!(rows(text, "Messages"), ["Stored"]);
        assert!(!has_word("PeerMessage::Stored {", "PeerMessage::Store"));
        assert!(has_word("(PeerMessage::Store, x)", "PeerMessage::Store"));
        assert_eq!(variants("enum A { B, C(u8) }", "A").unwrap(), ["B", "C"]);
    }
}
