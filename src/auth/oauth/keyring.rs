//! An issuer's keys as they were read last, and when they are read again.
//!
//! They are old after a while, and are read again then, while logins go on with those
//! there are. A token that names a key nobody knows may be of a new one: the keys are
//! read at once, though not for each such token, since anybody can make one. Whatever
//! comes of it, keys that were read stay until others are.
//!
//! Those who wait for the same keys wait for one read, and take what came of it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::header::ACCEPT;
use hyper::{Request, StatusCode, Uri};

use super::keys::KeySet;
use crate::auth::DirectoryError;
use crate::auth::directory::Failure;
use crate::auth::remote::{Contact, DirectoryMetrics, Web};
use crate::limits;

/// The keys of an issuer.
pub(super) struct Keyring {
    place: Place,
    contact: Contact,
    refresh: Duration,
    held: Mutex<Held>,
    /// Who has it reads.
    turn: tokio::sync::Mutex<()>,
}

/// Where keys are read from.
pub(super) enum Place {
    /// A file.
    File(PathBuf),
    /// A web server.
    Web(Box<Web>, Uri),
}

/// What is known of the keys.
#[derive(Clone, Default)]
struct Held {
    keys: Option<Arc<KeySet>>,
    /// When that was read.
    read: Option<Instant>,
    /// When reading failed last, if it did since then.
    failed: Option<Instant>,
    /// When a key was looked for last that was not there.
    missed: Option<Instant>,
    /// They are to be read before they are used again.
    is_stale: bool,
    /// How often they were read, or tried to be.
    tries: u64,
}

/// Whether keys are to be read before they are used.
#[derive(Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    /// Those there are may be used meanwhile.
    Meanwhile,
    First,
}

impl Held {
    fn need(&self, refresh: Duration, now: Instant) -> Need {
        let since = |then: Instant| now.saturating_duration_since(then);
        if self.keys.is_none() || self.is_stale {
            return Need::First;
        }
        let is_old = self.read.is_none_or(|read| since(read) >= refresh);
        let rests = self
            .failed
            .is_some_and(|at| since(at) < limits::TOKEN_KEYS_PAUSE);
        if is_old && !rests {
            Need::Meanwhile
        } else {
            Need::Nothing
        }
    }

    /// Whether the keys may be read for the sake of one that is not there; if so, it is
    /// done.
    fn may_miss(&mut self, now: Instant) -> bool {
        let pause = limits::TOKEN_KEYS_PAUSE;
        let rests = |at: Instant| now.saturating_duration_since(at) < pause;
        if self.missed.is_some_and(rests) {
            return false;
        }
        self.missed = Some(now);
        true
    }

    fn take(&mut self, read: Option<KeySet>, now: Instant) {
        self.tries += 1;
        self.is_stale = false;
        if let Some(keys) = read {
            self.keys = Some(Arc::new(keys));
            self.read = Some(now);
            self.failed = None;
        } else {
            self.failed = Some(now);
        }
    }
}

