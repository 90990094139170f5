//! Why a login is not queued, and why the auth threads are not started.

use std::fmt;
use std::io;

use crate::auth::DirectoryError;

/// [`crate::limits::AUTH_QUEUE`] logins wait at this desk already: `[SYS/TEMP]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull;

/// Why the auth threads cannot be started.
#[derive(Debug)]
pub enum StartError {
    /// No directory is configured, so nobody could log in.
    NoDirectory,
    /// A directory cannot be read.
    Directory(DirectoryError),
    /// A thread cannot be started.
    Thread(io::Error),
}

impl fmt::Display for QueueFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many logins wait already")
    }
}

impl std::error::Error for QueueFull {}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDirectory => {
                f.write_str("nobody could log in: add an [[auth.directory]] to the configuration")
            }
            Self::Directory(error) => write!(f, "the users cannot be loaded: {error}"),
            Self::Thread(error) => write!(
                f,
                "an auth thread cannot be started: {error}; raise the limit of threads \
                 (ulimit -u, TasksMax=, pids.max)"
            ),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoDirectory => None,
            Self::Directory(error) => Some(error),
            Self::Thread(error) => Some(error),
        }
    }
}
