//! The ring itself: queues, slots, provided buffers.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::task::Waker;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use slab::Slab;

use super::provided::{GROUP, Provided};
use super::slot::{Accept, End, Receive, Slot, adopt, decode};
use super::{Counters, Sizes, count};
use crate::limits;

/// `user_data` of entries whose completion nobody looks at.
const NOBODY: u64 = u64::MAX;

/// `user_data` of the bell's poll.
const BELL: u64 = u64::MAX - 1;

/// How long the kernel may keep the shard when it has nothing for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Not at all: tasks are ready.
    None,
    /// That long.
    For(Duration),
    /// Until something happens.
    Endless,
    /// That long, and nothing is submitted: the kernel has just refused to take
    /// anything, and nothing has come of it.
    Recover(Duration),
}

/// What became of the entries that were queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Submitted {
    /// There were none.
    Nothing,
    /// The kernel has taken some.
    Entries,
    /// The kernel has taken none: it is short of memory, or its completions must
    /// be taken first. They stay queued.
    Refused,
}

/// `IORING_ENTER_GETEVENTS` and `IORING_ENTER_EXT_ARG` of `io_uring_enter(2)`: wait
/// for completions, and only as long as an argument says.
const WAIT: u32 = 1 | 8;

/// How long the destructor waits for the kernel to let go of memory.
const REAP: Duration = Duration::from_secs(5);

pub(super) struct Core {
    uring: IoUring,
    pub(super) slots: Slab<Slot>,
    /// Freed only when the kernel is known to have let go of them.
    provided: ManuallyDrop<Provided>,
    /// What other threads signal (`bell`).
    bell: RawFd,
    /// Tests have the kernel refuse so many submissions.
    #[cfg(test)]
    pub(super) refusals: u32,
    /// Entries that found the submission queue full, oldest first.
    waiting: VecDeque<Entry>,
    /// Entries queued so far, modulo 2^32.
    queued: u32,
    completions_a_turn: usize,
}

/// What a pass over the completions leaves to be done without the ring.
#[derive(Default)]
pub(super) struct Aftermath {
    /// Who waited for what has ended.
    woken: Vec<Waker>,
    /// What the kernel has let go of and nobody waits for.
    freed: Vec<Box<dyn Any>>,
}

impl Aftermath {
    /// Who is to be woken besides.
    pub(super) fn woken(&mut self) -> &mut Vec<Waker> {
        &mut self.woken
    }

    /// Wakes and frees. Both may run anything, operations on the ring included,
    /// and so the caller must have let go of the [`Core`].
    pub(super) fn settle(&mut self) {
        self.freed.clear();
        for waker in self.woken.drain(..) {
            waker.wake();
        }
    }
}

