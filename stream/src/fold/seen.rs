//! What was seen of the ids of one window.

use std::collections::BTreeMap;

use cortado_protocol::stream::Place;

/// What was seen of one id in one window.
pub(super) struct Seen {
    /// Of the event that comes first: its time, and its place.
    pub(super) origin: (i64, Place),
    pub(super) content: u64,
    /// Where the texts that it is grouped by stand.
    pub(super) keys: Vec<u32>,
    pub(super) paths: Vec<u32>,
    /// All others.
    pub(super) others: Vec<(Place, u64)>,
}

/// Takes an event in; returns about how many bytes that takes.
pub(super) fn see(
    seen: &mut BTreeMap<String, Seen>,
    id: &str,
    (origin, content): ((i64, Place), u64),
    (keys, paths): (&[u32], &[u32]),
) -> usize {
    let Some(known) = seen.get_mut(id) else {
        let (keys, paths) = (keys.to_vec(), paths.to_vec());
        let bytes = id.len() + 4 * (keys.len() + paths.len()) + 200;
        let first = Seen { origin, content, keys, paths, others: Vec::new() };
        seen.insert(id.to_owned(), first);
        return bytes;
    };
    if origin < known.origin {
        known.others.push((known.origin.1, known.content));
        (known.origin, known.content) = (origin, content);
        (known.keys, known.paths) = (keys.to_vec(), paths.to_vec());
    } else {
        known.others.push((origin.1, content));
    }
    size_of::<(Place, u64)>()
}
