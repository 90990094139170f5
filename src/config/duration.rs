//! Durations as an operator writes them: a whole number and one unit.
//!
//! A bare number is refused: "30" says nothing about seconds or minutes, and a
//! wrong guess about `idle` or `drain` shows only in production.

use std::fmt;
use std::time::Duration;

use crate::limits;

/// What is wrong with a duration, said for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DurationError {
    /// Not a whole number followed by a unit.
    Form,
    /// Longer than [`limits::LONGEST_DURATION`].
    TooLong,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("is not a duration"),
            Self::TooLong => f.write_str("is longer than a week"),
        }
    }
}

/// The unit names and their length in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Parses `500ms`, `30s`, `10m`, `1h` or `1d`.
pub(super) fn parse(text: &str) -> Result<Duration, DurationError> {
    parse_within(text, limits::LONGEST_DURATION)
}

/// The same, where another bound holds.
pub(super) fn parse_within(text: &str, most: Duration) -> Result<Duration, DurationError> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, scale)| *scale)
        .ok_or(DurationError::Form)?;
    if number.is_empty() {
        return Err(DurationError::Form);
    }
    // Only digits remain, so the one way to fail is a number too large.
    let number: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
    let milliseconds = number.checked_mul(scale).ok_or(DurationError::TooLong)?;
    let duration = Duration::from_millis(milliseconds);
    if duration > most {
        return Err(DurationError::TooLong);
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)));
        }
    }

    #[test]
    fn what_is_not_a_number_and_a_unit_is_refused() {
        for text in [
            "", "30", "s", "1.5h", "-1s", "+1s", "10 m", "10M", "1m30s", "٣s",
        ] {
            assert_eq!(parse(text), Err(DurationError::Form), "{text:?}");
        }
    }

    #[test]
    fn overflow_and_more_than_a_week_are_too_long() {
        for text in ["8d", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(parse(text), Err(DurationError::TooLong), "{text:?}");
        }
    }
}
