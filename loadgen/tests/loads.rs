//! The real binary's loads, one by one, against a server that plays a script: what
//! arrives there is what was asked for.

mod binary;
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use binary::{count, load, number, run};
use serde_json::Value;
use server::{FakeServer, honest};

type Heard = Arc<Mutex<Vec<String>>>;

/// An honest server, and all commands that it was sent.
fn listening() -> (FakeServer, Heard) {
    let heard = Heard::default();
    let kept = Arc::clone(&heard);
    let server = FakeServer::start(move |command| {
        kept.lock().expect("no panic").push(command.to_owned());
        honest(command)
    });
    (server, heard)
}

/// How often each user logged in.
fn logins(heard: &Heard) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for line in heard.lock().expect("no panic").iter() {
        if let Some(user) = line.strip_prefix("USER ") {
            *all.entry(user.to_owned()).or_default() += 1;
        }
    }
    all
}

/// What one session of a profile asks, without its login and its end.
fn asked(profile: &str) -> Vec<String> {
    let (server, heard) = listening();
    let (code, _, shown) = load(
        &server,
        &format!("--profile {profile} --users u --sessions 1 --max-sessions 1"),
    );
    assert_eq!(code, Some(0), "{shown}");
    let heard = heard.lock().expect("no panic");
    let lines = heard.iter().filter(|line| !line.is_empty());
    let lines: Vec<String> = lines.cloned().collect();
    let (login, rest) = lines.split_at(2);
    assert_eq!(login, ["USER u", "PASS pw"]);
    let (last, steps) = rest.split_last().expect("an end");
    assert_eq!(last, "QUIT");
    steps.to_vec()
}

#[test]
fn webmail_and_abusive_ask_what_the_manual_says() {
    let mut webmail = asked("webmail");
    webmail[4..].sort();
    let all = ["RETR 1", "RETR 2", "RETR 3"];
    assert_eq!(
        webmail,
        [&["CAPA", "STAT", "UIDL", "LIST"][..], &all].concat()
    );
    let round = ["STAT", "LIST", "UIDL"];
    let mut abusive = asked("abusive");
    abusive[3..6].sort();
    abusive[10..13].sort();
    let tops = ["TOP 1 0", "TOP 2 0", "TOP 3 0"];
    let once = [&round[..], &tops, &["NOOP"]].concat();
    assert_eq!(abusive, [&once[..], &once].concat());
}

#[test]
fn ramps_and_steps_arrive_when_they_are_due() {
    let server = FakeServer::start(honest);
    // 20 and 60 a second; the same as a ramp: a quarter of it in its first half.
    for (rate, early) in [("20/s:1s,60/s:1s", 20.0), ("0..80/s", 20.0)] {
        let (code, report, shown) = load(
            &server,
            &format!("--profile login --users u{{0..63}} --rate {rate} --duration 2"),
        );
        assert!(matches!(code, Some(0 | 3)), "{shown}");
        assert_eq!(count(&report, "/sessions"), 80, "{rate}: {shown}");
        let first = report["timeline"].as_array().expect("a time line").iter();
        let first: f64 = first
            .filter(|m| number(m, "/to_s") < 1.5)
            .map(|m| number(m, "/sessions"))
            .sum();
        assert!(
            (first - early).abs() <= 8.0,
            "{rate}: {first} in the first second"
        );
    }
}

#[test]
fn a_mix_has_its_weights() {
    let server = FakeServer::start(honest);
    let (code, report, shown) = load(
        &server,
        "--mix poll=70,login=30 --users u{0..7} --sessions 4 --max-sessions 400 --duration 60",
    );
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(count(&report, "/sessions"), 400);
    let polls = count(&report, "/latency_us/uidl/count");
    // 280 are expected; the seed is always the same.
    assert!((250..310).contains(&polls), "{polls} polls of 400");
}

#[test]
fn users_are_chosen_as_asked() {
    for (choose, least, most) in [("in-turn", 20, 20), ("uniform", 8, 36), ("zipf:2", 0, 160)] {
        let (server, heard) = listening();
        let (code, _, shown) = load(
            &server,
            &format!(
                "--profile login --users u{{0..9}} --sessions 1 --max-sessions 200 --duration 60 \
                 --choose {choose}"
            ),
        );
        assert_eq!(code, Some(0), "{shown}");
        let logins = logins(&heard);
        assert_eq!(logins.values().sum::<u64>(), 200, "{choose}");
        let within = logins.values().all(|n| (least..=most).contains(n));
        assert!(within, "{choose}: {logins:?}");
        if choose == "uniform" {
            let alike = logins.values().all(|count| *count == 20);
            assert!(!alike, "in turn, and not at random: {logins:?}");
        }
        if choose == "zipf:2" {
            // 1 / (1 + 1/4 + 1/9 ...) of all: 129 are expected.
            assert!(logins["u0"] > 100, "{logins:?}");
        }
    }
}

