//! One POP3 session as a machine without IO (RFC 1939, 2449, 2595, 3206).
//!
//! A line, an outcome or a timeout goes in; replies go to an [`Output`], and
//! a [`Step`] says what the connection does next. There is no clock here and no
//! file: time is an argument, and whatever may wait is an [`Action`].
//!
//! Invariants:
//!
//! - While an action is pending no line is taken. That alone gives pipelined
//!   commands their order and holds a fast client back.
//! - Every line gets exactly one reply, in order.
//! - Only QUIT from a logged-in client leads to [`Action::Commit`]. Every other
//!   end, the autologout among them, drops the marks with the session.
//! - A message's number never changes, and a marked message is seen by no
//!   command.
//! - The state is an enum of structs, and transitions consume it: there is no
//!   name without USER, no mark without a maildrop, no listing without a login.
//!
//! The login's time limit runs from the connection's beginning, whatever comes
//! in meanwhile. After the login every line starts the autologout timer anew.
//! Neither is announced when it strikes: "the server should close the TCP
//! connection without [...] sending any response" (RFC 1939, section 3).

mod authorization;
mod deletions;
mod listing;
mod step;
mod summary;
mod transaction;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::auth::{Account, Notice, Refusal, UserName};
use crate::limits;
use crate::maildrop::{OpenError, Retention, Snapshot};
use crate::proto::reply::{self, Code, Line};
use crate::proto::{self, Output};

use authorization::{Authenticating, Authorization, Name};
use listing::Listing;
use transaction::{Sending, Transaction, Updating};

pub use deletions::Deletions;
pub use step::{Action, End, Outcome, Step};
pub use summary::{Summary, Tally, Traffic};

/// What the operator decided for every session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The name in the greeting.
    pub hostname: String,
    /// USER and PASS are taken on connections without TLS.
    pub plaintext_without_tls: bool,
    /// The autologout timer: at least ten minutes by RFC 1939, section 3.
    pub idle: Duration,
    /// From the connection's beginning to a login.
    pub login: Duration,
    /// The pause before a first failed login is answered; it doubles with each
    /// further one. Zero for none.
    pub failure_delay: Duration,
    /// How long messages are kept once they were fetched; `None`: for ever.
    pub retention: Option<Retention>,
}

/// What the session's octets travel through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// No encryption.
    Clear {
        /// STLS is offered.
        stls: bool,
    },
    /// TLS, from the beginning or since STLS.
    Tls,
}

/// A client's session from its greeting to its end.
#[derive(Debug)]
pub struct Session {
    policy: Arc<Policy>,
    channel: Channel,
    bad_commands: u8,
    failed_logins: u8,
    deadline: Instant,
    /// The name that the client's certificate vouches for, verified.
    client: Option<Box<str>>,
    state: State,
}

#[derive(Debug)]
enum State {
    Authorization(Authorization),
    Authenticating(Authenticating),
    /// A failed login that is answered after a pause.
    Delaying {
        user: UserName,
        refusal: Failure,
    },
    StartingTls,
    /// The credentials were right.
    Opening {
        user: UserName,
    },
    Transaction(Transaction),
    Sending(Sending),
    Listing(Listing),
    Updating(Updating),
    Closed(Closed),
}

impl From<Authorization> for State {
    fn from(state: Authorization) -> Self {
        Self::Authorization(state)
    }
}

impl From<Transaction> for State {
    fn from(state: Transaction) -> Self {
        Self::Transaction(state)
    }
}

/// What is left of a session for its log line.
#[derive(Debug)]
enum Closed {
    Visitor(Name),
    User { user: UserName, tally: Tally },
}

impl Closed {
    fn visitor(name: Name) -> Self {
        Self::Visitor(name)
    }
}

/// A login that failed, and counts.
#[derive(Debug)]
enum Failure {
    /// The credentials are wrong.
    Rejected,
    /// They are right, and the user may not log in.
    Disabled(Notice),
}

/// What a state made of a command.
enum Turn {
    /// It was answered or is being answered.
    Next(State, Step),
    /// The client should have known better: `-ERR`, and one bad command more.
    Refused(State, Option<Code>, &'static str),
}

impl Turn {
    fn refused(state: impl Into<State>, text: &'static str) -> Self {
        Self::Refused(state.into(), None, text)
    }
}

/// What decides which commands are taken.
#[derive(Clone, Copy)]
struct Terms<'a> {
    policy: &'a Policy,
    channel: Channel,
}

impl Terms<'_> {
    fn passwords_are_taken(self) -> bool {
        self.channel == Channel::Tls || self.policy.plaintext_without_tls
    }

    /// The same for every user, so that both states tell it (RFC 2449, section 6.7).
    fn expire(self) -> Option<u16> {
        self.policy.retention.map(Retention::days)
    }

    fn stls_is_taken(self) -> bool {
        self.channel == Channel::Clear { stls: true }
    }
}

