//! What a thread remembers of a user from session to session, and the
//! contradictions it finds: a UIDL that changed, a message lost, one that came
//! back.
//!
//! Only what the server confirmed counts. A message is deleted when its DELE and
//! the QUIT behind it were answered with `+OK`; where the answer to QUIT never
//! came either may be true, and what was known is forgotten.

use std::hash::BuildHasher as _;

use foldhash::quality::FixedState;

use crate::auth::ScramKeys;
use crate::fault::{Fault, Kind};
use crate::maildrop::Maildrop;
use crate::reply::Digest;

/// One user.
#[derive(Debug, Default)]
pub struct Account {
    known: Option<Known>,
    /// UIDLs of messages that are deleted for good, by their hash.
    deleted: Vec<u64>,
    /// UIDLs of messages that were fetched, by their hash, in order.
    fetched: Vec<u64>,
    /// Of the last SCRAM login.
    pub scram: Option<ScramKeys>,
}

#[derive(Debug)]
struct Known {
    /// Of the whole listing, in its order; 0 where that is not known.
    digest: u64,
    /// Hashes of the UIDLs, in order, with the octets where LIST was asked.
    messages: Vec<(u64, Option<u64>)>,
}

/// What a session did, until QUIT makes it so.
#[derive(Debug, Default)]
pub struct Intent {
    /// Numbers of messages whose DELE was answered with `+OK`.
    pub deleted: Vec<u32>,
    /// Numbers of messages that were fetched whole.
    pub fetched: Vec<u32>,
    /// Digests of messages that were fetched whole, a message as often as it was.
    pub taken: Vec<(u32, Digest)>,
}

impl Intent {
    /// For the next session.
    pub fn clear(&mut self) {
        self.deleted.clear();
        self.fetched.clear();
        self.taken.clear();
    }

    /// Of each message that is deleted its digest, where it was fetched.
    pub fn deletions(&mut self) -> impl Iterator<Item = Option<Digest>> {
        self.deleted.sort_unstable();
        self.deleted.dedup();
        self.taken.sort_unstable_by_key(|(number, _)| *number);
        let taken = &self.taken;
        self.deleted.iter().map(|deleted| {
            let at = taken.binary_search_by_key(deleted, |(number, _)| *number);
            at.ok().map(|at| taken[at].1)
        })
    }
}

/// Hashes stand for text: chance makes none of these 64 bits alike in the mail of
/// a test.
fn hash(text: &[u8]) -> u64 {
    FixedState::default().hash_one(text)
}

impl Account {
    /// A UIDL listing that is complete: against itself and the one before. Octets
    /// are compared where LIST came before UIDL.
    pub fn check(&mut self, maildrop: &mut Maildrop) -> Option<Fault> {
        let digest = hash(maildrop.listing());
        // The common case, and the only one that must be fast: nothing is new.
        if let Some(known) = &mut self.known
            && known.digest == digest
        {
            return known.compare_octets(maildrop);
        }
        if let Some(twins) = maildrop.twins() {
            self.known = None;
            return Some(twins);
        }
        let listed = u32::try_from(maildrop.uidls()).unwrap_or(u32::MAX);
        let mut messages: Vec<(u64, Option<u64>)> = (1..=listed)
            .map(|number| (hash(maildrop.uidl(number)), maildrop.octets_of(number)))
            .collect();
        messages.sort_unstable();
        let has = |all: &[(u64, Option<u64>)], uidl: u64| {
            all.binary_search_by_key(&uidl, |(uidl, _)| *uidl).is_ok()
        };
        let back = self.deleted.iter().filter(|uidl| has(&messages, **uidl));
        let back = back.count();
        let mut fault = (back > 0).then(|| {
            let text = format!("{back} messages are listed that were deleted before");
            Fault::new(Kind::Doubled, text)
        });
        if let Some(known) = &self.known {
            let gone = known
                .messages
                .iter()
                .filter(|(uidl, _)| !has(&messages, *uidl));
            let gone = gone.count();
            let new = messages
                .iter()
                .filter(|(uidl, _)| !has(&known.messages, *uidl));
            let new = new.count();
            if gone > 0 {
                // As many new ones as are gone: the messages stayed, most likely.
                let (kind, what) = if new >= gone {
                    (Kind::UidlChanged, "and as many or more are new")
                } else {
                    (Kind::Lost, "and nobody here deleted them")
                };
                let text = format!("{gone} UIDLs of the session before are gone {what}");
                fault = Some(Fault::new(kind, text));
            }
            for (uidl, before) in &known.messages {
                let at = messages.binary_search_by_key(uidl, |(uidl, _)| *uidl);
                let Some((at, before)) = at.ok().zip(*before) else {
                    continue;
                };
                if *messages[at].1.get_or_insert(before) != before {
                    let text = "a message has its old UIDL and other octets";
                    fault = Some(Fault::new(Kind::UidlChanged, text));
                }
            }
        }
        self.known = Some(Known { digest, messages });
        fault
    }

    /// Whether no earlier session fetched this message.
    pub fn is_new(&self, uidl: &[u8]) -> bool {
        self.fetched.binary_search(&hash(uidl)).is_err()
    }

    /// QUIT was answered with `+OK`.
    pub fn commit(&mut self, intent: &Intent, maildrop: &Maildrop) {
        self.remember_fetched(intent, maildrop);
        if intent.deleted.is_empty() {
            return;
        }
        if maildrop.uidls() == 0 {
            // Deleted without UIDL: what is left cannot be said by name.
            self.known = None;
            return;
        }
        let gone = intent.deleted.iter().map(|n| hash(maildrop.uidl(*n)));
        let mut gone: Vec<u64> = gone.collect();
        gone.sort_unstable();
        if let Some(known) = &mut self.known {
            known
                .messages
                .retain(|(uidl, _)| gone.binary_search(uidl).is_err());
            known.digest = 0;
        }
        self.fetched
            .retain(|uidl| gone.binary_search(uidl).is_err());
        self.deleted.extend(gone);
    }

