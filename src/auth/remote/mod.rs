//! Directories that are asked over a socket or through a library, and may be away.
//!
//! All of them are asked on the look-up thread ([`super::lookups`]), as many at a time as
//! the directory has connections. What is the same for all is here: whose turn it is, the
//! time-out, which covers everything that one login asks of one directory, further tries
//! where a connection broke, and the breaker ([`Contact`]).
//!
//! A failure never says anything about the name: a login that it meets is answered
//! [`super::Refusal::Unavailable`], and the directories behind it are not asked.

mod attributes;
mod breaker;
mod contact;
mod decoys;
mod http;
mod ldap;
mod metrics;
mod pam;
mod places;
mod renewal;
mod sql;
mod trust;
mod web;

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::attributes::ATTRIBUTES;
use self::attributes::Attributes;
pub(super) use self::contact::Contact;
use self::decoys::Decoys;
pub use self::http::{HttpForm, HttpOptions};
pub use self::ldap::{LdapEntry, LdapOptions, LdapTemplate, LdapTemplateError};
pub use self::metrics::DirectoryMetrics;
pub use self::pam::PamOptions;
pub(super) use self::renewal::Renewal;
use self::renewal::Renewed;
pub use self::sql::{
    Database, ServerError, SqlOptions, SqlServer, Statement, StatementError, Update,
};
pub use self::trust::Trust;
pub(super) use self::web::Web;
use super::credentials::Ask;
use super::directory::{Failure, Proof, Record};
use super::{DirectoryError, Identity, UserName, Verifier};

/// A directory that is away, as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteOptions {
    /// How the log names it, such as `auth.directory[2] (sql)`.
    pub label: Box<str>,
    /// How long a login waits for it, further tries included.
    pub timeout: Duration,
    /// The name of this node; users of others are turned away.
    pub node: Box<str>,
    /// What is asked, and how.
    pub protocol: Protocol,
}

/// What is asked, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// A database.
    Sql(SqlOptions),
    /// A directory server.
    Ldap(LdapOptions),
    /// A web service.
    Http(HttpOptions),
    /// The system's users.
    Pam(PamOptions),
}

impl Protocol {
    /// Whether it hands out stored passwords.
    pub(super) fn tells_stored(&self) -> bool {
        match self {
            Self::Sql(_) => true,
            Self::Ldap(options) => !options.binds,
            Self::Http(options) => options.form == HttpForm::Json,
            Self::Pam(_) => false,
        }
    }

    /// How many questions it is asked at a time.
    fn connections(&self) -> u32 {
        match self {
            Self::Sql(options) => options.connections,
            Self::Ldap(options) => options.connections,
            Self::Http(options) => options.connections,
            Self::Pam(options) => options.connections,
        }
    }

    /// Whether it says who is there without a password.
    pub(super) fn tells_users(&self) -> bool {
        !matches!(self, Self::Http(options) if options.form == HttpForm::Nginx)
    }
}

/// The place, without any secret.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sql(options) => write!(f, "{}", options.server),
            Self::Ldap(options) => f.write_str(&options.url),
            Self::Http(options) => write!(f, "{}", options.url),
            Self::Pam(options) => write!(f, "{options}"),
        }
    }
}

/// What a directory is asked.
pub(super) struct Question {
    pub(super) name: UserName,
    /// Whose maildrop is wanted, if it is another's.
    pub(super) acts_for: Option<UserName>,
    pub(super) ask: Ask,
    /// Where the client is.
    pub(super) from: IpAddr,
    /// The number of its network, which takes turns with others.
    pub(super) origin: u64,
}

impl Question {
    #[cfg(test)]
    fn about(name: &str, password: &str) -> Self {
        Self {
            name: UserName::new(name.as_bytes()).expect("a name"),
            acts_for: None,
            ask: Ask::Password(super::Password::new(password.as_bytes()).expect("short")),
            from: IpAddr::V6(std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped()),
            origin: 0,
        }
    }

