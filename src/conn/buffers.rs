//! The shard's pool of buffers.
//!
//! A connection borrows a buffer while it has something to say or to read and
//! gives it back when that has been sent, so that a shard owns as many as it has
//! connections at work, not as it has connections. What is above the pool's
//! bound after a burst goes back to the allocator.

use std::cell::RefCell;

use crate::limits;

/// Buffers of one size.
#[derive(Debug, Default)]
pub struct Buffers {
    free: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    /// An empty buffer of [`limits::BUFFER`] octets.
    pub fn lend(&self) -> Vec<u8> {
        let kept = self.free.borrow_mut().pop();
        kept.unwrap_or_else(|| Vec::with_capacity(limits::BUFFER))
    }

    /// Takes a buffer back. One that is not of the pool's making (an empty
    /// vector that stood in for it) is dropped.
    pub fn take_back(&self, mut buffer: Vec<u8>) {
        let mut free = self.free.borrow_mut();
        if buffer.capacity() >= limits::BUFFER && free.len() < limits::POOLED_BUFFERS {
            buffer.clear();
            free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_empty_and_the_pool_is_bounded() {
        let buffers = Buffers::default();
        let mut one = buffers.lend();
        one.extend_from_slice(b"secret");
        let address = one.as_ptr();
        buffers.take_back(one);
        let again = buffers.lend();
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        buffers.take_back(Vec::new());
        assert!(buffers.free.borrow().is_empty());
        let many: Vec<Vec<u8>> = (0..limits::POOLED_BUFFERS + 5)
            .map(|_| buffers.lend())
            .collect();
        for buffer in many {
            buffers.take_back(buffer);
        }
        assert_eq!(buffers.free.borrow().len(), limits::POOLED_BUFFERS);
    }
}
