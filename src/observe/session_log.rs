//! Log lines of sessions, in the form Dovecot 2.3 gave to the field.
//!
//! Log parsers, statistics scripts and fail2ban filters read those lines
//! already; popcore's have the same fields in the same order, and adds its own
//! (`user=`, addresses, `duration=`) behind them. A user name comes from the
//! peer: every octet that could end a field, a line or a pair of brackets is
//! escaped, so that no name can forge a line or an address to be banned.
//!
//! A session that fails to log in leaves one line per failure, at its time,
//! which a filter may ban by; its last line has a form that no filter counts.

use std::fmt;
use std::net::IpAddr;
use std::process;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use crate::limits;

/// The tracing target of these lines. Their text is whole: the log's formatter
/// puts nothing but the time before it.
pub const SESSION_TARGET: &str = "session";

/// A session's name in the log: unique on this host, but for a restart 49 days
/// later within the same millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId {
    count: u64,
    started: u32,
    shard: u16,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}.{:x}.{:x}", self.started, self.shard, self.count)
    }
}

/// Names sessions of one shard.
#[derive(Debug)]
pub struct SessionIds {
    next: SessionId,
}

impl SessionIds {
    /// `started` is when the process started.
    pub fn new(started: SystemTime, shard: u16) -> Self {
        let since = started
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let started =
            u32::try_from(since.as_millis() & u128::from(u32::MAX)).expect("masked to 32 bits");
        let next = SessionId {
            count: 1,
            started,
            shard,
        };
        Self { next }
    }

    /// The next name, never the same twice.
    pub fn assign(&mut self) -> SessionId {
        let id = self.next;
        self.next.count += 1;
        id
    }
}

/// The ends of a session's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Where {
    /// The client's address.
    pub remote: IpAddr,
    /// The address it connected to.
    pub local: IpAddr,
    /// Whether TLS protects it.
    pub tls: bool,
    /// Its name.
    pub id: SessionId,
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An IPv4 client of an IPv6 listener is the IPv4 client a filter bans.
        let (rip, lip) = (self.remote.to_canonical(), self.local.to_canonical());
        write!(f, "rip={rip}, lip={lip}, ")?;
        if self.tls {
            f.write_str("TLS, ")?;
        }
        write!(f, "session=<{}>", self.id)
    }
}

/// Messages and their octets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many messages.
    pub count: u64,
    /// Their octets as RFC 1939 counts them.
    pub octets: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.octets)
    }
}

/// The line of a session at its end. `Display` writes it.
#[derive(Debug, Clone, Copy)]
pub enum SessionEnd<'a> {
    /// It was logged in.
    Authenticated {
        /// The canonical user name.
        user: &'a [u8],
        /// The ends of the connection.
        at: Where,
        /// How it ended, in words: "Logged out", "Connection closed".
        reason: &'a str,
        /// What TOP sent.
        top: Tally,
        /// What RETR sent.
        retr: Tally,
        /// What was removed at QUIT.
        deleted: Tally,
        /// The maildrop when it was opened.
        maildrop: Tally,
        /// From connection to end.
        duration: Duration,
    },
    /// It never was.
    Stranger {
        /// The ends of the connection.
        at: Where,
        /// How it ended.
        reason: &'a str,
        /// Logins that failed; each has a line of its own.
        failures: u32,
        /// From connection to end.
        duration: Duration,
    },
}

impl fmt::Display for SessionEnd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Authenticated {
                user,
                at,
                reason,
                top,
                retr,
                deleted,
                maildrop,
                duration,
            } => {
                let (user, pid) = (Escaped(user), pid());
                write!(
                    f,
                    "pop3({user})<{pid}><{}>: Info: Disconnected: {reason} ",
                    at.id
                )?;
                write!(
                    f,
                    "top={top}, retr={retr}, del={}/{}, ",
                    deleted.count, maildrop.count
                )?;
                write!(f, "size={}, user=<{user}>, {at}, ", maildrop.octets)?;
                write!(f, "del-size={}, ", deleted.octets)?;
                write!(f, "duration={:.3}", duration.as_secs_f64())
            }
            Self::Stranger {
                at,
                reason,
                failures: 0,
                duration,
            } => {
                // Dovecot's words for it; filters in aggressive mode know them.
                let seconds = duration.as_secs();
                write!(f, "pop3-login: Info: Disconnected: {reason} ")?;
                write!(f, "(no auth attempts in {seconds} secs): user=<>, {at}")
            }
            Self::Stranger {
                at,
                reason,
                failures,
                duration,
            } => {
                let seconds = duration.as_secs();
                write!(f, "pop3-login: Info: Disconnected: {reason} ")?;
                write!(
                    f,
                    "({failures} failed logins in {seconds} secs): user=<>, {at}"
                )
            }
        }
    }
}

/// The end of a line: whom the client's certificate vouches for, if it showed one.
#[derive(Debug, Clone, Copy)]
pub struct Vouched<'a>(pub Option<&'a str>);

impl fmt::Display for Vouched<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => Ok(()),
            Some(name) => write!(f, ", cert=<{}>", Escaped(name.as_bytes())),
        }
    }
}

