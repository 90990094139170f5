//! The real binary against servers that lie, break off or say nothing: each
//! fault must be found, counted under its kind and told by the exit code.
//!
//! The server here plays a script a connection: it is given each command and
//! says what to send. It is no model of a good server; only its honest script
//! is one.

mod server;

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use server::{Answer, FakeServer, honest};

/// What a run of the generator came to.
struct Run {
    code: Option<i32>,
    report: Value,
    shown: String,
}

impl Run {
    fn count(&self, kind: &str) -> u64 {
        let count = self.report.pointer(&format!("/errors/kinds/{kind}/count"));
        count.and_then(Value::as_u64).unwrap_or_default()
    }

    fn number(&self, pointer: &str) -> u64 {
        let number = self.report.pointer(pointer).and_then(Value::as_u64);
        number.unwrap_or_else(|| panic!("no {pointer} in\n{}", self.report))
    }
}

fn generator(target: &str, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_popcore-loadgen"));
    command.args(["--target", target, "--password", "pw", "--json", "-"]);
    command.args(arguments.split_whitespace());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(target: &str, arguments: &str) -> Run {
    let output = generator(target, arguments)
        .output()
        .expect("the generator starts");
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!shown.contains("panicked"), "{shown}");
    Run {
        code: output.status.code(),
        report: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        shown,
    }
}

/// One session of this profile against a server that answers as `lie` says.
fn one(profile: &str, lie: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static) -> Run {
    let server = FakeServer::start(move |command| lie(command).unwrap_or_else(|| honest(command)));
    let arguments = "--sessions 1 --max-sessions 1 --users u --timeout 1 --duration 20";
    run(
        &server.address(),
        &format!("--profile {profile} {arguments}"),
    )
}

/// The session's only fault is of this kind.
#[track_caller]
fn only(run: &Run, kind: &str) {
    assert_eq!(run.code, Some(1), "{}", run.shown);
    assert!(run.count(kind) > 0, "{kind} is not told:\n{}", run.shown);
    assert_eq!(
        run.count(kind),
        run.number("/errors/total"),
        "{}",
        run.shown
    );
    assert_eq!(run.number("/failed_sessions"), 1, "{}", run.shown);
    assert!(run.shown.contains(kind), "{}", run.shown);
}

fn lie(to: &'static str, reply: &'static str) -> impl Fn(&str) -> Option<Answer> + Send + Sync {
    move |command: &str| command.starts_with(to).then(|| Answer::say(reply))
}

#[test]
fn an_honest_server_passes_every_profile_in_any_segmentation() {
    for piece in [1, 7, 100_000] {
        let server = FakeServer::start_in_pieces(piece, honest);
        for (profile, commands, messages) in [
            ("login", 3, 0),
            ("poll", 5, 0),
            ("fetch", 9, 3),
            ("drain", 12, 3),
        ] {
            let arguments = format!(
                "--profile {profile} --sessions 3 --threads 2 --max-sessions 12 --users u{{0..35}} --duration 60"
            );
            let run = run(&server.address(), &arguments);
            assert_eq!(run.code, Some(0), "{profile}: {}", run.shown);
            assert_eq!(run.number("/sessions"), 12, "{}", run.shown);
            assert_eq!(run.number("/commands"), 12 * commands);
            assert_eq!(run.number("/messages"), 12 * messages);
            assert_eq!(run.number("/message_bytes"), 12 * messages * server::OCTETS);
            assert_eq!(run.number("/latency_us/session/count"), 12);
            assert_eq!(run.number("/latency_us/pass/count"), 12);
        }
    }
}

#[test]
fn a_user_has_one_session_at_a_time() {
    let server = FakeServer::start(honest);
    let arguments =
        "--profile poll --sessions 4 --threads 2 --max-sessions 200 --users u{0..6} --duration 60";
    let run = run(&server.address(), arguments);
    assert_eq!(run.code, Some(0), "{}", run.shown);
    assert_eq!(server.most_sessions_of_a_user(), 1);
    assert_eq!(server.users_seen(), 7);
}

