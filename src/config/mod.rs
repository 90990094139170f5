//! The configuration: read once, validated as a whole, immutable after that.
//!
//! What leaves this module is right: addresses are parsed, paths are absolute,
//! certificate files and directories of users exist, users are numbers. A key
//! whose feature popcore does not have is an error that says so, never a value
//! that is silently ignored. Each subsystem gets plain data; none of them reads
//! a file of settings or knows a default.

mod cipher;
mod directory;
mod duration;
mod error;
mod file;
mod limits;
mod login;
mod mail;
mod network;
mod oauth;
mod process;
mod reload;
mod server;
mod template;
mod tls;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use cipher::{Cipher, TlsVersion};
pub use error::{Cause, ConfigError, ConfigErrors};
pub use process::Process;

pub use crate::auth::{DirectoryKind, DirectoryOptions, NameRules, Secret};
pub use reload::Reloadable;

pub use crate::maildrop::{Rules, Sources};
pub use crate::observe::{LogLevel, LogOptions, LogTarget};
pub use crate::sasl::Mechanisms;

use crate::auth::{Network, OauthOptions, Prefixes, Terms};
use crate::shard::admission::{SessionLimits, VisitLimits};
use directory::Site;
use file::File;

/// A time for which deleted messages may be kept, as an operator writes it.
pub fn undelete_time(text: &str) -> Option<Duration> {
    let read = duration::parse_within(text, crate::limits::LONGEST_UNDELETE);
    read.ok().filter(|time| !time.is_zero())
}

/// A valid configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file that it is from, which a reload reads again.
    pub file: PathBuf,
    /// `[server]`
    pub server: ServerOptions,
    /// `[[listener]]`, at least one, no two of the same address.
    pub listeners: Vec<ListenerOptions>,
    /// `[tls]`
    pub tls: TlsOptions,
    /// `[auth]`
    pub auth: AuthOptions,
    /// `[maildrop]`
    pub maildrop: MaildropOptions,
    /// `[limits]`
    pub limits: LimitOptions,
    /// `[log]`
    pub log: LogOptions,
    /// `[admin]`, if it is to be served.
    pub admin: Option<AdminOptions>,
}

/// The process as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// The name in the greeting: printable ASCII without spaces.
    pub hostname: String,
    /// How many shards to run.
    pub shards: Shards,
    /// Which shard a connection goes to.
    pub steering: Steering,
    /// To whom privileges are dropped once the listeners are bound.
    pub run_as: Option<RunAs>,
    /// How long sessions may finish after the first signal to stop.
    pub drain: Duration,
}

/// How many shards to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shards {
    /// One per CPU of the affinity mask.
    Auto,
    /// That many, at most [`crate::limits::SHARDS`].
    Count(NonZeroUsize),
}

/// Which shard a connection goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steering {
    /// The one that the kernel's hash of both addresses and ports says.
    Hash,
    /// The one on the CPU that received the connection's first packet.
    Cpu,
}

/// The identity a process started as root takes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Every other group the user is a member of; `gid` may be among them.
    pub supplementary: Vec<u32>,
}

/// One address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerOptions {
    /// Where to listen; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// What a client may or must do about TLS there.
    pub tls: TlsMode,
}

/// What TLS there is on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// None.
    None,
    /// The client may ask for it with STLS (RFC 2595).
    Starttls,
    /// From the first byte (RFC 8314).
    Implicit,
}

/// How TLS is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// `[[tls.certificate]]`, the first is the default; at least one if any
    /// listener speaks TLS.
    pub certificates: Vec<CertificateOptions>,
    /// The cipher suites, never none; a version without one is not spoken.
    pub ciphers: Vec<Cipher>,
    /// Whether clients show certificates.
    pub clients: ClientCertificates,
    /// Files of secrets that tickets are sealed with; the first seals, all open.
    /// Without one, secrets are made at random and live as long as the process.
    pub ticket_keys: Vec<PathBuf>,
    /// How long a session may be resumed, and how often keys are changed.
    pub ticket_lifetime: Duration,
    /// Whether the kernel makes the records of large messages, where it can.
    pub kernel: bool,
}

