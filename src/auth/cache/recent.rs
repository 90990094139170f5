//! A map of what was used last, bounded in entries.
//!
//! It is two maps: what is used or new goes to the young one, and a young one that has
//! half of the entries becomes the old one, whose predecessor is dropped. That is
//! least-recently-used to within a factor of two, without a list to maintain.

use std::collections::HashMap;
use std::hash::Hash;

/// At most twice as many entries as each call of [`Recent::insert`] has room for.
pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }
}

impl<K: Hash + Eq, V> Recent<K, V> {
    /// What is kept under this key, which stays longer for having been asked for.
    pub(super) fn get(&mut self, key: &K, room: usize) -> Option<&mut V> {
        if !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.insert(key, value, room);
        }
        self.young.get_mut(key)
    }

    /// Keeps a value in place of the one there was; each of the two maps has `room`.
    pub(super) fn insert(&mut self, key: K, value: V, room: usize) {
        if self.young.len() >= room && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_comes_often_stays() {
        let mut recent = Recent::default();
        recent.insert("often".to_owned(), 0, 4);
        for number in 0..1000 {
            recent.insert(number.to_string(), number, 4);
            assert!(recent.get(&"often".to_owned(), 4).is_some(), "{number}");
            assert!(recent.len() <= 8);
        }
    }

    proptest! {
        #[test]
        fn it_says_what_was_put_last_or_nothing(
            puts in prop::collection::vec((0_u8..12, any::<u16>()), 0..80),
        ) {
            let (mut recent, mut model) = (Recent::default(), HashMap::new());
            for (key, value) in puts {
                recent.insert(key, value, 3);
                model.insert(key, value);
                prop_assert!(recent.len() <= 6);
                prop_assert_eq!(recent.get(&key, 3).copied(), Some(value));
                for (key, value) in &model {
                    let found = recent.get(key, 3).copied();
                    prop_assert!(found.is_none_or(|found| found == *value));
                }
                recent.remove(&99);
            }
        }
    }
}
