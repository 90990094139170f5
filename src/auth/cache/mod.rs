//! Logins that were verified a moment ago.
//!
//! A POP3 client polls: the same name and password come every few minutes, and a
//! trip to the auth threads, let alone a slow hash, would prove what is known. So
//! what was verified is kept in four tables:
//!
//! * *Good logins*, by the name that was given: one that brings the same password again is answered at
//!   once, on its shard, for [`Terms::good`]. After that, or after a reload, it is
//!   looked up again; only where a directory is down it still holds, for
//!   [`Terms::stale`].
//! * *Bad logins*, by name, password and address, for [`Terms::bad`]: a client with an old
//!   password asks again and again, and is neither a guess nor worth a look-up. The address
//!   is part of it because a right password is as bad as any where its user may not log in
//!   from, and is good elsewhere at the same time.
//! * *Hashes*: what the slow verification of a password against a stored one said.
//!   That is a pure function, so this never grows old: a login that is looked up again
//!   costs no second hash as long as the stored password is the same one. It is what
//!   lets the first two be brief, and a reload cheap.
//! * *Keys* of SCRAM, for the time when a directory is down, and where they would have to be
//!   derived each time: see `keys`.
//!
//! Invariants:
//!
//! * A good login is kept with the password that it had: any other one goes to the auth
//!   threads, and so does a changed one, which works at once. The old one stops when
//!   [`Terms::good`] is over, or when the new one was used. It may be another one of the
//!   same user instead (a token of each client, a password of each program), so it is not
//!   dropped then but looked up once more.
//! * Nothing that was looked up before a reload answers after it, unless a directory
//!   is down: an entry carries the directories' generation from before its lookup.
//! * What a token has proved ends with the token, also while a directory is down.
//! * No password or token is kept, but hashes under a key that this process made and shows to
//!   nobody. They are fast ones: their lookup is on a shard, and who can read the
//!   process's memory finds the key beside them.
//! * Each table has a bound in limits.rs; what came last is there, up to half of that.
//!
//! Entries live in stripes with a lock each, held for one lookup, and taken once for a
//! login that is known.

mod keys;
mod recent;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use blake2::Blake2sMac256;
use blake2::digest::{KeyInit, Mac};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use self::keys::Known;
pub(super) use self::keys::{Derived, Memo};
use self::recent::Recent;
use super::judge::Admission;
use super::{Account, Credentials, Evidence, Identity, UserName, Verifier};
use crate::limits;

/// Locks of the cache: more than there are shards on any machine of today, so that
/// two seldom meet at one.
const STRIPES: usize = 256;

/// Octets of a fingerprint and of its key.
const DIGEST: usize = 32;

/// A name and a password under this process's key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; DIGEST]);

/// A password and a slow stored one under this process's key. Half a digest: nobody
/// who does not know the key finds two that are the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct HashKey([u8; DIGEST / 2]);

/// The state of the directories: what was looked up in one is void in the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation(u64);

/// How long what is known is believed. Zero: not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// A good login, before it is looked up again.
    pub good: Duration,
    /// A bad login, before it is looked up again.
    pub bad: Duration,
    /// A good login, from its last lookup on, while a directory does not answer.
    pub stale: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            good: Duration::from_hours(1),
            bad: Duration::from_secs(10),
            stale: Duration::from_hours(24),
        }
    }
}

/// What is known of a login.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Recall {
    /// It was good, and is.
    Good(Account),
    /// The password was wrong a moment ago.
    Bad,
    /// It was good or bad once, and has to be looked up again. Whoever brings it does
    /// not guess: it is the password of a client.
    Faded,
    /// Nothing.
    Unknown,
}

/// What was answered from the cache since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Good logins.
    pub good: u64,
    /// Bad ones.
    pub bad: u64,
    /// Good ones, and keys of SCRAM, while a directory did not answer.
    pub stale: u64,
    /// Slow hashes that were not computed a second time.
    pub hashes: u64,
}

