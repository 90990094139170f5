//! One session's side of the conversation: replies in, commands out.
//!
//! No socket and no clock: the engine brings bytes and the time, and sends what
//! is written to `out`. In lockstep one command is under way at a time; with
//! pipelining as many as `PIPELINE`, but never one that depends on a reply
//! which is still to come: the choice of messages waits for the listings, a
//! DELE for the message, everything for TLS and AUTH.
//!
//! A fault that leaves the framing intact is counted and the session goes on; a
//! message that arrived wrong is not deleted. A fault that loses the place ends
//! the session without QUIT, so that the server deletes nothing.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::account::{Account, Intent};
use crate::auth::{Exchange, Mechanism};
use crate::fault::{Fault, Kind};
use crate::maildrop::Maildrop;
use crate::measure::{Phase, Record};
use crate::random::Random;
use crate::reply::{Item, ReplyReader, Shape};
use crate::scenario::Mix;
use crate::source::Source;
use crate::tls::Mode;
use crate::users::Login;

/// Commands under way at a time: so few that neither side's socket buffers can
/// fill with commands while it waits for the other.
const PIPELINE: usize = 32;

/// How sessions of a run behave.
#[derive(Debug)]
pub struct Conduct {
    /// What they do after the login.
    pub mix: Mix,
    /// How they log in.
    pub mechanism: Mechanism,
    /// Where TLS begins.
    pub tls: Mode,
    /// Where messages are compared with what is stored.
    pub source: Option<Source>,
}

/// How a session stands after some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// A reply is not yet complete.
    Waiting,
    /// STLS is answered: the handshake begins.
    StartTls,
    /// Nothing to do for so long; then [`Dialogue::wake`].
    Think(Duration),
    /// Logged in, and nothing to do until [`Dialogue::quit`].
    Idle,
    /// QUIT is answered: the server should close.
    Finished,
    /// The session cannot go on: [`Dialogue::fail`] counts it.
    Failed(Fault),
}

/// What the dialogue needs of its surroundings for one call.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// The time of the event.
    pub now: Instant,
    /// Who logs in.
    pub login: &'a Login,
    /// The number of who logs in, over the whole run.
    pub user: usize,
    /// What is known of them.
    pub account: &'a mut Account,
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

/// What is to be asked next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Nothing before the connection stands.
    Connect,
    /// Nothing before the greeting.
    Hello,
    Stls,
    /// Nothing before the handshake is over.
    Handshake,
    Login,
    Pass,
    Steps,
    /// Idle until told to quit.
    Held,
    Quit,
    Over,
}

/// A command under way.
#[derive(Clone, Copy, Debug)]
struct Asked {
    phase: Phase,
    /// What it is about; 0 where it is about no message.
    message: u32,
    at: Instant,
    /// The reply's first line was read and is positive.
    begun: bool,
}

/// A step over several messages.
#[derive(Debug)]
struct Batch {
    /// Picked one by one.
    chosen: Vec<u32>,
    taken: usize,
    /// All that there are; empty where they are picked.
    all: RangeInclusive<u32>,
    /// Deleted before this step, in order: they can be neither fetched nor deleted.
    gone: Vec<u32>,
    /// Arrived whole and to be deleted.
    deletable: VecDeque<u32>,
    running: bool,
}

#[derive(Debug)]
struct Script {
    conduct: Arc<Conduct>,
    scenario: usize,
    random: Random,
    began: Instant,
    /// When the connection or the handshake began.
    since: Instant,
    stage: Stage,
    step: usize,
    pending: VecDeque<Asked>,
    exchange: Exchange,
    maildrop: Maildrop,
    batch: Batch,
    intent: Intent,
    quit_sent: bool,
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
    /// It is complete, and what is wrong with it is counted.
    Told,
}

/// What there is to do.
enum Next {
    Ask(Phase, u32),
    /// Nothing before a reply comes.
    Wait,
    Think(Duration),
    Hold,
    End,
}

