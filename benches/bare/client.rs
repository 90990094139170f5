//! The floor of a client: poll sessions in lockstep that know no more of POP3 than
//! that a reply begins with `+OK` and where it ends.
//!
//! It makes the kernel calls that popcore-loadgen makes, in the same way: one
//! thread, one epoll, edge-triggered, sockets that serve one session after the
//! other. What the generator costs above it is what checks, histograms, users and
//! schedules cost; what it costs itself is TCP, of which a client on the server's
//! machine bears both ends of every handshake.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::time::{ClockId, clock_gettime};

/// Events taken from the kernel at once.
const EVENTS: usize = 256;
/// More than any reply here.
const READ: usize = 64 * 1024;
/// Commands of a session.
const COMMANDS: usize = 5;
/// Longest time without an event: a client that waits for ever measures nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What was played.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) sessions: u64,
    pub(crate) elapsed: Duration,
    /// CPU time of this process.
    pub(crate) cpu: Duration,
}

/// One session after the other, without its socket.
pub(crate) struct Dialogue {
    /// What two users send in turn, so that none logs in again at once. Commands are kept
    /// for as long as the process lasts: a ring may read one at any time.
    users: [[&'static [u8]; COMMANDS]; 2],
    turn: usize,
    /// Commands sent.
    sent: usize,
    reply: Vec<u8>,
}

pub(crate) fn fault(text: &str) -> io::Error {
    io::Error::other(text.to_owned())
}

impl Dialogue {
    /// The sessions of users `2 * number` and the next one.
    pub(crate) fn new(number: usize, password: &str) -> Self {
        let kept = |text: String| -> &'static [u8] { text.into_bytes().leak() };
        let users = [0, 1].map(|turn| {
            [
                kept(format!("USER user{}\r\n", number * 2 + turn)),
                kept(format!("PASS {password}\r\n")),
                b"STAT\r\n",
                b"UIDL\r\n",
                b"QUIT\r\n",
            ]
        });
        Self {
            users,
            turn: 0,
            sent: 0,
            reply: Vec::new(),
        }
    }

    /// What is to be sent when this has come.
    pub(crate) fn received(&mut self, came: &[u8]) -> io::Result<Option<&'static [u8]>> {
        self.reply.extend_from_slice(came);
        // UIDL's is the fourth command's; all other replies are a line.
        let end: &[u8] = if self.sent == 4 {
            b"\r\n.\r\n"
        } else {
            b"\r\n"
        };
        if self.reply.is_empty() || !self.reply.ends_with(end) {
            return Ok(None);
        }
        if !self.reply.starts_with(b"+OK") {
            return Err(fault(&self.reply.escape_ascii().to_string()));
        }
        self.reply.clear();
        let command = self.users[self.turn].get(self.sent).copied();
        self.sent += usize::from(command.is_some());
        Ok(command)
    }

    /// The server has closed; the next session begins.
    pub(crate) fn over(&mut self) -> io::Result<()> {
        if self.sent < COMMANDS || !self.reply.is_empty() {
            return Err(fault("the server closed amid a session"));
        }
        (self.sent, self.turn) = (0, 1 - self.turn);
        Ok(())
    }
}

/// A socket, and the sessions that it serves.
struct Slot {
    socket: OwnedFd,
    dialogue: Dialogue,
}

/// Begins sessions for so long: `sessions` at a time, with twice as many users, `user0` and on.
pub(crate) fn play(
    target: SocketAddr,
    sessions: usize,
    password: &str,
    length: Duration,
) -> io::Result<Played> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut slots = Vec::new();
    let (began, cpu_before) = (Instant::now(), clock_gettime(ClockId::ProcessCPUTime));
    for number in 0..sessions {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        connect(&socket, target)?;
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&epoll, &socket, EventData::new_u64(number as u64), interest)?;
        slots.push(Slot {
            socket,
            dialogue: Dialogue::new(number, password),
        });
    }
    let (mut buffer, mut played) = (vec![0; READ], 0);
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
    let patience = Timespec::try_from(PATIENCE).expect("a short time");
    let mut open = sessions;
    while open > 0 {
        match epoll::wait(&epoll, spare_capacity(&mut events), Some(&patience)) {
            Ok(0) => return Err(fault("the server fell silent")),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            let (flags, number) = (event.flags, event.data.u64());
            let slot = &mut slots[usize::try_from(number).expect("a slot's number")];
            if flags.intersects(EventFlags::IN | EventFlags::RDHUP)
                && slot.serve(flags, &mut buffer)?
            {
                played += 1;
                net::connect_unspec(&slot.socket)?;
                if began.elapsed() < length {
                    connect(&slot.socket, target)?;
                } else {
                    open -= 1;
                }
            }
        }
    }
    let cpu = |time| Duration::try_from(time).unwrap_or_default();
    Ok(Played {
        sessions: played,
        elapsed: began.elapsed(),
        cpu: cpu(clock_gettime(ClockId::ProcessCPUTime)).saturating_sub(cpu(cpu_before)),
    })
}

fn connect(socket: &OwnedFd, target: SocketAddr) -> io::Result<()> {
    match net::connect(socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Slot {
    /// True: the session is over and the server has closed.
    fn serve(&mut self, flags: EventFlags, buffer: &mut [u8]) -> io::Result<bool> {
        let (read, _) = net::recv(&self.socket, &mut *buffer, RecvFlags::empty())?;
        if let Some(command) = self.dialogue.received(&buffer[..read])? {
            let sent = net::send(&self.socket, command, SendFlags::NOSIGNAL)?;
            if sent != command.len() {
                return Err(fault("the socket took a part of a command"));
            }
            return Ok(false);
        }
        if read > 0 && !flags.contains(EventFlags::RDHUP) {
            return Ok(false);
        }
        self.dialogue.over()?;
        Ok(true)
    }
}
