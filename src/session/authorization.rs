//! The AUTHORIZATION state (RFC 1939, section 4; RFC 2595, section 4).
//!
//! PASS is taken right behind an accepted USER and nowhere else: any other line
//! in between, good or bad, makes the name a former one, which is kept for the
//! log only. STLS drops even that.

use crate::auth::{ApopProof, Credentials, Evidence, Identity, Password, UserName};
use crate::proto::{Command, Output, reply};
use crate::sasl::{Exchange, Mechanism};

use super::exchanging::Exchanging;
use super::{Action, Closed, End, Method, State, Step, Terms, Turn};

/// Nobody is logged in.
#[derive(Debug, Default)]
pub(super) struct Authorization {
    pub(super) name: Name,
}

/// What the client said of itself.
#[derive(Debug, Default)]
pub(super) enum Name {
    #[default]
    None,
    /// By the line before: PASS may follow.
    Given(Identity),
    /// Earlier: USER must come again.
    Former(UserName),
}

impl Name {
    pub(super) fn user(&self) -> Option<&UserName> {
        match self {
            Self::None => None,
            Self::Given(identity) => Some(identity.owner()),
            Self::Former(user) => Some(user),
        }
    }
}

/// Credentials are being checked.
#[derive(Debug)]
pub(super) struct Authenticating {
    pub(super) identity: Identity,
    pub(super) method: Method,
}

impl Authorization {
    /// Someone whose login did not succeed.
    pub(super) fn after(user: UserName) -> Self {
        Self {
            name: Name::Former(user),
        }
    }

    pub(super) fn handle(self, command: Command<'_>, terms: Terms<'_>, out: &mut Output) -> Turn {
        match command {
            Command::User(name) => self.user(name, terms, out),
            Command::Pass(password) => self.pass(password),
            Command::Apop { name, digest } => self.apop(name, digest, terms),
            Command::Stls => self.stls(terms, out),
            Command::Auth { mechanism, initial } => self.auth(mechanism, initial, terms, out),
            Command::Mechanisms => {
                reply::mechanisms(out, &terms.mechanisms().names());
                Turn::Next(self.passed_over().into(), Step::Continue)
            }
            Command::Capa => {
                reply::capabilities(
                    out,
                    reply::Capabilities {
                        user: terms.passwords_are_taken(),
                        stls: terms.stls_is_taken(),
                        sasl: &terms.mechanisms().names(),
                        login_delay: terms.login_delay(),
                        expire: terms.expire(),
                    },
                );
                Turn::Next(self.passed_over().into(), Step::Continue)
            }
            Command::Quit => {
                reply::ok(out, "popcore signing off");
                let closed = Closed::visitor(self.name);
                Turn::Next(State::Closed(closed), Step::Close(End::Quit))
            }
            Command::Stat
            | Command::List(_)
            | Command::Retr(_)
            | Command::Dele(_)
            | Command::Noop
            | Command::Rset
            | Command::Top { .. }
            | Command::Uidl(_) => Turn::refused(self.passed_over(), "log in first"),
        }
    }

    /// A line that was not PASS has come.
    pub(super) fn passed_over(self) -> Self {
        let name = match self.name {
            Name::None => Name::None,
            Name::Given(identity) => Name::Former(identity.shown()),
            Name::Former(user) => Name::Former(user),
        };
        Self { name }
    }

    fn user(self, name: &[u8], terms: Terms<'_>, out: &mut Output) -> Turn {
        if !terms.passwords_are_taken() {
            let text = "passwords are not taken on an unencrypted connection";
            return Turn::Refused(self.passed_over().into(), Some(reply::Code::Auth), text);
        }
        let Ok(identity) = terms.policy.names.identity(name) else {
            return Turn::refused(self.passed_over(), "this cannot be a user's name");
        };
        // The same for every name: who has a mailbox here is nobody's business.
        reply::ok(out, "send the password");
        let name = Name::Given(identity);
        Turn::Next(Self { name }.into(), Step::Continue)
    }

    fn pass(self, password: &[u8]) -> Turn {
        let Name::Given(identity) = self.name else {
            return Turn::refused(self, "PASS must follow USER");
        };
        let Ok(password) = Password::new(password) else {
            return Turn::refused(Self::after(identity.shown()), "the password is too long");
        };
        let credentials = Credentials {
            identity: identity.clone(),
            evidence: Evidence::Password(password),
        };
        let method = Method::Sasl(Mechanism::Plain);
        Turn::Next(
            State::Authenticating(Authenticating { identity, method }),
            Step::Perform(Action::Authenticate(Box::new(credentials))),
        )
    }

    fn apop(self, name: &[u8], digest: [u8; 16], terms: Terms<'_>) -> Turn {
        let Some(stamp) = terms.stamp() else {
            return Turn::refused(self.passed_over(), "APOP is not offered here");
        };
        let Ok(identity) = terms.policy.names.identity(name) else {
            return Turn::refused(self.passed_over(), "this cannot be a user's name");
        };
        let credentials = Credentials {
            identity: identity.clone(),
            evidence: Evidence::Apop(ApopProof::new(stamp.clone(), digest)),
        };
        let method = Method::Apop;
        Turn::Next(
            State::Authenticating(Authenticating { identity, method }),
            Step::Perform(Action::Authenticate(Box::new(credentials))),
        )
    }

    fn auth(self, name: &[u8], initial: Option<&[u8]>, terms: Terms<'_>, out: &mut Output) -> Turn {
        let offered = |mechanism: &Mechanism| terms.mechanisms().contains(*mechanism);
        let Some(mechanism) = Mechanism::named(name).filter(offered) else {
            let text = "this mechanism is not offered here";
            return Turn::refused(self.passed_over(), text);
        };
        let exchange = Exchange::begin(mechanism);
        let name = self.passed_over().name;
        let exchanging = Exchanging::new(name, mechanism, exchange);
        match initial {
            None => exchanging.open(out),
            // An empty one, which could not be told from none (RFC 5034, section 4).
            Some(b"=") => exchanging.respond(b"", terms, out),
            Some(initial) => exchanging.decode(initial, terms, out),
        }
    }

    fn stls(self, terms: Terms<'_>, out: &mut Output) -> Turn {
        if !terms.stls_is_taken() {
            return Turn::refused(self.passed_over(), "TLS cannot be started here");
        }
        reply::ok(out, "begin TLS");
        Turn::Next(State::StartingTls, Step::Perform(Action::StartTls))
    }
}
