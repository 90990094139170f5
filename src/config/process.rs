//! What validation needs to know about the process and the machine.
//!
//! It is an argument of [`super::Config::parse`], so that a test can be any
//! user on any host.

use nix::unistd;

/// Facts about the running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Whether it may change its user.
    pub root: bool,
    /// The machine's name, for a greeting that none is configured for.
    pub hostname: String,
}

impl Process {
    /// The facts about this process.
    pub fn current() -> Self {
        let name = rustix::system::uname();
        Self {
            root: unistd::geteuid().is_root(),
            hostname: name.nodename().to_string_lossy().into_owned(),
        }
    }
}
