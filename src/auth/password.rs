//! The password that a client gave.
//!
//! It is overwritten when it is dropped, no trait of it prints it, and it
//! cannot be compared: only [`super::Verifier`] looks inside.

use std::fmt;

use zeroize::Zeroizing;

use crate::limits;

/// A password: at most [`limits::PASSWORD`] octets, spaces and any other octet
/// included; it may be empty.
#[derive(Clone)]
pub struct Password(Zeroizing<Box<[u8]>>);

/// The password is longer than [`limits::PASSWORD`] octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordTooLong;

impl Password {
    /// Copies the octets. The caller's buffer is the caller's to overwrite.
    pub fn new(password: &[u8]) -> Result<Self, PasswordTooLong> {
        if password.len() > limits::PASSWORD {
            return Err(PasswordTooLong);
        }
        Ok(Self(Zeroizing::new(password.into())))
    }

    /// The form in which SASL compares passwords (`SASLprep`, RFC 4013), if that is
    /// another one. A password that has none, for octets that are no UTF-8 or
    /// characters that Unicode 3.2 did not know, is compared as it stands.
    pub(super) fn prepared(&self) -> Option<Self> {
        if self.0.is_ascii() {
            return None;
        }
        let text = std::str::from_utf8(&self.0).ok()?;
        let prepared = Zeroizing::new(stringprep::saslprep(text).ok()?.into_owned());
        let differs = prepared.as_bytes() != &**self.0 && !prepared.is_empty();
        differs.then(|| Self::new(prepared.as_bytes()).ok())?
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl fmt::Display for PasswordTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = limits::PASSWORD;
        write!(f, "the password is longer than {most} octets")
    }
}

impl std::error::Error for PasswordTooLong {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_tells_nothing() {
        let password = Password::new(b"hunter2").expect("short");
        assert_eq!(format!("{password:?}"), "Password(..)");
        assert_eq!(password.as_bytes(), b"hunter2");
    }

    /// The examples of RFC 4013, section 3, and what has no other form.
    #[test]
    fn a_password_has_one_prepared_form_at_most() {
        let prepared = |text: &[u8]| {
            let password = Password::new(text).expect("short").prepared()?;
            Some(String::from_utf8(password.as_bytes().to_vec()).expect("UTF-8"))
        };
        assert_eq!(prepared("I\u{ad}X".as_bytes()), Some("IX".into()));
        assert_eq!(prepared("\u{aa}".as_bytes()), Some("a".into()));
        assert_eq!(prepared("\u{2168}".as_bytes()), Some("IX".into()));
        for same in [&b"user"[..], b"USER", b"\x07", b"\xff\xfe", b""] {
            assert_eq!(prepared(same), None, "{same:?}");
        }
        // A mixture of directions, an emoji newer than Unicode 3.2, nothing left.
        for none in ["\u{627}\u{31}", "\u{1f600}", "\u{ad}", "\u{e4}"] {
            assert_eq!(prepared(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn a_password_is_bounded() {
        assert!(Password::new(&[b'x'; limits::PASSWORD]).is_ok());
        let longer = Password::new(&[b'x'; limits::PASSWORD + 1]);
        assert_eq!(longer.err(), Some(PasswordTooLong));
    }
}
