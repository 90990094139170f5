//! What SCRAM stores of a password (RFC 5802, section 3): enough to see that a client
//! knows it, and not enough to log in with.
//!
//! The text is Dovecot's: `iterations,salt,StoredKey,ServerKey`, the last three in
//! base64. From a password stored in clear the same is derived, by [`ScramKeys::derive`],
//! which is made to be slow.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64ct::{Base64, Encoding as _};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{SchemeError, Secret, base64};
use crate::limits;

/// Iterations where nothing says how many: what RFC 7677, section 4, asks for at least.
pub(in crate::auth) const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("not 0");

/// Octets of a salt of our own making.
pub(in crate::auth) const SALT: usize = 16;

/// The hash that a mechanism of the family is named after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScramHash {
    /// SCRAM-SHA-1 (RFC 5802)
    Sha1,
    /// SCRAM-SHA-256 (RFC 7677)
    Sha256,
}

impl ScramHash {
    /// Octets of a digest.
    pub fn octets(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// The name of the scheme, as stored passwords have it.
    pub(super) fn scheme(self) -> &'static str {
        match self {
            Self::Sha1 => "SCRAM-SHA-1",
            Self::Sha256 => "SCRAM-SHA-256",
        }
    }

    fn hmac(self, key: &[u8], data: &[u8]) -> Secret {
        let algorithm = match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
        };
        let tag = hmac::sign(&hmac::Key::new(algorithm, key), data);
        Zeroizing::new(tag.as_ref().into())
    }

    fn digest(self, data: &[u8]) -> Secret {
        let algorithm = match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
        };
        Zeroizing::new(digest::digest(algorithm, data).as_ref().into())
    }
}

/// Salt, iterations and the two keys of a user.
#[derive(Clone)]
pub struct ScramKeys {
    hash: ScramHash,
    iterations: NonZeroU32,
    salt: Box<[u8]>,
    /// `StoredKey`: what a client's proof is checked with.
    stored: Secret,
    /// `ServerKey`: what we prove ourselves with.
    server: Secret,
}

impl ScramKeys {
    /// Whether both are of the same password, salt and cost.
    pub(in crate::auth) fn are(&self, others: &Self) -> bool {
        self.hash == others.hash
            && self.iterations == others.iterations
            && self.salt == others.salt
            && bool::from(self.stored.ct_eq(&others.stored))
    }

    pub(super) fn parse(hash: ScramHash, text: &[u8]) -> Result<Self, SchemeError> {
        let malformed = || SchemeError::Malformed("not iterations,salt,StoredKey,ServerKey");
        let mut fields = text.split(|octet| *octet == b',');
        let mut field = || fields.next().ok_or_else(malformed);
        let (iterations, salt, stored, server) = (field()?, field()?, field()?, field()?);
        if fields.next().is_some() {
            return Err(malformed());
        }
        let iterations = std::str::from_utf8(iterations).ok();
        let iterations: Option<NonZeroU32> = iterations.and_then(|text| text.parse().ok());
        let iterations = iterations.ok_or_else(malformed)?;
        if iterations.get() > limits::PBKDF2_ROUNDS {
            return Err(SchemeError::TooCostly("its iterations"));
        }
        let (salt, stored, server) = (base64(salt)?, base64(stored)?, base64(server)?);
        let octets = hash.octets();
        let fits = (1..=limits::SCRAM_SALT).contains(&salt.len());
        if !fits || stored.len() != octets || server.len() != octets {
            return Err(malformed());
        }
        Ok(Self {
            hash,
            iterations,
            salt: salt.as_ref().into(),
            stored,
            server,
        })
    }

    /// The keys of a password. Takes milliseconds.
    pub(in crate::auth) fn derive(
        hash: ScramHash,
        password: &[u8],
        salt: &[u8],
        iterations: NonZeroU32,
    ) -> Self {
        let algorithm = match hash {
            ScramHash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            ScramHash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        };
        let mut salted = Zeroizing::new(vec![0; hash.octets()]);
        pbkdf2::derive(algorithm, iterations, salt, password, &mut salted);
        let client = hash.hmac(&salted, b"Client Key");
        Self {
            hash,
            iterations,
            salt: salt.into(),
            stored: hash.digest(&client),
            server: hash.hmac(&salted, b"Server Key"),
        }
    }

    /// The same salt and iterations with keys that nobody has a password to.
    pub(in crate::auth) fn nobodys(
        hash: ScramHash,
        salt: &[u8],
        iterations: NonZeroU32,
        secret: &[u8],
    ) -> Self {
        Self {
            hash,
            iterations,
            salt: salt.into(),
            stored: hash.hmac(secret, b"stored"),
            server: hash.hmac(secret, b"server"),
        }
    }

    /// Which hash they are for.
    pub fn hash(&self) -> ScramHash {
        self.hash
    }

    /// The salt, which a client is told.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// The iterations, which a client is told.
    pub fn iterations(&self) -> NonZeroU32 {
        self.iterations
    }

    /// Whether a client's proof is right for what both sides said; if so, ours.
    pub fn check(&self, said: &[u8], proof: &[u8]) -> Option<Vec<u8>> {
        let signature = self.hash.hmac(&self.stored, said);
        if proof.len() != signature.len() {
            return None;
        }
        let pairs = proof.iter().zip(signature.iter());
        let client: Secret = Zeroizing::new(pairs.map(|(proof, sign)| proof ^ sign).collect());
        let is_right: bool = self.hash.digest(&client).ct_eq(&self.stored).into();
        is_right.then(|| self.hash.hmac(&self.server, said).to_vec())
    }

    pub(super) fn verify(&self, password: &[u8]) -> bool {
        let found = Self::derive(self.hash, password, &self.salt, self.iterations);
        found.stored.ct_eq(&self.stored).into()
    }

    pub(super) fn identity(&self) -> [&[u8]; 2] {
        [&self.salt, &self.stored]
    }

    /// The text in which they are stored, without the scheme's name.
    pub(super) fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "{},{},{},{}",
            self.iterations,
            Base64::encode_string(&self.salt),
            Base64::encode_string(&self.stored),
            Base64::encode_string(&self.server)
        ))
    }
}

impl std::fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ScramKeys({})", self.hash.scheme())
    }
}