    pub(super) fn of(identity: Identity, ask: Ask, from: IpAddr, origin: u64) -> Self {
        let Identity { user, acts_for } = identity;
        Self {
            name: user,
            acts_for,
            ask,
            from,
            origin,
        }
    }

    /// Whether somebody else's maildrop is wanted with a proof of the own name alone.
    pub(super) fn wants_more_than_it_proves(&self) -> bool {
        self.acts_for.is_some() && matches!(self.ask, Ask::Token(_) | Ask::Known)
    }

    /// About the user whose maildrop is wanted, in whose place another has logged in.
    pub(super) fn about_owner(&self) -> Option<Self> {
        let name = self.acts_for.clone()?;
        Some(Self {
            name,
            acts_for: None,
            ask: Ask::Known,
            from: self.from,
            origin: self.origin,
        })
    }
}

/// In whose turn stored passwords are replaced, as if that were a network.
const RENEWALS: u64 = 0;

/// A directory that is away.
pub(super) struct Remote {
    contact: Contact,
    node: Box<str>,
    driver: Driver,
    decoys: Mutex<Decoys>,
    /// Weak stored passwords are replaced no more, because that would do harm.
    renews_no_more: AtomicBool,
}

enum Driver {
    Sql(sql::Sql),
    Ldap(Box<ldap::Ldap>),
    Http(Box<http::Http>),
    Pam(pam::Pam),
}

/// What a directory says of a name.
enum Answer {
    /// There is no such user.
    Unknown,
    /// A user with a stored password, which is among the attributes.
    Stored(Attributes),
    /// A user whose password is right.
    Accepted(Attributes),
    /// The password is wrong; or there is no such user, where that cannot be told.
    Rejected,
    /// There is something of that name that cannot be understood.
    Faulty(String),
}

impl Remote {
    /// Connects to nothing yet. To be called in the look-up runtime's context.
    pub(super) fn new(options: &RemoteOptions) -> Self {
        let RemoteOptions {
            label,
            timeout,
            node,
            protocol,
        } = options;
        let driver = match protocol {
            Protocol::Sql(options) => Driver::Sql(sql::Sql::new(options, *timeout)),
            Protocol::Ldap(options) => Driver::Ldap(Box::new(ldap::Ldap::new(options, *timeout))),
            Protocol::Http(options) => Driver::Http(Box::new(http::Http::new(options))),
            Protocol::Pam(options) => Driver::Pam(pam::Pam::new(options)),
        };
        Self {
            contact: Contact::new(label, *timeout, protocol.connections()),
            node: node.clone(),
            driver,
            decoys: Mutex::default(),
            renews_no_more: AtomicBool::new(false),
        }
    }

    /// Adds its own counters to the metrics.
    pub(super) fn measure(&self, metrics: &mut DirectoryMetrics) {
        self.contact.measure(metrics);
    }

    /// What it knows of the name, and, if it verifies by itself, of the password.
    pub(super) async fn ask(
        self: &Arc<Self>,
        question: &Question,
    ) -> Result<Option<Record>, DirectoryError> {
        let asked = self
            .contact
            .ask(question.origin, || self.driver.ask(question));
        let answer = asked.await.inspect_err(|error| {
            if error.is_silence() {
                self.driver.give_up();
            }
        })?;
        let record = self.record(answer, &question.name);
        if let Some(Record::User(user)) = &record
            && let Proof::Stored(verifier) = &user.proof
        {
            lock(&self.decoys).offer(&question.name, verifier);
        }
        let known = !matches!(record, None | Some(Record::Rejected));
        self.contact.answered(known);
        Ok(record)
    }

    fn record(self: &Arc<Self>, answer: Answer, name: &UserName) -> Option<Record> {
        let (label, node) = (self.contact.label(), &*self.node);
        match answer {
            Answer::Unknown => None,
            Answer::Rejected => Some(Record::Rejected),
            Answer::Stored(attributes) => {
                let text = self.renews().and_then(|_| attributes.password.clone());
                let mut record = attributes.stored(name, label, node);
                if let (Record::User(user), Some(text)) = (&mut record, text)
                    && let Proof::Stored(verifier) = &user.proof
                {
                    user.renewal = Renewal::of(self, name, &text, verifier);
                }
                Some(record)
            }
            Answer::Accepted(attributes) => {
                Some(attributes.proved(Proof::Accepted, name, label, node))
            }
            Answer::Faulty(why) => {
                tracing::warn!("{label}: user {name}: {why}; nobody can log in as this user");
                Some(Record::Locked)
            }
        }
    }

