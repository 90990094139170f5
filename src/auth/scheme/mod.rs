//! Stored passwords: what a directory holds instead of a password, and the test
//! of a password against it.
//!
//! The text is Dovecot's: `{SCHEME}data`, `{SCHEME.b64}` or `{SCHEME.hex}` with
//! the whole of `data` in that encoding, or the bare text of crypt(3) or of
//! Argon2. Scheme names are compared without regard to case.
//!
//! [`Verifier::parse`] takes the text apart wholly, so that every fault shows
//! when a directory is loaded and none when a user logs in; a [`Verifier`] can
//! always be asked. Its comparisons take a time that depends on the stored
//! scheme and its cost and on the length of the given password, never on where
//! two secrets differ. Costs are bounded by limits.rs: one line of a file must
//! not be able to stop an auth thread for an hour or to take all memory.
//!
//! A password whose form for comparison is another one (`SASLprep`) is right if either
//! form is: hashes that migrants bring were made from the one or from the other.
//!
//! Not here: DES crypt, and digests of MD5 alone. Such a scheme is
//! a [`SchemeError::Unknown`].

mod crypt;
mod made_up;
mod md5_crypt;
mod new;
mod pbkdf2;
mod scram;

use std::fmt;
use std::hint::black_box;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, Version};
use base64ct::{Base64Unpadded, Encoding as _};
use sha1::{Digest, Sha1};
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

pub(super) use self::made_up::{KeyPlan, MadeUp};
pub use self::new::NewScheme;
pub use self::scram::{ScramHash, ScramKeys};

use self::crypt::Crypt;
use self::pbkdf2::Pbkdf2;
use super::{ApopProof, Password};
use crate::limits;

/// Octets that are overwritten when they are dropped.
type Secret = Zeroizing<Box<[u8]>>;

/// A stored password, ready to be compared with a given one.
#[derive(Clone)]
pub struct Verifier(Kind);

#[derive(Clone)]
enum Kind {
    Plain(Secret),
    Digest(Hash, Secret),
    Crypt(Crypt),
    Argon2(Box<Argon2Hash>),
    Pbkdf2(Pbkdf2),
    Scram(ScramKeys),
}

/// The digest of password and salt, with the salt behind it (`{SSHA256}` and
/// its kin); an unsalted one has an empty salt.
#[derive(Clone, Copy)]
enum Hash {
    Sha1,
    Sha256,
    Sha512,
}

#[derive(Clone)]
struct Argon2Hash {
    algorithm: Algorithm,
    context: Argon2<'static>,
    salt: Box<[u8]>,
    hash: Secret,
}

