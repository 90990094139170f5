//! What a login costs beside the verification of its password: the request to
//! an auth thread, the lookup among 100,000 users, the wake-up of whoever
//! waits; and what loading those users costs, which must stay below a second.
//!
//! `one at a time` is the latency of a login on an idle server, each with a
//! thread woken on both sides; `64 at a time` is a busy one. Beside criterion's
//! wall time, the processor time of the whole process per login is printed:
//! that is what a server pays.

#[path = "rig/waiting.rs"]
mod waiting;

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use popcore::auth::{
    Broker, Credentials, DirectoryKind, DirectoryOptions, Options, Password, Pending, UserName,
};
use rustix::time::{ClockId, clock_gettime};
use tempfile::NamedTempFile;
use waiting::{block_on, waker};

const USERS: usize = 100_000;

/// How long those users may take to load. What a debug build takes says nothing
/// of the server; there the bound only finds work that grows with its square.
const LOAD: Duration = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 1 });
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn users(stored: impl Fn(usize) -> String) -> NamedTempFile {
    let mut text = String::new();
    for n in 0..USERS {
        let stored = stored(n);
        writeln!(
            text,
            "user{n}@example.net:{stored}:5000:5000::/var/mail/user{n}::"
        )
        .expect("text");
    }
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn options(path: PathBuf, threads: usize) -> Options {
    Options {
        directories: vec![DirectoryOptions {
            kind: DirectoryKind::PasswdFile { path },
        }],
        masters: Vec::new(),
        scram_secret: None,
        oauth: None,
        desks: vec![None],
        threads: NonZeroUsize::new(threads).expect("not zero"),
    }
}

fn login(broker: &Broker, n: usize) -> Pending {
    let user = UserName::new(format!("user{n}@example.net").as_bytes()).expect("a name");
    let password = Password::new(format!("secret{n}").as_bytes()).expect("short");
    let credentials = Credentials::new(user, password);
    let candidate = broker.recall(credentials, FROM);
    broker.authenticate(0, candidate).expect("room")
}

fn process_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("not negative")
}

/// Runs `logins` logins, `at_once` of them waiting at a time.
fn logins(broker: &Broker, waker: &Waker, logins: usize, at_once: usize) {
    let mut done = 0;
    while done < logins {
        let batch = at_once.min(logins - done);
        let numbers = (done..done + batch).map(|n| n.wrapping_mul(7919) % USERS);
        let pending: Vec<_> = numbers.map(|n| (n, login(broker, n))).collect();
        for (n, pending) in pending {
            let account = block_on(pending, waker).expect("the password is right");
            let home = account.home.expect("a home");
            assert_eq!(home.as_os_str(), format!("/var/mail/user{n}").as_str());
        }
        done += batch;
    }
}

fn round_trips(c: &mut Criterion) {
    let file = users(|n| format!("{{PLAIN}}secret{n}"));
    let mut group = c.benchmark_group("broker");
    group.throughput(Throughput::Elements(1));
    for threads in [1, 2] {
        let broker = Broker::start(&options(file.path().into(), threads)).expect("started");
        let waker = waker();
        for at_once in [1, 64] {
            let name = format!("{at_once} at a time, {threads} threads");
            let (mut spent, mut count) = (Duration::ZERO, 0);
            group.bench_function(&name, |b| {
                b.iter_custom(|iterations| {
                    let (wall, cpu) = (Instant::now(), process_time());
                    let iterations = usize::try_from(iterations).expect("few");
                    logins(&broker, &waker, iterations, at_once);
                    spent += process_time().saturating_sub(cpu);
                    count += iterations;
                    wall.elapsed()
                });
            });
            if count > 0 {
                let nanos = spent.as_nanos() / count as u128;
                println!("{name}: {nanos} ns of processor time a login");
            }
        }
    }
    group.finish();
}

/// Processor time of logins that come one each half millisecond, so that all
/// threads sleep between them: the most that a login can cost. It includes the
/// generator's own sleep.
fn paced(_: &mut Criterion) {
    const LOGINS: u32 = 2000;
    let file = users(|n| format!("{{PLAIN}}secret{n}"));
    let broker = Broker::start(&options(file.path().into(), 2)).expect("started");
    let waker = waker();
    let start = process_time();
    for _ in 0..LOGINS {
        thread::sleep(Duration::from_micros(500));
        logins(&broker, &waker, 1, 1);
    }
    let nanos = (process_time().saturating_sub(start) / LOGINS).as_nanos();
    println!("paced, 2 threads: {nanos} ns of processor time a login");
}

fn loading(c: &mut Criterion) {
    let hash = "$6$saltstring$qvPJY4PeugKzKQqyIJ0gRdJnpS0uaaiZ.X1SaheFedsK/yZPwlluTLS90fJPM41sD5JxCHKgGr1..qt5HqEY8.";
    let file = users(|_| format!("{{SHA512-CRYPT}}{hash}"));
    let begun = Instant::now();
    let broker = Broker::start(&options(file.path().into(), 1)).expect("started");
    let took = begun.elapsed();
    println!(
        "{USERS} users are loaded {} ms after the start",
        took.as_millis()
    );
    assert!(took < LOAD, "{USERS} users take {took:?} to load");
    let mut group = c.benchmark_group("passwd-file");
    group.throughput(Throughput::Elements(USERS as u64));
    group.sample_size(10);
    group.bench_function("reload of 100,000 users", |b| {
        b.iter(|| {
            let begun = Instant::now();
            let report = black_box(broker.reload()).remove(0).expect("readable");
            assert_eq!((report.users, report.fault_count), (USERS, 0));
            assert!(
                begun.elapsed() < LOAD,
                "a reload takes {:?}",
                begun.elapsed()
            );
        });
    });
    group.finish();
    let report = broker.reload().remove(0).expect("readable");
    let octets = file.as_file().metadata().expect("a file").len();
    println!(
        "{USERS} users take {} octets of memory, the file {octets}",
        report.memory
    );
}

criterion_group!(benches, round_trips, paced, loading);
criterion_main!(benches);
