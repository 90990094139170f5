//! Bearer tokens, and the keys that they are signed with.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64ct::{Base64UrlUnpadded as Url, Encoding as _};
use serde_json::{Value, json};

/// A key that tokens are signed with.
pub(crate) struct Signer {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Signer {
    pub(crate) fn new(id: &'static str) -> Signer {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        let pair = pair.expect("a pair");
        Signer { id, pair }
    }

    /// As others see it.
    pub(crate) fn key(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(Url::encode_string);
        json!({"kty": "EC", "crv": "P-256", "kid": self.id, "use": "sig", "x": x, "y": y})
    }

    /// A token of these claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "typ": "at+jwt", "kid": self.id});
        let said = unsigned(&header, claims);
        let signature = self.pair.sign(&SystemRandom::new(), said.as_bytes());
        let signature = Url::encode_string(signature.expect("signed").as_ref());
        format!("{said}.{signature}")
    }
}

/// What of a token is signed.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    let [header, claims] =
        [header, claims].map(|part| Url::encode_string(part.to_string().as_bytes()));
    format!("{header}.{claims}")
}

/// A set of keys, as a file or a web server has it.
pub(crate) fn set(signers: &[&Signer]) -> String {
    let keys: Vec<_> = signers.iter().map(|signer| signer.key()).collect();
    json!({ "keys": keys }).to_string()
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.expect("after 1970").as_secs()).expect("before 2262")
}

/// What a good token says.
pub(crate) fn claims(user: &str) -> Value {
    json!({
        "iss": "https://login.example.net", "aud": ["mail", "calendar"], "email": user, "email_verified": true,
        "scope": "openid mail.pop", "iat": now(), "exp": now() + 600,
    })
}
