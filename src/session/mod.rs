//! One POP3 session as a machine without IO (RFC 1939, 2449, 2595, 3206, 5034).
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
mod exchanging;
mod listing;
mod opening;
mod step;
mod summary;
mod terms;
mod transaction;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::auth::{Account, Identity, NameRules, Notice, Refusal, Stamp, UserName};
use crate::limits;
use crate::maildrop::Retention;
use crate::proto::reply::{self, Code, Line};
use crate::proto::{self, LineLimit, Output};
use crate::sasl::{Bindings, Mechanism, Mechanisms, TokenTerms};

use authorization::{Authenticating, Authorization, Name};
use exchanging::{Exchanging, Finding};
use listing::Listing;
use opening::{opened, turned_away};
use terms::{Peer, Terms};
use transaction::{Sending, Transaction, Updating};

pub use deletions::Deletions;
pub use step::{Action, End, Method, Outcome, Step, TurnedAway};
pub use summary::{Summary, Tally, Traffic};

/// What the operator decided for every session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The name in the greeting.
    pub hostname: String,
    /// USER and PASS, and mechanisms that tell the secret, are taken on connections
    /// without TLS.
    pub plaintext_without_tls: bool,
    /// What becomes of the names that clients give.
    pub names: NameRules,
    /// The mechanisms of AUTH, each offered where it can work.
    pub mechanisms: Mechanisms,
    /// Clients are greeted with a stamp, by which APOP is offered.
    pub apop: bool,
    /// What clients are told whose token is refused.
    pub tokens: TokenTerms,
    /// The autologout timer: at least ten minutes by RFC 1939, section 3.
    pub idle: Duration,
    /// From the connection's beginning to a login.
    pub login: Duration,
    /// The pause before a first failed login is answered; it doubles with each
    /// further one. Zero for none.
    pub failure_delay: Duration,
    /// From one login of a user to the next; `None`: no time at all, for nobody.
    pub login_delay: Option<LoginDelay>,
    /// How long messages are kept once they were fetched; `None`: for ever.
    pub retention: Option<Retention>,
}

/// How long users have to wait between two logins (RFC 2449, section 6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginDelay {
    /// A user of whom the directory says nothing; zero: not at all.
    pub usual: Duration,
    /// The longest that any user may have.
    pub longest: Duration,
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
    /// What is known of the client from outside its commands; most have none of it.
    peer: Option<Box<Peer>>,
    state: State,
}

#[derive(Debug)]
enum State {
    Authorization(Authorization),
    /// Within AUTH; the next line is a response.
    Exchanging(Exchanging),
    Finding(Box<Finding>),
    Authenticating(Authenticating),
    /// The client has been told why its token is refused. Whatever it answers ends the
    /// exchange, and with it a failed login.
    Refusing {
        user: UserName,
    },
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

impl Session {
    /// Begins a session and greets the client.
    pub fn new(policy: Arc<Policy>, channel: Channel, now: Instant, out: &mut Output) -> Self {
        Self::stamped(policy, channel, None, now, out)
    }

    /// The same with a stamp in the greeting, by which APOP is offered.
    pub fn stamped(
        policy: Arc<Policy>,
        channel: Channel,
        stamp: Option<Stamp>,
        now: Instant,
        out: &mut Output,
    ) -> Self {
        debug_assert!(out.room() >= limits::REPLY_ROOM);
        reply::greeting(out, &policy.hostname, stamp.as_ref().map(Stamp::as_str));
        let peer = stamp.map(|stamp| {
            Box::new(Peer {
                stamp: Some(stamp),
                ..Peer::default()
            })
        });
        Self {
            deadline: now + policy.login,
            policy,
            channel,
            bad_commands: 0,
            failed_logins: 0,
            peer,
            state: State::Authorization(Authorization::default()),
        }
    }

    /// The client has shown a certificate in the TLS handshake, of an authority
    /// that is trusted for it, and this is the name it vouches for.
    pub fn vouch_for(&mut self, client: String) {
        self.peer().certificate = Some(client.into_boxed_str());
    }

    /// The client speaks TLS, and this is what an exchange within it can be bound to.
    pub fn bind(&mut self, bindings: Bindings) {
        self.peer().bindings = bindings;
    }

    fn peer(&mut self) -> &mut Peer {
        self.peer.get_or_insert_default()
    }

    /// Takes a line, given without its line end.
    pub fn handle_line(&mut self, line: &[u8], now: Instant, out: &mut Output) -> Step {
        debug_assert!(out.room() >= limits::REPLY_ROOM);
        if let State::Refusing { .. } = self.state {
            return self.end_refusing(now, out);
        }
        let terms = Terms {
            policy: &self.policy,
            channel: self.channel,
            peer: self.peer.as_deref(),
        };
        let turn = match self.state.take() {
            // Not a command, whatever it looks like.
            State::Exchanging(state) => state.handle(line, terms, out),
            state => match (state, proto::parse(line)) {
                (State::Authorization(state), Ok(command)) => state.handle(command, terms, out),
                (State::Transaction(state), Ok(command)) => state.handle(command, terms, out),
                (state, Err(error)) => Turn::refused(state.after_bad_line(), error.text()),
                (state, Ok(_)) => panic!("a line while {} is pending", state.name()),
            },
        };
        self.finish(turn, now, out)
    }

