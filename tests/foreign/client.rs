//! A POP3 client of a few lines, to ask two servers the same questions.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// How long a server may take over a reply.
const PATIENCE: Duration = Duration::from_mins(1);

/// A session.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects and takes the greeting.
    pub(crate) fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a server");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        let mut client = Self {
            stream: BufReader::new(stream),
        };
        let greeting = client.line();
        assert!(greeting.starts_with(b"+OK"), "{greeting:?}");
        client
    }

    /// Connects and logs in.
    pub(crate) fn login(port: u16, user: &str, password: &str) -> Self {
        let mut client = Self::connect(port);
        client.ok(&format!("USER {user}"));
        client.ok(&format!("PASS {password}"));
        client
    }

    /// A command with one line for an answer, which must be good.
    pub(crate) fn ok(&mut self, command: &str) -> String {
        let stream = self.stream.get_mut();
        let line = format!("{command}\r\n");
        stream
            .write_all(line.as_bytes())
            .expect("an open connection");
        let reply = String::from_utf8(self.line()).expect("a reply in ASCII");
        assert!(reply.starts_with("+OK"), "{command}: {reply}");
        reply
    }

    /// A command with many lines for an answer: the lines, dots taken off.
    pub(crate) fn many(&mut self, command: &str) -> Vec<Vec<u8>> {
        self.ok(command);
        self.lines()
    }

    fn lines(&mut self) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        loop {
            let line = self.line();
            match line.strip_prefix(b".") {
                Some(b"") => return lines,
                Some(rest) => {
                    assert!(
                        rest.starts_with(b"."),
                        "a line that is not stuffed: {line:?}"
                    );
                    lines.push(rest.to_vec());
                }
                None => lines.push(line),
            }
        }
    }

    /// The second words of a listing, by message.
    pub(crate) fn listing(&mut self, command: &str) -> Vec<String> {
        let rows = self.many(command).into_iter().zip(1..);
        rows.map(|(row, number): (_, usize)| {
            let row = String::from_utf8(row).expect("a row in ASCII");
            let (first, second) = row.split_once(' ').expect("two words");
            assert_eq!(first, number.to_string());
            second.to_owned()
        })
        .collect()
    }

    /// A message as it was on the wire, without stuffing.
    pub(crate) fn message(&mut self, number: usize) -> Vec<u8> {
        whole(&self.many(&format!("RETR {number}")))
    }

    /// The same, or nothing where the server has no such message any more.
    pub(crate) fn try_message(&mut self, number: usize) -> Option<Vec<u8>> {
        let stream = self.stream.get_mut();
        write!(stream, "RETR {number}\r\n").expect("an open connection");
        let reply = self.line();
        if reply.starts_with(b"-ERR") {
            return None;
        }
        assert!(reply.starts_with(b"+OK"), "{reply:?}");
        Some(whole(&self.lines()))
    }

    /// Ends the session and waits until the server has ended it too.
    pub(crate) fn quit(mut self) {
        self.ok("QUIT");
        let mut rest = Vec::new();
        let read = self.stream.read_until(b'\n', &mut rest);
        assert_eq!(read.expect("a closed connection"), 0, "{rest:?}");
    }

    /// Says QUIT; what the server still says, which may be nothing if it ends.
    pub(crate) fn end(mut self) -> Vec<u8> {
        let mut said = Vec::new();
        if self.stream.get_mut().write_all(b"QUIT\r\n").is_ok() {
            // What came before a reset counts.
            let _ = self.stream.read_to_end(&mut said);
        }
        said
    }

    /// A line without its end, which is CRLF.
    fn line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        let read = self.stream.read_until(b'\n', &mut line);
        assert_ne!(read.expect("a reply"), 0, "the server closed");
        assert!(line.ends_with(b"\r\n"), "a line ends in LF alone: {line:?}");
        line.truncate(line.len() - 2);
        line
    }
}

fn whole(lines: &[Vec<u8>]) -> Vec<u8> {
    let ended = lines.iter().flat_map(|line| [&line[..], b"\r\n"]);
    ended.collect::<Vec<_>>().concat()
}
