//! Logins that were good a moment ago.
//!
//! A POP3 client polls: the same name and password come every few minutes, and a
//! trip to the auth threads, let alone a slow hash, would prove what is known. So
//! what was verified is kept, and a login that brings the same password again is
//! answered at once, on its shard.
//!
//! Invariants:
//!
//! * Only a login that succeeded is kept, with the password that it had: any other
//!   password goes to the auth threads, and so does a changed one. A wrong password
//!   and an unknown name both miss, and take the same way.
//! * Nothing that was looked up before a reload answers after it: an entry carries
//!   the directories' generation from before its lookup.
//! * No password is kept, but a hash under a key that this process made and shows
//!   to nobody. It is a fast hash: its lookup is on a shard, and who can read the
//!   process's memory finds the key beside it.
//! * The bound is [`limits::AUTH_CACHE`] entries.
//!
//! Entries live in stripes with a lock each, held for one lookup. A stripe is two
//! maps: a hit or a new entry goes to the young one, and a young one that has half of
//! the stripe's entries becomes the old one, whose predecessor is dropped. That is
//! least-recently-used to within a factor of two, without a list to maintain.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use blake2::Blake2sMac256;
use blake2::digest::{KeyInit, Mac};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::judge::Admission;
use super::{Account, Credentials, UserName};
use crate::limits;

/// Locks of the cache: more than there are shards on any machine of today, so that
/// two seldom meet at one.
const STRIPES: usize = 256;

/// Octets of a fingerprint and of its key.
const DIGEST: usize = 32;

/// A password under this process's key.
#[derive(Clone, Copy)]
pub(super) struct Fingerprint([u8; DIGEST]);

/// The state of the directories: what was looked up in one is void in the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation(u64);

/// Good logins, by name.
pub(super) struct LoginCache {
    key: Zeroizing<[u8; DIGEST]>,
    hasher: RandomState,
    generation: AtomicU64,
    stripes: Box<[Mutex<Stripe>]>,
    /// The most entries of one map of one stripe.
    room: usize,
}

#[derive(Default)]
#[repr(align(128))]
struct Stripe {
    young: HashMap<UserName, Entry>,
    old: HashMap<UserName, Entry>,
    hits: u64,
}

struct Entry {
    fingerprint: Fingerprint,
    generation: Generation,
    admission: Admission,
}

impl LoginCache {
    /// An empty cache of [`limits::AUTH_CACHE`] entries at most.
    pub(super) fn new() -> Self {
        Self::with_room(limits::AUTH_CACHE)
    }

    fn with_room(entries: usize) -> Self {
        let mut key = Zeroizing::new([0; DIGEST]);
        getrandom::fill(&mut *key).expect("the kernel has randomness (getrandom(2))");
        Self {
            key,
            hasher: RandomState::new(),
            generation: AtomicU64::new(0),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            room: (entries / STRIPES / 2).max(1),
        }
    }

    /// The directories as they are now. To be asked before a lookup in them.
    pub(super) fn generation(&self) -> Generation {
        Generation(self.generation.load(Ordering::Acquire))
    }

    /// The directories have changed: what was known of them is void.
    pub(super) fn invalidate(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// What a login is remembered by.
    pub(super) fn fingerprint(&self, credentials: &Credentials) -> Fingerprint {
        let mut mac = Blake2sMac256::new_from_slice(&*self.key).expect("a key of 32 octets");
        // The name as well: equal passwords of two users show nothing.
        mac.update(&(credentials.user.as_bytes().len() as u64).to_le_bytes());
        mac.update(credentials.user.as_bytes());
        mac.update(credentials.password.as_bytes());
        Fingerprint(mac.finalize().into_bytes().into())
    }

    /// The account, if this login from this address was good before and would be now.
    pub(super) fn get(
        &self,
        user: &UserName,
        fingerprint: &Fingerprint,
        from: IpAddr,
    ) -> Option<Account> {
        let generation = self.generation();
        let mut stripe = self.stripe(user);
        if !stripe.young.contains_key(user) {
            let (user, entry) = stripe.old.remove_entry(user)?;
            stripe.insert(user, entry, self.room);
        }
        let entry = stripe.young.get(user)?;
        let same = entry.fingerprint.0.ct_eq(&fingerprint.0);
        let good = bool::from(same) && entry.generation == generation;
        let account =
            (good && entry.admission.allows(from)).then(|| entry.admission.account.clone());
        stripe.hits += u64::from(account.is_some());
        account
    }

    /// Remembers a login that was good, by directories that had this generation.
    pub(super) fn put(
        &self,
        fingerprint: Fingerprint,
        generation: Generation,
        admission: Admission,
    ) {
        let user = admission.account.user.clone();
        let entry = Entry {
            fingerprint,
            generation,
            admission,
        };
        let mut stripe = self.stripe(&user);
        stripe.old.remove(&user);
        stripe.insert(user, entry, self.room);
    }

    /// Logins that were answered from here.
    pub(super) fn hits(&self) -> u64 {
        let stripes = self.stripes.iter();
        stripes.map(|stripe| lock(stripe).hits).sum()
    }

    fn stripe(&self, user: &UserName) -> MutexGuard<'_, Stripe> {
        let hash = self.hasher.hash_one(user);
        let stripe = usize::try_from(hash % STRIPES as u64).expect("less than STRIPES");
        lock(&self.stripes[stripe])
    }
}

