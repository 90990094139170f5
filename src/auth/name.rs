//! The name of a user as a client gives it.
//!
//! A [`UserName`] is 1 to [`limits::USER_NAME`] octets without control
//! characters, byte for byte as it was received: directories compare it
//! exactly. It need not be UTF-8, and it may hold `/` or `..`: whoever makes a
//! path of it refuses those.

use std::fmt::{self, Write};

use crate::limits;

/// A user's name: never empty, bounded, free of control characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(Box<[u8]>);

/// Why octets are not a user's name. The client is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// No octet at all.
    Empty,
    /// More than [`limits::USER_NAME`] octets.
    TooLong,
    /// An ASCII control character: NUL, a line end, a tab, DEL.
    Control,
    /// A character that [`NameRules`](super::NameRules) do not allow.
    Forbidden,
    /// It has no form for comparison (`SASLprep`, RFC 4013), as it should have.
    Unprepared,
    /// It is to act for another user, which nobody may.
    NoMaster,
}

impl UserName {
    /// Takes the octets as they are.
    pub fn new(name: &[u8]) -> Result<Self, NameError> {
        Self::check(name)?;
        Ok(Self(name.into()))
    }

    /// What [`UserName::new`] would say, without a copy.
    pub(super) fn check(name: &[u8]) -> Result<(), NameError> {
        if name.is_empty() {
            Err(NameError::Empty)
        } else if name.len() > limits::USER_NAME {
            Err(NameError::TooLong)
        } else if name.iter().any(u8::is_ascii_control) {
            Err(NameError::Control)
        } else {
            Ok(())
        }
    }

    /// The octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What stands before the last `@`, or the whole name if it has none.
    /// Empty for a name that begins with its only `@`.
    pub fn local(&self) -> &[u8] {
        self.at().map_or(&self.0, |at| &self.0[..at])
    }

    /// What stands behind the last `@`, which may be nothing; `None` if the
    /// name has no `@`.
    pub fn domain(&self) -> Option<&[u8]> {
        self.at().map(|at| &self.0[at + 1..])
    }

    fn at(&self) -> Option<usize> {
        memchr::memrchr(b'@', &self.0)
    }
}

/// For logs: one line whatever the name holds. What is not UTF-8 is written
/// `\xNN`, what a terminal would obey is written `\u{N}`.
impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() {
                    write!(f, "{}", c.escape_unicode())?;
                } else {
                    f.write_char(c)?;
                }
            }
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        Ok(())
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserName({self})")
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the user name is empty"),
            Self::TooLong => {
                let most = limits::USER_NAME;
                write!(f, "the user name is longer than {most} octets")
            }
            Self::Forbidden => f.write_str("the user name holds a character that none may have"),
            Self::Unprepared => f.write_str("the user name is no text that could be compared"),
            Self::NoMaster => f.write_str("nobody may log in for another user"),
            Self::Control => f.write_str("the user name holds a control character"),
        }
    }
}

impl std::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_splits_at_its_last_at_sign() {
        let parts = |name: &str| {
            let name = UserName::new(name.as_bytes()).expect("a name");
            let text = |part: &[u8]| String::from_utf8(part.to_vec()).expect("UTF-8");
            (text(name.local()), name.domain().map(text))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parts("joe"), ("joe".into(), None));
        assert_eq!(
            parts("joe@example.net"),
            ("joe".into(), some("example.net"))
        );
        assert_eq!(
            parts("a@b@example.net"),
            ("a@b".into(), some("example.net"))
        );
        assert_eq!(parts("joe@"), ("joe".into(), some("")));
        assert_eq!(parts("@example.net"), (String::new(), some("example.net")));
    }

    #[test]
    fn names_are_bounded_and_free_of_control_characters() {
        let longest = vec![b'x'; limits::USER_NAME];
        assert_eq!(UserName::new(&longest).expect("a name").as_bytes(), longest);
        let cases: [(&[u8], NameError); 5] = [
            (b"", NameError::Empty),
            (&[b'x'; limits::USER_NAME + 1], NameError::TooLong),
            (b"joe\0", NameError::Control),
            (b"joe\r", NameError::Control),
            (b"\x7fjoe", NameError::Control),
        ];
        for (name, error) in cases {
            assert_eq!(UserName::new(name), Err(error), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn a_log_line_stays_one_line(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(name) = UserName::new(&bytes) {
                prop_assert!(!name.to_string().chars().any(char::is_control));
                prop_assert_eq!(name.as_bytes(), &bytes[..]);
            }
        }
    }
}
