//! The keys of an issuer (a JWK Set, RFC 7517), and the signatures of tokens (JWT, RFC
//! 7519) under them.
//!
//! A key has one algorithm, which follows from the key and never from the token: a token
//! that names another one is refused, and there is none for a key that is a secret. So
//! neither `none` nor an HMAC under a public key gets anywhere.
//!
//! Pure: no IO and no time.

use std::fmt;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;

use super::claims::Claims;
use crate::auth::Token;

/// Least octets of an RSA modulus: 2,048 bits.
const RSA_LEAST: usize = 256;

/// The keys that an issuer signs with.
#[derive(Clone)]
pub(super) struct KeySet(Vec<Key>);

#[derive(Clone)]
struct Key {
    /// By which tokens name it.
    id: Option<Box<str>>,
    algorithm: Algorithm,
    public: DecodingKey,
}

/// Why a text is not the keys of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeysFault {
    /// It is no object with a list of keys.
    NoSet,
    /// None of the keys can be used.
    NoKey,
}

/// Why a token's signature is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsigned {
    /// It is no JWT, or wants something understood that is not.
    Malformed,
    /// It is to be verified by something that is not done here.
    Algorithm,
    /// No key has its name: there may be a new one.
    UnknownKey,
    /// The signature is wrong.
    Forged,
}

impl fmt::Display for KeysFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSet => "what is there is no JWK Set",
            Self::NoKey => {
                "no key there is one for signatures by RSA (2048 bits or more), ES256, ES384 or EdDSA"
            }
        })
    }
}

impl fmt::Display for Unsigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "it is no JWT",
            Self::Algorithm => "its algorithm is none of RSA, ES256, ES384 and EdDSA",
            Self::UnknownKey => "it is signed by a key that the issuer does not show",
            Self::Forged => "its signature is wrong",
        })
    }
}

impl KeySet {
    /// Reads a JWK Set. Keys for other uses, and such as are not known here, are passed
    /// over (RFC 7517, section 5).
    pub(super) fn parse(text: &[u8]) -> Result<Self, KeysFault> {
        let set: Value = serde_json::from_slice(text).map_err(|_| KeysFault::NoSet)?;
        let keys = set
            .get("keys")
            .and_then(Value::as_array)
            .ok_or(KeysFault::NoSet)?;
        let keys: Vec<_> = keys.iter().filter_map(Key::parse).collect();
        if keys.is_empty() {
            return Err(KeysFault::NoKey);
        }
        Ok(Self(keys))
    }

    /// What a token says of itself, if one of the keys has signed it. Takes some ten
    /// microseconds.
    pub(super) fn verify(&self, token: &Token) -> Result<Claims, Unsigned> {
        let header = decode_header(token.as_str()).map_err(|_| Unsigned::Malformed)?;
        if header.crit.is_some() {
            // Nothing that could stand there is understood here (RFC 7515, section 4.1.11).
            return Err(Unsigned::Malformed);
        }
        if !KNOWN.contains(&header.alg) {
            return Err(Unsigned::Algorithm);
        }
        let key = self.key(header.alg, header.kid.as_deref());
        let key = key.ok_or(Unsigned::UnknownKey)?;
        // Claims are judged in one place, however a token is verified.
        let mut signature_alone = Validation::new(key.algorithm);
        signature_alone.required_spec_claims.clear();
        signature_alone.validate_exp = false;
        signature_alone.validate_aud = false;
        let read = decode::<Claims>(token.as_str(), &key.public, &signature_alone);
        read.map(|read| read.claims).map_err(|_| Unsigned::Forged)
    }

    /// The key that a token names. One without a name is the only one of its kind: which
    /// of several was meant is not guessed.
    fn key(&self, algorithm: Algorithm, id: Option<&str>) -> Option<&Key> {
        let of_kind = || self.0.iter().filter(|key| key.algorithm == algorithm);
        let named = of_kind().find(|key| id.is_some() && key.id.as_deref() == id);
        if named.is_some() {
            return named;
        }
        let mut nameless = of_kind().filter(|key| id.is_none() || key.id.is_none());
        let only = nameless.next()?;
        nameless.next().is_none().then_some(only)
    }
}

/// The algorithms that there are keys of here.
const KNOWN: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Those of them that are RSA's. A key of it that names none is for the first, which is
/// what issuers mean.
const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

