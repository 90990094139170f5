//! What a directory says of a user, as text, and what it means.
//!
//! The same names and the same meanings for all directories that are away: columns of
//! a row, attributes of an entry, members of a JSON object.
//!
//! As in a passwd-file a fault never opens a door: a password that cannot be verified
//! locks the user, and so does a home or a list of networks that cannot be understood; a
//! maildrop or a node that is not here turns the user away after the right password.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::auth::directory::{Notice, Profile, Proof, Record, User};
use crate::auth::passwd_file::line::{self, LineFault};
use crate::auth::user_limits::UserLimit;
use crate::auth::{SchemeError, UserLimits, UserName, Verifier};

/// What is said of one user. What is not there, or empty, is not said.
#[derive(Default)]
pub(super) struct Attributes {
    /// `{SCHEME}data`, or the bare text of crypt(3).
    pub(super) password: Option<Zeroizing<String>>,
    /// What the user is called.
    pub(super) user: Option<String>,
    /// An absolute path.
    pub(super) home: Option<String>,
    /// `maildir:/path`, `maildir:~/path`, or the path alone.
    pub(super) mail: Option<String>,
    /// Networks with commas between them.
    pub(super) allow_nets: Option<String>,
    /// `true` and the like, or the text that the user is told.
    pub(super) disabled: Option<String>,
    /// The node that serves this user.
    pub(super) node: Option<String>,
    /// Limits of the user's own: whole numbers.
    pub(super) limits: Vec<(UserLimit, String)>,
}

/// The names of what a directory says of a user.
pub const ATTRIBUTES: [&str; 10] = [
    "password",
    "user",
    "home",
    "mail",
    "allow_nets",
    "disabled",
    "node",
    "sessions_per_user",
    "sessions_per_user_and_address",
    "login_delay",
];

const LIMITS: [UserLimit; 3] = [
    UserLimit::Sessions,
    UserLimit::SessionsFromAddress,
    UserLimit::LoginDelay,
];

impl Attributes {
    /// Whether this is the name of an attribute.
    pub(super) fn knows(name: &str) -> bool {
        ATTRIBUTES.contains(&name)
    }

    /// Sets what this name stands for; says whether it stands for anything.
    pub(super) fn set(&mut self, name: &str, value: String) -> bool {
        let field = match name {
            "password" => {
                self.password = Some(Zeroizing::new(value));
                return true;
            }
            "user" => &mut self.user,
            "home" => &mut self.home,
            "mail" => &mut self.mail,
            "allow_nets" => &mut self.allow_nets,
            "disabled" => &mut self.disabled,
            "node" => &mut self.node,
            _ => {
                let limit = LIMITS.into_iter().find(|limit| limit.name() == name);
                let said = limit.filter(|_| !value.is_empty());
                self.limits.extend(said.map(|limit| (limit, value)));
                return limit.is_some();
            }
        };
        *field = Some(value).filter(|value| !value.is_empty());
        true
    }

    /// The user whose stored password is among the attributes. Faults go to the log.
    pub(super) fn stored(self, name: &UserName, label: &str, node: &str) -> Record {
        let said = self.password.as_ref();
        let Some(password) = said.filter(|password| !password.is_empty()) else {
            return self.record(Record::Passwordless, name, label, node);
        };
        match Verifier::parse(password.as_bytes()) {
            Ok(verifier) => self.proved(Proof::Stored(verifier), name, label, node),
            // A user who is not meant to log in is no fault.
            Err(SchemeError::None) => Record::Locked,
            Err(error) => {
                tracing::warn!("{label}: user {name}: {}", LineFault::Scheme(error));
                Record::Locked
            }
        }
    }

    /// The user whose password is proved like this. Faults go to the log.
    pub(super) fn proved(self, proof: Proof, name: &UserName, label: &str, node: &str) -> Record {
        let user = |profile| {
            Record::User(User {
                proof,
                profile,
                renewal: None,
            })
        };
        self.record(user, name, label, node)
    }

