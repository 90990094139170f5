//! RFC 1939 once more, as simply as can be: what each line of a script must be
//! answered with. Shares no code with the server.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::script::{Commit, Fate, IDLE, LOGIN, Login, Meaning, Message, Open, Script, Setting};

/// What must come back for one line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// One line of `+OK` with any text.
    Ok,
    /// These octets.
    Exactly(Vec<u8>),
    /// One line of `-ERR` with this code or none.
    Err(Option<&'static str>),
    /// `-ERR` with this code, and a text that begins so.
    ErrText(&'static str, String),
    /// One line of `+OK`, then these octets.
    Multi(Vec<u8>),
    /// One line of `+OK`, then these words in any order, then the terminator.
    Words(BTreeSet<&'static str>),
}

/// How the session must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// The client went away.
    Dropped,
    Quit,
    NotAllRemoved,
    Autologout,
    LoginTimeout,
    TooManyBadCommands,
    TooManyAuthFailures,
}

/// What must have happened by the end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub retrieved: (u32, u64),
    pub topped: (u32, u64),
    pub failed_logins: u8,
    /// Messages that are gone from the store.
    pub removed: BTreeSet<u32>,
}

pub(crate) struct Verdict {
    pub replies: Vec<Reply>,
    pub end: End,
    pub totals: Totals,
}

enum Phase {
    Before { named: bool },
    Mail { deleted: BTreeSet<u32> },
}

struct Model<'s> {
    script: &'s Script,
    setting: Setting,
    phase: Phase,
    now: Duration,
    /// Since when the client has been silent.
    heard: Duration,
    bad: u32,
    totals: Totals,
}

/// Runs the model along a script.
pub(crate) fn judge(script: &Script) -> Verdict {
    let mut model = Model {
        script,
        setting: script.setting,
        phase: Phase::Before { named: false },
        now: Duration::ZERO,
        heard: Duration::ZERO,
        bad: 0,
        totals: Totals::default(),
    };
    let mut replies = Vec::new();
    let end = model.run(&mut replies);
    Verdict {
        replies,
        end,
        totals: model.totals,
    }
}

fn refused<T>(code: &'static str) -> (Reply, Option<T>) {
    (Reply::Err(Some(code)), None)
}

