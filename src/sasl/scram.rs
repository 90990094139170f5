//! SCRAM, the server's side (RFC 5802, RFC 7677), with channel binding (RFC 5929,
//! RFC 9266).
//!
//! The client names itself; the directories give salt, iterations and keys, for a user
//! who is not there as for one who is; the client proves that it knows the password to
//! them, over everything that both sides have said. Nothing is decided before that proof
//! was looked at, and only who has given the right one learns what else stands in the way
//! of a login.
//!
//! A client that could bind the exchange to its TLS connection and thinks that we cannot
//! (`y`), although we have offered it, has been lied to by somebody between, and its
//! proof counts for nothing. So does one that is bound to another connection.

use base64ct::{Base64, Encoding as _};

use super::exchange::{Context, Exchange, Fault, Next};
use super::mechanism::Mechanism;
use crate::auth::{Proved, Refusal, ScramAnswer, ScramHash, ScramKeys, ScramQuestion};

/// Longest nonce of a client, in octets: those of today have 18 to 44.
const CLIENT_NONCE: usize = 256;

/// SCRAM waits for the client's first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    hash: ScramHash,
    /// The exchange is bound to the connection.
    bound: bool,
}

/// SCRAM waits for what is stored of the user.
#[derive(Debug)]
pub struct Asking {
    said: Said,
}

/// SCRAM waits for the client's proof.
#[derive(Debug)]
pub struct Proof {
    said: Said,
    /// The nonces of both sides.
    nonce: String,
    server_first: String,
    keys: ScramKeys,
    verdict: Result<Proved, Refusal>,
}

/// What the client's first message leaves behind.
#[derive(Debug)]
struct Said {
    /// What stands in the client's `c=`: header and binding.
    binding: Vec<u8>,
    /// The message without its header.
    bare: String,
    nonce: String,
    /// Somebody between has hidden that we offer channel binding.
    downgraded: bool,
}

impl First {
    pub(super) fn new(hash: ScramHash, bound: bool) -> Self {
        Self { hash, bound }
    }

    /// `gs2-header client-first-message-bare` (RFC 5802, section 7)
    pub(super) fn respond(self, message: &[u8], context: &Context<'_>) -> Result<Next, Fault> {
        let message = std::str::from_utf8(message).map_err(|_| Fault::Malformed)?;
        let mut parts = message.splitn(3, ',');
        let mut part = || parts.next().ok_or(Fault::Malformed);
        let (flag, for_whom, bare) = (part()?, part()?, part()?);
        let header = &message[..message.len() - bare.len()];
        let mut binding = header.as_bytes().to_vec();
        match (flag.strip_prefix("p="), self.bound) {
            (Some(name), true) => {
                let data = context.bindings.and_then(|bindings| bindings.named(name));
                binding.extend_from_slice(data.ok_or(Fault::Binding)?);
            }
            (None, false) if flag == "n" || flag == "y" => {}
            _ => return Err(Fault::Binding),
        }
        let for_whom = match for_whom {
            "" => String::new(),
            named => name(named.strip_prefix("a=").ok_or(Fault::Malformed)?)?,
        };
        let mut fields = bare.split(',');
        // An extension that must be understood (`m=`) would stand here.
        let user = fields.next().and_then(|field| field.strip_prefix("n="));
        let user = name(user.ok_or(Fault::Malformed)?)?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r="));
        let nonce = nonce.filter(|nonce| is_nonce(nonce));
        let nonce = nonce.ok_or(Fault::Malformed)?;
        let identity = context.names.prepared(user.as_bytes(), for_whom.as_bytes());
        let downgraded = flag == "y" && self.hash == ScramHash::Sha256 && context.offers_binding;
        let said = Said {
            binding,
            bare: bare.to_owned(),
            nonce: nonce.to_owned(),
            downgraded,
        };
        let question = ScramQuestion {
            identity: identity.map_err(Fault::Name)?,
            hash: self.hash,
        };
        Ok(Next::Find(question, Asking { said }))
    }
}

impl Asking {
    /// The server's first message, once it is known what is stored of the user.
    pub fn found(self, answer: ScramAnswer) -> (Exchange, Vec<u8>) {
        let ScramAnswer {
            keys,
            verdict,
            nonce,
        } = answer;
        let nonce = format!("{}{nonce}", self.said.nonce);
        let salt = Base64::encode_string(keys.salt());
        let server_first = format!("r={nonce},s={salt},i={}", keys.iterations());
        let challenge = server_first.clone().into_bytes();
        let proof = Proof {
            said: self.said,
            nonce,
            server_first,
            keys,
            verdict,
        };
        (Exchange::ScramProof(Box::new(proof)), challenge)
    }
}

impl Proof {
    /// `c=binding,r=nonce[,extensions],p=proof` (RFC 5802, section 7)
    pub(super) fn respond(self, message: &[u8]) -> Result<Next, Fault> {
        let message = std::str::from_utf8(message).map_err(|_| Fault::Malformed)?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(Fault::Malformed)?;
        let mut fields = without_proof.split(',');
        let mut field = |name: &str| {
            let field = fields.next().and_then(|field| field.strip_prefix(name));
            field.ok_or(Fault::Malformed)
        };
        let (binding, nonce) = (field("c=")?, field("r=")?);
        let binding = Base64::decode_vec(binding).map_err(|_| Fault::Malformed)?;
        let proof = Base64::decode_vec(proof).map_err(|_| Fault::Malformed)?;
        let said = format!("{},{},{without_proof}", self.said.bare, self.server_first);
        let ours = self.keys.check(said.as_bytes(), &proof);
        let is_bound = binding == self.said.binding && nonce == self.nonce;
        match ours.filter(|_| is_bound && !self.said.downgraded) {
            // Who may not log in needs no proof from us.
            Some(ours) if self.verdict.is_ok() => {
                let exchange = Exchange::ScramEnd(self.verdict);
                let challenge = format!("v={}", Base64::encode_string(&ours));
                Ok(Next::Challenge(exchange, challenge.into_bytes()))
            }
            Some(_) => Ok(Next::Decided(self.verdict)),
            None => Ok(Next::Decided(Err(Refusal::Rejected))),
        }
    }
}

/// A name with `=2C` for a comma and `=3D` for an equals sign.
pub(super) fn name(text: &str) -> Result<String, Fault> {
    let mut parts = text.split('=');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (sign, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(Fault::Malformed),
        };
        name.push(sign);
        name.push_str(rest);
    }
    Ok(name)
}

fn is_nonce(text: &str) -> bool {
    let printable = text.bytes().all(|octet| matches!(octet, b'!'..=b'~'));
    printable && (1..=CLIENT_NONCE).contains(&text.len())
}

impl Mechanism {
    /// The hash of SCRAM, and whether it is bound to the connection, if it is SCRAM.
    pub(super) fn scram(self) -> Option<(ScramHash, bool)> {
        match self {
            Self::ScramSha256Plus => Some((ScramHash::Sha256, true)),
            Self::ScramSha256 => Some((ScramHash::Sha256, false)),
            Self::ScramSha1 => Some((ScramHash::Sha1, false)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
