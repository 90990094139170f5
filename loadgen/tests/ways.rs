//! The real binary's ways to load, to log in, to misbehave and to tell, against a
//! server that plays a script.

mod binary;
mod server;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use binary::{count, load, number, run};
use rustix::process::{Pid, Signal, kill_process};
use rustls::server::Acceptor;
use serde_json::Value;
use server::{Answer, FakeServer, honest};

#[test]
fn a_session_that_waits_for_its_turn_counts_from_when_it_was_due() {
    // One user, a tenth of a second each: ten a second is what can be had.
    let server = FakeServer::start(|command| {
        if command.starts_with("PASS") {
            thread::sleep(Duration::from_millis(100));
        }
        honest(command)
    });
    let (_, closed, _) = load(
        &server,
        "--profile login --users u --sessions 1 --duration 1",
    );
    assert!(number(&closed, "/latency_us/session/p50") < 300_000.0);
    let (_, open, shown) = load(
        &server,
        "--profile login --users u --rate 20/s --duration 1",
    );
    assert_eq!(count(&open, "/sessions"), 20, "{shown}");
    assert!(number(&open, "/elapsed_s") >= 2.0);
    // The last was due after 0.95 s and ended after 2.
    assert!(
        number(&open, "/latency_us/session/max") > 950_000.0,
        "{shown}"
    );
    assert!(
        number(&open, "/latency_us/session/p50") > 400_000.0,
        "{shown}"
    );
    assert_eq!(count(&open, "/latency_us/lag/count"), 20);
}

