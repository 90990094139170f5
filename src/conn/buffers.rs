//! The shard's pool of buffers.
//!
//! A connection borrows a buffer while it has something to say or to read and
//! gives it back when that has been sent, so that a shard owns as many as it has
//! connections at work, not as it has connections. There are three sizes: a burst
//! of a thousand greetings takes a thousand of the small ones, and only a message
//! or a long listing needs a large one, and with TLS another for the records.
//! What is above the pool's bounds after a burst goes back to the allocator.

use std::cell::RefCell;

use crate::limits;

/// What a buffer is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Replies: [`limits::REPLY_BUFFER`] octets.
    Reply,
    /// A window of a message or a long listing: [`limits::WINDOW`] octets.
    Window,
    /// The records of a window: [`limits::RECORDS`] octets.
    Records,
}

impl Purpose {
    /// The smallest buffer that holds `octets`, or the largest there is.
    pub(super) fn for_octets(octets: u64) -> Purpose {
        if octets <= limits::REPLY_BUFFER as u64 {
            Purpose::Reply
        } else {
            Purpose::Window
        }
    }

    /// The smallest buffer that holds the records of so much text, or the largest
    /// there is.
    pub(super) fn for_records(octets: usize) -> Purpose {
        if octets + limits::RECORD_OVERHEAD <= limits::REPLY_BUFFER {
            Purpose::Reply
        } else {
            Purpose::Records
        }
    }
}

/// Free buffers.
#[derive(Debug, Default)]
pub struct Buffers {
    small: RefCell<Vec<Vec<u8>>>,
    large: RefCell<Vec<Vec<u8>>>,
    records: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    /// An empty buffer.
    pub(super) fn lend(&self, purpose: Purpose) -> Vec<u8> {
        let (free, octets) = match purpose {
            Purpose::Reply => (&self.small, limits::REPLY_BUFFER),
            Purpose::Window => (&self.large, limits::WINDOW),
            Purpose::Records => (&self.records, limits::RECORDS),
        };
        let kept = free.borrow_mut().pop();
        kept.unwrap_or_else(|| Vec::with_capacity(octets))
    }

    /// Takes a buffer back. One that is not of the pool's making (a vector of a
    /// few octets that stood in for it) is dropped.
    pub(super) fn take_back(&self, mut buffer: Vec<u8>) {
        let (free, most) = match buffer.capacity() {
            limits::WINDOW => (&self.large, limits::POOLED_WINDOWS),
            limits::REPLY_BUFFER => (&self.small, limits::POOLED_REPLY_BUFFERS),
            limits::RECORDS => (&self.records, limits::POOLED_WINDOWS),
            _ => return,
        };
        let mut free = free.borrow_mut();
        if free.len() < most {
            buffer.clear();
            free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_empty_and_to_their_own_pool() {
        let buffers = Buffers::default();
        for purpose in [Purpose::Reply, Purpose::Window, Purpose::Records] {
            let mut one = buffers.lend(purpose);
            let capacity = one.capacity();
            one.extend_from_slice(b"secret");
            let address = one.as_ptr();
            buffers.take_back(one);
            let again = buffers.lend(purpose);
            assert_eq!((again.as_ptr(), again.len()), (address, 0));
            assert_eq!(again.capacity(), capacity);
        }
    }

    #[test]
    fn the_pools_are_bounded_and_take_no_stranger() {
        let buffers = Buffers::default();
        buffers.take_back(Vec::new());
        buffers.take_back(Vec::with_capacity(100));
        let many: Vec<Vec<u8>> = (0..limits::POOLED_WINDOWS + 5)
            .map(|_| buffers.lend(Purpose::Window))
            .collect();
        for buffer in many {
            buffers.take_back(buffer);
        }
        assert!(buffers.small.borrow().is_empty());
        assert_eq!(buffers.large.borrow().len(), limits::POOLED_WINDOWS);
    }
}
