//! Ways to log in, as exchanges without IO: USER and PASS, or AUTH with PLAIN
//! (RFC 4616), SCRAM-SHA-256 (RFC 5802, RFC 7677) or XOAUTH2 (Google's and
//! Microsoft's, without an RFC).
//!
//! SCRAM costs a client thousands of hashes a login. RFC 5802 lets it keep the
//! salted keys, and a generator that did not would measure itself, so
//! [`ScramKeys`] stay with the user as long as salt and count are the same.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::fault::{Fault, Kind, readable};
use crate::random::Random;
use crate::users::Login;

/// How a session proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mechanism {
    /// USER and PASS
    #[default]
    User,
    /// AUTH PLAIN
    Plain,
    /// AUTH SCRAM-SHA-256
    #[value(name = "scram-sha-256")]
    ScramSha256,
    /// AUTH XOAUTH2, with the password as the token
    Xoauth2,
}

/// What follows from a password, a salt and a count.
#[derive(Clone, Debug)]
pub struct ScramKeys {
    salt: Vec<u8>,
    iterations: u32,
    client: [u8; 32],
    server: [u8; 32],
}

/// Most iterations that a server may ask for: beyond, a client would hang.
const MOST_ITERATIONS: u32 = 1_000_000;

/// Longest command in octets (RFC 2449, section 4).
const LONGEST_COMMAND: usize = 255;

/// The AUTH command with its initial response, and how it goes on.
#[derive(Debug)]
pub enum Exchange {
    /// Nothing more to say.
    Spoken,
    /// The response did not fit the command line.
    Delayed {
        /// In base64.
        response: String,
    },
    /// SCRAM: the server's first message is awaited.
    ScramFirst {
        /// The client's first message without its head.
        bare: String,
        /// The client's part of the nonce.
        nonce: String,
    },
    /// SCRAM: the server's proof is awaited.
    ScramFinal {
        /// What the server must prove.
        signature: [u8; 32],
    },
}

impl Exchange {
    /// Begins: the line to send, without its CRLF, and the rest.
    pub fn begin(mechanism: Mechanism, login: &Login, random: &mut Random) -> (String, Self) {
        let (user, password) = (&login.user, &login.password);
        match mechanism {
            Mechanism::User => (format!("USER {user}"), Self::Spoken),
            Mechanism::Plain => one_response("PLAIN", &format!("\0{user}\0{password}")),
            Mechanism::Xoauth2 => {
                let text = format!("user={user}\x01auth=Bearer {password}\x01\x01");
                one_response("XOAUTH2", &text)
            }
            Mechanism::ScramSha256 => {
                let nonce = format!("{:016x}{:016x}", random.number(), random.number());
                let name = user.replace('=', "=3D").replace(',', "=2C");
                let bare = format!("n={name},r={nonce}");
                let response = STANDARD.encode(format!("n,,{bare}"));
                let line = format!("AUTH SCRAM-SHA-256 {response}");
                (line, Self::ScramFirst { bare, nonce })
            }
        }
    }

    /// The answer to the server's challenge.
    pub fn answer(
        &mut self,
        challenge: &[u8],
        login: &Login,
        keys: &mut Option<ScramKeys>,
    ) -> Result<String, Fault> {
        let decoded = STANDARD.decode(challenge).map_err(|e| {
            let text = format!(
                "a challenge that is no base64 ({e}): {}",
                readable(challenge)
            );
            Fault::new(Kind::Nonsense, text)
        })?;
        match self {
            // XOAUTH2 explains a refusal in a challenge; an empty answer asks
            // for the refusal itself.
            Self::Spoken => Ok(String::new()),
            Self::Delayed { response } => {
                let response = std::mem::take(response);
                *self = Self::Spoken;
                Ok(response)
            }
            Self::ScramFirst { bare, nonce } => {
                let first = String::from_utf8_lossy(&decoded);
                let (answer, signature) = scram_proof(&first, bare, nonce, login, keys)?;
                *self = Self::ScramFinal { signature };
                Ok(STANDARD.encode(answer))
            }
            Self::ScramFinal { signature } => {
                let expected = format!("v={}", STANDARD.encode(*signature));
                if decoded != expected.as_bytes() {
                    return Err(nonsense("the server's proof is wrong", &decoded));
                }
                *self = Self::Spoken;
                Ok(String::new())
            }
        }
    }

    /// The server says that the login is done.
    pub fn end(&self) -> Result<(), Fault> {
        match self {
            Self::Spoken => Ok(()),
            _ => Err(Fault::new(
                Kind::Nonsense,
                "logged in without a proof of the server's own",
            )),
        }
    }
}

/// A mechanism with one response, with the command if it fits.
fn one_response(name: &str, text: &str) -> (String, Exchange) {
    let response = STANDARD.encode(text);
    let line = format!("AUTH {name} {response}");
    if line.len() + "\r\n".len() <= LONGEST_COMMAND {
        (line, Exchange::Spoken)
    } else {
        (format!("AUTH {name}"), Exchange::Delayed { response })
    }
}

