//! Stored passwords of our own making.

use std::num::NonZeroU32;

use argon2::{Algorithm, Argon2, Params, Version};
use base64ct::{Base64Unpadded, Encoding as _};
use zeroize::Zeroizing;

use super::scram::{ITERATIONS, SALT, ScramHash, ScramKeys};
use crate::auth::Password;

/// How a new password is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewScheme {
    /// `{ARGON2ID}`, with 19 MiB and two passes
    /// (OWASP's Password Storage Cheat Sheet): the dearest to guess.
    Argon2id,
    /// `{SCRAM-SHA-256}`, with which SCRAM-SHA-256 works as well.
    ScramSha256,
    /// `{SCRAM-SHA-1}`, for clients that know no other.
    ScramSha1,
}

impl NewScheme {
    /// The text to be stored, with its scheme: `{ARGON2ID}$argon2id$...`. Takes tens of
    /// milliseconds.
    pub fn store(self, password: &Password) -> Zeroizing<String> {
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).expect("the kernel has randomness (getrandom(2))");
        self.store_with(password, &salt, ITERATIONS)
    }

    fn store_with(
        self,
        password: &Password,
        salt: &[u8; SALT],
        iterations: NonZeroU32,
    ) -> Zeroizing<String> {
        let prepared = password.prepared();
        let password = prepared.as_ref().unwrap_or(password).as_bytes();
        match self {
            Self::Argon2id => argon2id(password, salt),
            Self::ScramSha256 => scram(ScramHash::Sha256, password, salt, iterations),
            Self::ScramSha1 => scram(ScramHash::Sha1, password, salt, iterations),
        }
    }
}

fn scram(
    hash: ScramHash,
    password: &[u8],
    salt: &[u8],
    iterations: NonZeroU32,
) -> Zeroizing<String> {
    let keys = ScramKeys::derive(hash, password, salt, iterations);
    Zeroizing::new(format!("{{{}}}{}", hash.scheme(), *keys.text()))
}

fn argon2id(password: &[u8], salt: &[u8]) -> Zeroizing<String> {
    let params = Params::DEFAULT;
    let context = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    let mut hash = Zeroizing::new([0; Params::DEFAULT_OUTPUT_LEN]);
    let made = context.hash_password_into(password, salt, &mut *hash);
    made.expect("a password that is bounded, and a salt of 16 octets");
    Zeroizing::new(format!(
        "{{ARGON2ID}}$argon2id$v=19$m={},t={},p={}${}${}",
        params.m_cost(),
        params.t_cost(),
        params.p_cost(),
        Base64Unpadded::encode_string(salt),
        Base64Unpadded::encode_string(&*hash)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Verifier;

    const ALL: [NewScheme; 3] = [
        NewScheme::Argon2id,
        NewScheme::ScramSha256,
        NewScheme::ScramSha1,
    ];

    fn password(text: &str) -> Password {
        Password::new(text.as_bytes()).expect("short")
    }

    #[test]
    fn what_is_stored_verifies_its_password_and_no_other() {
        for scheme in ALL {
            let stored = scheme.store(&password("two words"));
            let again = scheme.store(&password("two words"));
            assert_ne!(stored, again, "a salt each time");
            let verifier = Verifier::parse(stored.as_bytes()).expect("known");
            assert!(verifier.verify(&password("two words")), "{scheme:?}");
            assert!(!verifier.verify(&password("two word")), "{scheme:?}");
        }
    }

    /// "IX" as one character, soft hyphen and all (RFC 4013, section 3).
    #[test]
    fn a_password_is_stored_in_its_prepared_form() {
        for scheme in ALL {
            let stored = scheme.store(&password("\u{2168}x\u{ad}"));
            let verifier = Verifier::parse(stored.as_bytes()).expect("known");
            for form in ["\u{2168}x\u{ad}", "IXx"] {
                assert!(verifier.verify(&password(form)), "{scheme:?} {form}");
            }
        }
    }

    /// The example of RFC 7677, section 3: what a server stores of it.
    #[test]
    fn scram_keys_are_those_of_rfc_7677() {
        let salt = base64ct::Base64::decode_vec("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let salt: [u8; SALT] = salt.try_into().expect("16 octets");
        let stored = NewScheme::ScramSha256.store_with(&password("pencil"), &salt, ITERATIONS);
        assert_eq!(
            *stored,
            "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,\
             WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,\
             wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }
}
