//! `popcore doctor` on kernels of its own: a network namespace has sysctls that a test
//! may set wrong, one after another.
//!
//! Where nobody may have a namespace (a container, a hardened kernel) the same values
//! are files below a folder, so that every test asserts something everywhere.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::server::{PROGRAM, Site};

const SESSIONS: &str = "100000";

/// What a file to install holds, as key and value.
fn installed() -> Vec<(String, String)> {
    let lines = include_str!("../../tuning/sysctl.d/60-popcore.conf").lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (key, value) = line.split_once(" = ").expect("key = value");
            (key.trim_start_matches('-').to_owned(), value.to_owned())
        })
        .collect()
}

/// A wrong setting that a namespace has of its own, and how it is to be called.
const WRONG: [(&str, &str, &str); 13] = [
    ("net.core.somaxconn", "128", "problem"),
    ("net.ipv4.tcp_syncookies", "0", "problem"),
    ("net.ipv4.tcp_syncookies", "2", "problem"),
    ("net.ipv4.tcp_abort_on_overflow", "1", "problem"),
    ("net.ipv4.tcp_window_scaling", "0", "problem"),
    ("net.ipv4.tcp_sack", "0", "problem"),
    ("net.ipv4.tcp_timestamps", "0", "advice"),
    ("net.ipv4.tcp_rmem", "4096 4096 4096", "problem"),
    ("net.ipv4.tcp_wmem", "4096 4096 65536", "problem"),
    ("net.ipv4.tcp_max_tw_buckets", "100", "advice"),
    ("net.ipv4.tcp_fin_timeout", "600", "advice"),
    ("net.ipv4.tcp_moderate_rcvbuf", "0", "advice"),
    ("net.ipv4.ip_local_port_range", "1024 60999", "problem"),
];

fn file_of(key: &str) -> String {
    format!("proc/sys/{}", key.replace('.', "/"))
}

/// A kernel that settings can be made in.
enum Kernel {
    /// The options with which unshare(1) gives a network of one's own.
    Namespace(&'static [&'static str]),
    /// What this kernel has, as files.
    Files(TempDir),
}

impl Kernel {
    fn new() -> Self {
        let ways: [&[&str]; 2] = [&["--net"], &["--map-root-user", "--net"]];
        let works = |way: &&&[&str]| {
            let tried = Command::new("unshare").args(**way).arg("true").output();
            tried.is_ok_and(|output| output.status.success())
        };
        match ways.iter().find(works) {
            Some(way) => Kernel::Namespace(way),
            None => Kernel::Files(tempfile::tempdir().expect("a folder")),
        }
    }

    /// What doctor says with these settings made, one after the other.
    fn doctor(&self, settings: &[(&str, &str)]) -> Value {
        let mut command = match self {
            Kernel::Namespace(way) => {
                let mut script = String::new();
                for (key, value) in settings {
                    writeln!(script, "echo {value} > /{}", file_of(key)).expect("a String");
                }
                let mut command = Command::new("unshare");
                command.args(*way).args(["sh", "-ec"]);
                command.arg(script + "exec \"$0\" \"$@\"").arg(PROGRAM);
                command.arg("doctor");
                command
            }
            Kernel::Files(folder) => {
                write_files(folder.path(), settings);
                let mut command = Command::new(PROGRAM);
                command.args(["doctor", "--root"]).arg(folder.path());
                command
            }
        };
        command.args(["--json", "--sessions", SESSIONS]);
        json(&command.output().expect("it starts"))
    }
}

fn write_files(root: &Path, settings: &[(&str, &str)]) {
    for (key, _, _) in WRONG {
        let file = file_of(key);
        let text = fs::read_to_string(Path::new("/").join(&file)).expect("a sysctl");
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("below the root")).expect("own folder");
        fs::write(path, text).expect("own folder");
    }
    for (key, value) in settings {
        fs::write(root.join(file_of(key)), value).expect("own folder");
    }
}

/// The report; its exit code says whether there is a problem in it.
fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{errors}"));
    let problems = report["problems"].as_u64().expect("a number");
    assert_eq!(
        output.status.code(),
        Some(i32::from(problems > 0)),
        "{text}"
    );
    report
}

/// Names and states of all findings.
fn states(report: &Value) -> Vec<(&str, &str)> {
    let findings = report["findings"].as_array().expect("a list");
    findings
        .iter()
        .map(|finding| {
            let name = finding["name"].as_str().expect("a name");
            (name, finding["state"].as_str().expect("a state"))
        })
        .collect()
}

