//! What of an address counts as one network, and numbers for networks that nobody can
//! foretell.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::auth::Prefixes;

/// Networks in whose names logins take turns.
pub(super) struct Networks {
    /// [`Prefixes`], one in each octet.
    prefixes: AtomicU16,
    hasher: RandomState,
}

impl Networks {
    pub(super) fn new() -> Self {
        let networks = Self {
            prefixes: AtomicU16::default(),
            hasher: RandomState::new(),
        };
        networks.set(Prefixes::NETWORK);
        networks
    }

    /// Networks are of these sizes from now on.
    pub(super) fn set(&self, to: Prefixes) {
        let both = u16::from_be_bytes([to.v4, to.v6]);
        self.prefixes.store(both, Ordering::Relaxed);
    }

    pub(super) fn number(&self, of: IpAddr) -> u64 {
        let [v4, v6] = self.prefixes.load(Ordering::Relaxed).to_be_bytes();
        self.hasher.hash_one(Prefixes { v4, v6 }.of(of))
    }
}
