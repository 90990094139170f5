//! One thread of the run: its slots, its epoll, its clock.
//!
//! A slot plays one session after the other. Kernel calls are what a generator
//! spends its time on, so: a socket is registered once, edge-triggered, for
//! reading and writing together, and never again; it is read only after its
//! event and not read again when the read was short; commands are written
//! without asking whether the socket takes them (only what it did not take
//! waits for the event); one `epoll_wait` serves all that is ready. Nagle's
//! algorithm is left on: with one command under way nothing is ever held back,
//! and turning it off would be a call more.
//!
//! A session ends when the server closes after its reply to QUIT: whoever
//! closes first keeps the port in TIME-WAIT, and a client that did would run
//! out of ports, or would log in again before the maildrop is free.
//!
//! Time-outs are looked for ten times a second over all slots rather than kept
//! by a timer each: they are rare and need no precision.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::time::Timespec;

use crate::dialogue::{Dialogue, Profile, Progress, Surroundings};
use crate::fault::{Fault, Kind};
use crate::measure::Record;
use crate::plan::Plan;

/// Octets read at once: a whole message of mean size, or much of a large one.
const READ: usize = 256 * 1024;
/// Events taken from the kernel at once.
const EVENTS: usize = 256;
/// How often slots are looked over for time-outs, and the run's end is noticed.
const LOOK: Duration = Duration::from_millis(100);
/// First rest of a slot after a failure; doubled with each further one.
const FIRST_REST: Duration = Duration::from_millis(100);
/// Longest rest of a slot.
const LONGEST_REST: Duration = Duration::from_secs(5);
/// Logins under way at a time on a thread while idle sessions are gathered: a
/// server whose logins queue up shall not be tried with ten thousand at once.
const IDLE_LOGINS: usize = 32;

/// What the threads and their coordinator tell each other.
#[derive(Debug, Default)]
pub struct Shared {
    /// No session is begun any more; idle ones quit.
    pub stop: AtomicBool,
    /// Sessions under way are dropped, and count as not answered in time.
    pub abandon: AtomicBool,
    /// The operator interrupted: sessions under way are dropped and not counted.
    pub interrupt: AtomicBool,
    /// Sessions begun.
    pub begun: AtomicU64,
    /// Sessions that came to their end or to idleness, faulty or not.
    pub lived: AtomicU64,
    /// Sessions that broke off.
    pub broken: AtomicU64,
    /// Sessions idle now.
    pub idle: AtomicU64,
}

#[derive(Debug)]
enum Link {
    /// Begins a session as soon as it may.
    Ready,
    /// Begins one after a while.
    Resting {
        until: Instant,
    },
    Connecting(OwnedFd),
    Talking(OwnedFd),
    /// Logged in and idle.
    Holding(OwnedFd),
    /// QUIT is answered.
    Closing(OwnedFd),
    /// Nothing more to do.
    Over,
}

#[derive(Debug)]
struct Slot {
    link: Link,
    dialogue: Dialogue,
    /// What the socket did not take at once.
    out: Vec<u8>,
    /// When the session is given up, unless bytes come.
    deadline: Instant,
    /// Index of the user; goes on by the run's number of sessions.
    user: usize,
    /// The rest after the next failure.
    rest: Duration,
}

/// One thread's share of the run.
#[derive(Debug)]
pub struct Engine<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    epoll: OwnedFd,
    slots: Vec<Slot>,
    /// Global number of the first slot: slots of all threads interleave.
    thread: usize,
    record: Record,
    /// Slots that are [`Link::Ready`], last first.
    ready: Vec<usize>,
    logins: usize,
    over: usize,
}

impl<'a> Engine<'a> {
    /// The share of thread number `thread` of `plan.threads`.
    pub fn new(plan: &'a Plan, shared: &'a Shared, thread: usize) -> io::Result<Self> {
        let now = Instant::now();
        let slots: Vec<Slot> = (thread..plan.sessions)
            .step_by(plan.threads)
            .map(|number| Slot {
                link: Link::Ready,
                dialogue: Dialogue::new(plan.profile, plan.seed ^ (number as u64) << 32, now),
                out: Vec::new(),
                deadline: now,
                user: number,
                rest: FIRST_REST,
            })
            .collect();
        Ok(Self {
            plan,
            shared,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            ready: (0..slots.len()).rev().collect(),
            slots,
            thread,
            record: Record::default(),
            logins: 0,
            over: 0,
        })
    }