/// Names and states of what is not right of that which a namespace has of its own: its
/// sysctls and its counters of connections.
fn told(report: &Value) -> Vec<(&str, &str)> {
    let is_own = |name: &str| {
        let counted = name.starts_with("traffic.") && name.contains("TCP");
        WRONG.iter().any(|(key, ..)| *key == name)
            || counted
            || name.starts_with("net.ipv4.")
            || name == "traffic.ListenOverflows"
    };
    let mut told = states(report);
    told.retain(|(name, state)| *state != "ok" && *state != "unseen" && is_own(name));
    told
}

fn finding<'a>(report: &'a Value, name: &str) -> &'a Value {
    let findings = report["findings"].as_array().expect("a list");
    let found = findings.iter().find(|finding| finding["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}: {report:#}"))
}

/// What the guide installs and a namespace has of its own.
fn tuned() -> Vec<(String, String)> {
    let own = |(key, _): &(String, String)| WRONG.iter().any(|(name, ..)| name == key);
    let tuned: Vec<_> = installed().into_iter().filter(own).collect();
    assert!(tuned.len() >= 3, "{tuned:?}");
    tuned
}

#[test]
fn a_kernel_with_the_guides_file_has_no_fault() {
    let tuned = tuned();
    let settings: Vec<_> = tuned
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    let report = Kernel::new().doctor(&settings);
    assert_eq!(told(&report), [], "{report:#}");
}

#[test]
fn each_setting_that_is_wrong_is_found_alone_and_its_command_mends_it() {
    let kernel = Kernel::new();
    let tuned = tuned();
    for (key, value, state) in WRONG {
        let mut settings: Vec<_> = tuned
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        settings.push((key, value));
        let report = kernel.doctor(&settings);
        assert_eq!(told(&report), [(key, state)], "{key} = {value}");
        let findings = report["findings"].as_array().expect("a list");
        let finding = findings.iter().find(|finding| finding["name"] == key);
        let command = finding.expect("there")["command"].as_str().expect("one");
        let setting = command.strip_prefix("sysctl -w ").expect("a sysctl");
        let (mended, to) = setting.trim_matches('\'').split_once('=').expect("a value");
        settings.push((mended, to));
        let report = kernel.doctor(&settings);
        assert_eq!(told(&report), [], "{command}");
    }
}

#[test]
fn a_running_server_is_looked_at_with_its_configuration() {
    let site = Site::with_users(&["ann", "bob"]);
    let config = site.path().join("popcore.toml");
    let server = site.start();
    let output = Command::new(PROGRAM)
        .args(["doctor", "--json", "--sessions", "1", "--config"])
        .arg(&config)
        .args(["--pid", &server.pid().to_string()])
        .output()
        .expect("it starts");
    let report = json(&output);
    let find = |name: &str| finding(&report, name);
    for name in ["process.open_files", "process.swapped", "kernel.io_uring"] {
        assert_eq!(find(name)["state"], "ok", "{}", find(name));
    }
    // How much there is is not the test's to say.
    let room = find("maildrop.room")["found"]
        .as_str()
        .expect("it was seen");
    assert!(room.contains("% of space"), "{room}");
    let name = format!(
        "directory.1 ({})",
        server.site.path().join("users").display()
    );
    let users = find(&name)["found"].as_str().expect("it was read");
    assert!(users.starts_with("2 users, 0 locked, read in "), "{users}");
    assert!(
        find("certificate.localhost")["found"].is_string(),
        "{report:#}"
    );
    // Looking disturbs nobody.
    server.log_in("ann").quit();
}

#[test]
fn a_configuration_that_is_none_is_a_problem_and_the_machine_is_looked_at_anyway() {
    let output = Command::new(PROGRAM)
        .args(["doctor", "--json", "--config", "/nonexistent/popcore.toml"])
        .output()
        .expect("it starts");
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1));
    let findings = report["findings"].as_array().expect("a list");
    assert_eq!(findings[0]["name"], "configuration");
    assert!(
        findings
            .iter()
            .any(|finding| finding["name"] == "net.core.somaxconn")
    );
}

