//! Every command of RFC 1939 and RFC 2449 on the wire.

use super::client::Client;
use super::mailbox::message;
use super::model;
use super::server::{Server, Site};

/// A server whose user ann has three messages, logged in.
fn three_messages() -> (Server, Client) {
    let site = Site::with_users(&["ann"]);
    site.mailbox("ann").fill(3);
    let server = site.start();
    let client = server.log_in("ann");
    (server, client)
}

fn octets(number: usize) -> usize {
    model::counted(&message(number)).len()
}

#[test]
fn a_session_of_every_command() {
    let (server, mut client) = three_messages();
    let total: usize = (1..=3).map(octets).sum();
    assert_eq!(client.say("STAT"), format!("+OK 3 {total}"));
    let rows: Vec<_> = (1..=3).map(|n| format!("{n} {}", octets(n))).collect();
    assert_eq!(client.rows("LIST"), rows);
    assert_eq!(client.say("LIST 2"), format!("+OK {}", rows[1]));
    assert_eq!(client.rows("UIDL"), ["1 1.m", "2 2.m", "3 3.m"]);
    assert_eq!(client.say("UIDL 3"), "+OK 3 3.m");
    client.send("RETR 2\r\n");
    assert_eq!(client.line(), format!("+OK {} octets", octets(2)));
    assert_eq!(client.lines_to_terminator(), model::sent(&message(2)));
    assert_eq!(client.text("TOP 3 2"), model::top(&message(3), 2));
    client.ok("NOOP");
    client.ok("DELE 2");
    client.ok("RSET");
    client.ok("DELE 1");
    client.quit();
    assert_eq!(server.mailbox("ann").names(), ["new/2.m", "new/3.m"]);
}

#[test]
fn commands_are_taken_in_any_case() {
    let (_server, mut client) = three_messages();
    for command in ["stat", "Stat", "sTaT", "list 1", "uIdL 1", "noop", "rset"] {
        client.ok(command);
    }
    assert_eq!(client.text("retr 1"), client.text("RETR 1"));
    assert_eq!(client.text("Top 1 0"), client.text("TOP 1 0"));
    client.ok("quit");
    client.ends();
}

#[test]
fn message_numbers_are_exact() {
    let (server, mut client) = three_messages();
    let numbers = [
        "0",
        "4",
        "-1",
        "+1",
        "1x",
        "0x1",
        "one",
        "4294967297",
        "18446744073709551617",
        "1.0",
    ];
    // Each malformed number is a bad command, and a session may have 20.
    for command in ["RETR", "LIST", "UIDL", "DELE"] {
        for number in numbers {
            client.err(&format!("{command} {number}"));
        }
        client.quit();
        client = server.log_in_once_free("ann");
    }
    assert_eq!(client.rows("LIST").len(), 3, "nothing was marked");
    for command in ["TOP 1 -1", "TOP 1 +1", "TOP 0 1", "TOP 4 1", "TOP 1 1x"] {
        client.err(command);
    }
    client.ok("STAT");
}

#[test]
fn arguments_too_many_or_too_few_are_refused() {
    let (_server, mut client) = three_messages();
    for command in [
        "STAT 1",
        "NOOP x",
        "RSET 1",
        "QUIT now",
        "LIST 1 2",
        "UIDL 1 2",
        "RETR",
        "RETR 1 2",
        "DELE",
        "DELE 1 2",
        "TOP 1",
        "TOP",
        "TOP 1 2 3",
        "CAPA x",
        "RETR  1",
    ] {
        client.err(command);
    }
    assert_eq!(client.rows("LIST").len(), 3);
    client.quit();
}

#[test]
fn retr_zero_is_refused() {
    let (_server, mut client) = three_messages();
    client.err("RETR 0");
    client.err("TOP 0 0");
    client.err("DELE 0");
    client.ok("STAT");
}

#[test]
fn stat_list_uidl_leave_out_deleted() {
    let (_server, mut client) = three_messages();
    client.ok("DELE 2");
    assert_eq!(
        client.say("STAT"),
        format!("+OK 2 {}", octets(1) + octets(3))
    );
    let listed = [format!("1 {}", octets(1)), format!("3 {}", octets(3))];
    assert_eq!(client.rows("LIST"), listed);
    assert_eq!(client.rows("UIDL"), ["1 1.m", "3 3.m"]);
    for command in ["LIST 2", "UIDL 2", "RETR 2", "TOP 2 0", "DELE 2"] {
        client.err(command);
    }
}

#[test]
fn numbers_do_not_change_after_dele() {
    let (_server, mut client) = three_messages();
    client.ok("DELE 1");
    assert_eq!(client.say("UIDL 3"), "+OK 3 3.m");
    assert_eq!(client.text("RETR 3"), model::sent(&message(3)));
    client.ok("RSET");
    assert_eq!(client.rows("UIDL"), ["1 1.m", "2 2.m", "3 3.m"]);
}

