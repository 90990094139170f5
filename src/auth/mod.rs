//! Who may log in: passwords, directories of users, and the threads that
//! verify.
//!
//! A login goes one way: the session has [`Credentials`], the [`Broker`] queues
//! them, a thread of its own looks the name up, verifies the password and wakes
//! whoever awaits the [`Pending`] answer. No shard verifies a password, reads a
//! file or waits for a directory. A login that was good before and brings the same
//! password again takes a short cut: its answer is there at once ([`Terms`]).
//!
//! Invariants: no password, given or stored, is printed by any trait or named in
//! any message, and all are overwritten when dropped; a name that does not exist
//! and a password that is wrong differ neither in the answer nor in the work
//! done for it (see `judge`); a record that cannot be understood refuses its user
//! and nobody else.

mod apop;
mod broker;
mod cache;
mod credentials;
mod directory;
mod judge;
mod lookups;
mod name;
mod network;
mod network_set;
mod oauth;
mod passwd_file;
mod password;
mod probe;
mod remote;
mod roster;
mod rules;
mod scheme;
mod secret;
pub mod sieve;
pub mod throttle;
mod token;
mod user_limits;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;

pub use self::apop::{ApopProof, Stamp};
pub use self::broker::{Broker, Candidate, Counters, Pending, QueueFull, StartError};
pub use self::cache::{CacheCounts, Terms};
pub use self::credentials::{Credentials, Evidence, Identity, Proved, ScramAnswer, ScramQuestion};
pub use self::directory::{DirectoryError, Failure, Fault, LoadReport, Notice};
pub use self::name::{NameError, UserName};
pub use self::network::{Network, NetworkError, Prefixes};
pub use self::network_set::{ListError, NetworkSet};
pub use self::oauth::{OauthOptions, OauthProbe, OauthSource, probe_oauth};
pub use self::password::{Password, PasswordTooLong};
pub use self::probe::{Found, Probe, probe};
pub use self::remote::{
    ATTRIBUTES, Database, DirectoryMetrics, HttpForm, HttpOptions, LdapEntry, LdapOptions,
    LdapTemplate, LdapTemplateError, PamOptions, Protocol, RemoteOptions, ServerError, SqlOptions,
    SqlServer, Statement, StatementError, Trust, Update,
};
pub use self::roster::roster;
pub use self::rules::{MasterForm, NameRules};
pub use self::scheme::{NewScheme, SchemeError, ScramHash, ScramKeys, Verifier};
pub use self::secret::Secret;
pub use self::token::{Token, TokenError};
pub use self::user_limits::UserLimits;

/// What the configuration says of logins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where master users are looked up, in this order; none where there are none.
    pub masters: Vec<DirectoryOptions>,
    /// What the salts are made of that SCRAM tells of users who have none stored: the
    /// same as long as this is, so that nobody sees by a change who is there and who is
    /// not. Without it each process makes its own.
    pub scram_secret: Option<Secret>,
    /// Who verifies bearer tokens, if anybody does.
    pub oauth: Option<OauthOptions>,
    /// Where users are looked up, in this order; the first that knows a name
    /// decides.
    pub directories: Vec<DirectoryOptions>,
    /// The desks where logins are handed in, one for each shard, with the CPU of
    /// each where it is pinned.
    pub desks: Vec<Option<usize>>,
    /// Threads that verify slow passwords: what one of them can do a second is
    /// one divided by the cost of a hash.
    pub threads: NonZeroUsize,
}

/// What the configuration says of one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryOptions {
    /// What kind it is, and where.
    pub kind: DirectoryKind,
}

/// A kind of directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryKind {
    /// A file in the format of Dovecot's passwd-file.
    PasswdFile {
        /// The file.
        path: PathBuf,
    },
    /// Lines of that format in the configuration itself.
    Static {
        /// The lines.
        users: Secret,
    },
    /// A server or a program that is asked about each name.
    Away(Box<RemoteOptions>),
}

impl DirectoryKind {
    /// Whether it hands out stored passwords, without which its users have no SCRAM.
    pub fn tells_stored(&self) -> bool {
        match self {
            Self::PasswdFile { .. } | Self::Static { .. } => true,
            Self::Away(options) => options.protocol.tells_stored(),
        }
    }

    /// Whether it says who is there without a password.
    pub fn tells_users(&self) -> bool {
        match self {
            Self::PasswdFile { .. } | Self::Static { .. } => true,
            Self::Away(options) => options.protocol.tells_users(),
        }
    }
}

/// The place, without any secret.
impl fmt::Display for DirectoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PasswdFile { path } => write!(f, "{}", path.display()),
            Self::Static { .. } => f.write_str("the configuration"),
            Self::Away(options) => write!(f, "{}", options.protocol),
        }
    }
}

/// A user who has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name under which the user is known.
    pub user: UserName,
    /// The home that the directory has for the user: absolute.
    pub home: Option<PathBuf>,
    /// The Maildir that the directory has for the user: absolute.
    pub mail: Option<PathBuf>,
    /// The limits that the directory has for the user; most have none.
    pub limits: Option<Box<UserLimits>>,
}

/// Why a login failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The name or the password is wrong, or the address is not one from which
    /// this user may log in: `[AUTH]`.
    Rejected,
    /// The password is right, and the user may not log in here: `[SYS/PERM]`.
    Disabled(Notice),
    /// It cannot be told now: `[SYS/TEMP]`.
    Unavailable,
    /// Too many logins wait already, and this one was not queued: `[SYS/TEMP]`.
    Busy,
    /// Too many logins failed, and this one was not looked at: `[SYS/TEMP]`.
    Throttled,
    /// As many sessions of the user from this address as there may be: `[IN-USE]`.
    Crowded,
}
