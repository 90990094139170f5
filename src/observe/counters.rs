//! Counters of one shard: one writer, any reader, no shared cache line.
//!
//! A read-modify-write instruction on a counter costs some 20 cycles even on a
//! line that no other core wants; with one writer a load and a store do. The
//! writing half of a shard's counters can be neither cloned nor shared between
//! threads, so a second writer cannot be written. Readers may see one counter
//! moved and its neighbour not yet: each is exact, their sum is of the moment.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::histogram::Histogram;

/// Defines a label: an enum, its names as metrics write them, and its count.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl Label for $name {
            type Counters = [Counter; $name::ALL.len()];

            fn all() -> &'static [Self] {
                Self::ALL
            }

            fn index(self) -> usize {
                self as usize
            }

            fn name(self) -> &'static str {
                self.name()
            }
        }
    };
}

/// What tells counters of one family apart.
pub(super) trait Label: Copy + 'static {
    /// One counter for each value.
    type Counters: AsRef<[Counter]> + Default + fmt::Debug;
    fn all() -> &'static [Self];
    fn index(self) -> usize;
    fn name(self) -> &'static str;
}

labels! {
    /// How a session ended.
    Ending {
        /// QUIT before authentication or after UPDATE.
        Quit = "quit",
        /// The client closed the connection.
        ClientClosed = "client_closed",
        /// The connection failed or its peer vanished.
        ConnectionLost = "connection_lost",
        /// The client did not read what was sent to it.
        Stalled = "stalled",
        /// Idle for longer than `limits.idle`.
        Autologout = "autologout",
        /// Not logged in within `limits.login`.
        LoginTimeout = "login_timeout",
        /// Too many bad commands.
        BadCommands = "bad_commands",
        /// Too many bad logins.
        BadLogins = "bad_logins",
        /// The TLS handshake or a record failed.
        TlsFault = "tls_fault",
        /// The TLS handshake took too long.
        HandshakeTimeout = "handshake_timeout",
        /// Clear text where TLS was expected, or TLS where it was not.
        WrongProtocol = "wrong_protocol",
        /// Octets in clear text behind STLS.
        Injection = "injection",
        /// A message file failed or changed while it was sent.
        MessageFault = "message_fault",
        /// A new session of the same user from the same address took the maildrop over.
        Displaced = "displaced",
        /// The server is stopping.
        Shutdown = "shutdown",
        /// A limit on sessions was reached.
        Refused = "refused",
    }
}

labels! {
    /// A command's verb.
    Verb {
        /// USER
        User = "USER",
        /// PASS
        Pass = "PASS",
        /// STAT
        Stat = "STAT",
        /// LIST
        List = "LIST",
        /// RETR
        Retr = "RETR",
        /// DELE
        Dele = "DELE",
        /// NOOP
        Noop = "NOOP",
        /// RSET
        Rset = "RSET",
        /// QUIT
        Quit = "QUIT",
        /// TOP
        Top = "TOP",
        /// UIDL
        Uidl = "UIDL",
        /// CAPA
        Capa = "CAPA",
        /// STLS
        Stls = "STLS",
        /// APOP
        Apop = "APOP",
        /// AUTH
        Auth = "AUTH",
    }
}

labels! {
    /// How a login came out.
    LoginResult {
        /// The maildrop is open.
        Accepted = "accepted",
        /// Unknown user or wrong password.
        Rejected = "rejected",
        /// The account may not log in.
        Disabled = "disabled",
        /// A directory of users did not answer.
        Unavailable = "unavailable",
        /// The queue to the authentication threads was full.
        QueueFull = "queue_full",
        /// Another session holds the maildrop.
        InUse = "in_use",
        /// The maildrop cannot be read.
        MaildropFault = "maildrop_fault",
        /// Too many logins failed before.
        Throttled = "throttled",
        /// The last login of the user was not long ago.
        TooSoon = "too_soon",
        /// The user has as many sessions as there may be.
        TooMany = "too_many",
    }
}