/// Whether clients show certificates, and whose are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked.
    None,
    /// They may, of an authority in this file.
    Optional(PathBuf),
    /// They must.
    Required(PathBuf),
}

/// A certificate and its key, both PEM files that exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateOptions {
    /// The certificate with its chain, leaf first.
    pub chain: PathBuf,
    /// The leaf's private key.
    pub key: PathBuf,
}

/// Who may log in, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthOptions {
    /// Whether a password may be sent on a connection without TLS.
    pub plaintext_without_tls: bool,
    /// The mechanisms of AUTH; may be none.
    pub mechanisms: Mechanisms,
    /// The delay after the first bad login; zero turns delays off.
    pub failure_delay: Duration,
    /// How long what is known of logins is believed.
    pub cache: Terms,
    /// APOP is offered.
    pub apop: bool,
    /// Who verifies bearer tokens, if there are any.
    pub oauth: Option<OauthOptions>,
    /// Where users are looked up, in this order; at least one.
    pub directories: Vec<DirectoryOptions>,
    /// The same for master users; may be none.
    pub masters: Vec<DirectoryOptions>,
    /// What becomes of the names that clients give.
    pub names: NameRules,
    /// What made-up salts are made of.
    pub scram_secret: Option<Secret>,
}

/// Where mail is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaildropOptions {
    /// The path template, absolute or beginning with `{home}`.
    pub path: String,
    /// The same for indexes; `None`: each beside its messages.
    pub index: Option<String>,
    /// Where unique-ids come from.
    pub uidl: Sources,
    /// What the end of a session does.
    pub rules: Rules,
    /// How long a client may have been silent whose maildrop its user takes over from
    /// the same address; `None`: it is not taken.
    pub takeover: Option<Duration>,
    /// Octets from which on a message that has to be encoded is mapped.
    pub map_text_from: u64,
    /// Octets from which on a message that is stored as it is sent is mapped.
    pub map_wire_from: u64,
}

/// Limits an operator may move. Those that are fixed stand in [`crate::limits`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitOptions {
    /// Autologout of an authenticated session, ten minutes at least.
    pub idle: Duration,
    /// From connection to authentication, a second at least.
    pub login: Duration,
    /// How long a client may take to read one buffer of what is sent to it. No
    /// key sets it: [`crate::limits::WRITE_STALL`].
    pub write_stall: Duration,
    /// How many sessions there may be.
    pub sessions: SessionLimits,
    /// What of an address counts as one network.
    pub network: Prefixes,
    /// The longest that a login waits because of those that failed.
    pub longest_failure_delay: Duration,
    /// How often users may come.
    pub visits: VisitLimits,
    /// Networks for which neither these limits nor delays are.
    pub exempt: Vec<Network>,
    /// A file of networks that are not let in.
    pub block_list: Option<PathBuf>,
}

/// The administrator's HTTP listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminOptions {
    /// Where to listen; port 0 lets the kernel choose.
    pub listen: SocketAddr,
}

impl Config {
    /// Reads and validates a configuration file.
    ///
    /// Blocks on the files that the configuration names.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Self::look(path, &Process::current()).whole()
    }

    /// Reads and validates a configuration file that is another process's, which may
    /// read more than this one.
    ///
    /// Blocks on the files that the configuration names.
    pub fn look(path: &Path, process: &Process) -> Seen {
        match text(path) {
            Ok(text) => Seen::of(&text, path, process),
            Err(faults) => Seen {
                config: None,
                faults: Some(faults),
            },
        }
    }

    /// Validates the text of a configuration file. `path` names it in messages,
    /// and relative paths are relative to its folder.
    pub fn parse(text: &str, path: &Path, process: &Process) -> Result<Self, ConfigErrors> {
        Seen::of(text, path, process).whole()
    }
}

