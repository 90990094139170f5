//! One session at a time has a maildrop, and only as long as it lives.

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use super::client::Client;
use super::patience::until_true;
use super::server::{Server, Site};

fn server() -> Server {
    let site = Site::with_users(&["ann", "bob"]);
    site.mailbox("ann").fill(2);
    site.start()
}

fn in_use(server: &Server) {
    let mut second = server.connect();
    let reply = second.try_log_in("ann");
    assert!(reply.starts_with("-ERR [IN-USE] "), "{reply}");
}

#[test]
fn a_second_session_is_refused_and_goes_on_before_login() {
    let server = server();
    let mut first = server.log_in("ann");
    let mut second = server.connect();
    let reply = second.try_log_in("ann");
    assert!(reply.starts_with("-ERR [IN-USE] "), "{reply}");
    first.ok("STAT");
    // It may try again, and log in as somebody else.
    second.err("STAT");
    second.log_in("bob");
    first.quit();
}

/// How long the first server has had the maildrop, by the words of the second.
fn seconds_in_use(second: &Server) -> u64 {
    let refused = second.connect().try_log_in("ann");
    let since = refused.strip_prefix("-ERR [IN-USE] another session has the maildrop open for ");
    let since = since.and_then(|rest| rest.strip_suffix(" seconds"));
    let since = since.and_then(|seconds| seconds.parse().ok());
    since.unwrap_or_else(|| panic!("{refused}"))
}

#[test]
fn two_processes_exclude_each_other_and_one_that_is_killed_frees_at_once() {
    let mut first = server();
    let mut site = Site::with_users(&["ann"]);
    let mail = first.site.path().join("mail/{user}");
    site.maildrop = mail.into_os_string().into_string().expect("ASCII").leak();
    let mut second = site.start();
    for round in 0..5 {
        let began = SystemTime::now();
        let mut holder = first.log_in_once_free("ann");
        let held = SystemTime::now();
        assert_eq!(holder.rows("LIST").len(), 2);
        // In the first round till it has been so for some time, and in each as long as it has
        // been by then: a lock tells the second in which it was taken.
        let least = if round == 0 { 2 } else { 0 };
        until_true("a lock that is some seconds old", || {
            let asked = SystemTime::now();
            let told = seconds_in_use(&second);
            let answered = SystemTime::now();
            let since = |from: SystemTime, to: SystemTime| {
                to.duration_since(from).unwrap_or_default().as_secs()
            };
            let whole = UNIX_EPOCH + Duration::from_secs(since(UNIX_EPOCH, began));
            let plausible = since(held, asked)..=since(whole, answered);
            assert!(plausible.contains(&told), "{told} of {plausible:?}");
            told >= least
        });
        first.signal(Signal::KILL);
        first.end();
        // Not once more, and not after a while.
        let reply = second.connect().try_log_in("ann");
        assert!(reply.starts_with("+OK"), "round {round}: {reply}");
        first.restart();
        std::mem::swap(&mut first, &mut second);
    }
}

#[test]
fn the_lock_is_gone_when_the_client_sees_the_answer_to_quit() {
    let server = server();
    for round in 0..100 {
        let mut client = server.connect();
        let reply = client.try_log_in("ann");
        assert!(reply.starts_with("+OK"), "round {round}: {reply}");
        client.ok("QUIT");
    }
}

#[test]
fn the_lock_is_gone_when_the_answer_to_quit_is_told_after_deletions() {
    let server = server();
    let mailbox = server.mailbox("ann");
    for round in 0..30 {
        mailbox.deliver(&format!("new/9{round}.x"), "x\n");
        let mut client = server.connect();
        let reply = client.try_log_in("ann");
        assert!(reply.starts_with("+OK"), "round {round}: {reply}");
        client.ok("DELE 3");
        client.ok("QUIT");
    }
    assert_eq!(mailbox.names(), ["new/1.m", "new/2.m"]);
}