#[test]
fn sizes_are_a_file_of_sysctls_and_a_script_is_one_for_sh() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        let output = command.arg("doctor").args(arguments).output();
        String::from_utf8(output.expect("it starts").stdout).expect("UTF-8")
    };
    let million = run(&["--sizes", "1000000"]);
    for line in ["fs.nr_open = 2097152", "net.core.somaxconn = 131072"] {
        assert!(million.lines().any(|found| found == line), "{million}");
    }
    let script = run(&["--fix-script", "--sessions", "1000000"]);
    assert!(script.starts_with("#!/bin/sh\n"), "{script}");
    assert!(
        script
            .contains("\n{ sysctl -w net.core.somaxconn=131072; } || refuse net.core.somaxconn\n"),
        "{script}"
    );
    let checked = Command::new("sh").args(["-nc", &script]).status();
    assert!(checked.expect("sh").success(), "{script}");
}

/// Ten settings and more that are wrong together are all found, and nothing beside them.
#[test]
fn all_that_is_wrong_at_once_is_found_at_once() {
    let mut wrong: Vec<_> = WRONG.iter().filter(|(_, value, _)| *value != "2").collect();
    wrong.sort_unstable_by_key(|(key, ..)| *key);
    let settings: Vec<_> = wrong.iter().map(|(key, value, _)| (*key, *value)).collect();
    let report = Kernel::new().doctor(&settings);
    let mut told = told(&report);
    told.sort_unstable();
    let expected: Vec<_> = wrong.iter().map(|(key, _, state)| (*key, *state)).collect();
    assert!(expected.len() >= 10);
    assert_eq!(told, expected, "{report:#}");
}

/// What a step is refused is told, and the steps behind it are taken.
#[test]
fn a_script_goes_on_where_the_machine_refuses() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root");
    let wrong = [
        ("net.core.somaxconn", "128"),
        ("net.ipv4.tcp_sack", "0"),
        ("net.ipv4.tcp_wmem", "4096 4096 65536"),
    ];
    write_files(&root, &wrong);
    let output = Command::new(PROGRAM)
        .args(["doctor", "--fix-script", "--root"])
        .arg(&root)
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let script = String::from_utf8(output.stdout).expect("UTF-8");
    // A sysctl of the test's own, and no other program.
    let run = |refused: &str| {
        let text = format!("#!/bin/sh\necho \"$2\"\ncase $2 in {refused}) exit 1 ;; esac\n");
        let path = folder.path().join("sysctl");
        fs::write(&path, text).expect("own folder");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("own file");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script]).env("PATH", folder.path());
        command.output().expect("sh")
    };
    let taken = "net.core.somaxconn=4096\nnet.ipv4.tcp_sack=1\n\
                 net.ipv4.tcp_wmem=4096 4096 1048576\n";
    let output = run("*somaxconn* | *sack*");
    assert_eq!(String::from_utf8_lossy(&output.stdout), taken, "{script}");
    let refused = "refused: net.core.somaxconn\nrefused: net.ipv4.tcp_sack\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), refused);
    assert_eq!(output.status.code(), Some(1));
    let output = run("none");
    assert_eq!(String::from_utf8_lossy(&output.stdout), taken);
    assert!(output.stderr.is_empty() && output.status.success());
}

/// Whoever runs it: keys, users and mail that somebody else owns are not seen, and that
/// is no fault of theirs. What everybody may see is looked at.
#[test]
fn who_may_not_read_keys_and_users_is_told_so_and_of_no_fault() {
    let mut site = Site::with_users(&["ann"]);
    // A secret without which the directory cannot even be asked is another matter.
    site.directories += "[[auth.directory]]\nkind = \"static\"\nusers = [\"bob:{PLAIN}x\"]\n";
    let config = site.configure();
    let folder = site.path();
    let program = folder.join("popcore");
    // The program may lie where nobody else comes.
    if fs::hard_link(PROGRAM, &program).is_err() {
        fs::copy(PROGRAM, &program).expect("room for it");
    }
    let is_root = rustix::process::geteuid().is_root();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("own file");
    };
    mode(folder, 0o755);
    mode(&config, 0o644);
    // An owner who is not root is kept out by having no right either.
    for name in ["key.pem", "users", "mail"] {
        mode(&folder.join(name), if is_root { 0o700 } else { 0o000 });
    }
    let mut command = Command::new(&program);
    if is_root {
        command.uid(65_534).gid(65_534);
    }
    command.args(["doctor", "--json", "--config"]).arg(&config);
    let report = json(&command.output().expect("it starts"));
    mode(&folder.join("mail"), 0o700);

    let directory = format!("directory.1 ({})", folder.join("users").display());
    for name in [
        "configuration.tls.certificate[1].key",
        "configuration.auth.directory[1].path",
        "configuration.maildrop.path",
        "certificate",
        &directory,
    ] {
        let finding = finding(&report, name);
        assert_eq!(finding["state"], "unseen", "{finding}");
        let reason = finding["reason"].as_str().expect("why");
        assert!(reason.contains("Permission denied"), "{reason}");
    }
    for name in ["certificate.localhost", "directory.2 (the configuration)"] {
        assert_eq!(finding(&report, name)["state"], "ok", "{report:#}");
    }
    assert_ne!(finding(&report, "maildrop.mount")["state"], "unseen");
    let own = ["configuration", "certificate", "directory"];
    let is_own = |name: &str| own.iter().any(|begin| name.starts_with(begin));
    let faults = states(&report)
        .into_iter()
        .filter(|(name, state)| is_own(name) && (*state == "problem" || *state == "advice"));
    assert_eq!(faults.count(), 0, "{report:#}");
}

