//! Messages of every kind: what LIST counts, what RETR and TOP send.

use super::client::Client;
use super::model;
use super::server::{Server, Site};

/// Octets of a buffer of the server's; messages about this long meet its edges.
const BUFFER: usize = 32 * 1024;

fn serve(messages: &[Vec<u8>]) -> (Server, Client) {
    serve_mapped(messages, None)
}

fn serve_mapped(messages: &[Vec<u8>], map_from: Option<u64>) -> (Server, Client) {
    let mut site = Site::with_users(&["ann"]);
    site.map_from = map_from;
    let mailbox = site.mailbox("ann");
    for (octets, number) in messages.iter().zip(1..) {
        mailbox.deliver(&format!("new/{number}.m"), octets);
    }
    let server = site.start();
    let client = server.log_in("ann");
    (server, client)
}

/// Compares everything that is said of and sent for each message with the model,
/// whichever way messages go.
fn check(messages: &[Vec<u8>], tops: &[usize]) {
    for map_from in [None, Some(1), Some(u64::from(u32::MAX))] {
        check_mapped(messages, tops, map_from);
    }
}

fn check_mapped(messages: &[Vec<u8>], tops: &[usize], map_from: Option<u64>) {
    let (_server, mut client) = serve_mapped(messages, map_from);
    let counted: Vec<_> = messages.iter().map(|m| model::counted(m)).collect();
    let total: usize = counted.iter().map(Vec::len).sum();
    assert_eq!(
        client.say("STAT"),
        format!("+OK {} {total}", messages.len())
    );
    for ((stored, counted), number) in messages.iter().zip(&counted).zip(1..) {
        let octets = counted.len();
        let begin = stored[..stored.len().min(40)].escape_ascii().to_string();
        let listed = client.say(&format!("LIST {number}"));
        assert_eq!(listed, format!("+OK {number} {octets}"), "{begin}");
        assert_eq!(
            client.say(&format!("RETR {number}")),
            format!("+OK {octets} octets")
        );
        let sent = client.lines_to_terminator();
        assert!(sent == model::sent(stored), "RETR of {octets}: {begin}");
        assert!(model::unstuffed(&sent) == *counted, "{octets}: {begin}");
        for top in tops {
            let sent = client.text(&format!("TOP {number} {top}"));
            assert!(
                sent == model::top(stored, *top),
                "TOP {top} of {octets}: {begin}"
            );
        }
    }
    client.quit();
}

#[test]
fn files_of_every_kind() {
    let kinds: [&[u8]; 24] = [
        b"",
        b"\n",
        b"\r\n",
        b"\r",
        b".",
        b".\n",
        b"..\r\n",
        b".\r\n.\r\n.\r\n",
        b"....................",
        b"a: 1\nb: 2\n\nbody\nmore\n",
        b"a: 1\r\nb: 2\r\n\r\nbody\r\nmore\r\n",
        b"a: 1\r\nb: 2\n\nbody\r\nmore\nlast\r\n",
        b"a: 1\n\nbare\rreturn\rhere\n",
        b"a: 1\n\n\r\r\n\r\r\r\n\r",
        b"a: 1\nb: 2\n",
        b"a: 1\nb: 2",
        b"a: 1\n\n",
        b"\nno header\n",
        b"a: 1\n\nno line end",
        b"a: 1\r\n\r\nno line end\r",
        b"a: \0 1\n\nnul \0\0\0\n\0\n.\0\n",
        b"a: \xff\xfe\n\n8 bit \x80\x81 \xc3\xa9\n",
        b".a: first\n\n.dot\n..two\n.\n",
        b"a: 1\n\n\n.\n\n.\n.\r\n.\r\n\n.",
    ];
    check(&kinds.map(<[u8]>::to_vec), &[0, 1, 2, 3, 1000]);
}

#[test]
fn octet_counts_of_mixed_line_ends() {
    let mixed: Vec<u8> = (0..3000)
        .flat_map(|n| {
            let end: &[u8] = [&b"\n"[..], b"\r\n", b"\r\r\n", b"\r.\n", b"\n\r\n"][n % 5];
            let line = ".x\0".repeat(n % 7).into_bytes();
            [line, end.to_vec()].concat()
        })
        .collect();
    check(&[mixed.clone(), mixed[..mixed.len() - 1].to_vec()], &[0, 7]);
}

#[test]
fn retr_is_safe_for_nul_octets() {
    let nuls = [b"a: 1\n\n".to_vec(), vec![0; 100_000], b"\n\0\n".to_vec()].concat();
    check(&[nuls, vec![0; 5]], &[0, 1]);
}

