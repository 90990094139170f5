//! The grammar line by line, and then against arbitrary octets.

use proptest::prelude::*;

use super::*;
use CommandError::{ExtraArgument, MessageZero, MissingArgument, NotANumber, Unknown};

fn number(number: u32) -> MessageNumber {
    MessageNumber::new(number).expect("not 0")
}

fn refused(lines: &[&str], error: CommandError) {
    for line in lines {
        assert_eq!(parse(line.as_bytes()), Err(error), "{line:?}");
    }
}

#[test]
fn every_command_is_read() {
    let cases: [(&str, Command<'_>); 20] = [
        ("USER mrose", Command::User(b"mrose")),
        ("PASS secret", Command::Pass(b"secret")),
        ("STAT", Command::Stat),
        ("LIST", Command::List(None)),
        ("LIST 2", Command::List(Some(number(2)))),
        ("RETR 1", Command::Retr(number(1))),
        ("DELE 4294967295", Command::Dele(number(u32::MAX))),
        ("NOOP", Command::Noop),
        ("RSET", Command::Rset),
        ("QUIT", Command::Quit),
        (
            "TOP 1 10",
            Command::Top {
                message: number(1),
                body_lines: 10,
            },
        ),
        ("UIDL", Command::Uidl(None)),
        ("UIDL 7", Command::Uidl(Some(number(7)))),
        ("CAPA", Command::Capa),
        ("STLS", Command::Stls),
        (
            "apop joe C4c9334bac560ecc979e58001b3e22fb",
            Command::Apop {
                name: b"joe",
                digest: 0xc4c9_334b_ac56_0ecc_979e_5800_1b3e_22fb_u128.to_be_bytes(),
            },
        ),
        ("AUTH", Command::Mechanisms),
        ("auth  ", Command::Mechanisms),
        (
            "AUTH plain",
            Command::Auth {
                mechanism: b"plain",
                initial: None,
            },
        ),
        (
            "AUTH PLAIN =",
            Command::Auth {
                mechanism: b"PLAIN",
                initial: Some(b"="),
            },
        ),
    ];
    for (line, command) in cases {
        assert_eq!(parse(line.as_bytes()), Ok(command), "{line:?}");
    }
}

#[test]
fn keywords_are_read_in_any_case() {
    for line in ["quit", "Quit", "qUIT", "QUIT"] {
        assert_eq!(parse(line.as_bytes()), Ok(Command::Quit), "{line:?}");
    }
    assert_eq!(parse(b"pass SeCreT"), Ok(Command::Pass(b"SeCreT")));
}

#[test]
fn other_words_are_unknown() {
    let lines = [
        "",
        " ",
        " QUIT",
        "QUI",
        "QUITX",
        "QUIT\t",
        "QUIT\0",
        "XAPO a b",
        "AUTHENTICATE PLAIN",
        "LAST",
        "GET / HTTP/1.1",
        "\u{16}\u{3}\u{1}",
        "USER\tmrose",
        "TO",
    ];
    refused(&lines, Unknown);
}

#[test]
fn missing_arguments_are_refused() {
    let lines = [
        "USER", "USER ", "PASS", "PASS ", "RETR", "RETR ", "DELE", "TOP", "TOP 1", "TOP 1 ",
        "LIST  1", "TOP 1  2", "RETR  1",
    ];
    refused(&lines, MissingArgument);
}

#[test]
fn extra_arguments_are_refused() {
    let lines = [
        "USER a b",
        "STAT 1",
        "LIST 1 2",
        "RETR 1 2",
        "DELE 1 2",
        "NOOP x",
        "RSET 1",
        "QUIT now",
        "TOP 1 2 3",
        "UIDL 1 2",
        "CAPA x",
        "STLS x",
    ];
    refused(&lines, ExtraArgument);
}

#[test]
fn numbers_are_decimal_without_sign_or_overflow() {
    let lines = [
        "RETR +1",
        "RETR -1",
        "RETR 1.0",
        "RETR 0x1",
        "RETR one",
        "RETR 1a",
        "LIST 4294967296",
        "DELE 18446744073709551617",
        "TOP 1 -1",
        "TOP 1 18446744073709551616",
        "TOP x 1",
        "UIDL 99999999999999999999999999999999",
        "RETR \u{661}",
    ];
    refused(&lines, NotANumber);
    let most = Command::Top {
        message: number(1),
        body_lines: u64::MAX,
    };
    assert_eq!(parse(b"TOP 1 18446744073709551615"), Ok(most));
    assert_eq!(parse(b"RETR 007"), Ok(Command::Retr(number(7))));
}

#[test]
fn retr_zero_is_refused() {
    let lines = ["RETR 0", "LIST 0", "UIDL 0", "DELE 00", "TOP 0 1"];
    refused(&lines, MessageZero);
}

#[test]
fn password_with_spaces() {
    let cases: [(&[u8], &[u8]); 5] = [
        (b"PASS correct horse battery", b"correct horse battery"),
        (b"PASS  leading", b" leading"),
        (b"PASS trailing ", b"trailing "),
        (b"PASS   ", b"  "),
        (b"pass \xC3\xBC\0 x", b"\xC3\xBC\0 x"),
    ];
    for (line, password) in cases {
        assert_eq!(parse(line), Ok(Command::Pass(password)));
    }
}

#[test]
fn spaces_at_the_end_are_ignored() {
    assert_eq!(parse(b"STAT "), Ok(Command::Stat));
    assert_eq!(parse(b"LIST   "), Ok(Command::List(None)));
    assert_eq!(parse(b"RETR 3  "), Ok(Command::Retr(number(3))));
    assert_eq!(parse(b"USER mrose "), Ok(Command::User(b"mrose")));
}

#[test]
fn a_password_is_not_printed() {
    let shown = format!("{:?}", Command::Pass(b"secret"));
    assert_eq!(shown, "PASS");
}

/// Writes a command as a client would.
fn written(command: Command<'_>) -> Vec<u8> {
    let text = |word: &str, rest: &[u8]| [word.as_bytes(), b" ", rest].concat();
    let one = |word: &str, message: MessageNumber| format!("{word} {}", message.get()).into_bytes();
    let maybe = |word: &str, message: Option<MessageNumber>| match message {
        Some(message) => one(word, message),
        None => word.as_bytes().to_vec(),
    };
    match command {
        Command::User(name) => text("USER", name),
        Command::Pass(password) => text("PASS", password),
        Command::Stat => b"STAT".to_vec(),
        Command::List(message) => maybe("LIST", message),
        Command::Retr(message) => one("RETR", message),
        Command::Dele(message) => one("DELE", message),
        Command::Noop => b"NOOP".to_vec(),
        Command::Rset => b"RSET".to_vec(),
        Command::Quit => b"QUIT".to_vec(),
        Command::Top {
            message,
            body_lines,
        } => format!("TOP {} {body_lines}", message.get()).into_bytes(),
        Command::Uidl(message) => maybe("UIDL", message),
        Command::Capa => b"CAPA".to_vec(),
        Command::Stls => b"STLS".to_vec(),
        Command::Apop { name, digest } => {
            let digest = format!(" {:032x}", u128::from_be_bytes(digest));
            [b"APOP ", name, digest.as_bytes()].concat()
        }
        Command::Mechanisms => b"AUTH".to_vec(),
        Command::Auth { mechanism, initial } => {
            let initial = initial.map(|initial| [b" ", initial].concat());
            [b"AUTH ", mechanism, &initial.unwrap_or_default()].concat()
        }
    }
}

/// Lines that look like commands more often than chance would make them.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let keyword = prop::sample::select(vec![
        "USER", "pass", "Stat", "LIST", "RETR", "dele", "NOOP", "RSET", "QUIT", "TOP", "UIDL",
        "CAPA", "STLS", "APOP", "",
    ]);
    let argument = prop_oneof![
        any::<u64>().prop_map(|n| n.to_string().into_bytes()),
        any::<u32>().prop_map(|n| n.to_string().into_bytes()),
        (0_u32..4).prop_map(|n| n.to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..12),
    ];
    let separator = prop::sample::select(vec![" ", "  ", "\t", ""]);
    (keyword, prop::collection::vec((separator, argument), 0..4)).prop_map(|(keyword, rest)| {
        let mut line = keyword.as_bytes().to_vec();
        for (separator, argument) in rest {
            line.extend_from_slice(separator.as_bytes());
            line.extend_from_slice(&argument);
        }
        line
    })
}

proptest! {
    #[test]
    fn arbitrary_octets_never_panic(line in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(command) = parse(&line) {
            let again = written(command);
            prop_assert_eq!(parse(&again), Ok(command));
        }
    }

    #[test]
    fn what_is_read_reads_back_the_same(line in line()) {
        if let Ok(command) = parse(&line) {
            let again = written(command);
            prop_assert_eq!(parse(&again), Ok(command));
            prop_assert!(again.len() <= line.len() || line.starts_with(b"TOP"));
        }
    }

    #[test]
    fn every_number_there_is_reads_back(message in 1_u32.., body_lines: u64) {
        let message = number(message);
        for command in [
            Command::Retr(message),
            Command::Dele(message),
            Command::List(Some(message)),
            Command::Uidl(Some(message)),
            Command::Top { message, body_lines },
        ] {
            let line = written(command);
            prop_assert_eq!(parse(&line), Ok(command));
        }
    }
}