#[test]
fn a_generator_that_falls_behind_says_so() {
    let server = FakeServer::start(honest);
    let child = Command::new(env!("CARGO_BIN_EXE_popcore-loadgen"))
        .args([
            "--target",
            &server.address(),
            "--password",
            "pw",
            "--json",
            "-",
        ])
        .args([
            "--profile",
            "login",
            "--users",
            "u{0..9}",
            "--rate",
            "100/s",
            "--duration",
            "2",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the generator starts");
    server.wait_for_sessions(5);
    // A machine that takes the generator's CPU away for half a second.
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.expect("a pid");
    kill_process(pid, Signal::STOP).expect("a signal");
    thread::sleep(Duration::from_millis(500));
    kill_process(pid, Signal::CONT).expect("a signal");
    let output = child.wait_with_output().expect("an end");
    let shown = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(output.status.code(), Some(3), "{shown}");
    let reason = report["invalid"].as_str().unwrap_or_default();
    assert!(reason.contains("fell behind its schedule"), "{shown}");
    assert!(shown.contains("INVALID"), "{shown}");
    assert_eq!(count(&report, "/sessions"), 200, "{shown}");
}

#[test]
fn pipelining_and_lockstep_do_the_same() {
    let server = FakeServer::start_in_pieces(9, honest);
    for more in ["", "--pipelining"] {
        let arguments = format!(
            "--profile drain --users u{{0..11}} --sessions 1 --max-sessions 12 --duration 60 {more}"
        );
        let (code, report, shown) = load(&server, &arguments);
        assert_eq!(code, Some(0), "{shown}");
        assert_eq!(count(&report, "/commands"), 144, "{shown}");
        assert_eq!(count(&report, "/deleted"), 36);
    }
}

/// Connections of a server that the kernel keeps in TIME-WAIT (proc(5), net/tcp).
fn waiting(server: &FakeServer) -> usize {
    let address = server.address();
    let port: u16 = address
        .rsplit(':')
        .next()
        .expect("a port")
        .parse()
        .expect("a port");
    let (local, time_wait) = (format!(":{port:04X}"), "06");
    let table = fs::read_to_string("/proc/net/tcp").expect("proc is mounted");
    let rows = table
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[1].ends_with(&local) && row[3] == time_wait)
        .count()
}

#[test]
fn a_reset_after_the_servers_end_leaves_no_port_waiting() {
    let server = FakeServer::start(honest);
    let few = "--profile poll --users u{0..7} --sessions 4 --max-sessions 40 --duration 60";
    let (code, report, shown) = load(&server, few);
    assert_eq!(
        (code, count(&report, "/sessions")),
        (Some(0), 40),
        "{shown}"
    );
    assert_eq!(waiting(&server), 0);
    let (code, report, shown) = load(&server, &format!("{few} --close fin"));
    assert_eq!(
        (code, count(&report, "/sessions")),
        (Some(0), 40),
        "{shown}"
    );
    assert_eq!(waiting(&server), 40);
}

#[test]
fn a_scenario_file_is_played_with_its_weights_and_pauses() {
    let server = FakeServer::start(honest);
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = "[[session]]\nname = 'a'\nweight = 3\nsteps = ['stat', 'think 0.05', 'noop']\n\
                [[session]]\nname = 'b'\nsteps = ['list', 'uidl', 'dele 1', 'rset', 'retr new']\n";
    fs::write(file.path(), text).expect("written");
    let arguments = format!(
        "--scenario {} --users u{{0..7}} --sessions 4 --max-sessions 200 --duration 60",
        file.path().display()
    );
    let (code, report, shown) = load(&server, &arguments);
    assert_eq!(code, Some(0), "{shown}");
    let (a, b) = (
        count(&report, "/latency_us/noop/count"),
        count(&report, "/latency_us/rset/count"),
    );
    assert_eq!(a + b, 200);
    assert!(
        (120..180).contains(&a),
        "{a} of 200, three in four are expected"
    );
    // A message is new once to each user, and no DELE outlives its RSET.
    assert!(number(&report, "/messages") <= 24.0, "{shown}");
    assert_eq!(count(&report, "/deleted"), 0);
    assert!(number(&report, "/latency_us/session/p50") >= 50_000.0);
}

#[test]
fn pauses_and_a_schedule_beyond_reach_do_not_outlast_the_run() {
    let server = FakeServer::start(honest);
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = "[[session]]\nname = 'a'\nsteps = ['stat', 'think 3600', 'think 3600', 'noop']\n";
    fs::write(file.path(), text).expect("written");
    let arguments = format!(
        "--scenario {} --users u{{0..3}} --sessions 4 --duration 1",
        file.path().display()
    );
    let (code, report, shown) = load(&server, &arguments);
    assert_eq!((code, count(&report, "/sessions")), (Some(0), 4), "{shown}");
    // A user, a tenth of a second each: of 5,000 sessions few are begun.
    let slow = FakeServer::start(|command| {
        if command.starts_with("PASS") {
            thread::sleep(Duration::from_millis(100));
        }
        honest(command)
    });
    let (code, report, shown) = load(
        &slow,
        "--profile login --users u --rate 5000/s --duration 1 --timeout 1",
    );
    assert_eq!(code, Some(1), "{shown}");
    assert!(number(&report, "/elapsed_s") < 30.0, "{shown}");
    let (done, failed) = (
        count(&report, "/sessions"),
        count(&report, "/failed_sessions"),
    );
    assert_eq!(done + failed, 5_000, "{shown}");
    assert!(
        shown.contains("was due, and no session came free"),
        "{shown}"
    );
}

#[test]
fn a_proxy_header_and_a_token_arrive() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let server = FakeServer::start(move |line| {
        kept.lock().expect("no panic").push(line.to_owned());
        match line {
            line if line.starts_with("PROXY ") => Answer::say(""),
            line => honest(line),
        }
    });
    let (code, _, shown) = load(
        &server,
        "--profile poll --users ann --sessions 1 --max-sessions 2 --duration 60 --auth xoauth2 \
         --proxy v1 --proxy-sources 198.51.100.7",
    );
    assert_eq!(code, Some(0), "{shown}");
    let lines = seen.lock().expect("no panic");
    let header = lines.iter().find(|line| line.starts_with("PROXY "));
    assert!(header.is_some_and(|h| h.starts_with("PROXY TCP4 198.51.100.7 127.0.0.1 ")));
    // user=ann, ^A, auth=Bearer pw, ^A^A
    let auth = "AUTH XOAUTH2 dXNlcj1hbm4BYXV0aD1CZWFyZXIgcHcBAQ==";
    assert!(lines.iter().any(|line| line == auth), "{lines:?}");
}

/// The name that a client of TLS asks for, by the server's side of rustls.
fn name_asked_for(stream: &mut TcpStream) -> Option<String> {
    let mut acceptor = Acceptor::default();
    loop {
        let read = acceptor.read_tls(stream).expect("a hello");
        assert!(read > 0, "the hello is cut short");
        if let Some(accepted) = acceptor.accept().expect("a hello") {
            return accepted.client_hello().server_name().map(str::to_owned);
        }
    }
}

/// A server that hears a hello, from the first octet on or behind STLS, and leaves.
fn hear_hello(stream: &mut TcpStream, stls: bool) -> Option<String> {
    if stls {
        stream.write_all(b"+OK\r\n").expect("sent");
        let mut command = [0; 6];
        stream.read_exact(&mut command).expect("a command");
        assert_eq!(&command, b"STLS\r\n");
        stream.write_all(b"+OK\r\n").expect("sent");
    }
    name_asked_for(stream)
}

