//! The floor: a POP3-speaking server that does nothing but speak.
//!
//! It knows no users and no storage. One thread, one epoll, edge-triggered;
//! the greeting, the listings and all other replies are canned bytes, and a
//! message is a prepared file, already encoded with its first line and terminator,
//! that goes from the page cache to the socket by sendfile(2); it is open since the
//! start or, as a server has to that has more messages than descriptors, opened and
//! closed each time, one of each mailbox's own ([`Prepared`]). What popcore costs above it is what users, mailboxes
//! and fairness cost. Where the files are text as it is stored ([`Way`]), it is also what
//! a server costs at the least that has to make replies of them.
//!
//! Kernel calls of a poll session: `accept4`, `epoll_ctl`, the greeting's send, a
//! recv and a send for each of five commands, close: 14, and its share of
//! `epoll_wait`. The goodbye and the close go out together. Nothing is asked of
//! the kernel that the event has not already said.

pub(crate) mod client;
pub(crate) mod ring_client;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags};

use popcore::wire::Encoder;

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
    /// A whole reply to RETR each: status line, stuffed message, terminator.
    replies: Vec<Reply>,
    mailboxes: usize,
}

#[derive(Debug)]
struct Reply {
    source: Source,
    /// Of the file.
    octets: usize,
    way: Way,
    /// What goes before the file, where that is not in it.
    first_line: Vec<u8>,
}

/// What prepared files hold, and how they become replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Way {
    /// Whole replies, by one sendfile(2).
    #[default]
    Whole,
    /// Text with CRLF, by sendfile(2) between a send of the first line and one of the
    /// terminator.
    Between,
    /// Text with LF, which is read, encoded as popcore encodes it, and sent by one send.
    Encoded,
    /// Text with CRLF, which is read behind the first line and sent by one send.
    Copied,
}

#[derive(Clone, Debug)]
enum Source {
    Kept(Rc<File>),
    /// In each of the mailboxes.
    Named(Vec<PathBuf>),
}

impl Canned {
    /// A maildrop of `messages` copies of one message of `octets` octets, lines
    /// of 64 octets, in an unnamed file of the temporary folder.
    pub(crate) fn new(messages: usize, octets: usize) -> io::Result<Self> {
        Self::of(&vec![octets; messages], None)
    }

    /// A maildrop of a message of each of these numbers of octets. Equal ones in a
    /// row share a file, which with [`Prepared`] has a name for each.
    pub(crate) fn of(messages: &[usize], prepared: Option<&Prepared>) -> io::Result<Self> {
        let mut stat = Vec::new();
        let total: usize = messages.iter().sum();
        write!(stat, "+OK {} {total}\r\n", messages.len())?;
        let mut list = b"+OK\r\n".to_vec();
        let mut uidl = b"+OK\r\n".to_vec();
        let mut replies: Vec<Reply> = Vec::new();
        for (number, octets) in (1..).zip(messages.iter().copied()) {
            write!(list, "{number} {octets}\r\n")?;
            // As long as the name of a Maildir file commonly is.
            let name = format!("1700000000.M{number:06}P4242.mail.example.net");
            write!(uidl, "{number} {name}\r\n")?;
            let shared = replies
                .last()
                .filter(|_| number > 1 && messages[number - 2] == octets);
            let source = match (prepared, shared) {
                (None, Some(Reply { source, .. })) => source.clone(),
                (None, None) => Source::Kept(Rc::new(kept(octets)?)),
                (Some(prepared), _) => Source::Named(prepared.names(octets, &name)?),
            };
            let way = prepared.map_or(Way::Whole, |prepared| prepared.way);
            replies.push(Reply {
                source,
                octets: way.file_of(octets).len(),
                way,
                first_line: first_line(octets),
            });
        }
        list.extend_from_slice(b".\r\n");
        uidl.extend_from_slice(b".\r\n");
        Ok(Self {
            stat,
            list,
            uidl,
            replies,
            mailboxes: prepared.map_or(1, |prepared| prepared.mailboxes),
        })
    }
}

/// Mailboxes of prepared files.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Where they are made.
    pub(crate) folder: PathBuf,
    /// How many.
    pub(crate) mailboxes: usize,
    pub(crate) way: Way,
}

