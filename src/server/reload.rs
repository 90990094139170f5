//! The rules for sessions, from a configuration and, at a reload, from its file again.
//!
//! A reload is whole or is not: where the file or the list of networks that it names is
//! faulty, each fault is told and what was in force stays.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::throttle::Delays;
use crate::auth::{Broker, ListError, NetworkSet, OauthOptions};
use crate::config::{Config, Reloadable};
use crate::conn::{CurrentRules, Rules};
use crate::sasl::TokenTerms;
use crate::session::{LoginDelay, Policy};

/// The rules that a configuration asks for. BLOCKING: it reads the block list.
fn rules(config: &Config) -> Result<Rules, ListError> {
    let limits = &config.limits;
    let delay = LoginDelay {
        usual: limits.visits.login_delay,
        longest: limits.visits.longest_delay(),
    };
    let policy = Policy {
        hostname: config.server.hostname.clone(),
        plaintext_without_tls: config.auth.plaintext_without_tls,
        names: config.auth.names.clone(),
        mechanisms: config.auth.mechanisms,
        apop: config.auth.apop,
        tokens: config.auth.oauth.as_ref().map(terms).unwrap_or_default(),
        idle: limits.idle,
        login: limits.login,
        failure_delay: config.auth.failure_delay,
        login_delay: (!delay.longest.is_zero()).then_some(delay),
        retention: config.maildrop.rules.retention,
    };
    let exempt_policy = Policy {
        failure_delay: Duration::ZERO,
        login_delay: None,
        ..policy.clone()
    };
    let blocked = limits.block_list.as_deref().map(NetworkSet::load);
    Ok(Rules {
        policy: Arc::new(policy),
        exempt_policy: Arc::new(exempt_policy),
        sessions: limits.sessions,
        delays: Delays {
            first: config.auth.failure_delay,
            longest: limits.longest_failure_delay,
            address: limits.sessions.address,
            network: limits.network,
        },
        visits: limits.visits,
        exempt: Arc::new(limits.exempt.iter().copied().collect()),
        blocked: Arc::new(blocked.transpose()?.unwrap_or_default()),
    })
}

/// What clients are told of tokens.
fn terms(oauth: &OauthOptions) -> TokenTerms {
    TokenTerms {
        scope: oauth.scope.clone(),
        configuration: oauth.configuration.clone(),
    }
}

/// The same in a slot for each shard. BLOCKING.
pub(super) fn for_shards(
    config: &Config,
    shards: usize,
) -> Result<Vec<Arc<CurrentRules>>, ListError> {
    let rules = Arc::new(rules(config)?);
    let slot = |_| Arc::new(CurrentRules::new(Arc::clone(&rules)));
    Ok((0..shards).map(slot).collect())
}

/// What of a configuration is not in the rules.
pub(super) fn set(broker: &Broker, config: &Config) {
    broker.set_terms(config.auth.cache);
    broker.set_networks(config.limits.network);
}

/// Reads the file of a configuration again and puts what it says into force.
pub(super) fn reload(config: &mut Config, shards: &[Arc<CurrentRules>], broker: &Broker) {
    let read = match Reloadable::load(&config.file) {
        Ok(read) => read,
        Err(errors) => {
            for error in errors.iter() {
                tracing::error!("{error}");
            }
            tracing::error!("the limits that were in force stay");
            return;
        }
    };
    if config.reloadable() == read && read.limits.block_list.is_none() {
        return;
    }
    let mut fresh = config.clone();
    fresh.limits = read.limits;
    fresh.auth.failure_delay = read.failure_delay;
    fresh.auth.cache = read.cache;
    match rules(&fresh) {
        Ok(rules) => {
            let (blocked, rules) = (rules.blocked.len(), Arc::new(rules));
            for shard in shards {
                shard.set(Arc::clone(&rules));
            }
            set(broker, &fresh);
            *config = fresh;
            tracing::info!(blocked, "limits are those of {}", config.file.display());
        }
        Err(error) => tracing::error!("{error}; the limits that were in force stay"),
    }
}