labels! {
    /// A limit of `[limits]` that was reached.
    Limit {
        /// A network of `block_list`: not let in.
        Blocked = "block_list",
        /// `sessions_per_address`: not let in.
        Address = "sessions_per_address",
        /// `sessions_per_user`: refused.
        User = "sessions_per_user",
        /// `sessions_per_user_and_address`: refused.
        UserAndAddress = "sessions_per_user_and_address",
        /// Logins failed before: the attempt waited.
        FailureDelay = "failure_delay",
        /// `longest_failure_delay`: refused.
        Failures = "longest_failure_delay",
        /// `login_delay`: refused.
        LoginDelay = "login_delay",
        /// `poll_interval`: shown what was seen last.
        Polls = "poll_interval",
    }
}

labels! {
    /// Why a connection could not be accepted.
    AcceptError {
        /// The process or the system is out of descriptors.
        Descriptors = "descriptors",
        /// The kernel is out of memory or buffers.
        Memory = "memory",
        /// The peer was gone before it was accepted.
        Aborted = "aborted",
        /// Anything else.
        Other = "other",
    }
}

labels! {
    /// How a TLS handshake came out.
    TlsResult {
        /// It was completed, with a certificate.
        Full = "full",
        /// It was completed, with the keys of an earlier session.
        Resumed = "resumed",
        /// It failed.
        Failed = "failed",
        /// It took too long.
        TimedOut = "timed_out",
        /// The client went away.
        Abandoned = "abandoned",
        /// The client did not speak TLS.
        NotTls = "not_tls",
        /// Octets in clear text came behind STLS.
        Injected = "injected",
        /// Too many were under way.
        Crowded = "crowded",
    }
}

labels! {
    /// The command that a message was sent for.
    Sending {
        /// RETR
        Retr = "retr",
        /// TOP
        Top = "top",
    }
}

/// One counter with one writer.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    fn add(&self, amount: u64) {
        let value = self.0.load(Ordering::Relaxed);
        self.0.store(value.wrapping_add(amount), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter for each value of a label.
#[derive(Debug)]
pub(super) struct Family<L: Label>(L::Counters);

impl<L: Label> Default for Family<L> {
    fn default() -> Self {
        Self(L::Counters::default())
    }
}

impl<L: Label> Family<L> {
    fn at(&self, label: L) -> &Counter {
        &self.0.as_ref()[label.index()]
    }

    pub(super) fn get(&self, label: L) -> u64 {
        self.at(label).get()
    }
}

/// Upper bound of the first bucket of a latency: a microsecond.
pub(super) const LATENCY: u64 = 1000;
/// Upper bound of the first bucket of a session's length: a millisecond, so that
/// the last bound is past eighteen hours.
pub(super) const LENGTH: u64 = 1_000_000;

/// What one shard has counted since it started.
///
/// Its alignment is two cache lines, because the prefetcher of current CPUs
/// fetches lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardCounters {
    pub(super) opened: Counter,
    pub(super) ended: Family<Ending>,
    pub(super) commands: Family<Verb>,
    pub(super) command_errors: Counter,
    pub(super) logins: Family<LoginResult>,
    pub(super) tls_handshakes: Family<TlsResult>,
    pub(super) tls_handed: Counter,
    pub(super) messages: Family<Sending>,
    pub(super) message_octets: Family<Sending>,
    pub(super) deleted_messages: Counter,
    pub(super) deleted_octets: Counter,
    pub(super) accept_errors: Family<AcceptError>,
    pub(super) listener_backoffs: Counter,
    pub(super) limits: Family<Limit>,
    pub(super) command_latency: Histogram<LATENCY>,
    pub(super) login_latency: Histogram<LATENCY>,
    pub(super) session_length: Histogram<LENGTH>,
}

impl ShardCounters {
    /// Sessions that are open at this moment.
    pub fn active(&self) -> u64 {
        // Ends are read first: a session that opens and ends in between must
        // not make the difference negative.
        let ended: u64 = Ending::ALL.iter().map(|e| self.ended.get(*e)).sum();
        self.opened.get().saturating_sub(ended)
    }

    /// Sessions opened since the start.
    pub fn opened(&self) -> u64 {
        self.opened.get()
    }
}

