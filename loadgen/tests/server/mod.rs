//! A server that plays a script: a thread a connection, blocking sockets.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// Octets of each of the three messages of [`honest`].
pub(crate) const OCTETS: u64 = 10;

/// What to send for a command, and whether to close behind it.
pub(crate) struct Answer {
    bytes: Vec<u8>,
    /// These follow, again and again, until the client is gone.
    endless: Vec<u8>,
    close: bool,
    reset: bool,
}

impl Answer {
    pub(crate) fn say(text: &str) -> Self {
        Self {
            bytes: text.as_bytes().to_vec(),
            endless: Vec::new(),
            close: false,
            reset: false,
        }
    }

    pub(crate) fn and_forever(self, text: &str) -> Self {
        Self {
            endless: text.as_bytes().to_vec(),
            ..self
        }
    }

    /// Closes by a reset, as a server does that has left something unread.
    pub(crate) fn and_reset(self) -> Self {
        Self {
            close: true,
            reset: true,
            ..self
        }
    }

    pub(crate) fn and_close(self) -> Self {
        Self {
            close: true,
            ..self
        }
    }
}

/// What a good server answers. The empty command stands for the greeting.
pub(crate) fn honest(command: &str) -> Answer {
    let messages = ["abcdefgh\r\n", "ab\r\n.cde\r\n", ".\r\n12345\r\n"];
    let word = command.get(..4).unwrap_or_default();
    let number = command.get(5..).unwrap_or_default().parse::<usize>();
    Answer::say(&match (word, number) {
        ("STAT", _) => "+OK 3 30\r\n".to_owned(),
        ("LIST", _) => "+OK\r\n1 10\r\n2 10\r\n3 10\r\n.\r\n".to_owned(),
        ("UIDL", _) => "+OK\r\n1 one\r\n2 two\r\n3 three\r\n.\r\n".to_owned(),
        ("RETR", Ok(number)) => {
            let stuffed = messages[number - 1].replace("\r\n.", "\r\n..");
            let first = if stuffed.starts_with('.') { "." } else { "" };
            format!("+OK 10 octets\r\n{first}{stuffed}.\r\n")
        }
        ("CAPA", _) => "+OK\r\nUIDL\r\nTOP\r\n.\r\n".to_owned(),
        ("TOP ", _) => "+OK\r\nSubject: x\r\n\r\n.\r\n".to_owned(),
        ("QUIT", _) => return Answer::say("+OK bye\r\n").and_close(),
        _ => "+OK\r\n".to_owned(),
    })
}

type Script = dyn Fn(&str) -> Answer + Send + Sync;

#[derive(Default)]
struct Seen {
    users: HashMap<String, usize>,
    all: HashSet<String>,
    most: usize,
    sessions: usize,
    resets: usize,
}

/// Serves until the test's process ends.
pub(crate) struct FakeServer {
    address: String,
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

impl FakeServer {
    pub(crate) fn start(script: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_in_pieces(usize::MAX, script)
    }

    /// Sends no more than `piece` octets with one call.
    pub(crate) fn start_in_pieces(
        piece: usize,
        script: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let seen = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        let script: Arc<Script> = Arc::new(script);
        let server = Self {
            address,
            seen: Arc::clone(&seen),
        };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                thread::spawn(move || {
                    stream.set_nodelay(true).expect("a socket");
                    let mut user = None;
                    converse(&stream, piece, &*script, &seen, &mut user);
                    // Before the socket closes, as a good server frees its lock.
                    leave(&seen, user.as_deref());
                    drop(stream);
                });
            }
        });
        server
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    pub(crate) fn most_sessions_of_a_user(&self) -> usize {
        self.seen.0.lock().expect("no panic").most
    }

    pub(crate) fn users_seen(&self) -> usize {
        self.seen.0.lock().expect("no panic").all.len()
    }

    pub(crate) fn sessions(&self) -> usize {
        self.seen.0.lock().expect("no panic").sessions
    }

    /// Connections that the client reset before it had answered a reply to RETR.
    pub(crate) fn resets_amid_message(&self) -> usize {
        self.seen.0.lock().expect("no panic").resets
    }

    pub(crate) fn wait_for_sessions(&self, count: usize) {
        let seen = self.seen.0.lock().expect("no panic");
        let seen = self.seen.1.wait_while(seen, |seen| seen.sessions < count);
        drop(seen.expect("no panic"));
    }
}

fn converse(
    stream: &TcpStream,
    piece: usize,
    script: &Script,
    seen: &(Mutex<Seen>, Condvar),
    user: &mut Option<String>,
) {
    let mut lines = BufReader::new(stream).lines();
    let mut command = String::new();
    loop {
        let answer = script(&command);
        for part in answer.bytes.chunks(piece) {
            if let Err(error) = (&*stream).write_all(part) {
                return reset(seen, &command, &error);
            }
        }
        while !answer.endless.is_empty() {
            if (&*stream).write_all(&answer.endless).is_err() {
                return;
            }
        }
        if answer.reset {
            // The reply first: a reset overtakes what is not read yet.
            thread::sleep(std::time::Duration::from_millis(20));
            let at_once = Some(std::time::Duration::ZERO);
            rustix::net::sockopt::set_socket_linger(stream, at_once).expect("a socket");
        }
        if answer.close {
            return;
        }
        let line = match lines.next() {
            Some(Ok(line)) => line,
            Some(Err(error)) => return reset(seen, &command, &error),
            None => return,
        };
        if let Some(name) = line.strip_prefix("USER ") {
            enter(seen, name);
            *user = Some(name.to_owned());
        }
        command = line;
    }
}

/// The connection broke behind this command.
fn reset(seen: &(Mutex<Seen>, Condvar), command: &str, error: &io::Error) {
    let reset = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe].contains(&error.kind());
    if reset && command.starts_with("RETR ") {
        seen.0.lock().expect("no panic").resets += 1;
    }
}

fn enter(seen: &(Mutex<Seen>, Condvar), name: &str) {
    let mut state = seen.0.lock().expect("no panic");
    state.all.insert(name.to_owned());
    let sessions = state.users.entry(name.to_owned()).or_default();
    *sessions += 1;
    state.most = state.most.max(state.users[name]);
}

fn leave(seen: &(Mutex<Seen>, Condvar), name: Option<&str>) {
    let mut state = seen.0.lock().expect("no panic");
    if let Some(sessions) = name.and_then(|name| state.users.get_mut(name)) {
        *sessions -= 1;
    }
    state.sessions += 1;
    seen.1.notify_all();
}
