//! What a group commit and a recovery cost, on the disk that holds the temporary directory.

use std::sync::Arc;

use cortado_log::{FileStorage, Log, LogConfig};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// About what a batch leaves on one owner.
static RECORD: [u8; 64 << 10] = [7; 64 << 10];
const RECORDS: usize = 16;

fn open(folder: &std::path::Path) -> Log {
    let storage = Arc::new(FileStorage::open(folder).expect("a folder of one's own"));
    Log::open(storage, LogConfig::default(), 1, &mut |_, _, _| ()).expect("a log").0
}

fn commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log");
    group.sample_size(20);
    group.throughput(Throughput::Bytes((RECORDS * RECORD.len()) as u64));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut log = open(folder.path());
    let mut job = 0;
    let mut fill = |log: &mut Log| {
        job += 1;
        for _ in 0..RECORDS {
            log.append(1, job, 0, &[&RECORD]).expect("space");
        }
        job
    };
    group.bench_function("append", |bencher| {
        bencher.iter(|| {
            let job = fill(&mut log);
            log.forget(job).expect("a sync");
        });
    });
    group.bench_function("append and sync", |bencher| {
        bencher.iter(|| {
            let job = fill(&mut log);
            log.sync().expect("a sync");
            log.forget(job).expect("a sync");
        });
    });
    drop(log);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut log = open(folder.path());
    fill(&mut log);
    log.sync().expect("a sync");
    drop(log);
    group.bench_function("open", |bencher| {
        bencher.iter_batched(|| (), |()| open(folder.path()), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(log, commits);
criterion_main!(log);
