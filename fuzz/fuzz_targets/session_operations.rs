//! Any sequence of lines, outcomes and silences: the session never panics, its
//! replies have the form of the standard and fit, only QUIT commits, and only
//! what was marked; what is marked is neither sent nor counted.
#![no_main]

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use popcore::auth::{Account, Refusal};
use popcore::limits;
use popcore::maildrop::{CommitReport, FaultKind, InUse, MessageError, OpenError, Snapshot};
use popcore::proto::{Command, Octets, Output, parse};
use popcore::session::{Action, Channel, End, Outcome, Policy, Session, Step};

const MESSAGES: u32 = 70;

static SNAPSHOT: LazyLock<Arc<Snapshot>> = LazyLock::new(|| {
    let builder = (1..=MESSAGES).fold(Snapshot::builder("/mail"), |builder, number| {
        builder.message(format!("{number:06}.M1.host"), u64::from(number))
    });
    Arc::new(builder.build())
});

/// Lines that lead somewhere; others come from the input.
const LINES: [&str; 21] = [
    "USER alice",
    "PASS secret",
    "STAT",
    "LIST",
    "UIDL",
    "RETR 1",
    "TOP 2 0",
    "DELE 1",
    "DELE 2",
    "DELE 70",
    "RSET",
    "CAPA",
    "STLS",
    "QUIT",
    "NOOP",
    "USER",
    "AUTH",
    "AUTH PLAIN",
    "AUTH LOGIN YWxpY2U=",
    "AGFsaWNlAHNlY3JldA==",
    "*",
];

struct Run<'d> {
    data: &'d [u8],
    session: Session,
    now: Instant,
    marked: BTreeSet<u32>,
    quitting: bool,
}

fuzz_target!(|data: &[u8]| {
    let Some((&setting, data)) = data.split_first() else {
        return;
    };
    let policy = Policy {
        hostname: "pop.example.net".to_owned(),
        plaintext_without_tls: setting & 1 != 0,
        names: popcore::auth::NameRules::default(),
        mechanisms: popcore::sasl::Mechanism::ALL.into_iter().collect(),
        apop: false,
        tokens: popcore::sasl::TokenTerms::default(),
        idle: Duration::from_secs(600),
        login: Duration::from_secs(60),
        failure_delay: Duration::from_secs(u64::from(setting >> 6)),
        login_delay: None,
        retention: None,
    };
    let channel = if setting & 2 != 0 {
        Channel::Tls
    } else {
        Channel::Clear {
            stls: setting & 4 != 0,
        }
    };
    let now = Instant::now();
    let mut out = output();
    let session = Session::new(Arc::new(policy), channel, now, &mut out);
    check(out.as_bytes());
    let mut run = Run {
        data,
        session,
        now,
        marked: BTreeSet::new(),
        quitting: false,
    };
    while run.turn().is_none() {}
});

fn output() -> Output {
    Output::new(Vec::with_capacity(limits::REPLY_ROOM))
}

/// Every piece ends at the end of a line of at most 512 octets, and is not a
/// terminator alone.
fn check(piece: &[u8]) {
    assert!(piece.is_empty() || piece.ends_with(b"\r\n"));
    assert_ne!(piece, b".\r\n");
    for line in piece.split_inclusive(|&octet| octet == b'\n') {
        assert!(line.len() <= limits::REPLY_LINE && line.ends_with(b"\r\n"));
    }
}

