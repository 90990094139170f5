//! The real binary against servers that lie, break off or say nothing: each
//! fault must be found, counted under its kind and told by the exit code.
//!
//! The server here plays a script a connection: it is given each command and
//! says what to send. It is no model of a good server; only its honest script
//! is one.

mod server;

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
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

fn lie_or_honest(
    to: &'static str,
    reply: &'static str,
) -> impl Fn(&str) -> Answer + Send + Sync + 'static {
    let lie = lie(to, reply);
    move |command: &str| lie(command).unwrap_or_else(|| honest(command))
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
fn what_top_gives_is_looked_at_line_by_line() {
    for (reply, kind) in [
        ("+OK\r\nSubject: x\r\n.y: z\r\n\r\n.\r\n", "unstuffed-dot"),
        ("+OK\r\nSubject: x\n\r\n.\r\n", "bare-lf"),
    ] {
        let run = one("abusive", lie("TOP 2", reply));
        only(&run, kind);
        // The profile asks all twice.
        assert_eq!(run.count(kind), 2, "{}", run.shown);
        assert!(run.shown.contains("u: TOP 2: 1 lines"), "{}", run.shown);
        // What TOP gives is no message that was fetched.
        assert_eq!(run.number("/messages"), 0);
    }
    let stuffed = "+OK\r\nSubject: x\r\n..y: z\r\n\r\n.\r\n";
    let run = one("abusive", lie("TOP 2", stuffed));
    assert_eq!(run.code, Some(0), "{}", run.shown);
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
fn a_run_that_cannot_be_leaves_those_before_it() {
    let server = FakeServer::start(honest);
    let mut watched = Command::new("sleep").arg("600").spawn().expect("sleep");
    let arguments = format!(
        "--profile poll --sessions 1 --users u --duration 1 --repeat 600 --server-pid {}",
        watched.id()
    );
    let mut child = generator(&server.address(), &arguments)
        .spawn()
        .expect("the generator starts");
    let mut shown = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let first = shown.find(|l| l.as_ref().is_ok_and(|l| l.starts_with("run 1 of 600: ")));
    assert!(first.is_some());
    // The second is on its way at the most, and the third cannot be begun.
    watched.kill().expect("own child");
    watched.wait().expect("own child");
    let rest: Vec<String> = shown.map_while(Result::ok).collect();
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(1), "{rest:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    let runs = report["runs"].as_array().expect("runs");
    assert!((1..=2).contains(&runs.len()), "{rest:?}");
    assert!(runs[0]["sessions"].as_u64() > Some(0), "{report}");
    let told = rest
        .iter()
        .any(|line| line.starts_with("popcore-loadgen: run "));
    assert!(told, "{rest:?}");
}

#[test]
fn an_interrupt_prints_what_was_measured() {
    let server = FakeServer::start(honest);
    let arguments = "--profile poll --sessions 2 --users u{0..1} --duration 600";
    let mut child = generator(&server.address(), arguments)
        .spawn()
        .expect("the generator starts");
    server.wait_for_sessions(5);
    signal(&child, Signal::INT);
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

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a pid"), signal).expect("a signal");
}

/// Waits until the child handles SIGINT (proc(5), `SigCgt`).
fn wait_for_handler(child: &Child) {
    let status = format!("/proc/{}/status", child.id());
    loop {
        let status = std::fs::read_to_string(&status).expect("a living child");
        let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.expect("a mask").trim(), 16);
        if caught.expect("a mask") & 2 != 0 {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The child's end; a child that does not end is killed, and that is no end.
#[track_caller]
fn ends_within(child: &mut Child, patience: Duration) -> Option<i32> {
    let started = Instant::now();
    while started.elapsed() < patience {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.code();
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.kill().expect("own child");
    child.wait().expect("own child");
    panic!("the generator does not end");
}

fn pipe_nobody_opens(folder: &Path) -> String {
    let path = folder.join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).expect("own folder");
    path.display().to_string()
}

#[test]
fn an_interrupt_before_the_run_ends_the_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let arguments = format!(
        "--profile poll --sessions 1 --users-file {}",
        pipe_nobody_opens(folder.path())
    );
    let mut child = generator("127.0.0.1:1", &arguments)
        .spawn()
        .expect("the generator starts");
    wait_for_handler(&child);
    signal(&child, Signal::INT);
    assert_eq!(ends_within(&mut child, Duration::from_secs(20)), Some(130));
}

#[test]
fn a_second_interrupt_ends_what_does_not_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = FakeServer::start(honest);
    // The result is written to a pipe that nobody reads.
    let arguments = format!(
        "--profile poll --sessions 1 --users u --duration 600 --csv {}",
        pipe_nobody_opens(folder.path())
    );
    let mut child = generator(&server.address(), &arguments)
        .spawn()
        .expect("the generator starts");
    server.wait_for_sessions(3);
    signal(&child, Signal::INT);
    // As soon as the first one has arrived; until then the two are one.
    let status = format!("/proc/{}/status", child.id());
    while std::fs::read_to_string(&status).is_ok_and(|s| !s.contains("ShdPnd:\t0000000000000000")) {
        thread::sleep(Duration::from_millis(5));
    }
    signal(&child, Signal::INT);
    assert_eq!(ends_within(&mut child, Duration::from_secs(20)), Some(130));
}

#[test]
fn a_search_that_is_interrupted_believes_no_rate_that_was_cut_short() {
    let server = FakeServer::start(honest);
    let arguments = "--profile login --users u{0..3} --duration 2 --find-max --slo p99<9s --quiet";
    let mut child = generator(&server.address(), arguments)
        .spawn()
        .expect("the generator starts");
    let mut shown = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let probed = shown.find(|line| line.as_ref().is_ok_and(|l| l.starts_with("closed loop: ")));
    assert!(probed.is_some());
    // The first rate is on its way.
    server.wait_for_sessions(server.sessions() + 5);
    signal(&child, Signal::INT);
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(130));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(report["interrupted"], true);
    assert_eq!(
        report["search"]["trials"],
        serde_json::json!([]),
        "{report}"
    );
    assert_eq!(report["search"]["max_rate_per_s"], Value::Null);
}

