//! One session's side of the conversation: replies in, commands out.
//!
//! No socket and no clock: the engine brings bytes and the time, and sends what
//! is written to `out`. One command is under way at a time; the next is
//! written when the reply to the last has been read to its end and checked.
//!
//! A fault that leaves the framing intact is counted and the session goes on; a
//! message that arrived wrong is not deleted. A fault that loses the place ends
//! the session without QUIT, so that the server deletes nothing.

use std::time::Instant;

use crate::fault::{Fault, Kind, readable};
use crate::maildrop::Maildrop;
use crate::measure::{Phase, Record};
use crate::random::Random;
use crate::reply::{Item, ReplyReader, Shape};
use crate::users::Login;

/// What a session does after its login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// QUIT at once.
    Login,
    /// STAT and UIDL.
    Poll,
    /// STAT, LIST, UIDL and RETR of up to `messages` messages at random.
    Fetch {
        /// Most messages a session fetches.
        messages: u32,
    },
    /// STAT, LIST, and RETR and DELE of every message.
    Drain,
    /// Nothing, until the run is over.
    Idle,
}

/// How a session stands after some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// A reply is not yet complete.
    Waiting,
    /// Logged in, and nothing to do until [`Dialogue::quit`].
    Idle,
    /// QUIT is answered: the server should close.
    Finished,
    /// The session cannot go on.
    Failed(Fault),
}

/// What the dialogue needs of its surroundings for one call.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// The time of the event.
    pub now: Instant,
    /// Who logs in.
    pub login: &'a Login,
    /// Where it is counted.
    pub record: &'a mut Record,
    /// What is to be sent.
    pub out: &'a mut Vec<u8>,
}

/// One session after the other on one slot; buffers stay from session to session.
#[derive(Debug)]
pub struct Dialogue {
    reader: ReplyReader,
    script: Script,
}

#[derive(Debug)]
struct Script {
    profile: Profile,
    random: Random,
    began: Instant,
    /// When the command under way was written.
    asked: Instant,
    phase: Phase,
    maildrop: Maildrop,
    /// Messages to fetch, and how many of them were taken.
    chosen: Vec<u32>,
    taken: usize,
    faulty: bool,
}

/// What an item meant for the reply that it is part of.
enum Turn {
    /// There is more of it.
    More,
    /// It is complete.
    Done,
    /// It is complete, and this is wrong with it.
    Wrong(Fault),
}

impl Dialogue {
    /// A dialogue that plays `profile`, choosing messages by `seed`.
    pub fn new(profile: Profile, seed: u64, now: Instant) -> Self {
        let script = Script {
            profile,
            random: Random::new(seed),
            began: now,
            asked: now,
            phase: Phase::Connect,
            maildrop: Maildrop::default(),
            chosen: Vec::new(),
            taken: 0,
            faulty: false,
        };
        Self {
            reader: ReplyReader::default(),
            script,
        }
    }

    /// A connection is being made for a new session.
    pub fn begin(&mut self, now: Instant) {
        self.reader.reset();
        self.reader.expect(Shape::Line);
        let script = &mut self.script;
        script.began = now;
        script.asked = now;
        script.phase = Phase::Connect;
        script.maildrop.clear();
        script.chosen.clear();
        script.taken = 0;
        script.faulty = false;
    }

    /// The connection stands.
    pub fn connected(&mut self, now: Instant, record: &mut Record) {
        let script = &mut self.script;
        record.phase(Phase::Connect, now - script.asked);
        script.asked = now;
        script.phase = Phase::Greeting;
    }

    /// What the session is waiting for.
    pub fn phase(&self) -> Phase {
        self.script.phase
    }

