//! What a login costs a maildrop: a first scan beside reading every file, a scan
//! after one delivery, and the check that nothing changed. Warm page cache.
//!
//! `cargo bench --bench scan -- --test` runs each once; every answer is asserted.

use std::fs;
use std::hint::black_box;
use std::io::Read;
use std::path::Path;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use popcore::maildrop::{Freshness, Snapshot, Standing, current_without_blocking, open};
use tempfile::TempDir;

const LINE: &str = "A line of a usual message, as long as most lines of mail are here.\n";
const LINES: usize = 61;
/// Octets of a message on the wire: a CR for each line, and none missing.
const OCTETS: u64 = ((LINE.len() + 1) * LINES) as u64;

/// A Maildir with messages of 4 KiB, half of them in new/.
fn maildir(messages: usize) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for part in ["new", "cur", "tmp"] {
        fs::create_dir(folder.path().join(part)).expect("a folder");
    }
    for message in 0..messages {
        deliver(folder.path(), message);
    }
    folder
}

fn deliver(root: &Path, message: usize) {
    let (part, flags) = [("new", ""), ("cur", ":2,S")][message % 2];
    let name = format!("{part}/17{message:08}.M1P7890_{message:06}.mx.example.org{flags}");
    fs::write(root.join(name), LINE.repeat(LINES)).expect("a message");
}

fn read_all(root: &Path, buffer: &mut Vec<u8>) -> usize {
    let mut octets = 0;
    for part in ["new", "cur"] {
        for entry in fs::read_dir(root.join(part)).expect("a folder") {
            buffer.clear();
            let path = entry.expect("an entry").path();
            let mut file = fs::File::open(path).expect("a message");
            octets += file.read_to_end(buffer).expect("a message");
        }
    }
    octets
}

fn scan(root: &Path, previous: Option<&Snapshot>) -> Snapshot {
    open(root, previous).expect("it opens")
}

fn settled(root: &Path) -> Snapshot {
    loop {
        let snapshot = scan(root, None);
        if matches!(snapshot.standing(), Standing::Settled { .. }) {
            return snapshot;
        }
    }
}

fn first_scans(criterion: &mut Criterion) {
    for messages in [1_000, 10_000] {
        let folder = maildir(messages);
        let root = folder.path();
        assert_eq!(settled(root).len(), messages);
        let mut group = criterion.benchmark_group(format!("{messages} messages of 4 KiB"));
        group.sample_size(20);
        let mut buffer = Vec::new();
        group.bench_function("read all files", |bencher| {
            bencher.iter(|| assert_eq!(read_all(root, &mut buffer), LINE.len() * LINES * messages));
        });
        group.bench_function("first scan", |bencher| {
            bencher.iter(|| {
                let snapshot = scan(root, None);
                assert_eq!(snapshot.len(), messages);
                assert_eq!(snapshot.total().get(), OCTETS * messages as u64);
                snapshot
            });
        });
        let known = settled(root);
        group.bench_function("scan with one new message", |bencher| {
            // Known is everything but the delivery of this round.
            let name = root.join("cur/1800000000.new:2,");
            bencher.iter_batched(
                || {
                    let _ = fs::remove_file(&name);
                    fs::write(&name, LINE.repeat(LINES)).expect("a message");
                },
                |()| {
                    let snapshot = scan(root, Some(&known));
                    assert_eq!(snapshot.len(), messages + 1);
                    assert_eq!(snapshot.total().get(), OCTETS * (messages as u64 + 1));
                    snapshot
                },
                BatchSize::PerIteration,
            );
            fs::remove_file(&name).expect("it was just written");
        });
        group.finish();
    }
}

fn freshness(criterion: &mut Criterion) {
    let folder = maildir(20);
    let snapshot = settled(folder.path());
    // A rename anywhere on the machine at the wrong moment makes the kernel's cache
    // miss: allowed, but not often.
    let (mut checks, mut misses) = (0_u64, 0_u64);
    criterion.bench_function("freshness check", |bencher| {
        bencher.iter(|| {
            let freshness = current_without_blocking(black_box(&snapshot));
            assert_ne!(freshness, Freshness::Changed);
            checks += 1;
            misses += u64::from(freshness == Freshness::Unknown);
        });
    });
    // One in a hundred, and one of a few.
    assert!(
        misses * 100 <= checks.max(100),
        "{misses} of {checks} missed"
    );
}

criterion_group!(benches, freshness, first_scans);
criterion_main!(benches);