    /// The record that is made of the profile.
    fn record(
        self,
        make: impl FnOnce(Profile) -> Record,
        name: &UserName,
        label: &str,
        node: &str,
    ) -> Record {
        match self.profile(node) {
            Ok((profile, fault)) => {
                if let Some(fault) = fault {
                    tracing::warn!("{label}: user {name}: {fault}");
                }
                make(profile)
            }
            Err(fault) => {
                tracing::warn!("{label}: user {name}: {fault}");
                Record::Locked
            }
        }
    }

    /// The profile, with a fault beside it that turns the user away.
    fn profile(self, node: &str) -> Result<(Profile, Option<LineFault>), LineFault> {
        let home = self.home.unwrap_or_default();
        let name = self.user.map(|name| UserName::new(name.as_bytes()));
        let networks = self.allow_nets.map(|list| line::networks(list.as_bytes()));
        let mut own = UserLimits::default();
        for (limit, text) in &self.limits {
            own.set(*limit, text).map_err(LineFault::Limit)?;
        }
        let mut profile = Profile {
            name: name.transpose().map_err(LineFault::Called)?.map(Box::new),
            limits: (!own.are_none()).then(|| Box::new(own)),
            home: line::absolute(home.as_bytes())?,
            networks: networks.transpose()?,
            disabled: self.disabled.as_deref().and_then(disabled),
            mail: None,
        };
        let mut fault = None;
        if let Some(mail) = self.mail {
            profile.mail = location(&mail, profile.home.as_deref());
            if profile.mail.is_none() {
                fault = Some(LineFault::Mail);
            }
        }
        // That is no fault of the directory's: another node of the site serves the user.
        let elsewhere = self.node.is_some_and(|own| !own.eq_ignore_ascii_case(node));
        if fault.is_some() || elsewhere {
            profile.disabled = Some(Notice::ELSEWHERE);
        }
        Ok((profile, fault))
    }
}

/// What a user who is disabled is told.
fn disabled(text: &str) -> Option<Notice> {
    match text.to_ascii_lowercase().as_str() {
        "0" | "f" | "false" | "n" | "no" => None,
        "1" | "t" | "true" | "y" | "yes" => Some(Notice::DISABLED),
        _ => Some(Notice::new(text.trim()).unwrap_or(Notice::DISABLED)),
    }
}

