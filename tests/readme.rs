//! What the README says, held against the binary: its configuration passes
//! `popcore check`, and its table of metrics is the list of those there are. And the form
//! of the tuning guide: of each knob all that an operator has to know before he turns it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

const README: &str = include_str!("../README.md");

/// The block of that language, of which there is one.
fn block(language: &str) -> &'static str {
    let begin = format!("```{language}\n");
    let mut found = README.split(&begin).skip(1);
    let rest = found.next().expect("a block");
    assert!(found.next().is_none(), "one block of {language}");
    rest.split("```").next().expect("its end")
}

#[test]
fn the_configuration_is_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    // What a test cannot have: the user, and a folder outside its own.
    let account = |line: &&str| line.starts_with("user = ") || line.starts_with("group = ");
    let given = block("toml");
    assert_eq!(given.lines().filter(account).count(), 2);
    let lines: Vec<_> = given.lines().filter(|line| !account(line)).collect();
    let mail = format!("\"{}/", path.display());
    let text = lines.join("\n").replace("\"/var/vmail/", &mail);
    assert!(text.contains(&mail), "{text}");
    fs::write(path.join("popcore.toml"), text).expect("own folder");

    let names = vec!["pop.example.net".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    fs::write(path.join("fullchain.pem"), made.cert.pem()).expect("own folder");
    fs::write(path.join("privkey.pem"), made.signing_key.serialize_pem()).expect("own folder");
    fs::write(path.join("users"), "alice@example.net:{PLAIN}x\n").expect("own folder");
    let output = Command::new(env!("CARGO_BIN_EXE_popcore"))
        .args(["check", "--config"])
        .arg(path.join("popcore.toml"))
        .output()
        .expect("popcore starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    for listener in ["0.0.0.0:110, STLS offered", "[::]:995, TLS from the first"] {
        assert!(said.contains(listener), "{said}");
    }
}

/// A demo that ends with the test.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        // Both fail where it has ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_table_of_metrics_is_whole_and_true() {
    let folder = tempfile::tempdir().expect("a folder");
    let child = Command::new(env!("CARGO_BIN_EXE_popcore"))
        .args(["demo", "--pop3-port", "0", "--pop3s-port", "0"])
        .args(["--admin-port", "0", "--folder"])
        .arg(folder.path().join("demo"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("popcore starts");
    let mut demo = Demo(child);
    let said = BufReader::new(demo.0.stdout.take().expect("piped"));
    let address = said.lines().find_map(|line| {
        let line = line.expect("text");
        let rest = line.strip_prefix("  curl http://")?;
        rest.strip_suffix("/metrics").map(str::to_owned)
    });
    let mut stream = TcpStream::connect(address.expect("the address")).expect("a listener");
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .expect("an open connection");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");

    let served: BTreeSet<String> = answer
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| match line.split_once(' ').expect("a type") {
            (name, "counter") => format!("{name}_total"),
            (name, _) => name.to_owned(),
        })
        .collect();
    let told: BTreeSet<String> = README
        .lines()
        .filter_map(|line| line.strip_prefix("| `popcore_"))
        .map(|line| format!("popcore_{}", line.split('`').next().expect("a name")))
        .collect();
    assert!(!served.is_empty(), "{answer}");
    assert_eq!(served, told);
}

const GUIDE: &str = include_str!("../tuning/README.md");

/// The parts of the guide in which each section is a knob.
const KNOBS: [&str; 4] = [
    "Kernel and process",
    "Connections",
    "Network interfaces and CPUs",
    "Disks",
];

/// What is said of each knob, in this order, behind what it is.
const LABELS: [&str; 5] = ["Why", "Value", "See", "Cost", "Measured"];

/// What was asked for: each is named by the heading of a knob.
const ASKED: [&str; 40] = [
    "Kernel and io_uring",
    "Locked memory",
    "fs.nr_open",
    "LimitNOFILE",
    "net.core.somaxconn",
    "tcp_max_syn_backlog",
    "tcp_syncookies",
    "Port range",
    "TIME_WAIT",
    "tcp_rmem",
    "tcp_wmem",
    "NOTSENT_LOWAT",
    "Keepalive",
    "user timeout",
    "tcp_migrate_req",
    "tcp_fastopen",
    "Congestion control",
    "qdisc",
    "Connection tracking",
    "Queues",
    "RSS",
    "RPS",
    "XPS",
    "IRQ affinity",
    "isolcpus",
    "governor",
    "NUMA",
    "Huge pages",
    "mimalloc",
    "Swap",
    "Dirty pages",
    "vfs_cache_pressure",
    "Mount options",
    "ext4 and XFS",
    "NFSv4",
    "CephFS",
    "Control groups",
    "seccomp",
    "SELinux",
    "server.steering",
];

