//! Stored passwords of some users of a directory that cannot be counted from here.
//!
//! A name that nobody has costs the verification of somebody's password (see
//! `judge`). Of a directory that answers from memory that may be anybody's; of one that
//! is away only those are known that it has told. So the first that it tells are kept,
//! one of each name: somebody who comes often, such as a monitoring system, must not be
//! all of them.
//! They stay, so that a name costs the same each time, and they are those of users who
//! log in, so that the costs are spread as theirs are.

use crate::auth::{UserName, Verifier};
use crate::limits;

/// At most [`limits::DECOYS`] stored passwords; overwritten when dropped.
#[derive(Default)]
pub(super) struct Decoys(Vec<(UserName, Verifier)>);

impl Decoys {
    /// Keeps that of a user of whom there is none, if there is room.
    pub(super) fn offer(&mut self, user: &UserName, verifier: &Verifier) {
        let has_room = self.0.len() < limits::DECOYS;
        if has_room && self.0.iter().all(|(known, _)| known != user) {
            self.0.push((user.clone(), verifier.clone()));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<Verifier> {
        self.0.get(index).map(|(_, verifier)| verifier.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_kept_and_stay() {
        let mut decoys = Decoys::default();
        let slow = Verifier::stand_in();
        let quick = Verifier::parse(b"{PLAIN}x").expect("a scheme");
        let name = |number: usize| UserName::new(format!("user{number}").as_bytes());
        let name = |number| name(number).expect("a name");
        decoys.offer(&name(0), &slow);
        // Who comes often counts once.
        decoys.offer(&name(0), &quick);
        assert_eq!(decoys.len(), 1);
        for number in 0..2 * limits::DECOYS {
            decoys.offer(&name(number), &quick);
        }
        assert_eq!(decoys.len(), limits::DECOYS);
        assert!(decoys.get(0).is_some_and(|verifier| verifier.is_slow()));
        assert!(decoys.get(limits::DECOYS).is_none());
    }
}
