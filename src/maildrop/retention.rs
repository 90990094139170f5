//! How long messages are kept once a client has fetched them (`maildrop.retention`).
//!
//! Days are counted, not seconds: that is all that EXPIRE can promise (RFC 2449,
//! section 6.7), and two octets of a snapshot hold one. The day on which a message
//! was fetched does not count, so it is kept for the days that were promised and for
//! what was left of that one. What nobody has fetched is kept for ever: a rule that counts
//! from the delivery would remove mail that no one has seen, which is not a POP3 server's
//! to do, and whoever wants it has `find -mtime`.
//!
//! **A clock may be wrong**, above all that of a machine that has just started, and a year
//! ahead all would be over. So nothing goes on the day on which a session first finds that it
//! is to go: that day is noted in the index, and what was over by then goes with a session of
//! a later day. A day that turns out to lie ahead is forgotten. The day is in the index alone; without
//! it the time begins anew with the next retrieval, which errs on keeping. A clock that is
//! behind at a retrieval is seen where it stands before the last change of the maildrop: then
//! the time counts from that change.

use std::error::Error;
use std::fmt;
use std::num::NonZeroU16;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A day in UTC, counted from 1970-01-01, which is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Day(NonZeroU16);

const DAY: Duration = Duration::from_hours(24);

impl Day {
    /// The day of that number.
    pub(super) fn new(number: u16) -> Option<Self> {
        NonZeroU16::new(number).map(Self)
    }

    /// The day of an instant, from 1970-01-02 on to one in 2149.
    pub(super) fn of(time: SystemTime) -> Option<Self> {
        let since = time.duration_since(UNIX_EPOCH).ok()?;
        Self::new(u16::try_from(since.as_secs() / DAY.as_secs()).ok()?)
    }

    pub(super) fn get(self) -> u16 {
        self.0.get()
    }

    /// When it is over.
    pub(super) fn end(self) -> SystemTime {
        UNIX_EPOCH + DAY * (u32::from(self.get()) + 1)
    }
}

/// Days for which a message is kept after a client first fetched it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention(NonZeroU16);

/// A text that is no retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionError;

impl fmt::Display for RetentionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is not of the form \"30 days after first retrieval\"")
    }
}

impl Error for RetentionError {}

impl Retention {
    /// Reads `30 days after first retrieval`: a day at least, 65,535 at most.
    pub fn parse(text: &str) -> Result<Self, RetentionError> {
        let (number, rest) = text.split_once(' ').ok_or(RetentionError)?;
        let plain = number.bytes().all(|octet| octet.is_ascii_digit());
        let days = number.parse().ok().filter(|_| plain);
        let days: NonZeroU16 = days.ok_or(RetentionError)?;
        let unit = if days == NonZeroU16::MIN {
            "day"
        } else {
            "days"
        };
        match rest.strip_prefix(unit) {
            Some(" after first retrieval") => Ok(Self(days)),
            _ => Err(RetentionError),
        }
    }

    /// What EXPIRE tells (RFC 2449, section 6.7).
    pub fn days(self) -> u16 {
        self.0.get()
    }

    /// Whether a message first fetched on one day has been kept long enough.
    pub(super) fn is_over(self, retrieved: Day, today: Day) -> bool {
        today.get().saturating_sub(retrieved.get()) > self.days()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_is_read_as_it_is_written() {
        for (text, days) in [("30 days", 30), ("1 day", 1), ("65535 days", u16::MAX)] {
            let read = Retention::parse(&format!("{text} after first retrieval"));
            assert_eq!(read.map(Retention::days), Ok(days));
        }
        for text in [
            "",
            "30 days",
            "30d after first retrieval",
            "0 days after first retrieval",
            "1 days after first retrieval",
            "2 day after first retrieval",
            "+3 days after first retrieval",
            "65536 days after first retrieval",
            "30 days after first retrieval ",
            "30 days after delivery",
        ] {
            assert_eq!(Retention::parse(text), Err(RetentionError), "{text:?}");
        }
    }

    #[test]
    fn whole_days_are_kept_and_the_clock_may_go_back() {
        let kept = Retention::parse("2 days after first retrieval").expect("a retention");
        let day = |number| Day::new(number).expect("not 0");
        let over = [99, 100, 102, 103].map(|today| kept.is_over(day(100), day(today)));
        assert_eq!(over, [false, false, false, true]);
    }

    #[test]
    fn a_day_begins_at_midnight() {
        let at = |seconds| Day::of(UNIX_EPOCH + Duration::from_secs(seconds)).map(Day::get);
        assert_eq!(at(86_399), None);
        assert_eq!((at(86_400), at(2 * 86_400 - 1)), (Some(1), Some(1)));
        assert_eq!(at(u64::MAX / 4), None);
    }
}
