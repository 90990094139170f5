//! A login before it is decided on.

use std::net::IpAddr;

use crate::auth::cache::{Fingerprint, Recall};
use crate::auth::{Account, Credentials, Identity, Refusal};

/// Credentials, and what was known of them when they came: the cache is asked once for
/// each login, also where a login that nothing is known of has to wait in between.
#[must_use = "a login is asked for so that it is decided on"]
pub struct Candidate {
    pub(super) credentials: Credentials,
    pub(super) from: IpAddr,
    pub(super) fingerprint: Fingerprint,
    pub(super) recall: Recall,
}

impl Candidate {
    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.credentials.identity
    }

    /// Whether nothing is known of it: it may be a guess. What was good or bad before is
    /// none, and costs no hash again.
    pub fn is_guess(&self) -> bool {
        matches!(self.recall, Recall::Unknown)
    }

    /// The answer, if it is known already.
    pub(super) fn known(&mut self) -> Option<Result<Account, Refusal>> {
        match std::mem::replace(&mut self.recall, Recall::Unknown) {
            Recall::Good(account) => Some(Ok(account)),
            Recall::Bad => Some(Err(Refusal::Rejected)),
            Recall::Faded | Recall::Unknown => None,
        }
    }
}
