//! Why the server cannot start or go on, for the operator.

use std::fmt;
use std::io;

use crate::admin;
use crate::auth;
use crate::maildrop::TemplateError;
use crate::observe;
use crate::ring::RingError;
use crate::shard::listener::ListenError;
use crate::tls::CertificateError;

/// Why the server cannot start or go on. Its text names cause and remedy.
#[derive(Debug)]
pub enum ServerError {
    /// No ring can be had here.
    Ring(RingError),
    /// Files of maildrops cannot be opened as they are to be.
    Opening(io::Error),
    /// An address cannot be listened on.
    Listen(ListenError),
    /// Connections cannot be steered.
    Steering(io::Error),
    /// A certificate cannot be served.
    Certificate(CertificateError),
    /// Files of certificates cannot be watched.
    Watch(io::Error),
    /// The path template cannot be used.
    Template(TemplateError),
    /// The path template of indexes cannot be used.
    Index(TemplateError),
    /// Privileges cannot be dropped.
    Privileges(io::Error),
    /// The log cannot be opened.
    Log(observe::LogError),
    /// The list of networks that are not let in cannot be used.
    BlockList(auth::ListError),
    /// Users cannot be looked up.
    Auth(auth::StartError),
    /// The administrator's listener cannot be opened.
    Admin(admin::AdminError),
    /// Signals cannot be received.
    Signals(io::Error),
    /// The CPUs of this process cannot be told.
    Cpus(io::Error),
    /// A shard could not start or failed.
    Shard(usize, io::Error),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::Ring(error) => error.fmt(f),
            ServerError::Opening(error) => write!(
                f,
                "openat2 is refused to this process ({error}): take RestrictSUIDSGID= out of \
                 the unit, or allow openat2 in the container's seccomp profile"
            ),
            ServerError::Listen(error) => error.fmt(f),
            ServerError::Steering(error) => write!(
                f,
                "server.steering: the kernel does not take the program that steers connections \
                 ({error}); set it to \"hash\", or run fewer than 2,048 shards"
            ),
            ServerError::Certificate(error) => error.fmt(f),
            ServerError::Watch(error) => {
                write!(f, "no thread for certificates: {error}{}", remedy(error))
            }
            ServerError::Template(error) => write!(f, "maildrop.path: {error}"),
            ServerError::Index(error) => write!(f, "maildrop.index: {error}"),
            ServerError::BlockList(error) => write!(f, "limits.block_list: {error}"),
            ServerError::Privileges(error) => write!(
                f,
                "privileges cannot be dropped: {error}; start as root, or leave server.user and \
                 server.group out"
            ),
            ServerError::Log(error) => error.fmt(f),
            ServerError::Auth(error) => error.fmt(f),
            ServerError::Admin(error) => error.fmt(f),
            ServerError::Signals(error) => {
                write!(f, "signals cannot be received: {error}{}", remedy(error))
            }
            ServerError::Cpus(error) => {
                write!(f, "the CPUs of this process cannot be told: {error}")
            }
            ServerError::Shard(number, error) => {
                write!(f, "shard {number}: {error}{}", remedy(error))
            }
        }
    }
}

/// What helps against a limit that can be met wherever something is opened.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => {
            "; raise the limit of open files (ulimit -n, or LimitNOFILE= in the unit)"
        }
        _ => "",
    }
}

impl std::error::Error for ServerError {}
