//! What the index of a maildrop costs and saves: a first login that makes it, one
//! after a restart that reads it, one after a delivery that appends to it, and the
//! listing of unique-ids. Warm page cache, messages of 4 KiB.
//!
//! `cargo bench --bench index -- --test` runs each once; every answer is asserted.

use std::fs;
use std::io::Read;
use std::path::Path;

use criterion::{BatchSize, BenchmarkGroup, Criterion, criterion_group, criterion_main};
use popcore::maildrop::{Location, Maildrops, Opened, Standing};
use popcore::proto::MessageNumber;
use tempfile::TempDir;

const LINE: &str = "A line of a usual message, as long as most lines of mail are here.\n";
const LINES: usize = 61;
/// Octets of a message on the wire: a CR for each line, and none missing.
const OCTETS: u64 = ((LINE.len() + 1) * LINES) as u64;
/// Room for every snapshot here.
const CACHE: usize = 1 << 30;

/// A Maildir with that many messages, half of them in new/. `text` is what each
/// holds; its octets are those of the whole of it in the index alone.
fn maildir(messages: usize, text: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for part in ["new", "cur", "tmp"] {
        fs::create_dir(folder.path().join(part)).expect("a folder");
    }
    for message in 0..messages {
        let (part, flags) = [("new", ""), ("cur", ":2,S")][message % 2];
        let name = format!("{part}/17{message:08}.M1P7890_{message:06}.mx.example.org{flags}");
        fs::write(folder.path().join(name), text).expect("a message");
    }
    folder
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

/// A login in a process that was just started.
fn restarted(at: &Location) -> (Maildrops, Opened) {
    let maildrops = Maildrops::new(CACHE);
    let opened = maildrops.open(at).expect("it opens");
    (maildrops, opened)
}

/// Logs in until the index can vouch for the directories.
fn settle(at: &Location) -> (Maildrops, Opened) {
    loop {
        let (maildrops, opened) = restarted(at);
        if matches!(opened.snapshot.standing(), Standing::Settled { .. }) {
            return (maildrops, opened);
        }
    }
}

fn first_login(criterion: &mut Criterion) {
    const MESSAGES: usize = 10_000;
    let folder = maildir(MESSAGES, &LINE.repeat(LINES));
    let at = Location::beside(folder.path());
    let mut group = criterion.benchmark_group(format!("{MESSAGES} messages of 4 KiB, no index"));
    group.sample_size(20);
    let mut buffer = Vec::new();
    group.bench_function("read all files", |bencher| {
        let whole = LINE.len() * LINES * MESSAGES;
        bencher.iter(|| assert_eq!(read_all(folder.path(), &mut buffer), whole));
    });
    group.bench_function("login that makes the index", |bencher| {
        bencher.iter_batched(
            || fs::remove_file(folder.path().join("popcore.index")),
            |_| {
                let (maildrops, opened) = restarted(&at);
                assert_eq!(opened.snapshot.len(), MESSAGES);
                assert_eq!(opened.snapshot.total().get(), OCTETS * MESSAGES as u64);
                (maildrops, opened)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn later_logins(criterion: &mut Criterion) {
    for messages in [1_000, 100_000] {
        let folder = maildir(messages, "x\n");
        let at = Location::beside(folder.path());
        let (maildrops, opened) = settle(&at);
        assert_eq!(opened.snapshot.total().get(), 3 * messages as u64);
        let memory = opened.snapshot.memory();
        println!("{messages} messages: the snapshot takes {memory} octets");
        drop(opened);
        let mut group = criterion.benchmark_group(format!("{messages} messages, indexed"));
        group.sample_size(20);
        group.bench_function("login after a restart", |bencher| {
            // Each lets go of the lock before the next.
            bencher.iter_batched(
                || (),
                |()| {
                    let (maildrops, opened) = restarted(&at);
                    assert_eq!(opened.snapshot.len(), messages);
                    (maildrops, opened)
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function("login with the snapshot in memory", |bencher| {
            bencher.iter(|| {
                let opened = maildrops.open(&at).expect("it opens");
                assert_eq!(opened.snapshot.len(), messages);
                opened
            });
        });
        listing(&mut group, &maildrops, &at);
        delivery(&mut group, &maildrops, &at);
        group.finish();
    }
}

fn listing(
    group: &mut BenchmarkGroup<'_, criterion::measurement::WallTime>,
    maildrops: &Maildrops,
    at: &Location,
) {
    let opened = maildrops.open(at).expect("it opens");
    let snapshot = &opened.snapshot;
    let mut out = Vec::new();
    group.bench_function("unique-ids of all", |bencher| {
        bencher.iter(|| {
            out.clear();
            let mut message = Some(MessageNumber::FIRST);
            while let Some(number) = message
                && snapshot.octets(number).is_some()
            {
                snapshot.write_uidl(number, &mut out);
                out.push(b'\n');
                message = number.next();
            }
            let rows = memchr::memchr_iter(b'\n', &out).count();
            assert_eq!(rows, snapshot.len());
        });
    });
}

fn delivery(
    group: &mut BenchmarkGroup<'_, criterion::measurement::WallTime>,
    maildrops: &Maildrops,
    at: &Location,
) {
    let before = maildrops.open(at).expect("it opens").snapshot.len();
    let name = at.path.join("new/1800000000.new");
    group.bench_function("login after one delivery into new/", |bencher| {
        bencher.iter_batched(
            || {
                // Removed and noticed, so that it is new again.
                let _ = fs::remove_file(&name);
                assert_eq!(maildrops.open(at).expect("it opens").snapshot.len(), before);
                fs::write(&name, "x\n").expect("a message");
            },
            |()| {
                let opened = maildrops.open(at).expect("it opens");
                assert_eq!(opened.snapshot.len(), before + 1);
                opened
            },
            BatchSize::PerIteration,
        );
    });
    let index = fs::metadata(at.path.join("popcore.index")).expect("an index");
    assert!(
        index.len() < 300 * before as u64 + 16_384,
        "{} octets",
        index.len()
    );
}

criterion_group!(benches, first_login, later_logins);
criterion_main!(benches);
