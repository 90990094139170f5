use std::sync::OnceLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA512, RsaEncoding,
    RsaKeyPair,
};
use base64ct::{Base64UrlUnpadded as Url, Encoding as _};
use serde_json::{Value, json};

use super::*;

/// Somebody who signs tokens, with one key.
pub(super) struct Issuer {
    id: &'static str,
    pair: Pair,
}

enum Pair {
    /// And the algorithm that it signs by.
    Rsa(Box<RsaKeyPair>, &'static str),
    /// On P-256.
    Ec(Box<EcdsaKeyPair>),
    P384(Box<EcdsaKeyPair>),
    Ed(Box<Ed25519KeyPair>),
}

impl Issuer {
    pub(super) fn rsa(id: &'static str) -> Self {
        Self::rsa_by(id, "RS256")
    }

    pub(super) fn rsa_by(id: &'static str, algorithm: &'static str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a pair");
        let pair = Pair::Rsa(Box::new(pair), algorithm);
        Self { id, pair }
    }

    /// Signs by another algorithm of RSA from now on.
    pub(super) fn sign_by(&mut self, algorithm: &'static str) {
        if let Pair::Rsa(_, by) = &mut self.pair {
            *by = algorithm;
        }
    }

    pub(super) fn p384(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a pair");
        let pair = Pair::P384(Box::new(pair));
        Self { id, pair }
    }

    pub(super) fn ec(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a pair");
        let pair = Pair::Ec(Box::new(pair));
        Self { id, pair }
    }

    pub(super) fn ed(id: &'static str) -> Self {
        let pair = Ed25519KeyPair::generate().expect("a pair");
        let pair = Pair::Ed(Box::new(pair));
        Self { id, pair }
    }

    /// Another one with a key of that kind and name.
    pub(super) fn of_kind(other: &Self) -> Self {
        match other.pair {
            Pair::Rsa(_, algorithm) => Self::rsa_by(other.id, algorithm),
            Pair::Ec(_) => Self::ec(other.id),
            Pair::P384(_) => Self::p384(other.id),
            Pair::Ed(_) => Self::ed(other.id),
        }
    }

    fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_, algorithm) => algorithm,
            Pair::Ec(_) => "ES256",
            Pair::P384(_) => "ES384",
            Pair::Ed(_) => "EdDSA",
        }
    }

    pub(super) fn jwk(&self) -> Value {
        let url = Url::encode_string;
        let mut key = match &self.pair {
            Pair::Rsa(pair, _) => {
                let public = pair.public_key();
                let n = public.modulus().big_endian_without_leading_zero();
                let e = public.exponent().big_endian_without_leading_zero();
                json!({"kty": "RSA", "n": url(n), "e": url(e)})
            }
            Pair::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": url(x), "y": url(y)})
            }
            Pair::P384(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(48);
                json!({"kty": "EC", "crv": "P-384", "x": url(x), "y": url(y)})
            }
            Pair::Ed(pair) => {
                let x = pair.public_key().as_ref();
                json!({"kty": "OKP", "crv": "Ed25519", "x": url(x)})
            }
        };
        key["kid"] = self.id.into();
        key["alg"] = self.algorithm().into();
        key["use"] = "sig".into();
        key
    }

    /// The public key as others write it.
    pub(super) fn public(&self) -> String {
        let octets = match &self.pair {
            Pair::Rsa(pair, _) => pair.public_key().as_ref().to_vec(),
            Pair::Ec(pair) | Pair::P384(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed(pair) => pair.public_key().as_ref().to_vec(),
        };
        base64ct::Base64::encode_string(&octets)
    }

    /// A token of these claims.
    pub(super) fn sign(&self, claims: &str) -> String {
        self.sign_as(Some(self.id), claims)
    }

    pub(super) fn sign_as(&self, id: Option<&str>, claims: &str) -> String {
        let mut header = json!({"alg": self.algorithm(), "typ": "JWT"});
        if let Some(id) = id {
            header["kid"] = id.into();
        }
        let whole = signed(&header.to_string(), claims, "");
        let said = whole.trim_end_matches('.');
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Rsa(pair, algorithm) => {
                let encoding: &'static dyn RsaEncoding = match *algorithm {
                    "RS256" => &RSA_PKCS1_SHA256,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS512" => &RSA_PSS_SHA512,
                    other => panic!("{other}"),
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                let done = pair.sign(encoding, &random, said.as_bytes(), &mut signature);
                done.expect("signed");
                signature
            }
            Pair::Ec(pair) | Pair::P384(pair) => {
                let signature = pair.sign(&random, said.as_bytes());
                signature.expect("signed").as_ref().to_vec()
            }
            Pair::Ed(pair) => pair.sign(said.as_bytes()).as_ref().to_vec(),
        };
        format!("{said}.{}", Url::encode_string(&signature))
    }
}

