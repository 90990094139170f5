//! What a connection tells the counters and the log.

use std::time::{Duration, Instant};

use crate::auth::{Account, Identity, Refusal, UserName};
use crate::maildrop::{OpenError, Opened};
use crate::observe::{
    Ending, FailedLogin, LoginFault, LoginResult, Master, SESSION_TARGET, SessionEnd, ShardWriter,
    Tally, TlsResult, Verb, Vouched, Where,
};
use crate::session::{self, End, Method, Summary, TurnedAway};
use crate::tls::Established;

use super::broken::{Broken, HandshakeFault, Unsecured};
use super::link::Handshake;
use super::{Context, Finish};

/// A line that is being answered.
struct Command {
    /// None where it is no command.
    verb: Option<Verb>,
    /// When the line was complete.
    since: Instant,
}

/// One connection's notes.
pub(super) struct Report {
    pub(super) at: Where,
    begun: Instant,
    command: Option<Command>,
    failed_logins: u32,
}

impl Report {
    pub(super) fn new(at: Where, begun: Instant) -> Report {
        Report {
            at,
            begun,
            command: None,
            failed_logins: 0,
        }
    }

    pub(super) fn command_begins(&mut self, line: &[u8], now: Instant) {
        self.command = Some(Command {
            verb: verb_of(line),
            since: now,
        });
    }

    /// A response came within the command that was begun: what counts from here is
    /// how long its answer takes.
    pub(super) fn command_goes_on(&mut self, now: Instant) {
        if let Some(command) = &mut self.command {
            command.since = now;
        }
    }

    /// Books the command whose reply is complete, if there is one.
    pub(super) fn command_ends(&mut self, counters: &ShardWriter) {
        match self.command.take() {
            Some(Command {
                verb: Some(verb),
                since,
            }) => counters.command(verb, since.elapsed()),
            Some(Command { verb: None, .. }) => counters.command_error(),
            None => {}
        }
    }

