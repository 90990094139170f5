//! What a session asks of its connection, and what it is told.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Account, Credentials, Identity, Proved, Refusal, ScramAnswer, ScramQuestion};
use crate::maildrop::{CommitReport, MessageError, OpenError, Snapshot};
use crate::proto::{MessageNumber, Octets};
use crate::sasl::{Mechanism, TokenTerms};

use super::Deletions;

/// What the connection does next. Whatever is in the output is sent first.
#[derive(Debug)]
#[must_use = "a step that is not taken hangs the session"]
pub enum Step {
    /// Feed the next line.
    Continue,
    /// Send the output, then call `handle_flushed`: a listing goes on.
    Flush,
    /// Do this and report with `handle_outcome`. No line is fed meanwhile.
    Perform(Action),
    /// Send the output and close.
    Close(End),
}

/// What only the connection can do.
#[derive(Debug)]
pub enum Action {
    /// Ask whether these credentials are right: [`Outcome::Authenticated`].
    Authenticate(Box<Credentials>),
    /// Ask what is stored of a user for SCRAM: [`Outcome::Found`].
    FindKeys(Box<ScramQuestion>),
    /// Take notice of how a login came out that was decided within its exchange:
    /// [`Outcome::Authenticated`].
    Note(Box<(Identity, Result<Proved, Refusal>)>),
    /// Send the output, drop whatever the client sent behind `STLS`, and shake
    /// hands: [`Outcome::TlsStarted`].
    StartTls,
    /// Lock and read the maildrop: [`Outcome::MaildropOpened`].
    OpenMaildrop(Box<Account>),
    /// Send a message, its first reply line included: [`Outcome::Sent`].
    Send {
        /// Which one.
        message: MessageNumber,
        /// For TOP how much of the body; `None` for RETR.
        body_lines: Option<u64>,
    },
    /// Remove these messages: [`Outcome::Committed`].
    Commit(Deletions),
    /// Wait, then report [`Outcome::Paused`].
    Pause(Duration),
}

/// What became of an [`Action`].
#[derive(Debug)]
pub enum Outcome {
    /// Of [`Action::FindKeys`].
    Found(Result<Box<ScramAnswer>, Refusal>),
    /// Of [`Action::Authenticate`], and of [`Action::Note`].
    Authenticated(Result<Account, Refusal>),
    /// Of [`Action::OpenMaildrop`], where it was not tried.
    TurnedAway(TurnedAway),
    /// Of [`Action::OpenMaildrop`].
    MaildropOpened(Result<Arc<Snapshot>, OpenError>),
    /// Of [`Action::Send`]: the octets sent, as RFC 1939 counts them. An error
    /// only if nothing of the reply was written; a message that fails half way
    /// can be answered by closing the connection alone.
    Sent(Result<Octets, MessageError>),
    /// Of [`Action::StartTls`]; a failed handshake ends the connection.
    TlsStarted,
    /// Of [`Action::Commit`].
    Committed(CommitReport),
    /// Of [`Action::Pause`].
    Paused,
}

/// Why a user who has shown the password is not let in now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// The last login was not long ago: `[LOGIN-DELAY]`, and what is left to wait.
    TooSoon(Duration),
    /// There are as many sessions as the user may have: `[IN-USE]`.
    TooMany,
}

/// How a session ended, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client said QUIT, and all it asked for was done.
    Quit,
    /// The client said QUIT, and not all it had deleted could be removed.
    NotAllRemoved,
    /// The client was silent for too long (RFC 1939, section 3).
    Autologout,
    /// The client took too long to log in.
    LoginTimeout,
    /// [`limits::BAD_COMMANDS`](crate::limits::BAD_COMMANDS) was reached.
    TooManyBadCommands,
    /// [`limits::FAILED_LOGINS`](crate::limits::FAILED_LOGINS) was reached.
    TooManyAuthFailures,
}

/// How a client logs in, as log readers know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By AUTH; USER and PASS are PLAIN.
    Sasl(Mechanism),
    /// By APOP.
    Apop,
}

impl Method {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sasl(mechanism) => mechanism.name(),
            Self::Apop => "APOP",
        }
    }

    /// What the client is told in a challenge when it is refused, where it has to be.
    pub(super) fn told_of(self, tokens: &TokenTerms) -> Option<Vec<u8>> {
        match self {
            Self::Sasl(mechanism) => tokens.refusal(mechanism),
            Self::Apop => None,
        }
    }
}
