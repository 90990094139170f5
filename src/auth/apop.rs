//! APOP (RFC 1939, section 7): a digest of the greeting's stamp and the password.
//!
//! The password is never sent, and has to be stored in clear to be compared. MD5 is weak,
//! and whoever sits between may choose the stamp: it is for clients that know nothing
//! better, where the operator asks for it.

use std::fmt;

use md5::{Digest as _, Md5};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// What a greeting has of its own, so that no digest is of use twice: 128 random bits in
/// the form of a message-id (RFC 822, section 4.6.1).
#[derive(Clone, PartialEq, Eq)]
pub struct Stamp(Box<str>);

/// What a client makes of a stamp and its password.
#[derive(Clone)]
pub struct ApopProof {
    stamp: Stamp,
    digest: [u8; 16],
}

impl Stamp {
    /// Another one each time.
    pub fn random() -> Self {
        let mut random = [0; 16];
        getrandom::fill(&mut random).expect("the kernel has randomness (getrandom(2))");
        Self(format!("<{:032x}@popcore>", u128::from_ne_bytes(random)).into())
    }

    /// The stamp of this text; for tests.
    pub fn of(text: &str) -> Self {
        Self(text.into())
    }

    /// The text, angle brackets included.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ApopProof {
    /// What was sent in answer to a stamp.
    pub fn new(stamp: Stamp, digest: [u8; 16]) -> Self {
        Self { stamp, digest }
    }

    /// Whether this is the password that it was made of. Takes as long whatever the answer.
    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        let made = Md5::new_with_prefix(self.stamp.as_str().as_bytes());
        let made = Zeroizing::new(<[u8; 16]>::from(made.chain_update(password).finalize()));
        made.ct_eq(&self.digest).into()
    }

    /// All of it, for a digest.
    pub(super) fn parts(&self) -> Vec<u8> {
        [self.stamp.as_str().as_bytes(), &self.digest].concat()
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ApopProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApopProof(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1939, section 7.
    #[test]
    fn a_proof_is_that_of_rfc_1939() {
        let stamp = Stamp::of("<1896.697170952@dbc.mtview.ca.us>");
        let digest = 0xc4c9_334b_ac56_0ecc_979e_5800_1b3e_22fb_u128.to_be_bytes();
        let proof = ApopProof::new(stamp.clone(), digest);
        assert!(proof.is_of(b"tanstaaf"));
        assert!(!proof.is_of(b"tanstaaF") && !proof.is_of(b""));
        let elsewhere = ApopProof::new(Stamp::random(), digest);
        assert!(!elsewhere.is_of(b"tanstaaf"));
        assert_eq!(format!("{proof:?}"), "ApopProof(..)");
    }

    #[test]
    fn no_two_stamps_are_the_same() {
        let [one, other] = [(); 2].map(|()| Stamp::random());
        assert_ne!(one, other);
        let text = one.as_str();
        assert!(
            text.len() == 42 && text.starts_with('<') && text.ends_with("@popcore>"),
            "{text}"
        );
    }
}
