//! Buffers that the kernel picks from when bytes arrive (`io_uring_setup_buf_ring(3)`).
//!
//! The ring of entries and the buffers behind it are one allocation that outlives
//! every receive. A buffer is the kernel's from [`Provided::give`]
//! until a completion names its number ([`Provided::take`]), and ours from then
//! until it is given back; dispatch copies the bytes out and gives it back in the
//! same pass. An assertion holds that no buffer is given or taken twice.
//!
//! The tail is stored with `Release`, after the entry: the kernel loads it with
//! `Acquire` before it reads one (`io_ring_buffer_select` of `io_uring/kbuf.c`).
//! The kernel's side needs no look: it can take no more than it was given.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// The group under which the buffers are registered; a ring has one.
pub(super) const GROUP: u16 = 0;

/// What the kernel wants the ring of entries aligned to: a page of any machine.
const ALIGNMENT: usize = 64 * 1024;

/// Most entries that one group may have (`io_uring_register_buf_ring(3)`).
const MOST: u16 = 1 << 15;

/// What tests find in a buffer that is the kernel's.
#[cfg(test)]
pub(super) const POISON: u8 = 0xdb;

/// The buffers and the ring of entries that offers them to the kernel.
pub(super) struct Provided {
    /// The ring's entries, one for each buffer, then the buffers.
    memory: NonNull<u8>,
    layout: Layout,
    /// Buffers, a power of two.
    count: u16,
    /// Octets of each.
    size: u32,
    tail: u16,
    /// Which buffers are the kernel's.
    lent: Vec<bool>,
}

impl Provided {
    /// Allocates `count` buffers of `size` octets and fills the ring; nothing is
    /// registered yet.
    pub(super) fn new(count: u16, size: u32) -> Provided {
        assert!(count.is_power_of_two() && count <= MOST, "{count} buffers");
        let octets = usize::from(count) * (size_of::<BufRingEntry>() + size as usize);
        let layout = Layout::from_size_align(octets, ALIGNMENT).expect("a few megabytes");
        // SAFETY: the layout's size is not zero: there is at least one buffer.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else {
            handle_alloc_error(layout);
        };
        let mut provided = Provided {
            memory,
            layout,
            count,
            size,
            tail: 0,
            lent: vec![false; count.into()],
        };
        for number in 0..count {
            provided.give(number);
        }
        provided
    }

    /// Address of the entries, for the registration.
    pub(super) fn address(&self) -> u64 {
        self.memory.as_ptr() as u64
    }

    /// How many entries there are.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    fn buffer(&self, number: u16) -> NonNull<u8> {
        assert!(
            number < self.count,
            "the kernel names buffers that it was given"
        );
        let entries = usize::from(self.count) * size_of::<BufRingEntry>();
        let offset = entries + usize::from(number) * self.size as usize;
        // SAFETY: the number is below the count, so the buffer lies within the
        // allocation.
        unsafe { self.memory.add(offset) }
    }

    /// A completion has named buffer `number`: it is ours.
    pub(super) fn take(&mut self, number: u16) {
        let lent = std::mem::replace(&mut self.lent[usize::from(number)], false);
        assert!(lent, "buffer {number} was not the kernel's");
    }

    /// The first `length` octets of buffer `number`, which has been taken.
    pub(super) fn received(&self, number: u16, length: usize) -> &[u8] {
        assert!(
            length <= self.size as usize,
            "the kernel fills a buffer at most"
        );
        let start = self.buffer(number);
        // SAFETY: the buffer was zeroed at allocation and is ours between the
        // completion that named it and `give`, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), length) }
    }

    /// Overwrites the first `length` octets of buffer `number`, which has been taken: the
    /// kernel need not be the only one who forgets a password.
    pub(super) fn erase(&mut self, number: u16, length: usize) {
        assert!(
            length <= self.size as usize,
            "the kernel fills a buffer at most"
        );
        let start = self.buffer(number);
        // SAFETY: the buffer has `size` octets, and is ours between the completion that
        // named it and `give`, which needs `&mut self`, as this does.
        unsafe { start.write_bytes(0, length) };
    }

    /// Hands buffer `number` to the kernel.
    pub(super) fn give(&mut self, number: u16) {
        let lent = std::mem::replace(&mut self.lent[usize::from(number)], true);
        assert!(!lent, "buffer {number} is the kernel's already");
        #[cfg(test)]
        // SAFETY: the buffer has `size` octets and is ours up to here.
        unsafe {
            self.buffer(number).write_bytes(POISON, self.size as usize);
        }
        let buffer = self.buffer(number).as_ptr() as u64;
        let index = usize::from(self.tail & (self.count - 1));
        let first = self.memory.cast::<BufRingEntry>();
        // SAFETY: the index is below the count, so the entry is one of those at
        // the allocation's start, which is aligned for them.
        let mut slot = unsafe { first.add(index) };
        // SAFETY: the memory was zeroed at allocation, which is a valid entry.
        // The kernel reads an entry from the tail's passing it until it has taken
        // the buffer; there are no more entries than buffers, so it has taken the
        // one that stood here. In the first entry lies the tail too, which the
        // kernel only reads.
        let entry = unsafe { slot.as_mut() };
        entry.set_addr(buffer);
        entry.set_len(self.size);
        entry.set_bid(number);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `first` is the ring's base, page-aligned and initialised.
        let tail = unsafe { BufRingEntry::tail(first.as_ptr()) };
        // SAFETY: the tail shares its two octets with nothing but the kernel,
        // which reads them atomically; they live as long as `self`.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Provided {
    fn drop(&mut self) {
        // SAFETY: `memory` came from `alloc_zeroed` with this layout, and `Core`
        // drops the buffers only when the kernel holds no receive any more.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) };
    }
}