    /// Whether the next line is no command but a response within AUTH.
    pub fn expects_response(&self) -> bool {
        matches!(self.state, State::Exchanging(_) | State::Refusing { .. })
    }

    /// What the next line may have.
    pub fn line_limit(&self) -> LineLimit {
        match self.state {
            State::Exchanging(_) | State::Refusing { .. } => LineLimit::RESPONSE,
            State::Authorization(_) => LineLimit::OPENING,
            _ => LineLimit::COMMAND,
        }
    }

    /// How the client logs in whose credentials are being checked, as log readers
    /// know it: USER and PASS are PLAIN to them.
    pub fn method(&self) -> Method {
        match &self.state {
            State::Authenticating(state) => state.method,
            State::Finding(state) => Method::Sasl(state.mechanism),
            _ => Method::Sasl(Mechanism::Plain),
        }
    }

    /// Takes notice of a line that was too long to be kept.
    pub fn handle_oversized_line(&mut self, now: Instant, out: &mut Output) -> Step {
        debug_assert!(out.room() >= limits::REPLY_ROOM);
        if let State::Refusing { .. } = self.state {
            return self.end_refusing(now, out);
        }
        let state = self.state.take().after_bad_line();
        let turn = Turn::refused(state, "the command line is too long");
        self.finish(turn, now, out)
    }

    /// Takes the outcome of the pending action.
    pub fn handle_outcome(&mut self, outcome: Outcome, now: Instant, out: &mut Output) -> Step {
        debug_assert!(out.room() >= limits::REPLY_ROOM);
        let (state, step) = match (self.state.take(), outcome) {
            (State::Authenticating(state), Outcome::Authenticated(result)) => {
                self.authenticated(state.identity, state.method, result, out)
            }
            (State::Finding(state), Outcome::Found(Ok(answer))) => state.found(*answer, out),
            (State::Finding(state), Outcome::Found(Err(refusal))) => self.authenticated(
                state.identity,
                Method::Sasl(state.mechanism),
                Err(refusal),
                out,
            ),
            (State::Delaying { user, refusal }, Outcome::Paused) => {
                self.login_failed(user, &refusal, out)
            }
            (State::Opening { user }, Outcome::TurnedAway(why)) => turned_away(user, why, out),
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
            State::Exchanging(state) => (Closed::visitor(state.name), End::LoginTimeout),
            State::Refusing { user } => (Closed::visitor(Name::Former(user)), End::LoginTimeout),
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
            State::Exchanging(state) => (state.name.user(), None),
            State::Authenticating(state) => (Some(state.identity.owner()), None),
            State::Finding(state) => (Some(state.identity.owner()), None),
            State::Refusing { user } | State::Delaying { user, .. } => (Some(user), None),
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
        let peer = self.peer.as_deref();
        Summary {
            user,
            authenticated: tally.is_some(),
            failed_logins: self.failed_logins,
            tally: tally.unwrap_or_default(),
            client: peer.and_then(|peer| peer.certificate.as_deref()),
            master: peer.and_then(|peer| peer.master.as_ref()),
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
            if let Some(peer) = &mut self.peer {
                peer.bindings = Bindings::default();
            }
            self.deadline = now + self.policy.idle;
        }
        self.state = state;
    }

    fn authenticated(
        &mut self,
        identity: Identity,
        method: Method,
        result: Result<Account, Refusal>,
        out: &mut Output,
    ) -> (State, Step) {
        let user = identity.shown();
        let refusal = match result {
            Ok(account) => {
                if identity.acts_for.is_some() {
                    self.peer().master = Some(identity.user);
                }
                let own = account.limits.as_ref().and_then(|own| own.login_delay);
                if own.is_some() || self.peer.is_some() {
                    self.peer().login_delay = own;
                }
                let user = account.user.clone();
                let action = Action::OpenMaildrop(Box::new(account));
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
            Err(Refusal::Throttled) => {
                let text = "too many logins failed here; try again later";
                reply::err(out, Some(Code::SysTemp), text);
                return (Authorization::after(user).into(), Step::Continue);
            }
            Err(Refusal::Crowded) => {
                reply::err(out, Some(Code::InUse), "too many sessions of this user");
                return (Authorization::after(user).into(), Step::Continue);
            }
            Err(Refusal::Rejected) => match method.told_of(&self.policy.tokens) {
                Some(why) => {
                    reply::challenge(out, &why);
                    return (State::Refusing { user }, Step::Continue);
                }
                None => Failure::Rejected,
            },
            Err(Refusal::Disabled(notice)) => Failure::Disabled(notice),
        };
        self.failed(user, refusal, out)
    }

    /// Goes on when the client has answered to why its token was refused.
    fn end_refusing(&mut self, now: Instant, out: &mut Output) -> Step {
        let State::Refusing { user } = self.state.take() else {
            panic!("nothing was refused");
        };
        let (state, step) = self.failed(user, Failure::Rejected, out);
        self.settle(state, now);
        step
    }

    /// A login has failed, and is answered so after its pause.
    fn failed(&mut self, user: UserName, refusal: Failure, out: &mut Output) -> (State, Step) {
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

/// Rounded up: who waits that long has waited long enough.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
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
            Self::Exchanging(state) => Authorization { name: state.name }.into(),
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
            Self::Exchanging(_) | Self::Refusing { .. } => "a response",
            Self::Authenticating(_) => "a login",
            Self::Finding(_) => "a search",
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