/// Why a stored password cannot be used. The operator is at fault; nothing in
/// it quotes the stored text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemeError {
    /// There is none: an empty field, or the `!` and `*` of a locked account.
    /// Not a fault: such a user is not meant to log in.
    None,
    /// A scheme that is not known here, by its name.
    Unknown(String),
    /// The data is not what the scheme wants.
    Malformed(&'static str),
    /// A cost above what limits.rs allows.
    TooCostly(&'static str),
}

impl Verifier {
    /// Takes the text of a stored password apart.
    pub fn parse(text: &[u8]) -> Result<Self, SchemeError> {
        let Some(rest) = text.strip_prefix(b"{") else {
            return Self::parse_bare(text);
        };
        let end = memchr::memchr(b'}', rest).ok_or(SchemeError::Malformed("no } after {"))?;
        let name = rest[..end].to_ascii_uppercase();
        let data = &rest[end + 1..];
        let (scheme, encoding) = match name.iter().position(|&b| b == b'.') {
            None => (&name[..], Encoding::Natural),
            Some(dot) => match &name[dot + 1..] {
                b"B64" | b"BASE64" => (&name[..dot], Encoding::Base64),
                b"HEX" => (&name[..dot], Encoding::Hex),
                _ => return Err(unknown(&name)),
            },
        };
        let digest = |hash, salted| digest(hash, salted, encoding, data);
        match scheme {
            b"PLAIN" | b"CLEARTEXT" | b"CLEAR" => plain(&encoding.text(data)?),
            b"CRYPT" | b"SHA256-CRYPT" | b"SHA512-CRYPT" | b"BLF-CRYPT" | b"MD5-CRYPT" | b"MD5" => {
                let text = encoding.text(data)?;
                Ok(Self(Kind::Crypt(Crypt::parse(&text)?)))
            }
            b"ARGON2ID" | b"ARGON2I" => argon2(&encoding.text(data)?),
            b"PBKDF2" => Ok(Self(Kind::Pbkdf2(Pbkdf2::parse(&encoding.text(data)?)?))),
            b"SCRAM-SHA-1" => scram(ScramHash::Sha1, &encoding.text(data)?),
            b"SCRAM-SHA-256" => scram(ScramHash::Sha256, &encoding.text(data)?),
            b"SHA" | b"SHA1" => digest(Hash::Sha1, false),
            b"SSHA" => digest(Hash::Sha1, true),
            b"SHA256" => digest(Hash::Sha256, false),
            b"SSHA256" => digest(Hash::Sha256, true),
            b"SHA512" => digest(Hash::Sha512, false),
            b"SSHA512" => digest(Hash::Sha512, true),
            _ => Err(unknown(&name)),
        }
    }

    fn parse_bare(text: &[u8]) -> Result<Self, SchemeError> {
        if text.starts_with(b"$argon2") {
            argon2(text)
        } else {
            Ok(Self(Kind::Crypt(Crypt::parse(text)?)))
        }
    }

    /// Whether the password is the stored one. Takes as long as the scheme
    /// wants, up to seconds, whatever the answer.
    pub fn verify(&self, password: &Password) -> bool {
        let is_right = self.matches(password.as_bytes());
        let prepared = password.prepared();
        is_right || prepared.is_some_and(|password| self.matches(password.as_bytes()))
    }

    fn matches(&self, password: &[u8]) -> bool {
        match &self.0 {
            // A digest of each makes the two as long as each other: a plain
            // comparison would tell the length of the stored one.
            Kind::Plain(stored) => Sha256::digest(stored)
                .ct_eq(&Sha256::digest(password))
                .into(),
            Kind::Digest(hash, stored) => hash.matches(stored, password),
            Kind::Crypt(crypt) => crypt.verify(password),
            Kind::Argon2(argon2) => argon2.verify(password),
            Kind::Pbkdf2(pbkdf2) => pbkdf2.verify(password),
            Kind::Scram(keys) => keys.verify(password),
        }
    }

    /// Whether the proof was made of the stored password, which it can be only of one that
    /// is stored in clear. Takes as long wherever it is not.
    pub(super) fn is_proved_by(&self, proof: &ApopProof) -> bool {
        if let Kind::Plain(stored) = &self.0 {
            return proof.is_of(stored);
        }
        black_box(proof.is_of(b""));
        false
    }

    /// Whether the scheme is made to be slow: milliseconds to seconds, where the
    /// others take a microsecond.
    pub fn is_slow(&self) -> bool {
        match &self.0 {
            Kind::Plain(_) | Kind::Digest(..) => false,
            Kind::Crypt(_) | Kind::Argon2(_) | Kind::Pbkdf2(_) | Kind::Scram(_) => true,
        }
    }

    /// Whether it is easier to guess than what [`NewScheme::Argon2id`] makes. Keys of
    /// SCRAM are not: they are stored for the sake of their mechanism.
    pub(super) fn is_weak(&self) -> bool {
        match &self.0 {
            Kind::Plain(_) | Kind::Digest(..) | Kind::Pbkdf2(_) => true,
            Kind::Crypt(crypt) => crypt.is_weak(),
            Kind::Argon2(argon2) => {
                let (own, new) = (argon2.context.params(), Params::DEFAULT);
                argon2.algorithm != Algorithm::Argon2id
                    || own.m_cost() < new.m_cost()
                    || own.t_cost() < new.t_cost()
            }
            Kind::Scram(_) => false,
        }
    }

    /// Whether it is the password itself, which every mechanism can use.
    pub(super) fn is_clear(&self) -> bool {
        matches!(self.0, Kind::Plain(_))
    }

    /// What tells this stored password from every other one, if its verification is
    /// slow: whoever remembers what a verification said needs to know of what.
    pub(super) fn identity(&self) -> Option<[&[u8]; 2]> {
        match &self.0 {
            Kind::Plain(_) | Kind::Digest(..) => None,
            Kind::Crypt(crypt) => Some(crypt.identity()),
            Kind::Argon2(argon2) => Some([&argon2.salt, &argon2.hash]),
            Kind::Pbkdf2(pbkdf2) => Some([&pbkdf2.salt, &pbkdf2.digest]),
            Kind::Scram(keys) => Some(keys.identity()),
        }
    }

    /// What is stored for SCRAM, if that is how the password is stored.
    pub fn scram_keys(&self) -> Option<&ScramKeys> {
        match &self.0 {
            Kind::Scram(keys) => Some(keys),
            _ => None,
        }
    }

    /// The name of the scheme, for logs and for comparing work in tests.
    pub fn scheme(&self) -> &'static str {
        match &self.0 {
            Kind::Plain(_) => "PLAIN",
            Kind::Digest(Hash::Sha1, _) => "SSHA",
            Kind::Digest(Hash::Sha256, _) => "SSHA256",
            Kind::Digest(Hash::Sha512, _) => "SSHA512",
            Kind::Crypt(crypt) => crypt.scheme(),
            Kind::Argon2(_) => "ARGON2",
            Kind::Pbkdf2(_) => "PBKDF2",
            Kind::Scram(keys) => keys.hash().scheme(),
        }
    }

    /// A stored password that no password matches in practice, as dear as the
    /// default of Argon2 (19 MiB, two passes): what is asked where there is no
    /// user to ask.
    pub(super) fn stand_in() -> Self {
        Self(Kind::Argon2(Box::new(Argon2Hash {
            algorithm: Algorithm::Argon2id,
            context: Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT),
            salt: (*b"popcore stand-in").into(),
            hash: Zeroizing::new([0; Params::DEFAULT_OUTPUT_LEN].into()),
        })))
    }
}

