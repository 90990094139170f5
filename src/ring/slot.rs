//! What the ring knows of each operation the kernel has not finished with.
//!
//! A slot's key travels to the kernel and back as the entry's `user_data`. It is
//! freed with the operation's last completion and not before, so no completion
//! finds another operation in its slot. A cancellation names a key too, and may
//! come to the kernel when the slot has been freed and taken again. It then finds
//! nothing: entries reach the kernel in the order in which they were queued
//! (`Core::push`), so the cancellation comes before the entry of whoever has the
//! slot now.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::task::Waker;

use super::Handle;

/// One operation's state.
pub(super) enum Slot {
    /// A future waits for the one completion.
    Waiting(Option<Waker>),
    /// The completion is here and its future has not been polled since.
    Done(i32),
    /// The future is gone. Its memory stays until the completion arrives.
    Abandoned {
        /// What the kernel may still touch; freed with the slot.
        memory: Box<dyn Any>,
        /// Whether the result is a descriptor that somebody must close.
        yields_descriptor: bool,
    },
    /// A descriptor is being closed, and nobody waits for it.
    Closing(RawFd),
    /// A multishot accept.
    Accept(Accept),
    /// A multishot receive.
    Receive(Receive),
    /// A multishot operation whose owner is gone; its last completion frees it.
    AbandonedStream {
        /// Whether results are descriptors that somebody must close.
        yields_descriptors: bool,
        /// What it is on, where the kernel may not have looked the descriptor up
        /// yet: closed before that, its number could mean a stranger's socket.
        _source: Option<Handle>,
    },
}

/// State of a multishot accept.
#[derive(Default)]
pub(super) struct Accept {
    /// Whether the kernel holds the request.
    pub(super) armed: bool,
    /// The number of the entry that last armed it.
    pub(super) entry: u32,
    pub(super) waker: Option<Waker>,
    /// Connections accepted and not yet taken.
    pub(super) ready: VecDeque<OwnedFd>,
    /// Why the kernel ended the request, until the owner has been told.
    pub(super) failed: Option<io::Error>,
}

/// State of a multishot receive.
#[derive(Default)]
pub(super) struct Receive {
    /// Whether the kernel holds the request.
    pub(super) armed: bool,
    /// Whether a cancellation is on its way because too much is unread.
    pub(super) throttling: bool,
    /// The number of the entry that last armed it.
    pub(super) entry: u32,
    pub(super) waker: Option<Waker>,
    /// Bytes received and not yet taken; owns nothing while it is empty.
    pub(super) unread: Vec<u8>,
    /// How the stream ended, until the owner has been told.
    pub(super) end: Option<End>,
}

/// Why no more bytes will come.
pub(super) enum End {
    /// The peer closed its direction.
    Closed,
    /// The socket failed.
    Failed(io::Error),
}

/// Keeps `waker` in place of the one before, which the caller drops when it has
/// let go of the ring: the end of a waker may be the end of a task and of all the
/// operations that it holds.
#[must_use]
pub(super) fn keep(held: &mut Option<Waker>, waker: &Waker) -> Option<Waker> {
    match held {
        Some(held) if held.will_wake(waker) => None,
        _ => held.replace(waker.clone()),
    }
}

/// Turns a completion's result into `Ok(value)` or the error it encodes.
pub(super) fn decode(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// Takes ownership of a descriptor that the kernel has just returned.
pub(super) fn adopt(descriptor: u32) -> OwnedFd {
    let raw = RawFd::try_from(descriptor).expect("descriptors fit an int");
    // SAFETY: the kernel made this descriptor for the operation whose result
    // this is, each result is adopted once, and nobody else knows the number.
    unsafe { OwnedFd::from_raw_fd(raw) }
}
