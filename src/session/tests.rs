//! Dialogues with a session whose actions a small driver performs.

use std::path::Path;

use super::*;
use crate::auth::{ScramAnswer, ScramQuestion, UserLimits, Verifier};
use crate::maildrop::{self, CommitReport, FaultKind, InUse, MessageError, OpenError, Snapshot};
use crate::proto::{MessageNumber, Octets};

const SECOND: Duration = Duration::from_secs(1);

/// A client's end of a session, and the connection's part of it.
struct Dialogue {
    session: Session,
    now: Instant,
    /// Capacity of the output, so that listings come in pieces.
    capacity: usize,
    snapshot: Arc<Snapshot>,
    /// Taken by the next action they belong to; without them it succeeds.
    refusal: Option<Refusal>,
    open_error: Option<OpenError>,
    message_error: Option<MessageError>,
    not_removed: Option<(u32, FaultKind)>,
    /// What was asked for.
    commits: Vec<Vec<u32>>,
    pauses: Vec<Duration>,
    /// The user's own.
    login_delay: Option<Duration>,
    sent: Vec<(u32, Option<u64>)>,
    flushes: usize,
    end: Option<End>,
}

fn policy() -> Policy {
    Policy {
        hostname: "pop.example.net".to_owned(),
        plaintext_without_tls: true,
        names: NameRules::default(),
        mechanisms: Mechanism::ALL.into_iter().collect(),
        apop: false,
        tokens: TokenTerms::default(),
        idle: 600 * SECOND,
        login: 60 * SECOND,
        failure_delay: Duration::ZERO,
        login_delay: None,
        retention: None,
    }
}

fn snapshot(messages: u32) -> Snapshot {
    (1..=messages)
        .fold(Snapshot::builder("/mail"), |builder, number| {
            builder.message(format!("{number:06}.M1.host"), 100 + u64::from(number))
        })
        .build()
}

/// An error of the maildrop whose text nobody looks at.
fn permanent() -> OpenError {
    maildrop::open(Path::new("/dev/null"), None).expect_err("no directory")
}

fn temporary() -> OpenError {
    match permanent() {
        OpenError::Permanent(fault) => OpenError::Temporary(fault),
        error => error,
    }
}

impl Dialogue {
    fn new(policy: Policy, channel: Channel) -> (Self, String) {
        let now = Instant::now();
        let capacity = limits::REPLY_ROOM;
        let mut out = Output::new(Vec::with_capacity(capacity));
        let session = Session::new(Arc::new(policy), channel, now, &mut out);
        let dialogue = Self {
            session,
            now,
            capacity,
            snapshot: Arc::new(snapshot(3)),
            refusal: None,
            open_error: None,
            message_error: None,
            not_removed: None,
            commits: Vec::new(),
            pauses: Vec::new(),
            login_delay: None,
            sent: Vec::new(),
            flushes: 0,
            end: None,
        };
        (dialogue, text(out))
    }

    /// A client before its login on a clear connection that takes passwords.
    fn greeted() -> Self {
        Self::new(policy(), Channel::Clear { stls: true }).0
    }

    /// A client logged in to a maildrop of so many messages.
    fn logged_in(messages: u32) -> Self {
        let mut dialogue = Self::greeted();
        dialogue.snapshot = Arc::new(snapshot(messages));
        dialogue.log_in();
        dialogue
    }

    fn log_in(&mut self) {
        assert_ok(&self.say("USER alice"));
        assert_ok(&self.say("PASS secret"));
    }

    /// Sends a line and returns all that comes back.
    fn say(&mut self, line: &str) -> String {
        let mut out = Output::new(Vec::with_capacity(self.capacity));
        let step = self
            .session
            .handle_line(line.as_bytes(), self.now, &mut out);
        self.follow(step, out)
    }

    fn say_too_much(&mut self) -> String {
        let mut out = Output::new(Vec::with_capacity(self.capacity));
        let step = self.session.handle_oversized_line(self.now, &mut out);
        self.follow(step, out)
    }

