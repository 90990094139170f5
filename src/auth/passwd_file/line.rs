//! One line of a passwd-file:
//! `user:password:uid:gid:(gecos):home:(shell):extra fields`.
//!
//! A fault never opens a door. A line whose name can be read stands for that
//! user even if nothing else of it can be used: the user is then
//! [`Record::Locked`], and neither a later line nor a later directory lets the
//! name in. Extra fields that would change who may log in, or to which mail, and
//! that are not supported refuse the user rather than being ignored; others
//! (`userdb_quota_rule`, `nodelay`, ...) are ignored, as are uid, gid and shell.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::auth::directory::{Notice, Profile, Proof, Record, User};
use crate::auth::user_limits::UserLimit;
use crate::auth::{NameError, Network, NetworkError, SchemeError, UserLimits, UserName, Verifier};

/// Extra fields whose meaning is another login than the one that would happen
/// without them. The user is told so after the right password.
const REFUSING: [&[u8]; 15] = [
    b"allow_real_nets",
    b"auth_user",
    b"destuser",
    b"domain",
    b"host",
    b"hostip",
    b"login_user",
    b"master_user",
    b"noauthenticate",
    b"nopassword",
    b"original_user",
    b"proxy",
    b"proxy_maybe",
    b"user",
    b"username",
];

/// What a line says.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one at a time, which is taken apart where it is made"
)]
pub(super) enum Line<'a> {
    /// Nothing: empty, a comment, or without a name.
    Blank,
    /// No user can be made out.
    Bad(LineFault),
    /// A user, perhaps with a fault to report.
    User {
        name: &'a [u8],
        record: Record,
        fault: Option<LineFault>,
    },
}

/// What is wrong with a line. Its text quotes no secret.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::auth) enum LineFault {
    NoColon,
    Name(NameError),
    Called(NameError),
    Scheme(SchemeError),
    Home,
    Mail,
    Networks(NetworkError),
    Limit(UserLimit),
    Unsupported(String),
    Twin,
}

/// The name that a line stands for. Cheaper than parsing it.
pub(super) fn name_of(line: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memchr(b':', line)?;
    let name = &line[..colon];
    (!name.is_empty() && name[0] != b'#').then_some(name)
}

/// The line that begins at `offset`, without its end.
pub(super) fn line_at(text: &[u8], offset: usize) -> &[u8] {
    let rest = &text[offset..];
    let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
    let line = &rest[..end];
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Takes one line apart, given without its line end.
pub(super) fn parse(line: &[u8]) -> Line<'_> {
    let Some(name) = name_of(line) else {
        let blank = line.is_empty() || line.starts_with(b"#") || line.starts_with(b":");
        return if blank {
            Line::Blank
        } else {
            Line::Bad(LineFault::NoColon)
        };
    };
    if let Err(error) = UserName::check(name) {
        return Line::Bad(LineFault::Name(error));
    }
    let (record, fault) = match user(&line[name.len() + 1..]) {
        Ok((user, fault)) => (Record::User(user), fault),
        // A user who is not meant to have a password is no fault.
        Err(LineFault::Scheme(SchemeError::None)) => (Record::Locked, None),
        Err(fault) => (Record::Locked, Some(fault)),
    };
    Line::User {
        name,
        record,
        fault,
    }
}

/// What stands behind the name. A fault beside the user is one that keeps the
/// user out although the password can be verified.
fn user(fields: &[u8]) -> Result<(User, Option<LineFault>), LineFault> {
    let mut fields = fields.splitn(7, |&b| b == b':');
    let password = fields.next().unwrap_or_default();
    let home = fields.nth(3).unwrap_or_default();
    let extra = fields.nth(1).unwrap_or_default();
    let proof = Proof::Stored(Verifier::parse(password).map_err(LineFault::Scheme)?);
    let mut user = Profile {
        home: absolute(home)?,
        ..Profile::default()
    };
    let mut own = UserLimits::default();
    let mut fault = None;
    for field in extra.split(|&b| b == b' ').filter(|f| !f.is_empty()) {
        let (key, value) = match memchr::memchr(b'=', field) {
            Some(at) => (&field[..at], &field[at + 1..]),
            None => (field, &b""[..]),
        };
        match key {
            b"allow_nets" => user.networks = Some(networks(value)?),
            b"nologin" => {
                user.disabled.get_or_insert(Notice::DISABLED);
            }
            b"userdb_home" => user.home = absolute(value)?,
            b"userdb_mail" => match mail(value, user.home.as_deref()) {
                Some(mail) => user.mail = Some(mail),
                None => fault = fault.or(Some(LineFault::Mail)),
            },
            // Dovecot's name for it, which it takes from here as well.
            b"userdb_mail_max_userip_connections" => {
                limit(&mut own, UserLimit::SessionsFromAddress, value)?;
            }
            b"userdb_sessions_per_user" => limit(&mut own, UserLimit::Sessions, value)?,
            b"userdb_login_delay" => limit(&mut own, UserLimit::LoginDelay, value)?,
            key if REFUSING.contains(&key) => {
                let key = key.escape_ascii().to_string();
                fault = fault.or(Some(LineFault::Unsupported(key)));
            }
            _ => {}
        }
    }
    if fault.is_some() {
        user.disabled = Some(Notice::ELSEWHERE);
    }
    let limits = (!own.are_none()).then(|| Box::new(own));
    let profile = Profile { limits, ..user };
    let user = User {
        proof,
        profile,
        renewal: None,
    };
    Ok((user, fault))
}