impl Model<'_> {
    fn run(&mut self, replies: &mut Vec<Reply>) -> End {
        let script = self.script;
        let mut lines = script.lines.iter().peekable();
        for (at, piece) in script.pieces.iter().enumerate() {
            self.now += piece.gap;
            match &self.phase {
                Phase::Before { .. } if self.now >= LOGIN => return End::LoginTimeout,
                Phase::Mail { .. } if self.now >= self.heard + IDLE => return End::Autologout,
                Phase::Before { .. } | Phase::Mail { .. } => {}
            }
            let mut lost = false;
            while let Some(line) = lines.next_if(|line| line.piece == at) {
                if lost {
                    continue;
                }
                let (reply, end) = self.line(line.meaning, line.fate);
                lost = line.meaning == Meaning::Stls && reply == Reply::Ok;
                replies.push(reply);
                self.heard = self.now;
                if let Some(end) = end {
                    return end;
                }
            }
        }
        End::Dropped
    }

    fn line(&mut self, meaning: Meaning, fate: Fate) -> (Reply, Option<End>) {
        match &self.phase {
            Phase::Before { named } => {
                let named = *named;
                self.phase = Phase::Before { named: false };
                self.before(meaning, fate, named)
            }
            Phase::Mail { .. } => self.mail(meaning, fate),
        }
    }

    fn bad(&mut self, code: Option<&'static str>) -> (Reply, Option<End>) {
        self.bad += 1;
        let end = (self.bad == 20).then_some(End::TooManyBadCommands);
        (Reply::Err(code), end)
    }

    fn before(&mut self, meaning: Meaning, fate: Fate, named: bool) -> (Reply, Option<End>) {
        let passwords = self.setting.tls || self.setting.plaintext;
        match meaning {
            Meaning::User | Meaning::UserImpossible if !passwords => self.bad(Some("AUTH")),
            Meaning::User => {
                self.phase = Phase::Before { named: true };
                (Reply::Ok, None)
            }
            Meaning::Pass if named => self.login(fate),
            Meaning::Stls if self.setting.stls && !self.setting.tls => {
                self.setting.tls = true;
                (Reply::Ok, None)
            }
            Meaning::Capa => (self.capa(true), None),
            Meaning::Quit => (Reply::Ok, Some(End::Quit)),
            _ => self.bad(None),
        }
    }

    fn login(&mut self, fate: Fate) -> (Reply, Option<End>) {
        let code = match fate.login {
            Login::Right => return self.open(fate),
            Login::Unavailable => return refused("SYS/TEMP"),
            Login::Rejected => "AUTH",
            Login::Disabled => "SYS/PERM",
        };
        self.totals.failed_logins += 1;
        self.now +=
            self.setting.failure_delay * [1, 2, 4][usize::from(self.totals.failed_logins) - 1];
        let last = self.totals.failed_logins == 3;
        (
            Reply::Err(Some(code)),
            last.then_some(End::TooManyAuthFailures),
        )
    }

    fn open(&mut self, fate: Fate) -> (Reply, Option<End>) {
        match fate.open {
            Open::Opened => {
                let deleted = BTreeSet::new();
                self.phase = Phase::Mail { deleted };
                (Reply::Ok, None)
            }
            Open::InUse => refused("IN-USE"),
            Open::Temporary => refused("SYS/TEMP"),
            Open::Permanent => refused("SYS/PERM"),
        }
    }

    fn capa(&self, before: bool) -> Reply {
        let always = [
            "TOP",
            "UIDL",
            "RESP-CODES",
            "AUTH-RESP-CODE",
            "PIPELINING",
            "EXPIRE NEVER",
            "IMPLEMENTATION popcore",
        ];
        let mut words = BTreeSet::from(always);
        if self.setting.tls || self.setting.plaintext {
            words.insert("USER");
        }
        if before && self.setting.stls && !self.setting.tls {
            words.insert("STLS");
        }
        Reply::Words(words)
    }

    fn mail(&mut self, meaning: Meaning, fate: Fate) -> (Reply, Option<End>) {
        let (Meaning::List(Some(number))
        | Meaning::Uidl(Some(number))
        | Meaning::Retr(number)
        | Meaning::Top(number, _)
        | Meaning::Dele(number)) = meaning
        else {
            return self.mail_without_number(meaning, fate);
        };
        let Some(number) = u32::try_from(number).ok().filter(|&number| number > 0) else {
            return self.bad(None);
        };
        let Some(text) = self.visible(number) else {
            return (Reply::Err(None), None);
        };
        let octets = wire(text, false).len() as u64;
        let reply = match meaning {
            Meaning::List(_) => Reply::Exactly(format!("+OK {number} {octets}\r\n").into_bytes()),
            Meaning::Uidl(_) => {
                Reply::Exactly(format!("+OK {number} {}\r\n", unique_id(number)).into_bytes())
            }
            Meaning::Dele(_) => {
                self.deleted().insert(number);
                Reply::Ok
            }
            Meaning::Top(_, lines) => {
                let part = top(text, lines).to_vec();
                self.sent(&part, fate, true)
            }
            _ => {
                let text = text.to_vec();
                self.sent(&text, fate, false)
            }
        };
        (reply, None)
    }

    fn sent(&mut self, text: &[u8], fate: Fate, top: bool) -> Reply {
        match fate.message {
            Message::Gone => return Reply::Err(None),
            Message::Unreadable => return Reply::Err(Some("SYS/TEMP")),
            Message::Sent => self.now += fate.takes,
        }
        let octets = wire(text, false).len() as u64;
        let mut body = wire(text, true);
        body.extend_from_slice(b".\r\n");
        let totals = &mut self.totals;
        if top {
            totals.topped.0 += 1;
            totals.topped.1 += octets;
            Reply::Multi(body)
        } else {
            totals.retrieved.0 += 1;
            totals.retrieved.1 += octets;
            Reply::Exactly([format!("+OK {octets} octets\r\n").as_bytes(), &body].concat())
        }
    }

    fn mail_without_number(&mut self, meaning: Meaning, fate: Fate) -> (Reply, Option<End>) {
        let left: Vec<(u32, u64)> = (1..=self.count())
            .filter_map(|number| Some((number, wire(self.visible(number)?, false).len() as u64)))
            .collect();
        let octets: u64 = left.iter().map(|message| message.1).sum();
        let rows = |row: &dyn Fn(&(u32, u64)) -> String| {
            let rows: String = left.iter().map(row).collect();
            Reply::Multi(format!("{rows}.\r\n").into_bytes())
        };
        let reply = match meaning {
            Meaning::Stat => {
                Reply::Exactly(format!("+OK {} {octets}\r\n", left.len()).into_bytes())
            }
            Meaning::List(_) => rows(&|(number, octets)| format!("{number} {octets}\r\n")),
            Meaning::Uidl(_) => rows(&|(number, _)| format!("{number} {}\r\n", unique_id(*number))),
            Meaning::Noop => Reply::Ok,
            Meaning::Rset => {
                self.deleted().clear();
                Reply::Ok
            }
            Meaning::Capa => self.capa(false),
            Meaning::Quit => return self.quit(fate),
            _ => return self.bad(None),
        };
        (reply, None)
    }

    fn quit(&mut self, fate: Fate) -> (Reply, Option<End>) {
        let marked = std::mem::take(self.deleted());
        let all = marked.len();
        self.totals.removed = marked;
        let code = match fate.commit {
            Commit::Temporary if all > 0 => "SYS/TEMP",
            Commit::Permanent if all > 0 => "SYS/PERM",
            Commit::Whole | Commit::Temporary | Commit::Permanent => {
                return (Reply::Ok, Some(End::Quit));
            }
        };
        self.totals.removed.pop_first();
        let reply = Reply::ErrText(code, format!("1 of {all} "));
        (reply, Some(End::NotAllRemoved))
    }

    fn count(&self) -> u32 {
        u32::try_from(self.script.messages.len()).expect("few")
    }

    fn visible(&self, number: u32) -> Option<&[u8]> {
        let Phase::Mail { deleted } = &self.phase else {
            unreachable!("nobody is logged in");
        };
        let text = self.script.messages.get(number as usize - 1)?;
        (!deleted.contains(&number)).then_some(text)
    }

    fn deleted(&mut self) -> &mut BTreeSet<u32> {
        match &mut self.phase {
            Phase::Mail { deleted } => deleted,
            Phase::Before { .. } => unreachable!("nobody is logged in"),
        }
    }
}

/// The unique-id of a message, which is its file's name.
pub(crate) fn unique_id(number: u32) -> String {
    format!("{number:010}.M1P1.host")
}

/// A text as it goes over the wire, without the terminator.
fn wire(text: &[u8], stuffed: bool) -> Vec<u8> {
    let mut wire = Vec::new();
    for line in text.split_inclusive(|&octet| octet == b'\n') {
        let line = line
            .strip_suffix(b"\r\n")
            .or(line.strip_suffix(b"\n"))
            .unwrap_or(line);
        if stuffed && line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
        wire.extend_from_slice(b"\r\n");
    }
    wire
}

/// The part of a text that TOP sends.
fn top(text: &[u8], body_lines: u64) -> &[u8] {
    let mut length = 0;
    let mut left = None;
    for line in text.split_inclusive(|&octet| octet == b'\n') {
        if left == Some(0) {
            break;
        }
        length += line.len();
        left = match left {
            Some(lines) => Some(lines - 1),
            None => (line == b"\n" || line == b"\r\n").then_some(body_lines),
        };
    }
    &text[..length]
}
