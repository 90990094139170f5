//! What the TLS bench stands on: the servers, the clients, and the clocks.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa;
use clap::ValueEnum;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs as provider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
    SignatureScheme, StreamOwned, SupportedProtocolVersion,
};

use crate::rig::{self, Result, cpu_time};

/// Clients at a time.
const CLIENTS: usize = 8;
/// The CPUs of a server and of the clients.
const SERVER_CPU: usize = 0;
const CLIENT_CPU: usize = 1;
/// Octets of a record's text.
const RECORD: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyKind {
    Ecdsa,
    Rsa,
}

fn fault(what: &str) -> impl Fn(io::Error) -> String + '_ {
    move |error| format!("{what}: {error}")
}

/// Has the calling thread run on one CPU.
fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| format!("CPU {cpu}: {error}"))
}

/// The provider of both servers, and their key exchange.
fn crypto() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![
            provider::kx_group::X25519MLKEM768,
            provider::kx_group::X25519,
        ],
        ..provider::default_provider()
    })
}

fn make_certificate(folder: &Path, kind: KeyKind) -> Result<()> {
    let key = match kind {
        KeyKind::Ecdsa => rcgen::KeyPair::generate(),
        KeyKind::Rsa => {
            let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).map_err(|e| e.to_string())?;
            let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).map_err(|e| e.to_string())?;
            rcgen::KeyPair::try_from(der.as_ref())
        }
    };
    let key = key.map_err(|e| e.to_string())?;
    let params =
        rcgen::CertificateParams::new(["localhost".to_owned()]).map_err(|e| e.to_string())?;
    let made = params.self_signed(&key).map_err(|e| e.to_string())?;
    let failed = fault("a certificate");
    fs::write(folder.join("chain.pem"), made.pem()).map_err(&failed)?;
    fs::write(folder.join("key.pem"), key.serialize_pem()).map_err(&failed)
}

/// The bare server: handshakes, the end of each connection, and nothing else.
pub(crate) fn be_bare(folder: &Path, _kind: KeyKind) -> Result<()> {
    let chain = CertificateDer::pem_file_iter(folder.join("chain.pem"))
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).map_err(|e| e.to_string())?;
    let mut config = ServerConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| error.to_string())?;
    // Tickets, as popcore sends them.
    config.ticketer = provider::Ticketer::new().map_err(|error| error.to_string())?;
    config.send_tls13_tickets = 1;
    config.ignore_client_order = true;
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").map_err(fault("bare"))?;
    println!("{}", listener.local_addr().map_err(fault("bare"))?);
    for stream in listener.incoming() {
        let mut stream = stream.map_err(fault("bare"))?;
        stream.set_nodelay(true).map_err(fault("bare"))?;
        let mut server = ServerConnection::new(Arc::clone(&config)).map_err(|e| e.to_string())?;
        // What a client does wrong ends the client, which says so.
        while server.is_handshaking() && server.complete_io(&mut stream).is_ok() {}
        server.send_close_notify();
        let _ = server.complete_io(&mut stream);
    }
    Ok(())
}

/// The key exchange of popcore's own choice.
fn group_of(version: &SupportedProtocolVersion) -> &'static dyn SupportedKxGroup {
    match version.version {
        rustls::ProtocolVersion::TLSv1_3 => provider::kx_group::X25519MLKEM768,
        _ => provider::kx_group::X25519,
    }
}

/// A client's side of a connection.
pub(crate) struct Client {
    kind: ClientKind,
}

enum ClientKind {
    Clear,
    Tls {
        config: Arc<ClientConfig>,
        expected: HandshakeKind,
    },
}

impl Client {
    pub(crate) fn clear() -> Client {
        Client {
            kind: ClientKind::Clear,
        }
    }

