//! The owners of each key, by rendezvous hashing. Core, client and simulator use it for all roles.
//!
//! The owners of a key are *all* members ordered by a hash of (member, key); roles go to the first
//! of them. Nodes need no agreement and no tuning: the spread is even, and when a member leaves
//! only its own keys move, each to the next owner in its list. The hash is stable across processes,
//! platforms and versions.
//!
//! Method: D. G. Thaler, C. V. Ravishankar, "Using name-based mappings to increase hit rates",
//! IEEE/ACM Transactions on Networking 6(1), 1998 (highest random weight).

use std::cmp::Reverse;

use cortado_protocol::limits::NODE_ID_BYTES;
use cortado_protocol::{JobId, META_SLOT, NodeId, Slot};
use twox_hash::XxHash3_64;

/// Key of the node that admits jobs: the first owner keeps the queue of jobs that wait for a turn.
pub const ADMISSION_KEY: u64 = 0x61_64_6d_69_73_73_69_6f;

/// Key of a job. Its owners hold the job log; the first live one is the job's coordinator.
#[must_use]
pub fn job_key(job: JobId) -> u64 {
    key(b'j', job, 0, 0)
}

/// Key of a slot of a job. The owners of [`META_SLOT`] are the owners of the job itself.
#[must_use]
pub fn slot_key(job: JobId, slot: Slot) -> u64 {
    if slot == META_SLOT { job_key(job) } else { key(b's', job, u16::from(slot.0), 0) }
}

/// Key of a batch of a table: the first live owner is the batch's mapper.
#[must_use]
pub fn batch_key(job: JobId, table: u16, batch: u64) -> u64 {
    key(b'b', job, table, batch)
}

/// All members, the best owner first. `members` must not repeat a name.
#[must_use]
pub fn owners(key: u64, members: &[NodeId]) -> Vec<NodeId> {
    let mut ordered = Vec::new();
    owners_into(key, members, &mut ordered);
    ordered
}

/// Like [`owners`], but overwrites a list that the caller reuses.
pub fn owners_into(key: u64, members: &[NodeId], into: &mut Vec<NodeId>) {
    into.clear();
    into.extend_from_slice(members);
    into.sort_by_cached_key(|member| Reverse(weight(key, *member)));
}

/// The first of [`owners`], without ordering the rest; `None` if there is no member.
#[must_use]
pub fn first_owner(key: u64, members: &[NodeId]) -> Option<NodeId> {
    members.iter().copied().max_by_key(|member| weight(key, *member))
}

/// Place of `node` among the owners of `key` (0 is the first); `None` if it is not a member.
#[must_use]
pub fn rank(key: u64, node: NodeId, members: &[NodeId]) -> Option<usize> {
    let own = weight(key, node);
    members
        .contains(&node)
        .then(|| members.iter().filter(|member| weight(key, **member) > own).count())
}

/// The weight of a member for a key: highest wins, equal hashes are ordered by name.
fn weight(key: u64, member: NodeId) -> (u64, NodeId) {
    let name = member.as_str().as_bytes();
    let mut bytes = [0; NODE_ID_BYTES + 8];
    bytes[..8].copy_from_slice(&key.to_le_bytes());
    bytes[8..8 + name.len()].copy_from_slice(name);
    (XxHash3_64::oneshot(&bytes[..8 + name.len()]), member)
}

fn key(kind: u8, job: JobId, part: u16, number: u64) -> u64 {
    let mut bytes = [0; 27];
    bytes[0] = kind;
    bytes[1..17].copy_from_slice(&job.0.to_le_bytes());
    bytes[17..19].copy_from_slice(&part.to_le_bytes());
    bytes[19..].copy_from_slice(&number.to_le_bytes());
    XxHash3_64::oneshot(&bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(count: usize) -> Vec<NodeId> {
        (1..=count).map(|n| format!("node-{n}").parse().unwrap()).collect()
    }

    #[test]
    fn the_hash_never_changes() {
        // A change here moves every slot of every cluster at an upgrade.
        let job = JobId(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057);
        let keys = [job_key(job), slot_key(job, Slot(5)), batch_key(job, 2, 77), ADMISSION_KEY];
        let first = keys.map(|key| first_owner(key, &nodes(9)).unwrap().to_string());
        assert_eq!(keys, GOLDEN_KEYS);
        assert_eq!(first, GOLDEN_OWNERS);
    }
    const GOLDEN_KEYS: [u64; 4] =
        [501147904100229970, 12087617071365053507, 7112670708643591487, ADMISSION_KEY];
    const GOLDEN_OWNERS: [&str; 4] = ["node-2", "node-6", "node-7", "node-6"];

    #[test]
    fn keys_of_different_things_differ_and_the_meta_slot_lives_with_the_job() {
        let job = JobId(7);
        assert_eq!(slot_key(job, META_SLOT), job_key(job));
        let mut all = vec![job_key(job), ADMISSION_KEY];
        all.extend((0..64).map(|slot| slot_key(job, Slot(slot))));
        all.extend((0..64).map(|batch| batch_key(job, 0, batch)));
        all.extend((0..64).map(|batch| batch_key(job, 1, batch)));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn ownership_is_even() {
        for count in [2, 3, 5, 9, 16] {
            let members = nodes(count);
            let mut firsts = vec![0usize; count];
            let keys = 20_000;
            for batch in 0..keys {
                let first = first_owner(batch_key(JobId(42), 0, batch), &members).unwrap();
                firsts[members.iter().position(|m| *m == first).unwrap()] += 1;
            }
            let fair = keys as f64 / count as f64;
            for (member, held) in members.iter().zip(&firsts) {
                let off = (*held as f64 - fair).abs() / fair;
                assert!(off < 0.15, "{member} of {count} holds {held}, fair is {fair}");
            }
        }
    }

    proptest! {
        #[test]
        fn only_the_leaving_members_keys_move(count in 2usize..12, gone in 0usize..12, key: u64) {
            let members = nodes(count);
            let gone = members[gone % count];
            let before = owners(key, &members);
            let rest: Vec<_> = members.iter().copied().filter(|m| *m != gone).collect();
            let expected: Vec<_> = before.iter().copied().filter(|m| *m != gone).collect();
            prop_assert_eq!(owners(key, &rest), expected);
        }

        #[test]
        fn order_of_the_members_does_not_matter(key: u64, turn in 0usize..9) {
            let members = nodes(9);
            let mut turned = members.clone();
            turned.rotate_left(turn);
            prop_assert_eq!(owners(key, &members), owners(key, &turned));
        }

        #[test]
        fn the_fast_variants_agree(key: u64, count in 1usize..9) {
            let members = nodes(count);
            let ordered = owners(key, &members);
            prop_assert_eq!(first_owner(key, &members), Some(ordered[0]));
            for (place, member) in ordered.iter().enumerate() {
                prop_assert_eq!(rank(key, *member, &members), Some(place));
            }
        }
    }

    #[test]
    fn no_member_no_owner() {
        assert!(owners(1, &[]).is_empty());
        assert_eq!(first_owner(1, &[]), None);
        assert_eq!(rank(1, nodes(1)[0], &[]), None);
    }
}
