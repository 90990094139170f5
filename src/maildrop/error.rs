//! What can go wrong with a maildrop, by whose fault it is.
//!
//! None of this is the peer's doing: a maildrop fails because the system is
//! short of something or ill (`Temporary`: the same login may work in a minute),
//! because the operator has to change something (`Permanent`), or because
//! another session holds it (`InUse`). The reply's code follows from the variant
//! (RFC 2449, section 8.1; RFC 3206); the text of a [`Fault`] is for the log,
//! names cause and remedy, and never reaches a client.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Display, Path, PathBuf};

use rustix::io::Errno;

use super::earlier::ListFault;
use super::lock::InUse;
use super::template::NameError;
use crate::auth::UserName;
use crate::limits;
use crate::proto::Octets;

/// Why a maildrop could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another session has it: `-ERR [IN-USE]`.
    InUse(InUse),
    /// The same attempt may succeed later: `-ERR [SYS/TEMP]`.
    Temporary(Fault),
    /// Nothing changes until the operator acts: `-ERR [SYS/PERM]`.
    Permanent(Fault),
}

impl OpenError {
    /// A failed system call, with the blame that its number tells.
    pub(super) fn system(attempt: Attempt, path: &Path, errno: Errno) -> Self {
        Self::of(path, Cause::System { attempt, errno })
    }

    /// A fault of the file tree at `path`.
    pub(super) fn of(path: &Path, cause: Cause) -> Self {
        let kind = cause.kind();
        let fault = Fault {
            path: path.to_owned(),
            cause,
        };
        match kind {
            FaultKind::Temporary => Self::Temporary(fault),
            FaultKind::Permanent => Self::Permanent(fault),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(holder) => holder.fmt(f),
            Self::Temporary(fault) | Self::Permanent(fault) => fault.fmt(f),
        }
    }
}

impl Error for OpenError {}

impl OpenError {
    /// A user whose name gives no path; `user` is shown as it is.
    pub fn no_path(user: &UserName, error: NameError) -> Self {
        let user = String::from_utf8_lossy(user.as_bytes());
        let user = format!("user {user:?}");
        Self::of(Path::new(&user), Cause::Name(error))
    }
}

impl From<InUse> for OpenError {
    fn from(holder: InUse) -> Self {
        Self::InUse(holder)
    }
}

/// Whether waiting helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The same attempt may succeed later: `[SYS/TEMP]`.
    Temporary,
    /// The operator has to act: `[SYS/PERM]`.
    Permanent,
}

impl FaultKind {
    /// The blame for a failed system call. What the state of the file tree
    /// decides is permanent; everything else, an errno nobody foresaw included,
    /// may pass, and a client that tries again does no harm.
    pub fn of(errno: Errno) -> Self {
        match errno {
            Errno::ACCESS
            | Errno::PERM
            | Errno::LOOP
            | Errno::NOTDIR
            | Errno::ISDIR
            | Errno::XDEV
            | Errno::NAMETOOLONG
            | Errno::ROFS => Self::Permanent,
            _ => Self::Temporary,
        }
    }
}

/// A place in the file tree and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    path: PathBuf,
    cause: Cause,
}

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Resolve,
    Lock,
    Open,
    List,
    Stat,
    Read,
    Write,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "find",
            Self::Lock => "lock",
            Self::Open => "open",
            Self::List => "list",
            Self::Stat => "stat",
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A system call failed.
    System { attempt: Attempt, errno: Errno },
    /// A part of a maildrop is a symbolic link.
    Link,
    /// The maildrop, or new/ or cur/, is something else than a directory.
    NotADirectory,
    /// Something else than a file is where popcore keeps one of its own.
    NotAFile,
    /// The operator's own link to the maildrop leads to nothing.
    DanglingLink,
    /// More messages than a snapshot may hold.
    TooManyMessages,
    /// Another program renamed messages faster than they could be opened.
    Restless,
    /// The user's name gives no path.
    Name(NameError),
    /// A list of an earlier server's unique-ids that cannot be understood.
    List(ListFault),
    /// Messages would be announced by other unique-ids than before.
    Anew(Anew),
    /// The folder that the paths of this key are in is not there.
    NotMounted(&'static str),
    /// A file is larger than it may be.
    TooLarge,
}

/// Why messages would be announced by other unique-ids than before, now or later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Anew {
    /// Most have other names than before.
    Renamed { changed: usize, of: usize },
    /// The index is gone, or does not know most messages, and what else told their
    /// unique-ids is gone too.
    Unknown {
        what: String,
        changed: usize,
        of: usize,
    },
    /// A later popcore wrote a file of its own that this one cannot read.
    Newer { version: u16 },
    /// What a maildrop keeps of an earlier server's lists cannot be written, nor an index
    /// that is there for all nodes, and a message would be announced that only they
    /// remember.
    Unkept(Errno),
}

impl Anew {
    fn write(&self, path: &Display<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Renamed { changed, of } => write!(
                f,
                "{path}: {changed} of {of} messages have other file names than when they were \
                 announced, and their clients would fetch them again: give the files their \
                 names back, or, if that is how it is to be, say `popcore index accept {path}`"
            ),
            Self::Unknown { what, changed, of } => write!(
                f,
                "{path}: its index is gone, damaged or older than its mail, and {what} with it, \
                 by which {changed} of {of} messages were announced, and their clients would \
                 fetch them again: restore either, or, if that is how it is to be, say `popcore \
                 index accept {path}`"
            ),
            Self::Newer { version } => write!(
                f,
                "{path} is of version {version}: a later popcore wrote it, and without it the \
                 clients of this maildrop would fetch all of their mail again: start that popcore, \
                 or give up what it says by `popcore index rebuild --config FILE` of this one"
            ),
            Self::Unkept(errno) => write!(
                f,
                "{path} cannot be written: {}; what is announced by its name now might be \
                 announced by an earlier server's number later, where no index remembers it: give \
                 the user that popcore runs as write permission on the folder, or make room on \
                 its disk",
                io::Error::from(*errno)
            ),
        }
    }
}

