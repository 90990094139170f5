//! The connection below the protocol: socket, deadline, and TLS where there is.
//!
//! Whatever waits for the peer waits here, and always for three things at once:
//! the socket, the deadline, and the order to close.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use rustix::net::Shutdown;

use super::Context;
use super::buffers::Purpose;
use crate::ring::{Handle, Received, Receiver};
use crate::shard::deadlines::{Alarm, Signal, Watch};
use crate::tls::{Secured, TlsFault};

/// Why a connection cannot go on.
#[derive(Debug)]
pub(super) enum Broken {
    /// The client closed it.
    Closed,
    /// It failed: a reset, a peer that vanished.
    Lost(io::Error),
    /// The client stopped reading what was sent to it.
    Stalled,
    /// The handshake did not come to an end in time.
    HandshakeTimeout,
    /// The server closes.
    Shutdown,
    /// TLS failed.
    Tls(TlsFault),
    /// Commands stood in clear text behind STLS.
    Injection,
    /// A message file failed or changed after its reply had begun.
    Message(String),
}

/// What came while a session waited for input.
pub(super) enum Arrival {
    /// Clear text, never none.
    Bytes(Vec<u8>),
    /// The deadline passed.
    Deadline,
}

/// Room for a record's head and tail beside its text.
const RECORD: u64 = 64;

enum Transport {
    Clear,
    Tls(Box<Secured>),
}

/// One connection's socket and what protects it.
pub(super) struct Link {
    context: Rc<Context>,
    socket: Handle,
    receiver: Receiver,
    alarm: Alarm,
    transport: Transport,
}

impl Link {
    pub(super) fn new(context: Rc<Context>, socket: Handle, alarm: Alarm) -> Link {
        let receiver = context.ring.receive(socket.clone());
        Link {
            context,
            socket,
            receiver,
            alarm,
            transport: Transport::Clear,
        }
    }

    /// Where the order to close is heard.
    pub(super) fn watch(&self) -> &Rc<Watch> {
        self.alarm.watch()
    }

    /// The next clear text, or the session's deadline.
    pub(super) async fn wait(&mut self, deadline: Instant) -> Result<Arrival, Broken> {
        self.alarm.set(deadline);
        loop {
            let Some(raw) = self.receive().await? else {
                return Ok(Arrival::Deadline);
            };
            if let Transport::Clear = self.transport {
                return Ok(Arrival::Bytes(raw));
            }
            let clear = Box::pin(self.decrypt(raw)).await?;
            if !clear.is_empty() {
                return Ok(Arrival::Bytes(clear));
            }
        }
    }

    /// The clear text of records, of which there may be none.
    async fn decrypt(&mut self, records: Vec<u8>) -> Result<Vec<u8>, Broken> {
        let Transport::Tls(secured) = &mut self.transport else {
            unreachable!("only TLS has records");
        };
        let mut clear = Vec::new();
        let received = secured.receive(&records, &mut clear);
        let closed = secured.is_closed();
        self.send_pending().await?;
        received.map_err(Broken::Tls)?;
        if clear.is_empty() && closed {
            return Err(Broken::Closed);
        }
        Ok(clear)
    }

    /// Raw bytes from the socket; nothing if the deadline passed first.
    async fn receive(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        poll_fn(|context| {
            if let Poll::Ready(received) = self.receiver.poll_next(context) {
                return Poll::Ready(match received {
                    Ok(Received::Bytes(bytes)) => Ok(Some(bytes)),
                    Ok(Received::End) => Err(Broken::Closed),
                    Err(error) => Err(Broken::Lost(error)),
                });
            }
            self.alarm.poll_signal(context).map(|signal| match signal {
                Signal::Deadline => Ok(None),
                Signal::Shutdown => Err(Broken::Shutdown),
            })
        })
        .await
    }

    /// Waits for the deadline alone; what the client sends meanwhile stays in
    /// the socket.
    pub(super) async fn pause(&mut self, until: Instant) -> Result<(), Broken> {
        self.alarm.set(until);
        let signal = poll_fn(|context| self.alarm.poll_signal(context)).await;
        match signal {
            Signal::Deadline => Ok(()),
            Signal::Shutdown => Err(Broken::Shutdown),
        }
    }

