//! Users from a directory server: LDAP, version 3.
//!
//! Two ways to verify: the server does it, when popcore binds as the user with the
//! password that it was given; or popcore does, with the stored password that it reads.
//! The user's entry is searched for, or its name is made of the user's.
//!
//! Searches of all logins share one connection, on which answers come in any order. A
//! bind is for a whole connection, so those have connections of their own, which are kept
//! and bound again: the server knows each as the last user who tried.
//!
//! Where somebody is proved already (by a certificate, or as a master user), an entry
//! that is there is a user, and nobody binds.
//!
//! What is known of a user is read as the one who searches, also where the entry's name is
//! made of the user's, behind the bind: so a user has the same home by whatever proves the
//! name, and no user need be able to read the own entry.
//!
//! An empty password is never sent: a server takes a bind without one for anonymous, and
//! says that it went well (RFC 4513, section 5.1.2).

mod template;

use std::sync::Arc;
use std::time::Duration;

use ldap3::{Ldap as Handle, LdapConnAsync, LdapConnSettings, LdapError, Scope, SearchEntry};
use rustls::ClientConfig;
use tokio::sync::Mutex;

pub use self::template::{LdapTemplate, LdapTemplateError};
use super::{Answer, Attributes, Question, Trust};
use crate::auth::credentials::Ask;
use crate::auth::directory::Failure;
use crate::auth::{Secret, Verifier};

/// A directory server, as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LdapOptions {
    /// Where it is: `ldap://`, `ldaps://` or `ldapi://`.
    pub url: String,
    /// Whether TLS is begun on a connection in clear.
    pub starttls: bool,
    /// Whose certificate it may show.
    pub trust: Trust,
    /// Who searches; anonymous where it is not said.
    pub searcher: Option<(String, Secret)>,
    /// How the entry of a user is found.
    pub entry: LdapEntry,
    /// Whether the server verifies passwords, by a bind.
    pub binds: bool,
    /// What attributes are called there, by the names they have here.
    pub attributes: Vec<(String, String)>,
    /// How many users are asked about at a time.
    pub connections: u32,
}

/// How the entry of a user is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LdapEntry {
    /// Its name is made of the user's.
    Named(LdapTemplate),
    /// By a search below this entry.
    Searched {
        /// The name of the entry above.
        base: String,
        /// What finds one entry.
        filter: LdapTemplate,
    },
}

/// A directory server that is asked for users.
pub(super) struct Ldap {
    options: LdapOptions,
    tls: Arc<ClientConfig>,
    timeout: Duration,
    /// The connection of searches, once there is one.
    searches: Mutex<Option<Handle>>,
    /// Connections that were bound and are bound again.
    idle: Mutex<Vec<Handle>>,
    /// An entry that is not there, by a name that nobody can foretell.
    nobody: String,
}

/// An entry: its name and what is known of it.
struct Entry {
    name: String,
    attributes: Attributes,
}

/// The outcome of a bind.
enum Bound {
    Yes,
    No,
}

/// Result codes of RFC 4511, appendix A.
mod code {
    pub(super) const SUCCESS: u32 = 0;
    pub(super) const CONSTRAINT_VIOLATION: u32 = 19;
    pub(super) const NO_SUCH_OBJECT: u32 = 32;
    pub(super) const INVALID_DN_SYNTAX: u32 = 34;
    pub(super) const INAPPROPRIATE_AUTHENTICATION: u32 = 48;
    pub(super) const INVALID_CREDENTIALS: u32 = 49;
    pub(super) const BUSY: u32 = 51;
    pub(super) const UNAVAILABLE: u32 = 52;
    pub(super) const UNWILLING: u32 = 53;
}

impl Ldap {
    /// Connects when it is asked.
    pub(super) fn new(options: &LdapOptions, timeout: Duration) -> Self {
        let mut random = [0; 16];
        getrandom::fill(&mut random).expect("the kernel has randomness (getrandom(2))");
        let base = match &options.entry {
            LdapEntry::Named(_) => "",
            LdapEntry::Searched { base, .. } => base,
        };
        let comma = if base.is_empty() { "" } else { "," };
        let nobody = format!("cn=popcore-{:x}{comma}{base}", u128::from_ne_bytes(random));
        Self {
            nobody,
            tls: Arc::new(options.trust.client()),
            options: options.clone(),
            timeout,
            searches: Mutex::default(),
            idle: Mutex::default(),
        }
    }

    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, Failure> {
        let entry = match &self.options.entry {
            LdapEntry::Named(template) => template.entry(&question.name).map(|name| Entry {
                name,
                attributes: Attributes::default(),
            }),
            LdapEntry::Searched { base, filter } => match filter.filter(&question.name) {
                None => None,
                Some(filter) => match self.search(base, Scope::Subtree, &filter).await? {
                    Ok(entry) => entry,
                    Err(fault) => return Ok(fault),
                },
            },
        };
        let Some(entry) = entry else {
            return Ok(Answer::Unknown);
        };
        if !self.options.binds {
            return Ok(Answer::Stored(entry.attributes));
        }
        if matches!(question.ask, Ask::Known) {
            return self.answer_about(entry).await;
        }
        let Some(password) = sent(question) else {
            return Ok(Answer::Rejected);
        };
        match self.bind(&entry.name, password).await? {
            Bound::Yes => self.read_behind_the_bind(entry).await,
            Bound::No => Ok(Answer::Rejected),
        }
    }

