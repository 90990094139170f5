//! Weak stored passwords that become strong ones at a good login.
//!
//! A directory that can store passwords hands out with each weak one what it takes to
//! replace it: itself, the name, and the text as it was read. When the password was right,
//! whoever verified it makes the new text, beside the login and never before its answer,
//! and has the directory store it in place of the old one: of that text and no other, so
//! that a password that somebody has changed meanwhile stays.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::Remote;
use crate::auth::{UserName, Verifier};

/// What replaces a stored password.
pub(in crate::auth) struct Renewal {
    directory: Arc<Remote>,
    name: UserName,
    stored: Zeroizing<String>,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Renewed {
    /// The new text is stored.
    Stored,
    /// What was read is not stored any more.
    Changed,
    /// What the directory was asked to do would have done something else, and was undone.
    Unfit(String),
}

impl Renewal {
    /// One for a stored password that is worth it.
    pub(super) fn of(
        directory: &Arc<Remote>,
        name: &UserName,
        stored: &str,
        verifier: &Verifier,
    ) -> Option<Box<Self>> {
        let spares_clear = directory.renews()?;
        let is_weak = verifier.is_weak() && !(spares_clear && verifier.is_clear());
        is_weak.then(|| {
            Box::new(Self {
                directory: Arc::clone(directory),
                name: name.clone(),
                stored: Zeroizing::new(stored.to_owned()),
            })
        })
    }

    /// Has the new text stored.
    pub(in crate::auth) async fn carry_out(self, fresh: &str) {
        let Self {
            directory,
            name,
            stored,
        } = self;
        directory.renew(&name, &stored, fresh).await;
    }

    /// It is given up because too many are on their way: the next login tries again.
    pub(in crate::auth) fn give_up(self) {
        self.directory.contact.counters().count_renewal_given_up();
    }
}

impl std::fmt::Debug for Renewal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Renewal({})", self.name)
    }
}
