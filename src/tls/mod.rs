//! TLS: rustls between the connection's bytes and the session's, and the
//! certificates and keys that it needs.
//!
//! The connection moves bytes; `secured` turns records into clear text and back,
//! without IO, and `handed` what is left of that where the kernel makes the records.
//! A handshake begins with the configuration of its moment:
//! `keeper` reads and renews what that is made of, `protocol` says what of TLS is
//! spoken, `chooser` which certificate a client gets, `tickets` how it resumes;
//! `watch` is the thread that has files read again, and `folders` wakes it.
//!
//! Invariants: an idle connection holds its keys and little else; a shard reads
//! no file and shares no memory that it writes; what a handshake began with it
//! keeps, whatever is renewed meanwhile.

mod binding;
mod certificate;
mod chooser;
mod folders;
mod handed;
mod hello;
mod keeper;
mod metrics;
mod protocol;
mod secured;
mod tickets;
mod watch;

pub use certificate::{CertificateError, Facts, KeyKind};
pub use handed::{ALERT, Handed, KernelKeys};
pub use hello::{ClientVersion, begins_tls};
pub use keeper::{Current, Keeper, inspect};
pub use metrics::CertificateMetrics;
pub use secured::{Established, Secured, TlsFault};
pub use watch::Watch;