    /// How long the command that is being answered has taken so far.
    fn since_command(&self) -> Duration {
        let since = self.command.as_ref().map(|command| command.since);
        since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// A password was checked.
    pub(super) fn login(
        &mut self,
        counters: &ShardWriter,
        identity: &Identity,
        method: Method,
        verdict: &Result<Account, Refusal>,
    ) {
        let (result, fault) = match verdict {
            // It is booked once the maildrop is open, or is not.
            Ok(_) => return,
            Err(Refusal::Rejected) => (LoginResult::Rejected, LoginFault::Rejected),
            Err(Refusal::Disabled(_)) => (LoginResult::Disabled, LoginFault::Disabled),
            Err(Refusal::Unavailable) => (LoginResult::Unavailable, LoginFault::Unavailable),
            Err(Refusal::Busy) => (LoginResult::QueueFull, LoginFault::Unavailable),
            Err(Refusal::Throttled) => (LoginResult::Throttled, LoginFault::Throttled),
            Err(Refusal::Crowded) => (LoginResult::TooMany, LoginFault::Crowded),
        };
        counters.login(result, self.since_command());
        self.failed_logins += 1;
        let shown = identity.shown();
        let line = FailedLogin {
            user: shown.as_bytes(),
            at: self.at,
            method: method.name(),
            fault,
            attempt: self.failed_logins,
            duration: self.begun.elapsed(),
        };
        tracing::info!(target: SESSION_TARGET, "{line}");
    }

    /// A user whose password was right was not let in.
    pub(super) fn turned_away(&self, counters: &ShardWriter, why: TurnedAway) {
        let result = match why {
            TurnedAway::TooSoon(_) => LoginResult::TooSoon,
            TurnedAway::TooMany => LoginResult::TooMany,
        };
        counters.login(result, self.since_command());
    }

    /// A maildrop was opened, or not, for a user whose password was right.
    pub(super) fn opened(&self, counters: &ShardWriter, opened: &Result<Opened, OpenError>) {
        let result = match opened {
            Ok(_) => LoginResult::Accepted,
            Err(OpenError::InUse(_)) => LoginResult::InUse,
            Err(error @ (OpenError::Temporary(_) | OpenError::Permanent(_))) => {
                tracing::warn!("{error}");
                LoginResult::MaildropFault
            }
        };
        counters.login(result, self.since_command());
    }

    /// The session is over.
    pub(super) fn ends(&self, context: &Context, summary: &Summary<'_>, finish: &Finish) {
        if !summary.authenticated {
            self.stranger(context, summary, finish);
            return;
        }
        let session::Tally {
            maildrop,
            retrieved,
            topped,
            removed,
        } = summary.tally;
        let counters = &context.counters;
        counters.deleted(removed.messages.into(), removed.octets.get());
        let duration = self.begun.elapsed();
        counters.session_ended(ending(finish), duration);
        let reason = reason(finish);
        let line = SessionEnd::Authenticated {
            user: summary.user.map_or(b"", |user| user.as_bytes()),
            at: self.at,
            reason: &reason,
            top: tally(topped),
            retr: tally(retrieved),
            deleted: tally(removed),
            maildrop: tally(maildrop),
            duration,
        };
        let client = Vouched(summary.client);
        let master = Master(summary.master.map(UserName::as_bytes));
        tracing::info!(target: SESSION_TARGET, "{line}{client}{master}");
    }

    /// A connection is over that nobody logged in on.
    fn stranger(&self, context: &Context, summary: &Summary<'_>, finish: &Finish) {
        let duration = self.begun.elapsed();
        context.counters.session_ended(ending(finish), duration);
        if matches!(
            finish,
            Finish::Broken(Broken::Handshake(_) | Broken::WrongProtocol)
        ) {
            let now = self.begun + duration;
            if !context.services.strangers.allows(self.at.remote, now) {
                return;
            }
        }
        let reason = reason(finish);
        let line = SessionEnd::Stranger {
            at: self.at,
            reason: &reason,
            failures: self.failed_logins,
            duration,
        };
        let client = Vouched(summary.client);
        tracing::info!(target: SESSION_TARGET, "{line}{client}");
    }
}

/// Books a TLS handshake.
pub(super) fn handshake(counters: &ShardWriter, result: &Result<Handshake, Broken>) {
    counters.tls_handshake(match result {
        Ok(done) if done.how == Established::Full => TlsResult::Full,
        Ok(_) => TlsResult::Resumed,
        Err(Broken::Handshake(unsecured)) => match unsecured.why {
            HandshakeFault::Tls(_) => TlsResult::Failed,
            HandshakeFault::NotTls => TlsResult::NotTls,
            HandshakeFault::Injected => TlsResult::Injected,
            HandshakeFault::TimedOut => TlsResult::TimedOut,
            HandshakeFault::Abandoned | HandshakeFault::Lost(_) => TlsResult::Abandoned,
            HandshakeFault::Crowded => TlsResult::Crowded,
        },
        Err(_) => TlsResult::Abandoned,
    });
}

fn tally(traffic: session::Traffic) -> Tally {
    Tally {
        count: traffic.messages.into(),
        octets: traffic.octets.get(),
    }
}

fn ending(finish: &Finish) -> Ending {
    match finish {
        Finish::Ended(End::Quit | End::NotAllRemoved) => Ending::Quit,
        Finish::Ended(End::Autologout) => Ending::Autologout,
        Finish::Ended(End::LoginTimeout) => Ending::LoginTimeout,
        Finish::Ended(End::TooManyBadCommands) => Ending::BadCommands,
        Finish::Ended(End::TooManyAuthFailures) => Ending::BadLogins,
        Finish::Broken(Broken::Closed) => Ending::ClientClosed,
        Finish::Broken(Broken::Lost(_)) => Ending::ConnectionLost,
        Finish::Broken(Broken::Stalled) => Ending::Stalled,
        Finish::Broken(Broken::Displaced) => Ending::Displaced,
        Finish::Broken(Broken::Shutdown) => Ending::Shutdown,
        Finish::Broken(Broken::Tls(_)) => Ending::TlsFault,
        Finish::Broken(Broken::WrongProtocol) => Ending::WrongProtocol,
        Finish::Broken(Broken::Handshake(unsecured)) => match unsecured.why {
            HandshakeFault::Tls(_) => Ending::TlsFault,
            HandshakeFault::NotTls => Ending::WrongProtocol,
            HandshakeFault::Injected => Ending::Injection,
            HandshakeFault::TimedOut => Ending::HandshakeTimeout,
            HandshakeFault::Abandoned => Ending::ClientClosed,
            HandshakeFault::Lost(_) => Ending::ConnectionLost,
            HandshakeFault::Crowded => Ending::Refused,
        },
        Finish::Broken(Broken::Message(_)) => Ending::MessageFault,
    }
}

/// How it ended, in the words that log readers know where they have them.
fn reason(finish: &Finish) -> String {
    match finish {
        Finish::Ended(End::Quit) => "Logged out".into(),
        Finish::Ended(End::NotAllRemoved) => "Logged out, not all removed".into(),
        Finish::Ended(End::Autologout) => "Disconnected for inactivity".into(),
        Finish::Ended(End::LoginTimeout) => "Login timed out".into(),
        Finish::Ended(End::TooManyBadCommands) => "Too many invalid commands".into(),
        Finish::Ended(End::TooManyAuthFailures) => "Too many failed logins".into(),
        Finish::Broken(Broken::Closed) => "Connection closed".into(),
        Finish::Broken(Broken::Lost(error)) => format!("Connection lost: {error}"),
        Finish::Broken(Broken::Stalled) => "Client stopped reading".into(),
        Finish::Broken(Broken::Displaced) => "Taken over by a new session".into(),
        Finish::Broken(Broken::Shutdown) => "Server shutting down".into(),
        Finish::Broken(Broken::Handshake(unsecured)) => unsecured_reason(unsecured),
        Finish::Broken(Broken::Tls(fault)) => format!("TLS failed: {fault}"),
        Finish::Broken(Broken::WrongProtocol) => "TLS without STLS".into(),
        Finish::Broken(Broken::Message(fault)) => format!("Message failed: {fault}"),
    }
}

/// Why there is no TLS, and what the client would have had.
fn unsecured_reason(unsecured: &Unsecured) -> String {
    let text = match &unsecured.why {
        HandshakeFault::Tls(fault) => format!("TLS handshake failed: {fault}"),
        HandshakeFault::NotTls => "Clear text where TLS begins".into(),
        HandshakeFault::Injected => "Clear text behind STLS".into(),
        HandshakeFault::TimedOut => "TLS handshake timed out".into(),
        HandshakeFault::Abandoned => "Connection closed in the TLS handshake".into(),
        HandshakeFault::Lost(error) => format!("Connection lost in the TLS handshake: {error}"),
        HandshakeFault::Crowded => "Too many TLS handshakes at a time".into(),
    };
    match unsecured.version {
        Some(version) => format!("{text}; client offers {version}"),
        None => text,
    }
}

/// The verb of a line, for the counters alone: the session parses it.
fn verb_of(line: &[u8]) -> Option<Verb> {
    let end = line.iter().position(|byte| *byte == b' ');
    let word = &line[..end.unwrap_or(line.len())];
    let mut verb = [0; 4];
    for (to, from) in verb.iter_mut().zip(word) {
        *to = from.to_ascii_uppercase();
    }
    Some(match (word.len(), &verb) {
        (4, b"USER") => Verb::User,
        (4, b"PASS") => Verb::Pass,
        (4, b"STAT") => Verb::Stat,
        (4, b"LIST") => Verb::List,
        (4, b"RETR") => Verb::Retr,
        (4, b"DELE") => Verb::Dele,
        (4, b"NOOP") => Verb::Noop,
        (4, b"RSET") => Verb::Rset,
        (4, b"QUIT") => Verb::Quit,
        (3, b"TOP\0") => Verb::Top,
        (4, b"UIDL") => Verb::Uidl,
        (4, b"CAPA") => Verb::Capa,
        (4, b"STLS") => Verb::Stls,
        (4, b"AUTH") => Verb::Auth,
        (4, b"APOP") => Verb::Apop,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_known_in_any_case_and_nothing_else_is() {
        assert_eq!(verb_of(b"uIdL"), Some(Verb::Uidl));
        assert_eq!(verb_of(b"top 1 0"), Some(Verb::Top));
        assert_eq!(verb_of(b"RETR 1"), Some(Verb::Retr));
        assert_eq!(verb_of(b"RETRIEVE 1"), None);
        assert_eq!(verb_of(b"TOPS"), None);
        assert_eq!(verb_of(b""), None);
    }
}
