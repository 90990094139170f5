//! The connection below the protocol: socket, deadline, and TLS where there is.
//!
//! Whatever waits for the peer waits here, and always for three things at once:
//! the socket, the deadline, and the order to close.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use rustix::net::Shutdown;

use super::Context;
use crate::limits;
use crate::ring::{Handle, Received, Receiver};
use crate::shard::deadlines::{Alarm, Signal};
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

    /// The next clear text, or the session's deadline.
    pub(super) async fn wait(&mut self, deadline: Instant) -> Result<Arrival, Broken> {
        self.alarm.set(deadline);
        loop {
            let Some(raw) = self.receive().await? else {
                return Ok(Arrival::Deadline);
            };
            let Transport::Tls(secured) = &mut self.transport else {
                return Ok(Arrival::Bytes(raw));
            };
            let mut clear = Vec::new();
            let received = secured.receive(&raw, &mut clear);
            self.send_pending().await?;
            received.map_err(Broken::Tls)?;
            if !clear.is_empty() {
                return Ok(Arrival::Bytes(clear));
            }
            if matches!(&self.transport, Transport::Tls(secured) if secured.is_closed()) {
                return Err(Broken::Closed);
            }
        }
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
            Transport::Tls(secured) => {
                let mut records = self.context.buffers.lend();
                secured.encrypt(&clear, &mut records).map_err(Broken::Tls)?;
                let records = self.send_raw(records).await?;
                self.context.buffers.take_back(records);
                let mut clear = clear;
                clear.clear();
                Ok(clear)
            }
        }
    }

    async fn send_raw(&mut self, octets: Vec<u8>) -> Result<Vec<u8>, Broken> {
        self.alarm.set(Instant::now() + limits::WRITE_STALL);
        let expected = octets.len();
        let mut sending = pin!(self.context.ring.send(&self.socket, octets));
        let alarm = &self.alarm;
        let (sent, mut octets) = poll_fn(|context| {
            if let Poll::Ready(done) = sending.as_mut().poll(context) {
                return Poll::Ready(Ok(done));
            }
            alarm.poll_signal(context).map(|signal| match signal {
                Signal::Deadline => Err(Broken::Stalled),
                Signal::Shutdown => Err(Broken::Shutdown),
            })
        })
        .await?;
        match sent {
            Ok(sent) if sent == expected => {
                octets.clear();
                Ok(octets)
            }
            // The kernel stops in the midst only when the connection is gone.
            Ok(_) => Err(Broken::Closed),
            Err(error) => Err(Broken::Lost(error)),
        }
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
            let mut records = self.context.buffers.lend();
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

    /// Ends the connection: `close_notify` where it has TLS and still works,
    /// then close.
    pub(super) async fn close(mut self, works: bool) {
        if works {
            if let Transport::Tls(secured) = &mut self.transport {
                secured.close();
                // The session is over; a client that does not hear of it any
                // more has lost nothing.
                let _ = self.send_pending().await;
            }
            // The peer sees the end of the stream even where it still has
            // commands on their way, which would make the kernel answer a close
            // alone with a reset that destroys what it has not read yet.
            let _ = rustix::net::shutdown(self.socket.as_fd(), Shutdown::Write);
        }
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