    /// The session broke off after QUIT was sent and before its answer.
    pub fn doubt(&mut self, intent: &Intent) {
        if !intent.deleted.is_empty() {
            self.known = None;
        }
    }

    fn remember_fetched(&mut self, intent: &Intent, maildrop: &Maildrop) {
        if intent.fetched.is_empty() || maildrop.uidls() == 0 {
            return;
        }
        let fetched = intent.fetched.iter().map(|n| hash(maildrop.uidl(*n)));
        self.fetched.extend(fetched);
        self.fetched.sort_unstable();
        self.fetched.dedup();
    }
}

impl Known {
    /// The octets of messages that are all known; those that no session asked for
    /// before are known from now on.
    fn compare_octets(&mut self, maildrop: &Maildrop) -> Option<Fault> {
        // Sessions that only look for new mail do not ask for octets.
        maildrop.octets_of(1)?;
        for number in 1..=u32::try_from(maildrop.uidls()).unwrap_or(u32::MAX) {
            let uidl = hash(maildrop.uidl(number));
            let at = self.messages.binary_search_by_key(&uidl, |(uidl, _)| *uidl);
            let (Ok(at), Some(now)) = (at, maildrop.octets_of(number)) else {
                continue;
            };
            if *self.messages[at].1.get_or_insert(now) != now {
                let text = format!("message {number} has its old UIDL and other octets");
                return Some(Fault::new(Kind::UidlChanged, text));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(uidls: &[&str], octets: u64) -> Maildrop {
        let mut maildrop = Maildrop::default();
        for (index, _) in uidls.iter().enumerate() {
            let row = format!("{} {octets}", index + 1);
            maildrop.take_list_row(row.as_bytes()).expect("sound");
        }
        for (index, uidl) in uidls.iter().enumerate() {
            let row = format!("{} {uidl}", index + 1);
            maildrop.take_uidl_row(row.as_bytes()).expect("sound");
        }
        maildrop
    }

    fn kind(account: &mut Account, mut maildrop: Maildrop) -> Option<Kind> {
        account.check(&mut maildrop).map(|fault| fault.kind)
    }

    #[test]
    fn what_stays_and_what_is_new_is_no_fault() {
        let mut account = Account::default();
        for uidls in [&["a", "b"][..], &["a", "b"], &["a", "x", "b"]] {
            assert_eq!(kind(&mut account, listing(uidls, 5)), None, "{uidls:?}");
        }
    }

    #[test]
    fn a_message_that_vanishes_or_changes_is_told() {
        let mut account = Account::default();
        assert_eq!(kind(&mut account, listing(&["a", "b"], 5)), None);
        assert_eq!(kind(&mut account, listing(&["a"], 5)), Some(Kind::Lost));
        assert_eq!(
            kind(&mut account, listing(&["z"], 5)),
            Some(Kind::UidlChanged)
        );
        assert_eq!(
            kind(&mut account, listing(&["z"], 6)),
            Some(Kind::UidlChanged)
        );
    }

    #[test]
    fn octets_are_compared_with_those_of_any_session_before() {
        let without = |uidls: &[&str]| {
            let mut maildrop = Maildrop::default();
            for (index, uidl) in uidls.iter().enumerate() {
                let row = format!("{} {uidl}", index + 1);
                maildrop.take_uidl_row(row.as_bytes()).expect("sound");
            }
            maildrop
        };
        let mut account = Account::default();
        for maildrop in [without(&["a"]), listing(&["a"], 5), without(&["a", "b"])] {
            assert_eq!(kind(&mut account, maildrop), None);
        }
        let changed = listing(&["a", "b"], 6);
        assert_eq!(kind(&mut account, changed), Some(Kind::UidlChanged));
        let mut account = Account::default();
        assert_eq!(kind(&mut account, listing(&["a"], 5)), None);
        let more = listing(&["a", "b"], 6);
        assert_eq!(kind(&mut account, more), Some(Kind::UidlChanged));
    }

    #[test]
    fn deleted_messages_stay_away() {
        let mut account = Account::default();
        let three = listing(&["a", "b", "c"], 5);
        assert_eq!(kind(&mut account, three.clone()), None);
        let intent = Intent {
            deleted: vec![2],
            ..Intent::default()
        };
        account.commit(&intent, &three);
        assert_eq!(kind(&mut account, listing(&["a", "c"], 5)), None);
        assert_eq!(kind(&mut account, three.clone()), Some(Kind::Doubled));
    }

    #[test]
    fn a_quit_without_an_answer_proves_nothing() {
        let mut account = Account::default();
        let two = listing(&["a", "b"], 5);
        let intent = Intent {
            deleted: vec![2],
            ..Intent::default()
        };
        for then in [&["a", "b"][..], &["a"]] {
            assert_eq!(kind(&mut account, two.clone()), None);
            account.doubt(&intent);
            assert_eq!(kind(&mut account, listing(then, 5)), None);
            account.doubt(&intent);
        }
    }

    #[test]
    fn fetched_messages_are_no_longer_new() {
        let mut account = Account::default();
        let two = listing(&["a", "b"], 5);
        let intent = Intent {
            fetched: vec![1],
            ..Intent::default()
        };
        account.commit(&intent, &two);
        assert!(!account.is_new(b"a") && account.is_new(b"b"));
    }
}
