//! What the operator decided and may decide anew while the server runs.
//!
//! Each shard has a slot of its own with the rules in force. A new session takes them
//! from there, which is a lock that nobody else wants but a reload.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::auth::throttle::Delays;
use crate::auth::{NetworkSet, Prefixes};
use crate::session::Policy;
use crate::shard::admission::{SessionLimits, VisitLimits};

/// Rules for sessions, whole and unchanging; a reload makes others.
#[derive(Clone, Debug)]
pub struct Rules {
    /// For every session.
    pub policy: Arc<Policy>,
    /// For those of networks that are exempt.
    pub exempt_policy: Arc<Policy>,
    /// How many sessions there may be.
    pub sessions: SessionLimits,
    /// How long logins wait for those that failed.
    pub delays: Delays,
    /// How often users may come.
    pub visits: VisitLimits,
    /// Who has no limits and no delays.
    pub exempt: Arc<NetworkSet>,
    /// Who is not let in.
    pub blocked: Arc<NetworkSet>,
}

/// The rules in force on one shard.
#[derive(Debug)]
pub struct CurrentRules(Mutex<Arc<Rules>>);

impl Rules {
    /// No limits and no delays but those of the session itself.
    pub fn unlimited(policy: Policy) -> Self {
        let policy = Arc::new(policy);
        Self {
            exempt_policy: Arc::clone(&policy),
            policy,
            sessions: SessionLimits::NONE,
            delays: Delays {
                first: std::time::Duration::ZERO,
                longest: std::time::Duration::ZERO,
                address: Prefixes::ADDRESS,
                network: Prefixes::NETWORK,
            },
            visits: VisitLimits::NONE,
            exempt: Arc::default(),
            blocked: Arc::default(),
        }
    }

    /// Whether there are no limits and no delays for this address.
    pub fn exempts(&self, address: IpAddr) -> bool {
        self.exempt.contains(address)
    }

    /// What a session from this address goes by.
    pub fn policy_for(&self, address: IpAddr) -> &Arc<Policy> {
        if self.exempts(address) {
            &self.exempt_policy
        } else {
            &self.policy
        }
    }
}

impl CurrentRules {
    /// A slot with these rules in it.
    pub fn new(rules: Arc<Rules>) -> Self {
        Self(Mutex::new(rules))
    }

    /// The rules in force.
    pub fn get(&self) -> Arc<Rules> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts others into force, for sessions and logins to come.
    pub fn set(&self, rules: Arc<Rules>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *held, rules);
        drop(held);
        // Perhaps the last of them: a list of networks is freed outside the lock.
        drop(before);
    }
}