/// How `data` is written.
#[derive(Clone, Copy)]
enum Encoding {
    /// As the scheme has it: as it stands, or base64 for raw digests.
    Natural,
    Base64,
    Hex,
}

impl Encoding {
    fn text(self, data: &[u8]) -> Result<Secret, SchemeError> {
        match self {
            Self::Natural => Ok(Zeroizing::new(data.into())),
            Self::Base64 => base64(data),
            Self::Hex => hex(data),
        }
    }
}

fn unknown(name: &[u8]) -> SchemeError {
    SchemeError::Unknown(name.escape_ascii().to_string())
}

fn base64(data: &[u8]) -> Result<Secret, SchemeError> {
    let malformed = SchemeError::Malformed("not base64");
    let text = std::str::from_utf8(data).map_err(|_| malformed.clone())?;
    let decoded = Base64Unpadded::decode_vec(text.trim_end_matches('='));
    Ok(Zeroizing::new(decoded.map_err(|_| malformed)?.into()))
}

fn hex(data: &[u8]) -> Result<Secret, SchemeError> {
    let digit = |b: u8| u8::try_from(char::from(b).to_digit(16)?).ok();
    let (pairs, rest) = data.as_chunks::<2>();
    let mut decoded = Zeroizing::new(Vec::with_capacity(pairs.len()));
    for &[high, low] in pairs {
        let octet = digit(high).zip(digit(low)).map(|(h, l)| h << 4 | l);
        decoded.push(octet.ok_or(SchemeError::Malformed("not hexadecimal"))?);
    }
    if !rest.is_empty() {
        return Err(SchemeError::Malformed(
            "an odd number of hexadecimal digits",
        ));
    }
    Ok(Zeroizing::new(decoded.as_slice().into()))
}

fn plain(stored: &[u8]) -> Result<Verifier, SchemeError> {
    // An empty stored password would let anybody in who sends none.
    if stored.is_empty() {
        return Err(SchemeError::None);
    }
    Ok(Verifier(Kind::Plain(Zeroizing::new(stored.into()))))
}

fn scram(hash: ScramHash, text: &[u8]) -> Result<Verifier, SchemeError> {
    if text.is_empty() {
        return Err(SchemeError::None);
    }
    Ok(Verifier(Kind::Scram(ScramKeys::parse(hash, text)?)))
}

