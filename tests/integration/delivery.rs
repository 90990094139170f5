//! How messages travel: in how few pieces, what a client that does not read costs,
//! and what becomes of a file that fails in the midst.

use std::fs::{self, File};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::client::Client;
use super::mailbox::message;
use super::model;
use super::patience::{until, until_true};
use super::server::{Server, Site};

/// A message of 8 KiB whose lines end as they are sent, or do not.
fn eight_kib(line_end: &str) -> Vec<u8> {
    let mut message = format!("Subject: x{line_end}{line_end}").into_bytes();
    while message.len() < 8192 - 80 {
        message.extend_from_slice(format!("{:x>70}{line_end}", "").as_bytes());
    }
    message
}

#[test]
fn a_small_message_leaves_in_one_piece_with_first_line_and_terminator() {
    let site = Site::with_users(&["ann"]);
    let messages = [eight_kib("\n"), eight_kib("\r\n"), message(4), Vec::new()];
    for (octets, number) in messages.iter().zip(1..) {
        site.mailbox("ann")
            .deliver(&format!("new/{number}.m"), octets);
    }
    let server = site.start();
    let mut client = server.log_in("ann");
    // What is sent at once comes at once on loopback; a second send would be found
    // alone in some of so many tries.
    for round in 0..50 {
        for (stored, number) in messages.iter().zip(1..) {
            let octets = model::counted(stored).len();
            let first = format!("+OK {octets} octets\r\n").into_bytes();
            let expected = [first, model::sent(stored)].concat();
            client.send(format!("RETR {number}\r\n"));
            let piece = client.piece();
            assert!(
                piece == expected,
                "round {round}, message {number}: {} of {} octets",
                piece.len(),
                expected.len()
            );
        }
    }
}

#[test]
fn the_first_line_of_a_large_message_does_not_come_alone() {
    for map_from in [None, Some(1)] {
        for line_end in ["\n", "\r\n"] {
            let mut site = Site::with_users(&["ann"]);
            site.map_from = map_from;
            let large = format!("{:x>70}{line_end}", "").repeat(30_000);
            site.mailbox("ann").deliver("new/1.m", &large);
            let server = site.start();
            let mut client = server.log_in("ann");
            for _ in 0..20 {
                client.send("RETR 1\r\n");
                let mut got = client.piece();
                assert!(got.len() > 100, "{}", got.escape_ascii());
                while !got.ends_with(b"\r\n.\r\n") {
                    got = client.piece();
                }
            }
        }
    }
}

#[test]
fn replies_to_pipelined_commands_leave_together() {
    let site = Site::with_users(&["ann"]);
    site.mailbox("ann").fill(4);
    let server = site.start();
    let mut client = server.log_in("ann");
    let mut expected = Vec::new();
    for number in 1..=4 {
        let octets = model::counted(&message(number)).len();
        expected.extend_from_slice(format!("+OK {octets} octets\r\n").as_bytes());
        expected.extend_from_slice(&model::sent(&message(number)));
    }
    for _ in 0..50 {
        client.send("RETR 1\r\nRETR 2\r\nRETR 3\r\nRETR 4\r\n");
        let piece = client.piece();
        assert!(piece == expected, "{} of {}", piece.len(), expected.len());
        client.send("NOOP\r\n".repeat(20));
        let piece = client.piece();
        assert_eq!(piece.split(|octet| *octet == b'\n').count(), 21);
    }
}

/// The server's own memory, in octets.
fn own_memory(server: &Server) -> u64 {
    let path = format!("/proc/{}/status", server.pid());
    let status = fs::read_to_string(path).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.expect("a number").parse::<u64>().expect("KiB") * 1024
}

#[test]
fn a_client_that_does_not_read_holds_a_position_and_no_buffer() {
    const CLIENTS: usize = 1000;
    const OCTETS: usize = 50 << 20;
    for line_end in ["\n", "\r\n"] {
        let names: Vec<String> = (0..=CLIENTS).map(|n| format!("u{n}")).collect();
        let users: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut site = Site::with_users(&users);
        site.shards = "1".to_owned();
        let line = format!("{:x>70}{line_end}", "");
        let large = line.repeat(OCTETS / line.len());
        site.mailbox(users[0]).deliver("new/1.m", &large);
        let source = site.mailbox(users[0]).path().join("new/1.m");
        for user in &users[1..] {
            let name = site.mailbox(user).path().join("new/1.m");
            fs::hard_link(&source, name).expect("linked");
        }
        let server = site.start();
        let sent = model::sent(large.as_bytes());
        // The shard's own buffers are there before. What is known of the message is
        // known to all.
        let mut other = server.log_in(users[0]);
        assert!(other.text("RETR 1") == sent);
        let index = server.mailbox(users[0]).path().join("popcore.index");
        for user in &users[1..] {
            let other = server.mailbox(user).path().join("popcore.index");
            fs::copy(&index, other).expect("copied");
        }
        let mut clients: Vec<Client> = users[1..].iter().map(|user| server.log_in(user)).collect();
        let before = own_memory(&server);
        for client in &mut clients {
            client.send("RETR 1\r\n");
        }
        for client in &mut clients {
            let mut first = [0; 4];
            client.stream().read_exact(&mut first).expect("octets");
            assert_eq!(&first, b"+OK ");
        }
        let most = 4096 * CLIENTS as u64;
        until_true("the buffers to be given back", || {
            own_memory(&server).saturating_sub(before) <= most
        });
        // Others go on, and one that reads on gets the rest.
        assert!(other.text("RETR 1") == sent);
        let mut slow = clients.pop().expect("one of them");
        slow.line();
        assert!(slow.lines_to_terminator() == sent, "the rest is wrong");
        let grown = own_memory(&server).saturating_sub(before);
        assert!(grown <= most, "{grown} octets");
        for client in clients {
            client.reset();
        }
    }
}

