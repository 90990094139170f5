//! The shard's own `io_uring`, for sockets and message files.
//!
//! glommio schedules tasks and pins threads; its sockets poll for readiness and
//! then read, it sends `unlink` to threads, and it lets nobody else submit. So each
//! shard has a ring of its own beside glommio's, and this module is the only place
//! that knows of it: the rest of popcore sees operations as futures, and timers,
//! and answers of other threads.
//!
//! # Who owns memory, and when
//!
//! * An operation owns what the kernel may touch (a path, a buffer, a header and
//!   what it points to) from the moment it is queued until its completion has been
//!   dispatched. The memory is on the heap, so the future that holds it may move;
//!   what the kernel writes to is in a `Vec` or a `Lent`, never in a `Box`.
//! * A future that is dropped before its completion leaves that memory to the
//!   ring (`Slot::Abandoned`), asks the kernel to cancel, and the ring
//!   frees it when the completion arrives. A future that is leaked leaks it.
//! * An operation owns a share of each descriptor that it names, until its
//!   completion. A multishot operation that was given up keeps its share only until
//!   the kernel has seen its entry: from then on the kernel has the file itself.
//! * Wakers are dropped and called, and memory that was given up is freed, when
//!   the `Core` is not borrowed (`Aftermath`): the end of a task may be the end of
//!   other operations.
//! * Received bytes land in buffers that the ring provides to the kernel
//!   (`provided`) and are copied out while the completion is dispatched: a
//!   command line is a few octets, and so a provided buffer is never held by a
//!   session, however slow it is. An idle session owns no receive buffer.
//! * The ring is not dropped while the kernel may still touch memory:
//!   `Core`'s destructor cancels everything and waits for it; what does
//!   not end in time is leaked rather than freed.
//!
//! # How it is driven
//!
//! One task of the executor, the `driver`, lets every task that is ready run, hands
//! the submissions that they queued to the kernel in one system call, dispatches
//! the completions that it finds and wakes whom they belong to. Where no task is
//! ready (`task`) it waits in that system call, and the shard uses no CPU. Each
//! turn runs a bounded number of tasks and dispatches a bounded number of
//! completions, so that neither can starve the other.
//!
//! # What runs where
//!
//! Sends and receives, opens of what is cached and reads of what is cached end
//! within the system call that submits them. The kernel hands to a thread of its
//! own, always: `statx`, `renameat`, `unlinkat`, `fsync`, `shutdown`, `splice` and
//! `madvise`. They keep the shard from waiting and are dearer than the plain system
//! call; what cannot wait is better called, and many of them at a time take one trip
//! to the pool ([`Ring::blocking`]; `benches/removal.rs` compares).
//!
//! Beside the ring go plain system calls that never wait: opens and reads of what the
//! kernel has at hand (`cached`), and the octets of messages, of which a socket takes
//! what it has room for (`flow`). What cannot be done so is an operation. On a file
//! system that may ask another machine ([`Place::Far`]) nothing is tried: its opens
//! and reads go to threads of the kernel, all else to a pool of its own.
//!
//! # When there is not enough
//!
//! | what is short | what happens | counter |
//! | --- | --- | --- |
//! | room in the submission queue | the entry waits its turn, in order | `queue_full` |
//! | room in the completion queue | the kernel keeps a list, and a turn asks for it | `overflows` |
//! | the same, for a multishot operation | it ends with what it brought and is armed again | `ended_early` |
//! | provided buffers | the receive ends and is armed again | `buffers_exhausted` |
//! | the client's restraint | the receive is cancelled until the bytes are used up | `throttled` |
//! | descriptors, memory | the accept fails; the listener rests and asks again | the shard's `accept_errors` |

mod bell;
mod blocking;
mod cached;
mod clock;
mod core;
mod driver;
mod file;
mod flow;
pub mod kernel_tls;
mod lent;
mod mapping;
mod name;
mod net;
mod operation;
mod probe;
mod provided;
mod slot;
mod task;
mod time;
mod transfer;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use slab::Slab;

pub use blocking::{Place, Pool};
pub use cached::{open_cached, read_cached};
pub use clock::{ClockState, clock_state};
pub use file::Advice;
pub use flow::{bound_unsent, send_file};
pub use mapping::{Lost, Mapping};
pub use name::At;
pub use net::{Acceptor, Received, Receiver, silence};
pub use probe::{KERNEL as OLDEST_KERNEL, RingError, is_new_enough, probe};
pub use task::{Task, run};
pub use time::Sleep;
pub use transfer::{PARTS, Part, Pipe};

use self::bell::Bell;
use self::core::Core;
use self::time::Timers;
use crate::limits;

