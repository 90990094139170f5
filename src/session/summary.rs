//! What the session log says of a session.

use crate::auth::UserName;
use crate::proto::Octets;

/// A session so far, or as it was when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary<'a> {
    /// The user who is logged in, or else the name that was given last.
    pub user: Option<&'a UserName>,
    /// Whether that user is logged in.
    pub authenticated: bool,
    /// Logins that were refused, with a pause each.
    pub failed_logins: u8,
    /// What was done since the login.
    pub tally: Tally,
    /// The name that the client's certificate vouches for.
    pub client: Option<&'a str>,
    /// The master user who is logged in for that user.
    pub master: Option<&'a UserName>,
}

/// What was done in a maildrop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages in the maildrop at the login.
    pub maildrop: Traffic,
    /// Sent for RETR.
    pub retrieved: Traffic,
    /// Sent for TOP.
    pub topped: Traffic,
    /// Removed at QUIT.
    pub removed: Traffic,
}

/// A number of messages and their size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many.
    pub messages: u32,
    /// Their size as RFC 1939 counts it.
    pub octets: Octets,
}

impl Traffic {
    pub(super) fn add(&mut self, octets: Octets) {
        self.messages = self.messages.saturating_add(1);
        self.octets += octets;
    }
}