#[test]
fn a_users_rank_is_that_among_all_whatever_the_threads() {
    let (server, heard) = listening();
    let (code, _, shown) = load(
        &server,
        "--profile login --users u{0..39} --sessions 4 --threads 4 --max-sessions 2000 \
         --duration 60 --choose zipf",
    );
    assert_eq!(code, Some(0), "{shown}");
    let logins = logins(&heard);
    let of = |user: usize| *logins.get(&format!("u{user}")).unwrap_or(&0);
    // Of every fourth user the first, as 1/1 is to 1/1 + 1/5 + 1/9 .. + 1/37, and so on.
    for (first, expected) in [(0, 61), (1, 47), (2, 39), (3, 34)] {
        let all: u64 = (first..40).step_by(4).map(of).sum();
        let percent = of(first) * 100 / all;
        assert!(
            percent.abs_diff(expected) <= 9,
            "u{first}: {percent} % of {all}, and {expected} % are expected"
        );
    }
}

#[test]
fn users_are_found_in_a_tree_of_maildirs() {
    let tree = tempfile::tempdir().expect("a folder");
    for user in ["ann", "example.org/bob", "example.org/eve"] {
        for part in ["new", "cur", "tmp"] {
            let folder = tree.path().join(user).join(part);
            fs::create_dir_all(folder).expect("own folder");
        }
    }
    let (server, heard) = listening();
    let (code, _, shown) = load(
        &server,
        &format!(
            "--profile login --users-from {} --sessions 1 --max-sessions 6 --duration 60",
            tree.path().display()
        ),
    );
    assert_eq!(code, Some(0), "{shown}");
    let users: Vec<(String, u64)> = logins(&heard).into_iter().collect();
    let expected = ["ann", "bob@example.org", "eve@example.org"];
    assert_eq!(users, expected.map(|user| (user.to_owned(), 2)));
}

#[test]
fn sessions_that_fall_silent_take_no_place_from_the_others() {
    let server = FakeServer::start(honest);
    let common = "--profile login --sessions 4 --threads 2 --duration 3";
    let chaos = "--chaos 0.2 --chaos-kinds half-open";
    let (code, report, shown) = load(&server, &format!("{common} --users u{{0..63}} {chaos}"));
    assert_eq!(code, Some(0), "{shown}");
    // Each stays for ten seconds: once all places beside are taken no more come.
    assert_eq!(count(&report, "/chaos/sessions/half-open"), 60, "{shown}");
    assert_eq!(count(&report, "/most_open_sessions"), 64, "{shown}");
    let last = report["timeline"].as_array().expect("a time line");
    let last = last
        .iter()
        .rfind(|m| number(m, "/to_s") - number(m, "/from_s") > 0.5);
    let last = last.expect("whole seconds");
    assert!(
        number(last, "/sessions") > 20.0,
        "nothing goes on any more: {last}"
    );
}

#[test]
fn memory_is_divided_by_sessions_that_were_there() {
    let server = FakeServer::start(honest);
    let (code, report, shown) = load(
        &server,
        &format!(
            "--profile login --users u{{0..999}} --rate 20/s --duration 1.2 --server-pid {}",
            std::process::id()
        ),
    );
    assert!(matches!(code, Some(0 | 3)), "{shown}");
    assert_eq!(count(&report, "/concurrent_sessions"), 1000);
    let open = count(&report, "/most_open_sessions");
    assert!((1..100).contains(&open), "{open} at a time");
    let bytes = |name: &str| number(&report, &format!("/server/anonymous_{name}bytes"));
    let grown = bytes("most_") - bytes("before_");
    let each = grown / number(&report, "/most_open_sessions");
    assert!((bytes("per_concurrent_session_") - each).abs() < 1e-6);
    assert!(
        shown.contains(&format!("each of {open} sessions at a time")),
        "{shown}"
    );
}

#[test]
fn a_search_that_finds_no_rate_fails() {
    let server = FakeServer::start(honest);
    let (code, report, shown) = load(
        &server,
        "--profile login --users u{0..3} --sessions 2 --find-max --slo max<1us --duration 0.05",
    );
    assert_eq!(code, Some(1), "{shown}");
    assert_eq!(report.pointer("/search/max_rate_per_s"), Some(&Value::Null));
    assert!(shown.contains("no rate holds max<1us"), "{shown}");
}

