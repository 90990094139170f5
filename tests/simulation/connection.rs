//! A connection to the session under test: splits, performs, sends, in pieces
//! of sizes that follow from the seed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use popcore::auth::{Account, Notice, Refusal};
use popcore::limits;
use popcore::maildrop::{self, CommitReport, FaultKind, InUse, MessageError, OpenError, Snapshot};
use popcore::proto::{LineSplitter, MessageNumber, Octets, Output, Split, reply};
use popcore::sasl::Mechanisms;
use popcore::session::{Action, Channel, End, Outcome, Policy, Session, Step};
use popcore::wire::{Encoder, OctetCounter, TopLimit};

use crate::model::unique_id;
use crate::random::Random;
use crate::script::{Commit, Fate, IDLE, LOGIN, Login, Message, Open, Piece, Script};

pub(crate) struct Connection<'s> {
    script: &'s Script,
    random: &'s mut Random,
    session: Session,
    splitter: LineSplitter,
    now: Instant,
    out: Output,
    /// Index of the line whose action is pending.
    line: usize,
    /// Everything the client got.
    pub heard: Vec<u8>,
    /// Messages that are gone from the store.
    pub removed: BTreeSet<u32>,
    pub end: Option<End>,
}

impl<'s> Connection<'s> {
    pub(crate) fn new(script: &'s Script, random: &'s mut Random) -> Self {
        let policy = Policy {
            hostname: "pop.example.net".to_owned(),
            plaintext_without_tls: script.setting.plaintext,
            names: popcore::auth::NameRules::default(),
            mechanisms: Mechanisms::default(),
            apop: false,
            tokens: popcore::sasl::TokenTerms::default(),
            idle: IDLE,
            login: LOGIN,
            failure_delay: script.setting.failure_delay,
            login_delay: None,
            retention: None,
        };
        let channel = if script.setting.tls {
            Channel::Tls
        } else {
            Channel::Clear {
                stls: script.setting.stls,
            }
        };
        let now = Instant::now();
        let mut out = buffer(random);
        Self {
            session: Session::new(Arc::new(policy), channel, now, &mut out),
            splitter: LineSplitter::new(),
            script,
            random,
            now,
            out,
            line: 0,
            heard: Vec::new(),
            removed: BTreeSet::new(),
            end: None,
        }
    }

