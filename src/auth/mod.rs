//! Who may log in: passwords, directories of users, and the threads that
//! verify.
//!
//! A login goes one way: the session has [`Credentials`], the [`Broker`] queues
//! them, a thread of its own looks the name up, verifies the password and wakes
//! whoever awaits the [`Pending`] answer. No shard verifies a password, reads a
//! file or waits for a directory. A login that was good before and brings the same
//! password again takes a short cut: its answer is there at once (`cache`).
//!
//! Invariants: no password, given or stored, is printed by any trait or named in
//! any message, and all are overwritten when dropped; a name that does not exist
//! and a password that is wrong differ neither in the answer nor in the work
//! done for it (see `judge`); a record that cannot be understood refuses its user
//! and nobody else.

mod broker;
mod cache;
mod directory;
mod judge;
mod name;
mod network;
mod passwd_file;
mod password;
mod roster;
mod scheme;

use std::num::NonZeroUsize;
use std::path::PathBuf;

pub use self::broker::{Broker, Counters, Pending, QueueFull, StartError};
pub use self::directory::{DirectoryError, Fault, LoadReport, Notice};
pub use self::name::{NameError, UserName};
pub use self::network::{Network, NetworkError};
pub use self::password::{Password, PasswordTooLong};
pub use self::roster::roster;
pub use self::scheme::{SchemeError, Verifier};

/// What the configuration says of logins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
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
}

/// A name and a password that a client gave.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The name.
    pub user: UserName,
    /// The password.
    pub password: Password,
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
}
