//! A POP3 client that asks a server what it announces.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
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

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Protection {
    /// In clear text
    None,
    /// In TLS after STLS
    Starttls,
    /// In TLS from the first octet
    Implicit,
}

/// Whose certificates are believed.
#[derive(Clone)]
pub(super) struct Trust(Arc<ClientConfig>);

impl Trust {
    /// The authorities in a PEM file.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let fault = |error: &dyn fmt::Display| format!("{}: {error}", path.display());
        let found = CertificateDer::pem_file_iter(path).map_err(|error| fault(&error))?;
        let found: Vec<_> = found
            .collect::<Result<_, _>>()
            .map_err(|error| fault(&error))?;
        let mut roots = RootCertStore::empty();
        let (taken, _) = roots.add_parsable_certificates(found);
        if taken == 0 {
            return Err(fault(&"there is no certificate in it"));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| fault(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Both servers may have one name, and neither knows the other's tickets.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands with the server of that name.
    fn secure(&self, server: &str, mut stream: TcpStream) -> Result<Stream, Trouble> {
        let fault = |error: &dyn fmt::Display| Trouble::Refused {
            asked: "TLS",
            said: error.to_string(),
        };
        let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|error| fault(&error))?;
        let mut connection =
            ClientConnection::new(Arc::clone(&self.0), name).map_err(|error| fault(&error))?;
        while connection.is_handshaking() {
            connection
                .complete_io(&mut stream)
                .map_err(|error| fault(&error))?;
        }
        Ok(Stream::Tls(Box::new(StreamOwned::new(connection, stream))))
    }
}

/// A server, and how it is reached.
#[derive(Clone, Copy)]
pub(super) struct Server<'a> {
    /// HOST:PORT
    pub(super) address: &'a str,
    pub(super) protection: Protection,
    /// There where it is needed.
    pub(super) trust: Option<&'a Trust>,
}

enum Stream {
    Clear(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Clear(stream) => stream.read(octets),
            Self::Tls(stream) => stream.read(octets),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Clear(stream) => stream.write(octets),
            Self::Tls(stream) => stream.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A session.
pub(super) struct Client {
    stream: BufReader<Stream>,
    line: Vec<u8>,
}

impl Client {
    /// Connects and logs in.
    pub(super) fn log_in(server: Server<'_>, user: &str, password: &str) -> Result<Self, Trouble> {
        let mut client = Self::connect(server)?;
        client.ask("USER", &format!("USER {user}\r\n"))?;
        client.ask("PASS", &format!("PASS {password}\r\n"))?;
        Ok(client)
    }

    fn connect(server: Server<'_>) -> Result<Self, Trouble> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        let mut stream = None;
        for address in server.address.to_socket_addrs()? {
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
        let over = |stream| Self {
            stream: BufReader::with_capacity(64 << 10, stream),
            line: Vec::new(),
        };
        let trust = || {
            server
                .trust
                .expect("authorities are read where there is TLS")
        };
        let mut client = match server.protection {
            Protection::Implicit => over(trust().secure(server.address, stream)?),
            Protection::None | Protection::Starttls => over(Stream::Clear(stream)),
        };
        client.answer("the greeting")?;
        if server.protection == Protection::Starttls {
            client.ask("STLS", "STLS\r\n")?;
            // What came in clear text behind the answer is nobody's.
            let Stream::Clear(stream) = client.stream.into_inner() else {
                unreachable!("it began in clear text");
            };
            client = over(trust().secure(server.address, stream)?);
        }
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
        self.stream.get_mut().flush()?;
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