    /// Plays the script to its end or the session's.
    pub(crate) fn play(&mut self) {
        let script = self.script;
        for (at, piece) in script.pieces.iter().enumerate() {
            self.now += piece.gap;
            let step = self.session.handle_timeout(self.now);
            let due = self.now >= self.session.deadline();
            assert_eq!(due, matches!(step, Step::Close(_)), "a deadline was missed");
            self.follow(step);
            if self.end.is_none() {
                self.receive(piece);
            }
            if self.end.is_some() {
                break;
            }
            // Lines that were dropped behind STLS are no line's action.
            self.line = script.lines.iter().filter(|line| line.piece <= at).count();
        }
        self.flush();
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    fn receive(&mut self, piece: &Piece) {
        let mut input = &piece.octets[..];
        while self.end.is_none() {
            if self.out.room() < limits::REPLY_ROOM {
                self.flush();
            }
            let step = match self.splitter.next(&mut input) {
                Split::NeedMore => return,
                Split::Line(line) => self.session.handle_line(line, self.now, &mut self.out),
                Split::TooLong => self.session.handle_oversized_line(self.now, &mut self.out),
            };
            let discards = matches!(step, Step::Perform(Action::StartTls));
            self.follow(step);
            self.line += 1;
            if discards {
                self.splitter = LineSplitter::new();
                return;
            }
        }
    }

    fn follow(&mut self, mut step: Step) {
        loop {
            step = match step {
                Step::Continue => return,
                Step::Close(end) => {
                    self.end = Some(end);
                    return;
                }
                Step::Flush => {
                    self.flush();
                    self.session.handle_flushed(self.now, &mut self.out)
                }
                Step::Perform(action) => {
                    let outcome = self.perform(action);
                    if self.out.room() < limits::REPLY_ROOM {
                        self.flush();
                    }
                    self.session
                        .handle_outcome(outcome, self.now, &mut self.out)
                }
            };
        }
    }

    fn perform(&mut self, action: Action) -> Outcome {
        let fate = self.script.lines[self.line].fate;
        match action {
            Action::Authenticate(credentials) => Outcome::Authenticated(match fate.login {
                Login::Right => Ok(Account {
                    user: credentials.identity.user,
                    home: None,
                    mail: None,
                    limits: None,
                }),
                Login::Rejected => Err(Refusal::Rejected),
                Login::Disabled => {
                    let notice = Notice::new("the bill is unpaid").expect("one line");
                    Err(Refusal::Disabled(notice))
                }
                Login::Unavailable => Err(Refusal::Unavailable),
            }),
            Action::FindKeys(_) | Action::Note(_) => unreachable!("no mechanism is offered"),
            Action::StartTls => {
                self.flush();
                Outcome::TlsStarted
            }
            Action::OpenMaildrop(account) => {
                assert_eq!(account.user.as_bytes(), b"alice@example.net");
                Outcome::MaildropOpened(self.open(fate.open))
            }
            Action::Send {
                message,
                body_lines,
            } => self.send(message, body_lines, fate),
            Action::Commit(deletions) => {
                let mut numbers = deletions.iter().map(MessageNumber::get).peekable();
                assert!(numbers.peek().is_some(), "a commit of nothing");
                let kind = match fate.commit {
                    Commit::Whole => None,
                    Commit::Temporary => Some(FaultKind::Temporary),
                    Commit::Permanent => Some(FaultKind::Permanent),
                };
                self.removed = numbers.skip(usize::from(kind.is_some())).collect();
                Outcome::Committed(CommitReport {
                    removed: u32::try_from(self.removed.len()).expect("few"),
                    octets: Octets::ZERO,
                    failed: kind.map(|kind| (1, kind)),
                })
            }
            Action::Pause(delay) => {
                assert!(!delay.is_zero(), "a pause of no time");
                self.now += delay;
                Outcome::Paused
            }
        }
    }

    fn open(&self, open: Open) -> Result<Arc<Snapshot>, OpenError> {
        let fault = || maildrop::open(Path::new("/dev/null"), None).expect_err("no directory");
        match (open, fault()) {
            (Open::Opened, _) => {
                let texts = (1..).zip(&self.script.messages);
                let builder = texts.fold(Snapshot::builder("/mail"), |builder, (number, text)| {
                    let mut counter = OctetCounter::new();
                    counter.update(text);
                    builder.message(unique_id(number), counter.finish().get())
                });
                Ok(Arc::new(builder.build()))
            }
            (Open::InUse, _) => Err(OpenError::InUse(InUse { since: self.now })),
            (Open::Temporary, OpenError::Permanent(fault)) => Err(OpenError::Temporary(fault)),
            (Open::Temporary | Open::Permanent, error) => Err(error),
        }
    }

    fn send(&mut self, message: MessageNumber, body_lines: Option<u64>, fate: Fate) -> Outcome {
        match fate.message {
            Message::Sent => {}
            Message::Gone => return Outcome::Sent(Err(MessageError::Gone)),
            Message::Unreadable => return Outcome::Sent(Err(MessageError::Unreadable)),
        }
        let text = &self.script.messages[message.index()];
        let whole = body_lines
            .map(TopLimit::new)
            .map_or(text.len(), |mut limit| {
                let taken = limit.take(text);
                assert!(limit.done() || taken == text.len());
                taken
            });
        let mut counter = OctetCounter::new();
        counter.update(&text[..whole]);
        let octets = counter.finish();
        match body_lines {
            None => reply::message_follows(&mut self.out, octets),
            Some(_) => reply::top_follows(&mut self.out),
        }
        let mut encoder = Encoder::new();
        let mut rest = &text[..whole];
        while !rest.is_empty() {
            let window = &rest[..rest.len().min(1 + self.random.index(64))];
            let taken = encoder.encode(window, self.out.buffer_mut());
            rest = &rest[taken..];
            if self.out.room() == 0 {
                self.flush();
            }
        }
        if self.out.room() < limits::MESSAGE_END {
            self.flush();
        }
        encoder.finish(self.out.buffer_mut());
        self.now += fate.takes;
        Outcome::Sent(Ok(octets))
    }

    fn flush(&mut self) {
        self.heard.extend_from_slice(self.out.as_bytes());
        self.out = buffer(self.random);
    }
}

fn buffer(random: &mut Random) -> Output {
    let extra = random.index(2000);
    Output::new(Vec::with_capacity(limits::REPLY_ROOM + extra))
}
