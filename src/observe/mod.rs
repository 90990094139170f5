//! What operators see: counters, latencies, log lines.
//!
//! Counting must cost a shard nothing it shares: a shard writes its own cache
//! lines with plain loads and stores, and whoever reads merges. Logging must
//! never make a shard wait for a disk: a line is copied into a bounded buffer, and
//! one that finds it full is dropped and counted.

mod counters;
mod histogram;
mod log;
mod metrics;
mod session_log;
mod sparing;
mod spool;

pub use counters::{
    AcceptError, Ending, Limit, LoginResult, Sending, ShardCounters, ShardWriter, TlsResult, Verb,
};
pub use histogram::{Distribution, Histogram};
pub use log::{Log, LogError, LogLevel, LogOptions, LogTarget, start as start_log};
pub use metrics::Metrics;
pub use session_log::{
    FailedLogin, LoginFault, Master, SESSION_TARGET, SessionEnd, SessionId, SessionIds, Tally,
    Vouched, Where,
};
pub use sparing::Sparing;
