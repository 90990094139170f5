//! The text of crypt(3) as crypt(5) has it: `$5$` and `$6$` (SHA-crypt),
//! `$2a$`, `$2b$` and `$2y$` (bcrypt), `$y$` (yescrypt) and `$1$` (MD5). The prefix says which, as it does for
//! crypt(3) itself, whatever the scheme before it is called.

use base64ct::{Base64ShaCrypt, Encoding as _};
use bcrypt::HashParts;
use subtle::ConstantTimeEq;
use yescrypt::password_hash::PasswordVerifier as _;
use yescrypt::{Mode, Params, PasswordHashRef, Yescrypt};
use zeroize::Zeroizing;

use super::{SchemeError, md5_crypt};
use crate::limits;

/// Octets of a SHA-crypt salt that count.
const SALT: usize = 16;

/// In which order SHA-256-crypt writes the octets of its digest.
#[rustfmt::skip]
const ORDER_256: [usize; 32] = [
    20, 10, 0, 11, 1, 21, 2, 22, 12, 23, 13, 3, 14, 4, 24, 5,
    25, 15, 26, 16, 6, 17, 7, 27, 8, 28, 18, 29, 19, 9, 30, 31,
];

/// In which order SHA-512-crypt writes the octets of its digest.
#[rustfmt::skip]
const ORDER_512: [usize; 64] = [
    42, 21, 0, 1, 43, 22, 23, 2, 44, 45, 24, 3, 4, 46, 25, 26,
    5, 47, 48, 27, 6, 7, 49, 28, 29, 8, 50, 51, 30, 9, 10, 52,
    31, 32, 11, 53, 54, 33, 12, 13, 55, 34, 35, 14, 56, 57, 36, 15,
    16, 58, 37, 38, 17, 59, 60, 39, 18, 19, 61, 40, 41, 20, 62, 63,
];

/// A parsed crypt(3) text.
#[derive(Clone)]
pub(super) enum Crypt {
    Sha256(Sha<32>),
    Sha512(Sha<64>),
    /// The 60 octets of bcrypt's text, known to be whole.
    Bcrypt(Zeroizing<String>),
    /// The whole text, known to be one of yescrypt's.
    Yescrypt(Zeroizing<String>),
    Md5 {
        salt: Box<[u8]>,
        /// In the order in which it is written.
        digest: Zeroizing<[u8; 16]>,
    },
}

/// Salt, cost and digest; the digest in the order in which it is written.
#[derive(Clone)]
pub(super) struct Sha<const N: usize> {
    params: sha_crypt::Params,
    salt: Box<[u8]>,
    digest: Zeroizing<[u8; N]>,
}

impl Crypt {
    pub(super) fn parse(text: &[u8]) -> Result<Self, SchemeError> {
        if text.is_empty() || text.starts_with(b"!") || text.starts_with(b"*") {
            return Err(SchemeError::None);
        }
        if let Some(rest) = text.strip_prefix(b"$5$") {
            return Ok(Self::Sha256(Sha::parse(rest)?));
        }
        if let Some(rest) = text.strip_prefix(b"$6$") {
            return Ok(Self::Sha512(Sha::parse(rest)?));
        }
        if [&b"$2a$"[..], b"$2b$", b"$2y$"]
            .iter()
            .any(|p| text.starts_with(p))
        {
            return bcrypt(text);
        }
        if text.starts_with(b"$y$") {
            return yescrypt(text);
        }
        if let Some(rest) = text.strip_prefix(b"$1$") {
            return md5(rest);
        }
        Err(SchemeError::Unknown(family(text)))
    }

    /// Salt and digest.
    pub(super) fn identity(&self) -> [&[u8]; 2] {
        match self {
            Self::Sha256(sha) => [&sha.salt, &*sha.digest],
            Self::Sha512(sha) => [&sha.salt, &*sha.digest],
            Self::Bcrypt(text) | Self::Yescrypt(text) => [text.as_bytes(), b""],
            Self::Md5 { salt, digest } => [salt, &**digest],
        }
    }

    pub(super) fn verify(&self, password: &[u8]) -> bool {
        match self {
            Self::Sha256(sha) => {
                let found = sha_crypt::sha256_crypt(password, &sha.salt, sha.params);
                sha.matches(&Zeroizing::new(found), &ORDER_256)
            }
            Self::Sha512(sha) => {
                let found = sha_crypt::sha512_crypt(password, &sha.salt, sha.params);
                sha.matches(&Zeroizing::new(found), &ORDER_512)
            }
            // What `bcrypt` below has checked leaves no way to fail.
            Self::Bcrypt(text) => bcrypt::verify(password, text).unwrap_or(false),
            Self::Yescrypt(text) => {
                let hash = PasswordHashRef::new(text);
                hash.is_ok_and(|hash| Yescrypt::default().verify_password(password, hash).is_ok())
            }
            Self::Md5 { salt, digest } => {
                let found = md5_crypt::digest(password, salt);
                let written = Zeroizing::new(md5_crypt::ORDER.map(|at| found[at]));
                written.ct_eq(&**digest).into()
            }
        }
    }

    /// Whether it is easier to guess than Argon2 with its defaults: yescrypt takes as
    /// much memory, the others next to none.
    pub(super) fn is_weak(&self) -> bool {
        !matches!(self, Self::Yescrypt(_))
    }