/// What follows that: the master user who was logged in for the user, if one was.
#[derive(Debug, Clone, Copy)]
pub struct Master<'a>(pub Option<&'a [u8]>);

impl fmt::Display for Master<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => Ok(()),
            Some(name) => write!(f, ", master=<{}>", Escaped(name)),
        }
    }
}

/// Why a login failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginFault {
    /// Unknown user or wrong password: what filters ban by.
    Rejected,
    /// The account may not log in.
    Disabled,
    /// The server could not tell: no fault of the client.
    Unavailable,
    /// Too many failed before: the password was not looked at.
    Throttled,
    /// The user has as many sessions from this address as there may be.
    Crowded,
}

/// The line of a failed login. `Display` writes it.
#[derive(Debug, Clone, Copy)]
pub struct FailedLogin<'a> {
    /// The name as the client sent it.
    pub user: &'a [u8],
    /// How the client tried to log in, by the name of its SASL mechanism.
    pub method: &'static str,
    /// The ends of the connection.
    pub at: Where,
    /// Why it failed.
    pub fault: LoginFault,
    /// Which of the session's attempts it was, from 1.
    pub attempt: u32,
    /// From connection to failure.
    pub duration: Duration,
}

impl fmt::Display for FailedLogin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = match self.fault {
            LoginFault::Rejected => "auth failed",
            LoginFault::Disabled => "user disabled",
            LoginFault::Unavailable => "auth unavailable",
            LoginFault::Throttled => "auth delayed",
            LoginFault::Crowded => "too many sessions",
        };
        let (attempts, seconds) = (self.attempt, self.duration.as_secs());
        write!(
            f,
            "pop3-login: Info: Disconnected ({fault}, {attempts} attempts in {seconds} secs): "
        )?;
        write!(
            f,
            "user=<{}>, method={}, {}",
            Escaped(self.user),
            self.method,
            self.at
        )
    }
}

/// A peer's bytes with everything escaped that means something in a log line.
struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.get(..limits::LOGGED_NAME).unwrap_or(self.0);
        for part in shown.split_inclusive(|octet| !is_plain(*octet)) {
            let (plain, other) = match part.split_last() {
                Some((last, plain)) if !is_plain(*last) => (plain, Some(last)),
                _ => (part, None),
            };
            f.write_str(std::str::from_utf8(plain).expect("ASCII"))?;
            if let Some(octet) = other {
                write!(f, "\\x{octet:02x}")?;
            }
        }
        if shown.len() < self.0.len() {
            f.write_str("...")?;
        }
        Ok(())
    }
}

/// Whether an octet means nothing in a log line but itself.
fn is_plain(octet: u8) -> bool {
    octet.is_ascii_graphic() && !b"<>(),\\".contains(&octet)
}

