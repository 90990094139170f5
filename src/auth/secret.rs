//! A secret of the operator's: the password of popcore itself at a directory.

use std::fmt;

use hyper::header::{HeaderName, HeaderValue};
use zeroize::Zeroizing;

/// Text that is overwritten when it is dropped and that no trait prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The header of HTTP that it is, if it is one.
    pub fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        let (name, value) = self.0.split_once(':')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        let mut value = HeaderValue::from_str(value.trim()).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    }

    /// The text. Not for any message.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_tells_nothing() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(secret.expose(), "hunter2");
        assert_eq!(secret.header(), None);
    }

    #[test]
    fn a_header_is_as_secret() {
        let secret = Secret::new("X-Auth-Key: hunter2 ".to_owned());
        let (name, value) = secret.header().expect("a header");
        assert_eq!(
            (name.as_str(), value.as_bytes()),
            ("x-auth-key", &b"hunter2"[..])
        );
        assert!(!format!("{value:?}").contains("hunter2"));
    }
}