/// The writing half of a shard's counters. It moves to the shard's thread and
/// stays there.
#[derive(Debug)]
pub struct ShardWriter {
    counters: Arc<ShardCounters>,
    /// Makes the type `!Sync`: a second thread cannot write through a reference.
    one_thread: PhantomData<Cell<()>>,
}

impl Deref for ShardWriter {
    type Target = ShardCounters;

    fn deref(&self) -> &ShardCounters {
        &self.counters
    }
}

impl ShardWriter {
    pub(super) fn new(counters: Arc<ShardCounters>) -> Self {
        Self {
            counters,
            one_thread: PhantomData,
        }
    }

    /// A connection was accepted.
    pub fn session_opened(&self) {
        self.counters.opened.add(1);
    }

    /// A session ended, `length` after its connection was accepted.
    pub fn session_ended(&self, ending: Ending, length: Duration) {
        self.counters.ended.at(ending).add(1);
        self.counters.session_length.record(length);
    }

    /// A command was answered, `latency` after its line was complete; for RETR
    /// and TOP, when the last octet was handed to the kernel.
    pub fn command(&self, verb: Verb, latency: Duration) {
        self.counters.commands.at(verb).add(1);
        self.counters.command_latency.record(latency);
    }

    /// A line was no command, or one that its state or arguments forbid.
    pub fn command_error(&self) {
        self.counters.command_errors.add(1);
    }

    /// A login came out, `latency` after PASS, failure delays not included.
    pub fn login(&self, result: LoginResult, latency: Duration) {
        self.counters.logins.at(result).add(1);
        self.counters.login_latency.record(latency);
    }

    /// A TLS handshake came out.
    pub fn tls_handshake(&self, result: TlsResult) {
        self.counters.tls_handshakes.at(result).add(1);
    }

    /// The kernel makes the records of a session from here on.
    pub fn tls_handed(&self) {
        self.counters.tls_handed.add(1);
    }

    /// A message was sent: `octets` as RFC 1939 counts them.
    pub fn message(&self, sending: Sending, octets: u64) {
        self.counters.messages.at(sending).add(1);
        self.counters.message_octets.at(sending).add(octets);
    }

    /// Messages were removed in UPDATE.
    pub fn deleted(&self, messages: u64, octets: u64) {
        self.counters.deleted_messages.add(messages);
        self.counters.deleted_octets.add(octets);
    }

    /// A connection could not be accepted.
    pub fn accept_error(&self, error: AcceptError) {
        self.counters.accept_errors.at(error).add(1);
    }

    /// A limit was reached.
    pub fn limit(&self, limit: Limit) {
        self.counters.limits.at(limit).add(1);
    }

    /// A listener stopped accepting for a while.
    pub fn listener_backoff(&self) {
        self.counters.listener_backoffs.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_no_cache_line() {
        assert_eq!(align_of::<ShardCounters>(), 128);
        assert_eq!(size_of::<ShardCounters>() % 128, 0);
    }

    #[test]
    fn labels_index_their_own_counter() {
        fn distinct<L: Label>() {
            let family = Family::<L>::default();
            for (position, label) in L::all().iter().enumerate() {
                assert_eq!(label.index(), position);
                family.at(*label).add(1);
            }
            assert!(L::all().iter().all(|label| family.get(*label) == 1));
            let mut names: Vec<_> = L::all().iter().map(|label| label.name()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), L::all().len());
        }
        distinct::<Ending>();
        distinct::<Verb>();
        distinct::<LoginResult>();
        distinct::<AcceptError>();
        distinct::<TlsResult>();
        distinct::<Sending>();
        distinct::<Limit>();
    }

    #[test]
    fn active_sessions_are_those_opened_and_not_ended() {
        let writer = ShardWriter::new(Arc::default());
        for _ in 0..3 {
            writer.session_opened();
        }
        writer.session_ended(Ending::Quit, Duration::from_secs(1));
        writer.session_ended(Ending::Autologout, Duration::from_secs(1));
        assert_eq!((writer.opened(), writer.active()), (3, 1));
    }
}