/// Logins that were verified.
pub(super) struct LoginCache {
    key: Zeroizing<[u8; DIGEST]>,
    hasher: RandomState,
    generation: AtomicU64,
    /// [`Terms`], in milliseconds.
    good: AtomicU64,
    bad: AtomicU64,
    stale: AtomicU64,
    stripes: Box<[Mutex<Stripe>]>,
    room: Room,
}

/// The most entries of one half of each table of a stripe.
#[derive(Clone, Copy)]
struct Room {
    good: usize,
    bad: usize,
    hashes: usize,
    keys: usize,
}

#[derive(Default)]
#[repr(align(128))]
struct Stripe {
    good: Recent<UserName, Goods>,
    bad: Recent<Fingerprint, Bad>,
    hashes: Recent<HashKey, bool>,
    keys: Recent<Fingerprint, Known>,
    counts: CacheCounts,
}

impl Stripe {
    fn good(&mut self, user: &UserName, of: &Fingerprint, room: usize) -> Option<&mut Good> {
        self.good.get(user, room)?.find(of)
    }

    fn forget(&mut self, user: &UserName, fingerprint: &Fingerprint, room: usize) {
        if let Some(known) = self.good.get(user, room) {
            known.0.retain(|good| !good.is_of(fingerprint));
            if known.0.is_empty() {
                self.good.remove(user);
            }
        }
    }
}

/// Good logins by one name: at most [`limits::AUTH_CACHE_OF_A_NAME`]. They are behind a
/// pointer, since a table has more places than entries.
struct Goods(Vec<Good>);

struct Good {
    fingerprint: Fingerprint,
    generation: Generation,
    since: Instant,
    /// Another one was good for the first time since: this may be the one before it.
    is_doubted: bool,
    admission: Admission,
}

impl Good {
    fn is_of(&self, fingerprint: &Fingerprint) -> bool {
        self.fingerprint.0.ct_eq(&fingerprint.0).into()
    }
}

impl Goods {
    fn find(&mut self, of: &Fingerprint) -> Option<&mut Good> {
        self.0.iter_mut().find(|good| good.is_of(of))
    }

    fn put(&mut self, entry: Good) {
        // Tokens that are over by now leave their places.
        self.0.retain(|good| good.admission.holds(entry.since));
        if let Some(same) = self.find(&entry.fingerprint) {
            *same = entry;
            return;
        }
        for other in &mut self.0 {
            other.is_doubted = true;
        }
        if self.0.len() >= limits::AUTH_CACHE_OF_A_NAME {
            let ages = self.0.iter().enumerate();
            let oldest = ages.min_by_key(|(_, good)| good.since);
            let (oldest, _) = oldest.expect("some");
            self.0.swap_remove(oldest);
        }
        // Most names have one: no room for more.
        self.0.reserve_exact(1);
        self.0.push(entry);
    }
}

struct Bad {
    generation: Generation,
    since: Instant,
}

impl LoginCache {
    /// An empty cache with the bounds of limits.rs.
    pub(super) fn new(terms: Terms) -> Self {
        let cache = Self::with_room(
            limits::AUTH_CACHE,
            limits::AUTH_CACHE_BAD,
            limits::AUTH_CACHE_HASHES,
            limits::AUTH_CACHE_KEYS,
        );
        cache.set_terms(terms);
        cache
    }