impl Key {
    fn parse(value: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        let common = &jwk.common;
        // What may sign by such a key, the usual one first; and its octets.
        let (algorithms, octets): (&[Algorithm], _) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (&RSA, RSA_LEAST..=usize::MAX),
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => (&[Algorithm::ES256], 65..=65),
                EllipticCurve::P384 => (&[Algorithm::ES384], 97..=97),
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                (&[Algorithm::EdDSA], 32..=32)
            }
            _ => return None,
        };
        let algorithm = match value.get("alg") {
            None => *algorithms.first()?,
            Some(name) => name.as_str()?.parse().ok()?,
        };
        let named = algorithms.contains(&algorithm);
        let signs = common.public_key_use.as_ref();
        let signs = signs.is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
        let public = DecodingKey::from_jwk(&jwk).ok()?;
        let fits = octets.contains(&match public.kind() {
            jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } => n.len(),
            jsonwebtoken::DecodingKeyKind::SecretOrDer(octets) => octets.len(),
        });
        (signs && named && fits).then(|| Self {
            id: common.key_id.as_deref().map(Into::into),
            algorithm,
            public,
        })
    }
}

/// The keys as an operator knows them.
impl fmt::Display for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("1 key (")?,
            several => write!(f, "{several} keys (")?,
        }
        for (number, key) in self.0.iter().enumerate() {
            let space = if number == 0 { "" } else { ", " };
            write!(f, "{space}{:?}", key.algorithm)?;
            if let Some(id) = &key.id {
                write!(f, " {}", id.escape_debug())?;
            }
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::tests::{Issuer, signed};
    use super::*;

    fn token(text: &str) -> Token {
        Token::new(text).expect("a token")
    }

    fn set(issuers: &[&Issuer]) -> KeySet {
        let keys: Vec<_> = issuers.iter().map(|issuer| issuer.jwk()).collect();
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).expect("keys")
    }

    const CLAIMS: &str = r#"{"sub":"ann","exp":1}"#;

    #[test]
    fn each_algorithm_is_verified_by_its_key() {
        let issuers = [
            Issuer::rsa("r"),
            Issuer::rsa_by("s", "RS512"),
            Issuer::rsa_by("p", "PS256"),
            Issuer::ec("e"),
            Issuer::p384("f"),
            Issuer::ed("d"),
        ];
        let set = set(&issuers.each_ref());
        let shown = "6 keys (RS256 r, RS512 s, PS256 p, ES256 e, ES384 f, EdDSA d)";
        assert_eq!(set.to_string(), shown);
        for issuer in &issuers {
            let signed = issuer.sign(CLAIMS);
            let claims = set.verify(&token(&signed)).expect("signed");
            assert_eq!(claims["sub"], "ann");
            let (rest, last) = signed.split_at(signed.len() - 8);
            let other = format!("{rest}{}", last.chars().rev().collect::<String>());
            assert_eq!(set.verify(&token(&other)), Err(Unsigned::Forged), "{other}");
            // Another one of that name.
            let stranger = Issuer::of_kind(issuer).sign(CLAIMS);
            assert_eq!(set.verify(&token(&stranger)), Err(Unsigned::Forged));
        }
    }

    /// The same key by another kind of signature: what the key is for counts, whatever the
    /// token says.
    #[test]
    fn a_key_is_for_one_algorithm() {
        for (own, others) in [
            ("RS256", ["PS256", "RS512"]),
            ("PS256", ["RS256", "PS512"]),
            ("RS512", ["RS256", "PS512"]),
        ] {
            let mut issuer = Issuer::rsa_by("k", own);
            let set = set(&[&issuer]);
            assert!(set.verify(&token(&issuer.sign(CLAIMS))).is_ok());
            for other in others {
                issuer.sign_by(other);
                let said = set.verify(&token(&issuer.sign(CLAIMS)));
                assert_eq!(said, Err(Unsigned::UnknownKey), "{own} {other}");
            }
        }
        // One that names no algorithm is for the usual one.
        let mut issuer = Issuer::rsa("k");
        let mut jwk = issuer.jwk();
        jwk.as_object_mut().expect("an object").remove("alg");
        let set = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).expect("keys");
        assert!(set.verify(&token(&issuer.sign(CLAIMS))).is_ok());
        issuer.sign_by("PS256");
        let said = set.verify(&token(&issuer.sign(CLAIMS)));
        assert_eq!(said, Err(Unsigned::UnknownKey));
    }

    /// What tokens tried on others: no signature at all, and one whose secret is the
    /// public key that everybody knows.
    #[test]
    fn a_token_does_not_say_how_it_is_verified() {
        let issuer = Issuer::rsa("r");
        let set = set(&[&issuer]);
        let good = issuer.sign(CLAIMS);
        let (_, signature) = good.rsplit_once('.').expect("three parts");
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"None","kid":"r"}"#,
            r#"{"alg":"nOnE","kid":"r"}"#,
            r#"{"kid":"r"}"#,
            r#"{"alg":"","kid":"r"}"#,
            r#"{"alg":"RS1","kid":"r"}"#,
            "null",
        ] {
            for signature in ["", signature] {
                let forged = token(&signed(header, CLAIMS, signature));
                let said = set.verify(&forged);
                assert_eq!(said, Err(Unsigned::Malformed), "{header}");
            }
        }
        let public = issuer.public();
        for secret in [
            public.as_bytes(),
            issuer.jwk()["n"].as_str().expect("n").as_bytes(),
        ] {
            let mut header = Header::new(Algorithm::HS256);
            header.kid = Some("r".into());
            let claims: Value = serde_json::from_str(CLAIMS).expect("JSON");
            let key = EncodingKey::from_secret(secret);
            let forged = jsonwebtoken::encode(&header, &claims, &key).expect("signed");
            assert_eq!(set.verify(&token(&forged)), Err(Unsigned::Algorithm));
        }
        // A kind of signature that this key is not for.
        let other = Issuer::ec("r").sign(CLAIMS);
        assert_eq!(set.verify(&token(&other)), Err(Unsigned::UnknownKey));
        let wants = signed(
            r#"{"alg":"RS256","kid":"r","crit":["x"]}"#,
            CLAIMS,
            signature,
        );
        assert_eq!(set.verify(&token(&wants)), Err(Unsigned::Malformed));
        for nonsense in ["x", "a.b", "a.b.c", "a.b.c.d", "..", &good[1..]] {
            let said = set.verify(&token(nonsense));
            assert_eq!(said, Err(Unsigned::Malformed), "{nonsense}");
        }
    }

    #[test]
    fn a_key_is_named_or_the_only_one() {
        let (one, other) = (Issuer::ec("a"), Issuer::ec("b"));
        let nameless = |issuer: &Issuer| issuer.sign_as(None, CLAIMS);
        let alone = set(&[&one]);
        assert!(alone.verify(&token(&nameless(&one))).is_ok());
        assert_eq!(
            alone.verify(&token(&other.sign(CLAIMS))),
            Err(Unsigned::UnknownKey)
        );
        let both = set(&[&one, &other]);
        assert!(both.verify(&token(&other.sign(CLAIMS))).is_ok());
        assert_eq!(
            both.verify(&token(&nameless(&one))),
            Err(Unsigned::UnknownKey)
        );
        let mut jwk = one.jwk();
        jwk.as_object_mut().expect("an object").remove("kid");
        let bare = KeySet::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).expect("keys");
        assert!(bare.verify(&token(&one.sign(CLAIMS))).is_ok());
        assert_eq!(bare.to_string(), "1 key (ES256)");
    }

    #[test]
    fn keys_for_something_else_are_passed_over() {
        let good = Issuer::ec("good").jwk();
        let changed = |name: &str, value: &str| {
            let mut key = Issuer::ec("x").jwk();
            key[name] = value.into();
            key
        };
        let short = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"});
        let secret = json!({"kty": "oct", "k": "AAAA", "alg": "HS256"});
        let others = [
            changed("use", "enc"),
            changed("alg", "ECDH-ES"),
            changed("alg", "RS256"),
            changed("alg", "ES384"),
            changed("crv", "P-384"),
            changed("crv", "Ed25519"),
            changed("kty", "OKP"),
            changed("x", "AA"),
            changed("x", "!"),
            short,
            secret,
            json!({"kty": "AKP"}),
            json!(7),
        ];
        let all: Vec<_> = others.iter().chain([&good]).collect();
        let set = KeySet::parse(json!({ "keys": all }).to_string().as_bytes());
        assert_eq!(set.expect("one").to_string(), "1 key (ES256 good)");
        let none = json!({ "keys": others }).to_string();
        assert_eq!(KeySet::parse(none.as_bytes()).err(), Some(KeysFault::NoKey));
        for text in ["", "[]", "{}", r#"{"keys":{}}"#, "<html>"] {
            let fault = KeySet::parse(text.as_bytes()).err();
            assert_eq!(fault, Some(KeysFault::NoSet), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_token_of_the_issuer(text in "[!-~]{1,80}", header in "\\PC{0,30}") {
            let issuer = Issuer::ed("d");
            let set = set(&[&issuer]);
            prop_assert!(set.verify(&token(&text)).is_err());
            prop_assert!(set.verify(&token(&signed(&header, CLAIMS, "AAAA"))).is_err());
        }
    }
}