fn nonsense(what: &str, bytes: &[u8]) -> Fault {
    Fault::new(
        Kind::Nonsense,
        format!("SCRAM: {what}: {}", readable(bytes)),
    )
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(data);
    mac.finalize().into_bytes().into()
}

/// The client's final message, and what the server must prove in turn.
fn scram_proof(
    first: &str,
    bare: &str,
    nonce: &str,
    login: &Login,
    keys: &mut Option<ScramKeys>,
) -> Result<(String, [u8; 32]), Fault> {
    let wrong = |what| nonsense(what, first.as_bytes());
    let field = |name: &str| first.split(',').find_map(|part| part.strip_prefix(name));
    let both = field("r=").filter(|r| r.starts_with(nonce) && r.len() > nonce.len());
    let both = both.ok_or_else(|| wrong("the nonce is not the client's and more"))?;
    let salt = field("s=").and_then(|s| STANDARD.decode(s).ok());
    let salt = salt.ok_or_else(|| wrong("no salt"))?;
    let iterations = field("i=").and_then(|i| i.parse::<u32>().ok());
    let iterations = iterations
        .filter(|i| (1..=MOST_ITERATIONS).contains(i))
        .ok_or_else(|| wrong("no sound count of iterations"))?;
    let kept = keys
        .take()
        .filter(|k| k.salt == salt && k.iterations == iterations);
    let kept = keys.insert(kept.unwrap_or_else(|| {
        let password = login.password.as_bytes();
        let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, &salt, iterations);
        ScramKeys {
            salt,
            iterations,
            client: hmac(&salted, b"Client Key"),
            server: hmac(&salted, b"Server Key"),
        }
    }));
    // "biws" is the base64 of "n,,": no channel binding.
    let last = format!("c=biws,r={both}");
    let message = format!("{bare},{first},{last}");
    let stored: [u8; 32] = Sha256::digest(kept.client).into();
    let mut proof = hmac(&stored, message.as_bytes());
    for (byte, key) in proof.iter_mut().zip(kept.client) {
        *byte ^= key;
    }
    let signature = hmac(&kept.server, message.as_bytes());
    Ok((format!("{last},p={}", STANDARD.encode(proof)), signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str, password: &str) -> Login {
        Login {
            user: user.into(),
            password: password.into(),
        }
    }

    #[test]
    fn plain_and_xoauth2_are_as_their_documents_say() {
        let mut random = Random::new(1);
        let (line, _) = Exchange::begin(
            Mechanism::Plain,
            &login("tim", "tanstaaftanstaaf"),
            &mut random,
        );
        assert_eq!(line, "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm");
        // The example of Google's document.
        let google = login(
            "someuser@example.com",
            "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg",
        );
        let (line, _) = Exchange::begin(Mechanism::Xoauth2, &google, &mut random);
        assert_eq!(
            line,
            "AUTH XOAUTH2 dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxb\
             VRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2cBAQ=="
        );
    }

    #[test]
    fn a_long_response_waits_for_its_challenge() {
        let login = login("ann", &"t".repeat(300));
        let (line, mut exchange) = Exchange::begin(Mechanism::Xoauth2, &login, &mut Random::new(1));
        assert_eq!(line, "AUTH XOAUTH2");
        let response = exchange.answer(b"", &login, &mut None).expect("sound");
        assert!(response.len() > 300);
        assert!(exchange.end().is_ok());
    }

    #[test]
    fn scram_is_that_of_rfc_7677() {
        let login = login("user", "pencil");
        let mut exchange = Exchange::ScramFirst {
            bare: "n=user,r=rOprNGfwEbeRWgbNEkqO".into(),
            nonce: "rOprNGfwEbeRWgbNEkqO".into(),
        };
        let first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let mut keys = None;
        let answer = exchange
            .answer(STANDARD.encode(first).as_bytes(), &login, &mut keys)
            .expect("sound");
        let answer = STANDARD.decode(answer).expect("base64");
        assert_eq!(
            String::from_utf8_lossy(&answer),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(exchange.end().is_err(), "the server has proved nothing");
        let wrong = STANDARD.encode("v=AAAA");
        assert!(
            exchange
                .answer(wrong.as_bytes(), &login, &mut keys)
                .is_err()
        );
        let right = STANDARD.encode("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let last = exchange.answer(right.as_bytes(), &login, &mut keys);
        assert_eq!(last.as_deref(), Ok(""));
        assert!(exchange.end().is_ok());
    }

    #[test]
    fn a_server_that_cheats_at_scram_is_found_out() {
        let login = login("user", "pencil");
        for first in [
            "r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=abc,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=abcd,s=!,i=4096",
            "r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=0",
            "r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4000000000",
            "",
        ] {
            let mut exchange = Exchange::ScramFirst {
                bare: "n=user,r=abc".into(),
                nonce: "abc".into(),
            };
            let first = STANDARD.encode(first);
            let answer = exchange.answer(first.as_bytes(), &login, &mut None);
            assert!(answer.is_err(), "{first}");
        }
    }
}
