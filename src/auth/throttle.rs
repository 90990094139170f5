//! Delays that grow with failures: of an address, and of a user from a network.
//!
//! The pause before the answer to a bad login (`auth.failure_delay`) holds one
//! connection. Whoever guesses opens another one, so what failed is remembered here for
//! longer than a connection lives: a login from an address that failed, or for a user
//! who failed from there, waits *before* its password is looked at. The wait doubles
//! with each failure up to [`Delays::longest`].
//!
//! A wait alone would hold up nobody who opens a thousand connections at once. So each
//! attempt takes the next free time for its address and for its user: attempts are let
//! through one by one, a wait apart, and one that would wait longer than
//! [`Delays::longest`] is turned away at once.
//!
//! Who is innocent hardly notices. A login that is known to be good is not asked here;
//! nor does a bad one count twice, as of a client that has an old password. An address
//! may fail
//! [`FREE_FAILURES`] times before it waits, since many users can be behind it, and a
//! failure is forgotten each [`FAILURE_FORGOTTEN`]. A good login frees its user in that network,
//! and not the address: an account of one's own would buy guesses.
//!
//! Names count without regard to the case of their letters: where the directory knows no
//! difference, each way to write one would be a fresh start, and where it does, two users
//! of one network who have nearly the same name wait for each other's failures.
//!
//! Time is an argument; the table is a [`Sieve`], of which the guiltiest fall out last.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::sieve::{Keep, Moment, Sieve};
use super::{Prefixes, UserName};
use crate::limits::{self, FAILURE_FORGOTTEN, FREE_FAILURES};

/// What the operator says of delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// After one failure; zero: none at all.
    pub first: Duration,
    /// However many there were.
    pub longest: Duration,
    /// What of an address counts as one.
    pub address: Prefixes,
    /// What of it counts as one network.
    pub network: Prefixes,
}

/// Who failed, and when the next attempt may be.
#[derive(Debug)]
pub struct Throttle(Sieve<Record>);

/// A login as it counts here.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Whose secret is guessed: of a master user's login not the one whose maildrop is
    /// wanted, or each of these would be a guess for nothing.
    pub user: &'a UserName,
    /// The client's address.
    pub from: IpAddr,
}

/// Too many attempts wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

#[derive(Clone, Debug, Default)]
struct Record {
    failures: u32,
    /// When the last of them was.
    last: Moment,
    /// Before this nothing is let through.
    next: Moment,
}

#[derive(Hash)]
enum Key<'a> {
    Address(IpAddr),
    User(Folded<'a>, IpAddr),
}

/// A name without regard to the case of its letters.
struct Folded<'a>(&'a UserName);

impl Hash for Folded<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for octet in self.0.as_bytes() {
            state.write_u8(octet.to_ascii_lowercase());
        }
        // No name holds it: what follows is not taken for more of this.
        state.write_u8(0);
    }
}

impl Keep for Record {
    fn worth(&self, now: Moment) -> u64 {
        // Failures first, then time.
        u64::from(self.left(now)) << 48 | self.last.millis().min((1 << 48) - 1)
    }
}

impl Record {
    /// Failures that are not forgotten.
    fn left(&self, now: Moment) -> u32 {
        let forgotten = now.since(self.last).as_millis() / FAILURE_FORGOTTEN.as_millis();
        let forgotten = u32::try_from(forgotten).unwrap_or(u32::MAX);
        self.failures.saturating_sub(forgotten)
    }
}

impl Delays {
    /// Between two attempts after so many failures.
    fn between(&self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else {
            return Duration::ZERO;
        };
        let factor = 2_u32.saturating_pow(doublings);
        self.first.saturating_mul(factor).min(self.longest)
    }
}

impl Key<'_> {
    fn counted(&self, failures: u32) -> u32 {
        match self {
            Self::Address(_) => failures.saturating_sub(FREE_FAILURES),
            Self::User(..) => failures,
        }
    }
}

impl Attempt<'_> {
    fn keys(&self, delays: &Delays) -> [Key<'_>; 2] {
        [
            Key::Address(delays.address.of(self.from)),
            Key::User(Folded(self.user), delays.network.of(self.from)),
        ]
    }
}

impl Throttle {
    /// Nobody has failed.
    pub fn new(now: Instant) -> Self {
        Self(Sieve::new(limits::THROTTLED, now))
    }

    /// How long an attempt has to wait before its password is looked at. It has its
    /// time then, whether it comes or not.
    pub fn wait(
        &self,
        attempt: Attempt<'_>,
        delays: &Delays,
        now: Instant,
    ) -> Result<Duration, TooMany> {
        if delays.first.is_zero() {
            return Ok(Duration::ZERO);
        }
        let keys = attempt.keys(delays);
        let waits = keys.each_ref().map(|key| {
            let waits = |record: &mut Record, now: Moment| record.next.since(now);
            self.0.change_if_kept(key, now, waits).unwrap_or_default()
        });
        let wait = waits.into_iter().max().unwrap_or_default();
        if wait > delays.longest {
            return Err(TooMany);
        }
        for key in &keys {
            self.0.change_if_kept(key, now, |record, now| {
                let between = delays.between(key.counted(record.left(now)));
                if !between.is_zero() {
                    record.next = record.next.max(now.after(wait).after(between));
                }
            });
        }
        Ok(wait)
    }

    /// The password was wrong.
    pub fn failed(&self, attempt: Attempt<'_>, delays: &Delays, now: Instant) {
        if delays.first.is_zero() {
            return;
        }
        for key in attempt.keys(delays) {
            self.0.change(&key, now, |record, now| {
                record.failures = record.left(now).saturating_add(1);
                record.last = now;
                let between = delays.between(key.counted(record.failures));
                if !between.is_zero() {
                    record.next = record.next.max(now.after(between));
                }
            });
        }
    }

    /// The password was right.
    pub fn succeeded(&self, attempt: Attempt<'_>, delays: &Delays) {
        let [_, user] = attempt.keys(delays);
        self.0.forget(&user);
    }
}

#[cfg(test)]
mod tests;