/// Answers each request with a wrong password, so long after it came.
fn web_service(after: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            // The request fits into one packet, and what it says does not matter.
            let _ = stream.read(&mut [0; 4096]);
            thread::sleep(after);
            // Whoever gave up does not hear it.
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nAuth-Status: no\r\nContent-Length: 0\r\n\
                  Connection: close\r\n\r\n",
            );
        }
    });
    address
}

#[test]
fn each_directory_is_told_with_its_time_and_those_that_are_slow_or_gone_as_such() {
    let mut site = Site::with_users(&["ann"]);
    let prompt = web_service(Duration::ZERO);
    let slow = web_service(Duration::from_millis(1200));
    let section = |address: SocketAddr| {
        format!(
            "[[auth.directory]]\nkind = \"http\"\nurl = \"http://{address}/\"\nform = \"nginx\"\n"
        )
    };
    // An address of this test's own, where nothing listens.
    let gone = SocketAddr::from((site.host(), 9));
    site.directories = [prompt, slow, gone].map(section).concat();
    let config = site.configure();
    let output = Command::new(PROGRAM)
        .args(["doctor", "--json", "--config"])
        .arg(&config)
        .output()
        .expect("it starts");
    let report = json(&output);
    let told: Vec<_> = states(&report)
        .into_iter()
        .filter(|(name, _)| name.starts_with("directory."))
        .collect();
    let states: Vec<_> = told.iter().map(|(_, state)| *state).collect();
    // Where everything else waits as well, the prompt one may be slow.
    assert!(
        matches!(states[..], ["ok" | "advice", "advice", "problem"]),
        "{report:#}"
    );
    for (name, address) in told.iter().zip([prompt, slow, gone]) {
        assert!(name.0.contains(&address.to_string()), "{name:?}");
    }
    let found = finding(&report, told[1].0)["found"]
        .as_str()
        .expect("a time");
    let time = found.strip_prefix("it answers, in ").expect("a time");
    let time: u64 = time.trim_end_matches(" ms").parse().expect("a number");
    assert!(time >= 1200, "{found}");
    let remedy = finding(&report, told[2].0)["remedy"]
        .as_str()
        .expect("what to do");
    assert!(remedy.contains("cannot be reached"), "{remedy}");
}

/// The guide has the form of the JSON, for who reads it by a program.
#[test]
fn the_json_has_the_keys_that_the_guide_names() {
    let guide = include_str!("../../tuning/README.md");
    let named = |key: &str| guide.contains(&format!("| `{key}` |"));
    let folder = tempfile::tempdir().expect("a folder");
    write_files(folder.path(), &[("net.core.somaxconn", "128")]);
    let output = Command::new(PROGRAM)
        .args(["doctor", "--json", "--root"])
        .arg(folder.path())
        .output()
        .expect("it starts");
    let report = json(&output);
    let keys = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    let findings = report["findings"].as_array().expect("a list");
    let all = keys(&report)
        .into_iter()
        .chain(findings.iter().flat_map(keys));
    for key in all {
        assert!(named(&key), "the guide's table has no {key}");
    }
    for state in ["ok", "advice", "problem", "unseen"] {
        let has = findings.iter().any(|finding| finding["state"] == state);
        assert!(has || state == "advice", "{state}: {report:#}");
        assert!(guide.contains(&format!("`{state}`")));
    }
}