#[test]
fn the_states_take_their_own_commands_only() {
    let (server, mut client) = three_messages();
    for command in ["USER ann", "PASS secret", "STLS"] {
        client.err(command);
    }
    client.ok("STAT");
    let mut stranger = server.connect();
    for command in [
        "STAT",
        "LIST",
        "RETR 1",
        "DELE 1",
        "NOOP",
        "RSET",
        "TOP 1 0",
        "UIDL",
        "PASS secret",
    ] {
        stranger.err(command);
    }
    stranger.ok("QUIT");
    stranger.ends();
}

#[test]
fn capa_tells_what_is_so_in_both_states() {
    let (server, mut client) = three_messages();
    let always = [
        "TOP",
        "UIDL",
        "RESP-CODES",
        "AUTH-RESP-CODE",
        "PIPELINING",
        "EXPIRE NEVER",
        "SASL PLAIN LOGIN",
        "IMPLEMENTATION popcore",
    ];
    let before = server.connect().rows("CAPA");
    let after = client.rows("CAPA");
    for capability in always {
        assert!(before.iter().any(|row| row == capability), "{before:?}");
        assert!(after.iter().any(|row| row == capability), "{after:?}");
    }
    assert!(before.contains(&"STLS".to_owned()) && before.contains(&"USER".to_owned()));
    assert!(!after.contains(&"STLS".to_owned()), "{after:?}");
    for row in before.iter().chain(&after) {
        assert!(!row.starts_with("LOGIN-DELAY"), "{row}");
    }
}

#[test]
fn an_unknown_command_costs_its_own_reply_only() {
    let (_server, mut client) = three_messages();
    for command in [
        "", " ", "XYZZY", "AUTH", "APOP a b", "STAT\tx", "STATUS", "\u{e9}",
    ] {
        client.err(command);
    }
    client.ok("STAT");
}

#[test]
fn a_line_too_long_is_refused_once_and_the_next_is_taken() {
    let (_server, mut client) = three_messages();
    for length in [254, 255, 1000, 70_000] {
        client.send(format!("NOOP{}\r\nSTAT\r\n", "x".repeat(length - 4)));
        assert!(client.line().starts_with("-ERR "), "{length}");
        assert!(client.line().starts_with("+OK 3 "), "{length}");
    }
    // 253 octets and CRLF are the longest line there is: only its command is bad.
    client.send(format!("NOOP{}\r\n", " ".repeat(249)));
    assert!(client.line().starts_with("+OK"));
}

#[test]
fn a_flood_without_a_line_end_is_not_stored() {
    let (server, mut client) = three_messages();
    let mut flood = server.connect();
    let before = resident(server.pid());
    for _ in 0..64 {
        flood.send(vec![b'x'; 1 << 20]);
        client.ok("NOOP");
    }
    let after = resident(server.pid());
    assert!(after < before + (16 << 20), "{before} to {after}");
    flood.send("\r\nCAPA\r\n");
    assert!(flood.line().starts_with("-ERR "));
    assert!(flood.line().starts_with("+OK"));
}

/// Octets of memory a process has.
pub(crate) fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let words = line.expect("VmRSS").split_whitespace().nth(1);
    words.expect("a number").parse::<usize>().expect("a number") * 1024
}

#[test]
fn bad_commands_are_limited() {
    let (server, mut client) = three_messages();
    client.ok("DELE 1");
    for _ in 0..20 {
        client.err("XYZZY");
    }
    client.ends();
    server.log_line(&["Too many invalid commands", "del=0/3"]);
    assert_eq!(server.mailbox("ann").names().len(), 3, "nothing is deleted");
}

#[test]
fn a_line_may_end_in_lf_alone() {
    let (_server, mut client) = three_messages();
    client.send("STAT\nNOOP\r\n");
    assert!(client.line().starts_with("+OK 3 "));
    assert!(client.line().starts_with("+OK"));
}

#[test]
fn a_listing_of_ten_thousand_messages_is_whole() {
    let site = Site::with_users(&["ann"]);
    let mailbox = site.mailbox("ann");
    for number in 1..=10_000 {
        let path = mailbox.path().join(format!("cur/{number}.m:2,S"));
        std::fs::write(path, "a\n").expect("written");
    }
    let server = site.start();
    let mut client = server.log_in("ann");
    let rows = client.rows("UIDL");
    assert_eq!(rows.len(), 10_000);
    for (row, number) in rows.iter().zip(1..) {
        assert_eq!(*row, format!("{number} {number}.m"));
    }
    assert!(client.rows("LIST").iter().all(|row| row.ends_with(" 3")));
    client.quit();
}

#[test]
fn an_empty_or_missing_maildrop_has_no_mail() {
    let site = Site::with_users(&["ann", "bob"]);
    std::fs::remove_dir_all(site.path().join("mail/bob")).expect("removed");
    let server = site.start();
    for user in ["ann", "bob"] {
        let mut client = server.log_in(user);
        assert_eq!(client.say("STAT"), "+OK 0 0");
        assert!(client.rows("LIST").is_empty() && client.rows("UIDL").is_empty());
        client.err("RETR 1");
        client.quit();
    }
}