#[test]
fn a_server_that_does_not_delete_is_told() {
    let server = FakeServer::start(honest);
    let arguments = "--profile drain --sessions 1 --users u --max-sessions 2 --duration 60";
    let run = run(&server.address(), arguments);
    only(&run, "doubled");
    assert_eq!(run.number("/deleted"), 3, "{}", run.shown);
}

#[test]
fn messages_that_vanish_and_uidls_that_change_are_told() {
    for (later, stat, kind) in [
        ("1 one\r\n2 two", "2 20", "lost"),
        ("1 one\r\n2 x\r\n3 three", "3 30", "uidl-changed"),
    ] {
        let polls = std::sync::atomic::AtomicUsize::new(0);
        let server = FakeServer::start(move |command| {
            let first = polls.load(std::sync::atomic::Ordering::Relaxed) < 2;
            match command {
                "QUIT" => {
                    polls.fetch_add(2, std::sync::atomic::Ordering::Relaxed);
                    honest(command)
                }
                "STAT" if !first => Answer::say(&format!("+OK {stat}\r\n")),
                "UIDL" if !first => Answer::say(&format!("+OK\r\n{later}\r\n.\r\n")),
                _ => honest(command),
            }
        });
        let arguments = "--profile poll --sessions 1 --users u --max-sessions 3 --duration 60";
        let run = run(&server.address(), arguments);
        only(&run, kind);
        assert_eq!(run.number("/sessions"), 2, "{}", run.shown);
    }
}

#[test]
fn a_size_that_list_did_not_announce_is_told() {
    let run = one("fetch", lie("RETR", "+OK\r\nshort\r\n.\r\n"));
    only(&run, "octets");
}

#[test]
fn a_dot_that_is_not_stuffed_is_told() {
    let run = one("fetch", lie("RETR 2", "+OK\r\nab\r\n.cde\r\n.\r\n"));
    only(&run, "unstuffed-dot");
}

#[test]
fn a_message_that_a_lone_dot_ends_early_is_told() {
    let run = one("fetch", lie("RETR 2", "+OK\r\nab\r\n.\r\nde\r\n.\r\n"));
    assert_eq!(run.code, Some(1));
    assert_eq!(
        (run.count("octets"), run.count("extra-data")),
        (1, 1),
        "{}",
        run.shown
    );
}

#[test]
fn a_stat_that_disagrees_is_told() {
    only(&one("drain", lie("STAT", "+OK 3 31\r\n")), "stat");
    only(&one("poll", lie("STAT", "+OK 4 30\r\n")), "stat");
}

#[test]
fn listings_that_skip_or_stammer_are_told() {
    only(
        &one("drain", lie("LIST", "+OK\r\n1 10\r\n3 10\r\n2 10\r\n.\r\n")),
        "listing",
    );
    only(
        &one("poll", lie("UIDL", "+OK\r\n1 a\r\n2\r\n3 c\r\n.\r\n")),
        "listing",
    );
}

#[test]
fn uidls_that_are_shared_or_malformed_are_told() {
    only(
        &one("poll", lie("UIDL", "+OK\r\n1 a\r\n2 b\r\n3 a\r\n.\r\n")),
        "uidl-duplicate",
    );
    only(
        &one("poll", lie("UIDL", "+OK\r\n1 a\r\n2 b c\r\n3 d\r\n.\r\n")),
        "uidl-syntax",
    );
}

#[test]
fn bare_line_feeds_are_told() {
    only(&one("poll", lie("USER", "+OK\n")), "bare-lf");
    only(
        &one("fetch", lie("RETR 1", "+OK\r\nabcd\n789\r\n.\r\n")),
        "bare-lf",
    );
}

