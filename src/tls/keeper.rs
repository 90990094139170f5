//! What is served now, and its files.
//!
//! Everything of TLS that lives in a file (certificates with their keys, the
//! clients' authority, the secrets of tickets) is looked at on a thread of its own,
//! when that has heard of something and now and then. What has changed, and stands
//! still, is read; where it is right, each shard gets a new configuration for its
//! next handshake, and where it is not, the one before stays and the log says so.
//! Sessions hold what they began with. A look costs a `stat` for each file, and is
//! the only thing that is believed: to be told that something happened is a reason
//! to look.
//!
//! "Stands still" means the same in two looks, [`limits::CERTIFICATE_LOOK`] apart:
//! chain and key are two files, and between the writing of one and of the other
//! they do not fit.
//!
//! A configuration never changes. Each shard has a copy of its own, behind a lock
//! that only this thread ever contends for, so that handshakes of different
//! shards meet nowhere.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;

use super::certificate::{Certificate, CertificateError, Facts};
use super::chooser::{Chooser, Counter, Served};
use super::protocol::{self, Authority};
use super::tickets::{self, Secrets, Tickets};
use crate::config::{ClientCertificates, TlsOptions};

/// Days before its end from which a certificate is worth a warning.
const SOON: i64 = 7;

const DAY: Duration = Duration::from_hours(24);

/// A shard's configuration for its next handshake.
#[derive(Clone, Debug)]
pub struct Current(Arc<Mutex<Arc<ServerConfig>>>);

impl Current {
    /// The configuration as it is now.
    pub fn get(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.lock())
    }

    fn set(&self, config: ServerConfig) {
        *self.lock() = Arc::new(config);
    }

    fn lock(&self) -> MutexGuard<'_, Arc<ServerConfig>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What others are shown of the certificates.
#[derive(Debug)]
pub(super) struct Shown {
    facts: Mutex<Vec<Facts>>,
    served: Vec<Arc<Served>>,
    pub(super) loaded: AtomicU64,
    pub(super) refused: AtomicU64,
}

impl Shown {
    pub(super) fn facts(&self) -> Vec<Facts> {
        self.facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How often a certificate was chosen, by all shards.
    pub(super) fn served(&self, certificate: usize) -> u64 {
        self.served
            .iter()
            .map(|served| served.get(certificate))
            .sum()
    }
}

/// Certificates, authority and secrets as they were last read.
pub struct Keeper {
    options: TlsOptions,
    certificates: Vec<Certificate>,
    authority: Authority,
    secrets: Secrets,
    /// Which lifetime of tickets it is.
    epoch: u64,
    watched: Vec<Watched>,
    shards: Vec<Current>,
    shown: Arc<Shown>,
    /// The day of the last look at when certificates expire.
    warned: Option<u64>,
}

/// Something that is read from files, all of them at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Certificate(usize),
    Authority,
    Secrets,
}

/// A part with its files as they were when it was read, and in the last look.
#[derive(Debug)]
struct Watched {
    part: Part,
    files: Vec<PathBuf>,
    read: Vec<Stamp>,
    seen: Vec<Stamp>,
}

/// What tells one content of a file from another; nothing for an absent one.
type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let facts = fs::metadata(file).ok()?;
        let modified = (facts.mtime(), facts.mtime_nsec());
        let changed = (facts.ctime(), facts.ctime_nsec());
        Some((facts.dev(), facts.ino(), facts.size(), modified, changed))
    };
    files.iter().map(stamp).collect()
}

/// What is watched, with the files as they are before anything is read.
fn watched(options: &TlsOptions) -> Vec<Watched> {
    let mut parts = Vec::new();
    for (at, certificate) in options.certificates.iter().enumerate() {
        let files = vec![certificate.chain.clone(), certificate.key.clone()];
        parts.push((Part::Certificate(at), files));
    }
    if let ClientCertificates::Optional(file) | ClientCertificates::Required(file) =
        &options.clients
    {
        parts.push((Part::Authority, vec![file.clone()]));
    }
    if !options.ticket_keys.is_empty() {
        parts.push((Part::Secrets, options.ticket_keys.clone()));
    }
    let watched = parts.into_iter().map(|(part, files)| {
        let read = stamps(&files);
        Watched {
            part,
            seen: read.clone(),
            read,
            files,
        }
    });
    watched.collect()
}

/// Reads everything once, for `popcore check`.
///
/// # Errors
///
/// Every fault there is.
pub fn inspect(options: &TlsOptions) -> Result<Vec<Facts>, Vec<CertificateError>> {
    let mut faults = Vec::new();
    let mut facts = Vec::new();
    for certificate in &options.certificates {
        match Certificate::load(certificate) {
            Ok(certificate) => facts.push(certificate.facts),
            Err(fault) => faults.push(fault),
        }
    }
    for Facts { chain, kind, .. } in &facts {
        if !protocol::serves(&options.ciphers, *kind) {
            let (chain, kind) = (chain.clone(), *kind);
            faults.push(CertificateError::Unserved { chain, kind });
        }
    }
    faults.extend(Authority::load(options).err());
    faults.extend(Secrets::load(&options.ticket_keys).err());
    if faults.is_empty() {
        if !facts.is_empty() {
            Keeper::load(options, 1, SystemTime::now()).map_err(|fault| vec![fault])?;
        }
        Ok(facts)
    } else {
        Err(faults)
    }
}

