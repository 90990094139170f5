//! Who verifies bearer tokens: the keys of their issuer, or the issuer itself.
//!
//! A token proves a name, as a certificate does; what a directory knows of that user
//! (home, networks, whether the account is disabled) is looked up after that, and a token
//! of somebody whom no directory knows lets nobody in.
//!
//! Invariants: an issuer that cannot be asked says nothing about a token, and a login that
//! meets this is [`Refusal::Unavailable`](super::Refusal::Unavailable), never refused; no
//! token is printed, nor anything of one that nobody has vouched for; what is remembered
//! of a good token ends with it.
//!
//! Everything here runs on the look-up thread. A signature is verified there in some ten
//! microseconds, less than what a look-up costs.

mod claims;
mod introspection;
mod keyring;
mod keys;
mod probe;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hyper::Uri;

use self::claims::Claims;
use self::introspection::Introspection;
use self::keyring::{Keyring, Place};
use self::keys::Unsigned;
pub use self::probe::{OauthProbe, probe_oauth};
use super::remote::{Contact, DirectoryMetrics, Trust, Web};
use super::{DirectoryError, NameRules, Secret, Token, UserName};
use crate::limits;

/// How the log and the metrics name it.
const LABEL: &str = "auth.oauth";

/// `[auth.oauth]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthOptions {
    /// By what tokens are verified.
    pub source: OauthSource,
    /// How long a login waits for it, further tries included.
    pub timeout: Duration,
    /// Who has to have issued them.
    pub issuer: Option<Box<str>>,
    /// For whom they have to be: one of these; empty: for anybody.
    pub audience: Vec<Box<str>>,
    /// The claim that names the user.
    pub user_claim: Box<str>,
    /// What they have to be good for, with spaces between; may be empty.
    pub scope: Box<str>,
    /// By how much clocks may differ.
    pub leeway: Duration,
    /// Where clients learn how to get one.
    pub configuration: Option<Box<str>>,
    /// What becomes of the name in them.
    pub names: NameRules,
}

/// By what tokens are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OauthSource {
    /// The issuer's keys, in a file.
    File {
        /// The file.
        path: PathBuf,
        /// After what time it is read again.
        refresh: Duration,
    },
    /// The issuer's keys, on a web server.
    Web {
        /// Where they are.
        uri: Uri,
        /// Whose certificate it may show.
        trust: Trust,
        /// After what time they are read again.
        refresh: Duration,
    },
    /// The issuer, who is asked about each.
    Introspection {
        /// Where it is asked.
        uri: Uri,
        /// Whose certificate it may show.
        trust: Trust,
        /// The name of popcore there.
        client: Box<str>,
        /// The password to it.
        secret: Secret,
    },
}

impl OauthSource {
    /// Whether a token without an end is none: its signature would be good for ever.
    fn wants_an_end(&self) -> bool {
        !matches!(self, Self::Introspection { .. })
    }
}

/// Who verifies tokens.
pub(super) struct Authority {
    options: OauthOptions,
    verifier: Verifier,
}

enum Verifier {
    Keys(Arc<Keyring>),
    Service(Box<Introspection>),
}

/// What is known of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the user's, until then.
    Good(Option<Instant>),
    /// It is not.
    Bad,
    /// Nobody knows.
    Unanswered,
}

impl Authority {
    /// Reads keys from a file, or begins to read them from elsewhere. To be called in the
    /// look-up runtime's context. BLOCKING.
    pub(super) fn open(options: &OauthOptions) -> Result<Self, DirectoryError> {
        let authority = Self::new(options);
        if let Verifier::Keys(ring) = &authority.verifier
            && !ring.begin()?
        {
            ring.read_meanwhile();
        }
        Ok(authority)
    }

    fn new(options: &OauthOptions) -> Self {
        let keyring = |place, refresh: Duration| {
            let ring = Keyring::new(place, LABEL, options.timeout, refresh);
            Verifier::Keys(Arc::new(ring))
        };
        let verifier = match &options.source {
            OauthSource::File { path, refresh } => keyring(Place::File(path.clone()), *refresh),
            OauthSource::Web {
                uri,
                trust,
                refresh,
            } => keyring(
                Place::Web(Box::new(Web::new(trust.client(), 1)), uri.clone()),
                *refresh,
            ),
            OauthSource::Introspection {
                uri,
                trust,
                client,
                secret,
            } => {
                let contact = Contact::new(LABEL, options.timeout, limits::INTROSPECTIONS);
                let service = Introspection::new(uri, trust, client, secret, contact);
                Verifier::Service(Box::new(service))
            }
        };
        Self {
            options: options.clone(),
            verifier,
        }
    }

    /// Whether a token is this user's, who is in the network of that number.
    pub(super) async fn check(&self, token: &Token, user: &UserName, origin: u64) -> Verdict {
        let claims = match &self.verifier {
            Verifier::Keys(ring) => signed(ring, token).await,
            Verifier::Service(service) => match service.ask(token, origin).await {
                Ok(Some(claims)) => Ok(claims),
                Ok(None) => Err(Unproved::Bad(
                    "its issuer says that it is not active".to_owned(),
                )),
                Err(error) => {
                    if error.is_news() {
                        tracing::error!(%user, "login by a token not possible now: {error}");
                    }
                    Err(Unproved::Unanswered)
                }
            },
        };
        let judged = match claims {
            Ok(claims) => {
                let judged = self.options.judge(&claims, user, SystemTime::now());
                judged.map_err(|unfit| unfit.to_string())
            }
            Err(Unproved::Bad(why)) => Err(why),
            Err(Unproved::Unanswered) => return Verdict::Unanswered,
        };
        match judged {
            Ok(left) => {
                // A token that is good for longer than the process runs has no end.
                let end = left.and_then(|left| Instant::now().checked_add(left));
                Verdict::Good(end)
            }
            Err(why) => {
                tracing::info!(%user, "token refused: {why}");
                Verdict::Bad
            }
        }
    }

    /// Has keys read before they are used again.
    pub(super) fn expire(&self) {
        if let Verifier::Keys(ring) = &self.verifier {
            ring.expire();
        }
    }

    pub(super) fn measure(&self, metrics: &mut DirectoryMetrics) {
        match &self.verifier {
            Verifier::Keys(ring) => ring.measure(metrics),
            Verifier::Service(service) => service.contact().measure(metrics),
        }
    }
}

/// Why nothing is known that a token says.
enum Unproved {
    Bad(String),
    Unanswered,
}

/// What a token says of itself, if its issuer has signed it.
async fn signed(ring: &Arc<Keyring>, token: &Token) -> Result<Claims, Unproved> {
    let keys = ring.keys().await.ok_or(Unproved::Unanswered)?;
    let said = match keys.verify(token) {
        Err(Unsigned::UnknownKey) => {
            let others = ring.others(&keys).await;
            others.ok_or(Unproved::Unanswered)?.verify(token)
        }
        said => said,
    };
    said.map_err(|why| Unproved::Bad(why.to_string()))
}

#[cfg(test)]
mod tests;