    /// Whether the server verifies passwords.
    pub(super) fn binds(&self) -> bool {
        self.options.binds
    }

    /// Whether a user who is there would have cost a bind behind the search.
    pub(super) fn asks_twice(&self, question: &Question) -> bool {
        let is_searched = matches!(self.options.entry, LdapEntry::Searched { .. });
        self.options.binds && is_searched && sent(question).is_some()
    }

    /// Binds as nobody, because there is no entry to bind as: a name that is not there takes
    /// as many questions as one that is. Not with the password, which may be that of a user
    /// of another directory, and as no entry that is there, which could be locked by it.
    pub(super) async fn pretend(&self, question: &Question) -> Result<(), Failure> {
        let length = sent(question).map_or(1, str::len);
        self.bind(&self.nobody, &"x".repeat(length)).await?;
        Ok(())
    }

    /// A user whose password was right, with what the entry says, if that is not known yet.
    async fn read_behind_the_bind(&self, entry: Entry) -> Result<Answer, Failure> {
        let is_read = matches!(self.options.entry, LdapEntry::Searched { .. });
        if is_read || self.options.attributes.is_empty() {
            return Ok(Answer::Accepted(entry.attributes));
        }
        Ok(match self.answer_about(entry).await? {
            // Nobody is let in who may have networks or limits that are not known.
            Answer::Unknown => Answer::Faulty(
                "the password is right, and bind_dn cannot read the entry; let it".to_owned(),
            ),
            answer => answer,
        })
    }

    /// A user whose password nobody has to verify, if the entry is there.
    async fn answer_about(&self, entry: Entry) -> Result<Answer, Failure> {
        if let LdapEntry::Searched { .. } = self.options.entry {
            return Ok(Answer::Accepted(entry.attributes));
        }
        let found = self.search(&entry.name, Scope::Base, "(objectClass=*)");
        Ok(match found.await? {
            Ok(Some(entry)) => Answer::Accepted(entry.attributes),
            Ok(None) => Answer::Unknown,
            Err(fault) => fault,
        })
    }

