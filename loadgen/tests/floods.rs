//! The real binary against servers that send much: the clock goes on meanwhile, and
//! sessions beside are served.

mod binary;
mod server;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use binary::{count, load, number};
use serde_json::Value;
use server::{Answer, FakeServer, honest};

/// A line of a message, many times.
fn lines(octets: usize) -> String {
    format!("{}\r\n", "x".repeat(76)).repeat(octets.div_ceil(78))
}

#[test]
fn a_message_without_end_ends_with_the_run() {
    let line = lines(1 << 20);
    let server = FakeServer::start(move |command| match command.get(..4) {
        Some("RETR") => Answer::say("+OK\r\n").and_forever(&line),
        _ => honest(command),
    });
    let target = server.address();
    let arguments = "--profile fetch --users u{0..7} --sessions 4 --threads 1 --duration 1 \
                     --timeout 1 --password pw --json -";
    let mut child = Command::new(env!("CARGO_BIN_EXE_popcore-loadgen"))
        .args(["--target", &target])
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the generator starts");
    let started = Instant::now();
    while child.try_wait().expect("a child").is_none() {
        if started.elapsed() > Duration::from_secs(30) {
            child.kill().expect("own child");
            child.wait().expect("own child");
            panic!("the generator does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    // All four are fed in turn, and none of them comes to its end.
    assert_eq!(count(&report, "/errors/kinds/timeout/count"), 4, "{report}");
    assert_eq!(count(&report, "/latency_us/retr-first/count"), 4);
    assert!(count(&report, "/received_bytes") > 4 << 20, "{report}");
}

#[test]
fn the_end_of_a_large_message_is_later_than_its_beginning() {
    let octets = 32 << 20;
    let text = lines(octets);
    let size = text.len();
    let server = FakeServer::start(move |command| match command.get(..4) {
        Some("STAT") => Answer::say(&format!("+OK 1 {size}\r\n")),
        Some("LIST") => Answer::say(&format!("+OK\r\n1 {size}\r\n.\r\n")),
        Some("UIDL") => Answer::say("+OK\r\n1 one\r\n.\r\n"),
        Some("RETR") => Answer::say(&format!("+OK\r\n{text}.\r\n")),
        _ => honest(command),
    });
    let (code, report, shown) = load(
        &server,
        "--profile fetch --users u --sessions 1 --max-sessions 2 --duration 60",
    );
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(count(&report, "/message_bytes"), 2 * size as u64);
    let (first, whole) = (
        number(&report, "/latency_us/retr-first/mean"),
        number(&report, "/latency_us/retr/mean"),
    );
    // The kernel holds a few MiB at the most, and no reader takes 32 in 3 ms;
    // how long the server takes to begin is its own affair.
    assert!(
        whole - first > 3_000.0,
        "{first} us, and {whole} us: {shown}"
    );
    let quit = number(&report, "/latency_us/quit/max");
    assert!(quit < whole, "{quit} us for QUIT: {shown}");
}

/// CPU time of the whole machine since its start, idleness left out (proc(5), stat).
fn machine_time() -> f64 {
    let text = fs::read_to_string("/proc/stat").expect("proc is mounted");
    let all = text.lines().next().expect("all CPUs together");
    let fields = all.split_whitespace().skip(1).take(8);
    let ticks: Vec<f64> = fields.map(|t| t.parse().expect("ticks")).collect();
    let per_second = rustix::param::clock_ticks_per_second().to_string();
    let idle = ticks[3] + ticks[4];
    (ticks.iter().sum::<f64>() - idle) / per_second.parse::<f64>().expect("a number")
}

#[test]
fn a_generator_without_cpu_left_says_so() {
    // Lines of a stuffed dot each take the reader longer than the writer.
    let text = "..\r\n".repeat(1 << 20);
    let size = text.len() / 4 * 3;
    let server = FakeServer::start(move |command| match command.get(..4) {
        Some("STAT") => Answer::say(&format!("+OK 1 {size}\r\n")),
        Some("LIST") => Answer::say(&format!("+OK\r\n1 {size}\r\n.\r\n")),
        Some("UIDL") => Answer::say("+OK\r\n1 one\r\n.\r\n"),
        Some("RETR") => Answer::say(&format!("+OK\r\n{text}.\r\n")),
        _ => honest(command),
    });
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("r.html");
    let mut shares = Vec::new();
    let (mut full, mut disturbed) = (false, false);
    for _ in 0..4 {
        // Before others where it may be; nobody but root may.
        let (started, before) = (Instant::now(), machine_time());
        let child = Command::new("nice")
            .args(["-n", "-20", env!("CARGO_BIN_EXE_popcore-loadgen")])
            .args(["--target", &server.address(), "--html"])
            .arg(&page)
            .args("--profile fetch --users u{0..7} --sessions 8 --threads 1".split(' '))
            .args("--duration 1 --password pw --quiet --json -".split(' '))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the generator starts");
        let output = child.wait_with_output().expect("an end");
        let used = machine_time() - before;
        let wall = started.elapsed().as_secs_f64();
        let shown = String::from_utf8_lossy(&output.stderr);
        // A closed loop that fills its generator is no failure.
        assert_eq!(output.status.code(), Some(0), "{shown}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
        let share = number(&report, "/generator/busiest_thread");
        let reason = report["invalid"].as_str().unwrap_or_default();
        let html = fs::read_to_string(&page).expect("written");
        full = share > 0.95;
        assert_eq!(reason.contains("no CPU left"), full, "{share}: {reason}");
        assert_eq!(shown.contains("INVALID"), full, "{share}: {shown}");
        assert_eq!(html.contains("<b>Invalid.</b>"), full, "{share}");
        let others = (used - number(&report, "/generator/cpu_s")) / wall;
        disturbed |= others > 0.75;
        shares.push((share, others));
        if full {
            break;
        }
    }
    println!("CPUs that the generator used, and all others: {shares:?}");
    // Where others take the CPU from it and from its server, it cannot be on it all the
    // time; the server alone only copies.
    assert!(
        full || disturbed,
        "the generator, and all others: {shares:?}"
    );
}

#[test]
fn a_chaotic_reset_comes_amid_the_message_however_it_arrives() {
    // Octet by octet, in small pieces, at once; and one that no socket holds whole.
    for (octets, piece) in [
        (400, 1),
        (64 << 10, 1_000),
        (64 << 10, usize::MAX),
        (16 << 20, usize::MAX),
    ] {
        let text = lines(octets);
        let size = text.len();
        let server = FakeServer::start_in_pieces(piece, move |command| match command.get(..4) {
            Some("STAT") => Answer::say(&format!("+OK 1 {size}\r\n")),
            Some("LIST") => Answer::say(&format!("+OK\r\n1 {size}\r\n.\r\n")),
            Some("UIDL") => Answer::say("+OK\r\n1 one\r\n.\r\n"),
            Some("RETR") => Answer::say(&format!("+OK\r\n{text}.\r\n")),
            _ => honest(command),
        });
        let (code, report, shown) = load(
            &server,
            "--profile fetch --users u{0..15} --sessions 2 --max-sessions 24 --duration 60 \
             --chaos 0.5 --chaos-kinds reset",
        );
        assert_eq!(code, Some(0), "{shown}");
        let reset = count(&report, "/chaos/sessions/reset");
        assert!(reset >= 4, "{reset} of 24: {shown}");
        assert_eq!(
            count(&report, "/chaos/reset_amid_message"),
            reset,
            "{shown}"
        );
        server.wait_for_sessions(24);
        let seen = server.resets_amid_message() as u64;
        assert_eq!(seen, reset, "{octets} octets in pieces of {piece}");
    }
}
