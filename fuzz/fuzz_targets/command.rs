//! Any octets as a client's stream: however they are cut, the same lines come
//! out; nothing panics; a command that was read, written again, reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use popcore::limits;
use popcore::proto::{Command, LineSplitter, MessageNumber, Split, parse};

fuzz_target!(|data: &[u8]| {
    let Some((&piece, stream)) = data.split_first() else {
        return;
    };
    let lines = lines(stream, stream.len().max(1));
    assert_eq!(lines, self::lines(stream, usize::from(piece).max(1)));
    assert_eq!(lines, self::lines(stream, 1));
    let ends = stream.iter().filter(|&&octet| octet == b'\n').count();
    assert_eq!(lines.len(), ends, "one event for each line");
    for line in lines.iter().flatten() {
        assert!(line.len() < limits::COMMAND_LINE && !line.contains(&b'\n'));
        if let Ok(command) = parse(line) {
            let again = written(command);
            assert_eq!(parse(&again), Ok(command));
        }
    }
});

/// The stream's lines; `None` for one that is too long.
fn lines(stream: &[u8], piece: usize) -> Vec<Option<Vec<u8>>> {
    let mut splitter = LineSplitter::new();
    let mut lines = Vec::new();
    for mut input in stream.chunks(piece) {
        loop {
            lines.push(match splitter.next(&mut input) {
                Split::Line(line) => Some(line.to_vec()),
                Split::TooLong => None,
                Split::NeedMore => break,
            });
        }
    }
    lines
}

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