#[test]
fn nonsense_and_endless_lines_are_told() {
    only(&one("poll", lie("PASS", "250 fine\r\n")), "nonsense");
    only(&one("poll", lie("STAT", "+OK plenty\r\n")), "nonsense");
    let endless = "x".repeat(100_000);
    let run = one("poll", move |command| {
        command.starts_with("STAT").then(|| Answer::say(&endless))
    });
    only(&run, "long-reply");
}

#[test]
fn refusals_are_told_in_the_servers_words() {
    let run = one("poll", lie("PASS", "-ERR [AUTH] wrong\r\n"));
    only(&run, "login-refused");
    let told = "u: PASS: -ERR [AUTH] wrong";
    assert!(run.shown.contains(told), "{}", run.shown);
    only(&one("poll", lie("UIDL", "-ERR unknown\r\n")), "refused");
}

#[test]
fn a_server_that_breaks_off_in_mid_message_is_told() {
    let run = one("fetch", |command| {
        command
            .starts_with("RETR")
            .then(|| Answer::say("+OK\r\nhalf of a li").and_close())
    });
    only(&run, "closed");
}

#[test]
fn a_server_that_falls_silent_in_mid_message_is_given_up() {
    let run = one("fetch", lie("RETR", "+OK\r\nhalf of a li"));
    only(&run, "timeout");
}

#[test]
fn a_server_that_stays_after_quit_is_told() {
    let run = one("login", lie("QUIT", "+OK bye\r\n"));
    assert_eq!(run.code, Some(1), "{}", run.shown);
    assert_eq!((run.count("no-close"), run.number("/errors/total")), (1, 1));
}

#[test]
fn a_server_that_never_greets_is_given_up() {
    only(
        &one("login", |command| {
            command.is_empty().then(|| Answer::say(""))
        }),
        "timeout",
    );
}

#[test]
fn a_target_that_is_not_there_ends_the_run_at_once() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = closed.local_addr().expect("an address").to_string();
    drop(closed);
    let started = Instant::now();
    let run = run(
        &address,
        "--profile poll --sessions 2 --users u{0..1} --duration 600",
    );
    assert_eq!(run.code, Some(1));
    assert!(run.shown.contains("Connection refused"), "{}", run.shown);
    assert!(run.shown.contains("given up"), "{}", run.shown);
    assert!(started.elapsed() < Duration::from_mins(1));
}

#[test]
fn a_server_that_refuses_is_not_hammered() {
    let server = FakeServer::start(|command| match command {
        "PASS pw" => Answer::say("-ERR no\r\n"),
        _ => honest(command),
    });
    // One user gets in, for a run without a single success ends by itself.
    let users = tempfile::NamedTempFile::new().expect("a temporary file");
    let refused = (1..20).map(|n| format!("refused{n}\n"));
    let text = std::iter::once("welcome:other\n".to_owned()).chain(refused);
    std::fs::write(users.path(), text.collect::<String>()).expect("written");
    let file = users.path().display();
    let arguments = format!("--profile poll --sessions 20 --users-file {file} --duration 2");
    let run = run(&server.address(), &arguments);
    assert_eq!(run.code, Some(1));
    assert!(run.number("/sessions") > 0, "{}", run.shown);
    // At 0, 0.1, 0.3, 0.7 and 1.5 s, and not before.
    let tried = run.count("login-refused");
    assert!(
        (20..=19 * 5).contains(&tried),
        "{tried} attempts in two seconds"
    );
}

#[test]
fn a_cpu_that_is_not_there_ends_the_run_at_once() {
    let server = FakeServer::start(honest);
    let arguments = "--profile poll --sessions 2 --users u{0..1} --duration 600 --cpu 0,1023";
    let started = Instant::now();
    let run = run(&server.address(), arguments);
    assert_eq!(run.code, Some(1));
    assert!(run.shown.contains("--cpu 1023"), "{}", run.shown);
    assert!(started.elapsed() < Duration::from_mins(1));
}