    fn with_room(good: usize, bad: usize, hashes: usize, keys: usize) -> Self {
        let mut key = Zeroizing::new([0; DIGEST]);
        getrandom::fill(&mut *key).expect("the kernel has randomness (getrandom(2))");
        let half = |entries: usize| (entries / STRIPES / 2).max(1);
        let cache = Self {
            key,
            hasher: RandomState::new(),
            generation: AtomicU64::new(0),
            good: AtomicU64::default(),
            bad: AtomicU64::default(),
            stale: AtomicU64::default(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            room: Room {
                good: half(good),
                bad: half(bad),
                hashes: half(hashes),
                keys: half(keys),
            },
        };
        cache.set_terms(Terms::default());
        cache
    }

    /// Believes what is known for other times from now on.
    pub(super) fn set_terms(&self, terms: Terms) {
        let store = |to: &AtomicU64, term: Duration| {
            let millis = u64::try_from(term.as_millis()).unwrap_or(u64::MAX);
            to.store(millis, Ordering::Relaxed);
        };
        store(&self.good, terms.good);
        store(&self.bad, terms.bad);
        store(&self.stale, terms.stale);
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
        // The names as well: equal passwords of two users show nothing.
        let Identity { user, acts_for } = &credentials.identity;
        let owner = acts_for
            .as_ref()
            .map(UserName::as_bytes)
            .unwrap_or_default();
        // Names have no control characters, so that no two pairs look the same.
        let names = [user.as_bytes(), b"\0", owner].concat();
        Fingerprint(match &credentials.evidence {
            Evidence::Password(password) => self.digest(b'l', [&names, password.as_bytes()]),
            Evidence::Certificate => self.digest(b'c', [&names, b""]),
            Evidence::Apop(proof) => self.digest(b'a', [&names, &proof.parts()]),
            Evidence::Token(token) => self.digest(b't', [&names, token.as_str().as_bytes()]),
        })
    }

    /// What stands in place of a fingerprint where a user may not log in from: nothing that
    /// is known of the login elsewhere is known of this.
    pub(super) fn elsewhere(&self, fingerprint: &Fingerprint) -> Fingerprint {
        Fingerprint(self.digest(b'e', [&fingerprint.0, b""]))
    }

    /// What a bad login is remembered by.
    fn seen_from(&self, fingerprint: &Fingerprint, from: IpAddr) -> Fingerprint {
        let from = match from {
            IpAddr::V4(from) => from.to_ipv6_mapped(),
            IpAddr::V6(from) => from,
        };
        Fingerprint(self.digest(b'b', [&fingerprint.0, &from.octets()]))
    }

    /// What the verification of a login's password is remembered by; nothing where the
    /// scheme is not slow.
    pub(super) fn hash_key(&self, fingerprint: &Fingerprint, stored: &Verifier) -> Option<HashKey> {
        let [salt, digest] = stored.identity()?;
        let stored = self.digest(b's', [salt, digest]);
        let both = self.digest(b'h', [&fingerprint.0, &stored]);
        let (half, _) = both.split_first_chunk().expect("half of it");
        Some(HashKey(*half))
    }

    /// What is known of a login from this address.
    pub(super) fn recall(
        &self,
        user: &UserName,
        fingerprint: &Fingerprint,
        from: IpAddr,
        now: Instant,
    ) -> Recall {
        let generation = self.generation();
        let fresh = |since, of, term: &AtomicU64| of == generation && within(term, since, now);
        let mut stripe = self.stripe(user);
        if let Some(entry) = stripe.good(user, fingerprint, self.room.good)
            && entry.admission.allows(from)
        {
            let holds = entry.admission.holds(now) && !entry.is_doubted;
            if holds && fresh(entry.since, entry.generation, &self.good) {
                let account = entry.admission.account.clone();
                stripe.counts.good += 1;
                return Recall::Good(account);
            }
            return Recall::Faded;
        }
        let Stripe { bad, counts, .. } = &mut *stripe;
        let seen = self.seen_from(fingerprint, from);
        let Some(entry) = bad.get(&seen, self.room.bad) else {
            return Recall::Unknown;
        };
        if !fresh(entry.since, entry.generation, &self.bad) {
            return Recall::Faded;
        }
        counts.bad += 1;
        Recall::Bad
    }

    /// The account of a login that was good when the directories last answered, for
    /// the time when one does not.
    pub(super) fn last_known(
        &self,
        user: &UserName,
        fingerprint: &Fingerprint,
        from: IpAddr,
        now: Instant,
    ) -> Option<Account> {
        let mut stripe = self.stripe(user);
        let entry = stripe.good(user, fingerprint, self.room.good)?;
        let holds = entry.admission.holds(now) && entry.admission.allows(from);
        let holds = holds && !entry.is_doubted && within(&self.stale, entry.since, now);
        let account = holds.then(|| entry.admission.account.clone());
        stripe.counts.stale += u64::from(account.is_some());
        account
    }

    /// Remembers a login that was good for whoever asks for the maildrop by this name, by
    /// directories that had this generation.
    pub(super) fn put(
        &self,
        user: &UserName,
        fingerprint: Fingerprint,
        generation: Generation,
        admission: Admission,
        now: Instant,
    ) {
        let mut stripe = self.stripe(user);
        let entry = Good {
            fingerprint,
            generation,
            since: now,
            is_doubted: false,
            admission,
        };
        if let Some(known) = stripe.good.get(user, self.room.good) {
            known.put(entry);
        } else {
            let known = Goods(vec![entry]);
            stripe.good.insert(user.clone(), known, self.room.good);
        }
    }

    /// Remembers that a password was refused to a client at this address.
    pub(super) fn put_bad(
        &self,
        user: &UserName,
        fingerprint: &Fingerprint,
        from: IpAddr,
        generation: Generation,
        now: Instant,
    ) {
        let mut stripe = self.stripe(user);
        let entry = Bad {
            generation,
            since: now,
        };
        let seen = self.seen_from(fingerprint, from);
        stripe.bad.insert(seen, entry, self.room.bad);
    }

    /// A login that may have been good is so no more.
    pub(super) fn forget(&self, user: &UserName, fingerprint: &Fingerprint) {
        self.stripe(user).forget(user, fingerprint, self.room.good);
    }

    /// No login by this name is good any more, whoever is there to ask.
    pub(super) fn forget_all(&self, user: &UserName) {
        self.stripe(user).good.remove(user);
    }

    /// What this verification said before, if it is known.
    pub(super) fn hash(&self, key: &HashKey) -> Option<bool> {
        let mut stripe = self.stripe(key);
        let said = stripe.hashes.get(key, self.room.hashes).copied();
        stripe.counts.hashes += u64::from(said.is_some());
        said
    }

    /// Whether [`LoginCache::hash`] would tell.
    pub(super) fn knows_hash(&self, key: &HashKey) -> bool {
        let mut stripe = self.stripe(key);
        stripe.hashes.get(key, self.room.hashes).is_some()
    }

    /// Remembers what a slow verification said.
    pub(super) fn put_hash(&self, key: HashKey, said: bool) {
        self.stripe(&key).hashes.insert(key, said, self.room.hashes);
    }

    /// What was answered from here.
    pub(super) fn counts(&self) -> CacheCounts {
        let mut sum = CacheCounts::default();
        for stripe in &self.stripes {
            let counts = lock(stripe).counts;
            sum.good += counts.good;
            sum.bad += counts.bad;
            sum.stale += counts.stale;
            sum.hashes += counts.hashes;
        }
        sum
    }

    /// Parts under this process's key; `kind` keeps one use from another.
    fn digest(&self, kind: u8, [one, other]: [&[u8]; 2]) -> [u8; DIGEST] {
        let mut mac = Blake2sMac256::new_from_slice(&*self.key).expect("a key of 32 octets");
        mac.update(&[kind]);
        mac.update(&(one.len() as u64).to_le_bytes());
        mac.update(one);
        mac.update(other);
        mac.finalize().into_bytes().into()
    }

    fn stripe<K: std::hash::Hash>(&self, key: &K) -> MutexGuard<'_, Stripe> {
        let hash = self.hasher.hash_one(key);
        let stripe = usize::try_from(hash % STRIPES as u64).expect("less than STRIPES");
        lock(&self.stripes[stripe])
    }
}

/// Whether a time has not passed that began at `since`.
fn within(term: &AtomicU64, since: Instant, now: Instant) -> bool {
    let term = Duration::from_millis(term.load(Ordering::Relaxed));
    now.saturating_duration_since(since) < term
}

fn lock(stripe: &Mutex<Stripe>) -> MutexGuard<'_, Stripe> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
