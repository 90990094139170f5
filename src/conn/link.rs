//! The connection below the protocol: socket, deadline, and TLS where there is.
//!
//! Whatever waits for the peer waits here, and always for three things at once:
//! the socket, the deadline, and the order to close.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use rustix::net::{SendFlags, Shutdown};

use super::Context;
use super::broken::{Broken, HandshakeFault, Unsecured};
use super::buffers::Purpose;
use super::handshakes::Place;
use super::protection::{Opened, Protection, send_last};
use crate::limits;
use crate::ring::{self, Handle, Received, Receiver};
use crate::sasl::Bindings;
use crate::shard::deadlines::{Alarm, Signal, Watch};
use crate::tls::{self, Established, Handed, Secured, TlsFault};

/// How a client comes to TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Approach {
    /// With its first octet.
    Implicit,
    /// By STLS.
    Stls,
}

/// A handshake that came to its end.
pub(super) struct Handshake {
    /// The clear text that came with its last flight.
    pub(super) early: Vec<u8>,
    pub(super) how: Established,
    /// Whom the client's certificate vouches for.
    pub(super) client: Option<String>,
    /// What a login can be bound to.
    pub(super) bindings: Bindings,
}

/// How a connection is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// With an end of the stream, announced where there is TLS.
    Said,
    /// With an end of the stream that the client has time to read, whatever it
    /// is still sending.
    Lingering,
    /// The client is told in clear text that it should have begun TLS, and has
    /// time to read it.
    Explained,
    /// Without a word: nobody hears it, or nobody may take it for an end.
    None,
}

/// What ended a handshake.
enum Halted {
    Fault(HandshakeFault),
    Link(Broken),
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
    Tls(Box<Protection>),
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