    /// Whether weak stored passwords are replaced, and whether those in clear are spared.
    fn renews(&self) -> Option<bool> {
        let Driver::Sql(sql) = &self.driver else {
            return None;
        };
        let update = sql.update()?;
        let renews = !self.renews_no_more.load(Ordering::Relaxed);
        renews.then_some(update.spares_clear)
    }

    /// Whether it takes other stored passwords for weak ones.
    pub(super) fn may_renew(&self) -> bool {
        self.renews().is_some()
    }

    /// Replaces a stored password.
    async fn renew(&self, name: &UserName, old: &str, new: &str) {
        let Driver::Sql(sql) = &self.driver else {
            unreachable!("others offer no renewal");
        };
        let label = self.contact.label();
        let timeout = self.contact.timeout();
        // It takes a connection from nobody.
        let renewed = async {
            let _place = self.contact.place(RENEWALS).await?;
            sql.renew(name, old, new).await
        };
        let renewed = tokio::time::timeout(timeout, renewed).await;
        let renewed = renewed.unwrap_or(Err(Failure::TimedOut(timeout)));
        self.contact.counters().count_renewal(&renewed);
        match renewed {
            Ok(Renewed::Stored) => {
                tracing::info!("{label}: the password of user {name} is stored as ARGON2ID now");
            }
            Ok(Renewed::Changed) => {}
            Ok(Renewed::Unfit(why)) => {
                self.renews_no_more.store(true, Ordering::Relaxed);
                tracing::error!(
                    "{label}: user {name}: {why}, which was undone; correct update_query and \
                     start anew: until then no stored password is replaced"
                );
            }
            Err(failure) => {
                tracing::warn!(
                    "{label}: the password of user {name} stays as it is stored: {failure}"
                );
            }
        }
    }

    /// Whether it verifies passwords by itself, so that none costs anything here. A web
    /// service is taken for one that does until it has handed out a stored password.
    pub(super) fn verifies(&self) -> bool {
        match &self.driver {
            Driver::Sql(_) => false,
            Driver::Ldap(ldap) => ldap.binds(),
            Driver::Http(_) => self.decoys() == 0,
            Driver::Pam(_) => true,
        }
    }

    /// Spends on a name that it does not know what it spends on a wrong password, where that
    /// takes more than one question. What comes of it is of no interest.
    pub(super) async fn pretend(&self, question: &Question) {
        if let Driver::Ldap(ldap) = &self.driver
            && ldap.asks_twice(question)
        {
            let pretended = self
                .contact
                .ask(question.origin, || ldap.pretend(question))
                .await;
            if pretended.is_err_and(|error| error.is_silence()) {
                ldap.give_up();
            }
        }
    }

    pub(super) fn decoys(&self) -> usize {
        lock(&self.decoys).len()
    }

    pub(super) fn decoy(&self, index: usize) -> Option<Verifier> {
        lock(&self.decoys).get(index)
    }
}

/// Nothing that can panic happens under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver {
    async fn ask(&self, question: &Question) -> Result<Answer, Failure> {
        match self {
            Self::Sql(sql) => sql.ask(question).await,
            Self::Ldap(ldap) => ldap.ask(question).await,
            Self::Http(http) => http.ask(question).await,
            Self::Pam(pam) => pam.ask(question).await,
        }
    }

    /// It has not answered in time: what it is asked next goes by connections that are made
    /// then.
    fn give_up(&self) {
        match self {
            Self::Sql(sql) => sql.give_up(),
            Self::Ldap(ldap) => ldap.give_up(),
            // The one keeps no connection for longer than limits::WEB_IDLE, the other none.
            Self::Http(_) | Self::Pam(_) => {}
        }
    }
}