impl Prepared {
    /// Names a message's file in each mailbox.
    fn names(&self, octets: usize, name: &str) -> io::Result<Vec<PathBuf>> {
        let source = self.folder.join(format!("reply{octets}"));
        if !source.exists() {
            fs::write(&source, self.way.file_of(octets))?;
        }
        let named = |mailbox| {
            let mailbox = self.folder.join(format!("user{mailbox}/cur"));
            fs::create_dir_all(&mailbox)?;
            let path = mailbox.join(format!("{name}:2,S"));
            fs::hard_link(&source, &path)?;
            Ok(path)
        };
        (0..self.mailboxes).map(named).collect()
    }
}

fn kept(octets: usize) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(&Way::Whole.file_of(octets))?;
    Ok(file)
}

fn first_line(octets: usize) -> Vec<u8> {
    format!("+OK {octets} octets\r\n").into_bytes()
}

const TERMINATOR: &[u8] = b".\r\n";

impl Way {
    /// A file of a message that has so many octets on the wire.
    fn file_of(self, octets: usize) -> Vec<u8> {
        match self {
            Way::Whole => [&first_line(octets), &text(octets, b"\r\n"), TERMINATOR].concat(),
            Way::Between | Way::Copied => text(octets, b"\r\n"),
            Way::Encoded => text(octets, b"\n"),
        }
    }
}

fn text(octets: usize, line_end: &[u8]) -> Vec<u8> {
    let mut written = Vec::new();
    let line = [b'x'; 62];
    let mut left = octets;
    while left > 0 {
        let text = left.saturating_sub(2).min(line.len());
        written.extend_from_slice(&line[..text]);
        written.extend_from_slice(line_end);
        left = left.saturating_sub(text + 2);
    }
    written
}

/// One client.
struct Connection {
    socket: OwnedFd,
    /// Whose messages are fetched.
    mailbox: usize,
    /// An unfinished command.
    partial: Vec<u8>,
    /// What is left of the current message; more of it when writable.
    sending: Option<Sending>,
}

/// What is left to send.
enum Sending {
    File {
        file: Rc<File>,
        sent: usize,
        octets: usize,
        /// What goes behind it.
        then: &'static [u8],
    },
    Octets(Vec<u8>),
}

/// Room for one message at a time.
#[derive(Default)]
struct Scratch {
    stored: Vec<u8>,
    reply: Vec<u8>,
}

/// What is to be done after a command.
enum Answer {
    /// Send this.
    Canned(&'static [u8]),
    Stat,
    List,
    Uidl,
    Message(usize),
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
    let mut scratch = Scratch::default();
    // Clients come for one after the other.
    let mut mailbox = 0;
    loop {
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            let (flags, data) = (event.flags, event.data);
            if data.u64() == LISTENER {
                accept(&epoll, listener, &mut connections, mailbox)?;
                mailbox = (mailbox + 1) % canned.mailboxes;
                continue;
            }
            let key = RawFd::try_from(data.u64()).expect("a descriptor");
            let Some(connection) = connections.get_mut(&key) else {
                continue;
            };
            if !connection.serve(flags, canned, &mut buffer, &mut scratch) {
                connections.remove(&key);
            }
        }
    }
}

fn accept(
    epoll: &OwnedFd,
    listener: &TcpListener,
    connections: &mut HashMap<RawFd, Connection>,
    mailbox: usize,
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
        mailbox,
        partial: Vec::new(),
        sending: None,
    };
    connections.insert(key, connection);
    Ok(())
}

impl Connection {
    /// False: the connection is over.
    fn serve(
        &mut self,
        flags: EventFlags,
        canned: &Canned,
        buffer: &mut [u8],
        scratch: &mut Scratch,
    ) -> bool {
        if self.sending.is_some() && !self.send_message() {
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
            if !self.send(&answer, canned, scratch) {
                return false;
            }
        }
        self.partial.extend_from_slice(rest);
        true
    }