#[test]
fn a_server_is_asked_for_by_the_name_that_was_given() {
    for (host, sni, expected) in [
        (
            "127.0.0.1",
            "--sni mail.example.net",
            Some("mail.example.net"),
        ),
        (
            "localhost",
            "--sni mail.example.net",
            Some("mail.example.net"),
        ),
        ("localhost", "", Some("localhost")),
        // An address is no name (RFC 6066, section 3).
        ("127.0.0.1", "", None),
    ] {
        for mode in ["implicit", "stls"] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("a client");
                hear_hello(&mut stream, mode == "stls")
            });
            let (code, report, shown) = run(&format!(
                "--target {host}:{port} --password pw --users u --sessions 1 --max-sessions 1 \
                 --profile login --json - --tls {mode} --insecure {sni}"
            ));
            // The server has gone amid the handshake, which it came to.
            assert_eq!(code, Some(1), "{shown}");
            assert_eq!(count(&report, "/latency_us/connect/count"), 1, "{shown}");
            let asked = server.join().expect("a hello");
            assert_eq!(asked.as_deref(), expected, "{host} {mode} {sni}");
        }
    }
}

#[test]
fn sessions_that_misbehave_are_in_no_figure_but_their_own() {
    let quits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&quits);
    let server = FakeServer::start(move |command| {
        counted.fetch_add(usize::from(command == "QUIT"), Relaxed);
        honest(command)
    });
    let (code, report, shown) = load(
        &server,
        "--profile fetch --users u{0..63} --sessions 16 --max-sessions 150 --duration 5 --chaos 0.5",
    );
    assert_eq!(code, Some(0), "{shown}");
    let kinds = ["slow-reader", "half-open", "one-byte-writer", "reset"];
    let chaos: u64 = kinds
        .iter()
        .map(|kind| {
            let number = count(&report, &format!("/chaos/sessions/{kind}"));
            assert!(number > 0, "{kind}: {shown}");
            number
        })
        .sum();
    let sane = count(&report, "/sessions");
    assert!(sane > 0 && (20..=150).contains(&chaos), "{shown}");
    assert_eq!(count(&report, "/latency_us/session/count"), sane);
    assert_eq!(count(&report, "/latency_us/pass/count"), sane);
    assert!(quits.load(Relaxed) as u64 >= sane);
}

/// When octets came in a session, and what commands they ended.
type Arrivals = Vec<(Instant, usize, Vec<String>)>;

/// Whether a session was as slow as its kind of client is.
type Judge = dyn Fn(&Arrivals) -> bool;

/// A message that does not fit into a few sips.
const LONG: usize = 32 * 1024;

/// Answers a session of one long message, and keeps when what came.
fn watched(stream: &TcpStream) -> Arrivals {
    let mut arrivals = Vec::new();
    let (mut ear, mut mouth) = (stream, stream);
    let mut say = |text: &str| mouth.write_all(text.as_bytes()).is_ok();
    let mut there = say("+OK\r\n");
    let (mut piece, mut line) = ([0; 512], String::new());
    while there {
        let count = match ear.read(&mut piece) {
            Ok(0) | Err(_) => return arrivals,
            Ok(count) => count,
        };
        let now = Instant::now();
        line.push_str(std::str::from_utf8(&piece[..count]).expect("commands"));
        let mut commands = Vec::new();
        while let Some((command, rest)) = line.split_once("\r\n") {
            there &= match command.get(..4) {
                Some("STAT") => say(&format!("+OK 1 {LONG}\r\n")),
                Some("LIST") => say(&format!("+OK\r\n1 {LONG}\r\n.\r\n")),
                Some("UIDL") => say("+OK\r\n1 one\r\n.\r\n"),
                Some("RETR") => {
                    let text = format!("{:x>62}\r\n", "").repeat(LONG / 64);
                    say(&format!("+OK\r\n{text}.\r\n"))
                }
                Some("QUIT") => {
                    say("+OK\r\n");
                    false
                }
                _ => say("+OK\r\n"),
            };
            commands.push(command.to_owned());
            line = rest.to_owned();
        }
        arrivals.push((now, count, commands));
    }
    arrivals
}