impl Core {
    /// `bell` must be open for as long as this is there.
    pub(super) fn new(bell: RawFd, sizes: &Sizes, counters: &Counters) -> io::Result<Core> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(sizes.completions)
            .dontfork()
            .build(sizes.submissions)?;
        // The second is for sockets and pipes; 0 leaves it as it is.
        let mut workers = [limits::FILE_WORKERS, 0];
        uring.submitter().register_iowq_max_workers(&mut workers)?;
        let provided = Provided::new(sizes.buffers, sizes.buffer_octets);
        // SAFETY: the address is that of a page-aligned ring of `count()`
        // entries, which lives until after the `IoUring` has been closed.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(
                provided.address(),
                provided.count(),
                GROUP,
                0,
            )
        }?;
        let mut core = Core {
            uring,
            slots: Slab::new(),
            provided: ManuallyDrop::new(provided),
            bell,
            #[cfg(test)]
            refusals: 0,
            waiting: VecDeque::new(),
            queued: 0,
            completions_a_turn: sizes.completions_a_turn,
        };
        core.listen_to_bell(counters);
        Ok(core)
    }

    /// Polls the bell's descriptor, once for all of its signals (`poll(2)`; each is
    /// an edge, and nobody has to read it).
    fn listen_to_bell(&mut self, counters: &Counters) {
        let readable = u32::try_from(libc::POLLIN).expect("a small number");
        let entry = opcode::PollAdd::new(Fd(self.bell), readable)
            .multi(true)
            .build()
            .user_data(BELL);
        // SAFETY: the entry holds no address.
        unsafe { self.push(entry, counters) };
    }

    pub(super) fn in_flight(&self) -> usize {
        self.slots.len()
    }

    /// Queues an entry; one that finds the queue full waits for the next turn.
    /// Entries reach the kernel in the order in which they were queued.
    ///
    /// # Safety
    ///
    /// What the entry points to must stay valid until its completion has been
    /// dispatched.
    pub(super) unsafe fn push(&mut self, entry: Entry, counters: &Counters) {
        self.queued = self.queued.wrapping_add(1);
        if !self.waiting.is_empty() {
            count(&counters.queue_full);
            self.waiting.push_back(entry);
            return;
        }
        // SAFETY: the caller's promise.
        if unsafe { self.uring.submission().push(&entry) }.is_err() {
            count(&counters.queue_full);
            self.waiting.push_back(entry);
        }
    }

    /// Whether the kernel has yet to see the entry of this number, of which there
    /// are as many as [`Core::push`] was called times. An entry of four billion
    /// entries ago may be taken for one.
    pub(super) fn is_queued(&mut self, number: u32) -> bool {
        let unseen = self.uring.submission().len() + self.waiting.len();
        let since = self.queued.wrapping_sub(number);
        usize::try_from(since).is_ok_and(|since| since <= unseen)
    }

    /// Asks the kernel to end the operation in slot `key`.
    pub(super) fn cancel(&mut self, key: usize, counters: &Counters) {
        let entry = opcode::AsyncCancel::new(key as u64)
            .build()
            .user_data(NOBODY);
        // SAFETY: the entry holds no address.
        unsafe { self.push(entry, counters) };
    }

    /// Arms the multishot accept of slot `key`.
    pub(super) fn arm_accept(&mut self, key: usize, listener: i32, counters: &Counters) {
        let entry = opcode::AcceptMulti::new(Fd(listener))
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(key as u64);
        if let Slot::Accept(accept) = &mut self.slots[key] {
            accept.armed = true;
            accept.entry = self.queued;
        }
        // SAFETY: a multishot accept takes no address from us.
        unsafe { self.push(entry, counters) };
    }

    /// Arms the multishot receive of slot `key`.
    pub(super) fn arm_receive(&mut self, key: usize, socket: i32, counters: &Counters) {
        let entry = opcode::RecvMulti::new(Fd(socket), GROUP)
            .build()
            .user_data(key as u64);
        if let Slot::Receive(receive) = &mut self.slots[key] {
            receive.armed = true;
            receive.entry = self.queued;
        }
        // SAFETY: the kernel writes into the provided buffers, which outlive
        // the ring, and only into those that it was given.
        unsafe { self.push(entry, counters) };
    }

    /// Hands queued entries to the kernel, runs its deferred work, and waits for a
    /// completion if there is none and `patience` allows it.
    pub(super) fn enter(
        &mut self,
        patience: Patience,
        counters: &Counters,
    ) -> io::Result<Submitted> {
        let mut submitted = Submitted::Nothing;
        loop {
            let submission = self.uring.submission();
            let (queued, taskrun) = (!submission.is_empty(), submission.taskrun());
            let overflow = submission.cq_overflow();
            drop(submission);
            if overflow {
                count(&counters.overflows);
            }
            // What does not fit goes first, and nobody waits before it has gone.
            let all_queued = self.waiting.is_empty();
            let recovers = matches!(patience, Patience::Recover(_));
            let may_wait = (all_queued || recovers) && self.uring.completion().is_empty();
            let patience = if may_wait { patience } else { Patience::None };
            if patience == Patience::None && !queued && !taskrun && !overflow {
                return Ok(submitted);
            }
            count(&counters.enters);
            match self.enter_once(patience) {
                Ok(_) if queued && !recovers => submitted = Submitted::Entries,
                Ok(_) => {}
                // The wait is over, by a timer or by a signal.
                Err(error) if is_over(&error) => {}
                // EBUSY: the completion queue must be emptied first; EAGAIN: the
                // kernel is short of memory.
                Err(error) if is_transient(&error) => return Ok(Submitted::Refused),
                Err(error) => return Err(error),
            }
            if all_queued || recovers {
                return Ok(submitted);
            }
            while let Some(entry) = self.waiting.front() {
                // SAFETY: `push` was promised this of every entry that waits.
                if unsafe { self.uring.submission().push(entry) }.is_err() {
                    break;
                }
                self.waiting.pop_front();
            }
        }
    }

    /// One system call.
    fn enter_once(&mut self, patience: Patience) -> io::Result<usize> {
        #[cfg(test)]
        if self.refusals > 0 && !matches!(patience, Patience::Recover(_)) {
            self.refusals -= 1;
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let submitter = self.uring.submitter();
        match patience {
            Patience::None => submitter.submit(),
            Patience::Endless => submitter.submit_and_wait(1),
            Patience::For(time) => {
                let time = Timespec::from(time);
                submitter.submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
            Patience::Recover(time) => {
                let time = Timespec::from(time);
                let arguments = SubmitArgs::new().timespec(&time);
                // SAFETY: nothing is submitted, and the argument and the time that
                // it points to live until the call returns.
                unsafe { submitter.enter(0, 1, WAIT, Some(&arguments)) }
            }
        }
    }

    /// Whoever waits for a completion, for good: nobody is woken by one any more.
    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        let wakers = self.slots.iter_mut().filter_map(|(_, slot)| match slot {
            Slot::Waiting(waker) => waker.take(),
            Slot::Accept(accept) => accept.waker.take(),
            Slot::Receive(receive) => receive.waker.take(),
            Slot::Done(_)
            | Slot::Abandoned { .. }
            | Slot::Closing(_)
            | Slot::AbandonedStream { .. } => None,
        });
        wakers.collect()
    }

    /// Dispatches the completions there are, up to a turn's; says how many.
    pub(super) fn dispatch(&mut self, counters: &Counters, after: &mut Aftermath) -> usize {
        let mut dispatched = 0;
        while dispatched < self.completions_a_turn {
            // One at a time: the entry must be gone from the queue before a
            // receive is armed again in its place.
            let Some(entry) = self.uring.completion().next() else {
                break;
            };
            dispatched += 1;
            count(&counters.completions);
            match entry.user_data() {
                NOBODY => {}
                BELL if cqueue::more(entry.flags()) => {}
                BELL => self.listen_to_bell(counters),
                key => {
                    let key = usize::try_from(key).expect("keys are usize");
                    self.complete(key, entry.result(), entry.flags(), counters, after);
                }
            }
        }
        dispatched
    }

    /// Books one completion of the operation in slot `key`.
    pub(super) fn complete(
        &mut self,
        key: usize,
        result: i32,
        flags: u32,
        counters: &Counters,
        after: &mut Aftermath,
    ) {
        let more = cqueue::more(flags);
        let buffer = cqueue::buffer_select(flags);
        if let Some(number) = buffer {
            self.provided.take(number);
        }
        match &mut self.slots[key] {
            Slot::Waiting(waker) => {
                after.woken.extend(waker.take());
                self.slots[key] = Slot::Done(result);
            }
            Slot::Done(_) => unreachable!("an operation completes once"),
            Slot::Closing(descriptor) => {
                // Given up before it began, at the ring's end: it is still open.
                let is_open = result == -libc::ECANCELED;
                close_result(is_open, *descriptor);
                self.slots.remove(key);
            }
            Slot::Abandoned {
                yields_descriptor, ..
            } => {
                close_result(*yields_descriptor, result);
                if let Slot::Abandoned { memory, .. } = self.slots.remove(key) {
                    after.freed.push(memory);
                }
            }
            Slot::AbandonedStream {
                yields_descriptors, ..
            } => {
                close_result(*yields_descriptors, result);
                if !more {
                    self.slots.remove(key);
                }
            }
            Slot::Accept(accept) => {
                accepted(accept, decode(result), more, counters);
                after.woken.extend(accept.waker.take());
            }
            Slot::Receive(receive) => {
                let bytes = match (buffer, usize::try_from(result)) {
                    (Some(number), Ok(length)) => self.provided.received(number, length),
                    _ => &[],
                };
                let throttle = received(receive, result, bytes, more, counters);
                if let (Some(number), Ok(length)) = (buffer, usize::try_from(result)) {
                    self.provided.erase(number, length);
                }
                after.woken.extend(receive.waker.take());
                if throttle {
                    self.cancel(key, counters);
                }
            }
        }
        if let Some(number) = buffer {
            self.provided.give(number);
        }
    }

    /// Cancels everything and waits until the kernel holds no memory of ours.
    fn reap(&mut self) -> bool {
        let counters = Counters::default();
        let deadline = std::time::Instant::now() + REAP;
        let mut after = Aftermath::default();
        while !self.slots.is_empty() {
            if std::time::Instant::now() > deadline
                || self.enter(Patience::None, &counters).is_err()
            {
                return false;
            }
            let patience = Timespec::new().nsec(10_000_000);
            // ENOENT means that nothing was left to cancel, ETIME that
            // something needs another round; the loop's condition decides.
            let _ = self
                .uring
                .submitter()
                .register_sync_cancel(Some(patience), CancelBuilder::any());
            let settled: Vec<usize> = self
                .slots
                .iter()
                .filter(|(_, slot)| is_settled(slot))
                .map(|(key, _)| key)
                .collect();
            for key in settled {
                self.slots.remove(key);
            }
            self.dispatch(&counters, &mut after);
        }
        true
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if self.reap() {
            // SAFETY: the kernel has no request left that could fill a buffer,
            // and `provided` is not used again.
            unsafe { ManuallyDrop::drop(&mut self.provided) };
        } else {
            // The kernel may still write to what the slots own and to the
            // buffers, even after the ring's descriptor is closed: better a leak
            // at the process's end than memory that two parties use.
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN))
}

