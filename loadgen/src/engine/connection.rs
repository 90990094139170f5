//! What happens to one slot: its connection made, read, closed or broken.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags};

use super::{Engine, FIRST_REST, LONGEST_REST, QUARANTINE, READS};
use crate::args::Chaos;
use crate::dialogue::{Dialogue, Progress};
use crate::fault::{Fault, Kind};
use crate::measure::Record;
use crate::proxy;
use crate::slot::{Link, cannot_connect, connect, local, reconnect};
use crate::tls::Mode;

/// How often a chaotic session does its little.
const TICK: Duration = Duration::from_millis(20);
/// Octets that a slow reader takes at a time.
const SIP: usize = 512;
/// How long a half-open session stays.
const STALL: Duration = Duration::from_secs(10);

/// Whether the server has closed behind what is to be read.
#[derive(Clone, Copy)]
enum End {
    Come,
    NotYet,
    /// The event that told of it may be an earlier turn's: the socket is asked until
    /// it has nothing more.
    Unknown,
}

impl Engine<'_> {
    /// Connects a slot that has a user.
    pub(super) fn open(&mut self, index: usize, intended: Instant, now: Instant) {
        let source = self.source_of(index);
        let slot = &mut self.slots[index];
        slot.tls = None;
        slot.turn = slot.turn.wrapping_add(1);
        slot.dialogue.begin(intended, now);
        slot.out.clear();
        slot.deadline = now + self.plan.timeout;
        self.logins += 1;
        let open = self.shared.open.fetch_add(1, Relaxed) + 1;
        self.record.most_open = self.record.most_open.max(open);
        let begun = match slot.left_over() {
            Some(socket) => reconnect(self.plan, socket).map_err(cannot_connect),
            None => connect(self.plan, source, slot.chaos)
                .map_err(cannot_connect)
                .and_then(|socket| self.register(index, socket)),
        };
        match begun {
            Ok(socket) => self.slots[index].link = Link::Connecting(socket),
            Err(fault) => self.fail(index, fault, now),
        }
    }

    fn register(&self, index: usize, socket: OwnedFd) -> Result<OwnedFd, Fault> {
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let data = EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &socket, data, interest).map_err(local)?;
        Ok(socket)
    }

    fn source_of(&self, index: usize) -> Option<std::net::Ipv4Addr> {
        let sources = &self.plan.sources;
        let number = self.thread + index * self.plan.threads;
        (!sources.is_empty()).then(|| sources[number % sources.len()])
    }

    fn record_of(&mut self, index: usize) -> &mut Record {
        if self.slots[index].chaos.is_none() {
            &mut self.record
        } else {
            &mut self.shadow
        }
    }

    /// Something happened on a slot's socket.
    pub(super) fn serve(&mut self, index: usize, flags: EventFlags, buffer: &mut [u8]) {
        let now = Instant::now();
        let ended = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        if let Link::Connecting(socket) = &self.slots[index].link {
            if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
                let error = net::sockopt::socket_error(socket);
                let error = error
                    .and_then(|state| state)
                    .err()
                    .unwrap_or(Errno::CONNRESET);
                return self.fail(index, cannot_connect(error), now);
            }
            if let Err(fault) = self.connected(index, now) {
                return self.fail(index, fault, now);
            }
        }
        if !self.slots[index].out.is_empty()
            && flags.contains(EventFlags::OUT)
            && let Err(fault) = self.send(index)
        {
            return self.fail(index, fault, now);
        }
        let slot = &self.slots[index];
        let apart = slot.hungry || slot.chaos == Some(Chaos::SlowReader);
        if !apart && flags.intersects(EventFlags::IN | ended) {
            let end = if flags.intersects(ended) {
                End::Come
            } else {
                End::NotYet
            };
            self.read(index, end, buffer, now);
        }
    }

    /// Goes on with slots whose sockets had more than one turn may read.
    pub(super) fn feed(&mut self, buffer: &mut [u8]) {
        for _ in 0..self.hungry.len() {
            let Some(index) = self.hungry.pop_front() else {
                return;
            };
            self.slots[index].hungry = false;
            self.read(index, End::Unknown, buffer, Instant::now());
        }
    }

    /// The connection stands.
    fn connected(&mut self, index: usize, now: Instant) -> Result<(), Fault> {
        self.slots[index].moved(Link::Talking);
        self.with(index, now, |dialogue, around| {
            dialogue.connected(now, around.record);
        });
        if let Some(header) = &self.plan.header {
            let network = header.sources[self.random.below(header.sources.len())];
            let port = 1024 + u16::try_from(self.random.below(60_000)).unwrap_or_default();
            let source = SocketAddr::new(network.any(&mut self.random), port);
            let out = &mut self.slots[index].out;
            proxy::write(header.version, source, self.plan.target, out);
        }
        if self.plan.conduct.tls == Mode::Implicit {
            self.begin_tls(index)?;
        }
        let slow = [Chaos::SlowReader, Chaos::OneByteWriter];
        if self.slots[index].chaos.is_some_and(|c| slow.contains(&c)) {
            self.set_timer(index, now + TICK);
        }
        self.send(index)
    }

    fn begin_tls(&mut self, index: usize) -> Result<(), Fault> {
        let client = self.plan.tls.as_ref();
        let client = client.expect("a plan with TLS has a client");
        let connection = client
            .connect(&mut self.random)
            .map_err(|e| Fault::new(Kind::Tls, e.to_string()))?;
        self.slots[index].tls = Some(Box::new(connection));
        Ok(())
    }

    /// Sends what there is.
    fn send(&mut self, index: usize) -> Result<(), Fault> {
        let slot = &mut self.slots[index];
        slot.seal(&mut self.plain)?;
        match slot.chaos {
            // The timer's tick sends.
            Some(Chaos::OneByteWriter) => Ok(()),
            _ => slot.flush(usize::MAX),
        }
    }

    /// A timer fired: a pause is over, or a chaotic session does its little.
    pub(super) fn tick(&mut self, index: usize, buffer: &mut [u8], now: Instant) {
        if matches!(self.slots[index].link, Link::Pausing(_)) {
            self.slots[index].moved(Link::Talking);
            self.slots[index].deadline = now + self.plan.timeout;
            let progress = self.with(index, now, Dialogue::wake);
            self.progressed(index, progress, now);
        }
        let slot = &mut self.slots[index];
        let turn = slot.turn;
        match slot.chaos {
            Some(Chaos::OneByteWriter) => {
                if let Err(fault) = slot.flush(1) {
                    return self.fail(index, fault, now);
                }
            }
            Some(Chaos::SlowReader) => self.sip(index, buffer, now),
            _ => return,
        }
        // Unless a pause has set a timer of its own, or the session is over.
        let slot = &self.slots[index];
        if slot.turn == turn && slot.socket().is_some() {
            self.set_timer(index, now + TICK);
        }
    }

    /// Reads a little.
    fn sip(&mut self, index: usize, buffer: &mut [u8], now: Instant) {
        let Some(socket) = self.slots[index].socket() else {
            return;
        };
        match net::recv(socket, &mut buffer[..SIP], RecvFlags::empty()) {
            Ok((0, _)) => self.closed(index, now),
            Ok((read, _)) => {
                self.slots[index].deadline = now + self.plan.timeout;
                self.take(index, buffer, read, now);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => self.broken(index, error, now),
        }
    }

    /// The network ended the connection: behind the reply to QUIT that is an end like
    /// any other.
    fn broken(&mut self, index: usize, error: Errno, now: Instant) {
        if matches!(self.slots[index].link, Link::Closing(_)) {
            return self.closed(index, now);
        }
        let fault = Fault::new(Kind::Reset, io::Error::from(error).to_string());
        self.fail(index, fault, now);
    }

    /// Reads what is there, or as much as one turn may.
    fn read(&mut self, index: usize, end: End, buffer: &mut [u8], mut now: Instant) {
        for turn in 0..READS {
            // A session that has ended may have left its slot to the next one.
            if matches!(self.slots[index].link, Link::Connecting(_)) {
                return;
            }
            let most = self.slots[index].mouthful().unwrap_or(buffer.len());
            let Some(socket) = self.slots[index].socket() else {
                return;
            };
            let read = match net::recv(socket, &mut buffer[..most], RecvFlags::empty()) {
                Ok((read, _)) => read,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return,
                Err(error) => return self.broken(index, error, now),
            };
            if turn > 0 {
                now = Instant::now();
            }
            if read == 0 {
                return self.closed(index, now);
            }
            self.slots[index].deadline = now + self.plan.timeout;
            self.take(index, buffer, read, now);
            match end {
                End::Come if read < most => return self.closed(index, now),
                End::NotYet if read < most => return,
                _ => {}
            }
        }
        if !self.slots[index].hungry {
            self.slots[index].hungry = true;
            self.hungry.push_back(index);
        }
    }

    /// The first `read` octets of the buffer came.
    fn take(&mut self, index: usize, buffer: &mut [u8], read: usize, now: Instant) {
        if self.slots[index].tls.is_none() {
            return self.received(index, &buffer[..read], now);
        }
        let came = buffer[..read].to_vec();
        let mut sealed = &came[..];
        loop {
            let is_shaking = |engine: &Self| {
                let tls = engine.slots[index].tls.as_ref();
                tls.map(|tls| tls.is_handshaking())
            };
            // Gone when what was read before has ended the session.
            let Some(shaking) = is_shaking(self) else {
                return;
            };
            let most = self.slots[index].mouthful().unwrap_or(buffer.len());
            let opened = match self.slots[index].open(&mut sealed, &mut buffer[..most]) {
                Ok(opened) => opened,
                Err(fault) => {
                    let _ = self.slots[index].flush(usize::MAX);
                    return self.fail(index, fault, now);
                }
            };
            if shaking && is_shaking(self) == Some(false) {
                self.secured(index, now);
            } else if let Err(fault) = self.send(index) {
                // Handshakes and key updates have answers of their own.
                return self.fail(index, fault, now);
            }
            if opened > 0 {
                self.received(index, &buffer[..opened], now);
            }
            if opened < most && sealed.is_empty() {
                return;
            }
        }
    }

    fn secured(&mut self, index: usize, now: Instant) {
        let tls = self.slots[index].tls.as_ref();
        let kind = tls.and_then(|tls| tls.handshake_kind());
        let record = self.record_of(index);
        if kind == Some(rustls::HandshakeKind::Resumed) {
            record.tls_resumed += 1;
        } else {
            record.tls_full += 1;
        }
        let progress = self.with(index, now, Dialogue::secured);
        self.progressed(index, progress, now);
    }

    /// The server closed the connection.
    fn closed(&mut self, index: usize, now: Instant) {
        match &self.slots[index].link {
            Link::Closing(_) => {
                self.slots[index].rest = FIRST_REST;
                self.follow(index, now);
            }
            Link::Stalled(_) => self.vanish(index, now),
            Link::Talking(_) | Link::Holding(_) | Link::Pausing(_) => {
                let fault = Fault::new(Kind::Closed, "the server closed the connection");
                self.fail(index, fault, now);
            }
            _ => {}
        }
    }

    fn received(&mut self, index: usize, bytes: &[u8], now: Instant) {
        if matches!(self.slots[index].link, Link::Stalled(_)) {
            return;
        }
        let progress = self.with(index, now, |dialogue, around| {
            dialogue.receive(bytes, around)
        });
        let slot = &mut self.slots[index];
        match slot.chaos {
            Some(Chaos::Reset) if slot.dialogue.is_amid_message() => {
                slot.reset();
                self.record.chaos_reset += 1;
                return self.vanish(index, now);
            }
            Some(Chaos::HalfOpen) if slot.dialogue.is_logged_in() => {
                slot.out.clear();
                self.plain.clear();
                slot.deadline = now + STALL;
                slot.moved(Link::Stalled);
                return;
            }
            _ => {}
        }
        self.progressed(index, progress, now);
    }

    fn progressed(&mut self, index: usize, progress: Progress, now: Instant) {
        if let Progress::Failed(fault) = progress {
            return self.fail(index, fault, now);
        }
        let slot = &self.slots[index];
        if (!slot.out.is_empty() || slot.tls.is_some())
            && let Err(fault) = self.send(index)
        {
            return self.fail(index, fault, now);
        }
        match progress {
            Progress::Waiting | Progress::Failed(_) => {}
            Progress::StartTls => {
                let begun = self.begin_tls(index).and_then(|()| self.send(index));
                if let Err(fault) = begun {
                    self.fail(index, fault, now);
                }
            }
            Progress::Think(pause) => {
                self.slots[index].moved(Link::Pausing);
                let told = self.shared.stop.load(Relaxed);
                let pause = if told { Duration::ZERO } else { pause };
                self.set_timer(index, now + pause);
            }
            Progress::Idle => {
                self.slots[index].moved(Link::Holding);
                self.logins -= 1;
                self.shared.idle.fetch_add(1, Relaxed);
                self.shared.lived.fetch_add(1, Relaxed);
            }
            Progress::Finished => {
                self.slots[index].moved(Link::Closing);
                self.shared.lived.fetch_add(1, Relaxed);
            }
        }
    }

    /// Ends an idle session.
    pub(super) fn quit(&mut self, index: usize, now: Instant) {
        self.slots[index].deadline = now + self.plan.timeout;
        self.slots[index].moved(Link::Talking);
        self.shared.idle.fetch_sub(1, Relaxed);
        self.logins += 1;
        let progress = self.with(index, now, Dialogue::quit);
        self.progressed(index, progress, now);
    }

    /// Counts a session that broke off; its slot rests.
    pub(super) fn fail(&mut self, index: usize, fault: Fault, now: Instant) {
        // A session whose QUIT is answered is counted already.
        let counted = matches!(self.slots[index].link, Link::Closing(_));
        self.with(index, now, |dialogue, around| {
            if counted {
                around.record.fault(&fault, &around.login.user);
            } else {
                dialogue.fail(fault, around);
            }
        });
        self.plain.clear();
        let chaotic = self.slots[index].chaos.is_some();
        if !chaotic {
            self.shared.broken.fetch_add(1, Relaxed);
        }
        if matches!(self.slots[index].link, Link::Holding(_)) {
            self.shared.idle.fetch_sub(1, Relaxed);
            self.logins += 1;
        }
        if chaotic || self.clock.is_some() {
            return self.release(index, now);
        }
        self.gone();
        let slot = &mut self.slots[index];
        slot.tls = None;
        slot.turn = slot.turn.wrapping_add(1);
        slot.link = Link::Resting {
            until: now + slot.rest,
        };
        slot.rest = (slot.rest * 2).min(LONGEST_REST);
    }

    /// A chaotic session is gone without QUIT.
    pub(super) fn vanish(&mut self, index: usize, now: Instant) {
        self.with(index, now, Dialogue::give_up);
        self.release(index, now);
    }

    /// A session broke off: its slot is free, and its user after a while.
    fn release(&mut self, index: usize, now: Instant) {
        let slot = &mut self.slots[index];
        slot.link = Link::Ready(None);
        slot.tls = None;
        slot.turn = slot.turn.wrapping_add(1);
        if let Some(user) = self.free_user(index) {
            self.quarantine.push_back((now + QUARANTINE, user));
        }
        self.gone();
        self.wait_for_next(index);
    }

    /// A connection is no more.
    fn gone(&mut self) {
        self.logins -= 1;
        self.shared.open.fetch_sub(1, Relaxed);
    }

    /// A slot has no session and is among its own.
    fn wait_for_next(&mut self, index: usize) {
        if index < self.sane {
            self.ready.push(index);
        } else {
            self.places.push(index);
        }
    }

    /// A session is over; in a closed loop the next follows at once.
    fn follow(&mut self, index: usize, now: Instant) {
        let slot = &mut self.slots[index];
        slot.part(self.plan.close);
        slot.tls = None;
        slot.turn = slot.turn.wrapping_add(1);
        if let Some(user) = self.free_user(index) {
            self.pool.give(user);
        }
        self.gone();
        if self.clock.is_some() || index >= self.sane {
            self.wait_for_next(index);
        } else {
            self.begin(index, now);
        }
    }
}
