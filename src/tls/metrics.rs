//! Certificates in the metrics.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::keeper::{Keeper, Shown};

/// What a monitoring system is told of the certificates.
#[derive(Debug)]
pub struct CertificateMetrics(Arc<Shown>);

impl CertificateMetrics {
    /// Those of `keeper`, now and later.
    pub fn of(keeper: &Keeper) -> CertificateMetrics {
        CertificateMetrics(Arc::clone(keeper.shown()))
    }
}

impl Collector for CertificateMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let facts = self.0.facts();
        let now = SystemTime::now();
        let (help, name) = (
            "Days until a certificate expires",
            "tls_certificate_days_left",
        );
        let mut days = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for certificate in &facts {
            let labels = [("certificate", certificate.chain.display().to_string())];
            let left = ConstGauge::new(certificate.days_left(now));
            left.encode(days.encode_family(&labels)?)?;
        }
        let (help, name) = (
            "Handshakes that a certificate was chosen for",
            "tls_certificate_served",
        );
        let mut served = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (at, certificate) in facts.iter().enumerate() {
            let labels = [("certificate", certificate.chain.display().to_string())];
            let count = ConstCounter::new(self.0.served(at));
            count.encode(served.encode_family(&labels)?)?;
        }
        let (help, name) = (
            "Changed files of certificates and keys by result",
            "tls_reloads",
        );
        let mut reloads = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (result, count) in [("loaded", &self.0.loaded), ("refused", &self.0.refused)] {
            let count = ConstCounter::new(count.load(Ordering::Relaxed));
            count.encode(reloads.encode_family(&[("result", result)])?)?;
        }
        Ok(())
    }
}