#[test]
fn a_message_truncated_in_mid_retr_ends_its_session_without_terminator() {
    for map_from in [Some(1), Some(u64::from(u32::MAX))] {
        for line in [
            "a line of a large message\n",
            "a line of a large message\r\n",
        ] {
            let mut site = Site::with_users(&["ann", "bob"]);
            site.map_from = map_from;
            site.mailbox("bob").fill(1);
            // More than the sockets between here and there take.
            let large = line.repeat((50 << 20) / line.len());
            site.mailbox("ann").deliver("new/1.m", &large);
            let server = site.start();
            let mut other = server.log_in("bob");
            let mut client = server.log_in("ann");
            client.ok("RETR 1");
            let path = server.mailbox("ann").path().join("new/1.m");
            let file = File::options().write(true).open(path).expect("a file");
            file.set_len(100).expect("truncated");
            let rest = client.rest();
            assert!(rest.len() < large.len());
            assert!(!rest.ends_with(b"\r\n.\r\n"));
            server.log_line(&["pop3(ann)", "Message failed", "retr=0/0, del=0/1"]);
            assert_eq!(other.text("RETR 1"), model::sent(&message(1)));
            let mut client = server.log_in_once_free("ann");
            assert_eq!(client.text("RETR 1"), model::sent(&large.as_bytes()[..100]));
        }
    }
}

#[test]
fn a_file_that_shrinks_all_the_time_never_ends_the_process() {
    for line in [
        "a line of a large message\n",
        "a line of a large message\r\n",
    ] {
        let mut site = Site::with_users(&["ann", "bob"]);
        site.map_from = Some(1);
        site.mailbox("bob").fill(1);
        let large = line.repeat((2 << 20) / line.len());
        let mut server = site.start();
        let mut other = server.log_in("bob");
        for round in 0..40 {
            // Another message each time: what is known of one stays known.
            let path = server.mailbox("ann").path().join(format!("new/{round}.m"));
            server
                .mailbox("ann")
                .deliver(&format!("new/{round}.m"), &large);
            let mut client = server.log_in_once_free("ann");
            client.send("RETR 1\r\n");
            let file = File::options().write(true).open(&path).expect("a file");
            // Anywhere in the course of the delivery.
            let mut piece = [0; 4096];
            for _ in 0..round {
                if client.stream().read(&mut piece).expect("octets") == 0 {
                    break;
                }
            }
            file.set_len(round * 1000).expect("truncated");
            client.half_close();
            client.rest();
            fs::remove_file(path).expect("removed");
        }
        assert!(server.runs());
        assert_eq!(other.text("RETR 1"), model::sent(&message(1)));
    }
}

/// How long RETR takes in a short session.
fn time_of_retr(address: SocketAddr, user: &str) -> Duration {
    let mut client = until("the maildrop to be free", || {
        let mut client = Client::connect(address);
        client.try_log_in(user).starts_with("+OK").then_some(client)
    });
    let begun = Instant::now();
    client.text("RETR 1");
    let time = begun.elapsed();
    client.quit();
    time
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 99 / 100 - 1]
}

#[test]
fn a_large_download_leaves_others_their_turns() {
    let mut site = Site::with_users(&["ann", "bob"]);
    site.shards = "1".to_owned();
    site.mailbox("bob").fill(1);
    let path = site.mailbox("ann").path().join("new/1.m");
    let line = format!("{:x>70}\n", "");
    let part = line.repeat((64 << 20) / line.len());
    let mut file = File::create(path).expect("a file");
    for _ in 0..16 {
        std::io::Write::write_all(&mut file, part.as_bytes()).expect("written");
    }
    drop(file);
    let server = site.start();
    // Another server on the same CPU, from which nobody downloads anything large: what
    // it takes there the machine is to be blamed for.
    let mut quiet = Site::with_users(&["bob"]);
    quiet.shards = "1".to_owned();
    quiet.mailbox("bob").fill(1);
    let quiet = quiet.start();
    let mut large = server.log_in("ann");
    large.ok("RETR 1");
    let reading = std::thread::spawn(move || {
        let mut stream: TcpStream = large.take_stream();
        let mut piece = vec![0; 1 << 20];
        let mut octets = 0_u64;
        let mut end = Vec::new();
        while !end.ends_with(b"\r\n.\r\n") {
            let count = stream.read(&mut piece).expect("octets");
            assert_ne!(count, 0, "ended early");
            octets += count as u64;
            end = piece[count.saturating_sub(5)..count].to_vec();
        }
        octets
    });
    let (mut beside, mut elsewhere) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        beside.push(time_of_retr(server.site.pop3(), "bob"));
        elsewhere.push(time_of_retr(quiet.site.pop3(), "bob"));
    }
    assert!(
        !reading.is_finished(),
        "the download was over before the others"
    );
    let (beside, elsewhere) = (p99(beside), p99(elsewhere));
    let bound = Duration::from_millis(10).max(3 * elsewhere);
    assert!(beside < bound, "{beside:?}, elsewhere {elsewhere:?}");
    assert!(reading.join().expect("read") > 1 << 30);
}