#[test]
fn idle_sessions_are_held_and_then_leave() {
    let server = FakeServer::start(honest);
    let own = std::process::id();
    let arguments = format!(
        "--profile idle --sessions 40 --users u{{0..39}} --duration 0.2 --server-pid {own}"
    );
    let run = run(&server.address(), &arguments);
    assert_eq!(run.code, Some(0), "{}", run.shown);
    assert_eq!(
        (run.number("/idle/held"), run.number("/sessions")),
        (40, 40)
    );
    assert!(
        run.report
            .pointer("/idle/server_bytes_per_session")
            .is_some_and(Value::is_f64)
    );
    assert!(run.number("/server/resident_bytes") > 0);
    assert!(
        run.report
            .pointer("/server/cpu_us_per_session")
            .is_some_and(Value::is_f64)
    );
}

#[test]
fn a_server_process_that_ends_takes_its_own_figures_only() {
    let server = FakeServer::start(honest);
    let mut watched = Command::new("sleep").arg("600").spawn().expect("sleep");
    let arguments = format!(
        "--profile poll --sessions 2 --users u{{0..1}} --duration 2 --server-pid {}",
        watched.id()
    );
    let child = generator(&server.address(), &arguments).spawn();
    let child = child.expect("the generator starts");
    server.wait_for_sessions(5);
    watched.kill().expect("own child");
    watched.wait().expect("own child");
    let output = child.wait_with_output().expect("an end");
    let shown = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("the server ended during the run"), "{shown}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert!(report["sessions"].as_u64() >= Some(5), "{report}");
    assert!(report["server"].is_null(), "{report}");
}

#[test]
fn an_interrupt_prints_what_was_measured() {
    let server = FakeServer::start(honest);
    let arguments = "--profile poll --sessions 2 --users u{0..1} --duration 600";
    let mut child = generator(&server.address(), arguments)
        .spawn()
        .expect("the generator starts");
    server.wait_for_sessions(5);
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let signal = rustix::process::Signal::INT;
    rustix::process::kill_process(pid.expect("a pid"), signal).expect("a signal");
    let mut json = String::new();
    let stdout = child.stdout.as_mut().expect("a pipe");
    stdout.read_to_string(&mut json).expect("text");
    let status = child.wait().expect("an end");
    assert_eq!(status.code(), Some(130));
    let report: Value = serde_json::from_str(&json).expect("a report");
    assert_eq!(report["interrupted"], true);
    assert!(report["sessions"].as_u64() >= Some(3), "{report}");
    assert_eq!(report["errors"]["total"], 0, "{report}");
}

#[test]
fn arguments_that_make_no_sense_are_refused_with_a_reason() {
    for (arguments, reason) in [
        ("--profile poll --sessions 2 --users u", "need 2 users"),
        ("--profile sing --users u", "possible values"),
        (
            "--profile poll --sessions 1 --users u{3..1}",
            "counting upwards",
        ),
        (
            "--profile poll --sessions 1 --users-file /nowhere/at/all",
            "/nowhere/at/all",
        ),
        (
            "--profile poll --sessions 1 --users u --html /nowhere/at/all.html",
            "--html /nowhere/at/all.html",
        ),
        (
            "--profile poll --sessions 1 --users u --repeat 2 --hdr /nowhere/h",
            "--hdr /nowhere/h-1",
        ),
    ] {
        let run = run("127.0.0.1:1", arguments);
        assert_eq!(run.code, Some(2), "{arguments}: {}", run.shown);
        assert!(run.shown.contains(reason), "{arguments}: {}", run.shown);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let csv = format!("--csv {}", folder.path().display());
    let refused = run(
        "127.0.0.1:1",
        &format!("--profile poll --sessions 1 --users u {csv}"),
    );
    assert_eq!(refused.code, Some(2), "{}", refused.shown);
    assert!(
        refused.shown.contains(&format!("{csv}: is a folder")),
        "{}",
        refused.shown
    );
    let run = run(
        "127.0.0.1:1",
        "--profile poll --sessions 1 --users u --server-pid 4194999",
    );
    assert_eq!(run.code, Some(1));
    assert!(run.shown.contains("4194999"), "{}", run.shown);
}