/// A token of three parts, the last as it is.
pub(super) fn signed(header: &str, claims: &str, signature: &str) -> String {
    let [header, claims] = [header, claims].map(|part| Url::encode_string(part.as_bytes()));
    format!("{header}.{claims}.{signature}")
}

fn options(source: OauthSource) -> OauthOptions {
    OauthOptions {
        source,
        timeout: Duration::from_secs(5),
        issuer: Some("https://issuer.example".into()),
        audience: vec!["popcore".into(), "pop.example.net".into()],
        user_claim: "email".into(),
        scope: "mail".into(),
        leeway: Duration::from_secs(30),
        configuration: None,
        names: NameRules {
            lowercase: true,
            ..NameRules::default()
        },
    }
}

/// What is wanted of tokens that are signed.
pub(super) fn by_keys() -> OauthOptions {
    options(OauthSource::File {
        path: "keys.json".into(),
        refresh: Duration::from_hours(1),
    })
}

/// What is wanted of those that somebody is asked about.
pub(super) fn by_introspection() -> OauthOptions {
    OauthOptions {
        issuer: None,
        audience: Vec::new(),
        user_claim: "username".into(),
        ..options(OauthSource::Introspection {
            uri: Uri::from_static("http://127.0.0.1:1/introspect"),
            trust: Trust::SYSTEM,
            client: "popcore".into(),
            secret: Secret::new("secret".to_owned()),
        })
    }
}

fn issuer() -> &'static Issuer {
    static ISSUER: OnceLock<Issuer> = OnceLock::new();
    ISSUER.get_or_init(|| Issuer::ec("first"))
}

fn claims(user: &str, left: i64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = i64::try_from(now.expect("after 1970").as_secs()).expect("before 2262");
    json!({
        "iss": "https://issuer.example", "aud": "popcore", "scope": "mail",
        "email": user, "email_verified": true, "exp": now + left,
    })
    .to_string()
}

fn check(authority: &Authority, token: &str, user: &str) -> Verdict {
    let token = Token::new(token).expect("a token");
    let user = UserName::new(user.as_bytes()).expect("a name");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(authority.check(&token, &user, 0))
}

fn by_file(path: &std::path::Path) -> Authority {
    let mut options = by_keys();
    options.source = OauthSource::File {
        path: path.into(),
        refresh: Duration::from_hours(1),
    };
    Authority::new(&options)
}

#[test]
fn a_signed_token_is_its_users_until_it_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.json");
    let set = json!({ "keys": [issuer().jwk()] }).to_string();
    std::fs::write(&path, set).expect("written");
    let authority = by_file(&path);
    let good = issuer().sign(&claims("ann", 600));
    let Verdict::Good(Some(end)) = check(&authority, &good, "ann") else {
        panic!("not good");
    };
    let left = end.saturating_duration_since(Instant::now());
    assert!((620..=630).contains(&left.as_secs()), "{left:?}");
    for (token, user) in [
        (good.as_str(), "bob"),
        (&issuer().sign(&claims("ann", -31)), "ann"),
        (&Issuer::ec("first").sign(&claims("ann", 600)), "ann"),
        (&Issuer::ec("second").sign(&claims("ann", 600)), "ann"),
        ("nonsense", "ann"),
    ] {
        assert_eq!(
            check(&authority, token, user),
            Verdict::Bad,
            "{user} {token}"
        );
    }
    let ages = issuer().sign(&claims("ann", i64::MAX / 2));
    assert!(matches!(check(&authority, &ages, "ann"), Verdict::Good(_)));
}

#[test]
fn without_keys_nothing_is_known_of_a_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.json");
    let authority = by_file(&path);
    let good = issuer().sign(&claims("ann", 600));
    assert_eq!(check(&authority, &good, "ann"), Verdict::Unanswered);
    assert_eq!(check(&authority, "nonsense", "ann"), Verdict::Unanswered);
    let error = authority_error(&path);
    assert!(
        error.starts_with("auth.oauth: refused: No such file"),
        "{error}"
    );
    std::fs::write(&path, "[]").expect("written");
    let error = authority_error(&path);
    assert!(error.contains("no JWK Set"), "{error}");
}

fn authority_error(path: &std::path::Path) -> String {
    let mut options = by_keys();
    options.source = OauthSource::File {
        path: path.into(),
        refresh: Duration::from_hours(1),
    };
    let begun = Authority::open(&options)
        .err()
        .expect("an error")
        .to_string();
    let probed = probe_oauth(&options).expect_err("an error").to_string();
    assert_eq!(begun, probed);
    begun
}