impl Session {
    /// Begins a session and greets the client.
    pub fn new(policy: Arc<Policy>, channel: Channel, now: Instant, out: &mut Output) -> Self {
        debug_assert!(out.room() >= limits::REPLY_ROOM);
        reply::greeting(out, &policy.hostname);
        Self {
            deadline: now + policy.login,
            policy,
            channel,
            bad_commands: 0,
            failed_logins: 0,
            client: None,
            state: State::Authorization(Authorization::default()),
        }
    }

    /// The client has shown a certificate in the TLS handshake, of an authority
    /// that is trusted for it, and this is the name it vouches for.
    pub fn vouch_for(&mut self, client: String) {
        self.client = Some(client.into_boxed_str());
    }

    /// Takes a line, given without its line end.
    pub fn handle_line(&mut self, line: &[u8], now: Instant, out: &mut Output) -> Step {
        debug_assert!(out.room() >= limits::REPLY_ROOM);
        let command = proto::parse(line);
        let terms = Terms {
            policy: &self.policy,
            channel: self.channel,
        };
        let turn = match (self.state.take(), command) {
            (State::Authorization(state), Ok(command)) => state.handle(command, terms, out),
            (State::Transaction(state), Ok(command)) => state.handle(command, terms, out),
            (state, Err(error)) => Turn::refused(state.after_bad_line(), error.text()),
            (state, Ok(_)) => panic!("a line while {} is pending", state.name()),
        };
        self.finish(turn, now, out)
    }

    /// Takes notice of a line that was too long to be kept.
    pub fn handle_oversized_line(&mut self, now: Instant, out: &mut Output) -> Step {
        debug_assert!(out.room() >= limits::REPLY_ROOM);
        let state = self.state.take().after_bad_line();
        let turn = Turn::refused(state, "the command line is too long");
        self.finish(turn, now, out)
    }

    /// Takes the outcome of the pending action.
    pub fn handle_outcome(&mut self, outcome: Outcome, now: Instant, out: &mut Output) -> Step {
        debug_assert!(out.room() >= limits::REPLY_ROOM);
        let (state, step) = match (self.state.take(), outcome) {
            (State::Authenticating(state), Outcome::Authenticated(result)) => {
                self.authenticated(state.user, result, out)
            }
            (State::Delaying { user, refusal }, Outcome::Paused) => {
                self.login_failed(user, &refusal, out)
            }
            (State::Opening { user }, Outcome::MaildropOpened(result)) => {
                opened(user, result, now, out)
            }
            (State::StartingTls, Outcome::TlsStarted) => {
                self.channel = Channel::Tls;
                (Authorization::default().into(), Step::Continue)
            }
            (State::Sending(state), Outcome::Sent(sent)) => state.sent(sent, out),
            (State::Updating(state), Outcome::Committed(report)) => state.finish(report, out),
            (state, outcome) => panic!("{outcome:?} while {} is pending", state.name()),
        };
        self.settle(state, now);
        step
    }

    /// Goes on with a listing, once the output has been sent after
    /// [`Step::Flush`].
    pub fn handle_flushed(&mut self, now: Instant, out: &mut Output) -> Step {
        debug_assert!(out.room() >= limits::REPLY_ROOM);
        let (state, step) = match self.state.take() {
            State::Listing(listing) => listing.flushed(out),
            state => panic!("a flush while {} is pending", state.name()),
        };
        self.settle(state, now);
        step
    }

    /// Ends the session if its time is up, without a word to the client. Before
    /// the deadline, and while an action is pending, nothing happens.
    pub fn handle_timeout(&mut self, now: Instant) -> Step {
        if now < self.deadline {
            return Step::Continue;
        }
        let (closed, end) = match self.state.take() {
            State::Authorization(state) => (Closed::visitor(state.name), End::LoginTimeout),
            State::Transaction(state) => (state.closed(), End::Autologout),
            State::Listing(state) => (state.transaction.closed(), End::Autologout),
            state => {
                self.state = state;
                return Step::Continue;
            }
        };
        self.state = State::Closed(closed);
        Step::Close(end)
    }

