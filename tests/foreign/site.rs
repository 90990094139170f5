//! A popcore with one mailbox, made for one test.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa;
use rustix::process::{Pid, Signal, kill_process};

use crate::messages::Message;

/// The user of every test, in the form that mail providers use.
pub(crate) const USER: &str = "alice@example.net";
/// With a space, which some servers refuse.
pub(crate) const PASSWORD: &str = "two words";
/// The name in the certificate.
pub(crate) const HOST: &str = "localhost";

/// A name that a wildcard's certificate is for.
pub(crate) const WILD_HOST: &str = "mail.example.net";

/// Debian's `nobody`: for programs that serve or fetch no mail as root.
pub(crate) const NOBODY: u32 = 65_534;

/// How long the server may take to start or to end.
const PATIENCE: Duration = Duration::from_mins(1);
/// Tries to find ports that nobody else takes in the meantime.
const TRIES: usize = 10;

/// How a client protects its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Not at all.
    Clear,
    /// By STLS.
    Stls,
    /// From the first byte.
    Tls,
}

/// All three, for clients that can.
pub(crate) const PROTECTIONS: [Protection; 3] =
    [Protection::Clear, Protection::Stls, Protection::Tls];

/// What a site's configuration has beside what all have.
#[derive(Clone, Copy)]
pub(crate) struct Settings<'a> {
    /// Keys of `[auth]`.
    pub(crate) auth: &'a str,
    /// Keys of `[maildrop]`.
    pub(crate) maildrop: &'a str,
    /// Further sections.
    pub(crate) sections: &'a str,
}

impl Default for Settings<'_> {
    fn default() -> Self {
        Self {
            auth: "mechanisms = [\"scram-sha-256\", \"scram-sha-1\", \"plain\", \"login\"]",
            maildrop: "",
            sections: "",
        }
    }
}

/// The running server with its folder.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    server: Child,
    clear: u16,
    tls: u16,
}

impl Site {
    /// Makes the mailbox and serves it.
    pub(crate) fn start(messages: &[Message]) -> Self {
        Self::start_after(messages, "", |_| {})
    }

    /// The same with lines more in `[maildrop]`, and with what another server does
    /// there before.
    pub(crate) fn start_after(
        messages: &[Message],
        maildrop: &str,
        before: impl FnOnce(&Path),
    ) -> Self {
        let settings = Settings {
            maildrop,
            ..Settings::default()
        };
        Self::start_by(messages, settings, before)
    }

    /// The same with other settings.
    pub(crate) fn start_by(
        messages: &[Message],
        settings: Settings<'_>,
        before: impl FnOnce(&Path),
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("own folder");
        make_certificate(path);
        fs::create_dir(path.join("home")).expect("own folder");
        let line = format!("{USER}:{{PLAIN}}{PASSWORD}\n");
        fs::write(path.join("users"), line).expect("own folder");
        make_maildir(&maildir(path), messages);
        before(path);
        let (server, clear, tls) = (0..TRIES)
            .find_map(|_| serve(path, settings))
            .expect("two ports that stay free");
        Self {
            folder,
            server,
            clear,
            tls,
        }
    }

    /// The port for a connection of this kind.
    pub(crate) fn port(&self, protection: Protection) -> u16 {
        match protection {
            Protection::Clear | Protection::Stls => self.clear,
            Protection::Tls => self.tls,
        }
    }

    /// What clients trust for the site's certificates.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// The server's process.
    pub(crate) fn pid(&self) -> u32 {
        self.server.id()
    }

    /// A folder for the client's own files.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// The folder that holds everything.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the client's that nobody else may read.
    pub(crate) fn write_private(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home().join(name);
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        let written = file.expect("a new file").write_all(text.as_bytes());
        written.expect("own folder");
        path
    }

    /// A Maildir for what the client fetches.
    pub(crate) fn destination(&self) -> PathBuf {
        let path = self.home().join("fetched");
        for part in ["new", "cur", "tmp"] {
            fs::create_dir_all(path.join(part)).expect("own folder");
        }
        path
    }

