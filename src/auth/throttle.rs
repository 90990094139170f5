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
//! [`Delays::longest`] is turned away at once. Nor does it hold up whoever has not failed
//! yet, and so guesses under way count as if they had failed: beyond what an address may
//! fail for nothing, and beyond one of a user, the next waits in line until one of them
//! has come out. A good one makes room at once, a bad one is a failure, and one that comes
//! to nothing (the client has left, a directory is down) has never been.
//!
//! Who is innocent hardly notices. A login that is known to be good is not asked here;
//! nor does a bad one count twice, as of a client that has an old password. An address
//! may fail
//! [`FREE_FAILURES`] times before it waits, since many users can be behind it, and a
//! failure is forgotten each [`FAILURE_FORGOTTEN`]. An address from which somebody has
//! logged in of late may have [`GUESSES_OF_KNOWN_ADDRESS`] under way: after a restart, all
//! the users behind a NAT come within seconds. Who has logged in from that address of late
//! waits for the own failures alone, as long as there are none: what cannot be known
//! beforehand, as by SCRAM, must not wait at each poll for what neighbours do. A good login
//! frees its user in that network,
//! and not the address: an account of one's own would buy guesses.
//!
//! Names count without regard to the case of their letters: where the directory knows no
//! difference, each way to write one would be a fresh start, and where it does, two users
//! of one network who have nearly the same name wait for each other's failures.
//!
//! Time is an argument; the table is a [`Sieve`], of which the guiltiest fall out last.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sieve::{Keep, Moment, Sieve};
use super::{Prefixes, UserName};
use crate::limits::{
    self, FAILURE_FORGOTTEN, FREE_FAILURES, GUESSES_OF_KNOWN_ADDRESS, GUESSES_OF_KNOWN_USER,
};

mod lines;

pub use self::lines::Waiting;
use self::lines::{Lines, Place};

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

/// Who failed, when the next attempt may be, and what is under way.
#[derive(Debug)]
pub struct Throttle {
    records: Sieve<Record>,
    lines: Arc<Lines>,
}

/// Who has logged in of late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Somebody, from this address.
    pub address: bool,
    /// This user, from this address.
    pub user: bool,
}

/// A login as it counts here.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Whose secret is guessed: of a master user's login not the one whose maildrop is
    /// wanted, or each of these would be a guess for nothing.
    pub user: &'a UserName,
    /// The client's address.
    pub from: IpAddr,
    /// What is known of both.
    pub standing: Standing,
}

/// What an attempt is told.
#[derive(Debug)]
pub enum Turn {
    /// Its password may be looked at now.
    Granted(Guess),
    /// It is to ask again after this time, which is its own, whether it comes or not.
    After(Duration, Times),
    /// It is to ask again once this is ready.
    InLine(Waiting, Times),
}

/// For which of its keys an attempt has had a time of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    user: bool,
    address: bool,
}

/// An attempt under way. Dropped, it has come to nothing.
#[derive(Debug, Default)]
pub struct Guess {
    _user: Option<Place>,
    _address: Option<Place>,
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

#[derive(Clone, Copy, Hash)]
enum Key<'a> {
    Address(IpAddr),
    User(Folded<'a>, IpAddr),
}

/// A name without regard to the case of its letters.
#[derive(Clone, Copy)]
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

    fn had_time(self, times: Times) -> bool {
        match self {
            Self::Address(_) => times.address,
            Self::User(..) => times.user,
        }
    }

    fn takes_time(self, times: &mut Times) {
        match self {
            Self::Address(_) => times.address = true,
            Self::User(..) => times.user = true,
        }
    }

    /// Failures and guesses under way beside which there may be one more.
    fn most(&self, standing: Standing) -> u32 {
        match self {
            Self::Address(_) if standing.address => GUESSES_OF_KNOWN_ADDRESS - 1,
            Self::Address(_) => FREE_FAILURES,
            Self::User(..) if standing.user => GUESSES_OF_KNOWN_USER - 1,
            Self::User(..) => 0,
        }
    }
}

impl Attempt<'_> {
    fn user(&self, delays: &Delays) -> Key<'_> {
        Key::User(Folded(self.user), delays.network.of(self.from))
    }

    fn address(&self, delays: &Delays) -> Key<'_> {
        Key::Address(delays.address.of(self.from))
    }
}

