//! LIST and UIDL of 10,000 messages, and a whole poll session, through
//! `Session` and `Output`: the server's share of a poll without its system
//! calls.

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use popcore::auth::Account;
use popcore::maildrop::Snapshot;
use popcore::proto::Output;
use popcore::session::{Action, Channel, End, Outcome, Policy, Session, Step};

/// Room of the output, as a pool of buffers would have it.
const ROOM: usize = 16 << 10;

fn name(number: u32) -> String {
    format!("1700{number:06}.M123456P4242.mail.example.net")
}

fn snapshot(messages: u32) -> Arc<Snapshot> {
    let builder = (1..=messages).fold(Snapshot::builder("/mail"), |builder, number| {
        builder.message(name(number), 1000 + u64::from(number))
    });
    Arc::new(builder.build())
}

fn policy() -> Arc<Policy> {
    Arc::new(Policy {
        hostname: "pop.example.net".to_owned(),
        plaintext_without_tls: true,
        names: popcore::auth::NameRules::default(),
        mechanisms: popcore::sasl::Mechanism::ALL.into_iter().collect(),
        apop: false,
        tokens: popcore::sasl::TokenTerms::default(),
        idle: Duration::from_mins(10),
        login: Duration::from_mins(1),
        failure_delay: Duration::from_secs(2),
        login_delay: None,
        retention: None,
    })
}

/// Feeds one line and takes every step; `sink` gets what would be sent.
fn say(
    session: &mut Session,
    line: &[u8],
    snapshot: &Arc<Snapshot>,
    now: Instant,
    mut buffer: Vec<u8>,
    mut sink: impl FnMut(&[u8]),
) -> (Vec<u8>, Option<End>) {
    buffer.clear();
    let mut out = Output::new(buffer);
    let mut step = session.handle_line(line, now, &mut out);
    loop {
        step = match step {
            Step::Continue | Step::Close(_) => {
                sink(out.as_bytes());
                let end = match step {
                    Step::Close(end) => Some(end),
                    _ => None,
                };
                return (out.into_buffer(), end);
            }
            Step::Flush => {
                sink(out.as_bytes());
                let mut buffer = out.into_buffer();
                buffer.clear();
                out = Output::new(buffer);
                session.handle_flushed(now, &mut out)
            }
            Step::Perform(action) => {
                let outcome = match action {
                    Action::Authenticate(credentials) => Outcome::Authenticated(Ok(Account {
                        user: credentials.identity.user,
                        home: None,
                        mail: None,
                        limits: None,
                    })),
                    Action::OpenMaildrop(_) => Outcome::MaildropOpened(Ok(Arc::clone(snapshot))),
                    action => panic!("{action:?} is no part of a poll"),
                };
                session.handle_outcome(outcome, now, &mut out)
            }
        };
    }
}

fn expected(messages: u32, row: impl Fn(u32) -> String) -> Vec<u8> {
    let octets: u64 = (1..=messages).map(|number| 1000 + u64::from(number)).sum();
    let mut text = format!("+OK {messages} messages ({octets} octets)\r\n");
    for number in 1..=messages {
        write!(text, "{number} {}\r\n", row(number)).expect("a String takes all");
    }
    text.push_str(".\r\n");
    text.into_bytes()
}

fn logged_in(snapshot: &Arc<Snapshot>, now: Instant, mut buffer: Vec<u8>) -> (Session, Vec<u8>) {
    buffer.clear();
    let mut out = Output::new(buffer);
    let mut session = Session::new(policy(), Channel::Tls, now, &mut out);
    buffer = out.into_buffer();
    for line in [&b"USER alice@example.net"[..], b"PASS secret"] {
        (buffer, _) = say(&mut session, line, snapshot, now, buffer, |_| ());
    }
    (session, buffer)
}

fn listing(c: &mut Criterion) {
    const MESSAGES: u32 = 10_000;
    let now = Instant::now();
    let snapshot = snapshot(MESSAGES);
    let (mut session, mut buffer) = logged_in(&snapshot, now, Vec::with_capacity(ROOM));
    let mut group = c.benchmark_group("listing");
    let list = expected(MESSAGES, |number| (1000 + number).to_string());
    let uidl = expected(MESSAGES, name);
    for (line, wanted) in [("LIST", list), ("UIDL", uidl)] {
        let mut heard = Vec::new();
        (buffer, _) = say(
            &mut session,
            line.as_bytes(),
            &snapshot,
            now,
            buffer,
            |part| {
                heard.extend_from_slice(part);
            },
        );
        assert!(heard == wanted, "{line} is wrong");
        group.throughput(Throughput::Elements(u64::from(MESSAGES)));
        group.bench_function(format!("{line} of 10,000"), |b| {
            b.iter(|| {
                let lent = std::mem::take(&mut buffer);
                let sink = |part: &[u8]| _ = black_box(part);
                (buffer, _) = say(&mut session, line.as_bytes(), &snapshot, now, lent, sink);
            });
        });
    }
    group.finish();
}

fn poll(c: &mut Criterion) {
    const MESSAGES: u32 = 20;
    let now = Instant::now();
    let snapshot = snapshot(MESSAGES);
    let policy = policy();
    let mut buffer = Vec::with_capacity(ROOM);
    let run = |mut buffer: Vec<u8>, sink: &mut dyn FnMut(&[u8])| {
        buffer.clear();
        let mut out = Output::new(buffer);
        let mut session = Session::new(Arc::clone(&policy), Channel::Tls, now, &mut out);
        sink(out.as_bytes());
        let mut buffer = out.into_buffer();
        let mut ended = None;
        let lines = [
            "USER alice@example.net",
            "PASS secret",
            "STAT",
            "UIDL",
            "QUIT",
        ];
        for line in lines {
            let line = line.as_bytes();
            (buffer, ended) = say(&mut session, line, &snapshot, now, buffer, &mut *sink);
        }
        assert_eq!(ended, Some(End::Quit));
        buffer
    };
    let mut heard = Vec::new();
    buffer = run(buffer, &mut |part| heard.extend_from_slice(part));
    let uidl = expected(MESSAGES, name);
    let wanted = [
        b"+OK popcore ready on pop.example.net\r\n+OK send the password\r\n+OK logged in\r\n",
        &b"+OK 20 20210\r\n"[..],
        &uidl,
        b"+OK popcore signing off\r\n",
    ]
    .concat();
    assert!(heard == wanted, "{}", heard.escape_ascii());
    c.bench_function("listing/poll session of 20 messages", |b| {
        b.iter(|| {
            let lent = std::mem::take(&mut buffer);
            buffer = run(lent, &mut |part| _ = black_box(part));
        });
    });
}

criterion_group!(benches, listing, poll);
criterion_main!(benches);
