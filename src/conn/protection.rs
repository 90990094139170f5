//! Who makes a connection's TLS records: popcore, or the kernel for it.
//!
//! What can be done at once is done here, on the socket itself; whatever waits for
//! the client is the link's.

use std::os::fd::AsFd as _;

use rustix::net::SendFlags;

use super::broken::Broken;
use crate::ring::{Handle, kernel_tls};
use crate::tls::{self, Handed, Secured};

/// A connection's TLS.
#[expect(
    clippy::large_enum_variant,
    reason = "it is boxed, and nearly all are the large one"
)]
pub(super) enum Protection {
    /// popcore makes the records.
    Own(Secured),
    /// The kernel makes them; what comes is opened here.
    Kernel(Handed),
    /// The kernel was to make them and could not; nothing may be sent.
    Lost,
}

impl Protection {
    /// Has the kernel make the records from here on, where it may. Says whether it
    /// does.
    pub(super) fn hand_over(&mut self, socket: &Handle) -> Result<bool, Broken> {
        let Protection::Own(secured) = self else {
            return Ok(false);
        };
        // Where it cannot, although it has TLS, records are made here as before.
        if !secured.may_be_handed() || kernel_tls::begin(socket).is_err() {
            return Ok(false);
        }
        let Protection::Own(secured) = std::mem::replace(self, Protection::Lost) else {
            unreachable!("it was just that");
        };
        let (handed, keys) = secured.hand_over().map_err(Broken::Tls)?;
        kernel_tls::seal_with(socket, &keys).map_err(Broken::Lost)?;
        *self = Protection::Kernel(handed);
        Ok(true)
    }

    /// The clear text of records, of which there may be none, and what is to be sent
    /// in turn: an answer to a key update, or the alert that says what is wrong.
    pub(super) fn open(&mut self, received: Vec<u8>, socket: &Handle) -> Opened {
        let (mut clear, mut records) = (Vec::new(), Vec::new());
        let (taken, closed) = match self {
            Protection::Own(secured) => {
                let taken = secured.receive(received, &mut clear, &mut records);
                (taken, secured.is_closed())
            }
            Protection::Kernel(handed) => {
                let taken = handed.receive(received, &mut clear);
                if let Err(fault) = &taken {
                    send_alert(socket, handed.alert(fault));
                }
                (taken, handed.is_closed())
            }
            Protection::Lost => unreachable!("the connection has ended"),
        };
        let clear = match taken {
            Err(fault) => Err(Broken::Tls(fault)),
            Ok(()) if closed && clear.is_empty() => Err(Broken::Closed),
            Ok(()) => Ok(clear),
        };
        Opened { clear, records }
    }

    /// What says that we send no more, where that can be said.
    pub(super) fn last_words(&mut self) -> Option<LastWords> {
        match self {
            Protection::Own(secured) => {
                let mut records = Vec::new();
                secured.close(&mut records);
                (!records.is_empty()).then_some(LastWords::Records(records))
            }
            Protection::Kernel(handed) => handed.close().map(LastWords::Alert),
            Protection::Lost => None,
        }
    }
}

/// The announcement of an end.
pub(super) enum LastWords {
    /// Of popcore's making.
    Records(Vec<u8>),
    /// The kernel makes the record.
    Alert([u8; 2]),
}

impl LastWords {
    /// Leaves them with the kernel, to travel with the end of the stream. False: the
    /// socket has no room now.
    pub(super) fn say(&self, socket: &Handle) -> bool {
        match self {
            LastWords::Records(records) => send_last(socket, records) > 0,
            LastWords::Alert(alert) => kernel_tls::send_record(socket, tls::ALERT, alert).is_ok(),
        }
    }
}

/// What records came to.
pub(super) struct Opened {
    pub(super) clear: Result<Vec<u8>, Broken>,
    pub(super) records: Vec<u8>,
}

/// Says what is to be said, as far as the socket has room.
fn send_alert(socket: &Handle, alert: Option<[u8; 2]>) {
    if let Some(alert) = alert {
        // A connection that takes no more has heard enough.
        let _ = kernel_tls::send_record(socket, tls::ALERT, &alert);
    }
}

/// The last octets of a connection, as many as the socket has room for; they
/// leave with the end of the stream.
pub(super) fn send_last(socket: &Handle, octets: &[u8]) -> usize {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL | SendFlags::MORE;
    // A connection that has failed takes none, and will say so.
    rustix::net::send(socket.as_fd(), octets, flags).unwrap_or(0)
}