fn limit(own: &mut UserLimits, limit: UserLimit, value: &[u8]) -> Result<(), LineFault> {
    let text = String::from_utf8_lossy(value);
    own.set(limit, &text).map_err(LineFault::Limit)
}

pub(in crate::auth) fn absolute(path: &[u8]) -> Result<Option<PathBuf>, LineFault> {
    if path.is_empty() {
        return Ok(None);
    }
    if path[0] != b'/' || path.contains(&0) {
        return Err(LineFault::Home);
    }
    Ok(Some(PathBuf::from(OsStr::from_bytes(path))))
}

pub(in crate::auth) fn networks(list: &[u8]) -> Result<Box<[Network]>, LineFault> {
    let networks = String::from_utf8_lossy(list)
        .split(',')
        .filter(|network| !network.is_empty())
        .map(str::parse)
        .collect::<Result<Vec<Network>, _>>()
        .map_err(LineFault::Networks)?;
    // An empty list allows nobody, which is what it says.
    Ok(networks.into())
}

/// `maildir:/path` or `maildir:~/path`, what follows a further colon (`INDEX=`,
/// `LAYOUT=`) being another program's. `None` for what names no Maildir that can
/// be found from here: another format, a `%` variable, `~` without a home.
pub(in crate::auth) fn mail(location: &[u8], home: Option<&Path>) -> Option<PathBuf> {
    let path = location.strip_prefix(b"maildir:")?;
    let path = path.split(|&b| b == b':').next()?;
    if path.contains(&b'%') || path.contains(&0) {
        return None;
    }
    match path {
        b"~" => home.map(Path::to_path_buf),
        [b'~', b'/', below @ ..] => home.map(|home| home.join(OsStr::from_bytes(below))),
        [b'/', ..] => Some(PathBuf::from(OsStr::from_bytes(path))),
        _ => None,
    }
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoColon => f.write_str(
                "no colon: the line is skipped; write user:{SCHEME}password, \
                 or # before a comment",
            ),
            Self::Name(error) => write!(f, "{error}: the line is skipped; correct the name"),
            Self::Called(error) => write!(
                f,
                "what the directory calls this user cannot be a name: {error}; nobody can log in \
                 as this user until it is corrected"
            ),
            Self::Scheme(error) => write!(f, "{error}; until then nobody can log in as this user"),
            Self::Home => f.write_str(
                "the home is not an absolute path; nobody can log in as this user \
                 until it is, or is left out",
            ),
            Self::Mail => f.write_str(
                "userdb_mail is not maildir:/path or maildir:~/path; the user is \
                 turned away until it is, or is left out",
            ),
            Self::Networks(error) => write!(
                f,
                "allow_nets: {error}; nobody can log in as this user until it is corrected"
            ),
            Self::Limit(limit) => write!(
                f,
                "{limit} is not a whole number within bounds; nobody can log in as this \
                 user until it is, or is left out"
            ),
            Self::Twin => {
                f.write_str("an earlier line has the same name and is used; remove one of them")
            }
            Self::Unsupported(key) => write!(
                f,
                "the field {key} is not supported; the user is turned away until it is removed"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn record(line: &str) -> (Record, Option<LineFault>) {
        match parse(line.as_bytes()) {
            Line::User { record, fault, .. } => (record, fault),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn user_of(line: &str) -> (Profile, Option<LineFault>) {
        match record(line) {
            (Record::User(user), fault) => (user.profile, fault),
            (record, fault) => panic!("{line}: {record:?}, {fault:?}"),
        }
    }

    fn locked(line: &str) -> Option<LineFault> {
        let (record, fault) = record(line);
        assert!(matches!(record, Record::Locked), "{line}");
        fault
    }

    #[test]
    fn every_field_is_found() {
        let (user, fault) = user_of(
            "joe:{PLAIN}pass word:1000:1000:Joe, Mr:/home/joe:/bin/sh:\
             userdb_quota_rule=*:storage=1G allow_nets=127.0.0.0/8,::1 \
             userdb_mail=maildir:~/Maildir:LAYOUT=fs",
        );
        assert_eq!(fault, None);
        assert_eq!(user.home, Some("/home/joe".into()));
        assert_eq!(user.mail, Some("/home/joe/Maildir".into()));
        let networks = user.networks.expect("a list");
        let from = |a, b, c, d| IpAddr::V4(Ipv4Addr::new(a, b, c, d));
        assert!(networks.iter().any(|n| n.contains(from(127, 0, 0, 1))));
        assert!(!networks.iter().any(|n| n.contains(from(192, 0, 2, 1))));
        assert_eq!(user.disabled, None);
    }

    #[test]
    fn short_lines_are_whole() {
        for line in [
            "joe:{PLAIN}x",
            "joe:{PLAIN}x:",
            "joe:{PLAIN}x::::::",
            "joe:{PLAIN}x:::::::",
        ] {
            let (user, fault) = user_of(line);
            assert!(
                fault.is_none() && user.home.is_none() && user.mail.is_none(),
                "{line}"
            );
            assert!(user.networks.is_none() && user.disabled.is_none(), "{line}");
        }
    }

    #[test]
    fn lines_without_a_user() {
        for line in ["", "# joe:{PLAIN}x", "#", ":{PLAIN}x"] {
            assert!(matches!(parse(line.as_bytes()), Line::Blank), "{line}");
        }
        assert!(matches!(parse(b"joe"), Line::Bad(LineFault::NoColon)));
        assert!(matches!(
            parse(b"jo\te:{PLAIN}x"),
            Line::Bad(LineFault::Name(_))
        ));
    }

    #[test]
    fn nologin_disables_in_any_spelling() {
        for field in ["nologin", "nologin=y", "nologin=", "x=1 nologin"] {
            let (user, fault) = user_of(&format!("joe:{{PLAIN}}x::::::{field}"));
            assert_eq!(
                (user.disabled, fault),
                (Some(Notice::DISABLED), None),
                "{field}"
            );
        }
    }

    #[test]
    fn fields_that_are_not_supported_turn_the_user_away() {
        for key in REFUSING {
            let key = String::from_utf8(key.to_vec()).expect("ASCII");
            for field in [
                key.clone(),
                format!("{key}=value"),
                format!("nologin {key}=y"),
            ] {
                let (user, fault) = user_of(&format!("joe:{{PLAIN}}x::::::{field}"));
                assert_eq!(user.disabled, Some(Notice::ELSEWHERE), "{field}");
                assert_eq!(fault, Some(LineFault::Unsupported(key.clone())), "{field}");
            }
        }
    }

    #[test]
    fn mail_that_cannot_be_found_turns_the_user_away() {
        for mail in [
            "mbox:~/mail",
            "maildir:mail",
            "maildir:/m/%u",
            "maildir:~/m",
            "",
            "maildir:",
        ] {
            let (user, fault) = user_of(&format!("joe:{{PLAIN}}x::::::userdb_mail={mail}"));
            assert_eq!(user.disabled, Some(Notice::ELSEWHERE), "{mail}");
            assert_eq!((user.mail, fault), (None, Some(LineFault::Mail)), "{mail}");
        }
        let (user, _) = user_of("joe:{PLAIN}x::::::userdb_mail=maildir:/m/joe");
        assert_eq!(user.mail, Some("/m/joe".into()));
    }

    #[test]
    fn a_fault_that_cannot_be_judged_locks_the_user() {
        assert_eq!(locked("joe:"), None);
        assert_eq!(locked("joe:*:1:1"), None);
        let fault = locked("joe:{NOSUCH}x").expect("a fault");
        assert!(fault.to_string().contains("NOSUCH"), "{fault}");
        assert_eq!(locked("joe:{PLAIN}x::::home"), Some(LineFault::Home));
        for nets in ["300.0.0.0/8", "127.0.0.1,x", "localhost"] {
            let fault = locked(&format!("joe:{{PLAIN}}x::::::allow_nets={nets}"));
            assert!(matches!(fault, Some(LineFault::Networks(_))), "{nets}");
        }
    }

    #[test]
    fn limits_of_a_user_are_read_or_lock_the_user() {
        let (user, fault) = user_of(
            "joe:{PLAIN}x::::::userdb_mail_max_userip_connections=2 userdb_login_delay=90 \
             userdb_sessions_per_user=4",
        );
        let own = UserLimits {
            sessions: Some(4),
            sessions_from_address: Some(2),
            login_delay: Some(std::time::Duration::from_secs(90)),
        };
        assert_eq!((user.limits.as_deref(), fault), (Some(&own), None));
        for field in [
            "userdb_mail_max_userip_connections=few",
            "userdb_login_delay=10m",
            "userdb_sessions_per_user=",
        ] {
            let fault = locked(&format!("joe:{{PLAIN}}x::::::{field}"));
            assert!(matches!(fault, Some(LineFault::Limit(_))), "{field}");
        }
    }

    #[test]
    fn an_empty_list_of_networks_allows_nobody() {
        let (user, fault) = user_of("joe:{PLAIN}x::::::allow_nets=");
        assert_eq!(fault, None);
        assert_eq!(user.networks.expect("a list").len(), 0);
    }
}