impl Dialogue {
    /// A dialogue of this conduct, choosing by `seed`.
    pub fn new(conduct: Arc<Conduct>, seed: u64, now: Instant) -> Self {
        let mut reader = ReplyReader::default();
        if conduct.source.is_some() {
            reader.hash_messages();
        }
        let script = Script {
            conduct,
            scenario: 0,
            random: Random::new(seed),
            began: now,
            since: now,
            stage: Stage::Connect,
            step: 0,
            pending: VecDeque::new(),
            exchange: Exchange::Spoken,
            maildrop: Maildrop::default(),
            batch: Batch::empty(),
            intent: Intent::default(),
            quit_sent: false,
            faulty: false,
        };
        Self { reader, script }
    }

    /// A connection is being made for a new session, which was meant to begin
    /// at `intended`.
    pub fn begin(&mut self, intended: Instant, now: Instant) {
        self.reader.reset();
        let script = &mut self.script;
        script.scenario = script.conduct.mix.choose(&mut script.random);
        script.began = intended;
        script.since = now;
        script.stage = Stage::Connect;
        script.step = 0;
        script.pending.clear();
        script.maildrop.clear();
        script.batch.reset();
        script.intent.clear();
        script.quit_sent = false;
        script.faulty = false;
    }

    /// The connection stands.
    pub fn connected(&mut self, now: Instant, record: &mut Record) {
        let script = &mut self.script;
        record.phase(Phase::Connect, now - script.since);
        script.since = now;
        script.stage = Stage::Hello;
        if script.conduct.tls != Mode::Implicit {
            self.await_greeting(now);
        }
    }

    /// The handshake is over.
    pub fn secured(&mut self, around: &mut Surroundings<'_>) -> Progress {
        let script = &mut self.script;
        around.record.phase(Phase::Tls, around.now - script.since);
        if script.stage == Stage::Hello {
            self.await_greeting(around.now);
            return Progress::Waiting;
        }
        script.stage = Stage::Login;
        self.go_on(around)
    }

    fn await_greeting(&mut self, now: Instant) {
        self.reader.expect(Shape::Line);
        self.script.pending.push_back(Asked {
            phase: Phase::Greeting,
            message: 0,
            at: now,
            begun: false,
        });
    }

    /// What the session is waiting for.
    pub fn phase(&self) -> Phase {
        match (self.script.pending.front(), self.script.stage) {
            (Some(asked), _) => asked.phase,
            (None, Stage::Connect) => Phase::Connect,
            (None, _) => Phase::Tls,
        }
    }

    /// Whether a message was asked for that has not come whole.
    pub fn awaits_message(&self) -> bool {
        let mut pending = self.script.pending.iter();
        pending.any(|asked| asked.phase == Phase::Retr)
    }

    /// Whether a message is being sent to us.
    pub fn is_amid_message(&self) -> bool {
        let front = self.script.pending.front();
        front.is_some_and(|asked| asked.phase == Phase::Retr && asked.begun)
    }

    /// Whether the login is over.
    pub fn is_logged_in(&self) -> bool {
        let login = [Phase::Greeting, Phase::User, Phase::Pass, Phase::Auth];
        let front = self.script.pending.front();
        self.script.stage >= Stage::Steps && front.is_some_and(|a| !login.contains(&a.phase))
    }

    /// Bytes came from the server.
    pub fn receive(&mut self, mut input: &[u8], around: &mut Surroundings<'_>) -> Progress {
        around.record.received += input.len() as u64;
        loop {
            let item = match self.reader.next(&mut input) {
                Ok(Some(item)) => item,
                Ok(None) => return Progress::Waiting,
                Err(fault) => return Progress::Failed(fault),
            };
            if let Item::Challenge(text) = item {
                match self.script.challenged(text, around) {
                    Ok(()) => self.reader.expect(Shape::Challenge),
                    Err(fault) => return Progress::Failed(fault),
                }
                continue;
            }
            let ended = matches!(item, Item::EndOfMessage(_));
            let mut turn = self.script.take(item, around);
            self.count_bare_lf(around);
            if ended && matches!(turn, Turn::Done) {
                turn = self.script.keep(self.reader.take_digest(), around);
            }
            match turn {
                Turn::More => continue,
                Turn::Wrong(fault) if self.script.ends_the_session(&fault) => {
                    return Progress::Failed(fault);
                }
                Turn::Wrong(fault) => self.script.fault(fault, around),
                Turn::Done => self.script.agreed(around),
                Turn::Told => {}
            }
            self.script.answered(around);
            let progress = self.go_on(around);
            if self.script.pending.is_empty() || progress != Progress::Waiting {
                if input.is_empty() || matches!(progress, Progress::Failed(_)) {
                    return progress;
                }
                return Progress::Failed(Script::extra(input));
            }
            if input.is_empty() {
                return Progress::Waiting;
            }
            // In lockstep nothing can answer a command before it is sent.
            if !self.script.scenario().pipelining {
                return Progress::Failed(Script::extra(input));
            }
        }
    }

