//! Why a connection cannot go on, in terms of whose doing it is.

use std::io;

use crate::tls::{ClientVersion, TlsFault};

/// Why a connection cannot go on.
#[derive(Debug)]
pub(super) enum Broken {
    /// The client closed it.
    Closed,
    /// It failed: a reset, a peer that vanished.
    Lost(io::Error),
    /// The client stopped reading what was sent to it.
    Stalled,
    /// Its client was silent, and a new session of the same user has the maildrop.
    Displaced,
    /// The server closes.
    Shutdown,
    /// The TLS handshake did not come to its end.
    Handshake(Box<Unsecured>),
    /// TLS failed behind the handshake.
    Tls(TlsFault),
    /// A client that was greeted in clear text began TLS without STLS.
    WrongProtocol,
    /// A message file failed or changed after its reply had begun.
    Message(String),
}

/// A handshake that did not come to its end.
#[derive(Debug)]
pub(super) struct Unsecured {
    pub(super) why: HandshakeFault,
    /// What the client offered, as far as it came to that.
    pub(super) version: Option<ClientVersion>,
}

/// Why a handshake did not come to its end.
#[derive(Debug)]
pub(super) enum HandshakeFault {
    /// The two do not understand each other.
    Tls(TlsFault),
    /// The client sent clear text where it should begin TLS.
    NotTls,
    /// Octets stood in clear text behind STLS.
    Injected,
    /// It took too long.
    TimedOut,
    /// The client went away.
    Abandoned,
    /// The connection failed: a reset, a peer that vanished.
    Lost(io::Error),
    /// Too many were under way.
    Crowded,
}

impl From<HandshakeFault> for Broken {
    fn from(why: HandshakeFault) -> Broken {
        Broken::Handshake(Box::new(Unsecured { why, version: None }))
    }
}
