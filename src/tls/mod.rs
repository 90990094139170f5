//! TLS without IO: rustls between the connection's bytes and the session's.
//!
//! The connection moves bytes; this module turns records into clear text and
//! back. rustls frees its buffers when they are empty, so an idle connection
//! holds its keys and little else.

mod config;

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

pub use config::{CertificateError, server_config};

/// Why TLS ended a connection.
#[derive(Debug)]
pub struct TlsFault(rustls::Error);

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for TlsFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// One connection's TLS.
pub struct Secured {
    connection: ServerConnection,
    closed: bool,
}

impl Secured {
    /// A server that waits for its client's hello.
    ///
    /// # Errors
    ///
    /// What rustls makes of `config`.
    pub fn new(config: Arc<ServerConfig>) -> Result<Secured, TlsFault> {
        let mut connection = ServerConnection::new(config).map_err(TlsFault)?;
        // The connection bounds what it encrypts by the size of its buffers.
        connection.set_buffer_limit(None);
        Ok(Secured {
            connection,
            closed: false,
        })
    }

    /// Whether the handshake still goes on.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether the peer has said that it sends no more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes records, of the handshake or behind it, and appends the clear text
    /// that they complete. What is to be sent in turn, an alert after an error
    /// included, waits in [`Secured::take_pending`].
    ///
    /// # Errors
    ///
    /// The handshake failed, or a record is damaged or out of place.
    pub fn receive(&mut self, mut records: &[u8], clear: &mut Vec<u8>) -> Result<(), TlsFault> {
        while !records.is_empty() && !self.closed {
            // An error means that rustls holds all it is willing to; it cannot,
            // since what it decrypts is taken in each round.
            let taken = self.connection.read_tls(&mut records).unwrap_or(0);
            let state = self.connection.process_new_packets().map_err(TlsFault)?;
            self.closed |= state.peer_has_closed();
            // It ends with WouldBlock where more may come, and otherwise where
            // the peer has closed: what there was is in `clear` either way.
            let _ = self.connection.reader().read_to_end(clear);
            if taken == 0 {
                return Err(TlsFault(rustls::Error::General("records overflow".into())));
            }
        }
        Ok(())
    }

    /// Turns `clear` into records at the end of `records`.
    ///
    /// # Errors
    ///
    /// The connection has been closed on our side.
    pub fn encrypt(&mut self, clear: &[u8], records: &mut Vec<u8>) -> Result<(), TlsFault> {
        let written = self.connection.writer().write_all(clear);
        written.map_err(|error| TlsFault(rustls::Error::General(error.to_string())))?;
        self.take_pending(records);
        Ok(())
    }

    /// Appends whatever is ready to be sent.
    pub fn take_pending(&mut self, records: &mut Vec<u8>) {
        while self.connection.wants_write() {
            let written = self.connection.write_tls(records);
            if written.expect("a vector takes everything") == 0 {
                break;
            }
        }
    }

    /// Says that we send no more (`close_notify`).
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }
}