impl Cause {
    fn kind(&self) -> FaultKind {
        match self {
            Self::System { errno, .. } => FaultKind::of(*errno),
            Self::Link
            | Self::NotADirectory
            | Self::NotAFile
            | Self::List(_)
            | Self::TooLarge
            | Self::TooManyMessages
            | Self::Name(_) => FaultKind::Permanent,
            Self::DanglingLink | Self::Restless | Self::NotMounted(_) | Self::Anew(_) => {
                FaultKind::Temporary
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.cause {
            Cause::System { attempt, errno } => {
                let error = io::Error::from(*errno);
                write!(f, "cannot {attempt} {path}: {error}: {}", remedy(*errno))
            }
            Cause::Name(error) => write!(f, "{path}: {error}"),
            Cause::List(ListFault { line, what }) => write!(
                f,
                "{path}:{line}: {what}; without it the clients of this maildrop would fetch all \
                 of their mail again: restore it, or take its source out of maildrop.uidl"
            ),
            Cause::Anew(anew) => anew.write(&path, f),
            Cause::NotMounted(key) => write!(
                f,
                "{path}, where {key} begins, does not exist: mount its disk, or make it"
            ),
            Cause::TooLarge => write!(
                f,
                "{path} is too large to be what it should be: move it away"
            ),
            Cause::Link => write!(
                f,
                "{path} is a symbolic link, and none is followed below a maildrop: \
                 put the directory itself there, or link the whole maildrop"
            ),
            Cause::NotADirectory => write!(
                f,
                "{path} is not a directory: popcore reads Maildir, not mbox; convert it, \
                 or correct maildrop.path"
            ),
            Cause::NotAFile => write!(
                f,
                "{path} is no file, and popcore keeps one of its own there: move it away"
            ),
            Cause::DanglingLink => write!(
                f,
                "{path} is a symbolic link to nothing: mount the volume it leads to, or \
                 remove the link"
            ),
            Cause::TooManyMessages => write!(
                f,
                "{path} holds more than {} messages: move older ones to a folder",
                limits::MAILDROP_MESSAGES
            ),
            Cause::Restless => write!(
                f,
                "messages in {path} are renamed faster than they can be opened: find the \
                 program that does it"
            ),
        }
    }
}

impl Error for Fault {}

fn remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::ACCESS | Errno::PERM => {
            "give the user that popcore runs as read, write and search permission"
        }
        Errno::NOLCK => "start the lock service of the file server (lockd), or mount it with NFSv4",
        Errno::MFILE => "raise the limit of open files (LimitNOFILE=, ulimit -n)",
        Errno::NFILE => "raise the system's limit of open files (fs.file-max)",
        Errno::NOMEM => "the system is out of memory: add some, or lower popcore's bounds",
        Errno::IO => "the device reports an error: see the kernel's log",
        Errno::STALE => "the file server forgot the file: it should pass by itself",
        Errno::LOOP => "no symbolic link is followed there: put the file or directory itself",
        Errno::NAMETOOLONG => "shorten maildrop.path",
        Errno::ROFS => "mount the volume writable",
        _ => "see the error; the login may be tried again",
    }
}

/// Why one message could not be sent; the rest of the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// Another program removed it since the session began.
    Gone,
    /// It is there and cannot be read.
    Unreadable,
}

impl From<&io::Error> for MessageError {
    /// What a failed open or read of a message file means. `ENOENT` means gone
    /// only after [`locate`](super::locate) did not find it under a new name.
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Gone,
            _ => Self::Unreadable,
        }
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "another program removed the message during the session",
            Self::Unreadable => {
                "the message file cannot be read: check its permissions and the device"
            }
        })
    }
}

impl Error for MessageError {}

/// What became of the deletions at QUIT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitReport {
    /// Messages that are gone now, by this session or, before it, by another
    /// program: both are what the client asked for.
    pub removed: u32,
    /// Their octets as RFC 1939 counts them.
    pub octets: Octets,
    /// How many could not be removed, and the blame of the first of them. They
    /// are back in the next session (RFC 1939, section 6).
    pub failed: Option<(u32, FaultKind)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blame_follows_the_errno() {
        for errno in [Errno::ACCESS, Errno::PERM, Errno::LOOP, Errno::NOTDIR] {
            assert_eq!(FaultKind::of(errno), FaultKind::Permanent, "{errno:?}");
        }
        for errno in [
            Errno::IO,
            Errno::MFILE,
            Errno::NFILE,
            Errno::STALE,
            Errno::NOMEM,
            Errno::TIMEDOUT,
        ] {
            assert_eq!(FaultKind::of(errno), FaultKind::Temporary, "{errno:?}");
        }
    }

    #[test]
    fn a_fault_names_place_cause_and_remedy() {
        let error = OpenError::system(Attempt::Open, Path::new("/m/cur"), Errno::ACCESS);
        let OpenError::Permanent(fault) = &error else {
            panic!("{error:?}");
        };
        let text = fault.to_string();
        for part in ["/m/cur", "Permission denied", "give the user"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_missing_message_is_gone_and_any_other_failure_is_not() {
        let gone = io::Error::from(Errno::NOENT);
        let sick = io::Error::from(Errno::IO);
        assert_eq!(MessageError::from(&gone), MessageError::Gone);
        assert_eq!(MessageError::from(&sick), MessageError::Unreadable);
    }
}
