//! A value that the kernel may read or write while its owner moves.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// A value on the heap whose address the kernel has.
///
/// Not a `Box`: who moves a box states that nobody else touches what is in it,
/// and here the kernel does. The value cannot be reached until it is taken back.
pub(super) struct Lent<T>(NonNull<T>);

impl<T> Lent<T> {
    pub(super) fn new(value: T) -> Lent<T> {
        Lent(NonNull::from(Box::leak(Box::new(value))))
    }

    /// Where the value is, wherever its owner goes.
    pub(super) fn address(&self) -> *mut T {
        self.0.as_ptr()
    }

    /// The value, with what the kernel wrote.
    pub(super) fn take_back(self) -> T {
        let lent = ManuallyDrop::new(self);
        // SAFETY: the pointer came from a box in `new`, and the destructor, which
        // alone makes a box of it too, does not run.
        let value = unsafe { Box::from_raw(lent.address()) };
        *value
    }
}

impl<T> Drop for Lent<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a box in `new`, and `take_back`, which
        // alone makes a box of it too, leaves nothing to be dropped.
        drop(unsafe { Box::from_raw(self.address()) });
    }
}
