//! What a directory of users is, to the rest of popcore.
//!
//! A directory says what it knows of a name and judges nobody: whether a login
//! succeeds is decided in one place (`judge`), for all directories alike. There are
//! two sorts. One [answers from memory](Directory) and is asked wherever a login
//! happens to be; the others are [servers and programs](super::remote::Remote) that
//! are asked on the look-up thread, many at a time, and may be away.
//!
//! Some of the latter keep their passwords to themselves: they are given the password
//! and say whether it is right. What they say is a [`Proof`] like a stored password is.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::remote::Renewal;
use super::{Network, UserLimits, UserName, Verifier};
use crate::limits;

/// A source of users that answers from memory.
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
    /// The user exists and nothing will do: that is what the record says, or it
    /// cannot be understood.
    Locked,
    /// The user exists and has no password: what proves the name without one will do.
    Passwordless(Profile),
    /// The directory verifies by itself, and the password that it was given is wrong.
    /// Some cannot tell that from a name that they do not know.
    Rejected,
    /// A user with a password.
    User(User),
}

/// How it is known that a password is a user's.
#[derive(Debug)]
pub(super) enum Proof {
    /// It is compared with this one.
    Stored(Verifier),
    /// The directory was given the password and says that it is right.
    Accepted,
}

#[derive(Debug)]
pub(super) struct User {
    pub(super) proof: Proof,
    pub(super) profile: Profile,
    /// What replaces the stored password, where it is weak and can be.
    pub(super) renewal: Option<Box<Renewal>>,
}

/// What holds for a user whose password was right.
#[derive(Debug, Default)]
pub(super) struct Profile {
    /// What the user is called, if not as it was asked: of two ways to write a name that
    /// are one to the directory there is one maildrop. Boxed because few are.
    pub(super) name: Option<Box<UserName>>,
    /// Where the user may log in from; `None`: from anywhere.
    pub(super) networks: Option<Box<[Network]>>,
    /// What is said instead of a login, once the password was right.
    pub(super) disabled: Option<Notice>,
    pub(super) home: Option<PathBuf>,
    pub(super) mail: Option<PathBuf>,
    /// Limits of the user's own.
    pub(super) limits: Option<Box<UserLimits>>,
}

/// One line for a user who may not log in: not empty, no control characters,
/// at most [`limits::NOTICE`] octets. It goes to the client as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice(Cow<'static, str>);

impl Notice {
    pub(super) const DISABLED: Self = Self(Cow::Borrowed("This account is disabled"));
    pub(super) const NOBODY: Self = Self(Cow::Borrowed("There is no such user"));
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
    /// A server that does not answer, or not as it should.
    Failed {
        /// What is configured, such as `auth.directory[2] (sql)`.
        directory: Box<str>,
        /// Why.
        failure: Failure,
    },
    /// A file above [`limits::PASSWD_FILE`].
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its octets.
        octets: u64,
    },
}

/// Why a server gave no answer about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It cannot be reached, or the connection broke: what was asked may be asked again.
    Unreachable(String),
    /// Nothing came in that time.
    TimedOut(Duration),
    /// It says that it cannot do what it was asked to do.
    Refused(String),
    /// It failed so often that it is left in peace for a while.
    Suspended,
    /// All connections to it were in use for as long as a login waits.
    Crowded,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(cause) => {
                write!(f, "cannot be reached: {cause}; see whether it runs there")
            }
            Self::TimedOut(after) => {
                write!(f, "no answer within {after:?}; see what holds it up")
            }
            Self::Refused(cause) => {
                write!(
                    f,
                    "refused: {cause}; correct the configuration or its rights there"
                )
            }
            Self::Suspended => f.write_str("it failed before and is asked again in a moment"),
            Self::Crowded => f.write_str(
                "all connections were in use for too long and logins were turned away; raise \
                 connections, or see what makes it slow",
            ),
        }
    }
}

impl DirectoryError {
    /// Whether nothing was heard in time.
    pub(super) fn is_silence(&self) -> bool {
        let silent = |failure: &Failure| matches!(failure, Failure::TimedOut(_));
        matches!(self, Self::Failed { failure, .. } if silent(failure))
    }

    /// Whether it is worth a line in the log; the log has one already of a server that
    /// is left in peace, or that is asked by too many.
    pub(super) fn is_news(&self) -> bool {
        let known = |failure: &Failure| matches!(failure, Failure::Suspended | Failure::Crowded);
        !matches!(self, Self::Failed { failure, .. } if known(failure))
    }
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, source } => write!(
                f,
                "{}: {source}; make it a file that this process may read",
                path.display()
            ),
            Self::Failed { directory, failure } => write!(f, "{directory}: {failure}"),
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
            Self::TooLarge { .. } | Self::Failed { .. } => None,
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
