//! The process before its first client: its configuration and its addresses.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use rustix::process::Signal;

use super::patience::until_true;
use super::server::{PROGRAM, Site};

fn check(config: &Path) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(["check", "--config"]).arg(config);
    command.output().expect("it starts")
}

#[test]
fn a_right_configuration_is_told_so() {
    let site = Site::with_users(&["ann"]);
    let config = site.configure();
    let output = check(&config);
    assert!(output.status.success());
    assert!(output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let first = text.lines().next().expect("a line");
    assert_eq!(first, format!("{}: ok", config.display()));
    for part in [site.pop3(), site.pop3s(), site.admin()] {
        assert!(text.contains(&part.to_string()), "{text}");
    }
}

/// A piece of a right configuration, what a mistake makes of it, the key that is
/// then at fault and a part of the remedy.
const FAULTS: [(&str, &str, &str, &str); 11] = [
    (
        "shards = 2",
        "shards = 0",
        "server.shards",
        "\"auto\" or to a number",
    ),
    ("hostname =", "hostnam =", "server.hostnam", "did you mean"),
    (
        "drain = \"30s\"",
        "drain = \"30 parsecs\"",
        "server.drain",
        "\"30s\"",
    ),
    (
        "tls = \"starttls\"",
        "tls = \"startls\"",
        "listener[1].tls",
        "did you mean",
    ),
    (
        "\"chain.pem\"",
        "\"chian.pem\"",
        "tls.certificate[1].chain",
        "correct the path",
    ),
    (
        "\"users\"",
        "\"nobody\"",
        "auth.directory[1].path",
        "correct the path",
    ),
    (
        "passwd-file",
        "pan",
        "auth.directory[1].kind",
        "did you mean \"pam\"?",
    ),
    ("{user}", "{usr}", "maildrop.path", "{user}"),
    (
        "mail/{user}",
        "nomail/{user}",
        "maildrop.path",
        "mount or create it",
    ),
    ("login = \"60s\"", "idle = \"9m\"", "limits.idle", "10m"),
    (
        "\"stderr\"",
        "\"nowhere/log\"",
        "log.target",
        "create the folder",
    ),
];

#[test]
fn every_fault_is_told_with_line_key_and_remedy() {
    let site = Site::with_users(&["ann"]);
    let right = site.configuration();
    let path = site.path().join("faulty.toml");
    for (from, to, key, remedy) in FAULTS {
        let text = right.replacen(from, to, 1);
        assert_ne!(text, right, "{from}");
        fs::write(&path, &text).expect("written");
        let output = check(&path);
        assert_eq!(output.status.code(), Some(1), "{to}");
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8(told).expect("UTF-8");
        let at = text
            .lines()
            .position(|line| line.contains(to))
            .expect("there")
            + 1;
        let begin = format!("{}:{at}: {key}: ", path.display());
        let line = told.lines().find(|line| line.starts_with(&begin));
        let line = line.unwrap_or_else(|| panic!("{begin} is not in\n{told}"));
        assert!(line.contains("; ") && line.contains(remedy), "{line}");
    }
}

#[test]
fn all_faults_are_told_at_once_and_serving_tells_the_same() {
    let site = Site::with_users(&["ann"]);
    let path = site.path().join("faulty.toml");
    let text = site.configuration();
    let text = text.replace("shards = 2", "shards = \"two\"\ncolour = 1");
    let text = text.replace("kind = \"passwd-file\"", "kind = \"pan\"");
    fs::write(&path, text).expect("written");
    let checked = check(&path);
    let served = Command::new(PROGRAM)
        .args(["serve", "--config"])
        .arg(&path)
        .output()
        .expect("it starts");
    assert_eq!(
        (checked.status.code(), served.status.code()),
        (Some(1), Some(1))
    );
    assert_eq!(checked.stdout, served.stderr);
    let told = String::from_utf8(served.stderr).expect("UTF-8");
    assert_eq!(told.lines().count(), 3, "{told}");
    for key in ["server.shards", "server.colour", "auth.directory[1].kind"] {
        assert!(told.contains(key), "{told}");
    }
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let output = check(Path::new("/nonexistent/popcore.toml"));
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
    assert!(told.starts_with("/nonexistent/popcore.toml: "), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[test]
fn an_address_that_is_taken_is_one_message() {
    for admin in [false, true] {
        let site = Site::with_users(&["ann"]);
        let address = if admin { site.admin() } else { site.pop3() };
        let _holder = TcpListener::bind(address).expect("free");
        let mut server = site.launch(Command::new(PROGRAM));
        assert_eq!(server.end().code(), Some(1));
        let log = server.log();
        let told: Vec<_> = log
            .lines()
            .filter(|line| line.starts_with("popcore: "))
            .collect();
        assert_eq!(told.len(), 1, "{log}");
        assert!(told[0].contains(&address.to_string()), "{}", told[0]);
        assert!(told[0].contains("address"), "{}", told[0]);
    }
}

#[test]
fn a_second_server_does_not_share_the_address_of_the_first() {
    let first = Site::with_users(&["ann"]).start();
    let config = first.site.configure();
    let output = Command::new(PROGRAM)
        .args(["serve", "--config"])
        .arg(config)
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(told.contains(&first.site.pop3().to_string()), "{told}");
    assert!(told.contains("another server has this address"), "{told}");
    first.log_in("ann").quit();
}

#[test]
fn an_address_is_free_again_as_soon_as_its_server_has_ended() {
    let mut server = Site::with_users(&["ann"]).start();
    for _ in 0..3 {
        // The server closes first, so that connections of its address linger.
        server.log_in("ann").quit();
        server.signal(Signal::TERM);
        assert!(server.end().success());
        server.restart();
    }
}

#[test]
fn a_certificate_that_is_not_the_keys_is_told() {
    let site = Site::with_users(&["ann"]);
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let key = other.signing_key.serialize_pem();
    fs::write(site.path().join("key.pem"), key).expect("written");
    let mut server = site.launch(Command::new(PROGRAM));
    assert_eq!(server.end().code(), Some(1));
    let log = server.log();
    assert!(
        log.contains("key.pem") && log.contains("the key must be"),
        "{log}"
    );
}

/// Only root can change to another user, and is refused nothing here.
#[test]
fn privileges_are_dropped_by_root_and_refused_to_others() {
    let site = Site::with_users(&["ann"]);
    let text = site.configuration();
    let text = text.replacen("[server]\n", "[server]\nuser = 65534\ngroup = 65534\n", 1);
    let path = site.path().join("popcore.toml");
    fs::write(&path, text).expect("written");
    if !rustix::process::geteuid().is_root() {
        let output = check(&path);
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(
            told.contains(":2: server.user: is set, but only root can"),
            "{told}"
        );
        return;
    }
    // Whoever it becomes must still find mail, lock it and log in.
    let open = std::os::unix::fs::PermissionsExt::from_mode;
    fs::set_permissions(site.path(), open(0o755)).expect("a mode");
    fs::set_permissions(site.mailbox("ann").path(), open(0o777)).expect("a mode");
    let mut child = Command::new(PROGRAM)
        .args(["serve", "--config"])
        .arg(&path)
        .spawn()
        .expect("it starts");
    until_true("the server to serve", || {
        std::net::TcpStream::connect(site.pop3()).is_ok()
    });
    super::client::Client::logged_in(site.pop3(), "ann").quit();
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    for ids in [
        "Uid:\t65534\t65534\t65534\t65534",
        "Gid:\t65534\t65534\t65534\t65534",
    ] {
        assert!(status.contains(ids), "{status}");
    }
}