/// Heading and text of each knob.
fn knobs() -> Vec<(&'static str, &'static str)> {
    let mut knobs = Vec::new();
    for part in KNOBS {
        let begin = format!("\n## {part}\n");
        let (_, rest) = GUIDE
            .split_once(&begin)
            .unwrap_or_else(|| panic!("no {part}"));
        let text = rest.split("\n## ").next().expect("a first");
        let sections = text.split("\n### ").skip(1);
        knobs.extend(sections.map(|text| text.split_once('\n').expect("a heading")));
    }
    knobs
}

/// The parts of a knob's text: what it is, and what stands behind each label.
fn parts(heading: &str, text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = text;
    for label in LABELS {
        let mark = format!("\n- **{label}:** ");
        let (before, after) = rest
            .split_once(&mark)
            .unwrap_or_else(|| panic!("{heading}: no {label} in its place"));
        parts.push(before);
        rest = after;
    }
    parts.push(rest);
    // Where a line ends is the text's own business.
    let words = |part: &&str| part.split_whitespace().collect::<Vec<_>>().join(" ");
    parts.iter().map(words).collect()
}

#[test]
fn each_knob_of_the_guide_says_all_that_is_to_be_known_of_it() {
    let knobs = knobs();
    for (heading, text) in &knobs {
        let parts = parts(heading, text);
        for (label, part) in ["What"].iter().chain(&LABELS).zip(&parts) {
            assert!(!part.is_empty(), "{heading}: no {label}");
        }
        let [.., see, _, measured] = &parts[..] else {
            panic!("{heading}: {parts:?}");
        };
        assert!(
            see.contains('`'),
            "{heading}: See names no command and no metric"
        );
        // A figure has the command that shows it, here or where the link leads.
        let shown = measured.contains('`') || measured.contains("](#");
        let figures = measured.contains(|digit: char| digit.is_ascii_digit());
        let said = measured.to_lowercase().contains("not measured here");
        assert!(said || (shown && figures), "{heading}: {measured}");
    }
    for asked in ASKED {
        let found = knobs.iter().any(|(heading, _)| heading.contains(asked));
        assert!(found, "no knob for {asked}");
    }
}

/// The tests that cargo runs by a filter: `MODULE::NAME`.
fn integration_tests() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration");
    let mut tests = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let Some(module) = path.file_stem().and_then(|stem| stem.to_str()) else {
            continue;
        };
        let text = fs::read_to_string(&path).expect("text");
        let after = text.split("\n#[test]\n").skip(1);
        let names = after.filter_map(|rest| rest.split_once("fn ")?.1.split_once('('));
        tests.extend(names.map(|(name, _)| format!("{module}::{name}")));
    }
    tests
}

#[test]
fn tests_that_the_guide_names_are_there() {
    let tests = integration_tests();
    assert!(tests.len() > 100, "{tests:?}");
    let named = GUIDE.split("--test integration ").skip(1);
    let named: Vec<_> = named
        .map(|rest| rest.split(['`', ' ', '\n']).next().expect("a first"))
        .collect();
    assert!(named.len() >= 3, "{named:?}");
    for filter in named {
        let found = tests.iter().any(|test| test.contains(filter));
        assert!(!filter.is_empty() && found, "no test {filter}");
    }
}

#[test]
fn metrics_links_and_files_of_the_guide_are_there() {
    let words = GUIDE.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metrics: BTreeSet<_> = words.filter(|word| word.starts_with("popcore_")).collect();
    assert!(metrics.len() >= 5, "{metrics:?}");
    for metric in metrics {
        assert!(
            README.contains(&format!("| `{metric}")),
            "no metric {metric}"
        );
    }
    let anchor = |heading: &str| {
        let kept = |c: &char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let text: String = heading.to_lowercase().chars().filter(kept).collect();
        text.replace(' ', "-")
    };
    let headings = GUIDE.lines().filter(|line| line.starts_with('#'));
    let anchors: BTreeSet<_> = headings
        .map(|line| anchor(line.trim_start_matches('#').trim()))
        .collect();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning");
    let links: Vec<_> = GUIDE.split("](").skip(1).collect();
    assert!(links.len() >= 10);
    for link in links {
        let target = link.split(')').next().expect("an end");
        match target.strip_prefix('#') {
            Some(name) => assert!(anchors.contains(name), "no heading #{name}"),
            None => assert!(folder.join(target).exists(), "no file {target}"),
        }
    }
}
