//! What SCRAM is told where nothing is stored for it.
//!
//! A server tells a salt to whoever names a user, before anything is proved. A user
//! whose password is stored in clear has none, and one who is not there has nothing at
//! all: both get a salt that follows from the name and a secret. It is the same each
//! time, and nobody who does not know the secret can tell it from a stored one.
//!
//! The keys of a user who is not there follow in the same way; nobody has a password to
//! them, so that every proof is wrong. They look as those of a decoy do, by iterations and
//! by the length of the salt, and cost what they would cost: where
//! that one's would have to be derived, they are, and are thrown away.

use std::hint::black_box;
use std::num::NonZeroU32;

use aws_lc_rs::hmac;

use super::scram::{ITERATIONS, SALT, ScramHash, ScramKeys};
use super::{Kind, Verifier};
use crate::auth::{Password, Secret, UserName};

/// Makes salts and keys up.
pub(in crate::auth) struct MadeUp(hmac::Key);

/// Keys, or how to come to them.
pub(in crate::auth) enum KeyPlan {
    /// They are known.
    Ready(ScramKeys),
    /// They are to be derived, which is slow, and replaced by others where those are.
    Derive {
        password: Password,
        hash: ScramHash,
        salt: Box<[u8]>,
        instead: Option<ScramKeys>,
    },
}

impl MadeUp {
    /// By the operator's secret, or else by one of this process.
    pub(in crate::auth) fn new(secret: Option<&Secret>) -> Self {
        let own;
        let secret = if let Some(secret) = secret {
            secret.expose().as_bytes()
        } else {
            let mut random = [0; 32];
            getrandom::fill(&mut random).expect("the kernel has randomness (getrandom(2))");
            own = zeroize::Zeroizing::new(random);
            &own[..]
        };
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The keys of a user with this stored password, or of somebody who is not there and
    /// is to cost the same.
    pub(in crate::auth) fn plan(
        &self,
        hash: ScramHash,
        name: &UserName,
        stored: Option<&Verifier>,
        is_there: bool,
    ) -> KeyPlan {
        let salt = self.make(b's', hash, name);
        // As long as most are; a longer one is as long as a tag.
        let salt = |length: usize| &salt.as_ref()[..length.min(salt.as_ref().len())];
        let nobodys = |iterations: NonZeroU32, length: usize| {
            let secret = self.make(b'k', hash, name);
            ScramKeys::nobodys(hash, salt(length), iterations, secret.as_ref())
        };
        match stored.map(|stored| &stored.0) {
            Some(Kind::Scram(keys)) if keys.hash() == hash => KeyPlan::Ready(if is_there {
                keys.clone()
            } else {
                nobodys(keys.iterations(), keys.salt().len())
            }),
            Some(Kind::Plain(stored)) => match Password::new(stored) {
                Ok(password) => KeyPlan::Derive {
                    password: password.prepared().unwrap_or(password),
                    hash,
                    instead: (!is_there).then(|| nobodys(ITERATIONS, SALT)),
                    salt: salt(SALT).into(),
                },
                Err(_) => KeyPlan::Ready(nobodys(ITERATIONS, SALT)),
            },
            _ => KeyPlan::Ready(nobodys(ITERATIONS, SALT)),
        }
    }

    fn make(&self, kind: u8, hash: ScramHash, name: &UserName) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&[kind]);
        context.update(hash.scheme().as_bytes());
        context.update(name.as_bytes());
        context.sign()
    }
}

impl KeyPlan {
    pub(in crate::auth) fn is_slow(&self) -> bool {
        matches!(self, Self::Derive { .. })
    }

    /// Salt and password of a user whose keys are to be derived.
    pub(in crate::auth) fn derivation(&self) -> Option<[&[u8]; 2]> {
        match self {
            Self::Derive {
                password,
                salt,
                instead: None,
                ..
            } => Some([salt, password.as_bytes()]),
            Self::Derive { .. } | Self::Ready(_) => None,
        }
    }

    /// The keys. Slow where [`KeyPlan::is_slow`].
    pub(in crate::auth) fn carry_out(self) -> ScramKeys {
        match self {
            Self::Ready(keys) => keys,
            Self::Derive {
                password,
                hash,
                salt,
                instead,
            } => {
                let derived = ScramKeys::derive(hash, password.as_bytes(), &salt, ITERATIONS);
                instead.unwrap_or(black_box(derived))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verifier(text: &str) -> Verifier {
        Verifier::parse(text.as_bytes()).expect("known")
    }

    fn name(text: &str) -> UserName {
        UserName::new(text.as_bytes()).expect("a name")
    }

    const STORED: &str = "{SCRAM-SHA-256}5000,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn a_salt_is_the_same_as_long_as_the_secret_is() {
        let secret = Secret::new("x".repeat(32));
        let [one, other] = [0; 2].map(|_| MadeUp::new(Some(&secret)));
        let salt = |by: &MadeUp, hash, user: &str, stored: &str, is_there| {
            let stored = verifier(stored);
            let plan = by.plan(hash, &name(user), Some(&stored), is_there);
            let keys = plan.carry_out();
            (keys.salt().to_vec(), keys.iterations().get())
        };
        let sha256 = ScramHash::Sha256;
        let first = salt(&one, sha256, "ann", "{PLAIN}x", true);
        assert_eq!(first.1, 4096);
        // Whether the user is there, with what password, and after a restart.
        assert_eq!(salt(&one, sha256, "ann", "{PLAIN}x", false), first);
        assert_eq!(salt(&other, sha256, "ann", "{PLAIN}y", true), first);
        assert_ne!(salt(&one, sha256, "bob", "{PLAIN}x", true).0, first.0);
        let sha1 = salt(&one, ScramHash::Sha1, "ann", "{PLAIN}x", true);
        assert_ne!(sha1.0, first.0);
        let process = MadeUp::new(None);
        assert_ne!(salt(&process, sha256, "ann", "{PLAIN}x", true).0, first.0);
        // Who is not there looks as the decoy does.
        let like = salt(&one, sha256, "ann", STORED, false);
        assert_eq!(like, (first.0.clone(), 5000));
        let longer = STORED.replace("W22ZaJ0SNY7soEsUEjb6gQ==", "W22ZaJ0SNY7soEsUEjb6gW22ZaJ0");
        let like = salt(&one, sha256, "ann", &longer, false);
        assert!(
            like.0.len() == 21 && like.0.starts_with(&first.0),
            "{like:?}"
        );
    }

    #[test]
    fn keys_are_the_users_own_or_nobodys() {
        let by = MadeUp::new(None);
        let stored = verifier(STORED);
        let own = stored.scram_keys().expect("of SCRAM");
        let plan =
            |hash, stored: &Verifier, is_there| by.plan(hash, &name("ann"), Some(stored), is_there);
        let keys = plan(ScramHash::Sha256, &stored, true).carry_out();
        assert_eq!(keys.identity(), own.identity());
        for (hash, is_there) in [(ScramHash::Sha256, false), (ScramHash::Sha1, true)] {
            let plan = plan(hash, &stored, is_there);
            assert!(!plan.is_slow());
            let keys = plan.carry_out();
            assert_eq!(keys.hash(), hash);
            assert!(!keys.verify(b"pencil") && keys.salt() != own.salt());
        }
        let clear = verifier("{PLAIN}pencil");
        for is_there in [true, false] {
            let plan = plan(ScramHash::Sha256, &clear, is_there);
            assert!(plan.is_slow(), "the same work");
            assert_eq!(plan.carry_out().verify(b"pencil"), is_there);
        }
    }
}
