//! What to ask next, and what an answer means.

use super::{
    Account, Asked, Batch, Duration, Exchange, Fault, Kind, Mechanism, Next, Phase, Progress,
    Script, Stage, Surroundings, Turn, line,
};
use crate::fault::readable;
use crate::reply::{Digest, Item, Message};
use crate::scenario::{Scenario, Step, Which};
use crate::tls::Mode;

impl Script {
    pub(super) fn scenario(&self) -> &Scenario {
        &self.conduct.mix.scenarios()[self.scenario]
    }

    fn front(&self) -> Option<&Asked> {
        self.pending.front()
    }

    fn asking(&self) -> Option<Phase> {
        self.front().map(|asked| asked.phase)
    }

    pub(super) fn in_phase(&self, mut fault: Fault) -> Fault {
        fault.text = match self.front() {
            Some(asked) if asked.phase == Phase::Greeting => format!("greeting: {}", fault.text),
            Some(asked) if asked.message > 0 => {
                let phase = asked.phase.name().to_uppercase();
                format!("{phase} {}: {}", asked.message, fault.text)
            }
            Some(asked) => format!("{}: {}", asked.phase.name().to_uppercase(), fault.text),
            None if self.stage == Stage::Connect => format!("connect: {}", fault.text),
            // Nothing is awaited but the handshake, with TLS from the first octet.
            None if [Stage::Hello, Stage::Handshake].contains(&self.stage) => {
                format!("TLS: {}", fault.text)
            }
            None => fault.text,
        };
        fault
    }

    pub(super) fn fault(&mut self, fault: Fault, around: &mut Surroundings<'_>) {
        self.faulty = true;
        let fault = self.in_phase(fault);
        around.record.fault(&fault, &around.login.user);
    }

    pub(super) fn extra(input: &[u8]) -> Fault {
        let text = format!("octets that answer no command: {}", readable(input));
        Fault::new(Kind::ExtraData, text)
    }

    /// Whether nothing after this fault can be relied on.
    pub(super) fn ends_the_session(&self, fault: &Fault) -> bool {
        let of_one_message = self.front().is_some_and(|asked| asked.message > 0);
        match fault.kind {
            Kind::LoginRefused | Kind::Nonsense => true,
            Kind::Refused => !of_one_message,
            _ => false,
        }
    }

    pub(super) fn challenged(
        &mut self,
        text: &[u8],
        around: &mut Surroundings<'_>,
    ) -> Result<(), Fault> {
        let keys = &mut around.account.scram;
        let answer = self.exchange.answer(text, around.login, keys)?;
        let before = around.out.len();
        line(around.out, answer.as_bytes(), b"");
        around.record.sent += (around.out.len() - before) as u64;
        Ok(())
    }

    pub(super) fn take(&mut self, item: Item<'_>, around: &mut Surroundings<'_>) -> Turn {
        let Some(phase) = self.asking() else {
            return Turn::Done;
        };
        match item {
            Item::Status {
                ok: false, text, ..
            } => {
                use Phase::{Auth, Greeting, Pass, User};
                let login = matches!(phase, Greeting | User | Pass | Auth);
                let kind = if login {
                    Kind::LoginRefused
                } else {
                    Kind::Refused
                };
                Turn::Wrong(Fault::new(kind, format!("-ERR {}", readable(text))))
            }
            Item::Status { text, .. } if phase == Phase::Stat => self
                .maildrop
                .take_stat(text)
                .map_or_else(Turn::Wrong, |()| Turn::Done),
            Item::Status { .. } if phase == Phase::Auth => self
                .exchange
                .end()
                .map_or_else(Turn::Wrong, |()| Turn::Done),
            Item::Status { text, .. } if phase == Phase::Greeting => {
                around.record.greeted(text);
                Turn::Done
            }
            Item::Status { last: true, .. } => Turn::Done,
            Item::Status { .. } => {
                self.begun(phase, around);
                Turn::More
            }
            Item::Row(row) => {
                let taken = match phase {
                    Phase::List => self.maildrop.take_list_row(row),
                    Phase::Uidl => self.maildrop.take_uidl_row(row),
                    _ => Ok(()),
                };
                if let Err(fault) = taken {
                    self.fault(fault, around);
                }
                Turn::More
            }
            Item::EndOfRows => self.end_of_rows(phase, around.account),
            Item::EndOfMessage(message) => self.end_of_message(phase, message, around),
            Item::Challenge(_) => unreachable!("challenges are answered before"),
        }
    }

    /// Of TOP no more is known beforehand than how lines are written.
    fn end_of_message(
        &mut self,
        phase: Phase,
        message: Message,
        around: &mut Surroundings<'_>,
    ) -> Turn {
        let whole = phase != Phase::Top;
        let asked = self.front().filter(|_| whole);
        let announced = asked.and_then(|a| self.maildrop.octets_of(a.message));
        let before = around.record.faults.total();
        for fault in message.faults(announced) {
            self.fault(fault, around);
        }
        if whole {
            around.record.messages += 1;
            around.record.octets += message.octets;
        }
        if around.record.faults.total() == before {
            Turn::Done
        } else {
            Turn::Told
        }
    }