/// Two targets, each with its own mark, in the order in which they were run.
fn order(more: &str) -> (Vec<String>, Value) {
    let (a, b) = (
        FakeServer::start(honest),
        FakeServer::start(|command| {
            if command.starts_with("PASS") {
                thread::sleep(Duration::from_millis(5));
            }
            honest(command)
        }),
    );
    let (first, second) = (a.address(), b.address());
    let (code, report, shown) = run(&format!(
        "--target {first} --target {second} --password pw --users u{{0..1}} --sessions 1 \
         --max-sessions 5 --profile login --repeat 3 {more} --json -"
    ));
    assert_eq!(code, Some(0), "{shown}");
    let runs = report["runs"].as_array().expect("runs");
    let marks = runs.iter().map(|run| {
        let target = run["target"].as_str().expect("a target");
        if target == first { "A" } else { "B" }.to_owned()
    });
    (marks.collect(), report)
}

#[test]
fn two_targets_take_turns() {
    let (marks, report) = order("--interleave");
    assert_eq!(marks.concat(), "ABABAB");
    let began = report["runs"].as_array().expect("runs").iter();
    let began: Vec<f64> = began.map(|run| number(run, "/started_unix_s")).collect();
    assert!(began.is_sorted(), "{began:?}");
    let ratios = report["ratios"].as_array().expect("ratios");
    let slower = ratios
        .iter()
        .find(|r| r["figure"] == "pass p50 us")
        .expect("a ratio");
    assert!(number(slower, "/ratio") > 1.5, "{slower}");
    assert!(number(slower, "/least") <= number(slower, "/ratio"));
    assert_eq!(order("").0.concat(), "AAABBB");
}

#[test]
fn results_are_merged_in_the_order_of_time() {
    let server = FakeServer::start(honest);
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    // The later one's name is the first.
    for name in ["b.json", "a.json"] {
        let (code, _, shown) = run(&format!(
            "--target {} --password pw --users u{{0..3}} --sessions 2 --profile login \
             --max-sessions 9 --json {} --quiet",
            server.address(),
            path(name)
        ));
        assert_eq!(code, Some(0), "{shown}");
    }
    let (code, merged, shown) = run(&format!("merge {} {}", path("a.json"), path("b.json")));
    assert_eq!(code, Some(0), "{shown}");
    let from = merged["timeline"].as_array().expect("a time line").iter();
    let from: Vec<f64> = from.map(|m| number(m, "/from_s")).collect();
    assert!(from.is_sorted() && from[0] >= 0.0, "{from:?}");
    let all = merged["timeline"].as_array().expect("a time line").iter();
    assert_eq!(
        all.map(|m| number(m, "/sessions")).sum::<f64>().to_bits(),
        18_f64.to_bits()
    );
}

#[test]
fn in_a_terminal_there_is_a_bar() {
    let server = FakeServer::start(honest);
    let program = Path::new(env!("CARGO_BIN_EXE_popcore-loadgen")).display();
    let line = format!(
        "{program} --target {} --password pw --users u --sessions 1 --profile login --duration 2",
        server.address()
    );
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .expect("script is installed (Debian: bsdutils)");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    // The bar is drawn over itself, with the newest second beside it.
    assert!(shown.contains("=>") && shown.contains("[2K"), "{shown:?}");
    assert!(
        shown.contains("/2 s: ") && shown.contains(" sessions/s, p50 "),
        "{shown:?}"
    );
    assert!(shown.contains("latency us"), "the table follows: {shown:?}");
}

#[test]
fn the_manual_names_every_field_of_a_result() {
    let server = FakeServer::start(honest);
    let own = std::process::id();
    let (code, report, shown) = load(
        &server,
        &format!("--profile idle --users u --sessions 1 --duration 0.1 --server-pid {own}"),
    );
    assert_eq!(code, Some(0), "{shown}");
    let manual = include_str!("../README.md");
    let (_, table) = manual.split_once("## JSON").expect("its chapter");
    let mut told = 0;
    let objects = [
        "",
        "/rates",
        "/generator",
        "/server",
        "/idle",
        "/timeline/0",
    ];
    for at in objects {
        let object = report.pointer(at).and_then(Value::as_object);
        for field in object.unwrap_or_else(|| panic!("no {at}: {report}")).keys() {
            let named = ["`", "`.", "."].iter().any(|before| {
                let name = format!("{before}{field}");
                let mut behind = table.split(&name).skip(1);
                behind.any(|rest| rest.starts_with(['`', '.', '[']))
            });
            assert!(named, "{at}/{field} is not in the table");
            told += 1;
        }
    }
    assert!(told > 60, "{told} fields");
}