#[test]
fn outputs_that_are_closed_or_full_are_no_panic() {
    let server = FakeServer::start(honest);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("run.json").display().to_string();
    let target = format!(
        "--target {} --password pw --users u{{0..3}}",
        server.address()
    );
    let run = format!("{target} --sessions 2 --max-sessions 8 --profile poll");
    for (arguments, codes) in [
        (format!("{run} --json {file}"), [1, 1]),
        (run.clone(), [1, 1]),
        (format!("{run} --json -"), [1, 1]),
        (format!("{run} --repeat 2"), [1, 1]),
        (format!("compare {file} {file}"), [1, 1]),
        (format!("merge {file} {file}"), [1, 1]),
        ("--profile poll".to_owned(), [2, 2]),
        ("--help".to_owned(), [0, 0]),
    ] {
        let full = || {
            std::fs::OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .expect("a device")
        };
        // A pipe without a reader.
        let closed = || std::io::pipe().expect("a pipe").1;
        let outputs: [(Stdio, Stdio); 2] = [
            (full().into(), full().into()),
            (closed().into(), closed().into()),
        ];
        for ((stdout, stderr), code) in outputs.into_iter().zip(codes) {
            let mut command = Command::new(env!("CARGO_BIN_EXE_popcore-loadgen"));
            command
                .args(arguments.split_whitespace())
                .stdin(Stdio::null());
            let status = command.stdout(stdout).stderr(stderr).status();
            let status = status.expect("the generator starts");
            assert_eq!(status.code(), Some(code), "{arguments}: {status}");
        }
    }
    let written: Value = serde_json::from_slice(&std::fs::read(&file).expect("written"))
        .expect("the file is whole though nobody read the table");
    assert_eq!(written["sessions"], 8);
}

#[test]
fn a_stat_that_promises_billions_takes_no_memory() {
    let server = FakeServer::start(|command| match command.get(..4) {
        Some("STAT") => Answer::say("+OK 4294967295 18446744073709551615\r\n"),
        Some("LIST" | "UIDL") => Answer::say("+OK\r\n.\r\n"),
        Some("RETR") => Answer::say("+OK\r\nhalf").and_close(),
        _ => honest(command),
    });
    let file = tempfile::NamedTempFile::new().expect("a file");
    let bare = "[[session]]\nname = 'bare'\nsteps = ['stat', 'retr all']\n";
    std::fs::write(file.path(), bare).expect("written");
    for what in [
        "--profile drain".to_owned(),
        "--profile leave-on-server".to_owned(),
        format!("--scenario {}", file.path().display()),
    ] {
        let output = Command::new("sh")
            .args(["-c", "ulimit -v 2000000 && exec \"$0\" \"$@\""])
            .arg(env!("CARGO_BIN_EXE_popcore-loadgen"))
            .args([
                "--target",
                &server.address(),
                "--password",
                "pw",
                "--json",
                "-",
            ])
            .args("--users u --sessions 1 --max-sessions 1 --duration 20".split(' '))
            .args(what.split(' '))
            .output()
            .expect("a shell");
        let shown = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{what}: {shown}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
        assert_eq!(report["failed_sessions"], 1, "{what}: {shown}");
    }
}

