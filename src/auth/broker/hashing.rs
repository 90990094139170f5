//! The threads that slow verifications pass through.
//!
//! Hashers run when nobody else wants the CPU, so one of them may be kept from it at any
//! point, also while it holds the lock of its queue. Whoever waits for that lock waits
//! with it. So that this is nobody but who waits for hashes anyway, neither a desk nor the
//! look-up thread touches that queue: a porter carries what they have to it, and a clerk
//! tells what the hashers found.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::{Hearing, Shared, Ticket};
use crate::crew::{Class, Crew, Order, Plan};

/// A porter, the hashers, a clerk.
pub(super) struct Hashing {
    porter: Crew<Hearing>,
    hashers: Arc<Crew<Hearing>>,
    clerk: Arc<Crew<Hearing>>,
}

impl Hashing {
    /// Starts so many hashers, before whom at most `bound` logins wait.
    pub(super) fn start(
        shared: &Arc<Shared>,
        hashers: NonZeroUsize,
        bound: usize,
    ) -> io::Result<Self> {
        let in_turn = || Order::InTurn {
            bound,
            origin: |hearing: &Hearing| hearing.ticket.origin,
            displaced: Shared::refusing(shared, |hearing: Hearing| hearing.ticket.reply),
        };
        let plan = |name: &str, threads, order, class| Plan {
            name: name.to_owned(),
            threads,
            cpu: None,
            order,
            class,
        };
        let own = Arc::clone(shared);
        let one = NonZeroUsize::MIN;
        let clerks = plan("clerk", one, Order::AsTheyCome, Class::Ordinary);
        let clerk = Arc::new(Crew::start(clerks, move |hearing| own.answer(hearing))?);
        let (own, next) = (Arc::clone(shared), Arc::clone(&clerk));
        let all = plan("hasher", hashers, in_turn(), Class::Background);
        let hashers = Arc::new(Crew::start(all, move |slow| own.hash(slow, &next))?);
        let (own, next) = (Arc::clone(shared), Arc::clone(&hashers));
        let porters = plan("porter", one, in_turn(), Class::Ordinary);
        let porter = Crew::start(porters, move |hearing| {
            if let Err(Hearing { ticket, .. }) = next.queue(hearing) {
                own.refuse(ticket.reply);
            }
        })?;
        Ok(Self {
            porter,
            hashers,
            clerk,
        })
    }

    /// Has a password verified; gives the ticket back if too many wait. Never waits.
    pub(super) fn queue(&self, hearing: Hearing) -> Result<(), Ticket> {
        self.porter.queue(hearing).map_err(|hearing| hearing.ticket)
    }

    /// Logins that wait for a hasher.
    pub(super) fn len(&self) -> usize {
        self.porter.len() + self.hashers.len()
    }

    /// Verifies what is queued and ends the threads; blocks until they have ended.
    pub(super) fn stop(&self) {
        self.porter.stop();
        self.hashers.stop();
        self.clerk.stop();
    }
}