    /// Plays until the run is over, and gives what was counted.
    pub fn run(mut self) -> io::Result<Record> {
        let mut buffer = vec![0; READ];
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        let wait = Timespec::try_from(LOOK).expect("a short time");
        let mut next_look = Instant::now();
        while self.over < self.slots.len() {
            let now = Instant::now();
            if now >= next_look {
                next_look = now + LOOK;
                self.look_over(now);
                if self.shared.interrupt.load(Relaxed) {
                    break;
                }
                if self.shared.abandon.load(Relaxed) {
                    self.abandon(now);
                    break;
                }
            }
            self.begin_ready(now);
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                let (flags, data) = (event.flags, event.data);
                let slot = usize::try_from(data.u64()).expect("an index that was an usize");
                self.serve(slot, flags, &mut buffer);
            }
        }
        Ok(self.record)
    }

    fn stopping(&self) -> bool {
        self.shared.stop.load(Relaxed)
    }

    /// Wakes slots whose rest is over, gives up what is late, ends idle sessions.
    fn look_over(&mut self, now: Instant) {
        let stopping = self.stopping();
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            match slot.link {
                Link::Ready | Link::Resting { .. } if stopping => {
                    slot.link = Link::Over;
                    self.over += 1;
                }
                Link::Resting { until } if now >= until => {
                    slot.link = Link::Ready;
                    self.ready.push(index);
                }
                Link::Holding(_) if stopping => self.quit(index, now),
                Link::Connecting(_) | Link::Talking(_) | Link::Closing(_)
                    if now >= slot.deadline =>
                {
                    self.give_up(index, now);
                }
                _ => {}
            }
        }
        if stopping {
            self.ready.clear();
        }
    }

    /// The time-out of a slot has passed.
    fn give_up(&mut self, index: usize, now: Instant) {
        let seconds = self.plan.timeout.as_secs_f64();
        let fault = match &self.slots[index].link {
            Link::Connecting(_) => {
                Fault::new(Kind::Connect, format!("no connection within {seconds} s"))
            }
            Link::Closing(_) => {
                let text = format!("still open {seconds} s after the reply to QUIT");
                Fault::new(Kind::NoClose, text)
            }
            _ => Fault::new(Kind::Timeout, format!("no answer within {seconds} s")),
        };
        self.fail(index, fault, now);
    }

    /// Counts sessions that outlive the run.
    fn abandon(&mut self, now: Instant) {
        for index in 0..self.slots.len() {
            if !matches!(self.slots[index].link, Link::Resting { .. } | Link::Over) {
                let text = "the run is over and the session is not";
                self.fail(index, Fault::new(Kind::Timeout, text), now);
            }
        }
    }

    fn begin_ready(&mut self, now: Instant) {
        while !(self.plan.profile == Profile::Idle && self.logins >= IDLE_LOGINS) {
            let Some(index) = self.ready.pop() else {
                return;
            };
            self.begin(index, now);
        }
    }

    /// Begins a session on a ready slot, or ends the slot.
    fn begin(&mut self, index: usize, now: Instant) {
        let spent = || self.shared.begun.fetch_add(1, Relaxed) >= self.plan.max_sessions;
        if self.stopping() || spent() {
            self.slots[index].link = Link::Over;
            self.over += 1;
            return;
        }
        let source = self.source_of(index);
        let slot = &mut self.slots[index];
        slot.dialogue.begin(now);
        slot.out.clear();
        slot.deadline = now + self.plan.timeout;
        self.logins += 1;
        match connect(self.plan, source) {
            Ok(socket) => {
                let interest =
                    EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
                let added = epoll::add(
                    &self.epoll,
                    &socket,
                    EventData::new_u64(index as u64),
                    interest,
                );
                slot.link = Link::Connecting(socket);
                if let Err(error) = added {
                    self.fail(index, local(error), now);
                }
            }
            Err(error) => {
                slot.link = Link::Ready;
                self.fail(index, cannot_connect(error), now);
            }
        }
    }

    fn source_of(&self, index: usize) -> Option<std::net::Ipv4Addr> {
        let sources = &self.plan.sources;
        let number = self.thread + index * self.plan.threads;
        (!sources.is_empty()).then(|| sources[number % sources.len()])
    }

    /// Something happened on a slot's socket.
    fn serve(&mut self, index: usize, flags: EventFlags, buffer: &mut [u8]) {
        let now = Instant::now();
        let slot = &mut self.slots[index];
        if let Link::Connecting(socket) = &slot.link {
            if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
                let error = net::sockopt::socket_error(socket);
                let error = error
                    .and_then(|state| state)
                    .err()
                    .unwrap_or(Errno::CONNRESET);
                return self.fail(index, cannot_connect(error), now);
            }
            if let Link::Connecting(socket) = mem::replace(&mut slot.link, Link::Over) {
                slot.link = Link::Talking(socket);
            }
            slot.dialogue.connected(now, &mut self.record);
        }
        if !slot.out.is_empty()
            && flags.contains(EventFlags::OUT)
            && let Err(fault) = slot.flush()
        {
            return self.fail(index, fault, now);
        }
        let ended = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        if flags.intersects(EventFlags::IN | ended) {
            self.read(index, flags.intersects(ended), buffer, now);
        }
    }

    /// Reads what is there. `ended`: the server has closed behind it.
    fn read(&mut self, index: usize, ended: bool, buffer: &mut [u8], now: Instant) {
        loop {
            let slot = &mut self.slots[index];
            let (Link::Talking(socket) | Link::Holding(socket) | Link::Closing(socket)) =
                &slot.link
            else {
                return;
            };
            let read = match net::recv(socket, &mut *buffer, RecvFlags::empty()) {
                Ok((read, _)) => read,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return,
                Err(error) => {
                    let fault = Fault::new(Kind::Reset, io::Error::from(error).to_string());
                    return self.fail(index, fault, now);
                }
            };
            if read == 0 {
                return self.closed(index, now);
            }
            slot.deadline = now + self.plan.timeout;
            self.received(index, &buffer[..read], now);
            if read < buffer.len() {
                if ended {
                    self.closed(index, now);
                }
                return;
            }
        }
    }

    /// The server closed the connection.
    fn closed(&mut self, index: usize, now: Instant) {
        match &self.slots[index].link {
            Link::Closing(_) => {
                self.slots[index].rest = FIRST_REST;
                self.follow(index, now);
            }
            Link::Talking(_) | Link::Holding(_) => {
                let fault = Fault::new(Kind::Closed, "the server closed the connection");
                self.fail(index, fault, now);
            }
            _ => {}
        }
    }

    fn received(&mut self, index: usize, bytes: &[u8], now: Instant) {
        let slot = &mut self.slots[index];
        let mut around = Surroundings {
            now,
            login: &self.plan.logins[slot.user],
            record: &mut self.record,
            out: &mut slot.out,
        };
        let progress = slot.dialogue.receive(bytes, &mut around);
        if let Progress::Failed(fault) = progress {
            return self.fail(index, fault, now);
        }
        if !slot.out.is_empty()
            && let Err(fault) = slot.flush()
        {
            return self.fail(index, fault, now);
        }
        match progress {
            Progress::Waiting | Progress::Failed(_) => {}
            Progress::Idle => {
                slot.moved(Link::Holding);
                self.logins -= 1;
                self.shared.idle.fetch_add(1, Relaxed);
                self.shared.lived.fetch_add(1, Relaxed);
            }
            Progress::Finished => {
                slot.moved(Link::Closing);
                self.shared.lived.fetch_add(1, Relaxed);
            }
        }
    }

    /// Ends an idle session.
    fn quit(&mut self, index: usize, now: Instant) {
        let slot = &mut self.slots[index];
        let mut around = Surroundings {
            now,
            login: &self.plan.logins[slot.user],
            record: &mut self.record,
            out: &mut slot.out,
        };
        slot.dialogue.quit(&mut around);
        slot.deadline = now + self.plan.timeout;
        slot.moved(Link::Talking);
        self.shared.idle.fetch_sub(1, Relaxed);
        self.logins += 1;
        if let Err(fault) = slot.flush() {
            self.fail(index, fault, now);
        }
    }

    /// Counts a session that broke off; its slot rests.
    fn fail(&mut self, index: usize, fault: Fault, now: Instant) {
        let slot = &mut self.slots[index];
        let mut around = Surroundings {
            now,
            login: &self.plan.logins[slot.user],
            record: &mut self.record,
            out: &mut slot.out,
        };
        // A session whose QUIT is answered is counted already.
        if matches!(slot.link, Link::Closing(_)) {
            around.record.fault(&fault, &around.login.user);
        } else {
            slot.dialogue.fail(fault, &mut around);
        }
        self.shared.broken.fetch_add(1, Relaxed);
        if matches!(slot.link, Link::Holding(_)) {
            self.shared.idle.fetch_sub(1, Relaxed);
            self.logins += 1;
        }
        self.logins -= 1;
        slot.user = self.plan.user_after(slot.user);
        slot.link = Link::Resting {
            until: now + slot.rest,
        };
        slot.rest = (slot.rest * 2).min(LONGEST_REST);
    }

    /// A session is over; the next follows at once.
    fn follow(&mut self, index: usize, now: Instant) {
        let slot = &mut self.slots[index];
        slot.user = self.plan.user_after(slot.user);
        slot.link = Link::Ready;
        self.logins -= 1;
        self.begin(index, now);
    }
}