#[test]
fn an_open_loop_that_is_given_up_ends() {
    let server = FakeServer::start(lie_or_honest("PASS", "-ERR no\r\n"));
    let started = Instant::now();
    let run = run(
        &server.address(),
        "--profile login --users u{0..63} --rate 100/s --duration 600",
    );
    assert_eq!(run.code, Some(1), "{}", run.shown);
    assert!(run.shown.contains("given up: the first"), "{}", run.shown);
    assert_eq!(run.count("timeout"), 0, "{}", run.shown);
    assert_eq!(run.count("login-refused"), run.number("/errors/total"));
    assert!(started.elapsed() < Duration::from_mins(1));
}

#[test]
fn a_thread_that_cannot_play_ends_an_open_loop_too() {
    let server = FakeServer::start(honest);
    let started = Instant::now();
    let arguments = "--profile poll --users u{0..9} --rate 20/s --duration 600 --cpu 0,1023";
    let run = run(&server.address(), arguments);
    assert_eq!(run.code, Some(1));
    assert!(run.shown.contains("--cpu 1023"), "{}", run.shown);
    assert!(started.elapsed() < Duration::from_mins(1));
}

#[test]
fn a_reset_behind_the_reply_to_quit_is_no_fault() {
    let server = FakeServer::start(|command| match command {
        "QUIT" => Answer::say("+OK bye\r\n").and_reset(),
        _ => honest(command),
    });
    let arguments = "--profile poll --sessions 2 --users u{0..3} --max-sessions 12 --duration 60";
    let run = run(&server.address(), arguments);
    assert_eq!(run.code, Some(0), "{}", run.shown);
    assert_eq!(run.number("/sessions"), 12);
}

#[test]
fn a_handshake_that_fails_is_not_told_as_a_connection_that_does() {
    let server = FakeServer::start(honest);
    let run = run(
        &server.address(),
        "--profile login --sessions 1 --users u --max-sessions 1 --tls implicit --insecure",
    );
    assert_eq!((run.code, run.count("tls")), (Some(1), 1), "{}", run.shown);
    assert!(run.shown.contains("u: TLS: "), "{}", run.shown);
    assert!(!run.shown.contains("connect: "), "{}", run.shown);
}

#[test]
fn content_that_is_not_the_maildirs_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    for part in ["new", "cur", "tmp"] {
        std::fs::create_dir(folder.path().join(part)).expect("own folder");
    }
    // The second and the third of the server's messages, and another for the first.
    for (name, text) in [
        ("1", "hgfedcba\n"),
        ("2", "ab\n.cde\n"),
        ("3", ".\n12345\n"),
    ] {
        std::fs::write(folder.path().join("new").join(name), text).expect("own folder");
    }
    let server = FakeServer::start(honest);
    let arguments = format!(
        "--profile fetch --sessions 1 --users u --max-sessions 1 --maildir {}",
        folder.path().display()
    );
    let run = run(&server.address(), &arguments);
    only(&run, "content");
    assert_eq!(run.count("content"), 1, "{}", run.shown);
    assert!(run.shown.contains("u: RETR 1: "), "{}", run.shown);
}

#[test]
fn a_name_that_is_no_text_is_a_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let csv = folder.path().join(OsStr::from_bytes(b"\xff.csv"));
    let server = FakeServer::start(honest);
    let output = Command::new(env!("CARGO_BIN_EXE_popcore-loadgen"))
        .args([
            "--target",
            &server.address(),
            "--profile",
            "poll",
            "--users",
            "u",
        ])
        .args([
            "--sessions",
            "1",
            "--max-sessions",
            "1",
            "--password",
            "p",
            "--csv",
        ])
        .arg(&csv)
        .output()
        .expect("the generator");
    let shown = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert!(csv.exists(), "{shown}");
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
        (
            "--profile poll --sessions 4 --users u{0..3} --chaos 0.1",
            "--chaos needs users of its own",
        ),
    ] {
        let run = run("127.0.0.1:1", arguments);
        assert_eq!(run.code, Some(2), "{arguments}: {}", run.shown);
        assert!(run.shown.contains(reason), "{arguments}: {}", run.shown);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let same = folder.path().join("same");
    let html = format!("--html {}/./same", folder.path().display());
    let both = format!("--csv {} {html}", same.display());
    let refused = run(
        "127.0.0.1:1",
        &format!("--profile poll --sessions 1 --users u {both}"),
    );
    assert_eq!(refused.code, Some(2), "{}", refused.shown);
    let reason = format!("{html}: is the file of --csv too");
    assert!(refused.shown.contains(&reason), "{}", refused.shown);
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
