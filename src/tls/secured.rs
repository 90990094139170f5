//! One connection's TLS as a machine without IO: records in, clear text and
//! records out.
//!
//! It stands on rustls' unbuffered interface, because the buffered one keeps
//! four kibioctets of receive buffer for each connection. Here an octet that is
//! no whole record yet is all that is ever kept, so that a connection between
//! two commands owns its keys and nothing else.
//!
//! Invariants:
//!
//! - What rustls has not consumed is given to it again, in front of what comes
//!   next, and nothing else ever is: its own positions point into it.
//! - Records leave in the order in which rustls made them, an answer to a key
//!   update or an alert before the text behind it.
//! - Nothing is made behind records that a socket may have cut off: the end of
//!   such a connection is not announced, and so is seen to be none.
//! - A fault ends the connection, and the alert that says why has been handed
//!   out with it.

use std::fmt;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError};
use rustls::{HandshakeKind, ServerConfig};
use zeroize::Zeroizing;

use super::binding::Heard;
use super::certificate;
use super::handed::{self, Handed, KernelKeys};
use super::hello::{self, ClientVersion};
use crate::limits;
use crate::sasl::Bindings;

/// Why TLS ended a connection.
#[derive(Debug)]
pub enum TlsFault {
    /// The client's first octets are not those of TLS.
    NotTls,
    /// The client sent more than a handshake takes.
    Oversized,
    /// The handshake failed, or a record is damaged or out of place.
    Protocol(rustls::Error),
    /// New keys are due, and the kernel, which has the old ones, takes no others.
    Renewal,
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsFault::NotTls => f.write_str("the client does not speak TLS"),
            TlsFault::Oversized => write!(
                f,
                "the client sent more than {} octets",
                limits::HANDSHAKE_OCTETS
            ),
            TlsFault::Protocol(error) => error.fmt(f),
            TlsFault::Renewal => f.write_str("new keys are due, which the kernel does not take"),
        }
    }
}

impl std::error::Error for TlsFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TlsFault::Protocol(error) => Some(error),
            TlsFault::NotTls | TlsFault::Oversized | TlsFault::Renewal => None,
        }
    }
}

impl From<rustls::Error> for TlsFault {
    fn from(error: rustls::Error) -> TlsFault {
        TlsFault::Protocol(error)
    }
}

/// How a handshake came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Established {
    /// With a certificate.
    Full,
    /// With the keys of an earlier session.
    Resumed,
}

/// One connection's TLS.
pub struct Secured {
    connection: UnbufferedServerConnection,
    /// What was received and not consumed: the beginning of a record, or of
    /// a message of several.
    held: Vec<u8>,
    /// Octets received so far; counted during the handshake alone.
    received: usize,
    version: Option<ClientVersion>,
    closed: bool,
    outgoing: Outgoing,
    /// The kernel may take over.
    for_kernel: bool,
    /// What was told in the handshake that a login can be bound to.
    heard: Heard,
}

/// What became of the records that were made.
enum Outgoing {
    /// All have left.
    Gone,
    /// The socket had no room for these, which come before any other.
    Left(Vec<u8>),
    /// They are under way. Where that was given up, they may have been cut off
    /// anywhere, and nothing behind them could be understood.
    UnderWay,
}

/// What a look at the received octets came to.
enum Progress {
    /// More is there to be looked at.
    More,
    /// More octets are needed; there is nothing else to do.
    Idle,
}