    /// Sends all of `clear`; the buffer comes back empty, or goes with the
    /// connection.
    pub(super) async fn send(&mut self, clear: Vec<u8>) -> Result<Vec<u8>, Broken> {
        match &mut self.transport {
            Transport::Clear => self.send_raw(clear).await,
            Transport::Tls(_) => Box::pin(self.encrypt(clear)).await,
        }
    }

    async fn encrypt(&mut self, mut clear: Vec<u8>) -> Result<Vec<u8>, Broken> {
        let Transport::Tls(secured) = &mut self.transport else {
            unreachable!("only TLS has records");
        };
        let mut records = self
            .context
            .buffers
            .lend(Purpose::for_octets(clear.len() as u64 + RECORD));
        secured.encrypt(&clear, &mut records).map_err(Broken::Tls)?;
        clear.clear();
        let records = self.send_raw(records).await?;
        self.context.buffers.take_back(records);
        Ok(clear)
    }

    /// Sends octets as they are. Not an `async fn`: the future would keep its
    /// arguments beside what it makes of them.
    fn send_raw(&self, octets: Vec<u8>) -> impl Future<Output = Result<Vec<u8>, Broken>> + Unpin {
        self.alarm.set(Instant::now() + self.context.write_stall);
        let expected = octets.len();
        let mut sending = self.context.ring.send(&self.socket, octets);
        poll_fn(move |context| {
            if let Poll::Ready((sent, mut octets)) = Pin::new(&mut sending).poll(context) {
                octets.clear();
                return Poll::Ready(match sent {
                    Ok(sent) if sent == expected => Ok(octets),
                    // The kernel stops in the midst only when the connection is
                    // gone.
                    Ok(_) => Err(Broken::Closed),
                    Err(error) => Err(Broken::Lost(error)),
                });
            }
            self.alarm.poll_signal(context).map(|signal| match signal {
                Signal::Deadline => Err(Broken::Stalled),
                Signal::Shutdown => Err(Broken::Shutdown),
            })
        })
    }

    /// Takes the connection into TLS; gives the clear text that came with the
    /// handshake's last flight.
    pub(super) async fn secure(&mut self, deadline: Instant) -> Result<Vec<u8>, Broken> {
        let config = self
            .context
            .tls
            .clone()
            .expect("TLS is offered with a certificate");
        let mut secured = Secured::new(config).map_err(Broken::Tls)?;
        let mut early = Vec::new();
        while secured.is_handshaking() {
            self.alarm.set(deadline);
            let Some(raw) = self.receive().await? else {
                return Err(Broken::HandshakeTimeout);
            };
            let result = secured.receive(&raw, &mut early);
            let mut records = self.context.buffers.lend(Purpose::Reply);
            secured.take_pending(&mut records);
            if !records.is_empty() {
                records = self.send_raw(records).await?;
            }
            self.context.buffers.take_back(records);
            result.map_err(Broken::Tls)?;
        }
        self.transport = Transport::Tls(Box::new(secured));
        Ok(early)
    }

    /// Sends what TLS has to say of its own accord: tickets, key updates, alerts.
    async fn send_pending(&mut self) -> Result<(), Broken> {
        let Transport::Tls(secured) = &mut self.transport else {
            return Ok(());
        };
        let mut records = Vec::new();
        secured.take_pending(&mut records);
        if !records.is_empty() {
            self.send_raw(records).await?;
        }
        Ok(())
    }

    /// Tells the client that no more will come: `close_notify` where there is
    /// TLS, then the end of the stream.
    pub(super) async fn say_goodbye(&mut self) {
        if let Transport::Tls(secured) = &mut self.transport {
            secured.close();
            // The session is over; a client that does not hear of it any more
            // has lost nothing.
            let _ = Box::pin(self.send_pending()).await;
        }
        // Where the client still has commands on their way, a close alone makes
        // the kernel answer with a reset, which destroys what the client has
        // not read yet.
        let _ = rustix::net::shutdown(self.socket.as_fd(), Shutdown::Write);
    }

    /// Closes the socket.
    pub(super) fn close(self) {
        let Link {
            context,
            socket,
            receiver,
            ..
        } = self;
        drop(receiver);
        context.ring.close(socket);
    }
}
