//! The floor: a POP3-speaking server that does nothing but speak.
//!
//! It knows no users and no storage. One thread, one epoll, edge-triggered;
//! the greeting, the listings and all other replies are canned bytes, and a
//! message is a prepared file, already encoded with its terminator, that goes
//! from the page cache to the socket by sendfile(2). What popcore costs above
//! it is what users, mailboxes and fairness cost.
//!
//! Kernel calls of a poll session: `accept4`, `epoll_ctl`, the greeting's send, a
//! recv and a send for each of five commands, close: 14, and its share of
//! `epoll_wait`. The goodbye and the close go out together. Nothing is asked of
//! the kernel that the event has not already said.

pub(crate) mod client;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags};

/// Events taken from the kernel at once.
const EVENTS: usize = 256;
/// The listener's key; a connection's is its descriptor.
const LISTENER: u64 = u64::MAX;

/// What the server answers.
#[derive(Debug)]
pub(crate) struct Canned {
    stat: Vec<u8>,
    list: Vec<u8>,
    uidl: Vec<u8>,
    /// A whole reply to RETR: status line, stuffed message, terminator.
    message: File,
    reply_octets: usize,
}

impl Canned {
    /// A maildrop of `messages` copies of one message of `octets` octets, lines
    /// of 64 octets, in an unnamed file of the temporary folder.
    pub(crate) fn new(messages: usize, octets: usize) -> io::Result<Self> {
        let mut stat = Vec::new();
        write!(stat, "+OK {messages} {}\r\n", messages * octets)?;
        let mut list = b"+OK\r\n".to_vec();
        let mut uidl = b"+OK\r\n".to_vec();
        for number in 1..=messages {
            write!(list, "{number} {octets}\r\n")?;
            // As long as the name of a Maildir file commonly is.
            write!(
                uidl,
                "{number} 1700000000.M{number:06}P4242.mail.example.net\r\n"
            )?;
        }
        list.extend_from_slice(b".\r\n");
        uidl.extend_from_slice(b".\r\n");
        let mut reply = Vec::new();
        write!(reply, "+OK {octets} octets\r\n")?;
        let line = [b'x'; 62];
        let mut left = octets;
        while left > 0 {
            let text = left.saturating_sub(2).min(line.len());
            reply.extend_from_slice(&line[..text]);
            reply.extend_from_slice(b"\r\n");
            left = left.saturating_sub(text + 2);
        }
        reply.extend_from_slice(b".\r\n");
        let mut message = tempfile::tempfile()?;
        message.write_all(&reply)?;
        Ok(Self {
            stat,
            list,
            uidl,
            message,
            reply_octets: reply.len(),
        })
    }
}

/// One client.
struct Connection {
    socket: OwnedFd,
    /// An unfinished command.
    partial: Vec<u8>,
    /// Octets of the current message already sent; more when writable.
    sending: Option<usize>,
}

/// What is to be done after a command.
enum Answer {
    /// Send this.
    Canned(&'static [u8]),
    Stat,
    List,
    Uidl,
    Message,
    Goodbye,
}

/// Serves until the process is ended.
pub(crate) fn serve(listener: &TcpListener, canned: &Canned) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(
        &epoll,
        listener,
        EventData::new_u64(LISTENER),
        EventFlags::IN,
    )?;
    let mut connections: HashMap<RawFd, Connection> = HashMap::new();
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
    let mut buffer = vec![0; 4096];
    loop {
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            let (flags, data) = (event.flags, event.data);
            if data.u64() == LISTENER {
                accept(&epoll, listener, &mut connections)?;
                continue;
            }
            let key = RawFd::try_from(data.u64()).expect("a descriptor");
            let Some(connection) = connections.get_mut(&key) else {
                continue;
            };
            if !connection.serve(flags, canned, &mut buffer) {
                connections.remove(&key);
            }
        }
    }
}

fn accept(
    epoll: &OwnedFd,
    listener: &TcpListener,
    connections: &mut HashMap<RawFd, Connection>,
) -> io::Result<()> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = match net::accept_with(listener, flags) {
        Ok(socket) => socket,
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if net::send(&socket, b"+OK ready\r\n", SendFlags::NOSIGNAL).is_err() {
        return Ok(());
    }
    let key = socket.as_raw_fd();
    let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
    let data = EventData::new_u64(u64::try_from(key).expect("not negative"));
    epoll::add(epoll, &socket, data, interest)?;
    let connection = Connection {
        socket,
        partial: Vec::new(),
        sending: None,
    };
    connections.insert(key, connection);
    Ok(())
}

impl Connection {
    /// False: the connection is over.
    fn serve(&mut self, flags: EventFlags, canned: &Canned, buffer: &mut [u8]) -> bool {
        if self.sending.is_some() && !self.send_message(canned) {
            return false;
        }
        if !flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP) {
            return !flags.contains(EventFlags::ERR);
        }
        let read = match net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => return false,
            Ok((read, _)) => read,
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => return false,
        };
        let mut rest = &buffer[..read];
        while let Some(at) = memchr::memchr(b'\n', rest) {
            let (line, after) = rest.split_at(at + 1);
            rest = after;
            let answer = if self.partial.is_empty() {
                answer(line)
            } else {
                self.partial.extend_from_slice(line);
                let answer = answer(&self.partial);
                self.partial.clear();
                answer
            };
            if !self.send(&answer, canned) {
                return false;
            }
        }
        self.partial.extend_from_slice(rest);
        true
    }

    fn send(&mut self, answer: &Answer, canned: &Canned) -> bool {
        let bytes = match answer {
            Answer::Canned(bytes) => bytes,
            Answer::Stat => &canned.stat[..],
            Answer::List => &canned.list,
            Answer::Uidl => &canned.uidl,
            Answer::Message => {
                self.sending = Some(0);
                return self.send_message(canned);
            }
            Answer::Goodbye => b"+OK bye\r\n",
        };
        let sent = net::send(&self.socket, bytes, SendFlags::NOSIGNAL);
        // A canned reply that the socket does not take whole is a client that
        // does not read: nothing that this server is for.
        sent == Ok(bytes.len()) && !matches!(answer, Answer::Goodbye)
    }

    fn send_message(&mut self, canned: &Canned) -> bool {
        while let Some(sent) = self.sending {
            let mut offset = sent as u64;
            let left = canned.reply_octets - sent;
            match sendfile(&self.socket, &canned.message, Some(&mut offset), left) {
                Ok(more) if more == left => self.sending = None,
                Ok(more) => self.sending = Some(sent + more),
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    }
}

/// Commands come in capitals here, as every client of the benches sends them.
fn answer(line: &[u8]) -> Answer {
    match line.get(..4).unwrap_or_default() {
        b"USER" | b"DELE" | b"NOOP" | b"RSET" => Answer::Canned(b"+OK\r\n"),
        b"PASS" => Answer::Canned(b"+OK logged in\r\n"),
        b"STAT" => Answer::Stat,
        b"LIST" => Answer::List,
        b"UIDL" => Answer::Uidl,
        b"RETR" => Answer::Message,
        b"QUIT" => Answer::Goodbye,
        _ => Answer::Canned(b"-ERR unknown\r\n"),
    }
}
