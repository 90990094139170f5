//! A POP3 client that asks a server what it announces.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// How long a server may take over a line: as long as it takes to count a large
/// maildrop.
const PATIENCE: Duration = Duration::from_mins(5);
/// Longest line that is read, in octets.
const LONGEST: u64 = 64 << 20;

/// Why a server could not be asked.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection failed.
    Io(io::Error),
    /// The server refused a command, or said what is no POP3.
    Refused {
        /// What was asked, without secrets.
        asked: &'static str,
        /// What it said.
        said: String,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Refused { asked, said } => write!(f, "{asked}: {said}"),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A session.
pub(super) struct Client {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
}

impl Client {
    /// Connects and logs in.
    pub(super) fn log_in(server: &str, user: &str, password: &str) -> Result<Self, Trouble> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        let mut stream = None;
        for address in server.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(connected) => {
                    stream = Some(connected);
                    break;
                }
                Err(error) => last = error,
            }
        }
        let stream = stream.ok_or(last)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut client = Self {
            stream: BufReader::with_capacity(64 << 10, stream),
            line: Vec::new(),
        };
        client.answer("the greeting")?;
        client.ask("USER", &format!("USER {user}\r\n"))?;
        client.ask("PASS", &format!("PASS {password}\r\n"))?;
        Ok(client)
    }

    /// The second words of a listing, by message.
    pub(super) fn listing(&mut self, command: &'static str) -> Result<Vec<String>, Trouble> {
        self.ask(command, &format!("{command}\r\n"))?;
        let mut rows = Vec::new();
        while self.row()? {
            let row = String::from_utf8_lossy(&self.line).into_owned();
            match row.split_once(' ') {
                Some((number, value)) if number.parse() == Ok(rows.len() + 1) => {
                    // LIST may say more behind the size (RFC 1939, section 5).
                    rows.push(value.split(' ').next().unwrap_or_default().to_owned());
                }
                _ => {
                    return Err(Trouble::Refused {
                        asked: command,
                        said: format!("a row that is none, {row:?}"),
                    });
                }
            }
        }
        Ok(rows)
    }

    /// A digest of a message as it is without the dots of the wire.
    pub(super) fn message(&mut self, number: usize) -> Result<[u8; 32], Trouble> {
        self.ask("RETR", &format!("RETR {number}\r\n"))?;
        let mut hash = Sha256::new();
        while self.row()? {
            hash.update(&self.line);
            hash.update(b"\r\n");
        }
        Ok(hash.finalize().into())
    }

    /// Ends the session; nothing was deleted.
    pub(super) fn quit(mut self) -> Result<(), Trouble> {
        self.ask("QUIT", "QUIT\r\n")
    }

    fn ask(&mut self, asked: &'static str, line: &str) -> Result<(), Trouble> {
        self.stream.get_mut().write_all(line.as_bytes())?;
        self.answer(asked)
    }

    fn answer(&mut self, asked: &'static str) -> Result<(), Trouble> {
        self.read_line()?;
        if self.line.starts_with(b"+OK") {
            return Ok(());
        }
        let said = self.line.escape_ascii().to_string();
        Err(Trouble::Refused { asked, said })
    }

    /// Reads a line of a reply of many into `line`, the dot before it taken off;
    /// false at the end.
    fn row(&mut self) -> Result<bool, Trouble> {
        self.read_line()?;
        if self.line.first() == Some(&b'.') {
            self.line.remove(0);
            return Ok(!self.line.is_empty());
        }
        Ok(true)
    }

    /// Reads a line without its end.
    fn read_line(&mut self) -> Result<(), Trouble> {
        self.line.clear();
        let mut limited = (&mut self.stream).take(LONGEST);
        limited.read_until(b'\n', &mut self.line)?;
        if self.line.pop() != Some(b'\n') {
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed");
            return Err(error.into());
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(())
    }
}