impl Keyring {
    pub(super) fn new(place: Place, label: &str, timeout: Duration, refresh: Duration) -> Self {
        Self {
            place,
            // One reads them for all.
            contact: Contact::new(label, timeout, 1),
            refresh,
            held: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// The keys, if there are any.
    pub(super) async fn keys(self: &Arc<Self>) -> Option<Arc<KeySet>> {
        let need = self.held().need(self.refresh, Instant::now());
        match need {
            Need::Nothing => {}
            Need::Meanwhile => self.read_meanwhile(),
            Need::First => self.read_once().await,
        }
        self.held().keys.clone()
    }

    /// The keys once more, where it is worth while to look for one that was not there:
    /// others than those, or `None` if it cannot be known whether there are others.
    pub(super) async fn others(self: &Arc<Self>, than: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        let may_miss = self.held().may_miss(Instant::now());
        // Whoever came a moment before may be reading the key that this one looks for.
        if may_miss || self.turn.try_lock().is_err() {
            self.read_once().await;
        }
        let held = self.held();
        let keys = held.keys.clone();
        let are_others = keys.as_ref().is_some_and(|keys| !Arc::ptr_eq(keys, than));
        keys.filter(|_| are_others || held.failed.is_none())
    }

    /// Has the keys read before they are used again.
    pub(super) fn expire(&self) {
        self.held().is_stale = true;
    }

    pub(super) fn measure(&self, metrics: &mut DirectoryMetrics) {
        self.contact.measure(metrics);
    }

    /// Reads the keys in a task of their own; to be called in a runtime.
    pub(super) fn read_meanwhile(self: &Arc<Self>) {
        let own = Arc::clone(self);
        // One at a time; the next login asks again.
        tokio::spawn(async move {
            if own.turn.try_lock().is_ok() {
                own.read_once().await;
            }
        });
    }

    /// Reads the keys, or waits for whoever does that already.
    async fn read_once(&self) {
        let before = self.held().tries;
        let _turn = self.turn.lock().await;
        if self.held().tries == before {
            // The log has been told of a failure.
            let _ = self.read().await;
        }
    }

    /// Reads the keys.
    pub(super) async fn read(&self) -> Result<Arc<KeySet>, DirectoryError> {
        let read = self.contact.ask(0, || self.fetch()).await;
        let now = Instant::now();
        match read {
            Ok(keys) => {
                self.contact.answered(true);
                let label = self.contact.label();
                tracing::info!("{label}: {keys} from {}", self.place);
                let mut held = self.held();
                held.take(Some(keys), now);
                Ok(held.keys.clone().expect("taken"))
            }
            Err(error) => {
                let mut held = self.held();
                held.take(None, now);
                let remain = if held.keys.is_some() {
                    "; the keys that were read before stay in force"
                } else {
                    "; nobody can log in by a token"
                };
                drop(held);
                if error.is_news() {
                    tracing::error!("{error}{remain}");
                }
                Err(error)
            }
        }
    }

    /// Reads the keys where that is a matter of a file. BLOCKING.
    pub(super) fn begin(&self) -> Result<bool, DirectoryError> {
        let Place::File(path) = &self.place else {
            return Ok(false);
        };
        let read = read_file(path).and_then(|text| parse(&text));
        let keys = read.map_err(|failure| self.contact.error(failure))?;
        tracing::info!("{}: {keys} from {}", self.contact.label(), self.place);
        self.held().take(Some(keys), Instant::now());
        Ok(true)
    }

    async fn fetch(&self) -> Result<KeySet, Failure> {
        let text = match &self.place {
            Place::File(path) => {
                let path = path.clone();
                let read = move || read_file(&path);
                let read = tokio::task::spawn_blocking(read).await;
                read.unwrap_or_else(|error| Err(Failure::Refused(error.to_string())))?
            }
            Place::Web(web, uri) => read_web(web, uri).await?,
        };
        parse(&text)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(text: &[u8]) -> Result<KeySet, Failure> {
    KeySet::parse(text).map_err(|fault| Failure::Refused(fault.to_string()))
}

/// BLOCKING.
fn read_file(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let most = limits::WEB_BODY;
    let refused = |error: std::io::Error| Failure::Refused(error.to_string());
    let file = std::fs::File::open(path).map_err(refused)?;
    let mut text = Vec::new();
    let read = file.take(most as u64 + 1).read_to_end(&mut text);
    read.map_err(refused)?;
    if text.len() > most {
        let why = format!("it has more than {most} octets");
        return Err(Failure::Refused(why));
    }
    Ok(text)
}

async fn read_web(web: &Web, uri: &Uri) -> Result<Vec<u8>, Failure> {
    let accepted = "application/jwk-set+json, application/json";
    let request = Request::get(uri.clone()).header(ACCEPT, accepted);
    let request = request.body(Full::default()).expect("a request");
    let answer = web.send(request).await?;
    match answer.status() {
        StatusCode::OK => Ok(answer.into_body().into()),
        status if status.is_server_error() => {
            Err(Failure::Unreachable(format!("HTTP status {status}")))
        }
        status => Err(Failure::Refused(format!("HTTP status {status}"))),
    }
}

/// The place, without any secret.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Web(_, uri) => write!(f, "{uri}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::Issuer;
    use super::*;

    const REFRESH: Duration = Duration::from_hours(1);

    fn set() -> KeySet {
        let text = json!({ "keys": [Issuer::ec("a").jwk()] }).to_string();
        KeySet::parse(text.as_bytes()).expect("keys")
    }

    #[test]
    fn keys_are_read_when_there_are_none_or_when_they_are_old() {
        let now = Instant::now();
        let mut held = Held::default();
        assert_eq!(held.need(REFRESH, now), Need::First);
        held.take(None, now);
        assert_eq!(
            held.need(REFRESH, now),
            Need::First,
            "nothing can be done without"
        );
        held.take(Some(set()), now);
        assert_eq!(held.need(REFRESH, now), Need::Nothing);
        let old = now + REFRESH;
        assert_eq!(held.need(REFRESH, old), Need::Meanwhile);
        held.take(None, old);
        assert!(held.keys.is_some(), "what was read stays");
        assert_eq!(held.need(REFRESH, old), Need::Nothing, "it rests");
        let rested = old + limits::TOKEN_KEYS_PAUSE;
        assert_eq!(held.need(REFRESH, rested), Need::Meanwhile);
        held.take(Some(set()), rested);
        assert_eq!(held.need(REFRESH, rested), Need::Nothing);
        held.is_stale = true;
        assert_eq!(
            held.need(REFRESH, rested),
            Need::First,
            "the operator wants it"
        );
        held.take(None, rested);
        assert_eq!(held.need(REFRESH, rested), Need::Nothing);
    }

    #[test]
    fn made_up_keys_have_the_keys_read_once_in_a_while() {
        let now = Instant::now();
        let mut held = Held::default();
        assert!(held.may_miss(now));
        assert!(!held.may_miss(now + limits::TOKEN_KEYS_PAUSE / 2));
        assert!(held.may_miss(now + limits::TOKEN_KEYS_PAUSE));
        assert!(!held.may_miss(now + limits::TOKEN_KEYS_PAUSE));
    }

    fn runtime() -> tokio::runtime::Runtime {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime")
    }

    #[test]
    fn a_file_is_read_again_for_a_key_that_is_new() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.json");
        let write = |issuers: &[Issuer]| {
            let keys: Vec<_> = issuers.iter().map(Issuer::jwk).collect();
            std::fs::write(&path, json!({ "keys": keys }).to_string()).expect("written");
        };
        write(&[Issuer::ec("a")]);
        let place = Place::File(path.clone());
        let ring = Keyring::new(place, "test", Duration::from_secs(5), REFRESH);
        let ring = Arc::new(ring);
        runtime().block_on(async {
            let first = ring.keys().await.expect("keys");
            assert!(Arc::ptr_eq(&first, &ring.keys().await.expect("keys")));
            write(&[Issuer::ec("a"), Issuer::ec("b")]);
            let both = ring.others(&first).await.expect("keys");
            assert_eq!(both.to_string(), "2 keys (ES256 a, ES256 b)");
            // Nobody reads for the next one so soon, and what is known is sure.
            write(&[]);
            let same = ring.others(&both).await.expect("keys");
            assert!(Arc::ptr_eq(&both, &same));
            // The operator has it read; it cannot be, and the keys stay.
            ring.expire();
            assert!(Arc::ptr_eq(&both, &ring.keys().await.expect("keys")));
            assert!(ring.others(&both).await.is_none(), "there may be others");
        });
    }

    #[test]
    fn all_who_wait_have_the_keys_read_once() {
        let place = Place::File("no/such/file".into());
        let ring = Arc::new(Keyring::new(place, "test", Duration::from_secs(5), REFRESH));
        runtime().block_on(async {
            let all = (0..50).map(|_| {
                let ring = Arc::clone(&ring);
                tokio::spawn(async move { ring.keys().await.is_none() })
            });
            for waiting in all.collect::<Vec<_>>() {
                assert!(waiting.await.expect("it ends"));
            }
        });
        assert_eq!(ring.held().tries, 1);
    }
}
