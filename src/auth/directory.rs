//! What a directory of users is, to the rest of popcore.
//!
//! A directory says what it knows of a name and judges nobody: whether a login
//! succeeds is decided in one place (`judge`), for all directories alike.
//! Directories are asked on auth threads and may block.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;

use super::{Network, UserName, Verifier};
use crate::limits;

/// A source of users.
pub(super) trait Directory: Send + Sync {
    /// What is known of this name; `None` if there is no such user.
    fn lookup(&self, name: &UserName) -> Result<Option<Record>, DirectoryError>;

    /// How many records [`Directory::decoy`] chooses from. 0 for a directory
    /// that cannot choose.
    fn decoys(&self) -> usize;

    /// The stored password of some user, one of [`Directory::decoys`] by its
    /// index. It is verified in place of the password of a user who does not
    /// exist, so that the time taken is that of a user who does. `None` if a
    /// reload has left fewer.
    fn decoy(&self, index: usize) -> Option<Verifier>;

    /// Reads the source again. An error leaves what was known in force.
    fn reload(&self) -> Result<LoadReport, DirectoryError>;
}

/// What a directory knows of one user.
#[derive(Debug)]
pub(super) enum Record {
    /// The user exists and no password will do: there is none, or it is stored
    /// in a form that cannot be verified.
    Locked,
    /// A user with a password.
    User(User),
}

#[derive(Debug)]
pub(super) struct User {
    pub(super) verifier: Verifier,
    /// Where the user may log in from; `None`: from anywhere.
    pub(super) networks: Option<Box<[Network]>>,
    /// What is said instead of a login, once the password was right.
    pub(super) disabled: Option<Notice>,
    pub(super) home: Option<PathBuf>,
    pub(super) mail: Option<PathBuf>,
}

/// One line for a user who may not log in: not empty, no control characters,
/// at most [`limits::NOTICE`] octets. It goes to the client as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice(Cow<'static, str>);

impl Notice {
    pub(super) const DISABLED: Self = Self(Cow::Borrowed("This account is disabled"));
    pub(super) const ELSEWHERE: Self =
        Self(Cow::Borrowed("This account is not served by this server"));

    /// The text, if it is one.
    pub fn new(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= limits::NOTICE;
        (fits && !text.contains(char::is_control)).then(|| Self(Cow::Owned(text.to_owned())))
    }

    /// The text, for a reply.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A directory that cannot be asked or read. The environment or the operator is
/// at fault; the text says which directory, why, and what to do.
#[derive(Debug)]
pub enum DirectoryError {
    /// A file that cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file above [`limits::PASSWD_FILE`].
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its octets.
        octets: u64,
    },
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, source } => write!(
                f,
                "{}: {source}; make it a file that this process may read",
                path.display()
            ),
            Self::TooLarge { path, octets } => write!(
                f,
                "{}: {octets} octets are more than the {} a passwd-file may have; \
                 split it into several directories",
                path.display(),
                limits::PASSWD_FILE
            ),
        }
    }
}

impl std::error::Error for DirectoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::TooLarge { .. } => None,
        }
    }
}

/// What a directory found when it was loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Users who can log in with some password.
    pub users: usize,
    /// Users who exist and whom no password lets in.
    pub locked: usize,
    /// Octets of memory that the users take.
    pub memory: usize,
    /// The first [`limits::PASSWD_FILE_FAULTS`] faults, in the order of the file.
    pub faults: Vec<Fault>,
    /// All faults, those that are not told included.
    pub fault_count: usize,
}

/// One line of a source that cannot be used as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// Cause, consequence and remedy, without any secret.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, text } = self;
        write!(f, "{}:{line}: {text}", path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_one_short_line() {
        assert_eq!(
            Notice::new("Bill unpaid").expect("text").as_str(),
            "Bill unpaid"
        );
        for bad in ["", "a\r\nb", "tab\t", &"x".repeat(limits::NOTICE + 1)] {
            assert_eq!(Notice::new(bad), None, "{bad:?}");
        }
        assert!(Notice::new(Notice::DISABLED.as_str()).is_some());
        assert!(Notice::new(Notice::ELSEWHERE.as_str()).is_some());
    }

    #[test]
    fn errors_name_the_file_and_the_remedy() {
        let path = PathBuf::from("users");
        let text = DirectoryError::TooLarge { path, octets: 5 }.to_string();
        assert!(
            text.starts_with("users: 5 octets") && text.contains("split"),
            "{text}"
        );
    }
}
