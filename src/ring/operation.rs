//! One operation as a future.

use std::any::Any;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use io_uring::squeue::Entry;

use super::slot::{Slot, decode, keep};
use super::{Ring, count};

/// What an operation lends the kernel, and what its result means.
///
/// # Safety
///
/// Every address that the operation's entry holds must stay valid, and must be
/// touched by nobody else, while the value is alive, wherever it is moved: the
/// memory is on the heap and owned by the value, or static and immutable.
pub(super) unsafe trait Operation: Unpin + 'static {
    /// What the future resolves to.
    type Output;
    /// Whether a result is a descriptor that must be closed if nobody takes it.
    const YIELDS_DESCRIPTOR: bool = false;
    /// Makes the output of the result; gives lent memory back.
    fn finish(self, result: io::Result<u32>) -> Self::Output;
}

/// An operation in flight.
pub(super) struct Pending<O: Operation> {
    ring: Ring,
    key: usize,
    /// Taken when the completion has been delivered.
    operation: Option<O>,
}

impl Ring {
    /// Queues `entry` and returns the future of its completion.
    ///
    /// # Safety
    ///
    /// Every address in `entry` must be one that `operation` vouches for.
    pub(super) unsafe fn start<O: Operation>(&self, operation: O, entry: Entry) -> Pending<O> {
        let key = {
            let mut core = self.shared.core.borrow_mut();
            let key = core.slots.insert(Slot::Waiting(None));
            // SAFETY: the caller's promise, and `Pending` keeps the operation
            // alive or leaves it in the slot until the completion arrives.
            unsafe { core.push(entry.user_data(key as u64), &self.shared.counters) };
            key
        };
        Pending {
            ring: self.clone(),
            key,
            operation: Some(operation),
        }
    }
}

impl<O: Operation> Future for Pending<O> {
    type Output = O::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<O::Output> {
        let this = self.get_mut();
        // Its slot may be another's by now.
        assert!(this.operation.is_some(), "polled after completion");
        let mut core = this.ring.shared.core.borrow_mut();
        match &mut core.slots[this.key] {
            Slot::Waiting(waker) => {
                let stale = keep(waker, context.waker());
                drop(core);
                drop(stale);
                Poll::Pending
            }
            Slot::Done(result) => {
                let result = decode(*result);
                core.slots.remove(this.key);
                drop(core);
                let operation = this.operation.take().expect("looked at above");
                Poll::Ready(operation.finish(result))
            }
            _ => unreachable!("a future's slot waits or is done"),
        }
    }
}

impl<O: Operation> Drop for Pending<O> {
    fn drop(&mut self) {
        let Some(operation) = self.operation.take() else {
            return;
        };
        let mut core = self.ring.shared.core.borrow_mut();
        if let Slot::Done(result) = core.slots[self.key] {
            core.slots.remove(self.key);
            drop(core);
            // The completion was delivered and not looked at: finishing frees
            // what it brought, a descriptor included.
            drop(operation.finish(decode(result)));
            return;
        }
        let abandoned = Slot::Abandoned {
            memory: Box::new(operation) as Box<dyn Any>,
            yields_descriptor: O::YIELDS_DESCRIPTOR,
        };
        let waiting = std::mem::replace(&mut core.slots[self.key], abandoned);
        core.cancel(self.key, &self.ring.shared.counters);
        count(&self.ring.shared.counters.cancelled);
        drop(core);
        // With its waker, outside the borrow.
        drop(waiting);
    }
}
