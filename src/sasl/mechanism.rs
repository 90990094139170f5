//! The mechanisms, and which of them may be used.

use std::fmt;

/// A way to log in by AUTH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// A hash of the password, bound to the TLS connection (RFC 7677).
    ScramSha256Plus,
    /// The same, not bound.
    ScramSha256,
    /// The same with an older hash (RFC 5802).
    ScramSha1,
    /// The client's certificate (RFC 4422, appendix A).
    External,
    /// A bearer token (RFC 7628).
    OauthBearer,
    /// The same in the older form that Google made.
    Xoauth2,
    /// Name and password in one response (RFC 4616).
    Plain,
    /// Name and password in two responses (draft-murchison-sasl-login).
    Login,
}

impl Mechanism {
    /// All there are, those that a client should take first before the others.
    pub const ALL: [Self; 8] = [
        Self::ScramSha256Plus,
        Self::ScramSha256,
        Self::ScramSha1,
        Self::External,
        Self::OauthBearer,
        Self::Xoauth2,
        Self::Plain,
        Self::Login,
    ];

    /// Those by which a client shows a bearer token.
    pub const OF_TOKENS: [Self; 2] = [Self::OauthBearer, Self::Xoauth2];

    /// The name by which it is registered.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::External => "EXTERNAL",
            Self::OauthBearer => "OAUTHBEARER",
            Self::Xoauth2 => "XOAUTH2",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    /// The mechanism of this name, in any case.
    pub fn named(name: &[u8]) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|mechanism| mechanism.name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Whether it works with what a directory has stored alone.
    pub fn needs_stored(self) -> bool {
        matches!(
            self,
            Self::ScramSha256Plus | Self::ScramSha256 | Self::ScramSha1
        )
    }

    /// Whether something else than a password proves who it is, so that a directory has to
    /// say who is there without one.
    pub fn needs_no_password(self) -> bool {
        matches!(self, Self::External | Self::OauthBearer | Self::Xoauth2)
    }

    /// Whether who listens learns what is enough to log in, so that it needs TLS
    /// where passwords do.
    pub fn tells_secret(self) -> bool {
        match self {
            Self::OauthBearer | Self::Xoauth2 | Self::Plain | Self::Login => true,
            Self::ScramSha256Plus | Self::ScramSha256 | Self::ScramSha1 | Self::External => false,
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of mechanisms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mechanisms(u16);

impl Mechanisms {
    /// Whether it is one of them.
    pub fn contains(self, mechanism: Mechanism) -> bool {
        self.0 & bit(mechanism) != 0
    }

    /// Those for which this is so.
    #[must_use]
    pub fn filter(self, is_so: impl Fn(Mechanism) -> bool) -> Self {
        self.iter().filter(|mechanism| is_so(*mechanism)).collect()
    }

    /// Each of them, in the order of [`Mechanism::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Mechanism> {
        let all = Mechanism::ALL.into_iter();
        all.filter(move |mechanism| self.contains(*mechanism))
    }

    /// Their names, in that order.
    pub fn names(self) -> Vec<&'static str> {
        self.iter().map(Mechanism::name).collect()
    }
}

impl FromIterator<Mechanism> for Mechanisms {
    fn from_iter<T: IntoIterator<Item = Mechanism>>(mechanisms: T) -> Self {
        let bits = mechanisms.into_iter().map(bit);
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

fn bit(mechanism: Mechanism) -> u16 {
    1 << mechanism as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mechanisms_are_found_by_their_names() {
        for mechanism in Mechanism::ALL {
            assert_eq!(
                Mechanism::named(mechanism.name().as_bytes()),
                Some(mechanism)
            );
            let lower = mechanism.name().to_ascii_lowercase();
            assert_eq!(Mechanism::named(lower.as_bytes()), Some(mechanism));
        }
        for unknown in ["", "PLAI", "PLAINS", "CRAM-MD5", "PLAIN LOGIN"] {
            assert_eq!(Mechanism::named(unknown.as_bytes()), None, "{unknown}");
        }
    }

    #[test]
    fn a_set_keeps_the_order_of_preference() {
        let set: Mechanisms = [Mechanism::Login, Mechanism::Plain].into_iter().collect();
        assert_eq!(set.names(), ["PLAIN", "LOGIN"]);
        let login = set.filter(|mechanism| mechanism == Mechanism::Login);
        assert_eq!(login.names(), ["LOGIN"]);
        assert!(!login.contains(Mechanism::Plain));
        assert!(Mechanisms::default().names().is_empty());
    }
}
