//! Whose certificates a directory may show.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// The authorities that are believed.
#[derive(Clone, PartialEq, Eq)]
pub struct Trust(Option<Arc<[CertificateDer<'static>]>>);

impl Trust {
    /// Those that the system believes.
    pub const SYSTEM: Self = Self(None);

    /// Those in a file of PEM. BLOCKING.
    pub fn read(path: &Path) -> Result<Self, String> {
        let found =
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let found = found.map_err(|error| error.to_string())?;
        if found.is_empty() {
            return Err("there is no certificate in it".to_owned());
        }
        let mut store = RootCertStore::empty();
        for certificate in &found {
            let added = store.add(certificate.clone());
            added.map_err(|error| error.to_string())?;
        }
        Ok(Self(Some(found.into())))
    }

    /// What a client of TLS is set up with.
    pub(in crate::auth) fn client(&self) -> ClientConfig {
        let mut store = RootCertStore::empty();
        match &self.0 {
            Some(own) => store.add_parsable_certificates(own.iter().cloned()),
            // Without any, each handshake says that nobody is believed.
            None => store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.expect("the provider has suites of every version");
        builder.with_root_certificates(store).with_no_client_auth()
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("Trust(system)"),
            Some(own) => write!(f, "Trust({} of its own)", own.len()),
        }
    }
}
