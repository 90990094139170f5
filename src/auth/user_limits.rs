//! What a directory allows a user, in place of what `[limits]` allows everybody.

use std::fmt;
use std::time::Duration;

use crate::limits;

/// Limits of one user, as far as the directory has some.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserLimits {
    /// Sessions of the user; 0: any number.
    pub sessions: Option<u32>,
    /// Sessions of the user from one address; 0: any number.
    pub sessions_from_address: Option<u32>,
    /// From one login to the next.
    pub login_delay: Option<Duration>,
}

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UserLimit {
    Sessions,
    SessionsFromAddress,
    LoginDelay,
}

impl UserLimit {
    /// What it is called in `[limits]`, and in directories.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions_per_user",
            Self::SessionsFromAddress => "sessions_per_user_and_address",
            Self::LoginDelay => "login_delay",
        }
    }
}

impl fmt::Display for UserLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl UserLimits {
    /// Whether none is said.
    pub(super) fn are_none(&self) -> bool {
        *self == Self::default()
    }

    /// Reads one: a whole number, of sessions or of seconds.
    pub(super) fn set(&mut self, limit: UserLimit, text: &str) -> Result<(), UserLimit> {
        let number = text.trim().parse::<u32>().map_err(|_| limit)?;
        match limit {
            UserLimit::Sessions => self.sessions = Some(number),
            UserLimit::SessionsFromAddress => self.sessions_from_address = Some(number),
            UserLimit::LoginDelay => {
                let delay = Duration::from_secs(number.into());
                let fits = delay <= limits::LONGEST_DURATION;
                self.login_delay = Some(delay).filter(|_| fits);
                return if fits { Ok(()) } else { Err(limit) };
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_whole_numbers_within_bounds() {
        let mut own = UserLimits::default();
        assert!(own.are_none());
        assert_eq!(own.set(UserLimit::Sessions, "3"), Ok(()));
        assert_eq!(own.set(UserLimit::SessionsFromAddress, " 0 "), Ok(()));
        assert_eq!(own.set(UserLimit::LoginDelay, "600"), Ok(()));
        let expected = UserLimits {
            sessions: Some(3),
            sessions_from_address: Some(0),
            login_delay: Some(Duration::from_mins(10)),
        };
        assert_eq!(own, expected);
        for (limit, text) in [
            (UserLimit::Sessions, "-1"),
            (UserLimit::SessionsFromAddress, ""),
            (UserLimit::SessionsFromAddress, "4294967296"),
            (UserLimit::LoginDelay, "10m"),
            (UserLimit::LoginDelay, "604801"),
        ] {
            assert_eq!(UserLimits::default().set(limit, text), Err(limit), "{text}");
        }
    }
}
