//! The committing thread.

use std::sync::{Arc, mpsc};

use bytes::Bytes;

use super::{open, payload, prefix};
use crate::{Append, Committed, Committer, MemStorage};

fn request(number: u64) -> Append<u64> {
    let payload = vec![Bytes::from(payload(number))];
    Append { kind: 1, group: 1, wall_ms: 0, payload, reserved: false, tag: number }
}

#[test]
fn everything_queued_is_reported_once_in_order_and_durable() {
    let storage = Arc::new(MemStorage::new());
    let (log, ..) = open(&storage);
    let (done, reports) = mpsc::channel();
    let committer = Committer::spawn(log, 16, move |report| done.send(report).unwrap()).unwrap();
    let queue = committer.queue();
    (1..=200).for_each(|number| queue.append(request(number)).unwrap());
    queue.append(Append { payload: vec![Bytes::from(vec![0; 17 << 20])], ..request(0) }).unwrap();
    queue.forget(77).unwrap();
    drop(queue);
    let log = committer.close().unwrap();
    assert_eq!(log.synced_sequence(), 200);
    let reports: Vec<_> = reports.iter().collect();
    assert_eq!(reports.len(), 201);
    for (number, report) in (1..=200).zip(&reports) {
        let Committed::Stored { tag, record } = report else { panic!("{report:?}") };
        assert_eq!(*tag, number);
        assert_eq!(log.reader().read(*record).unwrap().1, payload(number));
    }
    assert!(matches!(reports[200], Committed::Refused { tag: 0, .. }));
    let crashed = Arc::new(storage.crash(|_| crate::Fate::Lost));
    assert_eq!(open(&crashed).2, prefix(200));
}

#[test]
fn a_group_costs_one_sync() {
    let storage = Arc::new(MemStorage::new());
    let (log, ..) = open(&storage);
    let (entered, wait) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    let committer = Committer::spawn(log, 16, move |_| {
        entered.send(()).unwrap();
        held.recv().unwrap();
    })
    .unwrap();
    let queue = committer.queue();
    queue.append(request(1)).unwrap();
    // The thread is held in its first report while four more gather.
    wait.recv().unwrap();
    let before = storage.syncs();
    (2..=5).for_each(|number| queue.append(request(number)).unwrap());
    (0..5).for_each(|_| release.send(()).unwrap());
    drop(queue);
    let log = committer.close().unwrap();
    let rotations = u64::from(log.segments().count() > 1) * 2;
    assert!(storage.syncs() - before <= 1 + rotations);
}

#[test]
fn a_failed_sync_is_the_last_report() {
    let storage = Arc::new(MemStorage::new());
    let (log, ..) = open(&storage);
    let (done, reports) = mpsc::channel();
    let committer = Committer::spawn(log, 4, move |report| done.send(report).unwrap()).unwrap();
    let queue = committer.queue();
    storage.fail_syncs(1);
    queue.append(request(1)).unwrap();
    let reports: Vec<_> = reports.iter().collect();
    assert!(matches!(reports[..], [Committed::Poisoned(_)]), "{reports:?}");
    // The thread is gone: the queue says so and gives the request back.
    let returned = queue.append(request(2)).unwrap_err();
    assert_eq!((returned.request.tag, returned.full), (2, false));
}