    /// Whether these are records of TLS where clear text is spoken. A shard without
    /// certificates looks as well: no command begins like that, and its lines
    /// would each be answered.
    pub(super) fn is_wrong_protocol(&self, line: &[u8]) -> bool {
        matches!(self.transport, Transport::Clear) && tls::begins_tls(line)
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
    async fn decrypt(&mut self, received: Vec<u8>) -> Result<Vec<u8>, Broken> {
        let Transport::Tls(protection) = &mut self.transport else {
            unreachable!("only TLS has records");
        };
        let Opened { clear, records } = protection.open(received, &self.socket);
        if !records.is_empty() {
            self.send_records(records).await?;
        }
        clear
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
            if gives_way(&self.alarm, &self.socket) {
                return Poll::Ready(Err(Broken::Displaced));
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

    /// The same until something in another thread is ready. False: the deadline came first.
    pub(super) async fn pause_unless(
        &mut self,
        until: Instant,
        ready: impl Future,
    ) -> Result<bool, Broken> {
        self.alarm.set(until);
        let mut ready = pin!(self.context.ring.abroad(ready));
        poll_fn(|context| {
            if ready.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(true));
            }
            self.alarm.poll_signal(context).map(|signal| match signal {
                Signal::Deadline => Ok(false),
                Signal::Shutdown => Err(Broken::Shutdown),
            })
        })
        .await
    }

    /// Sends all of `clear`; the buffer comes back empty, or goes with the
    /// connection.
    pub(super) async fn send(&mut self, clear: Vec<u8>) -> Result<Vec<u8>, Broken> {
        match &mut self.transport {
            Transport::Clear => self.send_raw(clear).await,
            Transport::Tls(_) => Box::pin(self.encrypt(clear)).await,
        }
    }

    /// Has the kernel make the records of TLS from here on, where it may.
    pub(super) fn hand_over(&mut self) -> Result<(), Broken> {
        if let Transport::Tls(protection) = &mut self.transport
            && protection.hand_over(&self.socket)?
        {
            self.context.counters.tls_handed();
        }
        Ok(())
    }

    /// Leaves the last reply with the kernel, which sends it in one segment with the
    /// end of the stream (`MSG_MORE` of `send(2)`): [`Link::say_goodbye`] must
    /// follow without any wait between. Says how many octets it took; the others
    /// are to be sent as usual, and so is what [`Link::is_behind`] tells of.
    pub(super) fn begin_last(&mut self, clear: &[u8]) -> Result<usize, Broken> {
        let Transport::Tls(protection) = &mut self.transport else {
            return Ok(send_last(&self.socket, clear));
        };
        let Protection::Own(secured) = &mut **protection else {
            // The records of a long session may as well go one by one.
            return Ok(0);
        };
        if !clear.is_empty() {
            let records = self.context.buffers.lend(Purpose::for_records(clear.len()));
            let offer = |records: &[u8]| send_last(&self.socket, records);
            let records = secured.offer(clear, records, offer).map_err(Broken::Tls)?;
            self.context.buffers.take_back(records);
        }
        Ok(clear.len())
    }

    /// Whether records are left to be sent, by [`Link::send`] of nothing more.
    pub(super) fn is_behind(&self) -> bool {
        let Transport::Tls(protection) = &self.transport else {
            return false;
        };
        matches!(&**protection, Protection::Own(secured) if secured.is_behind())
    }

    /// Whether records of TLS are made here of what is sent.
    pub(super) fn makes_records(&self) -> bool {
        let Transport::Tls(protection) = &self.transport else {
            return false;
        };
        matches!(&**protection, Protection::Own(_))
    }

    /// Sends what the socket takes at once; says how many octets that is. `more`
    /// follows soon, and may leave in one segment with the end of this. Where records
    /// are made here some may be left, of which [`Link::is_behind`] tells.
    pub(super) fn send_now(&mut self, clear: &[u8], more: bool) -> Result<usize, Broken> {
        let mut flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        flags.set(SendFlags::MORE, more);
        let socket = &self.socket;
        let send = |octets: &[u8]| rustix::net::send(socket.as_fd(), octets, flags);
        let Transport::Tls(protection) = &mut self.transport else {
            return taken(send(clear).map_err(io::Error::from));
        };
        match &mut **protection {
            Protection::Own(secured) => {
                let mut gone = 0;
                for text in clear.chunks(limits::RECORDS_TEXT) {
                    if secured.is_behind() {
                        break;
                    }
                    let records = self.context.buffers.lend(Purpose::for_records(text.len()));
                    // A connection that has failed takes none, and will say so.
                    let offer = |records: &[u8]| send(records).unwrap_or(0);
                    let records = secured.offer(text, records, offer).map_err(Broken::Tls)?;
                    self.context.buffers.take_back(records);
                    gone += text.len();
                }
                Ok(gone)
            }
            Protection::Kernel(handed) => {
                let send = || send(clear).map_err(io::Error::from);
                taken(seal(handed, clear.len(), send)?)
            }
            Protection::Lost => unreachable!("the connection has ended"),
        }
    }

    /// Has the socket take what it does at once of a file's octets from `offset` on,
    /// which are in memory, without a copy. 0 octets and a good result are the
    /// file's end. Not where records are made here.
    pub(super) fn send_file(
        &mut self,
        file: &Handle,
        offset: u64,
        most: usize,
    ) -> Result<io::Result<usize>, Broken> {
        debug_assert!(!self.makes_records());
        let socket = self.socket.clone();
        let offer = || ring::send_file(&socket, file, offset, most);
        let sent = match self.handed() {
            Some(handed) => seal(handed, most, offer)?,
            None => offer(),
        };
        match sent {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => {
                Err(Broken::Lost(error))
            }
            sent => Ok(sent),
        }
    }

    /// Waits until the socket takes octets. False: it took none for so long.
    pub(super) async fn writable(&self, patience: Duration) -> Result<bool, Broken> {
        self.alarm.set(Instant::now() + patience);
        let mut polling = self.context.ring.writable(&self.socket);
        poll_fn(|context| {
            if let Poll::Ready(ready) = Pin::new(&mut polling).poll(context) {
                return Poll::Ready(ready.map(|()| true).map_err(Broken::Lost));
            }
            if gives_way(&self.alarm, &self.socket) {
                return Poll::Ready(Err(Broken::Displaced));
            }
            self.alarm.poll_signal(context).map(|signal| match signal {
                Signal::Deadline => Ok(false),
                Signal::Shutdown => Err(Broken::Shutdown),
            })
        })
        .await
    }

    async fn encrypt(&mut self, mut clear: Vec<u8>) -> Result<Vec<u8>, Broken> {
        if let Some(handed) = self.handed() {
            handed.sending(clear.len()).map_err(Broken::Tls)?;
            let clear = self.send_by_parts(clear).await?;
            self.handed().into_iter().for_each(Handed::sent);
            return Ok(clear);
        }
        let mut left = self.secured().take_left();
        for text in clear.chunks(limits::RECORDS_TEXT) {
            let purpose = Purpose::for_records(text.len());
            let records = left.take();
            let mut records = records.unwrap_or_else(|| self.context.buffers.lend(purpose));
            let made = self.secured().encrypt(text, &mut records);
            made.map_err(Broken::Tls)?;
            let records = self.send_records(records).await?;
            self.context.buffers.take_back(records);
        }
        if let Some(records) = left {
            let records = self.send_records(records).await?;
            self.context.buffers.take_back(records);
        }
        clear.clear();
        Ok(clear)
    }

    fn protection(&mut self) -> Option<&mut Protection> {
        match &mut self.transport {
            Transport::Clear => None,
            Transport::Tls(protection) => Some(protection),
        }
    }

    /// TLS whose records are made here.
    fn secured(&mut self) -> &mut Secured {
        let Some(Protection::Own(secured)) = self.protection() else {
            unreachable!("records are made here");
        };
        secured
    }

    /// TLS whose records the kernel makes.
    fn handed(&mut self) -> Option<&mut Handed> {
        match self.protection() {
            Some(Protection::Kernel(handed)) => Some(handed),
            _ => None,
        }
    }

    async fn send_records(&mut self, records: Vec<u8>) -> Result<Vec<u8>, Broken> {
        self.secured().sending();
        let records = self.send_raw(records).await?;
        self.secured().sent();
        Ok(records)
    }

    /// Sends octets as they are. Not an `async fn`: the future would keep its
    /// arguments beside what it makes of them.
    fn send_raw(&self, octets: Vec<u8>) -> impl Future<Output = Result<Vec<u8>, Broken>> + Unpin {
        let expected = octets.len();
        let mut sending = self.transmit(self.context.ring.send(&self.socket, octets));
        poll_fn(move |context| {
            let sent = ready!(Pin::new(&mut sending).poll(context));
            Poll::Ready(match sent {
                Ok((sent, mut octets)) if sent == expected => {
                    octets.clear();
                    Ok(octets)
                }
                // The kernel stops in the midst only when the connection is gone.
                Ok(_) => Err(Broken::Closed),
                Err(broken) => Err(broken),
            })
        })
    }

    /// Sends octets as the socket has room for them.
    async fn send_by_parts(&self, mut octets: Vec<u8>) -> Result<Vec<u8>, Broken> {
        while !octets.is_empty() {
            let sending = self.context.ring.send_some(&self.socket, octets);
            let (sent, back) = self.transmit(sending).await?;
            octets = back;
            octets.drain(..sent);
        }
        Ok(octets)
    }

    /// What came of a send, unless the client stalls or the server closes.
    fn transmit(
        &self,
        mut sending: impl Future<Output = (io::Result<usize>, Vec<u8>)> + Unpin,
    ) -> impl Future<Output = Result<(usize, Vec<u8>), Broken>> + Unpin {
        self.alarm.set(Instant::now() + self.context.write_stall);
        poll_fn(move |context| {
            if let Poll::Ready((sent, octets)) = Pin::new(&mut sending).poll(context) {
                let sent = sent.map_err(Broken::Lost);
                return Poll::Ready(sent.map(|sent| (sent, octets)));
            }
            if gives_way(&self.alarm, &self.socket) {
                return Poll::Ready(Err(Broken::Displaced));
            }
            self.alarm.poll_signal(context).map(|signal| match signal {
                Signal::Deadline => Err(Broken::Stalled),
                Signal::Shutdown => Err(Broken::Shutdown),
            })
        })
    }

    /// Takes the connection into TLS.
    pub(super) async fn secure(
        &mut self,
        approach: Approach,
        deadline: Instant,
    ) -> Result<Handshake, Broken> {
        let current = self.context.tls.as_ref();
        let config = current.expect("TLS is offered with a certificate").get();
        let now = Instant::now();
        let Some(place) = self.context.handshakes.enter(self.watch(), now) else {
            return Err(HandshakeFault::Crowded.into());
        };
        let mut secured = Secured::new(config).map_err(Broken::Tls)?;
        let deadline = deadline.min(now + limits::HANDSHAKE);
        let shaken = self.shake_hands(&mut secured, approach, deadline, place);
        let early = match shaken.await {
            Ok(early) => early,
            Err(why) => {
                let version = secured.client_version();
                return Err(match why {
                    Halted::Link(Broken::Lost(error)) => {
                        let why = HandshakeFault::Lost(error);
                        Broken::Handshake(Box::new(Unsecured { why, version }))
                    }
                    Halted::Link(Broken::Stalled) => HandshakeFault::TimedOut.into(),
                    Halted::Link(broken) => broken,
                    Halted::Fault(HandshakeFault::NotTls) if approach == Approach::Stls => {
                        HandshakeFault::Injected.into()
                    }
                    Halted::Fault(why) => Broken::Handshake(Box::new(Unsecured { why, version })),
                });
            }
        };
        let done = Handshake {
            early,
            how: secured.established().expect("the handshake is over"),
            client: secured.client_name(),
            bindings: secured.take_bindings(),
        };
        self.transport = Transport::Tls(Box::new(Protection::Own(secured)));
        Ok(done)
    }

    /// Plays the handshake to its end.
    async fn shake_hands(
        &mut self,
        secured: &mut Secured,
        approach: Approach,
        deadline: Instant,
        _place: Place,
    ) -> Result<Vec<u8>, Halted> {
        let mut early = Vec::new();
        self.alarm.set(deadline);
        while secured.is_handshaking() {
            let raw = match self.receive().await {
                Ok(Some(raw)) => raw,
                Ok(None) => return Err(Halted::Fault(HandshakeFault::TimedOut)),
                Err(Broken::Closed) => return Err(Halted::Fault(HandshakeFault::Abandoned)),
                Err(broken) => return Err(Halted::Link(broken)),
            };
            let mut records = self.context.buffers.lend(Purpose::Reply);
            let taken = secured.receive(raw, &mut early, &mut records);
            let greets = approach == Approach::Implicit && !secured.is_handshaking();
            if greets && taken.is_ok() {
                // A ticket, or the end of TLS 1.2's handshake: the greeting is next.
                secured.leave(std::mem::take(&mut records));
            } else if !records.is_empty() {
                records = self.send_raw(records).await.map_err(Halted::Link)?;
                self.alarm.set(deadline);
            }
            self.context.buffers.take_back(records);
            taken.map_err(|fault| {
                Halted::Fault(match fault {
                    TlsFault::NotTls => HandshakeFault::NotTls,
                    fault => HandshakeFault::Tls(fault),
                })
            })?;
        }
        Ok(early)
    }

    /// Ends the stream, as far as the client is told of it.
    pub(super) async fn say_goodbye(&mut self, farewell: Farewell) {
        const TLS_IS_SPOKEN: &[u8] = b"-ERR TLS is spoken here from the first octet\r\n";
        match farewell {
            Farewell::None => return,
            Farewell::Explained => drop(send_last(&self.socket, TLS_IS_SPOKEN)),
            Farewell::Said | Farewell::Lingering => {
                if let Some(words) = self.protection().and_then(Protection::last_words)
                    && !words.say(&self.socket)
                {
                    // A client may be told of the end while it reads what was before.
                    let _ = Box::pin(self.writable(limits::FAREWELL)).await;
                    words.say(&self.socket);
                }
            }
        }
        // The end of what we send. Where it fails the connection is gone.
        let _ = rustix::net::shutdown(self.socket.as_fd(), Shutdown::Write);
        if farewell != Farewell::Said {
            Box::pin(self.linger()).await;
        }
    }

    /// Takes what the client still sends until it has heard of the end.
    async fn linger(&mut self) {
        self.alarm.set(Instant::now() + limits::FAREWELL);
        let mut taken = 0;
        while taken <= limits::FAREWELL_OCTETS {
            match self.receive().await {
                Ok(Some(octets)) => taken += octets.len(),
                Ok(None) | Err(_) => return,
            }
        }
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

/// Has the kernel take what it does at once of so many octets that it makes records of.
fn seal(
    handed: &mut Handed,
    octets: usize,
    offer: impl FnOnce() -> io::Result<usize>,
) -> Result<io::Result<usize>, Broken> {
    handed.sending(octets).map_err(Broken::Tls)?;
    let sent = offer();
    if sent.as_ref().is_ok_and(|sent| *sent == octets) {
        handed.sent();
    }
    Ok(sent)
}

/// Whether the client was asked for and seems to be gone.
fn gives_way(alarm: &Alarm, socket: &Handle) -> bool {
    let silent = |least| ring::silence(socket).is_ok_and(|silence| silence >= least);
    alarm.watch().gives_way(silent)
}

/// What a socket took, which is nothing where it has no room.
fn taken(sent: io::Result<usize>) -> Result<usize, Broken> {
    match sent {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        sent => sent.map_err(Broken::Lost),
    }
}
