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

    #[test]
    fn a_password_is_bounded() {
        assert!(Password::new(&[b'x'; limits::PASSWORD]).is_ok());
        let longer = Password::new(&[b'x'; limits::PASSWORD + 1]);
        assert_eq!(longer.err(), Some(PasswordTooLong));
    }
}
