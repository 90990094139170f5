//! What a client sends, what it means, what the world does about it, and when.
//!
//! A line is made from its meaning, so that the model need not parse.

use std::ops::Range;
use std::time::Duration;

use crate::random::Random;

/// A whole run.
pub(crate) struct Script {
    pub setting: Setting,
    /// The stored text of every message.
    pub messages: Vec<Vec<u8>>,
    pub lines: Vec<Line>,
    /// The lines' octets as they arrive.
    pub pieces: Vec<Piece>,
}

/// The server's configuration and the channel.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub plaintext: bool,
    pub tls: bool,
    pub stls: bool,
    pub failure_delay: Duration,
}

pub(crate) const LOGIN: Duration = Duration::from_mins(1);
pub(crate) const IDLE: Duration = Duration::from_mins(10);

pub(crate) struct Line {
    pub octets: Vec<u8>,
    pub meaning: Meaning,
    pub fate: Fate,
    /// The piece in which it ends.
    pub piece: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    User,
    /// A name that nobody can have.
    UserImpossible,
    Pass,
    Stat,
    List(Option<u64>),
    Uidl(Option<u64>),
    Retr(u64),
    Top(u64, u64),
    Dele(u64),
    Noop,
    Rset,
    Quit,
    Capa,
    Stls,
    /// No command at all, or one whose arguments are wrong, or too long.
    Bad,
}