impl Throttle {
    /// Nobody has failed.
    pub fn new(now: Instant) -> Self {
        Self {
            records: Sieve::new(limits::THROTTLED, now),
            lines: Arc::new(Lines::new()),
        }
    }

    /// Whether an attempt may have its password looked at, or when it may ask again. It
    /// begins without times, and brings those that it was told.
    pub fn ask(
        &self,
        attempt: &Attempt<'_>,
        mut times: Times,
        delays: &Delays,
        now: Instant,
    ) -> Result<Turn, TooMany> {
        // Nobody is to wait, in no line either.
        if delays.first.is_zero() || delays.longest.is_zero() {
            return Ok(Turn::Granted(Guess::default()));
        }
        let user = attempt.user(delays);
        let is_trusted = attempt.standing.user && self.failures(&user, now) == 0;
        let address = (!is_trusted).then(|| attempt.address(delays));
        let keys = [Some(user), address];
        let wait = self.take_times(keys, &mut times, delays, now)?;
        if !wait.is_zero() {
            return Ok(Turn::After(wait, times));
        }
        let [mut of_user, mut of_address] = [None, None];
        for (key, place) in keys.iter().zip([&mut of_user, &mut of_address]) {
            let Some(key) = key else {
                continue;
            };
            let entered = self.lines.enter(key, |under_way| {
                let failures = self.failures(key, now);
                let counted = failures.saturating_add(under_way);
                key.had_time(times) || counted <= key.most(attempt.standing)
            });
            match entered? {
                Ok(entered) => *place = Some(entered),
                Err(waiting) => return Ok(Turn::InLine(waiting, times)),
            }
        }
        Ok(Turn::Granted(Guess {
            _user: of_user,
            _address: of_address,
        }))
    }

    fn failures(&self, key: &Key<'_>, now: Instant) -> u32 {
        let left = |record: &mut Record, now: Moment| record.left(now);
        let left = self.records.change_if_kept(key, now, left);
        left.unwrap_or_default()
    }

    /// Takes the next free time of each key that has failed too often, and says how long
    /// it is to the last of them. What has had a time of that key needs no other.
    fn take_times(
        &self,
        keys: [Option<Key<'_>>; 2],
        times: &mut Times,
        delays: &Delays,
        now: Instant,
    ) -> Result<Duration, TooMany> {
        let before = *times;
        let keys = keys.iter().flatten();
        let keys = keys.filter(|key| !key.had_time(before));
        let wait = |key| {
            let wait = |record: &mut Record, now: Moment| record.next.since(now);
            let wait = self.records.change_if_kept(key, now, wait);
            wait.unwrap_or_default()
        };
        let wait = keys.clone().map(wait).max().unwrap_or_default();
        if wait > delays.longest {
            return Err(TooMany);
        }
        for key in keys {
            let takes = self.records.change_if_kept(key, now, |record, now| {
                let between = delays.between(key.counted(record.left(now)));
                if !between.is_zero() {
                    record.next = record.next.max(now.after(wait).after(between));
                }
                !between.is_zero()
            });
            if takes.unwrap_or_default() {
                key.takes_time(times);
            }
        }
        Ok(wait)
    }

    /// The password was wrong.
    pub fn failed(&self, guess: Guess, attempt: &Attempt<'_>, delays: &Delays, now: Instant) {
        if delays.first.is_zero() {
            return;
        }
        for key in [attempt.user(delays), attempt.address(delays)] {
            self.records.change(&key, now, |record, now| {
                record.failures = record.left(now).saturating_add(1);
                record.last = now;
                let between = delays.between(key.counted(record.failures));
                if !between.is_zero() {
                    record.next = record.next.max(now.after(between));
                }
            });
        }
        // Whoever waits for its outcome finds it in the records.
        drop(guess);
    }

    /// The password was right.
    pub fn succeeded(&self, guess: Guess, attempt: &Attempt<'_>, delays: &Delays) {
        self.records.forget(&attempt.user(delays));
        drop(guess);
        if !attempt.standing.address {
            // From now on more of them may be under way.
            self.lines.wake_all(&attempt.address(delays));
        }
    }
}

#[cfg(test)]
mod tests;
