//! Metrics in the text form of `OpenMetrics`, which Prometheus and its kin read.
//!
//! Shards are merged when somebody asks. Sessions alone carry a shard label:
//! they show whether the kernel spreads connections evenly; a shard label on
//! every series would multiply what a monitoring system has to store by the
//! number of cores.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::EncodeMetric;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::counters::{Counter, Family, Label, ShardCounters, ShardWriter};
use super::histogram::{Distribution, Histogram};

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    shards: Arc<Shards>,
}

impl Metrics {
    /// Counters for so many shards, with the writing half of each.
    pub fn new(shards: usize) -> (Self, Vec<ShardWriter>) {
        let counters: Vec<_> = (0..shards)
            .map(|_| Arc::<ShardCounters>::default())
            .collect();
        let writers = counters.iter().cloned().map(ShardWriter::new).collect();
        let shards = Arc::new(Shards(counters));
        let mut metrics = Self {
            registry: Registry::with_prefix("popcore"),
            shards: Arc::clone(&shards),
        };
        metrics.register(shards);
        (metrics, writers)
    }

    /// Adds what another part of the process counts. Names get the prefix
    /// `popcore_`.
    pub fn register(&mut self, collector: impl Collector) {
        self.registry.register_collector(Box::new(collector));
    }

    /// Adds a counter that a function reads: `name` without prefix and `_total`.
    pub fn register_counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.register(Function {
            name,
            help,
            kind: MetricType::Counter,
            read: Box::new(read),
        });
    }

    /// Adds a gauge that a function reads: `name` without prefix.
    pub fn register_gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        self.register(Function {
            name,
            help,
            kind: MetricType::Gauge,
            read: Box::new(read),
        });
    }

    /// The text of a scrape.
    pub fn expose(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes every write");
        text
    }

    /// The counters of each shard, in the order of shards.
    pub fn shards(&self) -> &[Arc<ShardCounters>] {
        &self.shards.0
    }
}

/// A counter or gauge behind a function.
struct Function {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    read: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Collector for Function {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let value = (self.read)();
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, self.kind)?;
        match self.kind {
            MetricType::Gauge => metric.encode_gauge(&value),
            _ => metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
        }
    }
}

#[derive(Debug)]
struct Shards(Vec<Arc<ShardCounters>>);

impl Collector for Shards {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut encoder;
        self.sessions(out)?;
        self.family(
            out,
            "sessions_ended",
            "Sessions by how they ended",
            "reason",
            |s| &s.ended,
        )?;
        self.family(out, "commands", "Commands answered", "verb", |s| {
            &s.commands
        })?;
        let help = "Lines that were no command, or one that state or arguments forbid";
        self.counter(out, "command_errors", help, |s| &s.command_errors)?;
        self.family(out, "logins", "Logins by result", "result", |s| &s.logins)?;
        let help = "TLS handshakes by result";
        self.family(out, "tls_handshakes", help, "result", |s| &s.tls_handshakes)?;
        let help = "Sessions whose TLS records the kernel makes";
        self.counter(out, "tls_kernel_sessions", help, |s| &s.tls_handed)?;
        self.family(out, "messages_sent", "Messages sent", "command", |s| {
            &s.messages
        })?;
        let help = "Octets of messages sent, as RFC 1939 counts them";
        self.family(out, "message_octets_sent", help, "command", |s| {
            &s.message_octets
        })?;
        let help = "Messages removed at QUIT";
        self.counter(out, "messages_deleted", help, |s| &s.deleted_messages)?;
        let help = "Octets of messages removed at QUIT";
        self.counter(out, "message_octets_deleted", help, |s| &s.deleted_octets)?;
        let help = "Connections that could not be accepted";
        self.family(out, "accept_errors", help, "kind", |s| &s.accept_errors)?;
        let help = "Times a listener stopped accepting for a while";
        self.counter(out, "listener_backoffs", help, |s| &s.listener_backoffs)?;
        let help = "Limits that were reached";
        self.family(out, "limits_reached", help, "limit", |s| &s.limits)?;
        let help = "From a complete command line to its answer";
        self.histogram(out, "command_latency", help, |s| &s.command_latency)?;
        let help = "From PASS to its answer, failure delays not included";
        self.histogram(out, "login_latency", help, |s| &s.login_latency)?;
        let help = "From a session's connection to its end";
        self.histogram(out, "session_length", help, |s| &s.session_length)
    }
}