    fn begun(&mut self, phase: Phase, around: &mut Surroundings<'_>) {
        if let Some(asked) = self.pending.front_mut() {
            asked.begun = true;
            if phase == Phase::Retr {
                let latency = around.now - asked.at;
                around.record.phase(Phase::RetrFirst, latency);
            }
        }
    }

    fn end_of_rows(&mut self, phase: Phase, account: &mut Account) -> Turn {
        let ended = match phase {
            Phase::List => self.maildrop.end_list(),
            // What a session contradicts itself about is not compared further.
            Phase::Uidl => match self.maildrop.end_uidl() {
                Ok(()) if !self.faulty => account.check(&mut self.maildrop).map_or(Ok(()), Err),
                told => told,
            },
            _ => Ok(()),
        };
        ended.map_or_else(Turn::Wrong, |()| Turn::Done)
    }

    /// A message came whole and is what LIST said.
    pub(super) fn keep(&mut self, digest: Option<Digest>, around: &mut Surroundings<'_>) -> Turn {
        let Some(asked) = self.front().copied().filter(|a| a.phase == Phase::Retr) else {
            return Turn::Done;
        };
        if let (Some(digest), Some(source)) = (digest, &self.conduct.source) {
            if let Some(fault) = source.check(around.user, digest) {
                return Turn::Wrong(fault);
            }
            self.intent.taken.push((asked.message, digest));
        }
        self.intent.fetched.push(asked.message);
        let takes = matches!(self.scenario().steps.get(self.step), Some(Step::Take(_)));
        if takes && self.batch.running && !self.faulty {
            self.batch.deletable.push_back(asked.message);
        }
        Turn::Done
    }

    /// A command was answered with `+OK`.
    pub(super) fn agreed(&mut self, around: &mut Surroundings<'_>) {
        match self.front() {
            Some(asked) if asked.phase == Phase::Dele => self.intent.deleted.push(asked.message),
            Some(asked) if asked.phase == Phase::Rset => self.intent.deleted.clear(),
            Some(asked) if asked.phase == Phase::Quit => self.commit(around),
            _ => {}
        }
    }

    fn commit(&mut self, around: &mut Surroundings<'_>) {
        self.quit_sent = false;
        around.account.commit(&self.intent, &self.maildrop);
        around.record.deleted += self.intent.deleted.len() as u64;
        let mut fault = None;
        if let Some(source) = &self.conduct.source {
            for message in self.intent.deletions() {
                match message {
                    Some(digest) => fault = fault.or(source.take(around.user, digest)),
                    None => source.doubt(around.user, None),
                }
            }
        }
        if let Some(fault) = fault {
            self.fault(fault, around);
        }
    }

    /// The session is over, and QUIT was sent and not answered: what it would have
    /// deleted may be gone.
    pub(super) fn doubt(&mut self, around: &mut Surroundings<'_>) {
        around.account.doubt(&self.intent);
        if let Some(source) = &self.conduct.source {
            for message in self.intent.deletions() {
                source.doubt(around.user, message);
            }
        }
    }

    /// A reply was read to its end.
    pub(super) fn answered(&mut self, around: &mut Surroundings<'_>) {
        let Some(asked) = self.pending.pop_front() else {
            return;
        };
        around.record.phase(asked.phase, around.now - asked.at);
        around.record.commands += u64::from(asked.phase != Phase::Greeting);
    }

    /// How the session stands when QUIT is answered.
    pub(super) fn rest(&mut self, around: &mut Surroundings<'_>) -> Progress {
        if self.faulty {
            around.record.failed += 1;
        } else {
            around.record.session(around.now - self.began);
        }
        Progress::Finished
    }

    pub(super) fn write(&mut self, phase: Phase, message: u32, around: &mut Surroundings<'_>) {
        let out = &mut *around.out;
        let before = out.len();
        let number = |out: &mut Vec<u8>, command: &[u8]| {
            line(out, command, message.to_string().as_bytes());
        };
        match phase {
            Phase::User | Phase::Auth => {
                let mechanism = self.conduct.mechanism;
                if mechanism == Mechanism::User {
                    line(out, b"USER ", around.login.user.as_bytes());
                } else {
                    let (first, exchange) =
                        Exchange::begin(mechanism, around.login, &mut self.random);
                    self.exchange = exchange;
                    line(out, first.as_bytes(), b"");
                }
            }
            Phase::Pass => line(out, b"PASS ", around.login.password.as_bytes()),
            Phase::Capa => out.extend_from_slice(b"CAPA\r\n"),
            Phase::Stls => out.extend_from_slice(b"STLS\r\n"),
            Phase::Stat => out.extend_from_slice(b"STAT\r\n"),
            Phase::List => {
                self.maildrop.begin_list();
                out.extend_from_slice(b"LIST\r\n");
            }
            Phase::Uidl => {
                self.maildrop.begin_uidl();
                out.extend_from_slice(b"UIDL\r\n");
            }
            Phase::Noop => out.extend_from_slice(b"NOOP\r\n"),
            Phase::Rset => out.extend_from_slice(b"RSET\r\n"),
            Phase::Retr | Phase::RetrFirst => number(out, b"RETR "),
            Phase::Dele => number(out, b"DELE "),
            Phase::Top => {
                let lines = match self.scenario().steps.get(self.step) {
                    Some(Step::Top(_, lines)) => *lines,
                    _ => 0,
                };
                line(out, b"TOP ", format!("{message} {lines}").as_bytes());
            }
            Phase::Quit | Phase::Connect | Phase::Tls | Phase::Greeting => {
                self.quit_sent = true;
                out.extend_from_slice(b"QUIT\r\n");
            }
        }
        around.record.sent += (out.len() - before) as u64;
    }