fn location(text: &str, home: Option<&Path>) -> Option<PathBuf> {
    let bare = !text.starts_with("maildir:") && !text.contains('%');
    match text.strip_prefix("~/") {
        Some(below) if bare => home.map(|home| home.join(below)),
        None if bare && text.starts_with('/') && !text.contains('\0') => {
            Some(OsStr::from_bytes(text.as_bytes()).into())
        }
        _ => line::mail(text.as_bytes(), home),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(given: &[(&str, &str)]) -> Attributes {
        let mut attributes = Attributes::default();
        for (name, value) in given {
            assert!(attributes.set(name, (*value).to_owned()), "{name}");
        }
        attributes
    }

    fn record(given: &[(&str, &str)]) -> Record {
        let name = UserName::new(b"joe").expect("a name");
        attributes(given).stored(&name, "test", "here.example.net")
    }

    fn profile(given: &[(&str, &str)]) -> Profile {
        let given = [&[("password", "{PLAIN}x")], given].concat();
        match record(&given) {
            Record::User(user) => user.profile,
            other => panic!("{given:?}: {other:?}"),
        }
    }

    #[test]
    fn every_name_is_known_and_no_other() {
        for name in ATTRIBUTES {
            assert!(Attributes::default().set(name, "x".to_owned()), "{name}");
        }
        assert!(!Attributes::default().set("uid", "5000".to_owned()));
    }

    #[test]
    fn a_fault_that_cannot_be_judged_locks_the_user() {
        let locked: [&[(&str, &str)]; 7] = [
            &[("password", "{PLAIN}x"), ("user", "a\nb")],
            &[("password", "{PLAIN}x"), ("login_delay", "soon")],
            &[("home", "joe")],
            &[("password", "*")],
            &[("password", "{NOSUCH}x")],
            &[("password", "{PLAIN}x"), ("home", "joe")],
            &[("password", "{PLAIN}x"), ("allow_nets", "localhost")],
        ];
        for given in locked {
            assert!(matches!(record(given), Record::Locked), "{given:?}");
        }
    }

    #[test]
    fn without_a_password_a_user_is_there_all_the_same() {
        for given in [&[][..], &[("password", "")]] {
            let given = [given, &[("home", "/h"), ("disabled", "1")]].concat();
            let Record::Passwordless(profile) = record(&given) else {
                panic!("{given:?}");
            };
            assert_eq!(profile.home, Some("/h".into()));
            assert_eq!(profile.disabled, Some(Notice::DISABLED));
        }
    }

    #[test]
    fn what_is_empty_is_not_said() {
        let empty = ATTRIBUTES[1..].iter().map(|name| (*name, ""));
        let profile = profile(&empty.collect::<Vec<_>>());
        assert!(profile.home.is_none() && profile.mail.is_none());
        assert!(profile.networks.is_none() && profile.disabled.is_none());
        assert!(profile.limits.is_none());
    }

    #[test]
    fn a_directory_says_what_the_user_is_called() {
        assert_eq!(profile(&[]).name, None);
        let name = profile(&[("user", "Joe")]).name.expect("a name");
        assert_eq!(name.as_bytes(), b"Joe");
    }

    #[test]
    fn disabled_is_a_word_or_a_text() {
        for word in ["0", "false", "F", "no"] {
            assert_eq!(profile(&[("disabled", word)]).disabled, None, "{word}");
        }
        for word in ["1", "true", "T", "yes", "two\nlines"] {
            let notice = profile(&[("disabled", word)]).disabled;
            assert_eq!(notice, Some(Notice::DISABLED), "{word}");
        }
        let notice = profile(&[("disabled", "Bill unpaid")]).disabled;
        assert_eq!(notice.expect("disabled").as_str(), "Bill unpaid");
    }

    #[test]
    fn mail_is_found_or_the_user_turned_away() {
        for (mail, found) in [
            ("/m/joe", "/m/joe"),
            ("~/Maildir", "/home/joe/Maildir"),
            ("maildir:~/Maildir:INDEX=/i", "/home/joe/Maildir"),
            ("maildir:/m/joe", "/m/joe"),
        ] {
            let profile = profile(&[("home", "/home/joe"), ("mail", mail)]);
            assert_eq!(profile.mail, Some(found.into()), "{mail}");
            assert_eq!(profile.disabled, None);
        }
        for mail in ["m/joe", "/m/%u", "mbox:/m", "maildir:m"] {
            let profile = profile(&[("home", "/home/joe"), ("mail", mail)]);
            assert_eq!(profile.disabled, Some(Notice::ELSEWHERE), "{mail}");
        }
    }

    #[test]
    fn limits_of_a_user_are_read() {
        assert_eq!(profile(&[]).limits, None);
        let own = profile(&[
            ("sessions_per_user", "0"),
            ("sessions_per_user_and_address", "3"),
            ("login_delay", "300"),
        ]);
        let expected = UserLimits {
            sessions: Some(0),
            sessions_from_address: Some(3),
            login_delay: Some(std::time::Duration::from_mins(5)),
        };
        assert_eq!(own.limits.as_deref(), Some(&expected));
    }

    #[test]
    fn another_nodes_user_is_turned_away() {
        assert_eq!(profile(&[("node", "HERE.example.net")]).disabled, None);
        let away = profile(&[("node", "there.example.net")]).disabled;
        assert_eq!(away, Some(Notice::ELSEWHERE));
    }
}
