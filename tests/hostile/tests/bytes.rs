//! The checks with generated input: random bytes, damaged samples, and the samples themselves.

use hostile::CHECKS;
use proptest::prelude::*;

/// One change to a sample.
#[derive(Clone, Debug)]
enum Damage {
    Set(u16, u8),
    Cut(u16),
    Insert(u16, Vec<u8>),
    Repeat(u16, u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<u16>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        any::<u16>().prop_map(Damage::Cut),
        (any::<u16>(), prop::collection::vec(any::<u8>(), 1..12))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (any::<u16>(), any::<u8>()).prop_map(|(at, count)| Damage::Repeat(at, count)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    let place = |at: &u16| usize::from(*at) % (bytes.len() + 1);
    match damage {
        Damage::Set(at, byte) => {
            let at = place(at);
            if let Some(old) = bytes.get_mut(at) {
                *old = *byte;
            }
        }
        Damage::Cut(at) => bytes.truncate(place(at)),
        Damage::Insert(at, new) => drop(bytes.splice(place(at)..place(at), new.iter().copied())),
        Damage::Repeat(at, count) => {
            let start = place(at);
            let piece = bytes[start..].iter().take(9).copied().collect::<Vec<_>>();
            let many = piece.repeat(usize::from(*count));
            drop(bytes.splice(start..start, many));
        }
    }
}

#[test]
fn samples_keep_every_promise() {
    for check in CHECKS {
        let samples = (check.samples)();
        assert!(!samples.is_empty(), "{}", check.name);
        samples.iter().for_each(|sample| (check.run)(sample));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_keep_every_promise(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        for check in CHECKS {
            (check.run)(&bytes);
        }
    }

    #[test]
    fn damaged_samples_keep_every_promise(
        which: prop::sample::Index,
        damage in prop::collection::vec(damage(), 1..5),
    ) {
        for check in CHECKS {
            let samples = (check.samples)();
            let mut bytes = samples[which.index(samples.len())].clone();
            damage.iter().for_each(|damage| apply(&mut bytes, damage));
            (check.run)(&bytes);
        }
    }
}

/// Each file in `found/` once broke a promise; its name begins with the name of the check.
#[test]
fn what_fuzzing_has_found_stays_mended() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/found");
    let mut files = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap();
        let check = CHECKS.iter().find(|check| Some(check.name) == name.split('-').next()).unwrap();
        (check.run)(&std::fs::read(&path).unwrap());
        files += 1;
    }
    assert!(files > 0);
}