impl Slot {
    /// Takes the socket from one state of the link to the next.
    fn moved(&mut self, to: fn(OwnedFd) -> Link) {
        self.link = match mem::replace(&mut self.link, Link::Over) {
            Link::Connecting(socket)
            | Link::Talking(socket)
            | Link::Holding(socket)
            | Link::Closing(socket) => to(socket),
            link @ (Link::Ready | Link::Resting { .. } | Link::Over) => link,
        };
    }

    /// Sends what is in `out`; what the socket does not take stays there.
    fn flush(&mut self) -> Result<(), Fault> {
        let (Link::Talking(socket) | Link::Holding(socket) | Link::Closing(socket)) = &self.link
        else {
            return Ok(());
        };
        while !self.out.is_empty() {
            match net::send(socket, &self.out, SendFlags::NOSIGNAL) {
                Ok(sent) if sent == self.out.len() => self.out.clear(),
                Ok(sent) => drop(self.out.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => {
                    return Err(Fault::new(Kind::Reset, io::Error::from(error).to_string()));
                }
            }
        }
        Ok(())
    }
}

impl Plan {
    /// The user who follows on the slot of this one: a step of `sessions`, so
    /// that no two slots ever share a user.
    fn user_after(&self, user: usize) -> usize {
        let next = user + self.sessions;
        if next < self.logins.len() {
            next
        } else {
            user % self.sessions
        }
    }
}

/// A socket on its way to the target.
fn connect(plan: &Plan, source: Option<std::net::Ipv4Addr>) -> Result<OwnedFd, Errno> {
    let family = match plan.target {
        std::net::SocketAddr::V4(_) => AddressFamily::INET,
        std::net::SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    if let Some(source) = source {
        net::bind(&socket, &std::net::SocketAddr::from((source, 0)))?;
    }
    match net::connect(&socket, &plan.target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

fn cannot_connect(error: Errno) -> Fault {
    match error {
        Errno::MFILE | Errno::NFILE | Errno::ADDRNOTAVAIL | Errno::NOBUFS | Errno::NOMEM => {
            local(error)
        }
        _ => Fault::new(Kind::Connect, io::Error::from(error).to_string()),
    }
}

/// The generator's machine has run out of something.
fn local(error: Errno) -> Fault {
    let remedy = match error {
        Errno::MFILE | Errno::NFILE => "; raise the limit of open files or lower --sessions",
        Errno::ADDRNOTAVAIL => "; widen net.ipv4.ip_local_port_range or lower --sessions",
        _ => "",
    };
    Fault::new(Kind::Local, format!("{}{remedy}", io::Error::from(error)))
}