#[test]
fn slow_readers_and_one_byte_writers_are_as_slow_as_they_are_called() {
    // 512 octets, or one, in 20 ms; a timer may be a little early.
    const TICK: Duration = Duration::from_millis(16);
    let writes_slowly = |session: &Arrivals| {
        let octets: usize = session.iter().map(|(_, count, _)| count).sum();
        let (Some(first), Some(last)) = (session.first(), session.last()) else {
            return false;
        };
        let gaps = u32::try_from(octets - 1).expect("a few commands");
        last.0 - first.0 >= TICK * gaps
    };
    let reads_slowly = |session: &Arrivals| {
        let sips = u32::try_from(LONG / 512).expect("some");
        session.windows(2).any(|pair| {
            let asked = pair[0].2.iter().any(|command| command.starts_with("RETR"));
            asked && pair[1].0 - pair[0].0 >= TICK * sips
        })
    };
    let is_slow: [(&str, &Judge); 2] = [
        ("one-byte-writer", &writes_slowly),
        ("slow-reader", &reads_slowly),
    ];
    for (kind, is_slow) in is_slow {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, sessions) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sender = sender.clone();
                // The test may be over before its last session.
                thread::spawn(move || drop(sender.send(watched(&stream))));
            }
        });
        let (code, report, shown) = run(&format!(
            "--target {address} --password p --users u{{0..15}} --sessions 2 --max-sessions 12 \
             --profile fetch --chaos 0.5 --chaos-kinds {kind} --json -"
        ));
        assert_eq!(code, Some(0), "{kind}: {shown}");
        let called = count(&report, &format!("/chaos/sessions/{kind}"));
        let all = count(&report, "/sessions") + called;
        let sessions: Vec<Arrivals> = sessions
            .iter()
            .take(usize::try_from(all).expect("few"))
            .collect();
        let slow = sessions.iter().filter(|session| is_slow(session)).count();
        assert!(called > 0, "{kind}: {shown}");
        assert!(slow as u64 >= called, "{kind}: {slow} of {called}: {shown}");
        assert!(slow < sessions.len(), "{kind}: all are slow");
    }
}

#[test]
fn what_gives_way_first_is_named() {
    // Four users, 20 ms each: 200 sessions a second at most.
    let server = FakeServer::start(|command| {
        if command.starts_with("PASS") {
            thread::sleep(Duration::from_millis(20));
        }
        honest(command)
    });
    let search = || {
        load(
            &server,
            "--profile login --users u{0..3} --find-max --slo session.p50<60ms,errors<1% \
             --duration 0.7",
        )
    };
    let gave_way = |report: &Value| {
        let told = report.pointer("/search/gave_way").and_then(Value::as_str);
        told.unwrap_or_else(|| panic!("nothing gave way: {report}"))
            .to_owned()
    };
    // On a machine that is busy enough it is the generator, which is said too.
    let (_, mut report, mut shown) = search();
    for _ in 0..5 {
        if !gave_way(&report).starts_with("the generator, not the server") {
            break;
        }
        (_, report, shown) = search();
    }
    let gave_way = gave_way(&report);
    assert!(gave_way.contains("session.p50<60ms ("), "{shown}");
    assert!(!gave_way.contains("errors<1%"), "{shown}");
    let highest = number(&report, "/search/max_rate_per_s");
    assert!((20.0..260.0).contains(&highest), "{shown}");
    assert!(shown.contains("first to give way"), "{shown}");
}

#[test]
fn results_are_merged_exactly_and_compared() {
    let server = FakeServer::start(honest);
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (name, sessions) in [("a.json", 30), ("b.json", 50)] {
        let (target, file) = (server.address(), path(name));
        let (code, _, shown) = run(&format!(
            "--target {target} --password pw --users u{{0..7}} --sessions 4 --profile poll \
             --max-sessions {sessions} --duration 60 --json {file} --quiet"
        ));
        assert_eq!(code, Some(0), "{shown}");
    }
    let (a, b) = (path("a.json"), path("b.json"));
    let (code, merged, shown) = run(&format!("merge {a} {b}"));
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(count(&merged, "/sessions"), 80);
    assert_eq!(count(&merged, "/latency_us/uidl/count"), 80);
    let read = |file: &str| -> Value {
        serde_json::from_slice(&fs::read(file).expect("written")).expect("JSON")
    };
    let longest = |report: &Value| number(report, "/latency_us/session/max");
    let most = longest(&read(&a)).max(longest(&read(&b)));
    assert!((longest(&merged) - most).abs() < 1e-9);

    let output = Command::new(env!("CARGO_BIN_EXE_popcore-loadgen"))
        .args(["compare", &a, &b])
        .output()
        .expect("the generator starts");
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && table.contains("sessions/s"),
        "{table}"
    );
    for wrong in [
        format!("compare {a} /nowhere"),
        format!("merge {a} {}", env!("CARGO_MANIFEST_PATH")),
    ] {
        let (code, _, shown) = run(&wrong);
        assert_eq!(code, Some(2), "{shown}");
        assert!(
            shown.contains("/nowhere") || shown.contains("is no JSON"),
            "{shown}"
        );
    }
}

#[test]
fn without_a_terminal_there_are_plain_lines() {
    let server = FakeServer::start(honest);
    let target = server.address();
    let (code, _, shown) = run(&format!(
        "--target {target} --password pw --users u{{0..3}} --sessions 2 --profile poll --duration 7"
    ));
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("sessions/s, p50 "), "{shown}");
    assert!(!shown.contains('\x1b'), "{shown}");
}