impl Secured {
    /// A server that waits for its client's hello.
    ///
    /// # Errors
    ///
    /// What rustls makes of `config`.
    pub fn new(config: Arc<ServerConfig>) -> Result<Secured, TlsFault> {
        Ok(Secured {
            for_kernel: config.enable_secret_extraction,
            connection: UnbufferedServerConnection::new(config)?,
            held: Vec::new(),
            received: 0,
            version: None,
            closed: false,
            outgoing: Outgoing::Gone,
            heard: Heard::default(),
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

    /// The version the client offers, as far as it has told.
    pub fn client_version(&self) -> Option<ClientVersion> {
        self.version
    }

    /// How the handshake came to its end, once it has.
    pub fn established(&self) -> Option<Established> {
        if self.is_handshaking() {
            return None;
        }
        match self.connection.handshake_kind()? {
            HandshakeKind::Resumed => Some(Established::Resumed),
            HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest => {
                Some(Established::Full)
            }
        }
    }

    /// The name that the client's certificate vouches for: it was verified in the
    /// handshake, or in that of the session which this one resumes.
    pub fn client_name(&self) -> Option<String> {
        let chain = self.connection.peer_certificates()?;
        certificate::client_name(chain.first()?)
    }

    /// What a login on this connection can be bound to, told once.
    pub fn take_bindings(&mut self) -> Bindings {
        let resumed = self.established() == Some(Established::Resumed);
        std::mem::take(&mut self.heard).bindings(resumed)
    }

    /// Whether the kernel may make this connection's records from here on: it knows
    /// the cipher, and nothing is half received or half sent.
    pub fn may_be_handed(&self) -> bool {
        self.for_kernel
            && !self.is_handshaking()
            && !self.closed
            && self.held.is_empty()
            && matches!(self.outgoing, Outgoing::Gone)
            && !self.connection.wants_write()
            && self
                .connection
                .negotiated_cipher_suite()
                .is_some_and(handed::is_known)
    }

    /// Leaves the making of records to the kernel, which is to get the keys.
    ///
    /// # Errors
    ///
    /// What rustls makes of it; [`Secured::may_be_handed`] comes before.
    pub fn hand_over(self) -> Result<(Handed, KernelKeys), TlsFault> {
        Handed::take(self.connection)
    }

    /// Takes records, of the handshake or behind it. The clear text that they
    /// complete goes to the end of `clear`, and what is to be sent in turn, an
    /// alert after a fault included, to the end of `records`.
    ///
    /// # Errors
    ///
    /// The handshake failed, or a record is damaged or out of place.
    pub fn receive(
        &mut self,
        received: Vec<u8>,
        clear: &mut Vec<u8>,
        records: &mut Vec<u8>,
    ) -> Result<(), TlsFault> {
        if self.is_handshaking() {
            self.inspect(&received)?;
        }
        // Records are opened in place: what was a password stands there then.
        let mut octets = Zeroizing::new(received);
        if !self.held.is_empty() {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(&octets);
            octets = held.into();
        }
        let mut taken = 0;
        let outcome = loop {
            match self.step(&mut octets, &mut taken, clear, records) {
                Ok(Progress::More) => {}
                Ok(Progress::Idle) => break Ok(()),
                Err(fault) => {
                    self.take_alert(&mut octets[taken..], records);
                    break Err(fault);
                }
            }
        };
        if taken < octets.len() && outcome.is_ok() {
            self.held = octets[taken..].to_vec();
        }
        outcome
    }

    /// What a client sends before it has proved anything: of the right protocol,
    /// and not without end.
    fn inspect(&mut self, received: &[u8]) -> Result<(), TlsFault> {
        if self.received == 0 && !hello::is_tls(received) {
            return Err(TlsFault::NotTls);
        }
        self.received += received.len();
        if self.received > limits::HANDSHAKE_OCTETS {
            return Err(TlsFault::Oversized);
        }
        // A hello in one piece, as nearly all are, is looked at without a copy.
        let offered = if self.held.is_empty() {
            hello::version(received)
        } else {
            hello::version(&[&self.held, received].concat())
        };
        self.version = self.version.max(offered);
        Ok(())
    }

    /// One state of rustls. What it consumed is added to `taken`.
    fn step(
        &mut self,
        octets: &mut [u8],
        taken: &mut usize,
        clear: &mut Vec<u8>,
        records: &mut Vec<u8>,
    ) -> Result<Progress, TlsFault> {
        let handshaking = self.connection.is_handshaking();
        if handshaking {
            // Whatever another connection left there is not this one's.
            drop(Heard::take());
        }
        let status = self.connection.process_tls_records(&mut octets[*taken..]);
        if handshaking {
            self.heard.add(Heard::take());
        }
        *taken += status.discard;
        match status.state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    *taken += record.discard;
                    clear.extend_from_slice(record.payload);
                }
            }
            ConnectionState::EncodeTlsData(data) => encode(data, records),
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => self.closed = true,
            ConnectionState::BlockedHandshake
            | ConnectionState::WriteTraffic(_)
            | ConnectionState::Closed => return Ok(Progress::Idle),
            // Early data is never allowed, so that rustls skips it, and there is
            // no other state.
            state => unreachable!("{state:?}"),
        }
        Ok(Progress::More)
    }

    /// The alert that says what the fault was.
    fn take_alert(&mut self, octets: &mut [u8], records: &mut Vec<u8>) {
        while self.connection.wants_write() {
            let status = self.connection.process_tls_records(octets);
            let Ok(ConnectionState::EncodeTlsData(data)) = status.state else {
                return;
            };
            encode(data, records);
        }
    }

    /// Turns `clear` into records at the end of `records`.
    ///
    /// # Errors
    ///
    /// The connection has been closed on our side, or its keys are worn out.
    pub fn encrypt(&mut self, clear: &[u8], records: &mut Vec<u8>) -> Result<(), TlsFault> {
        let fragments = clear.len() / FRAGMENT + 1;
        let mut room = clear.len() + fragments * limits::RECORD_OVERHEAD;
        self.write(records, |traffic, records| {
            loop {
                let begin = records.len();
                records.resize(begin + room, 0);
                let written = traffic.encrypt(clear, &mut records[begin..]);
                records.truncate(begin + *written.as_ref().unwrap_or(&0));
                match written {
                    Err(EncryptError::InsufficientSize(error)) => room = error.required_size,
                    result => return result.map(drop),
                }
            }
        })
    }

