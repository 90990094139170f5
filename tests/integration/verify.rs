//! `popcore migrate verify` of several users, in words and as JSON: the two servers differ
//! for some, and cannot be asked for one.

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::client::PASSWORD;
use super::mailbox::message;
use super::progress::{before_a_terminal, drawn};
use super::server::{PROGRAM, Server, Site};

const USERS: [&str; 4] = ["ann", "bob", "cleo", "dan"];

/// The earlier server and the later one. Of Bob's messages one is another by now and one
/// is gone, and Cleo is not known to the later one.
fn servers() -> (Server, Server) {
    let both = [USERS.as_slice(), &["ann", "bob", "dan"]].map(|users| {
        let site = Site::with_users(users);
        for user in users {
            site.mailbox(user).fill(3);
        }
        site
    });
    let [earlier, now] = both;
    let bob = now.mailbox("bob");
    bob.remove("new/3.m");
    // As long as it was.
    let changed = message(2).into_iter().map(|octet| match octet {
        b'a' => b'b',
        other => other,
    });
    fs::write(bob.path().join("new/2.m"), changed.collect::<Vec<u8>>()).expect("written");
    assert_ne!(
        fs::read(bob.path().join("new/2.m")).expect("a message"),
        message(2)
    );
    (earlier.start(), now.start())
}

fn verify(servers: &(Server, Server), users: &[&str], more: &[&str]) -> Output {
    command(servers, users, more).output().expect("it runs")
}

fn command(servers: &(Server, Server), users: &[&str], more: &[&str]) -> Command {
    let (earlier, now) = servers;
    let lines = users.iter().map(|user| format!("{user}:{PASSWORD}\n"));
    let list = now.site.path().join("verify");
    fs::write(&list, lines.collect::<String>()).expect("written");
    let mut command = Command::new(PROGRAM);
    command
        .args(["migrate", "verify", "--content"])
        .args(["--against", &earlier.site.pop3().to_string()])
        .args(["--server", &now.site.pop3().to_string()])
        .arg("--users")
        .arg(list)
        .args(more);
    command
}

/// What is said of those who are the same.
fn same(user: &str) -> Value {
    json!({ "user": user, "same": true, "messages": 3, "differences": 0, "told": [] })
}

#[test]
fn one_user_who_cannot_be_asked_fails_and_the_others_are_compared() {
    let servers = servers();
    let output = verify(&servers, &USERS, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON, and nothing else");
    let said = said.as_array().expect("a list");
    assert_eq!(said.len(), USERS.len(), "{said:?}");
    assert_eq!(said[0], same("ann"));
    let bob = json!({
        "user": "bob", "same": false, "messages": 3, "differences": 3,
        "told": [
            { "what": "messages", "message": 0, "earlier": "3", "now": "2" },
            { "what": "content", "message": 2, "earlier": "2.m", "now": "2.m" },
            { "what": "uidl", "message": 3, "earlier": "3.m", "now": "" },
        ],
    });
    assert_eq!(said[1], bob);
    let keys: Vec<&String> = said[2].as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["error", "user"]);
    assert_eq!(said[2]["user"], "cleo");
    let error = said[2]["error"].as_str().expect("a text");
    assert!(
        error.starts_with(&servers.1.site.pop3().to_string()),
        "{error}"
    );
    assert!(error.contains("-ERR [AUTH]"), "{error}");
    assert_eq!(said[3], same("dan"));
}

#[test]
fn several_users_are_told_in_their_order_and_in_words() {
    let servers = servers();
    for at_a_time in ["1", "8"] {
        let output = verify(&servers, &USERS, &["--parallel", at_a_time]);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stdout).expect("text");
        let rows: Vec<&str> = said.lines().filter(|row| !row.starts_with(' ')).collect();
        assert_eq!(rows.len(), USERS.len(), "{said}");
        assert_eq!(rows[0], "ann: same, 3 messages");
        assert_eq!(rows[1], "bob: DIFFERENT, 3 messages, 3 differences");
        assert!(rows[2].starts_with("cleo: CANNOT BE ASKED: "), "{said}");
        assert_eq!(rows[3], "dan: same, 3 messages");
    }
}

#[test]
fn users_who_are_all_the_same_end_well() {
    let servers = servers();
    for more in [&[][..], &["--json"]] {
        let output = verify(&servers, &["dan", "ann"], more);
        assert_eq!(output.status.code(), Some(0));
        if !more.is_empty() {
            let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(said, json!([same("dan"), same("ann")]));
        }
    }
}

#[test]
fn a_bar_is_drawn_on_a_terminal_alone() {
    let servers = servers();
    let users = ["dan", "ann"];
    let (output, shown) = before_a_terminal(&mut command(&servers, &users, &["--json"]));
    assert_eq!(output.status.code(), Some(0), "{shown}");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(said, json!([same("dan"), same("ann")]));
    let done = drawn(&shown, "of 2 mailboxes");
    assert!(
        !done.is_empty() && done.iter().all(|done| *done <= 2),
        "{shown}"
    );
    let output = verify(&servers, &users, &["--json"]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
