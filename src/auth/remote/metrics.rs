//! What directories that are away did, as metrics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::renewal::Renewed;
use crate::auth::directory::Failure;

/// What has become of the look-ups of one directory. Read with relaxed order.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Names that it knew.
    pub(super) known: AtomicU64,
    /// Names that it did not know, and passwords that it turned down.
    pub(super) unknown: AtomicU64,
    /// Look-ups that it did not answer.
    pub(super) failed: AtomicU64,
    /// Look-ups that waited in vain for a place.
    pub(super) crowded: AtomicU64,
    /// Look-ups that it was spared because it had failed before.
    pub(super) spared: AtomicU64,
    /// 1 while it is left in peace.
    pub(super) suspended: AtomicU64,
    /// Stored passwords that were replaced.
    renewed: AtomicU64,
    /// Those that somebody else had changed meanwhile.
    renewal_overtaken: AtomicU64,
    /// Those that could not be.
    renewal_failed: AtomicU64,
    /// Those for which there was no time.
    renewal_given_up: AtomicU64,
}

impl Counters {
    pub(super) fn count_renewal(&self, renewed: &Result<Renewed, Failure>) {
        let counter = match renewed {
            Ok(Renewed::Stored) => &self.renewed,
            Ok(Renewed::Changed) => &self.renewal_overtaken,
            Ok(Renewed::Unfit(_)) | Err(_) => &self.renewal_failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_renewal_given_up(&self) {
        self.renewal_given_up.fetch_add(1, Ordering::Relaxed);
    }
}

/// The metrics of all directories that are away, by their names in the configuration.
#[derive(Debug, Clone, Default)]
pub struct DirectoryMetrics(Vec<(Box<str>, Arc<Counters>)>);

impl DirectoryMetrics {
    pub(super) fn add(&mut self, label: &str, counters: &Arc<Counters>) {
        self.0.push((label.into(), Arc::clone(counters)));
    }
}

impl Collector for DirectoryMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Look-ups in directories that are away, by what came of them";
        let counter = MetricType::Counter;
        let mut lookups = encoder.encode_descriptor("directory_lookups", help, None, counter)?;
        for (label, counters) in &self.0 {
            for (result, counter) in [
                ("known", &counters.known),
                ("unknown", &counters.unknown),
                ("failed", &counters.failed),
                ("crowded", &counters.crowded),
                ("spared", &counters.spared),
            ] {
                let labels = [("directory", &**label), ("result", result)];
                let counter = ConstCounter::new(counter.load(Ordering::Relaxed));
                counter.encode(lookups.encode_family(&labels)?)?;
            }
        }
        let help = "Weak stored passwords to be replaced, by what came of them";
        let mut rehashes = encoder.encode_descriptor("directory_rehashes", help, None, counter)?;
        for (label, counters) in &self.0 {
            for (result, counter) in [
                ("stored", &counters.renewed),
                ("overtaken", &counters.renewal_overtaken),
                ("failed", &counters.renewal_failed),
                ("given_up", &counters.renewal_given_up),
            ] {
                let labels = [("directory", &**label), ("result", result)];
                let counter = ConstCounter::new(counter.load(Ordering::Relaxed));
                counter.encode(rehashes.encode_family(&labels)?)?;
            }
        }
        let help = "Whether a directory is left in peace because it failed";
        let gauge = MetricType::Gauge;
        let mut open = encoder.encode_descriptor("directory_suspended", help, None, gauge)?;
        for (label, counters) in &self.0 {
            let labels = [("directory", &**label)];
            let gauge = ConstGauge::new(counters.suspended.load(Ordering::Relaxed));
            gauge.encode(open.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
