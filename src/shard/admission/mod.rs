//! Who may have a session: how many of an address, of a user, and of both.
//!
//! An address is looked at when its connection is accepted, before a greeting or a
//! handshake costs anything; a user when he logs in. What is counted is counted for all
//! shards together, in parts with a lock each that is taken once at a session's begin
//! and once at its end, and not at all where there is no limit.
//!
//! Many users may share an address (NAT), and one of them may be infected. So a share of
//! each address' sessions is kept for addresses from which somebody has logged in of
//! late: one that only ever opens connections gets fewer. Who has logged in from where is
//! also what the throttle of failures asks.
//!
//! Time is an argument, and nothing here does IO.

mod visits;

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::auth::sieve::{Keep, Moment, Sieve};
use crate::auth::throttle::Standing;
use crate::auth::{Prefixes, UserLimits, UserName};
use crate::limits;

pub use self::visits::{Entrance, TooSoon, VisitLimits, Visits};

/// How many sessions there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Of one address; 0: any number.
    pub per_address: u32,
    /// Of one user; 0: any number.
    pub per_user: u32,
    /// Of one user from one address, attempts to log in included; 0: any number.
    pub per_user_and_address: u32,
    /// Per cent of the sessions of an address that it has only after a login.
    pub reserved: u8,
    /// What of an address counts as one.
    pub address: Prefixes,
}

/// The sessions of all shards as far as they are counted.
#[derive(Debug)]
pub struct Admission {
    counts: Arc<Counts>,
    /// Addresses from which somebody logged in, and users there.
    known: Sieve<Success>,
}

/// As many sessions as there may be are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A session that counts until this is dropped.
#[derive(Debug)]
pub struct Seat {
    counts: Arc<Counts>,
    key: u64,
}

/// Sessions by whatever they are counted by. Keys are hashes under a key of this
/// process: nobody can choose two that are the same.
#[derive(Debug)]
struct Counts {
    parts: Box<[Mutex<HashMap<u64, u32>>]>,
    hasher: RandomState,
}

#[derive(Hash)]
enum Key<'a> {
    Address(IpAddr),
    User(&'a UserName),
    UserAt(&'a UserName, IpAddr),
    /// Logged in, where the directory has a limit of the user's own.
    LoggedInAt(&'a UserName, IpAddr),
}

#[derive(Clone, Debug, Default)]
struct Success(Moment);

impl Keep for Success {
    fn worth(&self, _: Moment) -> u64 {
        self.0.millis()
    }
}

impl SessionLimits {
    /// No limit at all.
    pub const NONE: Self = Self {
        per_address: 0,
        per_user: 0,
        per_user_and_address: 0,
        reserved: 0,
        address: Prefixes::ADDRESS,
    };

    /// Sessions of an address that nobody has logged in from: at least one.
    fn of_a_stranger(&self) -> u32 {
        let open = 100 - u64::from(self.reserved.min(100));
        let share = u64::from(self.per_address) * open / 100;
        u32::try_from(share.max(1)).expect("a part of a u32")
    }
}

impl Admission {
    /// Nobody is there.
    pub fn new(now: Instant) -> Self {
        Self {
            counts: Arc::new(Counts {
                parts: (0..limits::SEAT_PARTS).map(|_| Mutex::default()).collect(),
                hasher: RandomState::new(),
            }),
            known: Sieve::new(limits::KNOWN_ADDRESSES, now),
        }
    }

    /// Whether an address may have one more connection.
    pub fn connect(
        &self,
        from: IpAddr,
        limits: &SessionLimits,
        now: Instant,
    ) -> Result<Option<Seat>, Full> {
        if limits.per_address == 0 {
            return Ok(None);
        }
        let from = limits.address.of(from);
        let most = if self.knows(&Key::Address(from), now) {
            limits.per_address
        } else {
            limits.of_a_stranger()
        };
        self.counts.take(&Key::Address(from), most).map(Some)
    }

    /// Whether a user may try to log in from an address once more.
    pub fn attempt(
        &self,
        user: &UserName,
        from: IpAddr,
        limits: &SessionLimits,
    ) -> Result<Option<Seat>, Full> {
        let key = Key::UserAt(user, limits.address.of(from));
        self.counts.take_unless(limits.per_user_and_address, &key)
    }

    /// Whether a user who has shown the password may have one more session. A limit of
    /// one is the maildrop's own, whose lock tells more and may be taken over.
    pub fn log_in(
        &self,
        user: &UserName,
        own: Option<&UserLimits>,
        limits: &SessionLimits,
    ) -> Result<Option<Seat>, Full> {
        let own = own.and_then(|own| own.sessions);
        let most = match own.unwrap_or(limits.per_user) {
            1 => 0,
            most => most,
        };
        self.counts.take_unless(most, &Key::User(user))
    }

    /// The same for sessions from one address, where the directory has a limit of the
    /// user's own: who it is, and so how many, is known behind the password only. The
    /// limit of all holds for [attempts](Admission::attempt), and beside this one.
    pub fn log_in_from(
        &self,
        user: &UserName,
        from: IpAddr,
        own: Option<&UserLimits>,
        limits: &SessionLimits,
    ) -> Result<Option<Seat>, Full> {
        let most = own.and_then(|own| own.sessions_from_address);
        let key = Key::LoggedInAt(user, limits.address.of(from));
        self.counts.take_unless(most.unwrap_or_default(), &key)
    }

    /// Somebody has logged in from this address: a user, where that was not known beforehand.
    pub fn succeeded(
        &self,
        user: Option<&UserName>,
        from: IpAddr,
        limits: &SessionLimits,
        now: Instant,
    ) {
        let from = limits.address.of(from);
        let user = user.map(|user| Key::UserAt(user, from));
        for key in [Key::Address(from)].into_iter().chain(user) {
            let note = |success: &mut Success, now| *success = Success(now);
            self.known.change(&key, now, note);
        }
    }

    /// Who has done so of late.
    pub fn standing(
        &self,
        user: &UserName,
        from: IpAddr,
        limits: &SessionLimits,
        now: Instant,
    ) -> Standing {
        let from = limits.address.of(from);
        Standing {
            address: self.knows(&Key::Address(from), now),
            user: self.knows(&Key::UserAt(user, from), now),
        }
    }

    fn knows(&self, key: &Key<'_>, now: Instant) -> bool {
        let now = self.known.moment(now);
        let success = self.known.get(key);
        success.is_some_and(|then| now.since(then.0) < limits::ADDRESS_KNOWN)
    }
}

impl Counts {
    fn take_unless(self: &Arc<Self>, most: u32, key: &Key<'_>) -> Result<Option<Seat>, Full> {
        if most == 0 {
            return Ok(None);
        }
        self.take(key, most).map(Some)
    }

    fn take(self: &Arc<Self>, key: &Key<'_>, most: u32) -> Result<Seat, Full> {
        let key = self.hasher.hash_one(key);
        let mut part = self.part(key);
        let count = part.entry(key).or_default();
        // An entry of zero would stay for ever; there is none where `most` is one.
        if *count >= most {
            return Err(Full);
        }
        *count += 1;
        Ok(Seat {
            counts: Arc::clone(self),
            key,
        })
    }

    fn part(&self, key: u64) -> MutexGuard<'_, HashMap<u64, u32>> {
        let at = usize::try_from(key % self.parts.len() as u64).expect("a part");
        self.parts[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut part = self.counts.part(self.key);
        let Entry::Occupied(mut count) = part.entry(self.key) else {
            unreachable!("a seat is counted until it is left");
        };
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests;
