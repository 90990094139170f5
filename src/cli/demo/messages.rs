//! Messages for the demo: one of every kind that a POP3 server can get wrong.
//!
//! They are made, not stored: the same bytes every time, from a generator with
//! a fixed seed, so that tests can compare what a client fetched.

use std::fmt::Write as _;

/// A message as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    /// Whether the user has seen it: then it stands in `cur/`.
    pub(super) seen: bool,
}

/// How lines end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    Lf,
    Crlf,
}

/// The messages of one of the users with a name: every kind once.
pub(super) fn every_kind(user: &str) -> Vec<Message> {
    let mut random = Random(7);
    let text = |subject: &str, body: &str| plain(user, subject, body);
    let short = "Welcome to popcore.\n\nThis mailbox is made up.\n";
    let messages = [
        ends(&text("short, stored with LF", short), LineEnd::Lf),
        ends(&text("short, stored with CRLF", short), LineEnd::Crlf),
        ends(&text("lines that begin with dots", DOTS), LineEnd::Lf),
        ends(&text("dots, stored with CRLF", DOTS), LineEnd::Crlf),
        eight_bit(
            user,
            "UTF-8",
            "Grüße aus Köln, 日本語, ελληνικά\n".as_bytes(),
        ),
        eight_bit(user, "ISO-8859-1", b"Gr\xfc\xdfe aus K\xf6ln\n"),
        multipart(user, &mut random, 200 * 1024),
        ends(&text("long, 3 MiB", &random.prose(3 << 20)), LineEnd::Lf),
        ends(
            &text("long with CRLF, 1 MiB", &random.prose(1 << 20)),
            LineEnd::Crlf,
        ),
        without_final_line_end(&text("no line end at the end", "The last line ends here.")),
        ends(&text("headers only", ""), LineEnd::Lf),
        mixed(&text("LF and CRLF mixed", &random.prose(2000))),
        ends(
            &text("one long line", &format!("{}\n", "x".repeat(5000))),
            LineEnd::Lf,
        ),
    ];
    let number = |(index, bytes): (usize, Vec<u8>)| Message {
        bytes,
        seen: index % 2 == 1,
    };
    messages.into_iter().enumerate().map(number).collect()
}

/// The messages of a load user: 20, most of them small, as mail is.
pub(super) fn load_mix(user: &str, seed: u64) -> Vec<Message> {
    // KiB, with the shape of a provider's mailbox: a median of a few KiB and a
    // tail; about 200 KiB in all, so that 200 users make 40 MB.
    const SIZES: [u64; 20] = [
        1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 6, 6, 8, 10, 14, 20, 36, 64,
    ];
    let mut random = Random(seed);
    let mut messages = Vec::with_capacity(SIZES.len());
    for (index, kibibytes) in SIZES.iter().enumerate() {
        let octets = kibibytes * 1024 + random.below(700);
        let subject = format!("message {} of {}", index + 1, SIZES.len());
        let body = random.prose(usize::try_from(octets).expect("small"));
        let line_end = if index % 4 == 3 {
            LineEnd::Crlf
        } else {
            LineEnd::Lf
        };
        messages.push(Message {
            bytes: ends(&plain(user, &subject, &body), line_end),
            seen: index % 3 != 0,
        });
    }
    messages
}

const DOTS: &str = ".a line that begins with a dot\n..two dots\n.\nabove stood a dot alone\n\
                    ...\n. a dot and a space\nno dot\n.\n";

/// Headers and a body, with LF.
fn plain(user: &str, subject: &str, body: &str) -> String {
    let kind = "text/plain; charset=us-ascii";
    format!("{}\n{body}", headers(user, subject, kind, "7bit"))
}

fn headers(user: &str, subject: &str, kind: &str, encoding: &str) -> String {
    let mut hash = Random(subject.bytes().map(u64::from).sum());
    let (hour, minute) = (hash.below(24), hash.below(60));
    format!(
        "Return-Path: <demo@example.net>\n\
         From: popcore demo <demo@example.net>\n\
         To: {user}@example.net\n\
         Date: Mon, 6 Jan 2025 {hour:02}:{minute:02}:00 +0000\n\
         Message-ID: <{:016x}.{user}@example.net>\n\
         Subject: {subject}\n\
         MIME-Version: 1.0\n\
         Content-Type: {kind}\n\
         Content-Transfer-Encoding: {encoding}\n",
        hash.next()
    )
}

fn eight_bit(user: &str, charset: &str, body: &[u8]) -> Vec<u8> {
    let kind = format!("text/plain; charset={charset}");
    let subject = format!("8-bit text in {charset}");
    let mut bytes = headers(user, &subject, &kind, "8bit").into_bytes();
    bytes.push(b'\n');
    bytes.extend_from_slice(body);
    bytes
}

