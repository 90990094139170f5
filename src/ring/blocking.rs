//! What other threads do for a shard, and how it hears of it.
//!
//! glommio looks at what other threads woke when it runs out of tasks or when its
//! preemption timer fires. Under load the driver is always ready, so glommio never
//! runs out; and a timer that fires often is no way out, because one that fires
//! before the first task of a round has glommio park with tasks that are ready (see
//! `pulse`), at its start for good. So the timer is rare
//! ([`limits::PREEMPTION`]), and a driver that knows of somebody who waits for
//! another thread stands back once in a while until glommio has looked
//! ([`limits::TURN`]).

use std::future::Future;

use super::Ring;

/// Somebody who waits for another thread.
pub(super) struct Abroad<'a>(&'a Ring);

impl<'a> Abroad<'a> {
    fn new(ring: &'a Ring) -> Self {
        ring.shared.abroad.set(ring.shared.abroad.get() + 1);
        Abroad(ring)
    }
}

impl Drop for Abroad<'_> {
    fn drop(&mut self) {
        self.0.shared.abroad.set(self.0.shared.abroad.get() - 1);
    }
}

impl Ring {
    /// Awaits what another thread completes, such as the receiving end of a
    /// channel, and has the shard hear of it within [`limits::TURN`] or so however
    /// busy it is.
    ///
    /// [`limits::TURN`]: crate::limits::TURN
    pub async fn abroad<F: Future>(&self, future: F) -> F::Output {
        let _waiting = Abroad::new(self);
        future.await
    }

    /// Runs `work` on a thread of the shard's pool and resolves to what it gave. For
    /// what the ring has no operation for: listing a directory, and removals, of
    /// which one trip to a thread does a whole session's.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        self.abroad(glommio::executor().spawn_blocking(work)).await
    }
}