    /// Turns `clear` into records in the empty buffer `records`, behind those that are
    /// left, and offers them to the socket: `offer` says how many octets that took. The others are left, for
    /// [`Secured::take_left`]. A buffer comes back.
    ///
    /// # Errors
    ///
    /// As [`Secured::encrypt`].
    pub fn offer(
        &mut self,
        clear: &[u8],
        mut records: Vec<u8>,
        offer: impl FnOnce(&[u8]) -> usize,
    ) -> Result<Vec<u8>, TlsFault> {
        if let Some(left) = self.take_left() {
            records.extend(left);
        }
        self.encrypt(clear, &mut records)?;
        let taken = offer(&records);
        if taken < records.len() {
            self.outgoing = Outgoing::Left(records.split_off(taken));
        }
        Ok(records)
    }

    /// Whether records are left that no socket has taken.
    pub fn is_behind(&self) -> bool {
        matches!(self.outgoing, Outgoing::Left(_))
    }

    /// Keeps records that may as well leave with the next text.
    pub fn leave(&mut self, records: Vec<u8>) {
        assert!(matches!(self.outgoing, Outgoing::Gone), "records in order");
        if !records.is_empty() {
            self.outgoing = Outgoing::Left(records);
        }
    }

    /// The records that are left, to be sent before any other.
    pub fn take_left(&mut self) -> Option<Vec<u8>> {
        match std::mem::replace(&mut self.outgoing, Outgoing::Gone) {
            Outgoing::Left(records) => Some(records),
            other => {
                self.outgoing = other;
                None
            }
        }
    }

    /// All records that were made are on their way.
    pub fn sending(&mut self) {
        self.outgoing = Outgoing::UnderWay;
    }

    /// They have left.
    pub fn sent(&mut self) {
        self.outgoing = Outgoing::Gone;
    }

    /// Says that we send no more (`close_notify`): RFC 8446, section 6.1; what is left
    /// comes before it. Behind records that may have been cut off nothing is said.
    pub fn close(&mut self, records: &mut Vec<u8>) {
        match std::mem::replace(&mut self.outgoing, Outgoing::UnderWay) {
            Outgoing::Gone => {}
            Outgoing::Left(left) => records.extend(left),
            Outgoing::UnderWay => return,
        }
        let done = self.write(records, |traffic, records| {
            let begin = records.len();
            records.resize(begin + limits::RECORD_OVERHEAD, 0);
            let written = traffic.queue_close_notify(&mut records[begin..]);
            records.truncate(begin + *written.as_ref().unwrap_or(&0));
            written.map(drop)
        });
        // Where nothing can be said any more, nothing is.
        let _ = done;
    }

    /// Has rustls write application data or the end of them, behind what it has
    /// to say of its own accord.
    fn write(
        &mut self,
        records: &mut Vec<u8>,
        mut write: impl FnMut(
            &mut rustls::unbuffered::WriteTraffic<'_, rustls::server::ServerConnectionData>,
            &mut Vec<u8>,
        ) -> Result<(), EncryptError>,
    ) -> Result<(), TlsFault> {
        let general = |text: String| TlsFault::Protocol(rustls::Error::General(text));
        loop {
            // All that was received has been looked at, so that this brings no
            // clear text; it is what rustls' positions point into.
            let status = self.connection.process_tls_records(&mut self.held);
            debug_assert_eq!(status.discard, 0, "nothing new was received");
            match status.state? {
                ConnectionState::EncodeTlsData(data) => encode(data, records),
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.closed = true,
                ConnectionState::WriteTraffic(mut traffic) => {
                    return write(&mut traffic, records)
                        .map_err(|error| general(error.to_string()));
                }
                state => return Err(general(format!("no text may be sent in {state:?}"))),
            }
        }
    }
}

/// Text in a record: the most that TLS allows (RFC 8446, section 5.1).
const FRAGMENT: usize = 16 * 1024;

/// Appends a handshake record, a ticket or an alert.
fn encode<Data>(mut data: EncodeTlsData<'_, Data>, records: &mut Vec<u8>) {
    let begin = records.len();
    let Err(EncodeError::InsufficientSize(error)) = data.encode(&mut []) else {
        // Nothing is as long as nothing.
        return;
    };
    records.resize(begin + error.required_size, 0);
    let written = data.encode(&mut records[begin..]);
    records.truncate(begin + written.expect("as much room as it asked for"));
}

#[cfg(test)]
mod tests;
