//! Message numbers and octet counts, kept apart by type.

use std::iter::Sum;
use std::num::NonZeroU32;
use std::ops::{Add, AddAssign, Sub};

/// A message's number in a session: from 1, fixed for the session's whole life
/// whatever is deleted meanwhile (RFC 1939, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageNumber(NonZeroU32);

impl MessageNumber {
    /// The first message of a maildrop.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// `None` for 0, which is no message's number.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number of the message at `index`, which counts from 0; `None` past
    /// the last number there is.
    pub fn from_index(index: usize) -> Option<Self> {
        let number = u32::try_from(index).ok()?.checked_add(1)?;
        Self::new(number)
    }

    /// The number as the client writes it, from 1.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The place in a table of messages, from 0.
    pub const fn index(self) -> usize {
        self.0.get() as usize - 1
    }

    /// The number after this one; `None` past the last number there is.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

/// A size as RFC 1939 (section 11) counts it: every line end as the two octets
/// CRLF, before dot-stuffing, without the terminator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Octets(u64);

impl Octets {
    /// No octets.
    pub const ZERO: Self = Self(0);

    /// A size of `octets`.
    pub const fn new(octets: u64) -> Self {
        Self(octets)
    }

    /// The size as a number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Add for Octets {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl AddAssign for Octets {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Octets {
    type Output = Self;

    fn sub(self, part: Self) -> Self {
        let rest = self.0.checked_sub(part.0);
        Self(rest.expect("a part is no larger than the whole"))
    }
}

impl Sum for Octets {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_start_at_one() {
        assert_eq!(MessageNumber::new(0), None);
        assert_eq!(MessageNumber::new(1), Some(MessageNumber::FIRST));
        assert_eq!(MessageNumber::FIRST.index(), 0);
        assert_eq!(MessageNumber::from_index(0), Some(MessageNumber::FIRST));
    }

    #[test]
    fn numbers_end_at_the_largest() {
        let last = MessageNumber::new(u32::MAX).expect("not 0");
        assert_eq!(last.next(), None);
        assert_eq!(MessageNumber::from_index(last.index()), Some(last));
        assert_eq!(MessageNumber::from_index(last.index() + 1), None);
    }

    #[test]
    fn an_absent_number_costs_no_space() {
        assert_eq!(size_of::<Option<MessageNumber>>(), size_of::<u32>());
    }

    #[test]
    fn octets_add_up() {
        let total: Octets = [Octets::new(2), Octets::new(40)].into_iter().sum();
        assert_eq!(total, Octets::new(42));
        assert_eq!(total - Octets::new(40), Octets::new(2));
    }
}