/// Text and an attachment of about `octets` octets, in base64.
fn multipart(user: &str, random: &mut Random, octets: usize) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let kind = "multipart/mixed; boundary=\"=_popcore\"";
    let mut text = headers(user, "with an attachment", kind, "7bit");
    text.push_str(
        "\nThis is a message in MIME format.\n\n\
         --=_popcore\nContent-Type: text/plain; charset=us-ascii\n\n\
         A file is attached.\n\n\
         --=_popcore\nContent-Type: application/octet-stream; name=\"random.bin\"\n\
         Content-Disposition: attachment; filename=\"random.bin\"\n\
         Content-Transfer-Encoding: base64\n\n",
    );
    // Lines of 76 characters are 57 octets of any value: what they stand for
    // does not matter, that they decode does.
    for _ in 0..octets / 57 {
        for _ in 0..76 {
            let index = usize::try_from(random.below(64)).expect("below 64");
            text.push(char::from(ALPHABET[index]));
        }
        text.push('\n');
    }
    text.push_str("\n--=_popcore--\n");
    text.into_bytes()
}

fn ends(text: &str, line_end: LineEnd) -> Vec<u8> {
    match line_end {
        LineEnd::Lf => text.as_bytes().to_vec(),
        LineEnd::Crlf => text.replace('\n', "\r\n").into_bytes(),
    }
}

/// Every third line ends in CRLF.
fn mixed(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + text.len() / 64);
    for (index, line) in text.lines().enumerate() {
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(if index % 3 == 2 { b"\r\n" } else { b"\n" });
    }
    bytes
}

fn without_final_line_end(text: &str) -> Vec<u8> {
    text.trim_end().as_bytes().to_vec()
}

/// `SplitMix64`: small, seedable, and good enough for text that nobody reads.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Lines of words, `octets` long or a line more.
    fn prose(&mut self, octets: usize) -> String {
        const WORDS: [&str; 16] = [
            "mail", "the", "of", "server", "and", "a", "drop", "message", "to", "in", "octet",
            "core", "is", "ring", "letter", "that",
        ];
        let mut text = String::with_capacity(octets + 80);
        while text.len() < octets {
            let words = 6 + self.below(8);
            for position in 0..words {
                let word = usize::try_from(self.below(16)).expect("below 16");
                let space = if position == 0 { "" } else { " " };
                write!(text, "{space}{}", WORDS[word]).expect("a String takes every write");
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_subject(messages: &[Message], subject: &str) -> Vec<u8> {
        let wanted = format!("Subject: {subject}");
        let found = messages.iter().find(|message| {
            let text = String::from_utf8_lossy(&message.bytes);
            text.lines().any(|line| line == wanted)
        });
        let found = found.unwrap_or_else(|| panic!("no message {subject:?}"));
        found.bytes.clone()
    }

    fn crlfs(bytes: &[u8]) -> usize {
        bytes.windows(2).filter(|pair| pair == b"\r\n").count()
    }

    fn lfs(bytes: &[u8]) -> usize {
        memchr::memchr_iter(b'\n', bytes).count()
    }

    #[test]
    fn line_ends_are_what_the_subjects_say() {
        let all = every_kind("alice");
        let lf = with_subject(&all, "short, stored with LF");
        assert_eq!((crlfs(&lf), lfs(&lf) > 10), (0, true));
        let crlf = with_subject(&all, "short, stored with CRLF");
        assert_eq!(crlfs(&crlf), lfs(&crlf));
        let mixed = with_subject(&all, "LF and CRLF mixed");
        assert!(crlfs(&mixed) > 0 && crlfs(&mixed) < lfs(&mixed));
        let open = with_subject(&all, "no line end at the end");
        assert_eq!(open.last(), Some(&b'.'));
    }

    #[test]
    fn a_dot_stands_alone_and_at_the_beginning_of_lines() {
        let dots = with_subject(&every_kind("alice"), "lines that begin with dots");
        let text = String::from_utf8(dots).expect("ASCII");
        assert!(text.contains("\n.\n") && text.contains("\n..two") && text.ends_with("\n.\n"));
    }

    #[test]
    fn eight_bit_text_is_in_its_charset() {
        let all = every_kind("alice");
        let utf8 = with_subject(&all, "8-bit text in UTF-8");
        assert!(String::from_utf8(utf8).is_ok_and(|text| text.contains("Köln")));
        let latin = with_subject(&all, "8-bit text in ISO-8859-1");
        assert!(String::from_utf8(latin.clone()).is_err());
        assert!(latin.ends_with(b"K\xf6ln\n"));
    }

    #[test]
    fn there_are_messages_of_a_few_megabytes() {
        let long = with_subject(&every_kind("alice"), "long, 3 MiB");
        assert!((3 << 20..4 << 20).contains(&long.len()));
    }

    #[test]
    fn load_users_have_twenty_messages_of_their_own() {
        let (first, second) = (load_mix("user0", 0), load_mix("user1", 1));
        assert_eq!((first.len(), second.len()), (20, 20));
        assert_ne!(first[3].bytes, second[3].bytes);
        let octets: usize = first.iter().map(|message| message.bytes.len()).sum();
        assert!((200_000..300_000).contains(&octets), "{octets}");
    }

    #[test]
    fn the_same_messages_are_made_every_time() {
        assert_eq!(every_kind("bob"), every_kind("bob"));
        assert_eq!(load_mix("user7", 7), load_mix("user7", 7));
    }
}
