//! Tickets: what a client brings back to resume its session (RFC 5077, RFC 8446
//! section 4.6.1), on whichever shard or node it lands.
//!
//! The server keeps nothing; the ticket holds the session, sealed. All shards
//! seal with the same keys, and with a secret from a file so do all nodes and the
//! same server after a restart. Keys are derived from a secret (HKDF) and change
//! with each lifetime, so that a secret that an operator never touches does not
//! seal for ever, and nodes whose clocks agree change at the same moment without
//! a word between them. A ticket is opened with the keys of its own lifetime and
//! of the next: it lives for one at least and two at most. Without a file the
//! secret itself is random and new each time, so that what is forgotten cannot be
//! derived again.
//!
//! What a ticket vouches for depends on the clients' authority: keys are derived
//! for one, so that a session under another cannot be resumed.
//!
//! The construction is AES-256-GCM with a random nonce under a key of that
//! lifetime, and a name for the key before it. GCM allows 2^32 random nonces for
//! a key; at ten thousand handshakes a second that is five days, and a lifetime
//! is hours.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, hkdf, rand};
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use super::certificate::{self, CertificateError};
use crate::limits;

/// Octets of a key's name, which stand before a ticket.
const NAME: usize = 16;

/// Octets of a key of AES-256.
const KEY: usize = 32;

/// What keys are derived from.
type Secret = Zeroizing<Vec<u8>>;

/// Where keys come from, as time passes.
pub(super) enum Secrets {
    /// Made here, new in each lifetime.
    Random {
        current: Secret,
        previous: Option<Secret>,
    },
    /// From files: the first seals, all open.
    Shared(Vec<Secret>),
}

impl Secrets {
    /// The secrets of files, or random ones where there is no file.
    pub(super) fn load(files: &[PathBuf]) -> Result<Secrets, CertificateError> {
        if files.is_empty() {
            return Ok(Secrets::Random {
                current: random(),
                previous: None,
            });
        }
        let secrets: Result<Vec<_>, _> = files.iter().map(|file| secret(file)).collect();
        secrets.map(Secrets::Shared)
    }

    /// A lifetime is over.
    pub(super) fn rotate(&mut self) {
        if let Secrets::Random { current, previous } = self {
            *previous = Some(std::mem::replace(current, random()));
        }
    }
}

fn secret(file: &Path) -> Result<Secret, CertificateError> {
    let octets = Zeroizing::new(certificate::read(file)?);
    if (limits::TICKET_SECRET_LEAST..=limits::TICKET_SECRET_MOST).contains(&octets.len()) {
        return Ok(octets);
    }
    let cause = format!("{} octets are no ticket key", octets.len());
    Err(CertificateError::wrong(file, cause))
}

fn random() -> Secret {
    let mut secret = Zeroizing::new(vec![0; KEY]);
    rand::fill(&mut secret).expect("the system gives random octets");
    secret
}

/// Which lifetime it is since 1970.
pub(super) fn epoch(now: SystemTime, lifetime: Duration) -> u64 {
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    since.as_secs() / lifetime.as_secs().max(1)
}

/// The keys of one lifetime. They never change: the next one brings others.
pub(super) struct Tickets {
    /// The first seals.
    keys: Vec<Key>,
    lifetime: u32,
}

struct Key {
    name: [u8; NAME],
    key: LessSafeKey,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.len();
        f.debug_struct("Tickets")
            .field("keys", &keys)
            .finish_non_exhaustive()
    }
}

impl Tickets {
    /// The keys of `epoch` for sessions that `authority` says who may have.
    pub(super) fn new(
        secrets: &Secrets,
        authority: &[u8],
        epoch: u64,
        lifetime: Duration,
    ) -> Tickets {
        let authority = digest::digest(&digest::SHA256, authority);
        let derive = |secret: &Secret, epoch: u64| Key::derive(secret, authority.as_ref(), epoch);
        let keys = match secrets {
            // These two differ in themselves.
            Secrets::Random { current, previous } => [Some(current), previous.as_ref()]
                .into_iter()
                .flatten()
                .map(|s| derive(s, 0))
                .collect(),
            Secrets::Shared(secrets) => {
                // The clock of another node may be ahead.
                let epochs = [epoch, epoch.saturating_sub(1), epoch + 1];
                let keys = secrets
                    .iter()
                    .flat_map(|s| epochs.map(|epoch| derive(s, epoch)));
                keys.collect()
            }
        };
        Tickets {
            keys,
            lifetime: u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX),
        }
    }
}

