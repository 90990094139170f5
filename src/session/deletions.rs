//! The messages that a session has marked as deleted.
//!
//! One bit for each message of the maildrop, allocated by the first mark: most
//! sessions delete nothing. How many are marked, and their size, is kept beside
//! the bits, since STAT asks for both.

use crate::proto::{MessageNumber, Octets};

/// A set of message numbers of one maildrop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletions {
    /// Empty, or one bit for each message.
    words: Box<[u64]>,
    messages: u32,
    octets: Octets,
}

impl Deletions {
    /// Marks a message of `octets` in a maildrop of `messages`. Returns whether
    /// it was not marked before.
    pub(super) fn insert(
        &mut self,
        message: MessageNumber,
        octets: Octets,
        messages: usize,
    ) -> bool {
        assert!(message.index() < messages, "the message exists");
        if self.words.is_empty() {
            self.words = vec![0; messages.div_ceil(64)].into_boxed_slice();
        }
        let (word, bit) = place(message);
        if self.words[word] & bit != 0 {
            return false;
        }
        self.words[word] |= bit;
        self.messages += 1;
        self.octets += octets;
        true
    }

    /// Whether the message is marked.
    pub fn contains(&self, message: MessageNumber) -> bool {
        let (word, bit) = place(message);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Whether no message is marked.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// How many messages are marked.
    pub fn len(&self) -> u32 {
        self.messages
    }

    /// The size of the marked messages together.
    pub fn octets(&self) -> Octets {
        self.octets
    }

    /// The marked messages in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = MessageNumber> + '_ {
        self.words.iter().enumerate().flat_map(|(at, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                left &= left.checked_sub(1)?;
                MessageNumber::from_index(at * 64 + bit as usize)
            })
        })
    }
}

fn place(message: MessageNumber) -> (usize, u64) {
    (message.index() / 64, 1 << (message.index() % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_mark_costs_no_heap() {
        let none = Deletions::default();
        assert!(none.is_empty() && none.words.is_empty());
        assert!(!none.contains(MessageNumber::FIRST));
        assert_eq!(none.iter().next(), None);
    }

    #[test]
    fn a_second_mark_changes_nothing() {
        let mut deletions = Deletions::default();
        let size = Octets::new(7);
        assert!(deletions.insert(MessageNumber::FIRST, size, 1));
        assert!(!deletions.insert(MessageNumber::FIRST, size, 1));
        assert_eq!((deletions.len(), deletions.octets()), (1, size));
    }

    proptest! {
        #[test]
        fn it_is_a_set_in_order(marks in prop::collection::vec(1_u32..=300, 0..80)) {
            let mut deletions = Deletions::default();
            let mut model = BTreeSet::new();
            for &mark in &marks {
                let message = MessageNumber::new(mark).expect("not 0");
                let fresh = deletions.insert(message, Octets::new(u64::from(mark)), 300);
                prop_assert_eq!(fresh, model.insert(mark));
            }
            let listed: Vec<u32> = deletions.iter().map(MessageNumber::get).collect();
            let expected: Vec<u32> = model.iter().copied().collect();
            prop_assert_eq!(listed, expected);
            let octets: u64 = model.iter().copied().map(u64::from).sum();
            prop_assert_eq!(deletions.octets().get(), octets);
            for number in 1..=300 {
                let message = MessageNumber::new(number).expect("not 0");
                prop_assert_eq!(deletions.contains(message), model.contains(&number));
            }
        }
    }
}
