//! How long messages are kept once a client has fetched them (`maildrop.retention`).
//!
//! Days are counted, not seconds: that is all that EXPIRE can promise (RFC 2449,
//! section 6.7), and two octets hold it.

use std::num::NonZeroU16;

/// A day, counted from 1970-01-01, which is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Day(NonZeroU16);

impl Day {
    /// The day of that number.
    pub(super) fn new(number: u16) -> Option<Self> {
        NonZeroU16::new(number).map(Self)
    }

    pub(super) fn get(self) -> u16 {
        self.0.get()
    }
}