    /// Bytes came from the server.
    pub fn receive(&mut self, mut input: &[u8], around: &mut Surroundings<'_>) -> Progress {
        around.record.received += input.len() as u64;
        loop {
            let item = match self.reader.next(&mut input) {
                Ok(Some(item)) => item,
                Ok(None) => return Progress::Waiting,
                Err(fault) => return Progress::Failed(self.script.in_phase(fault)),
            };
            let turn = self.script.take(item, around);
            self.count_bare_lf(around);
            match turn {
                Turn::More => continue,
                Turn::Wrong(fault) if self.script.ends_the_session(&fault) => {
                    return Progress::Failed(self.script.in_phase(fault));
                }
                Turn::Wrong(fault) => self.script.fault(fault, around),
                Turn::Done => {}
            }
            self.script.answered(around);
            if !input.is_empty() {
                let text = format!("octets that answer no command: {}", readable(input));
                return Progress::Failed(self.script.in_phase(Fault::new(Kind::ExtraData, text)));
            }
            let Some(next) = self.script.next() else {
                return self.script.rest(around);
            };
            self.write(next, around);
            return Progress::Waiting;
        }
    }

    /// Ends an idle session.
    pub fn quit(&mut self, around: &mut Surroundings<'_>) {
        self.write(Phase::Quit, around);
    }

    /// Counts a fault that the engine saw; the session is over.
    pub fn fail(&mut self, fault: Fault, around: &mut Surroundings<'_>) {
        let fault = self.script.in_phase(fault);
        around.record.fault(&fault, &around.login.user);
        around.record.failed += 1;
    }

    fn count_bare_lf(&mut self, around: &mut Surroundings<'_>) {
        for _ in 0..self.reader.take_bare_lf() {
            let fault = Fault::new(Kind::BareLf, "a reply line ends in LF without CR");
            self.script.fault(fault, around);
        }
    }

    fn write(&mut self, phase: Phase, around: &mut Surroundings<'_>) {
        let script = &mut self.script;
        let out = &mut *around.out;
        let before = out.len();
        match phase {
            Phase::User => line(out, b"USER ", around.login.user.as_bytes()),
            Phase::Pass => line(out, b"PASS ", around.login.password.as_bytes()),
            Phase::Stat => out.extend_from_slice(b"STAT\r\n"),
            Phase::List => out.extend_from_slice(b"LIST\r\n"),
            Phase::Uidl => out.extend_from_slice(b"UIDL\r\n"),
            Phase::Retr => line(out, b"RETR ", script.current().to_string().as_bytes()),
            Phase::Dele => line(out, b"DELE ", script.current().to_string().as_bytes()),
            Phase::Quit | Phase::Connect | Phase::Greeting => out.extend_from_slice(b"QUIT\r\n"),
        }
        around.record.sent += (out.len() - before) as u64;
        script.phase = phase;
        script.asked = around.now;
        self.reader.expect(match phase {
            Phase::List | Phase::Uidl => Shape::Rows,
            Phase::Retr => Shape::Message,
            _ => Shape::Line,
        });
    }
}

