//! Dovecot's PBKDF2: `$1$salt$rounds$digest` with HMAC-SHA-1, the salt as it stands
//! and the digest in hexadecimal.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA1};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{SchemeError, Secret, hex};
use crate::limits;

#[derive(Clone)]
pub(super) struct Pbkdf2 {
    rounds: NonZeroU32,
    pub(super) salt: Box<[u8]>,
    pub(super) digest: Secret,
}

impl Pbkdf2 {
    pub(super) fn parse(text: &[u8]) -> Result<Self, SchemeError> {
        let malformed = || SchemeError::Malformed("not $1$salt$rounds$digest");
        let text = std::str::from_utf8(text).map_err(|_| malformed())?;
        let fields = text.strip_prefix("$1$").ok_or_else(malformed)?;
        let (salt, rest) = fields.split_once('$').ok_or_else(malformed)?;
        let (rounds, digest) = rest.split_once('$').ok_or_else(malformed)?;
        let rounds: NonZeroU32 = rounds.parse().map_err(|_| malformed())?;
        if rounds.get() > limits::PBKDF2_ROUNDS {
            return Err(SchemeError::TooCostly("its rounds"));
        }
        let digest = hex(digest.as_bytes())?;
        // Fewer octets would be found by guessing.
        if digest.len() < 16 {
            return Err(malformed());
        }
        Ok(Self {
            rounds,
            salt: salt.as_bytes().into(),
            digest,
        })
    }

    pub(super) fn verify(&self, password: &[u8]) -> bool {
        let mut found = Zeroizing::new(vec![0; self.digest.len()]);
        pbkdf2::derive(
            PBKDF2_HMAC_SHA1,
            self.rounds,
            &self.salt,
            password,
            &mut found,
        );
        found.ct_eq(&self.digest).into()
    }
}