fn digest(
    hash: Hash,
    salted: bool,
    encoding: Encoding,
    data: &[u8],
) -> Result<Verifier, SchemeError> {
    if data.is_empty() {
        return Err(SchemeError::None);
    }
    let stored = match encoding {
        // Dovecot takes an unsalted digest in hexadecimal by its length.
        Encoding::Natural if !salted && data.len() == 2 * hash.octets() => hex(data)?,
        Encoding::Natural | Encoding::Base64 => base64(data)?,
        Encoding::Hex => hex(data)?,
    };
    let fits = if salted {
        stored.len() > hash.octets()
    } else {
        stored.len() == hash.octets()
    };
    if !fits {
        return Err(SchemeError::Malformed("a digest of another length"));
    }
    Ok(Verifier(Kind::Digest(hash, stored)))
}

impl Hash {
    fn octets(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn matches(self, stored: &[u8], password: &[u8]) -> bool {
        fn salted<D: Digest>(password: &[u8], salt: &[u8], expected: &[u8]) -> bool {
            let found = D::new().chain_update(password).chain_update(salt);
            found.finalize().ct_eq(expected).into()
        }
        let (expected, salt) = stored.split_at(self.octets());
        match self {
            Self::Sha1 => salted::<Sha1>(password, salt, expected),
            Self::Sha256 => salted::<Sha256>(password, salt, expected),
            Self::Sha512 => salted::<Sha512>(password, salt, expected),
        }
    }
}

fn argon2(text: &[u8]) -> Result<Verifier, SchemeError> {
    let malformed = || SchemeError::Malformed("not the text of an Argon2 hash");
    if text.is_empty() {
        return Err(SchemeError::None);
    }
    let text = std::str::from_utf8(text).map_err(|_| malformed())?;
    let parsed = PasswordHash::new(text).map_err(|_| malformed())?;
    let algorithm = match parsed.algorithm.as_str() {
        "argon2id" => Algorithm::Argon2id,
        "argon2i" => Algorithm::Argon2i,
        _ => return Err(SchemeError::Malformed("neither argon2id nor argon2i")),
    };
    // Text without a version is older than the version field.
    let version = parsed.version.unwrap_or(Version::V0x10.into());
    let version = Version::try_from(version).map_err(|_| malformed())?;
    let params = Params::try_from(&parsed).map_err(|_| malformed())?;
    if params.m_cost() > limits::ARGON2_KIB {
        return Err(SchemeError::TooCostly("its memory (m)"));
    }
    if params.t_cost() > limits::ARGON2_PASSES {
        return Err(SchemeError::TooCostly("its passes (t)"));
    }
    let (Some(salt), Some(hash)) = (parsed.salt, parsed.hash) else {
        return Err(malformed());
    };
    if salt.as_ref().len() < argon2::MIN_SALT_LEN {
        return Err(SchemeError::Malformed("a salt below 8 octets"));
    }
    Ok(Verifier(Kind::Argon2(Box::new(Argon2Hash {
        algorithm,
        context: Argon2::new(algorithm, version, params),
        salt: salt.as_ref().into(),
        hash: Zeroizing::new(hash.as_bytes().into()),
    }))))
}

impl Argon2Hash {
    fn verify(&self, password: &[u8]) -> bool {
        let mut found = Zeroizing::new(vec![0; self.hash.len()]);
        let done = self
            .context
            .hash_password_into(password, &self.salt, &mut found);
        // What `argon2` has checked leaves one way to fail: no memory.
        done.is_ok() && found.ct_eq(&self.hash).into()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({})", self.scheme())
    }
}

impl fmt::Display for SchemeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no password is stored"),
            Self::Unknown(name) => write!(
                f,
                "the password scheme {name} is not known; store the password as ARGON2ID, \
                 SCRAM-SHA-256 (popcore passwd makes both), SHA512-CRYPT, BLF-CRYPT or PLAIN"
            ),
            Self::Malformed(what) => write!(
                f,
                "the stored password is malformed ({what}); set the password anew"
            ),
            Self::TooCostly(what) => write!(
                f,
                "the stored password costs more than this server allows ({what}); \
                 set the password anew with less"
            ),
        }
    }
}

impl std::error::Error for SchemeError {}

#[cfg(test)]
mod tests;
