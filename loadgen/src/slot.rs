//! A slot's connection: the socket in its states, TLS over it, and how bytes
//! get onto it.

use std::io::{self, Read as _, Write as _};
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SendFlags, SocketFlags, SocketType};
use rustls::ClientConnection;

use crate::args::{Chaos, Close};
use crate::dialogue::Dialogue;
use crate::fault::{Fault, Kind};
use crate::plan::Plan;

/// Octets read at a time where a message is to be left in its midst: fewer than a short
/// one has.
const TASTE: usize = 16;

/// Where a slot's session stands.
#[derive(Debug)]
pub(crate) enum Link {
    /// Begins a session as soon as it may, on the socket of the one before where
    /// that is left.
    Ready(Option<OwnedFd>),
    /// Begins one after a while; keeps its user until then.
    Resting {
        until: Instant,
    },
    Connecting(OwnedFd),
    Talking(OwnedFd),
    /// Between two commands, on purpose.
    Pausing(OwnedFd),
    /// Logged in and idle.
    Holding(OwnedFd),
    /// Silent for good, on purpose.
    Stalled(OwnedFd),
    /// QUIT is answered.
    Closing(OwnedFd),
    /// Nothing more to do.
    Over,
}

/// One session after the other.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) link: Link,
    pub(crate) dialogue: Dialogue,
    /// What the socket has still to take.
    pub(crate) out: Vec<u8>,
    pub(crate) tls: Option<Box<ClientConnection>>,
    /// When the session is given up, unless bytes come.
    pub(crate) deadline: Instant,
    /// Among the thread's users.
    pub(crate) user: Option<usize>,
    /// How its session misbehaves; only slots that are for it have one that does.
    pub(crate) chaos: Option<Chaos>,
    /// The rest after the next failure.
    pub(crate) rest: Duration,
    /// Counts sessions and timers, so that a timer of the past is known as one.
    pub(crate) turn: u32,
    /// Is on the list of those whose sockets have more to be read.
    pub(crate) hungry: bool,
}