/// What happens if the line leads to an action.
#[derive(Clone, Copy)]
pub(crate) struct Fate {
    pub login: Login,
    pub open: Open,
    pub message: Message,
    pub commit: Commit,
    /// How long a message takes to send.
    pub takes: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Login {
    Right,
    Rejected,
    Disabled,
    Unavailable,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Open {
    Opened,
    InUse,
    Temporary,
    Permanent,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    Sent,
    Gone,
    Unreadable,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commit {
    Whole,
    /// The first of the marked messages stays.
    Temporary,
    Permanent,
}

pub(crate) struct Piece {
    /// Time since the piece before.
    pub gap: Duration,
    pub octets: Vec<u8>,
}

/// What the script of one seed is rich in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Ordinary,
    /// Bad commands.
    Wrong,
    /// Wrong passwords.
    Guessing,
    /// Silence.
    Slow,
}

impl Script {
    pub(crate) fn new(random: &mut Random) -> Self {
        let setting = Setting {
            plaintext: !random.once_in(4),
            tls: random.once_in(4),
            stls: !random.once_in(3),
            failure_delay: Duration::from_secs(random.pick(&[0, 0, 0, 2, 20])),
        };
        let mood = random.pick(&[
            Mood::Ordinary,
            Mood::Ordinary,
            Mood::Ordinary,
            Mood::Wrong,
            Mood::Guessing,
            Mood::Slow,
        ]);
        let count: u64 = random.pick(&[0, 1, 2, 3, 5, 9, 150]);
        let messages = (0..count).map(|_| text(random)).collect::<Vec<_>>();
        let mut lines = lines(random, mood, count);
        let pieces = pieces(random, mood, &mut lines);
        Self {
            setting,
            messages,
            lines,
            pieces,
        }
    }
}

fn text(random: &mut Random) -> Vec<u8> {
    let parts: [&[u8]; 12] = [
        b"Subject: x\r\n",
        b"\r\n",
        b"\n",
        b"\n",
        b".",
        b"..\n",
        b"\r",
        b"\0",
        b"prose that goes on for a while",
        b"\xE4\xF6\n",
        b"\r\n.",
        b"a",
    ];
    let length = random.below(24);
    (0..length)
        .flat_map(|_| random.pick(&parts))
        .copied()
        .collect()
}

fn lines(random: &mut Random, mood: Mood, messages: u64) -> Vec<Line> {
    let mut lines = Vec::new();
    if random.once_in(3) {
        push(random, mood, &mut lines, Meaning::Stls);
    }
    if !random.once_in(6) {
        push(random, mood, &mut lines, Meaning::User);
        push(random, mood, &mut lines, Meaning::Pass);
    }
    for _ in 0..random.below(60) {
        let meaning = match random.below(if mood == Mood::Wrong { 8 } else { 24 }) {
            0..3 => Meaning::Bad,
            3 if mood == Mood::Wrong => Meaning::Pass,
            _ if mood == Mood::Guessing => {
                push(random, mood, &mut lines, Meaning::User);
                Meaning::Pass
            }
            3 => Meaning::UserImpossible,
            4 => Meaning::User,
            5 => {
                push(random, mood, &mut lines, Meaning::User);
                Meaning::Pass
            }
            6 if random.once_in(3) => Meaning::Quit,
            7 => Meaning::Stls,
            _ => mail(random, messages),
        };
        push(random, mood, &mut lines, meaning);
    }
    if !random.once_in(3) {
        push(random, mood, &mut lines, Meaning::Quit);
    }
    lines
}

fn mail(random: &mut Random, messages: u64) -> Meaning {
    let number = match random.below(12) {
        0 => 0,
        1 => messages + 1,
        2 => random.pick(&[u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX]),
        _ => 1 + random.below(messages.max(1)),
    };
    match random.below(14) {
        0 => Meaning::Stat,
        1 => Meaning::List(None),
        2 => Meaning::List(Some(number)),
        3 => Meaning::Uidl(None),
        4 => Meaning::Uidl(Some(number)),
        5 | 6 => Meaning::Retr(number),
        7 => Meaning::Top(number, random.pick(&[0, 1, 2, 5, u64::MAX])),
        8..11 => Meaning::Dele(number),
        11 => Meaning::Noop,
        12 if random.once_in(2) => Meaning::Rset,
        _ => Meaning::Capa,
    }
}

fn push(random: &mut Random, mood: Mood, lines: &mut Vec<Line>, meaning: Meaning) {
    let mut octets = written(random, meaning);
    octets.extend_from_slice(random.pick(&[&b"\r\n"[..], b"\r\n", b"\r\n", b"\n"]));
    let rarely = |random: &mut Random| random.once_in(5);
    let wrong = if mood == Mood::Guessing { 1 } else { 5 };
    let fate = Fate {
        login: if random.once_in(wrong) {
            random.pick(&[Login::Rejected, Login::Disabled, Login::Unavailable])
        } else {
            Login::Right
        },
        open: if rarely(random) {
            random.pick(&[Open::InUse, Open::Temporary, Open::Permanent])
        } else {
            Open::Opened
        },
        message: if rarely(random) {
            random.pick(&[Message::Gone, Message::Unreadable])
        } else {
            Message::Sent
        },
        commit: if rarely(random) {
            random.pick(&[Commit::Temporary, Commit::Permanent])
        } else {
            Commit::Whole
        },
        takes: Duration::from_secs(random.pick(&[0, 0, 1, 599, 2000])),
    };
    lines.push(Line {
        octets,
        meaning,
        fate,
        piece: 0,
    });
}

fn written(random: &mut Random, meaning: Meaning) -> Vec<u8> {
    let optional = |word: &str, number: Option<u64>| match number {
        Some(number) => format!("{word} {number}"),
        None => word.to_owned(),
    };
    let line = match meaning {
        Meaning::User => return cased(random, "USER", b" alice@example.net"),
        Meaning::UserImpossible => return cased(random, "USER", b" al\0ice"),
        Meaning::Pass => {
            let passwords: [&[u8]; 4] = [b" secret", b"  ", b" with spaces ", b" \xC3\xBC\0"];
            let password = random.pick(&passwords);
            return cased(random, "PASS", password);
        }
        Meaning::Bad => return bad(random),
        Meaning::Stat => "STAT".to_owned(),
        Meaning::List(number) => optional("LIST", number),
        Meaning::Uidl(number) => optional("UIDL", number),
        Meaning::Retr(number) => format!("RETR {number}"),
        Meaning::Top(number, lines) => format!("TOP {number} {lines}"),
        Meaning::Dele(number) => format!("DELE {number}"),
        Meaning::Noop => "NOOP".to_owned(),
        Meaning::Rset => "RSET".to_owned(),
        Meaning::Quit => "QUIT".to_owned(),
        Meaning::Capa => "CAPA".to_owned(),
        Meaning::Stls => "STLS".to_owned(),
    };
    let blanks: &[u8] = random.pick(&[&b""[..], b"", b"", b"  "]);
    cased(random, &line, blanks)
}

fn cased(random: &mut Random, word: &str, rest: &[u8]) -> Vec<u8> {
    let mut line = word.as_bytes().to_vec();
    for octet in &mut line {
        if random.once_in(2) {
            octet.make_ascii_lowercase();
        }
    }
    line.extend_from_slice(rest);
    line
}

fn bad(random: &mut Random) -> Vec<u8> {
    let known: [&[u8]; 20] = [
        b"",
        b" ",
        b"HELO",
        b"QUIT now",
        b"STAT 1",
        b"RETR",
        b"RETR +1",
        b"RETR 1 1",
        b"RETR one",
        b"DELE -1",
        b"TOP 1",
        b"TOP 1 2 3",
        b"USER",
        b"USER a b",
        b"PASS",
        b"PASS ",
        b"APOP a b",
        b"AUTH PLAIN",
        b"LIST 99999999999999999999",
        b"NOOP\0",
    ];
    match random.below(4) {
        0 => vec![b'x'; 254 + random.index(700)],
        1 => [&b"QUIT "[..], &[b' '; 300]].concat(),
        _ => random.pick(&known).to_vec(),
    }
}

/// Cuts the stream anywhere, except between an STLS and a few lines behind it:
/// what arrives with STLS is the client's mistake or an attack, and is lost.
fn pieces(random: &mut Random, mood: Mood, lines: &mut [Line]) -> Vec<Piece> {
    let cut_once_in = random.pick(&[1, 2, 8, 50, u64::MAX]);
    let gaps: &[u64] = match mood {
        Mood::Slow => &[0, 0, 1, 20, 59, 61, 300, 599, 601],
        Mood::Ordinary | Mood::Wrong | Mood::Guessing => &[0, 0, 0, 0, 0, 0, 1, 5],
    };
    let stream: Vec<u8> = lines.iter().flat_map(|line| line.octets.clone()).collect();
    let (whole, forced) = kept_together(random, lines);
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut ends = lines.iter_mut().scan(0, |end, line| {
        *end += line.octets.len();
        Some((*end, line))
    });
    let mut next = ends.next();
    for cut in 1..=stream.len() {
        if let Some((_, line)) = next.take_if(|(end, _)| *end == cut) {
            line.piece = pieces.len();
            next = ends.next();
        }
        let free = !whole.iter().any(|range| range.contains(&cut));
        let chance = free && random.once_in(cut_once_in);
        if chance || forced.contains(&cut) || cut == stream.len() {
            // Time passes before few of the pieces, or no line would outlive
            // its own.
            let gap = if random.once_in(6) {
                random.pick(gaps)
            } else {
                0
            };
            pieces.push(Piece {
                gap: Duration::from_secs(gap),
                octets: stream[start..cut].to_vec(),
            });
            start = cut;
        }
    }
    pieces
}

/// Where the stream must not be cut, and where it must.
fn kept_together(random: &mut Random, lines: &[Line]) -> (Vec<Range<usize>>, Vec<usize>) {
    let ends: Vec<usize> = lines
        .iter()
        .scan(0, |end, line| {
            *end += line.octets.len();
            Some(*end)
        })
        .collect();
    let (mut whole, mut forced) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < lines.len() {
        let mut last = at;
        if lines[at].meaning == Meaning::Stls {
            last = (at + random.index(3)).min(lines.len() - 1);
            whole.push(ends[at]..ends[last]);
            forced.push(ends[last]);
        }
        at = last + 1;
    }
    (whole, forced)
}