    /// What there is to do; a command that is given out is under way.
    pub(super) fn next(&mut self, around: &Surroundings<'_>) -> Next {
        let idle = self.pending.is_empty();
        match self.stage {
            Stage::Hello if !idle => Next::Wait,
            Stage::Hello if self.conduct.tls == Mode::Stls => {
                self.stage = Stage::Stls;
                self.next(around)
            }
            Stage::Hello | Stage::Login if self.conduct.mechanism == Mechanism::User => {
                self.stage = Stage::Pass;
                Next::Ask(Phase::User, 0)
            }
            Stage::Hello | Stage::Login => {
                self.stage = Stage::Steps;
                Next::Ask(Phase::Auth, 0)
            }
            Stage::Stls => {
                self.stage = Stage::Handshake;
                Next::Ask(Phase::Stls, 0)
            }
            Stage::Connect | Stage::Handshake => Next::Wait,
            Stage::Pass => {
                self.stage = Stage::Steps;
                Next::Ask(Phase::Pass, 0)
            }
            Stage::Steps if self.asking() == Some(Phase::Auth) => Next::Wait,
            Stage::Steps => self.next_step(idle, around.account),
            Stage::Held => Next::Hold,
            Stage::Quit => {
                self.stage = Stage::Over;
                Next::Ask(Phase::Quit, 0)
            }
            Stage::Over => Next::End,
        }
    }

    fn next_step(&mut self, idle: bool, account: &Account) -> Next {
        let Some(step) = self.scenario().steps.get(self.step).copied() else {
            self.stage = Stage::Over;
            return Next::Ask(Phase::Quit, 0);
        };
        let phase = match step {
            Step::Capa => Phase::Capa,
            Step::Noop => Phase::Noop,
            Step::Stat => Phase::Stat,
            Step::List => Phase::List,
            Step::Uidl => Phase::Uidl,
            Step::Rset => Phase::Rset,
            Step::Top(which, _) => return self.next_message(which, Phase::Top, idle, account),
            Step::Dele(which) => return self.next_message(which, Phase::Dele, idle, account),
            Step::Retr(which) | Step::Take(which) => {
                return self.next_message(which, Phase::Retr, idle, account);
            }
            Step::Think(..) | Step::Hold if !idle => return Next::Wait,
            Step::Think(least, most) => {
                self.step += 1;
                return Next::Think(self.pause(least, most));
            }
            Step::Hold => {
                self.stage = Stage::Held;
                return Next::Hold;
            }
        };
        self.step += 1;
        Next::Ask(phase, 0)
    }

    fn pause(&mut self, least: Duration, most: Duration) -> Duration {
        least + most.saturating_sub(least).mul_f64(self.random.fraction())
    }

    /// The next command of a step over several messages.
    fn next_message(&mut self, which: Which, phase: Phase, idle: bool, account: &Account) -> Next {
        if !self.batch.running {
            // What there is must be known.
            if !idle {
                return Next::Wait;
            }
            self.choose(which, account);
        }
        if let Some(message) = self.batch.deletable.pop_front() {
            return Next::Ask(Phase::Dele, message);
        }
        if let Some(message) = self.batch.next() {
            return Next::Ask(phase, message);
        }
        // A message that is still to come may be one to delete, and TOP reads
        // its lines from the step.
        if !idle {
            return Next::Wait;
        }
        self.batch.running = false;
        self.step += 1;
        self.next_step(idle, account)
    }

    fn choose(&mut self, which: Which, account: &Account) {
        let there = self.maildrop.listed();
        let Batch { chosen, gone, .. } = self.batch.begin();
        gone.extend_from_slice(&self.intent.deleted);
        gone.sort_unstable();
        match which {
            Which::Random(wanted) => self.random.choose(there, wanted, chosen),
            Which::New if self.maildrop.knows_uidls() => {
                let new = |n: &u32| account.is_new(self.maildrop.uidl(*n));
                chosen.extend((1..=there).filter(new));
            }
            // Not written out: without a listing it is STAT's word alone.
            Which::All | Which::New => self.batch.all = 1..=there,
        }
    }
}