    pub(super) fn scheme(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA256-CRYPT",
            Self::Sha512(_) => "SHA512-CRYPT",
            Self::Bcrypt(_) => "BLF-CRYPT",
            Self::Yescrypt(_) => "YESCRYPT",
            Self::Md5 { .. } => "MD5-CRYPT",
        }
    }
}

impl<const N: usize> Sha<N> {
    /// `[rounds=N$]salt$digest`.
    fn parse(text: &[u8]) -> Result<Self, SchemeError> {
        let malformed = || SchemeError::Malformed("not the text of a SHA-crypt hash");
        let text = std::str::from_utf8(text).map_err(|_| malformed())?;
        let (rounds, text) = match text.strip_prefix("rounds=") {
            Some(rest) => rest.split_once('$').ok_or_else(malformed)?,
            None => ("5000", text),
        };
        let rounds: u32 = rounds.parse().map_err(|_| malformed())?;
        if rounds > limits::SHA_CRYPT_ROUNDS {
            return Err(SchemeError::TooCostly("its rounds"));
        }
        let params = sha_crypt::Params::new(rounds)
            .map_err(|_| SchemeError::Malformed("fewer than 1,000 rounds"))?;
        let (salt, written) = text.split_once('$').ok_or_else(malformed)?;
        let mut digest = Zeroizing::new([0; N]);
        let decoded = Base64ShaCrypt::decode(written, &mut digest[..]);
        if decoded.map_err(|_| malformed())?.len() != N {
            return Err(malformed());
        }
        let salt = &salt.as_bytes()[..salt.len().min(SALT)];
        Ok(Self {
            params,
            salt: salt.into(),
            digest,
        })
    }

    fn matches(&self, found: &[u8; N], order: &[usize; N]) -> bool {
        let written = Zeroizing::new(order.map(|at| found[at]));
        written.ct_eq(&*self.digest).into()
    }
}

fn bcrypt(text: &[u8]) -> Result<Crypt, SchemeError> {
    let malformed = || SchemeError::Malformed("not the text of a bcrypt hash");
    let text = std::str::from_utf8(text).map_err(|_| malformed())?;
    let parts: HashParts = text.parse().map_err(|_| malformed())?;
    if parts.get_cost() > limits::BCRYPT_COST {
        return Err(SchemeError::TooCostly("its cost"));
    }
    if parts.get_cost() < 4 {
        return Err(malformed());
    }
    Ok(Crypt::Bcrypt(Zeroizing::new(text.to_owned())))
}

/// `$y$params$salt$digest`
fn yescrypt(text: &[u8]) -> Result<Crypt, SchemeError> {
    let malformed = || SchemeError::Malformed("not the text of a yescrypt hash");
    let text = std::str::from_utf8(text).map_err(|_| malformed())?;
    let hash = PasswordHashRef::new(text).map_err(|_| malformed())?;
    let fields: Vec<_> = hash.fields().collect();
    let [params, salt, digest] = fields[..] else {
        return Err(malformed());
    };
    let params: Params = params.as_str().parse().map_err(|_| malformed())?;
    for field in [salt, digest] {
        let octets = field.decode_base64(mcf::Base64::Crypt);
        octets.map_err(|_| malformed())?;
    }
    // What crypt(3) makes has no other parameters than these three.
    let usual = Params::new(Mode::default(), params.n(), params.r(), params.p());
    let memory = params.n().saturating_mul(u64::from(params.r())) / 8;
    let usual = usual.is_ok_and(|usual| usual == params);
    if !usual || memory > u64::from(limits::ARGON2_KIB) || params.p() > 16 {
        return Err(SchemeError::TooCostly("its parameters"));
    }
    Ok(Crypt::Yescrypt(Zeroizing::new(text.to_owned())))
}

/// `salt$digest`
fn md5(text: &[u8]) -> Result<Crypt, SchemeError> {
    let malformed = || SchemeError::Malformed("not the text of an MD5-crypt hash");
    let text = std::str::from_utf8(text).map_err(|_| malformed())?;
    let (salt, written) = text.split_once('$').ok_or_else(malformed)?;
    let mut digest = Zeroizing::new([0; 16]);
    let decoded = Base64ShaCrypt::decode(written, &mut digest[..]);
    if decoded.map_err(|_| malformed())?.len() != digest.len() {
        return Err(malformed());
    }
    let salt = &salt.as_bytes()[..salt.len().min(md5_crypt::SALT)];
    Ok(Crypt::Md5 {
        salt: salt.into(),
        digest,
    })
}

/// What a log may say of a text that is not known: its prefix (`$y$`), or that
/// it has none; never the text.
fn family(text: &[u8]) -> String {
    let named = text.strip_prefix(b"$").and_then(|rest| {
        let end = memchr::memchr(b'$', rest)?;
        let name = &rest[..end];
        let plausible = end <= 8 && name.iter().all(u8::is_ascii_alphanumeric);
        plausible.then(|| format!("CRYPT with ${}$", name.escape_ascii()))
    });
    named.unwrap_or_else(|| "CRYPT without a $id$ (DES, or a password in clear)".to_owned())
}
