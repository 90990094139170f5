//! From a login to the directories that are asked on the look-up thread, and back.

use std::sync::Arc;

use super::{Hashing, Shared, Ticket};
use crate::auth::lookups::Lookups;
use crate::auth::remote::Question;

/// Where directories are asked that do not answer from memory.
pub(super) struct Away {
    pub(super) lookups: Arc<Lookups>,
    pub(super) shared: Arc<Shared>,
    pub(super) hashing: Arc<Hashing>,
}

impl Away {
    /// Has a name looked up from the directory of this number on. Gives the ticket back
    /// if too many are looked up already, of its network or of all. Never waits.
    pub(super) fn begin(
        &self,
        question: Question,
        first: usize,
        ticket: Ticket,
    ) -> Result<(), Ticket> {
        let (shared, hashing) = (Arc::clone(&self.shared), Arc::clone(&self.hashing));
        let lookup = move |ticket: Ticket| async move {
            // Whoever left while the look-up waited for the thread needs none.
            if shared.is_over(&ticket) {
                return;
            }
            let case = shared.judge.hear_away(question, first).await;
            shared.settle(case, ticket, &hashing);
        };
        self.lookups.begin(ticket.origin, ticket, lookup)
    }
}