impl Slot {
    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.link {
            Link::Connecting(socket)
            | Link::Talking(socket)
            | Link::Pausing(socket)
            | Link::Holding(socket)
            | Link::Stalled(socket)
            | Link::Closing(socket) => Some(socket.as_fd()),
            Link::Ready(_) | Link::Resting { .. } | Link::Over => None,
        }
    }

    /// How much is read at a time; `None`: as much as there is.
    pub(crate) fn mouthful(&self) -> Option<usize> {
        let tastes = self.chaos == Some(Chaos::Reset) && self.dialogue.awaits_message();
        tastes.then_some(TASTE)
    }

    /// Takes the socket from one state of the link to the next.
    pub(crate) fn moved(&mut self, to: fn(OwnedFd) -> Link) {
        self.link = match mem::replace(&mut self.link, Link::Over) {
            Link::Connecting(socket)
            | Link::Talking(socket)
            | Link::Pausing(socket)
            | Link::Holding(socket)
            | Link::Stalled(socket)
            | Link::Closing(socket) => to(socket),
            link @ (Link::Ready(_) | Link::Resting { .. } | Link::Over) => link,
        };
    }

    /// The server has closed: ends the connection, and makes the slot ready.
    ///
    /// A reset takes the connection off the socket (connect(2), `AF_UNSPEC`), which
    /// stays registered and serves the next session.
    pub(crate) fn part(&mut self, close: Close) {
        let link = mem::replace(&mut self.link, Link::Ready(None));
        // The receive buffer of a slow reader is no good to another session.
        if let Link::Closing(socket) = link
            && close == Close::Reset
            && self.chaos != Some(Chaos::SlowReader)
            && net::connect_unspec(&socket).is_ok()
        {
            self.link = Link::Ready(Some(socket));
        }
    }

    /// The socket that the session before has left, where this one can use it.
    pub(crate) fn left_over(&mut self) -> Option<OwnedFd> {
        match mem::replace(&mut self.link, Link::Ready(None)) {
            Link::Ready(socket) if self.chaos != Some(Chaos::SlowReader) => socket,
            _ => None,
        }
    }

    /// Encrypts what the session wants to say, where there is TLS.
    pub(crate) fn seal(&mut self, plain: &mut Vec<u8>) -> Result<(), Fault> {
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        let sealed = tls.writer().write_all(plain).and_then(|()| {
            while tls.wants_write() {
                tls.write_tls(&mut self.out)?;
            }
            Ok(())
        });
        plain.clear();
        sealed.map_err(|e| Fault::new(Kind::Tls, e.to_string()))
    }

    /// Decrypts what came, as much as `plain` has room for, and says how much.
    pub(crate) fn open(&mut self, sealed: &mut &[u8], plain: &mut [u8]) -> Result<usize, Fault> {
        let Some(tls) = &mut self.tls else {
            return Ok(0);
        };
        let failed = |e: io::Error| Fault::new(Kind::Tls, e.to_string());
        let mut read = 0;
        loop {
            while read < plain.len() {
                match tls.reader().read(&mut plain[read..]) {
                    Ok(0) => break,
                    Ok(octets) => read += octets,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) => return Err(failed(e)),
                }
            }
            if sealed.is_empty() || read == plain.len() {
                return Ok(read);
            }
            tls.read_tls(sealed).map_err(failed)?;
            if let Err(e) = tls.process_new_packets() {
                // The alert that tells the server why.
                let _ = tls.write_tls(&mut self.out);
                return Err(Fault::new(Kind::Tls, e.to_string()));
            }
        }
    }

    /// Sends what is in `out`, at most `most` octets; what the socket does not
    /// take stays there.
    pub(crate) fn flush(&mut self, most: usize) -> Result<(), Fault> {
        let mut left = most;
        while !self.out.is_empty() && left > 0 {
            let Some(socket) = self.socket() else {
                return Ok(());
            };
            let part = &self.out[..self.out.len().min(left)];
            match net::send(socket, part, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    left -= sent;
                    if sent == self.out.len() {
                        self.out.clear();
                    } else {
                        self.out.drain(..sent);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => {
                    return Err(Fault::new(Kind::Reset, io::Error::from(error).to_string()));
                }
            }
        }
        Ok(())
    }

    /// Ends the connection with a reset instead of an orderly end.
    pub(crate) fn reset(&mut self) {
        if let Some(socket) = self.socket() {
            // Where it cannot be had, the end is an orderly one.
            let _ = net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
    }
}

/// A socket on its way to the target.
pub(crate) fn connect(
    plan: &Plan,
    source: Option<Ipv4Addr>,
    chaos: Option<Chaos>,
) -> Result<OwnedFd, Errno> {
    let family = match plan.target {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    if let Some(source) = source {
        net::bind(&socket, &SocketAddr::from((source, 0)))?;
    }
    if chaos == Some(Chaos::SlowReader) {
        // The least that Linux gives.
        net::sockopt::set_socket_recv_buffer_size(&socket, 1)?;
    }
    reconnect(plan, socket)
}

/// The same with a socket that was used before, or bound.
pub(crate) fn reconnect(plan: &Plan, socket: OwnedFd) -> Result<OwnedFd, Errno> {
    match net::connect(&socket, &plan.target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

pub(crate) fn cannot_connect(error: Errno) -> Fault {
    match error {
        Errno::MFILE | Errno::NFILE | Errno::ADDRNOTAVAIL | Errno::NOBUFS | Errno::NOMEM => {
            local(error)
        }
        _ => Fault::new(Kind::Connect, io::Error::from(error).to_string()),
    }
}

/// The generator's machine has run out of something.
pub(crate) fn local(error: Errno) -> Fault {
    let remedy = match error {
        Errno::MFILE | Errno::NFILE => "; raise the limit of open files or lower --sessions",
        Errno::ADDRNOTAVAIL => "; widen net.ipv4.ip_local_port_range or lower --sessions",
        _ => "",
    };
    Fault::new(Kind::Local, format!("{}{remedy}", io::Error::from(error)))
}