    fn send(&mut self, answer: &Answer, canned: &Canned, scratch: &mut Scratch) -> bool {
        let bytes = match answer {
            Answer::Canned(bytes) => bytes,
            Answer::Stat => &canned.stat[..],
            Answer::List => &canned.list,
            Answer::Uidl => &canned.uidl,
            Answer::Message(index) => {
                let Some(reply) = canned.replies.get(*index) else {
                    return false;
                };
                let file = match &reply.source {
                    Source::Kept(file) => Rc::clone(file),
                    Source::Named(paths) => match File::open(&paths[self.mailbox]) {
                        Ok(file) => Rc::new(file),
                        Err(_) => return false,
                    },
                };
                return self.begin(reply, file, scratch);
            }
            Answer::Goodbye => b"+OK bye\r\n",
        };
        let sent = net::send(&self.socket, bytes, SendFlags::NOSIGNAL);
        // A canned reply that the socket does not take whole is a client that
        // does not read: nothing that this server is for.
        sent == Ok(bytes.len()) && !matches!(answer, Answer::Goodbye)
    }

    /// Begins to send a message.
    fn begin(&mut self, reply: &Reply, file: Rc<File>, scratch: &mut Scratch) -> bool {
        let mut then = b"".as_slice();
        match reply.way {
            Way::Encoded | Way::Copied => return self.send_read(reply, &file, scratch),
            Way::Whole => {}
            Way::Between => {
                let flags = SendFlags::NOSIGNAL | SendFlags::MORE;
                let sent = net::send(&self.socket, &reply.first_line, flags);
                if sent != Ok(reply.first_line.len()) {
                    return false;
                }
                then = TERMINATOR;
            }
        }
        self.sending = Some(Sending::File {
            file,
            sent: 0,
            octets: reply.octets,
            then,
        });
        self.send_message()
    }

    /// Sends a message as one that was read.
    fn send_read(&mut self, reply: &Reply, file: &File, scratch: &mut Scratch) -> bool {
        let Scratch { stored, reply: out } = scratch;
        out.clear();
        out.extend_from_slice(&reply.first_line);
        if reply.way == Way::Copied {
            out.reserve(reply.octets + TERMINATOR.len());
            if rustix::io::pread(file, spare_capacity(out), 0) != Ok(reply.octets) {
                return false;
            }
            out.extend_from_slice(TERMINATOR);
        } else {
            stored.clear();
            stored.reserve(reply.octets);
            out.reserve(reply.octets * 2 + TERMINATOR.len());
            let read = rustix::io::pread(file, spare_capacity(stored), 0);
            let mut encoder = Encoder::new();
            if read != Ok(reply.octets) || encoder.encode(stored, out) != reply.octets {
                return false;
            }
            encoder.finish(out);
        }
        match net::send(&self.socket, out, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == out.len() => {}
            Ok(sent) => self.sending = Some(Sending::Octets(out[sent..].to_vec())),
            Err(Errno::AGAIN) => self.sending = Some(Sending::Octets(out.clone())),
            Err(_) => return false,
        }
        true
    }

    fn send_message(&mut self) -> bool {
        while let Some(sending) = &mut self.sending {
            let went = match sending {
                Sending::Octets(rest) => net::send(&self.socket, rest, SendFlags::NOSIGNAL)
                    .inspect(|more| {
                        rest.drain(..*more);
                    }),
                Sending::File {
                    file, sent, octets, ..
                } => {
                    let mut offset = *sent as u64;
                    let went = sendfile(&self.socket, &*file, Some(&mut offset), *octets - *sent);
                    went.inspect(|more| *sent += more)
                }
            };
            match went {
                Ok(0) => return false,
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
            match sending {
                Sending::Octets(rest) if rest.is_empty() => self.sending = None,
                Sending::File {
                    sent, octets, then, ..
                } if sent == octets => {
                    self.sending = (!then.is_empty()).then(|| Sending::Octets(then.to_vec()));
                }
                Sending::Octets(_) | Sending::File { .. } => {}
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
        b"RETR" => Answer::Message(number(line).wrapping_sub(1)),
        b"QUIT" => Answer::Goodbye,
        _ => Answer::Canned(b"-ERR unknown\r\n"),
    }
}

/// The number behind a command of four letters; 0 where there is none.
fn number(line: &[u8]) -> usize {
    let digits = line
        .iter()
        .skip(5)
        .take_while(|octet| octet.is_ascii_digit());
    digits.fold(0, |number, digit| 10 * number + usize::from(digit - b'0'))
}