    /// A pause is over.
    pub fn wake(&mut self, around: &mut Surroundings<'_>) -> Progress {
        self.go_on(around)
    }

    /// Ends an idle session.
    pub fn quit(&mut self, around: &mut Surroundings<'_>) -> Progress {
        self.script.stage = Stage::Quit;
        self.go_on(around)
    }

    /// Counts a fault that the engine saw; the session is over.
    pub fn fail(&mut self, fault: Fault, around: &mut Surroundings<'_>) {
        let fault = self.script.in_phase(fault);
        around.record.fault(&fault, &around.login.user);
        around.record.failed += 1;
        self.give_up(around);
    }

    /// The session is over without an end.
    pub fn give_up(&mut self, around: &mut Surroundings<'_>) {
        if self.script.quit_sent {
            self.script.doubt(around);
        }
    }

    fn count_bare_lf(&mut self, around: &mut Surroundings<'_>) {
        for _ in 0..self.reader.take_bare_lf() {
            let fault = Fault::new(Kind::BareLf, "a reply line ends in LF without CR");
            self.script.fault(fault, around);
        }
    }

    /// Sends what may be sent now.
    fn go_on(&mut self, around: &mut Surroundings<'_>) -> Progress {
        let script = &mut self.script;
        let window = if script.scenario().pipelining {
            PIPELINE
        } else {
            1
        };
        while script.pending.len() < window {
            match script.next(around) {
                Next::Ask(phase, message) => {
                    script.write(phase, message, around);
                    script.pending.push_back(Asked {
                        phase,
                        message,
                        at: around.now,
                        begun: false,
                    });
                    if script.pending.len() == 1 {
                        self.reader.expect(shape(phase));
                    }
                }
                Next::Wait if script.stage == Stage::Handshake && script.pending.is_empty() => {
                    script.since = around.now;
                    return Progress::StartTls;
                }
                Next::Think(pause) => return Progress::Think(pause),
                Next::Hold => return Progress::Idle,
                Next::End if script.pending.is_empty() => return script.rest(around),
                Next::Wait | Next::End => break,
            }
        }
        if let Some(asked) = script.pending.front()
            && self.reader.is_quiet()
        {
            self.reader.expect(shape(asked.phase));
        }
        Progress::Waiting
    }
}

/// What a command's positive reply looks like.
fn shape(phase: Phase) -> Shape {
    match phase {
        Phase::Capa | Phase::List | Phase::Uidl => Shape::Rows,
        Phase::Retr | Phase::Top => Shape::Message,
        Phase::Auth => Shape::Challenge,
        _ => Shape::Line,
    }
}

fn line(out: &mut Vec<u8>, command: &[u8], argument: &[u8]) {
    for part in [command, argument, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

impl Batch {
    fn empty() -> Self {
        Self {
            chosen: Vec::new(),
            taken: 0,
            all: nothing(),
            gone: Vec::new(),
            deletable: VecDeque::new(),
            running: false,
        }
    }

    fn reset(&mut self) {
        self.chosen.clear();
        self.taken = 0;
        self.all = nothing();
        self.gone.clear();
        self.deletable.clear();
        self.running = false;
    }

    /// A step begins; what it is about is to be chosen.
    fn begin(&mut self) -> &mut Self {
        self.reset();
        self.running = true;
        self
    }

    /// The next message that is not gone.
    fn next(&mut self) -> Option<u32> {
        loop {
            let picked = self.chosen.get(self.taken).copied();
            self.taken += usize::from(picked.is_some());
            let message = picked.or_else(|| self.all.next())?;
            if self.gone.binary_search(&message).is_err() {
                return Some(message);
            }
        }
    }
}

/// No message.
fn nothing() -> RangeInclusive<u32> {
    RangeInclusive::new(1, 0)
}

mod script;

#[cfg(test)]
mod tests;