    /// When [`Session::handle_timeout`] is due. Without meaning while an action
    /// is pending.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The session so far, for the log.
    pub fn summary(&self) -> Summary<'_> {
        let (user, tally) = match &self.state {
            State::Authorization(state) => (state.name.user(), None),
            State::Authenticating(state) => (Some(&state.user), None),
            State::Delaying { user, .. } => (Some(user), None),
            State::StartingTls => (None, None),
            State::Opening { user } => (Some(user), Some(Tally::default())),
            State::Transaction(state) => (Some(&state.user), Some(state.tally)),
            State::Sending(state) => {
                let transaction = &state.transaction;
                (Some(&transaction.user), Some(transaction.tally))
            }
            State::Listing(state) => {
                let transaction = &state.transaction;
                (Some(&transaction.user), Some(transaction.tally))
            }
            State::Updating(state) => (Some(&state.user), Some(state.tally)),
            State::Closed(Closed::Visitor(name)) => (name.user(), None),
            State::Closed(Closed::User { user, tally }) => (Some(user), Some(*tally)),
        };
        Summary {
            user,
            authenticated: tally.is_some(),
            failed_logins: self.failed_logins,
            tally: tally.unwrap_or_default(),
            client: self.client.as_deref(),
        }
    }

    /// Answers what was refused, and ends the session if it was once too often.
    fn finish(&mut self, turn: Turn, now: Instant, out: &mut Output) -> Step {
        let (state, step) = match turn {
            Turn::Next(state, step) => (state, step),
            Turn::Refused(state, code, text) => {
                reply::err(out, code, text);
                self.bad_commands += 1;
                if self.bad_commands < limits::BAD_COMMANDS {
                    (state, Step::Continue)
                } else {
                    let end = End::TooManyBadCommands;
                    (State::Closed(state.closed()), Step::Close(end))
                }
            }
        };
        self.settle(state, now);
        step
    }

    fn settle(&mut self, state: State, now: Instant) {
        if let State::Transaction(_) | State::Listing(_) = state {
            self.deadline = now + self.policy.idle;
        }
        self.state = state;
    }

    fn authenticated(
        &mut self,
        user: UserName,
        result: Result<Account, Refusal>,
        out: &mut Output,
    ) -> (State, Step) {
        let refusal = match result {
            Ok(account) => {
                let user = account.user.clone();
                let action = Action::OpenMaildrop(account);
                return (State::Opening { user }, Step::Perform(action));
            }
            Err(Refusal::Unavailable) => {
                reply::err(out, Some(Code::SysTemp), "logins are not possible now");
                return (Authorization::after(user).into(), Step::Continue);
            }
            Err(Refusal::Busy) => {
                reply::err(out, Some(Code::SysTemp), "too many logins wait already");
                return (Authorization::after(user).into(), Step::Continue);
            }
            Err(Refusal::Rejected) => Failure::Rejected,
            Err(Refusal::Disabled(notice)) => Failure::Disabled(notice),
        };
        let earlier = u32::from(self.failed_logins);
        self.failed_logins += 1;
        let factor = 2_u32.saturating_pow(earlier);
        let delay = self.policy.failure_delay.saturating_mul(factor);
        if delay.is_zero() {
            return self.login_failed(user, &refusal, out);
        }
        let state = State::Delaying { user, refusal };
        (state, Step::Perform(Action::Pause(delay)))
    }

    fn login_failed(&self, user: UserName, failure: &Failure, out: &mut Output) -> (State, Step) {
        match failure {
            Failure::Rejected => {
                reply::err(out, Some(Code::Auth), "user name or password is wrong");
            }
            // The password was right: a client told `[AUTH]` would ask for
            // another one.
            Failure::Disabled(notice) => {
                let line = Line::err(out, Some(Code::SysPerm));
                line.foreign(notice.as_str()).end();
            }
        }
        if self.failed_logins < limits::FAILED_LOGINS {
            (Authorization::after(user).into(), Step::Continue)
        } else {
            let closed = Closed::visitor(Name::Former(user));
            (State::Closed(closed), Step::Close(End::TooManyAuthFailures))
        }
    }
}

fn opened(
    user: UserName,
    result: Result<Arc<Snapshot>, OpenError>,
    now: Instant,
    out: &mut Output,
) -> (State, Step) {
    let (code, text) = match result {
        Ok(snapshot) => {
            reply::ok(out, "logged in");
            return (Transaction::new(user, snapshot).into(), Step::Continue);
        }
        Err(OpenError::InUse(holder)) => {
            let age = now.saturating_duration_since(holder.since);
            Line::err(out, Some(Code::InUse))
                .text("another session has the maildrop open for ")
                .number(age.as_secs())
                .text(" seconds")
                .end();
            return (Authorization::after(user).into(), Step::Continue);
        }
        Err(OpenError::Temporary(_)) => (Code::SysTemp, "the maildrop cannot be opened now"),
        Err(OpenError::Permanent(_)) => (Code::SysPerm, "the maildrop cannot be opened"),
    };
    reply::err(out, Some(code), text);
    (Authorization::after(user).into(), Step::Continue)
}

impl State {
    /// The state itself, to be consumed; what stays behind is never looked at.
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Closed(Closed::Visitor(Name::None)))
    }

    /// A line has come that is no command.
    fn after_bad_line(self) -> Self {
        match self {
            Self::Authorization(state) => state.passed_over().into(),
            Self::Transaction(state) => state.into(),
            state => panic!("a line while {} is pending", state.name()),
        }
    }

    fn closed(self) -> Closed {
        match self {
            Self::Authorization(state) => Closed::visitor(state.name),
            Self::Transaction(state) => state.closed(),
            state => panic!("{} takes no line", state.name()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Authorization(_) => "no login",
            Self::Authenticating(_) => "a login",
            Self::Delaying { .. } => "a pause",
            Self::StartingTls => "a handshake",
            Self::Opening { .. } => "the opening of a maildrop",
            Self::Transaction(_) => "no command",
            Self::Sending(_) => "a message",
            Self::Listing(_) => "a listing",
            Self::Updating(_) => "an update",
            Self::Closed(_) => "the close",
        }
    }
}

#[cfg(test)]
mod tests;
