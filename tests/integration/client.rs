//! A POP3 client that blocks, checks the form of every reply, and sends exactly
//! the segments it is told to.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::patience::DEADLINE;

/// Longest single-line reply with its CRLF (RFC 2449, section 4).
const REPLY_LINE: usize = 512;

/// The password of every user that a test does not give another.
pub(crate) const PASSWORD: &str = "secret";

/// One connection.
pub(crate) struct Client<S = TcpStream> {
    stream: S,
    received: Vec<u8>,
}

impl Client {
    /// Connects and takes the greeting.
    pub(crate) fn connect(address: SocketAddr) -> Client {
        let mut client = Client::silent(address);
        let greeting = client.line();
        assert!(greeting.starts_with("+OK popcore ready"), "{greeting}");
        client
    }

    /// Connects and leaves the greeting unread.
    pub(crate) fn silent(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(DEADLINE)).expect("an option");
        stream.set_write_timeout(Some(DEADLINE)).expect("an option");
        Client::over(stream)
    }

    /// Connects and logs in.
    pub(crate) fn logged_in(address: SocketAddr, user: &str) -> Client {
        let mut client = Client::connect(address);
        client.log_in(user);
        client
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        let linger = Some(Duration::ZERO);
        rustix::net::sockopt::set_socket_linger(&self.stream, linger).expect("an option");
    }

    /// Says that nothing more will be sent, to a server that may have gone.
    pub(crate) fn half_close(&self) {
        match self.stream.shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => panic!("{error}"),
            _ => {}
        }
    }

    /// Whether there is something to read.
    pub(crate) fn has_news(&self) -> bool {
        self.stream.set_nonblocking(true).expect("an option");
        let seen = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("an option");
        !self.received.is_empty() || seen.is_ok_and(|octets| octets > 0)
    }

    /// Takes what has come in one piece, as it comes, without keeping it.
    pub(crate) fn piece(&mut self) -> Vec<u8> {
        assert!(self.received.is_empty(), "unread octets");
        let mut piece = vec![0; 1 << 20];
        let count = self.stream.read(&mut piece).expect("octets");
        piece.truncate(count);
        piece
    }
}

impl<S: Read + Write> Client<S> {
    /// A client over a connection there is.
    pub(crate) fn over(stream: S) -> Client<S> {
        Client {
            stream,
            received: Vec::new(),
        }
    }

    /// The connection, without what it gave and nobody has read.
    pub(crate) fn take_stream(self) -> S {
        self.stream
    }

    /// The connection, once every octet it gave has been read.
    pub(crate) fn into_stream(self) -> S {
        assert!(self.received.is_empty(), "unread octets");
        self.stream
    }

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    pub(crate) fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Sends these octets in one write.
    pub(crate) fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.stream.write_all(octets.as_ref()).expect("written");
        self.stream.flush().expect("written");
    }

    /// Sends what may find the connection closed by now.
    pub(crate) fn try_send(&mut self, octets: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(octets.as_ref())?;
        self.stream.flush()
    }

    /// The next line, without its CRLF.
    pub(crate) fn line(&mut self) -> String {
        let line = self.raw_line();
        let text = line.strip_suffix(b"\r\n").expect("a line ends in CRLF");
        assert!(line.len() <= REPLY_LINE, "{} octets", line.len());
        assert!(!text.contains(&b'\r'), "{}", line.escape_ascii());
        String::from_utf8(text.to_vec()).expect("a reply is ASCII")
    }

    /// Sends a command and takes its one line.
    pub(crate) fn say(&mut self, command: &str) -> String {
        self.send(format!("{command}\r\n"));
        self.line()
    }

    /// Sends a command that must succeed.
    pub(crate) fn ok(&mut self, command: &str) -> String {
        let reply = self.say(command);
        assert!(reply.starts_with("+OK"), "{command}: {reply}");
        reply
    }

    /// Sends a command that must be refused.
    pub(crate) fn err(&mut self, command: &str) -> String {
        let reply = self.say(command);
        assert!(reply.starts_with("-ERR "), "{command}: {reply}");
        reply
    }

    /// Sends a command with a multi-line reply: what follows the first line, with
    /// the terminator.
    pub(crate) fn text(&mut self, command: &str) -> Vec<u8> {
        self.ok(command);
        self.lines_to_terminator()
    }

    /// The rows of a listing.
    pub(crate) fn rows(&mut self, command: &str) -> Vec<String> {
        let text = String::from_utf8(self.text(command)).expect("a listing is ASCII");
        let rows = text.strip_suffix(".\r\n").expect("a terminator");
        rows.lines().map(str::to_owned).collect()
    }

    /// Everything up to the terminator and with it.
    pub(crate) fn lines_to_terminator(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        loop {
            let line = self.raw_line();
            text.extend_from_slice(&line);
            if line == b".\r\n" {
                return text;
            }
        }
    }

    /// USER and PASS.
    pub(crate) fn log_in(&mut self, user: &str) {
        let reply = self.try_log_in(user);
        assert!(reply.starts_with("+OK"), "{user}: {reply}");
    }

    /// USER and PASS, and what became of it.
    pub(crate) fn try_log_in(&mut self, user: &str) -> String {
        self.ok(&format!("USER {user}"));
        self.say(&format!("PASS {PASSWORD}"))
    }

    /// QUIT, its reply, and the end of the connection.
    pub(crate) fn quit(mut self) {
        self.ok("QUIT");
        self.ends();
    }

    /// Nothing more comes but the end.
    pub(crate) fn ends(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }

    /// Everything up to the end of the connection, however it ends.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.received);
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => {
                use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
                let end = [BrokenPipe, ConnectionReset, UnexpectedEof];
                assert!(end.contains(&error.kind()), "{error}");
            }
        }
        rest
    }

    /// Takes everything up to the end of the connection, and says how that came.
    pub(crate) fn end(&mut self) -> io::Result<usize> {
        self.stream.read_to_end(&mut self.received)
    }

    fn raw_line(&mut self) -> Vec<u8> {
        let mut searched = 0;
        loop {
            let new = &self.received[searched..];
            if let Some(at) = new.iter().position(|octet| *octet == b'\n') {
                return self.received.drain(..=searched + at).collect();
            }
            searched = self.received.len();
            let mut piece = [0; 16 * 1024];
            let count = self.stream.read(&mut piece).expect("octets");
            let kept = self.received.escape_ascii();
            assert_ne!(count, 0, "the connection ended behind \"{kept}\"");
            self.received.extend_from_slice(&piece[..count]);
        }
    }
}