#[test]
fn stale_lock_after_close() {
    let server = server();
    let mut client = server.log_in("ann");
    client.ok("DELE 1");
    in_use(&server);
    drop(client);
    let mut client = server.log_in_once_free("ann");
    assert_eq!(client.rows("UIDL").len(), 2, "nothing was deleted");
}

#[test]
fn stale_lock_after_reset() {
    let server = server();
    let mut client = server.log_in("ann");
    client.ok("DELE 1");
    in_use(&server);
    client.reset();
    let mut client = server.log_in_once_free("ann");
    assert_eq!(client.rows("UIDL").len(), 2, "nothing was deleted");
    server.log_line(&["pop3(ann)", "Disconnected: Connection ", "del=0/2"]);
}

#[test]
fn stale_lock_after_half_close() {
    let server = server();
    let mut client = server.log_in("ann");
    client.ok("DELE 1");
    client.half_close();
    client.ends();
    let mut client = server.log_in_once_free("ann");
    assert_eq!(client.rows("UIDL").len(), 2, "nothing was deleted");
}

#[test]
fn stale_lock_after_the_client_was_killed() {
    let server = server();
    let mut client = server.log_in("ann");
    client.ok("DELE 1");
    // Another process has the connection now, and it alone.
    let socket = OwnedFd::from(client.into_stream());
    let mut holder = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::from(socket))
        .spawn()
        .expect("it starts");
    in_use(&server);
    holder.kill().expect("it runs");
    holder.wait().expect("it ends");
    let mut client = server.log_in_once_free("ann");
    assert_eq!(client.rows("UIDL").len(), 2, "nothing was deleted");
}

#[test]
fn stale_lock_after_an_end_in_the_midst_of_a_message() {
    let site = Site::with_users(&["ann"]);
    site.mailbox("ann").deliver("new/1.m", vec![b'x'; 16 << 20]);
    let server = site.start();
    for round in 0..3 {
        let mut client = server.log_in_once_free("ann");
        client.ok("RETR 1");
        if round == 1 {
            client.reset();
        }
    }
    drop(server.log_in_once_free("ann"));
}

#[test]
fn a_login_that_comes_while_the_line_drops_leaves_no_lock() {
    let server = server();
    for _ in 0..50 {
        let mut client = Client::silent(server.site.pop3());
        client.send("USER ann\r\nPASS secret\r\n");
        client.reset();
    }
    drop(server.log_in_once_free("ann"));
}

#[test]
fn two_servers_exclude_each_other_and_kill_9_of_one_frees() {
    let mut first = server();
    let mail = first.site.path().join("mail/{user}");
    let mut site = Site::with_users(&["ann", "bob"]);
    site.maildrop = Box::leak(mail.display().to_string().into_boxed_str());
    let second = site.start();
    let mut client = first.log_in("ann");
    client.ok("DELE 1");
    let mut refused = second.connect();
    let reply = refused.try_log_in("ann");
    let told = "-ERR [IN-USE] another session has the maildrop open for ";
    assert!(reply.starts_with(told), "{reply}");
    // Only this maildrop is taken.
    drop(second.log_in("bob"));
    first.signal(Signal::KILL);
    first.end();
    let mut client = second.log_in_once_free("ann");
    assert_eq!(client.rows("UIDL").len(), 2, "nothing was deleted");
    client.ok("DELE 1");
    client.quit();
    // And the other way round, with what the first knew of it out of date.
    first.restart();
    let mut client = first.log_in("ann");
    assert_eq!(client.rows("UIDL"), ["1 2.m"]);
    let mut refused = second.connect();
    assert!(refused.try_log_in("ann").starts_with(told));
    client.quit();
    assert_eq!(second.log_in("ann").rows("UIDL"), ["1 2.m"]);
}

#[test]
fn login_delay_refuses_no_client_that_comes_again_to_delete() {
    let server = server();
    let mut first = server.log_in("ann");
    first.text("RETR 1");
    first.quit();
    let mut second = server.log_in("ann");
    second.ok("DELE 1");
    second.quit();
    assert_eq!(server.mailbox("ann").names(), ["new/2.m"]);
}