    /// Messages in the maildrop.
    pub(crate) fn remaining(&self) -> usize {
        let maildir = maildir(self.folder.path());
        let count = |part| fs::read_dir(maildir.join(part)).expect("a Maildir").count();
        count("new") + count("cur")
    }

    /// Ends the server, and asserts that every session was protected like this.
    pub(crate) fn stop_after(self, protection: Protection) -> String {
        let log = self.stop();
        let sessions: Vec<_> = log.lines().filter(|line| line.contains("pop3(")).collect();
        assert!(!sessions.is_empty(), "{log}");
        for line in sessions {
            let protected = line.contains(", TLS, session=");
            assert_eq!(protected, protection != Protection::Clear, "{line}");
        }
        log
    }

    /// Ends the server as an operator does, and returns its log. Nothing in it
    /// may be worse than information, and every session must have logged out.
    pub(crate) fn stop(mut self) -> String {
        signal(&self.server, Signal::TERM);
        let status = wait(&mut self.server);
        let log = log(self.folder.path());
        assert!(status.success(), "{status}\n{log}");
        for line in log.lines() {
            let told = [": Error: ", ": Warning: ", "panicked"];
            assert!(!told.iter().any(|word| line.contains(word)), "{line}");
            // Other sessions are the test's own look whether the server is there.
            let session = line.contains("pop3(");
            assert!(!session || line.contains("Logged out"), "{line}");
        }
        log
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", log(self.folder.path()));
        }
        // Both fail where the server has ended, which is what is wanted.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Makes a file or folder with all that is in it nobody's.
pub(crate) fn give_to_nobody(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).expect("root may do that");
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("own folder") {
            give_to_nobody(&entry.expect("own folder").path());
        }
    }
}

/// Where the user's mail is below the folder.
pub(crate) fn maildir(folder: &Path) -> PathBuf {
    folder.join("mail/example.net/alice")
}

/// Messages lie in new/ and in cur/ by turns, in the order of their names.
pub(crate) fn make_maildir(root: &Path, messages: &[Message]) {
    for part in ["new", "cur", "tmp"] {
        fs::create_dir_all(root.join(part)).expect("own folder");
    }
    for (number, message) in messages.iter().enumerate() {
        let (part, flags) = [("new", ""), ("cur", ":2,S")][number % 2];
        let name = format!("17000000{number:02}.M{number}P1.mail.example.net{flags}");
        fs::write(root.join(part).join(name), &message.bytes).expect("own folder");
    }
}

fn make_certificate(folder: &Path) {
    // RSA keys take a while to be made.
    static RSA: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("a key");
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).expect("DER");
        der.as_ref().to_vec()
    });
    let elliptic = || rcgen::KeyPair::generate().expect("a key");
    let rsa = rcgen::KeyPair::try_from(RSA.as_slice()).expect("a key");
    let issuer = make_authority(folder, elliptic());
    for (stem, host, key) in [
        ("", HOST, elliptic()),
        ("rsa", HOST, rsa),
        ("wildcard", "*.example.net", elliptic()),
    ] {
        let mut params = rcgen::CertificateParams::new([host.to_owned()]).expect("a name");
        let name = &mut params.distinguished_name;
        name.push(rcgen::DnType::CommonName, host);
        valid_for(&mut params, 90);
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        // Auditors want to know where a revocation would be told.
        params.crl_distribution_points = vec![rcgen::CrlDistributionPoint {
            uris: vec!["http://localhost/crl".to_owned()],
        }];
        let made = params.signed_by(&key, &issuer).expect("a certificate");
        let (chain, secret) = match stem {
            "" => ("certificate.pem".to_owned(), "key.pem".to_owned()),
            stem => (format!("{stem}.pem"), format!("{stem}-key.pem")),
        };
        fs::write(folder.join(chain), made.pem()).expect("own folder");
        fs::write(folder.join(secret), key.serialize_pem()).expect("own folder");
    }
}

