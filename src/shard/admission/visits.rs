//! How often a user may come: the delay between logins (LOGIN-DELAY, RFC 2449, section
//! 6.4), and polls that are answered from memory.
//!
//! The delay runs from one login to the next. Some clients fetch in one session and
//! come back at once to delete in a second one; refused there, they fetch everything
//! again for ever (MS Q317945). Nobody can tell at a login what its session is for, so
//! whoever left without deleting anything may [come back](LOGIN_DELAY_RETURN) once within seconds.
//! Such a session does not begin the delay anew, and the one after it has to wait: a
//! client that comes all the time gets two sessions in each delay instead of one.
//!
//! Polls take from a bucket: one token each, one new token in each
//! [`VisitLimits::poll_interval`], at most [`VisitLimits::poll_burst`] of them. A poll
//! that finds none is not refused. It is shown what the last one saw, which needs no
//! disk, and is at most one interval old: had the last token been taken longer ago than
//! that, there would be one.

use std::time::{Duration, Instant};

use crate::auth::sieve::{Keep, Moment, Sieve};
use crate::auth::{UserLimits, UserName};
use crate::limits::{self, LOGIN_DELAY_RETURN};

/// What the operator says of visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisitLimits {
    /// From one login to the next; zero: none.
    pub login_delay: Duration,
    /// The longest that a directory may set for a user; one that is shorter than
    /// `login_delay` counts as that.
    pub longest_login_delay: Duration,
    /// In which one more poll may see the disk; zero: all of them may.
    pub poll_interval: Duration,
    /// Polls in a row that may.
    pub poll_burst: u32,
}

/// When users came and went.
#[derive(Debug)]
pub struct Visits(Sieve<Visit>);

/// A login before the delay is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSoon {
    /// What is left of it.
    pub left: Duration,
}

/// How a login may see its maildrop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// As it is.
    Now,
    /// As it was seen last, if that is still known.
    AsSeenLast,
}

#[derive(Clone, Debug, Default)]
struct Visit {
    /// The login that the delay runs from.
    begun: Option<Moment>,
    /// The session that came back in it has been.
    has_returned: bool,
    /// Until when one may come back.
    returns_until: Option<Moment>,
    /// When the bucket will be full.
    full: Moment,
}

impl Keep for Visit {
    fn worth(&self, _: Moment) -> u64 {
        let begun = self.begun.map_or(0, Moment::millis);
        begun.max(self.full.millis())
    }
}

impl VisitLimits {
    /// Anybody may come at any time.
    pub const NONE: Self = Self {
        login_delay: Duration::ZERO,
        longest_login_delay: Duration::ZERO,
        poll_interval: Duration::ZERO,
        poll_burst: 1,
    };

    fn are_none(&self) -> bool {
        self.longest_delay().is_zero() && self.poll_interval.is_zero()
    }

    /// The longest delay that any user may have.
    pub fn longest_delay(&self) -> Duration {
        self.login_delay.max(self.longest_login_delay)
    }

    /// The limits of a user with some of the own.
    #[must_use]
    pub fn of(&self, own: Option<&UserLimits>) -> Self {
        let delay = own.and_then(|own| own.login_delay);
        Self {
            login_delay: delay.map_or(self.login_delay, |own| own.min(self.longest_delay())),
            ..*self
        }
    }
}

impl Visit {
    /// Whether the delay is not over.
    fn is_too_soon(&self, limits: &VisitLimits, now: Moment) -> Option<TooSoon> {
        let since = now.since(self.begun?);
        let left = limits.login_delay.checked_sub(since)?;
        (!left.is_zero()).then_some(TooSoon { left })
    }
}

impl Visits {
    /// Nobody has come.
    pub fn new(now: Instant) -> Self {
        Self(Sieve::new(limits::VISITS, now))
    }

