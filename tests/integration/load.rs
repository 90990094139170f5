//! Many clients, idle clients, and clients that take what there is.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::client::Client;
use super::descriptors::of_sessions;
use super::mailbox::message;
use super::model;
use super::patience::{until, until_true};
use super::scrape::Scrape;
use super::server::{PROGRAM, Server, Site};
use super::wire::resident;

/// Users enough for one session each.
fn crowd(users: usize) -> (Server, Vec<String>) {
    let names: Vec<String> = (0..users).map(|n| format!("user{n}")).collect();
    let borrowed: Vec<&str> = names.iter().map(String::as_str).collect();
    let site = Site::with_users(&borrowed);
    for name in &names {
        site.mailbox(name).fill(2);
    }
    (site.start(), names)
}

/// Time that a process has had a CPU for, all its threads together.
fn cpu(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let nanoseconds = threads.map(|thread| {
        let path = thread.expect("an entry").path().join("schedstat");
        // A thread may end meanwhile.
        let text = fs::read_to_string(path).unwrap_or_default();
        let first = text
            .split(' ')
            .next()
            .and_then(|word| word.parse::<u64>().ok());
        first.unwrap_or_default()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// The CPU time that a process takes within a span.
fn cpu_within(pid: u32, span: Duration) -> Duration {
    let before = cpu(pid);
    thread::sleep(span);
    cpu(pid).saturating_sub(before)
}

/// Waits until a process has come to rest: nothing that was begun goes on.
pub(crate) fn await_rest(pid: u32) {
    until_true("the server to be at rest", || {
        cpu_within(pid, Duration::from_millis(100)) < Duration::from_micros(200)
    });
}

#[test]
fn five_hundred_sessions_at_once() {
    let (server, names) = crowd(500);
    let before = of_sessions(server.pid()).len();
    let mut clients: Vec<Client> = names.iter().map(|_| server.connect()).collect();
    for (client, name) in clients.iter_mut().zip(&names) {
        client.send(format!("USER {name}\r\nPASS secret\r\nSTAT\r\nUIDL\r\n"));
    }
    for client in &mut clients {
        assert!(client.line().starts_with("+OK"));
        assert_eq!(client.line(), "+OK logged in");
        assert!(client.line().starts_with("+OK 2 "));
        assert!(client.line().starts_with("+OK"));
        assert_eq!(client.lines_to_terminator(), b"1 1.m\r\n2 2.m\r\n.\r\n");
    }
    let scrape = Scrape::of(server.site.admin());
    let shards = scrape.values("popcore_sessions_active");
    assert_eq!(shards.iter().sum::<u64>(), 500);
    assert!(shards.iter().all(|shard| *shard > 100), "{shards:?}");
    for (client, number) in clients.iter_mut().zip(0..) {
        assert_eq!(client.text("RETR 2"), model::sent(&message(2)));
        if number % 2 == 0 {
            client.ok("DELE 1");
        }
    }
    for client in clients {
        client.quit();
    }
    for (name, number) in names.iter().zip(0..) {
        let left = 2 - usize::from(number % 2 == 0);
        assert_eq!(server.mailbox(name).names().len(), left, "{name}");
    }
    until_true("descriptors to be closed", || {
        of_sessions(server.pid()).len() == before
    });
}

#[test]
fn an_idle_server_uses_no_cpu() {
    let (server, names) = crowd(50);
    await_rest(server.pid());
    let alone = cpu_within(server.pid(), Duration::from_secs(3));
    assert!(
        alone < Duration::from_millis(2),
        "without sessions {alone:?}"
    );
    let clients: Vec<Client> = names.iter().map(|name| server.log_in(name)).collect();
    await_rest(server.pid());
    let idle = cpu_within(server.pid(), Duration::from_secs(3));
    assert!(idle < Duration::from_millis(5), "with sessions {idle:?}");
    for client in clients {
        client.quit();
    }
}

/// A server that may have few descriptors.
fn cramped(descriptors: u32) -> Server {
    let mut command = Command::new("sh");
    let script = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
    command.args(["-c", &script]).arg(PROGRAM);
    let site = Site::with_users(&["ann"]);
    site.mailbox("ann").fill(1);
    site.start_by(command)
}

#[test]
fn at_the_descriptor_limit_the_server_rests_and_recovers() {
    let server = cramped(120);
    let address = server.site.pop3();
    let begun = Instant::now();
    let mut open: Vec<TcpStream> = (0..150)
        .map(|_| TcpStream::connect(address).expect("the kernel takes it"))
        .collect();
    server.log_line(&["Warning", "no connection is accepted for", "LimitNOFILE="]);
    let used = cpu_within(server.pid(), Duration::from_secs(1));
    assert!(
        used < Duration::from_millis(200),
        "it spins: {used:?} in a second"
    );
    // Each of the four listeners of two shards asks five times a second, and says
    // so once in a minute.
    let said = server
        .log()
        .matches("no connection is accepted for")
        .count();
    let most = 4 * (1 + begun.elapsed().as_secs() / 60);
    assert!(said as u64 <= most, "{said} times in {:?}", begun.elapsed());
    // Those who wait are served as soon as others go.
    open.drain(..120);
    let mut waiting = Client::over(open.pop().expect("one of those that waited"));
    assert!(waiting.line().starts_with("+OK popcore ready"));
    waiting.log_in("ann");
    assert_eq!(waiting.text("RETR 1"), model::sent(&message(1)));
    drop(open);
    waiting.quit();
    server.log_in("ann").quit();
    let scrape = Scrape::of(server.site.admin());
    let errors = scrape.value("popcore_accept_errors_total{kind=\"descriptors\"}");
    assert!(errors > 0);
    assert_eq!(scrape.value("popcore_listener_backoffs_total"), errors);
}

#[test]
fn a_session_at_the_descriptor_limit_fails_softly() {
    let server = cramped(120);
    let mut client = server.log_in("ann");
    let address = server.site.pop3();
    let open: Vec<TcpStream> = (0..150)
        .map(|_| TcpStream::connect(address).expect("the kernel takes it"))
        .collect();
    server.log_line(&["Warning", "no connection is accepted for"]);
    // No descriptor is left for the message's file.
    let reply = client.say("RETR 1");
    assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{reply}");
    drop(open);
    until("the message", || {
        let reply = client.say("RETR 1");
        reply
            .starts_with("+OK")
            .then(|| client.lines_to_terminator())
    });
    client.quit();
}

#[test]
fn a_client_that_does_not_read_costs_no_other_session() {
    let site = Site::with_users(&["ann", "bob"]);
    site.mailbox("ann")
        .deliver("new/1.m", b"a large message\n".repeat(2 << 20));
    site.mailbox("bob").fill(3);
    let mut site = site;
    site.shards = "1".into();
    let server = site.start();
    let mut stalled = server.log_in("ann");
    stalled.send("RETR 1\r\n".repeat(500));
    // Its end by the write time-out, a minute, is for the connection's own tests.
    let begun = Instant::now();
    for _ in 0..50 {
        let mut client = server.log_in("bob");
        assert_eq!(client.text("RETR 3"), model::sent(&message(3)));
        client.quit();
    }
    assert!(begun.elapsed() < Duration::from_secs(30));
    await_rest(server.pid());
    stalled.reset();
    drop(server.log_in_once_free("ann"));
}

#[test]
fn a_megabyte_without_a_line_end_costs_one_reply() {
    let server = Site::with_users(&["ann"]).start();
    let mut client = server.log_in("ann");
    client.send(vec![b'a'; 1 << 20]);
    client.send("\r\nSTAT\r\n");
    assert!(client.line().starts_with("-ERR "));
    assert_eq!(client.line(), "+OK 0 0");
    client.quit();
}

#[test]
fn a_client_that_sends_and_does_not_read_is_held_back() {
    let site = Site::with_users(&["ann"]);
    site.mailbox("ann")
        .deliver("new/1.m", b"a large message\n".repeat(2 << 20));
    let server = site.start();
    let mut client = server.log_in("ann");
    client.send("RETR 1\r\n");
    await_rest(server.pid());
    let before = resident(server.pid());
    let stream = client.into_stream();
    stream.set_nonblocking(true).expect("an option");
    let commands = b"NOOP\r\n".repeat(10_000);
    let mut taken = 0;
    // What the kernel takes is bounded by its buffers, unless the server empties
    // them all the time.
    loop {
        match (&stream).write(&commands) {
            Ok(count) => taken += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                await_rest(server.pid());
                if matches!((&stream).write(b"N"), Err(e) if e.kind() == ErrorKind::WouldBlock) {
                    break;
                }
            }
            Err(error) => panic!("{error}"),
        }
        assert!(
            taken < 64 << 20,
            "{taken} octets of commands taken without an answer"
        );
    }
    let after = resident(server.pid());
    assert!(
        after < before + (16 << 20),
        "{before} became {after} for {taken} octets"
    );
}