    /// The one entry that a filter finds. More than one is a fault of that user's.
    async fn search(
        &self,
        base: &str,
        scope: Scope,
        filter: &str,
    ) -> Result<Result<Option<Entry>, Answer>, Failure> {
        let mut handle = self.searcher().await?;
        let wanted: Vec<&str> = self
            .options
            .attributes
            .iter()
            .map(|(_, there)| &**there)
            .collect();
        // An entry with no attribute is asked for by this name (RFC 4511, section 4.5.1.8).
        let wanted = if wanted.is_empty() {
            vec!["1.1"]
        } else {
            wanted
        };
        let found = handle.search(base, scope, filter, wanted).await;
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                *self.searches.lock().await = None;
                return Err(failure(&error));
            }
        };
        let (entries, result) = (found.0, found.1);
        match result.rc {
            code::SUCCESS => {}
            // The entry of a user, whose name was made of the user's.
            code::NO_SUCH_OBJECT | code::INVALID_DN_SYNTAX if scope == Scope::Base => {
                return Ok(Ok(None));
            }
            code::NO_SUCH_OBJECT => {
                return Err(Failure::Refused(format!("there is no entry {base}")));
            }
            code => return Err(refusal(code, &result.text)),
        }
        let mut entries = entries.into_iter().map(SearchEntry::construct);
        match (entries.next(), entries.next()) {
            (None, _) => Ok(Ok(None)),
            (Some(entry), None) => Ok(Ok(Some(self.read(entry)))),
            _ => Ok(Err(Answer::Faulty(
                "the filter finds several entries".to_owned(),
            ))),
        }
    }

    fn read(&self, entry: SearchEntry) -> Entry {
        let SearchEntry {
            dn,
            attrs,
            bin_attrs,
        } = entry;
        let mut attributes = Attributes::default();
        for (here, there) in &self.options.attributes {
            let same = |name: &String| name.eq_ignore_ascii_case(there);
            let text = attrs
                .iter()
                .find(|(name, _)| same(name))
                .map(|(_, values)| values);
            let octets = bin_attrs.iter().find(|(name, _)| same(name));
            let octets =
                octets.and_then(|(_, values)| String::from_utf8(values.first()?.clone()).ok());
            let value = match text {
                // Networks may be values of their own.
                Some(values) if here == "allow_nets" => Some(values.join(",")),
                Some(values) if here == "password" => stored_password(there, values),
                Some(values) => values.first().cloned(),
                None => octets,
            };
            if let Some(value) = value {
                attributes.set(here, value);
            }
        }
        Entry {
            name: dn,
            attributes,
        }
    }

    /// The connection of searches, made anew if there is none.
    async fn searcher(&self) -> Result<Handle, Failure> {
        let mut searches = self.searches.lock().await;
        if let Some(handle) = &mut *searches
            && !handle.is_closed()
        {
            return Ok(handle.clone());
        }
        let mut handle = self.connect().await?;
        if let Some((name, secret)) = &self.options.searcher {
            let bound = handle.simple_bind(name, secret.expose()).await;
            let bound = bound.map_err(|error| failure(&error))?;
            if bound.rc != code::SUCCESS {
                return Err(refusal(
                    bound.rc,
                    &format!("bind as {name}: {}", bound.text),
                ));
            }
        }
        *searches = Some(handle.clone());
        Ok(handle)
    }

    /// Uses no connection again that there is: one of them has not answered in time, and
    /// whatever silences one may silence all.
    pub(super) fn give_up(&self) {
        // Whoever holds one of these locks for longer than a moment connects anew.
        if let Ok(mut searches) = self.searches.try_lock() {
            *searches = None;
        }
        if let Ok(mut idle) = self.idle.try_lock() {
            idle.clear();
        }
    }

    async fn bind(&self, name: &str, password: &str) -> Result<Bound, Failure> {
        let mut kept = self.idle.lock().await.pop();
        let open = kept.take_if(|handle| !handle.is_closed());
        let mut handle = match open {
            Some(handle) => handle,
            None => self.connect().await?,
        };
        let bound = handle.simple_bind(name, password).await;
        let bound = bound.map_err(|error| failure(&error))?;
        self.idle.lock().await.push(handle);
        match bound.rc {
            code::SUCCESS => Ok(Bound::Yes),
            code::INVALID_CREDENTIALS
            | code::INAPPROPRIATE_AUTHENTICATION
            | code::NO_SUCH_OBJECT
            | code::INVALID_DN_SYNTAX
            | code::CONSTRAINT_VIOLATION
            | code::UNWILLING => Ok(Bound::No),
            code => Err(refusal(code, &bound.text)),
        }
    }

    async fn connect(&self) -> Result<Handle, Failure> {
        let settings = LdapConnSettings::new()
            .set_conn_timeout(self.timeout)
            .set_starttls(self.options.starttls)
            .set_config(Arc::clone(&self.tls));
        let made = LdapConnAsync::with_settings(settings, &self.options.url).await;
        let (connection, handle) = made.map_err(|error| failure(&error))?;
        tokio::spawn(async move {
            // Whoever uses the connection is told of its end.
            let _ = connection.drive().await;
        });
        Ok(handle)
    }
}

/// The password that a server is told. No text is none that it could hold (RFC 4513,
/// section 5.1.3).
fn sent(question: &Question) -> Option<&str> {
    let password = str::from_utf8(question.ask.password()?.as_bytes()).ok()?;
    Some(password).filter(|password| !password.is_empty())
}

/// The value that can be verified, of several. `userPassword` without a scheme is the
/// password itself (RFC 4519, section 2.41).
fn stored_password(attribute: &str, values: &[String]) -> Option<String> {
    let in_clear = ["userPassword", "2.5.4.35"]
        .iter()
        .any(|name| attribute.eq_ignore_ascii_case(name));
    let text = |value: &String| {
        let is_bare = !value.is_empty() && !value.starts_with('{');
        if in_clear && is_bare {
            format!("{{PLAIN}}{value}")
        } else {
            value.clone()
        }
    };
    let known = |text: &String| Verifier::parse(text.as_bytes()).is_ok();
    let found = values.iter().map(text).find(known);
    found.or_else(|| values.first().cloned())
}

/// A connection that failed: what was asked may be asked again on another one.
fn failure(error: &LdapError) -> Failure {
    Failure::Unreachable(error.to_string())
}

fn refusal(code: u32, text: &str) -> Failure {
    let text = format!("LDAP result {code}: {text}");
    match code {
        code::BUSY | code::UNAVAILABLE => Failure::Unreachable(text),
        _ => Failure::Refused(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_may_have_several_passwords_one_of_which_is_known() {
        let chosen = |attribute: &str, values: &[&str]| {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            stored_password(attribute, &values)
        };
        let some = |text: &str| Some(text.to_owned());
        let digest = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
        let values = ["{SASL}joe@EXAMPLE", digest];
        assert_eq!(chosen("userPassword", &values), some(digest));
        assert_eq!(
            chosen("userpassword", &["two words"]),
            some("{PLAIN}two words")
        );
        assert_eq!(chosen("2.5.4.35", &["$6$x"]), some("{PLAIN}$6$x"));
        // Of another attribute it is what crypt(3) makes, and no password.
        assert_eq!(chosen("mailPassword", &["two words"]), some("two words"));
        assert_eq!(chosen("userPassword", &["{SASL}joe"]), some("{SASL}joe"));
        assert_eq!(chosen("userPassword", &[]), None);
    }
}
