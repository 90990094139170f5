//! A shard in this process: what it leaves when it has ended.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::sync::mpsc;

use crate::auth::{self, Broker};
use crate::maildrop::{Maildrops, Template};
use crate::observe::{Metrics, Sparing};
use crate::ring::tests::{descriptors, on_a_private_table};

use super::admission::{Admission, Visits};
use super::*;
use crate::auth::throttle::Throttle;
use crate::conn::Rules;
use crate::session::Policy;

fn services(root: &std::path::Path) -> Arc<Services> {
    for part in ["ann/new", "ann/cur"] {
        std::fs::create_dir_all(root.join(part)).expect("a folder");
    }
    std::fs::write(root.join("ann/new/1.m"), "x\n".repeat(8 << 20)).expect("a message");
    std::fs::write(root.join("users"), "ann:{PLAIN}secret\n").expect("a file");
    let path = root.join("users");
    let options = auth::Options {
        directories: vec![auth::DirectoryOptions {
            kind: auth::DirectoryKind::PasswdFile { path },
        }],
        masters: Vec::new(),
        scram_secret: None,
        oauth: None,
        desks: vec![None],
        threads: NonZeroUsize::MIN,
    };
    let template = format!("{}/{{user}}", root.display());
    let now = Instant::now();
    Arc::new(Services {
        admission: Admission::new(now),
        visits: Visits::new(now),
        throttle: Throttle::new(now),
        template: Template::parse(&template).expect("a template"),
        index: None,
        takeover: None,
        maildrops: Maildrops::new(1 << 20),
        broker: Broker::start(&options).expect("started"),
        strangers: Sparing::default(),
    })
}

/// Runs a shard while `clients` is at work, and then orders it to close.
fn with_a_shard(services: &Arc<Services>, clients: impl FnOnce(SocketAddr) -> Vec<TcpStream>) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (address, mut sockets) = listener::listen(any, 1).expect("free");
    let allowed = rustix::thread::sched_getaffinity(None).expect("known");
    let cpus = 0..rustix::thread::CpuSet::MAX_CPU;
    let (_metrics, mut writers) = Metrics::new(1);
    let orders = Arc::<Orders>::default();
    let plan = Plan {
        number: 0,
        cpu: cpus
            .into_iter()
            .find(|cpu| allowed.is_set(*cpu))
            .expect("one"),
        listeners: vec![Listener {
            socket: sockets.remove(0),
            address,
            tls: TlsMode::None,
        }],
        rules: Arc::new(CurrentRules::new(Arc::new(Rules::unlimited(Policy {
            hostname: "test".to_owned(),
            plaintext_without_tls: true,
            names: auth::NameRules::default(),
            mechanisms: crate::sasl::Mechanism::ALL.into_iter().collect(),
            apop: false,
            tokens: crate::sasl::TokenTerms::default(),
            idle: Duration::from_mins(10),
            login: Duration::from_mins(1),
            failure_delay: Duration::ZERO,
            login_delay: None,
            retention: None,
        })))),
        services: Arc::clone(services),
        tls: None,
        counters: writers.remove(0),
        ring: Arc::default(),
        write_stall: limits::WRITE_STALL,
        started: SystemTime::now(),
        orders: Arc::clone(&orders),
        far: Pool::start("far", NonZeroUsize::MIN).expect("a thread"),
        thresholds: Thresholds {
            text: limits::MAP_TEXT_FROM,
            wire: limits::MAP_WIRE_FROM,
        },
    };
    let (accepts, accepting) = mpsc::channel();
    let running = start(plan, move || accepts.send(()).expect("awaited")).expect("started");
    accepting.recv().expect("it accepts");
    let streams = clients(address);
    orders.give(Order::Close);
    running.join().expect("a clean end");
    drop(streams);
}

/// Clients in each state that a shard holds: silent, logged in, and in the midst of
/// a message that they do not read.
fn clients(address: SocketAddr) -> Vec<TcpStream> {
    let mut streams: Vec<TcpStream> = (0..20)
        .map(|_| TcpStream::connect(address).expect("connect"))
        .collect();
    for stream in &streams {
        let mut greeting = String::new();
        BufReader::new(stream)
            .read_line(&mut greeting)
            .expect("a line");
        assert!(greeting.starts_with("+OK"), "{greeting}");
    }
    let stream = &mut streams[0];
    stream
        .write_all(b"USER ann\r\nPASS secret\r\nRETR 1\r\n")
        .expect("written");
    let mut replies = BufReader::new(stream).lines();
    for _ in 0..3 {
        let reply = replies.next().expect("a line").expect("UTF-8");
        assert!(reply.starts_with("+OK"), "{reply}");
    }
    // In the queue, or just accepted.
    streams.extend((0..5).map(|_| TcpStream::connect(address).expect("connect")));
    streams
}

/// A thread that has just told a session its answer may hold the way to wake its shard
/// for a moment more.
fn await_descriptors(expected: &[String]) {
    let begun = Instant::now();
    while descriptors() != expected && begun.elapsed() < Duration::from_secs(20) {
        std::thread::yield_now();
    }
    assert_eq!(descriptors(), expected);
}

#[test]
fn a_shard_that_ends_leaves_no_descriptor_of_its_sessions() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().to_owned();
    on_a_private_table(|| {
        // Its threads wake shards by descriptors of the same table.
        let services = services(&root);
        let before = descriptors();
        with_a_shard(&services, |_| Vec::new());
        // glommio leaves an eventfd for each executor.
        let mut expected = before.clone();
        expected.push("anon_inode:[eventfd]".to_owned());
        expected.sort();
        await_descriptors(&expected);
        with_a_shard(&services, clients);
        expected.push("anon_inode:[eventfd]".to_owned());
        expected.sort();
        await_descriptors(&expected);
    });
}

#[test]
fn each_reason_why_nothing_was_accepted_has_its_counter() {
    let class = |code| classify(&io::Error::from_raw_os_error(code));
    assert_eq!(class(libc::EMFILE), AcceptError::Descriptors);
    assert_eq!(class(libc::ENFILE), AcceptError::Descriptors);
    assert_eq!(class(libc::ENOMEM), AcceptError::Memory);
    assert_eq!(class(libc::ENOBUFS), AcceptError::Memory);
    assert_eq!(class(libc::ECONNABORTED), AcceptError::Aborted);
    assert_eq!(class(libc::EINVAL), AcceptError::Other);
}