/// This process, asked for once: the C library asks the kernel each time.
fn pid() -> u32 {
    static PID: LazyLock<u32> = LazyLock::new(process::id);
    *PID
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;
    use std::net::Ipv4Addr;

    use super::*;

    /// The regular expressions of fail2ban 1.0.2's `filter.d/dovecot.conf`, its
    /// variables put in and its `<HOST>` as a group, after the date is cut off.
    /// The first finds the content of a line, the second a login to ban by.
    const PREFIX: &str = r"^(?:\[\])?\s*(?:\S+\s+)?(?:(?:(?:dovecot: )?auth(?:-worker)?)(?:\([^\)]+\))?: )?(?:(?:pop3|imap|managesieve|submission)-login: )?(?:Info: )?(?P<content>.+)$";
    const FAILURE: &str = r"^(?:Aborted login|Disconnected|Remote closed connection|Client has quit the connection)(?:: (?:\w+\([^\):]*\) \w+|[^\(]+))* \((?:auth failed, \d+ attempts(?: in \d+ secs)?|tried to use (?:disabled|disallowed) \S+ auth|proxy dest auth failed)\):(?: user=<(?P<user>[^>]*)>,)?(?: method=\S+,)? rip=(?P<host>[0-9a-f.:]+)(?:[^>]*(?:, session=<\S+>)?)\s*$";

    fn banned(line: &str) -> Option<(String, String)> {
        static PREFIXED: LazyLock<Regex> = LazyLock::new(|| Regex::new(PREFIX).expect("a regex"));
        static FAILED: LazyLock<Regex> = LazyLock::new(|| Regex::new(FAILURE).expect("a regex"));
        let content = PREFIXED.captures(line)?["content"].to_owned();
        let found = FAILED.captures(&content)?;
        Some((found["user"].to_owned(), found["host"].to_owned()))
    }

    fn at() -> Where {
        let started = SystemTime::UNIX_EPOCH + Duration::from_millis(0xABCD);
        Where {
            remote: Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().into(),
            local: Ipv4Addr::LOCALHOST.into(),
            tls: true,
            id: SessionIds::new(started, 3).assign(),
        }
    }

    fn failure(user: &[u8], fault: LoginFault) -> String {
        let failure = FailedLogin {
            user,
            method: "SCRAM-SHA-256",
            at: at(),
            fault,
            attempt: 2,
            duration: Duration::from_millis(5900),
        };
        failure.to_string()
    }

    fn stranger(failures: u32) -> String {
        let end = SessionEnd::Stranger {
            at: at(),
            reason: "Connection closed",
            failures,
            duration: Duration::from_secs(4),
        };
        end.to_string()
    }

    #[test]
    fn a_failed_login_has_dovecots_form() {
        assert_eq!(
            failure(b"alice", LoginFault::Rejected),
            "pop3-login: Info: Disconnected (auth failed, 2 attempts in 5 secs): user=<alice>, \
             method=SCRAM-SHA-256, rip=192.0.2.7, lip=127.0.0.1, TLS, session=<0000abcd.3.1>"
        );
    }

    #[test]
    fn fail2ban_bans_by_a_rejected_login() {
        let ban = banned(&failure(b"alice@example.net", LoginFault::Rejected));
        let expected = ("alice@example.net".to_owned(), "192.0.2.7".to_owned());
        assert_eq!(ban, Some(expected));
    }

    #[test]
    fn fail2ban_bans_by_nothing_else() {
        assert_eq!(banned(&failure(b"alice", LoginFault::Disabled)), None);
        assert_eq!(banned(&failure(b"alice", LoginFault::Unavailable)), None);
        assert_eq!(banned(&stranger(0)), None);
        assert_eq!(banned(&stranger(3)), None);
        assert_eq!(banned(&logged_out(b"alice")), None);
    }

    fn logged_out(user: &[u8]) -> String {
        let end = SessionEnd::Authenticated {
            user,
            at: at(),
            reason: "Logged out",
            top: Tally::default(),
            retr: Tally {
                count: 2,
                octets: 12_345,
            },
            deleted: Tally {
                count: 1,
                octets: 678,
            },
            maildrop: Tally {
                count: 20,
                octets: 99_999,
            },
            duration: Duration::from_millis(1234),
        };
        end.to_string()
    }

    #[test]
    fn a_sessions_end_has_dovecots_fields_and_then_more() {
        let line = logged_out(b"alice");
        let pid = process::id();
        assert_eq!(
            line,
            format!(
                "pop3(alice)<{pid}><0000abcd.3.1>: Info: Disconnected: Logged out top=0/0, \
                 retr=2/12345, del=1/20, size=99999, user=<alice>, rip=192.0.2.7, lip=127.0.0.1, \
                 TLS, session=<0000abcd.3.1>, del-size=678, duration=1.234"
            )
        );
        // As statistics scripts for Dovecot's logs read it.
        let known = r"pop3\(([^)]+)\)<\d+><[^>]+>: Info: Disconnected: .* top=(\d+)/(\d+), retr=(\d+)/(\d+), del=(\d+)/(\d+), size=(\d+)";
        let fields = Regex::new(known).expect("a regex");
        let fields = fields.captures(&line).expect("a known line");
        assert_eq!(
            (&fields[1], &fields[5], &fields[8]),
            ("alice", "12345", "99999")
        );
    }

    #[test]
    fn a_strangers_end_says_how_often_it_failed() {
        assert_eq!(
            stranger(0),
            "pop3-login: Info: Disconnected: Connection closed (no auth attempts in 4 secs): \
             user=<>, rip=192.0.2.7, lip=127.0.0.1, TLS, session=<0000abcd.3.1>"
        );
        assert!(stranger(3).contains(" (3 failed logins in 4 secs): user=<>, "));
    }

    #[test]
    fn a_name_cannot_forge_an_address() {
        let forged = b"x>, method=PLAIN, rip=198.51.100.1, session=<y\r\npop3-login: ";
        let line = failure(forged, LoginFault::Rejected);
        let (_, host) = banned(&line).expect("still a failed login");
        assert_eq!(host, "192.0.2.7");
        assert!(!line.contains(['\r', '\n']));
    }

    #[test]
    fn a_long_name_is_cut() {
        let line = failure(&[b'a'; 5000], LoginFault::Rejected);
        assert!(line.len() < 2 * limits::LOGGED_NAME);
        assert!(line.contains("a...>, method"));
    }

    #[test]
    fn ids_are_never_the_same_twice() {
        let mut ids = SessionIds::new(SystemTime::UNIX_EPOCH, 0);
        assert_ne!(ids.assign(), ids.assign());
        let other = SessionIds::new(SystemTime::UNIX_EPOCH, 1).assign();
        let first = SessionIds::new(SystemTime::UNIX_EPOCH, 0).assign();
        assert_ne!(other.to_string(), first.to_string());
    }

    proptest! {
        #[test]
        fn whatever_the_name_the_ban_hits_the_client(user in prop::collection::vec(any::<u8>(), 0..300)) {
            let line = failure(&user, LoginFault::Rejected);
            prop_assert!(line.bytes().all(|b| (0x20..0x7F).contains(&b)));
            let host = banned(&line).map(|(_, host)| host);
            prop_assert_eq!(host.as_deref(), Some("192.0.2.7"));
        }
    }
}