    /// Whether a user may log in now.
    pub fn may_enter(
        &self,
        user: &UserName,
        limits: &VisitLimits,
        now: Instant,
    ) -> Result<(), TooSoon> {
        if limits.login_delay.is_zero() {
            return Ok(());
        }
        let Some(visit) = self.0.get(user) else {
            return Ok(());
        };
        let now = self.0.moment(now);
        match visit.is_too_soon(limits, now) {
            Some(too_soon) if visit.returns_until.is_none_or(|until| until < now) => Err(too_soon),
            _ => Ok(()),
        }
    }

    /// How a user who may log in sees the maildrop; a look at the disk costs a token.
    pub fn look(&self, user: &UserName, limits: &VisitLimits, now: Instant) -> Entrance {
        if limits.poll_interval.is_zero() {
            return Entrance::Now;
        }
        let ahead = limits
            .poll_interval
            .saturating_mul(limits.poll_burst.saturating_sub(1));
        self.0.change(user, now, |visit, now| {
            if visit.full > now.after(ahead) {
                return Entrance::AsSeenLast;
            }
            visit.full = visit.full.max(now).after(limits.poll_interval);
            Entrance::Now
        })
    }

    /// A user has logged in and has the maildrop.
    pub fn enters(&self, user: &UserName, limits: &VisitLimits, now: Instant) {
        if limits.login_delay.is_zero() {
            return;
        }
        self.0.change(user, now, |visit, now| {
            visit.has_returned = visit.is_too_soon(limits, now).is_some();
            if !visit.has_returned {
                visit.begun = Some(now);
            }
            visit.returns_until = None;
        });
    }