/// The authority that signs the site's certificates.
fn make_authority(folder: &Path, key: rcgen::KeyPair) -> rcgen::Issuer<'static, rcgen::KeyPair> {
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    let name = &mut params.distinguished_name;
    name.push(rcgen::DnType::CommonName, "an authority for tests");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![
        rcgen::KeyUsagePurpose::KeyCertSign,
        rcgen::KeyUsagePurpose::CrlSign,
    ];
    valid_for(&mut params, 365);
    let made = params.self_signed(&key).expect("a certificate");
    fs::write(folder.join("authority.pem"), made.pem()).expect("own folder");
    rcgen::Issuer::new(params, key)
}

/// Certificates of clients' authorities are refused for being too long-lived.
fn valid_for(params: &mut rcgen::CertificateParams, days: u32) {
    let day = Duration::from_hours(24);
    params.not_before = (SystemTime::now() - day).into();
    params.not_after = (SystemTime::now() + day * days).into();
}

/// A port that is free at the moment.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Starts the server on two ports; `None` where somebody took one of them.
fn serve(folder: &Path, settings: Settings<'_>) -> Option<(Child, u16, u16)> {
    let (clear, tls) = (free_port(), free_port());
    let text = configuration(clear, tls, settings);
    fs::write(folder.join("popcore.toml"), text).expect("own folder");
    let errors = fs::File::create(folder.join("stderr")).expect("own folder");
    let mut server = Command::new(env!("CARGO_BIN_EXE_popcore"))
        .args(["serve", "--config"])
        .arg(folder.join("popcore.toml"))
        .stdin(Stdio::null())
        .stderr(errors)
        .spawn()
        .expect("popcore starts");
    let started = Instant::now();
    // Its ports are open long before.
    while !log(folder).contains(": Info: popcore ") {
        if let Some(status) = server.try_wait().expect("a child") {
            let errors = fs::read_to_string(folder.join("stderr")).expect("own folder");
            assert!(errors.contains("cannot listen on"), "{status}\n{errors}");
            return None;
        }
        let told = log(folder);
        assert!(started.elapsed() < PATIENCE, "popcore is not there\n{told}");
        thread::sleep(Duration::from_millis(10));
    }
    Some((server, clear, tls))
}

fn configuration(clear: u16, tls: u16, settings: Settings<'_>) -> String {
    let Settings {
        auth,
        maildrop,
        sections,
    } = settings;
    format!(
        "[server]\nhostname = \"{HOST}\"\nshards = 2\n\n\
         [[listener]]\naddress = \"127.0.0.1:{clear}\"\ntls = \"starttls\"\n\n\
         [[listener]]\naddress = \"127.0.0.1:{tls}\"\ntls = \"implicit\"\n\n\
         [[tls.certificate]]\nchain = \"certificate.pem\"\nkey = \"key.pem\"\n\n\
         [[tls.certificate]]\nchain = \"rsa.pem\"\nkey = \"rsa-key.pem\"\n\n\
         [[tls.certificate]]\nchain = \"wildcard.pem\"\nkey = \"wildcard-key.pem\"\n\n\
         [auth]\nplaintext_without_tls = true\n{auth}\n\n\
         [[auth.directory]]\nkind = \"passwd-file\"\npath = \"users\"\n\n\
         [maildrop]\npath = \"mail/{{domain}}/{{local}}\"\n{maildrop}\n\
         {sections}\n[log]\ntarget = \"log\"\n"
    )
}

fn log(folder: &Path) -> String {
    fs::read_to_string(folder.join("log")).unwrap_or_default()
}

/// Sends a signal to a child that has not been waited for.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a pid"), signal).expect("own child");
}

fn wait(child: &mut Child) -> ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        assert!(started.elapsed() < PATIENCE, "popcore does not end");
        thread::sleep(Duration::from_millis(10));
    }
}