impl Keeper {
    /// Reads everything for so many shards. There is at least one certificate.
    ///
    /// # Errors
    ///
    /// The first thing that cannot be used.
    pub fn load(
        options: &TlsOptions,
        shards: usize,
        now: SystemTime,
    ) -> Result<Keeper, CertificateError> {
        let watched = watched(options);
        let certificates = options.certificates.iter().map(Certificate::load);
        let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
        let authority = Authority::load(options)?;
        let secrets = Secrets::load(&options.ticket_keys)?;
        let shown = Arc::new(Shown {
            facts: Mutex::default(),
            served: (0..shards)
                .map(|_| Arc::new(Served::new(certificates.len())))
                .collect(),
            loaded: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let mut keeper = Keeper {
            epoch: tickets::epoch(now, options.ticket_lifetime),
            options: options.clone(),
            certificates,
            authority,
            secrets,
            watched,
            shards: Vec::new(),
            shown,
            warned: None,
        };
        let configs = keeper.configurations()?;
        let current = |config| Current(Arc::new(Mutex::new(Arc::new(config))));
        keeper.shards = configs.into_iter().map(current).collect();
        Ok(keeper)
    }

    /// The configuration of a shard, now and whenever it changes.
    pub fn current(&self, shard: usize) -> Current {
        self.shards[shard].clone()
    }

    pub(super) fn shown(&self) -> &Arc<Shown> {
        &self.shown
    }

    /// A configuration for each shard.
    fn configurations(&self) -> Result<Vec<ServerConfig>, CertificateError> {
        let mut shown = self
            .shown
            .facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *shown = self.certificates.iter().map(|c| c.facts.clone()).collect();
        drop(shown);
        let chooser = Arc::new(Chooser::new(&self.certificates));
        let identity = self.authority.identity();
        let lifetime = self.options.ticket_lifetime;
        let tickets = Arc::new(Tickets::new(&self.secrets, identity, self.epoch, lifetime));
        let configs = self.shown.served.iter().map(|served| {
            let counter = Counter {
                chooser: Arc::clone(&chooser),
                served: Arc::clone(served),
            };
            let tickets = Arc::clone(&tickets);
            protocol::server_config(&self.options, &self.authority, tickets, Arc::new(counter))
        });
        configs.collect()
    }

    /// All files that are looked at.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let files = self.watched.iter().flat_map(|watched| &watched.files);
        files.cloned().collect()
    }

    /// How long after `now` there is something to do if no file changes: keys of
    /// tickets have their lifetime, and certificates are counted in days.
    pub(super) fn rest(&self, now: SystemTime) -> Duration {
        let since = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let lifetime = self.options.ticket_lifetime.max(Duration::from_secs(1));
        let to_next = |period: Duration| {
            let period = period.as_secs();
            let next = (since.as_secs() / period + 1) * period;
            Duration::from_secs(next).saturating_sub(since)
        };
        to_next(lifetime).min(to_next(DAY))
    }

    /// One look at the files and at the clock. Says whether a file has changed and
    /// has not been seen to stand still.
    pub(super) fn look(&mut self, now: SystemTime) -> bool {
        let mut renewed = false;
        for at in 0..self.watched.len() {
            let watched = &mut self.watched[at];
            let stamps = stamps(&watched.files);
            let stands_still = stamps == watched.seen;
            watched.seen.clone_from(&stamps);
            if stands_still && stamps != watched.read {
                watched.read = stamps;
                renewed |= self.renew(at);
            }
        }
        let epoch = tickets::epoch(now, self.options.ticket_lifetime);
        if epoch != self.epoch {
            self.epoch = epoch;
            self.secrets.rotate();
            renewed = true;
        }
        if renewed {
            match self.configurations() {
                Ok(configs) => {
                    for (shard, config) in self.shards.iter().zip(configs) {
                        shard.set(config);
                    }
                }
                // It could be made at the start, of parts no different.
                Err(fault) => tracing::error!("{fault}; TLS goes on as it was"),
            }
        }
        self.warn_of_ends(now);
        self.watched.iter().any(|part| part.seen != part.read)
    }

    /// Reads a part whose files have changed; whether there is something new.
    fn renew(&mut self, at: usize) -> bool {
        let part = self.watched[at].part;
        let outcome = match part {
            Part::Certificate(number) => {
                Certificate::load(&self.options.certificates[number]).map(|certificate| {
                    tracing::info!("{}: renewed, and served from now on", certificate.facts);
                    self.certificates[number] = certificate;
                    self.warned = None;
                })
            }
            Part::Authority => Authority::load(&self.options).map(|authority| {
                tracing::info!("the authority of clients' certificates was read again");
                self.authority = authority;
            }),
            Part::Secrets => Secrets::load(&self.options.ticket_keys).map(|secrets| {
                tracing::info!("the keys of TLS tickets were read again");
                self.secrets = secrets;
            }),
        };
        let (count, renewed) = match outcome {
            Ok(()) => (&self.shown.loaded, true),
            Err(fault) => {
                tracing::error!("{fault}; what was there before is served on");
                (&self.shown.refused, false)
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
        renewed
    }

    /// Says once a day which certificates end soon.
    fn warn_of_ends(&mut self, now: SystemTime) {
        let since = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let today = Some(since.as_secs() / DAY.as_secs());
        if self.warned == today {
            return;
        }
        self.warned = today;
        for certificate in &self.certificates {
            let days = certificate.facts.days_left(now);
            if days < 0 {
                tracing::error!("{}: has expired; renew it", certificate.facts);
            } else if days < SOON {
                tracing::warn!("{}: expires in {days} days; renew it", certificate.facts);
            }
        }
    }
}

#[cfg(test)]
mod tests;