#[test]
fn a_dot_after_bare_lf_is_stuffed() {
    let (_server, mut client) = serve(&[b"a: 1\n\n.hidden\n".to_vec()]);
    assert_eq!(client.text("RETR 1"), b"a: 1\r\n\r\n..hidden\r\n.\r\n");
}

#[test]
fn top_zero_sends_headers_only_and_counts_no_header_lines() {
    let (_server, mut client) = serve(&[b"a: 1\nb: 2\n\none\ntwo\n".to_vec()]);
    assert_eq!(client.text("TOP 1 0"), b"a: 1\r\nb: 2\r\n\r\n.\r\n");
    assert_eq!(client.text("TOP 1 1"), b"a: 1\r\nb: 2\r\n\r\none\r\n.\r\n");
    let whole = client.text("RETR 1");
    assert_eq!(client.text("TOP 1 2"), whole);
    assert_eq!(client.text("TOP 1 18446744073709551615"), whole);
}

/// A message of exactly so many stored octets, whose dot lines are everywhere
/// and whose line ends alternate.
fn dotted(octets: usize) -> Vec<u8> {
    let mut message = b"a: 1\n\n".to_vec();
    let lines = [&b".\n"[..], b"..\r\n", b".x\n", b"y\n", b"\n", b".\r\n"];
    for line in lines.into_iter().cycle() {
        if message.len() >= octets {
            break;
        }
        message.extend_from_slice(line);
    }
    message.truncate(octets);
    message
}

/// One long line, then a dot line at the very end.
fn dot_at_the_end(octets: usize) -> Vec<u8> {
    let mut message = vec![b'x'; octets - 3];
    message.extend_from_slice(b"\n.\n");
    message
}

#[test]
fn sizes_around_every_buffer_boundary() {
    let mut messages = Vec::new();
    for boundary in [BUFFER, 2 * BUFFER, 4 * BUFFER, 1 << 20] {
        for octets in [boundary - 1, boundary, boundary + 1] {
            messages.push(dotted(octets));
            messages.push(dot_at_the_end(octets));
        }
    }
    check(&messages, &[0, 1, 20_000]);
}

#[test]
fn stored_as_sent_of_every_size_about_a_boundary() {
    let mut messages = Vec::new();
    for boundary in [BUFFER, 256 << 10] {
        for octets in boundary - 40..boundary + 10 {
            let mut message = b"a: 1\r\n\r\n".to_vec();
            message.resize(octets - 2, b'x');
            message.extend_from_slice(b"\r\n");
            messages.push(message);
        }
    }
    check(&messages, &[1]);
}

#[test]
fn dots_at_every_place_about_a_boundary() {
    // What fills a buffer is the first line of the reply and the encoded text:
    // each of these has its dot line an octet further.
    let shifted = (0..80).map(|shift| {
        let mut message = vec![b'x'; BUFFER - 70 + shift];
        message.extend_from_slice(b"\n.\n..\nend\n");
        message
    });
    check(&shifted.collect::<Vec<_>>(), &[1, 2, 3]);
}

#[test]
fn terminator_never_comes_alone() {
    // The octets of each of these are an octet more, so that one of them ends
    // wherever in a buffer a message can end. A terminator in a write of its own
    // is a segment of its own, which a client that reads all the time would find
    // alone in some of two hundred tries.
    let messages = (0..200).map(|n| {
        let mut message = b"a: 1\r\n\r\n".to_vec();
        message.resize(BUFFER - 130 + n, b'x');
        message
    });
    let messages: Vec<_> = messages.collect();
    let (_server, mut client) = serve(&messages);
    for (message, number) in messages.iter().zip(1..) {
        let octets = model::counted(message).len();
        let expected = format!("+OK {octets} octets\r\n").len() + model::sent(message).len();
        client.send(format!("RETR {number}\r\n"));
        let (mut got, mut last) = (0, Vec::new());
        while got < expected {
            last = client.piece();
            got += last.len();
        }
        assert_eq!(got, expected);
        assert!(last.ends_with(b"\r\n.\r\n"), "{}", last.escape_ascii());
    }
    for command in ["LIST", "UIDL", "TOP 1 0"] {
        client.send(format!("{command}\r\n"));
        loop {
            let piece = client.piece();
            assert_ne!(piece, b".\r\n");
            if piece.ends_with(b"\r\n.\r\n") {
                break;
            }
        }
    }
}