    fn config(
        site: &Site,
        version: &'static SupportedProtocolVersion,
        group: &'static dyn SupportedKxGroup,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let chain = site.folder.path().join("chain.pem");
        let certificate = CertificateDer::from_pem_file(chain).expect("it was just written");
        roots.add(certificate).expect("a certificate");
        let mut crypto = provider::default_provider();
        // The second is for the certificate: OpenSSL wants its curve among them.
        crypto.kx_groups = vec![group, provider::kx_group::SECP256R1];
        ClientConfig::builder_with_provider(Arc::new(crypto))
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// A new session each time.
    pub(crate) fn full(site: &Site, version: &'static SupportedProtocolVersion) -> Client {
        Client::with(site, version, group_of(version), HandshakeKind::Full)
    }

    /// The session before, each time but the first of a thread.
    pub(crate) fn resumed(site: &Site, version: &'static SupportedProtocolVersion) -> Client {
        Client::with(site, version, group_of(version), HandshakeKind::Resumed)
    }

    /// One of these with the key exchange that every server has.
    pub(crate) fn classical(
        site: &Site,
        version: &'static SupportedProtocolVersion,
        expected: HandshakeKind,
    ) -> Client {
        Client::with(site, version, provider::kx_group::X25519, expected)
    }

    fn with(
        site: &Site,
        version: &'static SupportedProtocolVersion,
        group: &'static dyn SupportedKxGroup,
        expected: HandshakeKind,
    ) -> Client {
        let mut config = Client::config(site, version, group);
        if expected == HandshakeKind::Full {
            config.resumption = Resumption::disabled();
        }
        Client {
            kind: ClientKind::Tls {
                config: Arc::new(config),
                expected,
            },
        }
    }

    /// A client of its own for a thread: a ticket of TLS 1.3 is used once, and
    /// threads that shared a store would take them from each other.
    fn of_thread(&self) -> Client {
        let kind = match &self.kind {
            ClientKind::Clear => ClientKind::Clear,
            ClientKind::Tls { config, expected } => {
                let mut config = ClientConfig::clone(config);
                if *expected == HandshakeKind::Resumed {
                    config.resumption = Resumption::in_memory_sessions(4);
                }
                ClientKind::Tls {
                    config: Arc::new(config),
                    expected: *expected,
                }
            }
        };
        Client { kind }
    }

    fn connect(&self, site: &Site) -> Result<Connection> {
        let address = match self.kind {
            ClientKind::Clear => site.clear,
            ClientKind::Tls { .. } => site.tls,
        };
        self.connect_to(address)
    }

    fn connect_to(&self, address: SocketAddr) -> Result<Connection> {
        let socket = TcpStream::connect(address).map_err(fault("connect"))?;
        socket.set_nodelay(true).map_err(fault("connect"))?;
        Ok(match &self.kind {
            ClientKind::Clear => Connection::Clear(socket),
            ClientKind::Tls { config, .. } => {
                let name = ServerName::try_from("localhost").expect("a name");
                let client = ClientConnection::new(Arc::clone(config), name);
                let client = client.map_err(|error| error.to_string())?;
                Connection::Tls(Box::new(StreamOwned::new(client, socket)))
            }
        })
    }

    /// Whether a connection's handshake was what it should be.
    fn check(&self, connection: &Connection, first: bool) -> Result<()> {
        let (ClientKind::Tls { expected, .. }, Connection::Tls(stream)) = (&self.kind, connection)
        else {
            return Ok(());
        };
        let found = stream.conn.handshake_kind();
        if found == Some(*expected) || first {
            Ok(())
        } else {
            Err(format!("a handshake was {found:?} and not {expected:?}"))
        }
    }
}

enum Connection {
    Clear(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Clear(stream) => stream.read(buffer),
            Connection::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Clear(stream) => stream.write(octets),
            Connection::Tls(stream) => stream.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Connection::Clear(stream) => stream.flush(),
            Connection::Tls(stream) => stream.flush(),
        }
    }
}

/// A POP3 session as a client sees it.
struct Dialogue(BufReader<Connection>);

