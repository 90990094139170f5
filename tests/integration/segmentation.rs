//! Commands come in segments of any size; replies are the same octets.

use std::thread;

use popcore::limits;
use rustix::event::{PollFd, PollFlags};

use super::client::Client;
use super::random::Random;
use super::server::{Server, Site};

/// A whole session, login and QUIT included, that deletes nothing.
const SCRIPT: &str = "CAPA\r\nUSER ann\r\nPASS wrong\r\nUSER ann\r\nPASS secret\r\nSTAT\r\nLIST\r\n\
     UIDL\r\nRETR 1\r\nRETR 2\r\nTOP 3 1\r\nRETR 9\r\nDELE 1\r\nRETR 1\r\nXYZZY\r\nRSET\r\nUIDL 3\r\n\
     LIST 1\r\nNOOP\r\nRETR 4\r\nQUIT\r\n";

fn server() -> Server {
    let site = Site::with_users(&["ann"]);
    let mailbox = site.mailbox("ann");
    mailbox.fill(3);
    let long: Vec<u8> = (0..4000)
        .flat_map(|n| format!(".{n}\n").into_bytes())
        .collect();
    mailbox.deliver("new/4.m", long);
    site.start()
}

/// Everything the server says to a client that sends these segments.
fn replies<'a>(server: &Server, segments: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut client = Client::silent(server.site.pop3());
    for segment in segments {
        client.send(segment);
    }
    client.rest()
}

#[test]
fn any_segmentation_gives_the_same_octets() {
    let server = server();
    let script = SCRIPT.as_bytes();
    // The reference waits for each reply before it goes on.
    let whole = replies(&server, std::iter::once(script));
    let (mut client, mut by_line) = (Client::silent(server.site.pop3()), Vec::new());
    for line in script.split_inclusive(|octet| *octet == b'\n') {
        client.send(line);
    }
    by_line.append(&mut client.rest());
    assert!(whole == by_line);
    assert!(whole.ends_with(b"\r\n.\r\n+OK popcore signing off\r\n"));
    let oks = whole.windows(5).filter(|w| w == b"\r\n+OK").count();
    assert_eq!(oks, 17, "{}", whole.escape_ascii());

    let octet_by_octet = replies(&server, script.chunks(1));
    assert!(whole == octet_by_octet);
    for seed in 0..24 {
        let mut random = Random::new(seed);
        let mut rest = script;
        let segments = std::iter::from_fn(|| {
            let length = (1 + random.below(24)).min(rest.len());
            if random.below(4) == 0 {
                thread::yield_now();
            }
            let segment = rest.split_off(..length)?;
            (!segment.is_empty()).then_some(segment)
        });
        assert!(whole == replies(&server, segments), "seed {seed}");
    }
}

#[test]
fn a_client_that_waits_gets_what_a_client_that_pipelines_gets() {
    let server = server();
    let whole = replies(&server, std::iter::once(SCRIPT.as_bytes()));
    let mut client = server.connect();
    let mut waited = Vec::new();
    let mut say = |line: &str| {
        let multi = [
            "CAPA", "LIST", "UIDL", "RETR 1", "RETR 2", "TOP 3 1", "RETR 4",
        ];
        client.send(line);
        client.send("\r\n");
        let mut reply = client.line();
        let text = if multi.contains(&line) && reply.starts_with("+OK") {
            client.lines_to_terminator()
        } else {
            Vec::new()
        };
        reply.push_str("\r\n");
        [reply.into_bytes(), text].concat()
    };
    for line in SCRIPT.lines() {
        waited.extend(say(line));
    }
    client.ends();
    let greeting = whole
        .iter()
        .position(|octet| *octet == b'\n')
        .expect("a line");
    assert!(whole[greeting + 1..] == waited);
}

#[test]
fn a_hundred_thousand_pipelined_commands_are_answered_in_order() {
    let server = server();
    let mut client = server.log_in("ann");
    let mut sender = Client::over(client.stream().try_clone().expect("a descriptor"));
    let sending = thread::spawn(move || {
        for _ in 0..1_000 {
            sender.send("UIDL 1\r\nUIDL 2\r\n".repeat(50));
        }
    });
    for _ in 0..50_000 {
        assert_eq!(client.line(), "+OK 1 1.m");
        assert_eq!(client.line(), "+OK 2 2.m");
    }
    sending.join().expect("it sent all");
    client.quit();
}

#[test]
fn a_half_closed_connection_gets_every_reply() {
    let server = server();
    let mut client = Client::silent(server.site.pop3());
    client.send("USER ann\r\nPASS secret\r\nDELE 1\r\nRETR 4\r\nQUIT\r\n");
    client.half_close();
    let replies = client.rest();
    assert!(replies.ends_with(b"\r\n.\r\n+OK popcore signing off\r\n"));
    // QUIT came before the end of the stream: it is a QUIT like any other.
    assert!(
        !server
            .mailbox("ann")
            .names()
            .contains(&"new/1.m".to_owned())
    );
}

#[test]
fn a_line_that_the_end_cuts_off_is_not_obeyed() {
    let server = server();
    let mut client = server.log_in("ann");
    client.send("DELE 1\r\nQUIT");
    client.half_close();
    assert!(client.line().starts_with("+OK"));
    client.ends();
    drop(server.log_in_once_free("ann"));
    assert!(
        server
            .mailbox("ann")
            .names()
            .contains(&"new/1.m".to_owned())
    );
}

/// Whoever reads the last reply can see in the same moment that nothing follows: a
/// segment of its own for the end would cost both sides a tenth of a short session.
#[test]
fn the_last_reply_and_the_end_of_the_stream_come_in_one_segment() {
    const SESSIONS: usize = 200;
    let server = server();
    for session in 0..SESSIONS {
        let mut client = Client::connect(server.site.pop3());
        client.send("QUIT\r\n");
        let mut watched = [PollFd::new(
            client.stream(),
            PollFlags::IN | PollFlags::RDHUP,
        )];
        rustix::event::poll(&mut watched, None).expect("something comes");
        let seen = watched[0].revents();
        assert!(
            seen.contains(PollFlags::IN | PollFlags::RDHUP),
            "{session}: {seen:?}"
        );
        assert_eq!(client.rest(), b"+OK popcore signing off\r\n");
    }
}

/// A close beneath octets that nobody read would have the kernel reset the
/// connection, and take what the client has not read yet.
#[test]
fn a_client_that_sends_nonsense_without_end_reads_why_it_is_sent_away() {
    let server = server();
    for _ in 0..20 {
        let mut client = Client::silent(server.site.pop3());
        client.send("XYZZY\r\n".repeat(4000));
        let said = String::from_utf8(client.rest()).expect("ASCII");
        let refusals = said
            .lines()
            .filter(|line| line.starts_with("-ERR "))
            .count();
        assert_eq!(refusals, usize::from(limits::BAD_COMMANDS), "{said}");
    }
}

/// The first octets of a TLS record begin no command, and a password may hold them.
#[test]
fn octets_of_a_record_within_a_line_are_the_lines() {
    let server = Site::with_users(&["ann"]).start();
    let mut client = server.connect();
    client.send("USER ann\r\nPASS ");
    assert!(client.line().starts_with("+OK"));
    client.send(b"\x16\x03\x01abc\r\n");
    let reply = client.line();
    assert!(reply.starts_with("-ERR [AUTH] "), "{reply}");
    client.log_in("ann");
    client.ok("NOOP");
    client.send(b"\x16\x03\x01");
    server.log_line(&["TLS without STLS"]);
}