    /// Takes every step until the session wants a line or ends.
    fn follow(&mut self, mut step: Step, mut out: Output) -> String {
        let mut heard = String::new();
        loop {
            heard.push_str(&text(out));
            out = Output::new(Vec::with_capacity(self.capacity));
            step = match step {
                Step::Continue => return heard,
                Step::Close(end) => {
                    self.end = Some(end);
                    return heard;
                }
                Step::Flush => {
                    self.flushes += 1;
                    self.session.handle_flushed(self.now, &mut out)
                }
                Step::Perform(action) => {
                    let outcome = self.perform(action, &mut heard);
                    self.session.handle_outcome(outcome, self.now, &mut out)
                }
            };
        }
    }

    fn perform(&mut self, action: Action, heard: &mut String) -> Outcome {
        match action {
            Action::Authenticate(credentials) => {
                Outcome::Authenticated(match self.refusal.take() {
                    Some(refusal) => Err(refusal),
                    None => Ok(Account {
                        limits: self.login_delay.map(|delay| {
                            Box::new(UserLimits {
                                login_delay: Some(delay),
                                ..UserLimits::default()
                            })
                        }),
                        ..account(credentials.identity.owner().clone())
                    }),
                })
            }
            Action::FindKeys(question) => Outcome::Found(match self.refusal.take() {
                Some(refusal) => Err(refusal),
                None => Ok(Box::new(answer(&question))),
            }),
            Action::Note(noted) => Outcome::Authenticated(noted.1.map(Account::from)),
            Action::StartTls => Outcome::TlsStarted,
            Action::OpenMaildrop(_) => Outcome::MaildropOpened(match self.open_error.take() {
                Some(error) => Err(error),
                None => Ok(Arc::clone(&self.snapshot)),
            }),
            Action::Send {
                message,
                body_lines,
            } => {
                self.sent.push((message.get(), body_lines));
                let octets = self.snapshot.octets(message).expect("a message there is");
                if let Some(error) = self.message_error.take() {
                    return Outcome::Sent(Err(error));
                }
                heard.push_str("+OK message\r\n.\r\n");
                Outcome::Sent(Ok(octets))
            }
            Action::Commit(deletions) => {
                let numbers: Vec<u32> = deletions.iter().map(MessageNumber::get).collect();
                let failed = self.not_removed.take();
                let report = CommitReport {
                    removed: deletions.len() - failed.map_or(0, |(messages, _)| messages),
                    octets: deletions.octets(),
                    failed,
                };
                self.commits.push(numbers);
                Outcome::Committed(report)
            }
            Action::Pause(delay) => {
                self.pauses.push(delay);
                self.now += delay;
                Outcome::Paused
            }
        }
    }

    fn user(&self) -> Option<&[u8]> {
        self.session.summary().user.map(UserName::as_bytes)
    }
}

/// Everybody's password is "pencil" (RFC 7677, section 3).
fn answer(question: &ScramQuestion) -> ScramAnswer {
    const STORED: &[u8] = b"{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    let stored = Verifier::parse(STORED).expect("known");
    ScramAnswer {
        keys: stored.scram_keys().expect("of SCRAM").clone(),
        verdict: Ok(account(question.identity.owner().clone()).into()),
        nonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned(),
    }
}

fn account(user: UserName) -> Account {
    Account {
        user,
        home: None,
        mail: None,
        limits: None,
    }
}

fn text(out: Output) -> String {
    String::from_utf8(out.into_buffer()).expect("replies are ASCII")
}

#[track_caller]
fn assert_ok(reply: &str) {
    assert!(reply.starts_with("+OK "), "{reply:?}");
    assert!(reply.ends_with("\r\n") && reply.lines().count() == 1);
}

#[track_caller]
fn assert_err(reply: &str) {
    assert!(reply.starts_with("-ERR "), "{reply:?}");
    assert!(reply.ends_with("\r\n") && reply.lines().count() == 1);
}

mod login;
mod mail;
mod times;
