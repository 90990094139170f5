//! Buffers that the kernel picks from when bytes arrive (`io_uring_setup_buf_ring(3)`).
//!
//! The ring of entries and the buffers behind it are one allocation that outlives
//! every receive. A buffer is the kernel's from [`Provided::give`]
//! until a completion names its number, and ours from then until it is given
//! back; dispatch copies the bytes out and gives it back in the same pass.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::limits;

/// The group under which the buffers are registered; a ring has one.
pub(super) const GROUP: u16 = 0;

const COUNT: u16 = limits::PROVIDED_BUFFERS;
const SIZE: usize = limits::PROVIDED_BUFFER;
const PAGE: usize = 4096;
const ENTRIES: usize = COUNT as usize * size_of::<BufRingEntry>();
const _: () = assert!(COUNT.is_power_of_two());
const _: () = assert!(ENTRIES.is_multiple_of(PAGE));
const _: () = assert!(SIZE <= u32::MAX as usize);

/// The buffers and the ring of entries that offers them to the kernel.
pub(super) struct Provided {
    /// `ENTRIES` octets of ring, then `COUNT` buffers of `SIZE` octets.
    memory: NonNull<u8>,
    tail: u16,
}

impl Provided {
    /// Allocates the buffers and fills the ring; nothing is registered yet.
    pub(super) fn new() -> Provided {
        let layout = Provided::layout();
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else {
            handle_alloc_error(layout);
        };
        let mut provided = Provided { memory, tail: 0 };
        for number in 0..COUNT {
            provided.give(number);
        }
        provided
    }

    fn layout() -> Layout {
        Layout::from_size_align(ENTRIES + usize::from(COUNT) * SIZE, PAGE)
            .expect("a page-aligned layout of a few megabytes")
    }

    /// Address of the entries, for the registration.
    pub(super) fn address(&self) -> u64 {
        self.memory.as_ptr() as u64
    }

    /// How many entries there are.
    pub(super) fn count() -> u16 {
        COUNT
    }

    fn buffer(&self, number: u16) -> NonNull<u8> {
        assert!(number < COUNT, "the kernel names buffers that it was given");
        let offset = ENTRIES + usize::from(number) * SIZE;
        // SAFETY: `number < COUNT`, so the offset lies within the allocation.
        unsafe { self.memory.add(offset) }
    }

    /// The first `length` octets of buffer `number`, which a completion has
    /// just named.
    pub(super) fn received(&self, number: u16, length: usize) -> &[u8] {
        assert!(length <= SIZE, "the kernel fills a buffer at most");
        let start = self.buffer(number);
        // SAFETY: the buffer was zeroed at allocation and is ours between the
        // completion that named it and `give`, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), length) }
    }

    /// Hands buffer `number` to the kernel.
    pub(super) fn give(&mut self, number: u16) {
        let buffer = self.buffer(number).as_ptr() as u64;
        let index = usize::from(self.tail & (COUNT - 1));
        let first = self.memory.cast::<BufRingEntry>();
        // SAFETY: the index is below COUNT, so the entry lies in the first
        // `ENTRIES` octets, which are aligned for it by the page.
        let mut slot = unsafe { first.add(index) };
        // SAFETY: the memory was zeroed at allocation, which is a valid entry,
        // and the kernel reads only entries before the tail, which this is not.
        let entry = unsafe { slot.as_mut() };
        entry.set_addr(buffer);
        entry.set_len(u32::try_from(SIZE).expect("asserted above"));
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
        unsafe { dealloc(self.memory.as_ptr(), Provided::layout()) };
    }
}