impl Dialogue {
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).map_err(fault("a reply"))?;
        if line.ends_with("\r\n") {
            Ok(line)
        } else {
            Err(format!("a reply was cut: {line:?}"))
        }
    }

    fn say(&mut self, command: &str) -> Result<()> {
        let line = format!("{command}\r\n");
        let stream = self.0.get_mut();
        stream.write_all(line.as_bytes()).map_err(fault(command))?;
        stream.flush().map_err(fault(command))
    }

    fn ok(&mut self, command: &str) -> Result<()> {
        self.say(command)?;
        let line = self.line()?;
        if line.starts_with("+OK") {
            Ok(())
        } else {
            Err(format!("{command}: {line}"))
        }
    }

    /// The greeting and a login.
    fn log_in(connection: Connection, user: usize) -> Result<Dialogue> {
        let mut dialogue = Dialogue(BufReader::with_capacity(64 * 1024, connection));
        dialogue.line()?;
        dialogue.ok(&format!("USER user{user}"))?;
        dialogue.ok("PASS pw")?;
        Ok(dialogue)
    }

    fn quit(mut self) -> Result<Connection> {
        self.ok("QUIT")?;
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).map_err(fault("the end"))?;
        if rest.is_empty() {
            Ok(self.0.into_inner())
        } else {
            Err("something came behind QUIT".to_owned())
        }
    }
}

/// What a round does.
pub(crate) enum Work {
    /// Polls popcore.
    Poll(Client),
    /// Shakes hands with the bare server.
    Handshake(Client),
}

impl Work {
    fn client(&self) -> &Client {
        match self {
            Work::Poll(client) | Work::Handshake(client) => client,
        }
    }
}

/// Retrieves one message again and again.
pub(crate) struct Bulk {
    client: Client,
    ending: Ending,
    octets: usize,
}

impl Bulk {
    pub(crate) fn new(client: Client, ending: Ending, octets: usize) -> Bulk {
        Bulk {
            client,
            ending,
            octets,
        }
    }
}

/// How lines end in a message's file. In clear, what ends by CRLF needs no conversion and
/// goes from the file to the socket; over TLS either has to come into the shard.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    Lf,
    Crlf,
}

impl Ending {
    pub(crate) const ALL: [Ending; 2] = [Ending::Lf, Ending::Crlf];

    fn text(self) -> &'static [u8] {
        match self {
            Ending::Lf => b"\n",
            Ending::Crlf => b"\r\n",
        }
    }

    fn user(self) -> usize {
        self as usize
    }
}

/// popcore and the bare server, with the same certificate.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    popcore: rig::Server,
    bare: Bare,
    clear: SocketAddr,
    tls: SocketAddr,
    users: usize,
    messages: usize,
}

/// Microseconds of CPU for what a server does in a handshake of TLS 1.3 and does in
/// no other: its share of a key exchange, and the signature.
pub(crate) fn parts(time: Duration) -> Result<Vec<(&'static str, f64)>> {
    let run = move || -> Result<Vec<(&'static str, f64)>> {
        pin(SERVER_CPU)?;
        let mut figures = Vec::new();
        for (name, group) in [
            ("X25519MLKEM768", provider::kx_group::X25519MLKEM768),
            ("X25519", provider::kx_group::X25519),
        ] {
            let client = group.start().map_err(|e| e.to_string())?;
            let exchange = || group.start_and_complete(client.pub_key()).is_ok();
            figures.push((name, repeat(time, exchange)?));
        }
        let key = rcgen::KeyPair::generate().map_err(|e| e.to_string())?;
        let der = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
        let key = provider::sign::any_ecdsa_type(&der).map_err(|e| e.to_string())?;
        let scheme = [SignatureScheme::ECDSA_NISTP256_SHA256];
        let signer = key.choose_scheme(&scheme).ok_or("no such scheme")?;
        let sign = || signer.sign(&[7; 130]).is_ok();
        figures.push(("ECDSA P-256", repeat(time, sign)?));
        Ok(figures)
    };
    thread::scope(|scope| scope.spawn(run).join().map_err(|_| "a part panicked")?)
}

/// Microseconds that each takes.
fn repeat(time: Duration, once: impl Fn() -> bool) -> Result<f64> {
    let (mut done, begun) = (0_u32, Instant::now());
    while begun.elapsed() < time {
        for _ in 0..32 {
            if !once() {
                return Err("a part failed".to_owned());
            }
            done += 1;
        }
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(done))
}

/// OpenSSL's own server, which sends back each line the wrong way round.
pub(crate) struct Openssl(Bare);