fn lock(stripe: &Mutex<Stripe>) -> MutexGuard<'_, Stripe> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stripe {
    fn insert(&mut self, user: UserName, entry: Entry, room: usize) {
        if self.young.len() >= room && !self.young.contains_key(&user) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(user, entry);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::auth::{Network, Password};

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn credentials(user: &str, password: &str) -> Credentials {
        Credentials {
            user: UserName::new(user.as_bytes()).expect("a name"),
            password: Password::new(password.as_bytes()).expect("short"),
        }
    }

    fn admission(user: &str) -> Admission {
        Admission {
            account: Account {
                user: UserName::new(user.as_bytes()).expect("a name"),
                home: Some("/home".into()),
                mail: None,
            },
            networks: None,
        }
    }

    fn put(cache: &LoginCache, user: &str, password: &str) {
        let fingerprint = cache.fingerprint(&credentials(user, password));
        cache.put(fingerprint, cache.generation(), admission(user));
    }

    fn get(cache: &LoginCache, user: &str, password: &str) -> Option<Account> {
        let credentials = credentials(user, password);
        let fingerprint = cache.fingerprint(&credentials);
        cache.get(&credentials.user, &fingerprint, HERE)
    }

    #[test]
    fn the_same_password_is_known_and_no_other_one() {
        let cache = LoginCache::with_room(1000);
        assert_eq!(get(&cache, "ann", "right"), None);
        put(&cache, "ann", "right");
        assert_eq!(get(&cache, "ann", "right"), Some(admission("ann").account));
        for (user, password) in [
            ("ann", "wrong"),
            ("ann", ""),
            ("bob", "right"),
            ("an", "nright"),
        ] {
            assert_eq!(get(&cache, user, password), None, "{user} {password}");
        }
        assert_eq!(cache.hits(), 1);
    }

    #[test]
    fn a_new_password_takes_the_place_of_the_old_one() {
        let cache = LoginCache::with_room(1000);
        put(&cache, "ann", "old");
        put(&cache, "ann", "new");
        assert_eq!(get(&cache, "ann", "old"), None);
        assert!(get(&cache, "ann", "new").is_some());
    }

    #[test]
    fn what_was_known_before_a_reload_is_void() {
        let cache = LoginCache::with_room(1000);
        let before = cache.generation();
        put(&cache, "ann", "pw");
        cache.invalidate();
        assert_eq!(get(&cache, "ann", "pw"), None);
        // Looked up before the reload, verified after it.
        let fingerprint = cache.fingerprint(&credentials("bob", "pw"));
        cache.put(fingerprint, before, admission("bob"));
        assert_eq!(get(&cache, "bob", "pw"), None);
        put(&cache, "ann", "pw");
        assert!(get(&cache, "ann", "pw").is_some());
    }

    #[test]
    fn an_address_that_is_not_allowed_is_not_answered() {
        let cache = LoginCache::with_room(1000);
        let near = "192.0.2.0/24".parse::<Network>().expect("a network");
        let admission = Admission {
            networks: Some([near].into()),
            ..admission("ann")
        };
        let ann = credentials("ann", "pw");
        let fingerprint = cache.fingerprint(&ann);
        cache.put(fingerprint, cache.generation(), admission);
        assert_eq!(cache.get(&ann.user, &fingerprint, HERE), None);
        let near = "192.0.2.9".parse().expect("an address");
        assert!(cache.get(&ann.user, &fingerprint, near).is_some());
    }

    #[test]
    fn the_bound_holds_and_who_comes_often_stays() {
        let entries = STRIPES * 4;
        let cache = LoginCache::with_room(entries);
        put(&cache, "often", "pw");
        for number in 0..entries * 20 {
            put(&cache, &format!("user{number}"), "pw");
            assert!(get(&cache, "often", "pw").is_some(), "after {number}");
        }
        let held: usize = cache
            .stripes
            .iter()
            .map(|stripe| {
                let stripe = lock(stripe);
                stripe.young.len() + stripe.old.len()
            })
            .sum();
        assert!(held <= entries, "{held} entries");
    }

    #[test]
    fn two_processes_have_two_keys() {
        let [one, other] = [0; 2].map(|_| LoginCache::with_room(1));
        let ann = credentials("ann", "pw");
        assert_ne!(one.fingerprint(&ann).0, other.fingerprint(&ann).0);
        assert_eq!(one.fingerprint(&ann).0, one.fingerprint(&ann).0);
    }
}
