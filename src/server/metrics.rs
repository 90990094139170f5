//! What each part of the process counts, gathered for the administrator's listener.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::auth::CacheCounts;
use crate::conn::Services;
use crate::maildrop;
use crate::observe::{Log, Metrics, ShardWriter};
use crate::ring;

/// A ring's counter: its metric, what it is, and how it is read.
type RingMetric = (&'static str, &'static str, fn(&ring::Counters) -> u64);

const RING_METRICS: [RingMetric; 8] = [
    (
        "ring_enters",
        "System calls into the shards' rings",
        ring::Counters::enters,
    ),
    (
        "ring_completions",
        "Operations of the shards' rings that ended",
        ring::Counters::completions,
    ),
    (
        "ring_queue_full",
        "Operations that waited for room in a ring's submission queue",
        ring::Counters::queue_full,
    ),
    (
        "ring_buffers_exhausted",
        "Receives that found no provided buffer and were started again",
        ring::Counters::buffers_exhausted,
    ),
    (
        "ring_overflows",
        "Turns that found a ring's completion queue overflown",
        ring::Counters::overflows,
    ),
    (
        "ring_ended_early",
        "Accepts and receives that the kernel ended by itself and that were started again",
        ring::Counters::ended_early,
    ),
    (
        "ring_throttled",
        "Clients held back because they sent further ahead than they may",
        ring::Counters::throttled,
    ),
    (
        "ring_cancelled",
        "Operations given up before they ended",
        ring::Counters::cancelled,
    ),
];

/// A counter of maildrops: its metric, what it is, and how it is read.
type MaildropMetric = (&'static str, &'static str, fn(&maildrop::Counters) -> u64);

const MAILDROP_METRICS: [MaildropMetric; 5] = [
    (
        "index_damaged",
        "Indexes of maildrops that were found damaged and made anew",
        maildrop::Counters::damaged,
    ),
    (
        "index_unwritten",
        "Indexes and cutoffs of maildrops that could not be written",
        maildrop::Counters::unwritten,
    ),
    (
        "message_sizes_corrected",
        "Messages whose size was not what name or index said",
        maildrop::Counters::corrected,
    ),
    (
        "messages_expired",
        "Messages removed because they had been kept long enough",
        maildrop::Counters::expired,
    ),
    (
        "uidl_guard_refusals",
        "Logins refused because most unique-ids would have changed",
        maildrop::Counters::guarded,
    ),
];

/// A counter of the cache of logins: its metric, what it is, and how it is read.
type CacheMetric = (&'static str, &'static str, fn(&CacheCounts) -> u64);

const CACHE_METRICS: [CacheMetric; 4] = [
    ("auth_cache_good", "Good logins that were known", |counts| {
        counts.good
    }),
    ("auth_cache_bad", "Bad logins that were known", |counts| {
        counts.bad
    }),
    (
        "auth_cache_stale",
        "Good logins that were known while a directory did not answer",
        |counts| counts.stale,
    ),
    (
        "auth_cache_hashes",
        "Slow hashes that were known and not computed again",
        |counts| counts.hashes,
    ),
];

/// The counters of each shard's ring.
pub(super) type Rings = Arc<[Arc<ring::Counters>]>;

pub(super) fn metrics(
    log: &Log,
    services: &Arc<Services>,
    rings: &Rings,
) -> (Metrics, Vec<ShardWriter>) {
    let (mut metrics, writers) = Metrics::new(rings.len());
    for (name, help, read) in RING_METRICS {
        let rings = Arc::clone(rings);
        let sum = move || rings.iter().map(|counters| read(counters)).sum();
        metrics.register_counter(name, help, sum);
    }
    let dropped = "Log lines that found the log's queue full";
    metrics.register_counter("log_lines_dropped", dropped, log.dropped());
    let own = Arc::clone(services);
    let full = "Logins refused because the queue before the auth threads was full";
    metrics.register_counter("auth_queue_full", full, move || {
        let counters = own.broker.counters();
        counters.rejected_full.load(Ordering::Relaxed)
    });
    let own = Arc::clone(services);
    let waiting = "Logins that wait for an auth thread";
    metrics.register_gauge("auth_queue_length", waiting, move || {
        own.broker.queue_length() as u64
    });
    metrics.register(services.broker.directories());
    for (name, help, read) in CACHE_METRICS {
        let own = Arc::clone(services);
        metrics.register_counter(name, help, move || read(&own.broker.cached()));
    }
    let own = Arc::clone(services);
    let octets = "Octets of memory that cached snapshots of maildrops take";
    metrics.register_gauge("snapshot_cache_bytes", octets, move || {
        own.maildrops.cache().memory() as u64
    });
    for (name, help, read) in MAILDROP_METRICS {
        let counters = Arc::clone(services.maildrops.counters());
        metrics.register_counter(name, help, move || read(&counters));
    }
    (metrics, writers)
}