impl Run<'_> {
    fn octet(&mut self) -> Option<u8> {
        let (&octet, rest) = self.data.split_first()?;
        self.data = rest;
        Some(octet)
    }

    /// One line or silence; the end, if that was it.
    fn turn(&mut self) -> Option<()> {
        let Some(operation) = self.octet() else {
            return Some(());
        };
        let mut out = output();
        let step = match operation {
            0..=199 => {
                let line = LINES[usize::from(operation) % LINES.len()].as_bytes();
                self.line(line, &mut out)
            }
            200..=239 => {
                let length = usize::from(operation - 200).min(self.data.len());
                let (line, rest) = self.data.split_at(length);
                self.data = rest;
                self.line(line, &mut out)
            }
            240..=246 => self.session.handle_oversized_line(self.now, &mut out),
            _ => {
                self.now += Duration::from_secs(u64::from(operation - 246) * 67);
                let due = self.now >= self.session.deadline();
                let step = self.session.handle_timeout(self.now);
                assert_eq!(due, matches!(step, Step::Close(_)));
                step
            }
        };
        self.follow(step, out)
    }

    fn line(&mut self, line: &[u8], out: &mut Output) -> Step {
        self.quitting = parse(line) == Ok(Command::Quit);
        let authenticated = self.session.summary().authenticated;
        let step = self.session.handle_line(line, self.now, out);
        let accepted = out.as_bytes().starts_with(b"+OK");
        if authenticated && accepted {
            match parse(line) {
                Ok(Command::Dele(message)) => assert!(self.marked.insert(message.get())),
                Ok(Command::Rset) => self.marked.clear(),
                Ok(Command::Stat) => {
                    let left = (1..=MESSAGES).filter(|number| !self.marked.contains(number));
                    let octets: u32 = left.clone().sum();
                    let reply = format!("+OK {} {octets}\r\n", left.count());
                    assert_eq!(out.as_bytes(), reply.as_bytes());
                }
                Ok(_) => {}
                Err(error) => panic!("{error:?} was accepted"),
            }
        }
        step
    }

    fn follow(&mut self, mut step: Step, mut out: Output) -> Option<()> {
        loop {
            check(out.as_bytes());
            out = output();
            step = match step {
                Step::Continue => return None,
                Step::Close(end) => {
                    let said = matches!(end, End::Quit | End::NotAllRemoved);
                    assert_eq!(said, self.quitting && said, "an end by QUIT without QUIT");
                    return Some(());
                }
                Step::Flush => self.session.handle_flushed(self.now, &mut out),
                Step::Perform(action) => {
                    let outcome = self.perform(action);
                    self.session.handle_outcome(outcome, self.now, &mut out)
                }
            };
        }
    }

    fn perform(&mut self, action: Action) -> Outcome {
        let fate = self.octet().unwrap_or(0);
        match action {
            Action::Authenticate(credentials) => Outcome::Authenticated(match fate {
                0..=199 => Ok(Account {
                    user: credentials.identity.owner().clone(),
                    home: None,
                    mail: None,
                    limits: None,
                }),
                200..=229 => Err(Refusal::Rejected),
                _ => Err(Refusal::Unavailable),
            }),
            // What SCRAM makes of keys is the target sasl's.
            Action::FindKeys(_) => Outcome::Found(Err(Refusal::Unavailable)),
            Action::Note(noted) => Outcome::Authenticated(noted.1.map(Account::from)),
            Action::StartTls => Outcome::TlsStarted,
            Action::OpenMaildrop(_) => Outcome::MaildropOpened(if fate < 200 {
                Ok(Arc::clone(&SNAPSHOT))
            } else {
                Err(OpenError::InUse(InUse { since: self.now }))
            }),
            Action::Send { message, .. } => {
                assert!(message.get() <= MESSAGES && !self.marked.contains(&message.get()));
                Outcome::Sent(match fate {
                    0..=199 => Ok(Octets::new(u64::from(message.get()))),
                    200..=229 => Err(MessageError::Gone),
                    _ => Err(MessageError::Unreadable),
                })
            }
            Action::Commit(deletions) => {
                assert!(self.quitting && !deletions.is_empty());
                let numbers: BTreeSet<u32> =
                    deletions.iter().map(|message| message.get()).collect();
                assert_eq!(numbers, self.marked);
                Outcome::Committed(if fate < 200 {
                    CommitReport {
                        removed: deletions.len(),
                        octets: deletions.octets(),
                        failed: None,
                    }
                } else {
                    CommitReport {
                        removed: deletions.len() - 1,
                        octets: Octets::ZERO,
                        failed: Some((1, FaultKind::Temporary)),
                    }
                })
            }
            Action::Pause(delay) => {
                assert!(!delay.is_zero());
                self.now += delay;
                Outcome::Paused
            }
        }
    }
}