impl Openssl {
    pub(crate) fn start(site: &Site) -> Result<Openssl> {
        let address = free_address()?;
        let file = |name| site.folder.path().join(name);
        let process = Command::new("taskset")
            .args([
                "-c",
                &SERVER_CPU.to_string(),
                "openssl",
                "s_server",
                "-rev",
                "-quiet",
            ])
            .args(["-groups", "X25519:P-256", "-num_tickets", "1", "-accept"])
            .arg(address.to_string())
            .arg("-cert")
            .arg(file("chain.pem"))
            .arg("-key")
            .arg(file("key.pem"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(fault("taskset (Debian: util-linux)"))?;
        let server = Openssl(Bare { process, address });
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if begun.elapsed() > Duration::from_secs(10) {
                return Err("openssl s_server does not listen (Debian: openssl)".to_owned());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Microseconds of its CPU for each connection with one line.
    pub(crate) fn round(&self, client: &Client, seconds: f64) -> Result<f64> {
        let run = || -> Result<f64> {
            pin(CLIENT_CPU)?;
            let client = client.of_thread();
            let mut sessions = 0_u32;
            let pid = self.0.process.id();
            let (mut begun, mut before) = (Instant::now(), cpu_time(pid)?);
            while begun.elapsed().as_secs_f64() < seconds {
                let mut dialogue = Dialogue(BufReader::new(client.connect_to(self.0.address)?));
                let stream = dialogue.0.get_mut();
                stream.write_all(b"abc\n").map_err(fault("a line"))?;
                stream.flush().map_err(fault("a line"))?;
                let mut line = String::new();
                dialogue.0.read_line(&mut line).map_err(fault("a line"))?;
                if line != "cba\n" {
                    return Err(format!("openssl said {line:?}"));
                }
                client.check(dialogue.0.get_ref(), sessions == 0)?;
                sessions += 1;
                if sessions == 1 {
                    (begun, before) = (Instant::now(), cpu_time(pid)?);
                }
            }
            let cpu = cpu_time(pid)?.saturating_sub(before);
            Ok(cpu.as_secs_f64() * 1e6 / f64::from(sessions - 1))
        };
        thread::scope(|scope| scope.spawn(run).join().map_err(|_| "a client panicked")?)
    }
}

/// The bare server's process.
struct Bare {
    process: Child,
    address: SocketAddr,
}

impl Drop for Bare {
    fn drop(&mut self) {
        // Fails only for a process that has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Bare {
    fn start(folder: &Path, kind: KeyKind) -> Result<Bare> {
        let program = std::env::current_exe().map_err(fault("this program"))?;
        let mut command = Command::new("taskset");
        command
            .args(["-c", &SERVER_CPU.to_string()])
            .arg(program)
            .arg("bare")
            .arg(folder);
        let name = kind.to_possible_value().expect("each has one");
        command
            .arg(name.get_name())
            .stdout(Stdio::piped())
            .stdin(Stdio::null());
        let mut process = command
            .spawn()
            .map_err(fault("taskset (Debian: util-linux)"))?;
        let stdout = process.stdout.take().expect("piped");
        let mut bare = Bare {
            process,
            address: SocketAddr::from(([0; 4], 0)),
        };
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(fault("bare"))?;
        let address = line.trim_end().parse();
        bare.address =
            address.map_err(|_| format!("bare does not say where it listens: {line:?}"))?;
        Ok(bare)
    }
}

fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(fault("a port"))?;
    listener.local_addr().map_err(fault("a port"))
}

impl Site {
    pub(crate) fn start(kind: KeyKind, users: usize, messages: usize) -> Result<Site> {
        let folder = tempfile::tempdir().map_err(fault("a folder"))?;
        make_certificate(folder.path(), kind)?;
        rig::make_mail(folder.path(), users, messages)?;
        let (clear, tls) = (free_address()?, free_address()?);
        let text = format!(
            "{}[[listener]]\naddress = \"{tls}\"\ntls = \"implicit\"\n\
             [[tls.certificate]]\nchain = \"chain.pem\"\nkey = \"key.pem\"\n",
            rig::popcore_config(clear, 1)
        );
        let config = folder.path().join("popcore.toml");
        fs::write(&config, text).map_err(fault("a configuration"))?;
        Ok(Site {
            popcore: rig::start_configured("popcore", &config, clear, 1, users)?,
            bare: Bare::start(folder.path(), kind)?,
            folder,
            clear,
            tls,
            users,
            messages,
        })
    }

    /// Puts a message of so many octets on the wire into the maildrop of its ending.
    pub(crate) fn deliver(&self, ending: Ending, octets: usize) -> Result<()> {
        let lines = octets.div_ceil(78) + 2;
        let mut text = Vec::with_capacity(78 * lines);
        for line in [&b"Subject: bulk"[..], b""]
            .into_iter()
            .chain(std::iter::repeat_n(&[b'x'; 76][..], lines))
        {
            text.extend_from_slice(line);
            text.extend_from_slice(ending.text());
        }
        let name = format!("mail/user{}/new/1700000001.M1P1.bulk", ending.user());
        fs::write(self.folder.path().join(name), text).map_err(fault("a message"))
    }

    /// A poll: listings and all.
    pub(crate) fn poll(&self, client: &Client, user: usize) -> Result<()> {
        self.poll_by(client, user, true)
    }

    fn poll_by(&self, client: &Client, user: usize, first: bool) -> Result<()> {
        let mut dialogue = Dialogue::log_in(client.connect(self)?, user)?;
        dialogue.ok("STAT")?;
        dialogue.ok("UIDL")?;
        let mut rows = 0;
        while dialogue.line()? != ".\r\n" {
            rows += 1;
        }
        if rows != self.messages {
            return Err(format!("{rows} rows of {}", self.messages));
        }
        client.check(&dialogue.quit()?, first)
    }

    fn shake_hands(&self, client: &Client) -> Result<()> {
        let mut connection = client.connect_to(self.bare.address)?;
        let mut rest = Vec::new();
        connection
            .read_to_end(&mut rest)
            .map_err(fault("a handshake"))?;
        client.check(&connection, false)
    }

    /// Microseconds of the server's CPU for each session of a round.
    pub(crate) fn round(&self, work: &Work, seconds: f64) -> Result<f64> {
        let pid = match work {
            Work::Poll(_) => self.popcore.pid,
            Work::Handshake(_) => self.bare.process.id(),
        };
        let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
        let ready = AtomicUsize::new(0);
        let run = |thread: usize| -> Result<()> {
            pin(CLIENT_CPU)?;
            let client = work.client().of_thread();
            let mut first = true;
            let mut user = thread;
            while !stop.load(Ordering::Relaxed) {
                match work {
                    Work::Poll(_) => self.poll_by(&client, user, first)?,
                    Work::Handshake(_) => self.shake_hands(&client)?,
                }
                user = if user + CLIENTS < self.users {
                    user + CLIENTS
                } else {
                    thread
                };
                if std::mem::take(&mut first) {
                    ready.fetch_add(1, Ordering::Relaxed);
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..CLIENTS).map(|n| scope.spawn(move || run(n))).collect();
            let begun = Instant::now();
            while ready.load(Ordering::Relaxed) < CLIENTS
                && begun.elapsed() < Duration::from_secs(10)
            {
                thread::sleep(Duration::from_millis(1));
            }
            let counted = done.load(Ordering::Relaxed);
            let cpu = cpu_time(pid)?;
            thread::sleep(Duration::from_secs_f64(seconds));
            // A busy machine may take longer for the first.
            while done.load(Ordering::Relaxed) == counted
                && begun.elapsed() < Duration::from_secs(20)
            {
                thread::sleep(Duration::from_millis(1));
            }
            let cpu = cpu_time(pid)?.saturating_sub(cpu);
            let sessions = done.load(Ordering::Relaxed) - counted;
            stop.store(true, Ordering::Relaxed);
            for thread in threads {
                thread.join().map_err(|_| "a client panicked")??;
            }
            if sessions == 0 {
                return Err("no session came to its end".to_owned());
            }
            #[expect(clippy::cast_precision_loss, reason = "a few thousand sessions")]
            Ok(cpu.as_secs_f64() * 1e6 / sessions as f64)
        })
    }

    /// Microseconds of the server's CPU for each MiB.
    pub(crate) fn bulk(&self, bulk: &Bulk, seconds: f64) -> Result<f64> {
        let client = &bulk.client;
        let run = || -> Result<f64> {
            pin(CLIENT_CPU)?;
            let mut dialogue = Dialogue::log_in(client.connect(self)?, bulk.ending.user())?;
            let begun = Instant::now();
            let before = cpu_time(self.popcore.pid)?;
            let mut octets = 0;
            while begun.elapsed().as_secs_f64() < seconds || octets == 0 {
                dialogue.ok("RETR 1")?;
                let taken = skip_message(&mut dialogue.0)?;
                if taken < bulk.octets {
                    return Err(format!("{taken} octets of {}", bulk.octets));
                }
                octets += taken;
            }
            let cpu = cpu_time(self.popcore.pid)?.saturating_sub(before);
            dialogue.quit()?;
            #[expect(clippy::cast_precision_loss, reason = "some gigabytes")]
            Ok(cpu.as_secs_f64() * 1e6 / (octets as f64 / 1_048_576.0))
        };
        thread::scope(|scope| scope.spawn(run).join().map_err(|_| "a client panicked")?)
    }

    /// Octets of the server's own memory for each of so many sessions that idle.
    pub(crate) fn hold(&self, client: &Client, sessions: usize) -> Result<f64> {
        let before = anonymous(self.popcore.pid)?;
        let mut held = Vec::with_capacity(sessions);
        for user in 0..sessions {
            held.push(Dialogue::log_in_lean(client.connect(self)?, user)?);
        }
        let after = anonymous(self.popcore.pid)?;
        for dialogue in held {
            dialogue.quit()?;
        }
        #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
        Ok(after.saturating_sub(before) as f64 / sessions as f64)
    }
}

impl Dialogue {
    /// With a small buffer, for many at a time.
    fn log_in_lean(connection: Connection, user: usize) -> Result<Dialogue> {
        let mut dialogue = Dialogue(BufReader::with_capacity(512, connection));
        dialogue.line()?;
        dialogue.ok(&format!("USER user{user}"))?;
        dialogue.ok("PASS pw")?;
        Ok(dialogue)
    }
}

/// Reads up to the terminator; no line of these messages begins with a dot.
fn skip_message(stream: &mut BufReader<Connection>) -> Result<usize> {
    const END: &[u8] = b"\r\n.\r\n";
    let mut tail = Vec::new();
    let mut taken = 0;
    loop {
        let piece = stream.fill_buf().map_err(fault("a message"))?;
        if piece.is_empty() {
            return Err("a message was cut".to_owned());
        }
        let length = piece.len();
        taken += length;
        let kept = length.min(END.len());
        tail.extend_from_slice(&piece[length - kept..]);
        tail.drain(..tail.len().saturating_sub(END.len()));
        stream.consume(length);
        if tail == END {
            return Ok(taken);
        }
    }
}

/// Microseconds of CPU for each MiB that is encrypted in memory, record by record.
pub(crate) fn encryption(time: Duration) -> Result<f64> {
    let run = move || -> Result<f64> {
        pin(SERVER_CPU)?;
        let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(|e| e.to_string())?;
        let key = LessSafeKey::new(key);
        let mut record = vec![b'x'; RECORD];
        let (mut records, begun) = (0_u64, Instant::now());
        while begun.elapsed() < time {
            for _ in 0..64 {
                let mut nonce = [0; 12];
                nonce[4..].copy_from_slice(&records.to_be_bytes());
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from([0; 5]), &mut record);
                let _ = std::hint::black_box(tag.map_err(|e| e.to_string())?);
                records += 1;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "some gigabytes")]
        let mib = records as f64 * RECORD as f64 / 1_048_576.0;
        Ok(begun.elapsed().as_secs_f64() * 1e6 / mib)
    };
    thread::scope(|scope| scope.spawn(run).join().map_err(|_| "the cipher panicked")?)
}

/// Octets of anonymous memory of a process.
fn anonymous(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(fault("status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kibioctets =
        line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(kibioctets.ok_or("status has no RssAnon")? * 1024)
}
