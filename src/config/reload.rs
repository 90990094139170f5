//! What a reload reads: `[limits]`, and of `[auth]` the delay and the cache.
//!
//! The other sections are not looked at. They stand for what is there already (sockets,
//! threads, the user), and some of what they name is not readable any more by the user
//! that root became.

use std::path::Path;
use std::time::Duration;

use super::file::{File, Section};
use super::{Config, ConfigErrors, LimitOptions, folder_of, limits, server, text};
use crate::auth::Terms;

/// What takes effect without a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloadable {
    /// `[limits]`
    pub limits: LimitOptions,
    /// `auth.failure_delay`
    pub failure_delay: Duration,
    /// `auth.cache_ttl` and its kin.
    pub cache: Terms,
}

impl Reloadable {
    /// Reads it from a configuration file. BLOCKING.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = text(path)?;
        let file = File::new(path, &text);
        let read = read(&file, path);
        match (ConfigErrors::gather(file.into_errors()), read) {
            (None, Some(read)) => Ok(read),
            (Some(errors), _) => Err(errors),
            (None, None) => unreachable!("it is withheld only with a reason"),
        }
    }
}

impl Config {
    /// The part of it that a reload may change.
    pub fn reloadable(&self) -> Reloadable {
        Reloadable {
            limits: self.limits.clone(),
            failure_delay: self.auth.failure_delay,
            cache: self.auth.cache,
        }
    }
}

fn read(file: &File<'_>, path: &Path) -> Option<Reloadable> {
    let mut root = file.root()?;
    let mut auth = root.table("auth");
    let (failure_delay, cache) = (failure_delay(&mut auth), cache(&mut auth));
    let limits = limits::limits(root.table("limits"), &folder_of(path));
    Some(Reloadable {
        limits: limits?,
        failure_delay: failure_delay?,
        cache: cache?,
    })
}

/// `auth.failure_delay`
pub(super) fn failure_delay(auth: &mut Section<'_>) -> Option<Duration> {
    server::period(auth, "failure_delay", Duration::from_secs(2))
}

/// `auth.cache_ttl`, `auth.cache_negative_ttl` and `auth.cache_stale`
pub(super) fn cache(auth: &mut Section<'_>) -> Option<Terms> {
    let usual = Terms::default();
    let good = server::period(auth, "cache_ttl", usual.good);
    let bad = server::period(auth, "cache_negative_ttl", usual.bad);
    let stale = server::period(auth, "cache_stale", usual.stale);
    Some(Terms {
        good: good?,
        bad: bad?,
        stale: stale?,
    })
}