/// What this process can see of a configuration, for who does not serve by it.
#[derive(Debug)]
pub struct Seen {
    /// All that it says. It may name files whose content was refused to this process,
    /// never one that is wrong.
    pub config: Option<Config>,
    /// What is wrong, or was refused.
    pub faults: Option<ConfigErrors>,
}

impl Seen {
    fn of(text: &str, path: &Path, process: &Process) -> Self {
        let file = File::new(path, text);
        let config = read(&file, path, process);
        let faults = ConfigErrors::gather(file.into_errors());
        let refused = |faults: &ConfigErrors| faults.iter().all(|f| f.cause == Cause::Refused);
        Self {
            config: config.filter(|_| faults.as_ref().is_none_or(refused)),
            faults,
        }
    }

    /// The configuration, if there is nothing to be said against it.
    fn whole(self) -> Result<Config, ConfigErrors> {
        match (self.faults, self.config) {
            (None, Some(config)) => Ok(config),
            (Some(faults), _) => Err(faults),
            (None, None) => unreachable!("a configuration is withheld only with a reason"),
        }
    }
}

/// The text of a configuration file. BLOCKING.
fn text(path: &Path) -> Result<String, ConfigErrors> {
    let fault = |problem: String, remedy: &str, cause: Cause| {
        let error = ConfigError {
            file: path.to_owned(),
            line: None,
            key: None,
            problem,
            remedy: remedy.to_owned(),
            cause,
        };
        ConfigErrors::gather(vec![error]).expect("one error")
    };
    let remedy = "give the path of a configuration file that this user may read";
    let unreadable = |error: io::Error| {
        let cause = Cause::of(&error);
        fault(format!("cannot be read: {error}"), remedy, cause)
    };
    let facts = fs::metadata(path).map_err(unreadable)?;
    if !facts.is_file() || facts.len() > crate::limits::CONFIGURATION {
        let most = crate::limits::CONFIGURATION;
        return Err(fault(
            format!("is not a file of at most {most} octets"),
            remedy,
            Cause::Wrong,
        ));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let problem = format!("is not UTF-8: {error}");
        fault(problem, "save it as UTF-8", Cause::Wrong)
    })
}

/// Reads every section, so that each can report its faults, before it looks at
/// whether all of them are there.
fn read(file: &File<'_>, path: &Path, process: &Process) -> Option<Config> {
    let base = folder_of(path);
    let mut root = file.root()?;
    let server = server::server(root.table("server"), process);
    let listeners = network::listeners(&mut root);
    let tls = tls::tls(root.table("tls"), &base);
    let hostname = server.as_ref().map_or("", |server| &server.hostname);
    let site = Site {
        base: &base,
        hostname,
    };
    let auth = mail::auth(root.table("auth"), site);
    let maildrop = mail::maildrop(root.table("maildrop"), &base);
    let limits = limits::limits(root.table("limits"), &base);
    let log = server::log(root.table("log"), &base);
    let admin = network::admin(&mut root);
    root.finish();

    if let (Some(tls), Some(auth)) = (&tls, &auth) {
        network::check_together(file, &listeners, tls, auth, admin.as_ref());
    }
    Some(Config {
        file: path.to_owned(),
        server: server?,
        listeners: listeners
            .into_iter()
            .map(|listener| listener.value)
            .collect(),
        tls: tls?,
        auth: auth?,
        maildrop: maildrop?,
        limits: limits?,
        log: log?,
        admin: admin.map(|admin| admin.value),
    })
}

/// The folder that relative paths start from, absolute where the process has a
/// working directory.
fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().unwrap_or(Path::new(""));
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    // `absolute` does no more than the kernel would with a relative path; the
    // folder itself need not exist for what follows to be reported well.
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    absolute.components().collect()
}

#[cfg(test)]
mod tests;
