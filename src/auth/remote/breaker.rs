//! When a directory that fails is left in peace.
//!
//! A server that is down costs every login its whole time-out, and one that comes up
//! under the load of all who waited falls down again. So after some failures in a row
//! nobody is sent there for a while; then one login tries, and the others follow when
//! that one was answered. The while doubles with each trial that fails.
//!
//! Pure: time is an argument.

use std::time::{Duration, Instant};

use crate::limits;

/// Whether a directory is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Breaker {
    /// It is; so many failures came in a row.
    Closed { failures: u32 },
    /// It is not, until then; it had a rest of this length.
    Open { until: Instant, rest: Duration },
    /// One login is on its way to try, since then; it had a rest of this length before.
    HalfOpen { since: Instant, rest: Duration },
}

/// What a report has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is left in peace for this long.
    Opened(Duration),
    /// It is asked again.
    Closed,
}

impl Breaker {
    pub(super) const NEW: Self = Self::Closed { failures: 0 };

    /// Whether a login could not ask now, nor in a moment.
    pub(super) fn rests(&self, now: Instant) -> bool {
        match *self {
            Self::Closed { .. } => false,
            Self::Open { until, .. } => now < until,
            Self::HalfOpen { since, .. } => !Self::is_lost(since, now),
        }
    }

    /// Whether a trial has not come back that went then. It always reports, within its
    /// time-out; should one be lost all the same, another one goes.
    fn is_lost(since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) > limits::LONGEST_LOOKUP
    }

    /// Whether a login may ask now. One that may reports how that went.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        match *self {
            Self::Closed { .. } => true,
            Self::Open { until, rest } if now >= until => {
                *self = Self::HalfOpen { since: now, rest };
                true
            }
            Self::Open { .. } => false,
            Self::HalfOpen { since, rest } => {
                let lost = Self::is_lost(since, now);
                if lost {
                    *self = Self::HalfOpen { since: now, rest };
                }
                lost
            }
        }
    }

    /// It answered.
    pub(super) fn answered(&mut self) -> Option<Change> {
        let before = std::mem::replace(self, Self::NEW);
        (!matches!(before, Self::Closed { .. })).then_some(Change::Closed)
    }

    /// It did not.
    pub(super) fn failed(&mut self, now: Instant) -> Option<Change> {
        let rest = match *self {
            Self::Closed { failures } if failures + 1 < limits::DIRECTORY_FAILURES => {
                let failures = failures + 1;
                *self = Self::Closed { failures };
                return None;
            }
            Self::Closed { .. } => limits::DIRECTORY_REST_LEAST,
            Self::HalfOpen { rest, .. } => (rest * 2).min(limits::DIRECTORY_REST_MOST),
            // One that was asked before the others had failed.
            Self::Open { .. } => return None,
        };
        let until = now + rest;
        *self = Self::Open { until, rest };
        Some(Change::Opened(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A breaker that has just opened, and when.
    fn opened() -> (Breaker, Instant) {
        let now = Instant::now();
        let mut breaker = Breaker::NEW;
        for _ in 1..limits::DIRECTORY_FAILURES {
            assert!(breaker.admits(now));
            assert_eq!(breaker.failed(now), None);
        }
        let rest = limits::DIRECTORY_REST_LEAST;
        assert_eq!(breaker.failed(now), Some(Change::Opened(rest)));
        (breaker, now)
    }

    #[test]
    fn an_answer_forgives_what_failed_before() {
        let now = Instant::now();
        let mut breaker = Breaker::NEW;
        for _ in 0..10 {
            for _ in 1..limits::DIRECTORY_FAILURES {
                assert_eq!(breaker.failed(now), None);
            }
            assert_eq!(breaker.answered(), None);
        }
        assert_eq!(breaker, Breaker::NEW);
    }

    #[test]
    fn one_login_tries_and_the_others_wait_for_it() {
        let (mut breaker, now) = opened();
        let rested = now + limits::DIRECTORY_REST_LEAST;
        assert!(breaker.rests(now) && !breaker.admits(now));
        assert!(!breaker.rests(rested) && breaker.admits(rested));
        assert!(breaker.rests(rested) && !breaker.admits(rested));
        assert_eq!(breaker.answered(), Some(Change::Closed));
        assert!(breaker.admits(rested) && breaker.admits(rested));
    }

    #[test]
    fn the_rest_doubles_up_to_its_bound() {
        let (mut breaker, mut now) = opened();
        let mut last = limits::DIRECTORY_REST_LEAST;
        for _ in 0..20 {
            now += last;
            assert!(breaker.admits(now));
            let Some(Change::Opened(rest)) = breaker.failed(now) else {
                panic!("{breaker:?}");
            };
            assert_eq!(rest, (last * 2).min(limits::DIRECTORY_REST_MOST));
            last = rest;
        }
        assert_eq!(last, limits::DIRECTORY_REST_MOST);
    }

    #[test]
    fn latecomers_neither_lengthen_a_rest_nor_are_believed_to_be_trials() {
        let (mut breaker, now) = opened();
        let before = breaker;
        assert_eq!(breaker.failed(now), None);
        assert_eq!(breaker, before);
        // Who was asked before and is answered now shows that it is there.
        assert_eq!(breaker.answered(), Some(Change::Closed));
    }

    #[test]
    fn a_trial_that_is_lost_is_not_waited_for_for_ever() {
        let (mut breaker, now) = opened();
        let trial = now + limits::DIRECTORY_REST_LEAST;
        assert!(breaker.admits(trial));
        assert!(!breaker.admits(trial + limits::LONGEST_LOOKUP));
        assert!(breaker.admits(trial + limits::LONGEST_LOOKUP + Duration::from_millis(1)));
    }
}