fn line(out: &mut Vec<u8>, command: &[u8], argument: &[u8]) {
    for part in [command, argument, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

impl Script {
    /// The message that RETR or DELE is about.
    fn current(&self) -> u32 {
        self.chosen[self.taken - 1]
    }

    fn in_phase(&self, mut fault: Fault) -> Fault {
        let phase = match self.phase {
            Phase::Connect | Phase::Greeting => self.phase.name().to_owned(),
            phase => phase.name().to_uppercase(),
        };
        fault.text = match self.phase {
            Phase::Retr | Phase::Dele => format!("{phase} {}: {}", self.current(), fault.text),
            _ => format!("{phase}: {}", fault.text),
        };
        fault
    }

    fn fault(&mut self, fault: Fault, around: &mut Surroundings<'_>) {
        self.faulty = true;
        let fault = self.in_phase(fault);
        around.record.fault(&fault, &around.login.user);
    }

    /// Whether nothing after this fault can be relied on.
    fn ends_the_session(&self, fault: &Fault) -> bool {
        let of_one_message = matches!(self.phase, Phase::Retr | Phase::Dele);
        match fault.kind {
            Kind::LoginRefused | Kind::Nonsense => true,
            Kind::Refused => !of_one_message,
            _ => false,
        }
    }

    fn take(&mut self, item: Item<'_>, around: &mut Surroundings<'_>) -> Turn {
        match item {
            Item::Status {
                ok: false, text, ..
            } => {
                let login = matches!(self.phase, Phase::Greeting | Phase::User | Phase::Pass);
                let kind = if login {
                    Kind::LoginRefused
                } else {
                    Kind::Refused
                };
                Turn::Wrong(Fault::new(kind, format!("-ERR {}", readable(text))))
            }
            Item::Status { text, .. } if self.phase == Phase::Stat => {
                match self.maildrop.take_stat(text) {
                    Ok(()) => Turn::Done,
                    Err(fault) => Turn::Wrong(fault),
                }
            }
            Item::Status { last: true, .. } => Turn::Done,
            Item::Status { .. } => Turn::More,
            Item::Row(row) => {
                let taken = match self.phase {
                    Phase::List => self.maildrop.take_list_row(row),
                    _ => self.maildrop.take_uidl_row(row),
                };
                if let Err(fault) = taken {
                    self.fault(fault, around);
                }
                Turn::More
            }
            Item::EndOfRows => {
                let ended = match self.phase {
                    Phase::List => self.maildrop.end_list(),
                    _ => self.maildrop.end_uidl(),
                };
                ended.map_or_else(Turn::Wrong, |()| Turn::Done)
            }
            Item::EndOfMessage(message) => {
                let announced = self.maildrop.octets_of(self.current());
                for fault in message.faults(announced) {
                    self.fault(fault, around);
                }
                around.record.messages += 1;
                around.record.octets += message.octets;
                Turn::Done
            }
        }
    }

    /// A reply was read to its end.
    fn answered(&mut self, around: &mut Surroundings<'_>) {
        around.record.phase(self.phase, around.now - self.asked);
        around.record.commands += u64::from(self.phase != Phase::Greeting);
    }

    /// The command after the one just answered. `None`: there is none, either
    /// because QUIT was it or because the session idles.
    fn next(&mut self) -> Option<Phase> {
        let next = match (self.phase, self.profile) {
            (Phase::Connect | Phase::Greeting, _) => Phase::User,
            (Phase::User, _) => Phase::Pass,
            (Phase::Pass, Profile::Idle) | (Phase::Quit, _) => return None,
            (Phase::Pass, Profile::Login) | (Phase::Uidl, Profile::Poll) => Phase::Quit,
            (Phase::Pass, _) => Phase::Stat,
            (Phase::Stat, Profile::Poll) | (Phase::List, Profile::Fetch { .. }) => Phase::Uidl,
            (Phase::Stat, _) => Phase::List,
            (Phase::List | Phase::Uidl, _) => {
                self.choose();
                self.next_message()
            }
            (Phase::Retr, Profile::Drain) if !self.faulty => Phase::Dele,
            (Phase::Retr | Phase::Dele, _) => self.next_message(),
        };
        Some(next)
    }

    fn choose(&mut self) {
        let there = self.maildrop.listed();
        match self.profile {
            Profile::Fetch { messages } => self.random.choose(there, messages, &mut self.chosen),
            _ => self.chosen.extend(1..=there),
        }
    }

    fn next_message(&mut self) -> Phase {
        if self.taken == self.chosen.len() {
            return Phase::Quit;
        }
        self.taken += 1;
        Phase::Retr
    }

    /// How the session stands when there is no further command.
    fn rest(&mut self, around: &mut Surroundings<'_>) -> Progress {
        if self.phase == Phase::Pass {
            return Progress::Idle;
        }
        if self.faulty {
            around.record.failed += 1;
        } else {
            around.record.session(around.now - self.began);
        }
        Progress::Finished
    }
}

#[cfg(test)]
mod tests;
