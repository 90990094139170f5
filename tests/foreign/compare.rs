//! What arrived beside what was sent.

use std::fs;
use std::path::Path;

use crate::messages::Message;

/// The files of a Maildir's new/ and cur/.
pub(crate) fn delivered(maildir: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for part in ["new", "cur"] {
        for entry in fs::read_dir(maildir.join(part)).expect("a Maildir") {
            let path = entry.expect("an entry").path();
            found.push(fs::read(path).expect("a message"));
        }
    }
    found
}

/// Asserts that two byte strings are the same, and shows where they part.
#[track_caller]
pub(crate) fn assert_same(what: &str, arrived: &[u8], expected: &[u8]) {
    if arrived == expected {
        return;
    }
    let pairs = arrived.iter().zip(expected);
    let at = pairs.take_while(|(left, right)| left == right).count();
    let around = |bytes: &[u8]| {
        let end = bytes.len().min(at + 60);
        bytes[at.saturating_sub(60)..end].escape_ascii().to_string()
    };
    panic!(
        "{what}: {} octets arrived, {} were expected, different from octet {at}\n arrived: \
         {}\nexpected: {}",
        arrived.len(),
        expected.len(),
        around(arrived),
        around(expected)
    );
}

/// Asserts that each message arrived once, as `expected` says, and nothing else
/// did. Clients name and order files as they like, so a message is known by its
/// `X-Test` header.
#[track_caller]
pub(crate) fn assert_delivered(
    arrived: &[Vec<u8>],
    messages: &[Message],
    expected: impl Fn(&Message) -> Vec<u8>,
) {
    for message in messages {
        let mark = format!("X-Test: {}", message.name);
        let is_it = |text: &&Vec<u8>| {
            let mut lines = text.split(|byte| *byte == b'\n');
            lines.any(|line| line.trim_ascii_end() == mark.as_bytes())
        };
        let copies: Vec<_> = arrived.iter().filter(is_it).collect();
        let [copy] = copies[..] else {
            panic!("{}: arrived {} times", message.name, copies.len());
        };
        assert_same(message.name, copy, &expected(message));
    }
    assert_eq!(arrived.len(), messages.len(), "nothing else arrived");
}