impl Key {
    fn derive(secret: &[u8], authority: &[u8], epoch: u64) -> Key {
        struct Length;
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                NAME + KEY
            }
        }
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"popcore TLS tickets, first form");
        let epoch = epoch.to_be_bytes();
        let info = [authority, &epoch];
        let mut octets = Zeroizing::new([0; NAME + KEY]);
        let prk = salt.extract(secret);
        let okm = prk.expand(&info, Length).expect("a short key");
        okm.fill(&mut *octets).expect("the length asked for");
        let (name, key) = octets.split_at(NAME);
        Key {
            name: name.try_into().expect("its length"),
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("its length")),
        }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.lifetime
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let Key { name, key } = self.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(name);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let text = &mut ticket[NAME + NONCE_LEN..];
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::from(name), text)
            .ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        // Names are no secret.
        let Key { key, .. } = self.keys.iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key
            .open_in_place(nonce, Aad::from(name), &mut sealed)
            .ok()?
            .len();
        sealed.truncate(length);
        Some(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn shared(octet: u8) -> Secret {
        Zeroizing::new(vec![octet; 80])
    }

    #[test]
    fn a_ticket_is_opened_by_every_node_with_the_secret_in_its_time() {
        let here = Secrets::Shared(vec![shared(1)]);
        let there = Secrets::Shared(vec![shared(2), shared(1)]);
        let stranger = Secrets::Shared(vec![shared(3)]);
        let ticket = Tickets::new(&here, b"", 100, HOUR)
            .encrypt(b"session")
            .expect("sealed");
        for (secrets, epoch, opened) in [
            (&here, 99, true),
            (&here, 100, true),
            (&here, 101, true),
            (&here, 102, false),
            (&here, 98, false),
            (&there, 100, true),
            (&stranger, 100, false),
        ] {
            let text = Tickets::new(secrets, b"", epoch, HOUR).decrypt(&ticket);
            assert_eq!(
                text.as_deref(),
                opened.then_some(b"session".as_slice()),
                "{epoch}"
            );
        }
        // Another authority, another key.
        assert_eq!(Tickets::new(&here, b"ca", 100, HOUR).decrypt(&ticket), None);
    }

    #[test]
    fn random_secrets_open_for_one_lifetime_more() {
        let mut secrets = Secrets::load(&[]).expect("random");
        let tickets = |secrets: &Secrets| Tickets::new(secrets, b"", 0, HOUR);
        let ticket = tickets(&secrets).encrypt(b"session").expect("sealed");
        assert!(tickets(&secrets).decrypt(&ticket).is_some());
        secrets.rotate();
        assert!(tickets(&secrets).decrypt(&ticket).is_some());
        assert_ne!(
            tickets(&secrets).encrypt(b"session").expect("sealed")[..NAME],
            ticket[..NAME]
        );
        secrets.rotate();
        assert!(tickets(&secrets).decrypt(&ticket).is_none());
    }

    #[test]
    fn what_is_no_ticket_is_not_opened() {
        let tickets = Tickets::new(&Secrets::Shared(vec![shared(1)]), b"", 1, HOUR);
        let ticket = tickets.encrypt(b"session").expect("sealed");
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "octet {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "the first {at}");
        }
        // No two are alike, and none shows what it holds.
        assert_ne!(tickets.encrypt(b"session").expect("sealed"), ticket);
        assert!(!ticket.windows(7).any(|octets| octets == b"session"));
    }

    #[test]
    fn lifetimes_are_counted_from_the_same_moment_everywhere() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(epoch(at(3599), HOUR), 0);
        assert_eq!(epoch(at(3600), HOUR), 1);
        assert_eq!(epoch(at(7200), HOUR), 2);
    }
}