    /// The session of a user has ended; whether it deleted anything.
    pub fn leaves(&self, user: &UserName, deleted: bool, limits: &VisitLimits, now: Instant) {
        if limits.are_none() {
            return;
        }
        self.0.change_if_kept(user, now, |visit, now| {
            let returns = !deleted && !visit.has_returned;
            visit.returns_until = returns.then(|| now.after(LOGIN_DELAY_RETURN));
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: VisitLimits = VisitLimits {
        login_delay: Duration::from_mins(5),
        longest_login_delay: Duration::ZERO,
        poll_interval: Duration::from_mins(1),
        poll_burst: 3,
    };

    struct Site {
        visits: Visits,
        now: Instant,
        ann: UserName,
    }

    impl Site {
        fn new() -> Self {
            let now = Instant::now();
            Self {
                visits: Visits::new(now),
                now,
                ann: UserName::new(b"ann").expect("a name"),
            }
        }

        fn later(&mut self, seconds: u64) -> &mut Self {
            self.now += Duration::from_secs(seconds);
            self
        }

        fn enter(&self) -> Result<(), TooSoon> {
            self.visits.may_enter(&self.ann, &LIMITS, self.now)?;
            self.visits.enters(&self.ann, &LIMITS, self.now);
            Ok(())
        }

        fn leave(&self, deleted: bool) {
            self.visits.leaves(&self.ann, deleted, &LIMITS, self.now);
        }

        fn look(&self) -> Entrance {
            self.visits.look(&self.ann, &LIMITS, self.now)
        }
    }

    fn too_soon(seconds: u64) -> Result<(), TooSoon> {
        let left = Duration::from_secs(seconds);
        Err(TooSoon { left })
    }

    #[test]
    fn a_login_waits_for_the_delay_since_the_one_before() {
        let mut site = Site::new();
        assert_eq!(site.enter(), Ok(()));
        site.later(10).leave(true);
        assert_eq!(site.later(1).enter(), too_soon(289));
        assert_eq!(site.later(288).enter(), too_soon(1));
        assert_eq!(site.later(1).enter(), Ok(()));
        assert_eq!(site.later(1).enter(), too_soon(299));
    }

    #[test]
    fn a_users_own_delay_holds_within_what_the_operator_allows() {
        let own = |seconds| UserLimits {
            login_delay: Some(Duration::from_secs(seconds)),
            ..UserLimits::default()
        };
        let delay = |limits: &VisitLimits, own: Option<UserLimits>| {
            limits.of(own.as_ref()).login_delay.as_secs()
        };
        assert_eq!(delay(&LIMITS, None), 300);
        assert_eq!(delay(&LIMITS, Some(UserLimits::default())), 300);
        assert_eq!(delay(&LIMITS, Some(own(60))), 60);
        assert_eq!(delay(&LIMITS, Some(own(900))), 300);
        let more = VisitLimits {
            longest_login_delay: Duration::from_mins(10),
            ..LIMITS
        };
        assert_eq!(more.longest_delay(), Duration::from_mins(10));
        assert_eq!(delay(&more, None), 300);
        assert_eq!(delay(&more, Some(own(900))), 600);
        // Where it is longer, the login before the own one may be longer ago.
        let mut site = Site::new();
        let limits = more.of(Some(&own(600)));
        site.visits.enters(&site.ann, &limits, site.now);
        site.later(300);
        assert!(site.visits.may_enter(&site.ann, &LIMITS, site.now).is_ok());
        let refused = site.visits.may_enter(&site.ann, &limits, site.now);
        assert_eq!(refused, too_soon(300));
    }

    #[test]
    fn who_comes_back_within_seconds_to_delete_is_let_in_once() {
        let mut site = Site::new();
        assert_eq!(site.enter(), Ok(()));
        site.later(60).leave(false);
        assert_eq!(site.later(5).enter(), Ok(()), "to delete");
        site.later(1).leave(true);
        assert_eq!(site.later(1).enter(), too_soon(233));
        // The delay was not begun anew by coming back.
        assert_eq!(site.later(233).enter(), Ok(()));
    }

    #[test]
    fn coming_back_is_no_way_around_the_delay() {
        let mut site = Site::new();
        let mut let_in = 0;
        for _ in 0..3600 {
            site.later(1);
            if site.enter().is_ok() {
                let_in += 1;
                site.leave(false);
            }
        }
        assert_eq!(let_in, 2 * 3600 / 300);
        // Nor is it one after the seconds are over.
        let mut site = Site::new();
        assert_eq!(site.enter(), Ok(()));
        site.leave(false);
        assert_eq!(site.later(31).enter(), too_soon(269));
    }

    #[test]
    fn polls_beyond_the_bucket_are_shown_what_is_known() {
        let mut site = Site::new();
        for _ in 0..3 {
            assert_eq!(site.look(), Entrance::Now);
        }
        assert_eq!(site.later(59).look(), Entrance::AsSeenLast);
        assert_eq!(site.later(1).look(), Entrance::Now);
        assert_eq!(site.look(), Entrance::AsSeenLast);
        site.later(300);
        for _ in 0..3 {
            assert_eq!(site.look(), Entrance::Now);
        }
        assert_eq!(site.look(), Entrance::AsSeenLast);
    }

    #[test]
    fn without_limits_nothing_is_kept() {
        let site = Site::new();
        let none = VisitLimits::NONE;
        for _ in 0..3 {
            assert_eq!(site.visits.may_enter(&site.ann, &none, site.now), Ok(()));
            site.visits.enters(&site.ann, &none, site.now);
            assert_eq!(site.visits.look(&site.ann, &none, site.now), Entrance::Now);
            site.visits.leaves(&site.ann, false, &none, site.now);
        }
        assert!(site.visits.0.get(&site.ann).is_none());
    }

    proptest! {
        #[test]
        fn what_is_shown_is_never_older_than_an_interval(
            pauses in prop::collection::vec(0_u64..200, 1..100),
        ) {
            let mut site = Site::new();
            let mut seen = None;
            for pause in pauses {
                site.later(pause);
                match site.look() {
                    Entrance::Now => seen = Some(site.now),
                    Entrance::AsSeenLast => {
                        let seen = seen.expect("a first poll sees the disk");
                        prop_assert!(site.now - seen < LIMITS.poll_interval);
                    }
                }
            }
        }
    }
}