/// A shard's ring. Cheap to clone; stays on the thread that made it.
#[derive(Clone)]
pub struct Ring {
    shared: Rc<Shared>,
}

struct Shared {
    core: RefCell<Core>,
    timers: RefCell<Timers>,
    /// Dropped after the core, which has it polled.
    bell: Arc<Bell>,
    /// Who waits for other threads, by the keys with which those ring.
    guests: RefCell<Slab<Option<Waker>>>,
    /// How often tasks were polled or ended.
    polls: Cell<u64>,
    pool: Pool,
    counters: Arc<Counters>,
}

/// An open socket or file that operations share with their owner.
///
/// An operation in flight holds a clone, so a descriptor is never closed, and
/// its number never given to another file, between an operation's being queued
/// and its completion: bytes cannot reach a stranger's socket.
#[derive(Clone, Debug)]
pub struct Handle {
    descriptor: Rc<OwnedFd>,
}

impl Handle {
    /// Shares `descriptor` with the operations that will be started on it.
    pub fn new(descriptor: OwnedFd) -> Handle {
        Handle {
            descriptor: Rc::new(descriptor),
        }
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for Handle {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

/// How much fits into a ring. A shard's has the limits; tests make small ones.
struct Sizes {
    submissions: u32,
    completions: u32,
    /// Provided buffers, a power of two, and their octets.
    buffers: u16,
    buffer_octets: u32,
    completions_a_turn: usize,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes {
            submissions: limits::SUBMISSION_QUEUE,
            completions: limits::COMPLETION_QUEUE,
            buffers: limits::PROVIDED_BUFFERS,
            buffer_octets: u32::try_from(limits::PROVIDED_BUFFER).expect("a few pages"),
            completions_a_turn: limits::COMPLETIONS_A_TURN,
        }
    }
}

/// What a ring counts of itself. One shard writes, anybody reads.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    enters: AtomicU64,
    completions: AtomicU64,
    queue_full: AtomicU64,
    buffers_exhausted: AtomicU64,
    overflows: AtomicU64,
    ended_early: AtomicU64,
    throttled: AtomicU64,
    cancelled: AtomicU64,
}

impl Counters {
    /// System calls into the ring.
    pub fn enters(&self) -> u64 {
        self.enters.load(Ordering::Relaxed)
    }

    /// Completions dispatched.
    pub fn completions(&self) -> u64 {
        self.completions.load(Ordering::Relaxed)
    }

    /// Submissions that found the submission queue full and waited their turn.
    pub fn queue_full(&self) -> u64 {
        self.queue_full.load(Ordering::Relaxed)
    }

    /// Receives that found no provided buffer (`ENOBUFS`) and were armed again.
    pub fn buffers_exhausted(&self) -> u64 {
        self.buffers_exhausted.load(Ordering::Relaxed)
    }

    /// Turns that found the completion queue overflown into the kernel's list.
    pub fn overflows(&self) -> u64 {
        self.overflows.load(Ordering::Relaxed)
    }

    /// Accepts and receives that the kernel ended with a success, for want of room
    /// for completions, and that were armed again.
    pub fn ended_early(&self) -> u64 {
        self.ended_early.load(Ordering::Relaxed)
    }

    /// Receives stopped because a client sent more than it may pipeline.
    pub fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    /// Operations whose future was dropped before their completion.
    pub fn cancelled(&self) -> u64 {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// A load and a store, not a read-modify-write: there is one writer.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

impl Ring {
    fn with_sizes(counters: Arc<Counters>, pool: Pool, sizes: &Sizes) -> io::Result<Ring> {
        let bell = Bell::new()?;
        let core = Core::new(bell.descriptor(), sizes, &counters)?;
        Ok(Ring {
            shared: Rc::new(Shared {
                core: RefCell::new(core),
                timers: RefCell::default(),
                bell: Arc::new(bell),
                guests: RefCell::default(),
                polls: Cell::new(0),
                pool,
                counters,
            }),
        })
    }

    /// What the ring has counted so far.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Nobody will be woken any more. Tasks that still wait are kept by their wakers,
    /// which the ring has, and keep the ring: without this it would never go.
    fn let_go(&self) {
        let shared = &self.shared;
        let timers = shared.timers.take();
        let operations = shared.core.borrow_mut().take_wakers();
        let mut guests = shared.guests.borrow_mut();
        let guests: Vec<_> = guests.iter_mut().map(|(_, guest)| guest.take()).collect();
        // Each may be the end of a task, and of all that it has from the ring.
        drop((timers, operations, guests));
    }

    /// Operations that the kernel has not completed, receivers and acceptors
    /// included.
    pub fn in_flight(&self) -> usize {
        self.shared.core.borrow().in_flight()
    }
}

#[cfg(test)]
pub(crate) mod tests;