impl Shards {
    fn sessions(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Sessions opened";
        let mut opened =
            out.encode_descriptor("sessions_opened", help, None, MetricType::Counter)?;
        for (shard, counters) in self.0.iter().enumerate() {
            let labels = [("shard", shard)];
            ConstCounter::new(counters.opened()).encode(opened.encode_family(&labels)?)?;
        }
        let help = "Sessions that are open";
        let mut active = out.encode_descriptor("sessions_active", help, None, MetricType::Gauge)?;
        for (shard, counters) in self.0.iter().enumerate() {
            let labels = [("shard", shard)];
            ConstGauge::new(counters.active()).encode(active.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counter(
        &self,
        out: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        of: impl Fn(&ShardCounters) -> &Counter,
    ) -> fmt::Result {
        let total: u64 = self.0.iter().map(|shard| of(shard).get()).sum();
        let metric = out.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(total).encode(metric)
    }

    fn family<L: Label>(
        &self,
        out: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        key: &str,
        of: impl Fn(&ShardCounters) -> &Family<L>,
    ) -> fmt::Result {
        let mut metric = out.encode_descriptor(name, help, None, MetricType::Counter)?;
        for label in L::all() {
            let total: u64 = self.0.iter().map(|shard| of(shard).get(*label)).sum();
            let labels = [(key, label.name())];
            ConstCounter::new(total).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn histogram<const UNIT: u64>(
        &self,
        out: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        of: impl Fn(&ShardCounters) -> &Histogram<UNIT>,
    ) -> fmt::Result {
        let mut total = Distribution::<UNIT>::default();
        for shard in &self.0 {
            of(shard).merge_into(&mut total);
        }
        let buckets: Vec<_> = total
            .buckets()
            .map(|(bound, count)| (bound.map_or(f64::INFINITY, |b| b.as_secs_f64()), count))
            .collect();
        let mut metric =
            out.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        let sum = total.sum().as_secs_f64();
        metric.encode_histogram::<NoLabelSet>(sum, total.count(), &buckets, None)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::{Ending, LoginResult, Sending, Verb};

    fn value(text: &str, series: &str) -> String {
        let line = text.lines().find(|line| {
            line.strip_prefix(series)
                .is_some_and(|rest| rest.starts_with(' '))
        });
        let line = line.unwrap_or_else(|| panic!("no series {series} in\n{text}"));
        line[series.len() + 1..].to_owned()
    }

    #[test]
    fn shards_are_merged_and_sessions_told_apart() {
        let (metrics, writers) = Metrics::new(2);
        for writer in &writers {
            writer.session_opened();
            writer.command(Verb::Retr, Duration::from_micros(100));
            writer.message(Sending::Retr, 1000);
            writer.login(LoginResult::Rejected, Duration::from_millis(3));
        }
        writers[1].session_opened();
        writers[1].session_ended(Ending::Quit, Duration::from_secs(2));
        writers[0].deleted(2, 500);
        let text = metrics.expose();
        for (series, expected) in [
            ("popcore_sessions_opened_total{shard=\"0\"}", "1"),
            ("popcore_sessions_opened_total{shard=\"1\"}", "2"),
            ("popcore_sessions_active{shard=\"1\"}", "1"),
            ("popcore_sessions_ended_total{reason=\"quit\"}", "1"),
            ("popcore_commands_total{verb=\"RETR\"}", "2"),
            ("popcore_commands_total{verb=\"DELE\"}", "0"),
            (
                "popcore_message_octets_sent_total{command=\"retr\"}",
                "2000",
            ),
            ("popcore_messages_deleted_total", "2"),
            ("popcore_logins_total{result=\"rejected\"}", "2"),
            ("popcore_login_latency_seconds_count", "2"),
            ("popcore_login_latency_seconds_bucket{le=\"0.004096\"}", "2"),
            ("popcore_login_latency_seconds_bucket{le=\"0.002048\"}", "0"),
            ("popcore_login_latency_seconds_bucket{le=\"+Inf\"}", "2"),
            ("popcore_session_length_seconds_sum", "2.0"),
        ] {
            assert_eq!(value(&text, series), expected, "{series}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn another_part_adds_its_own_counter() {
        let (mut metrics, _) = Metrics::new(1);
        metrics.register_counter("log_lines_dropped", "Log lines dropped", || 7);
        let text = metrics.expose();
        assert_eq!(value(&text, "popcore_log_lines_dropped_total"), "7");
    }
}
