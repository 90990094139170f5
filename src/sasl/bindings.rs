//! What ties an exchange to the TLS connection that it goes through (RFC 5056), so
//! that nobody who relays it can use it.

use std::fmt;

use zeroize::Zeroizing;

/// The channel bindings of one connection, none where it has no TLS.
#[derive(Clone, Default)]
pub struct Bindings {
    /// `tls-exporter` (RFC 9266), with TLS 1.3.
    pub exporter: Option<Zeroizing<[u8; 32]>>,
    /// `tls-server-end-point` (RFC 5929, section 4): the digest of the certificate
    /// that the server has shown on this connection.
    pub end_point: Option<Box<[u8]>>,
}

impl Bindings {
    /// Whether there is one.
    pub fn is_bound(&self) -> bool {
        self.exporter.is_some() || self.end_point.is_some()
    }

    /// The data of the binding of this name.
    pub fn named(&self, name: &str) -> Option<&[u8]> {
        match name {
            "tls-exporter" => self.exporter.as_ref().map(|exporter| &exporter[..]),
            "tls-server-end-point" => self.end_point.as_deref(),
            _ => None,
        }
    }
}

impl fmt::Debug for Bindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bindings")
            .field("exporter", &self.exporter.is_some())
            .field("end_point", &self.end_point.is_some())
            .finish()
    }
}
