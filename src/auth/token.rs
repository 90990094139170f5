//! The bearer token that a client shows (RFC 6750).
//!
//! Like a [`Password`](super::Password) it is overwritten when it is dropped, and no trait
//! of it prints it.

use std::fmt;

use zeroize::Zeroizing;

use crate::limits;

/// A token: 1 to [`limits::TOKEN`] octets, printable ASCII without spaces.
#[derive(Clone)]
pub struct Token(Zeroizing<Box<str>>);

/// Why octets are no token. The client is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// More than [`limits::TOKEN`] octets.
    TooLong,
    /// None at all, or some that no token has (RFC 6750, section 2.1).
    Malformed,
}

impl Token {
    /// Copies the text. The caller's buffer is the caller's to overwrite.
    pub fn new(token: &str) -> Result<Self, TokenError> {
        if token.len() > limits::TOKEN {
            Err(TokenError::TooLong)
        } else if token.is_empty() || !token.bytes().all(|octet| octet.is_ascii_graphic()) {
            Err(TokenError::Malformed)
        } else {
            Ok(Self(Zeroizing::new(token.into())))
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_bounded_and_printable_and_never_printed() {
        let longest = "x".repeat(limits::TOKEN);
        assert_eq!(Token::new(&longest).expect("a token").as_str(), longest);
        let longer = Token::new(&format!("{longest}x"));
        assert_eq!(longer.err(), Some(TokenError::TooLong));
        for bad in ["", "a b", "a\u{1}", "ä", "a\n"] {
            assert_eq!(
                Token::new(bad).err(),
                Some(TokenError::Malformed),
                "{bad:?}"
            );
        }
        let token = Token::new("hunter2").expect("a token");
        assert_eq!(format!("{token:?}"), "Token(..)");
    }
}