fn is_over(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR))
}

/// Whether the kernel has nothing left to say about a slot.
fn is_settled(slot: &Slot) -> bool {
    match slot {
        Slot::Done(_) => true,
        Slot::Accept(accept) => !accept.armed,
        Slot::Receive(receive) => !receive.armed,
        _ => false,
    }
}

fn close_result(is_descriptor: bool, result: i32) {
    if let (true, Ok(descriptor)) = (is_descriptor, decode(result)) {
        drop(adopt(descriptor));
    }
}

fn accepted(accept: &mut Accept, result: io::Result<u32>, more: bool, counters: &Counters) {
    accept.armed = more;
    match result {
        Ok(descriptor) => {
            accept.ready.push_back(adopt(descriptor));
            if !more {
                // The owner arms it again when it has taken what is ready.
                count(&counters.ended_early);
            }
        }
        Err(error) => accept.failed = Some(error),
    }
}

/// Books what a receive brought; says whether it is to be stopped.
fn received(
    receive: &mut Receive,
    result: i32,
    bytes: &[u8],
    more: bool,
    counters: &Counters,
) -> bool {
    receive.armed = more;
    if !more {
        receive.throttling = false;
    }
    match decode(result) {
        Ok(0) => receive.end = Some(End::Closed),
        Ok(_) => {
            receive.unread.extend_from_slice(bytes);
            if !more {
                // The owner arms it again when it has taken the bytes.
                count(&counters.ended_early);
            }
        }
        Err(error) => match error.raw_os_error() {
            // The owner arms it again when it polls: by then this pass has
            // given every buffer back.
            Some(libc::ENOBUFS) => count(&counters.buffers_exhausted),
            // Our own throttling; the bytes are read first.
            Some(libc::ECANCELED) => {}
            _ => receive.end = Some(End::Failed(error)),
        },
    }
    let throttle = more && !receive.throttling && receive.unread.len() > limits::PIPELINED;
    if throttle {
        receive.throttling = true;
        count(&counters.throttled);
    }
    throttle
}
