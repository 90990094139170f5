//! The AUTHORIZATION state (RFC 1939, section 4; RFC 2595, section 4).
//!
//! PASS is taken right behind an accepted USER and nowhere else: any other line
//! in between, good or bad, makes the name a former one, which is kept for the
//! log only. STLS drops even that.

use crate::auth::{Credentials, Password, UserName};
use crate::proto::{Command, Output, reply};

use super::{Action, Closed, End, State, Step, Terms, Turn};

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
    Given(UserName),
    /// Earlier: USER must come again.
    Former(UserName),
}

impl Name {
    pub(super) fn user(&self) -> Option<&UserName> {
        match self {
            Self::None => None,
            Self::Given(user) | Self::Former(user) => Some(user),
        }
    }
}

/// Credentials are being checked.
#[derive(Debug)]
pub(super) struct Authenticating {
    pub(super) user: UserName,
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
            Command::Stls => self.stls(terms, out),
            Command::Capa => {
                reply::capabilities(
                    out,
                    reply::Capabilities {
                        user: terms.passwords_are_taken(),
                        stls: terms.stls_is_taken(),
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
            Name::Given(user) | Name::Former(user) => Name::Former(user),
        };
        Self { name }
    }

    fn user(self, name: &[u8], terms: Terms<'_>, out: &mut Output) -> Turn {
        if !terms.passwords_are_taken() {
            let text = "passwords are not taken on an unencrypted connection";
            return Turn::Refused(self.passed_over().into(), Some(reply::Code::Auth), text);
        }
        let Ok(user) = UserName::new(name) else {
            return Turn::refused(self.passed_over(), "this cannot be a user's name");
        };
        // The same for every name: who has a mailbox here is nobody's business.
        reply::ok(out, "send the password");
        let name = Name::Given(user);
        Turn::Next(Self { name }.into(), Step::Continue)
    }

    fn pass(self, password: &[u8]) -> Turn {
        let Name::Given(user) = self.name else {
            return Turn::refused(self, "PASS must follow USER");
        };
        let Ok(password) = Password::new(password) else {
            return Turn::refused(Self::after(user), "the password is too long");
        };
        let credentials = Credentials {
            user: user.clone(),
            password,
        };
        Turn::Next(
            State::Authenticating(Authenticating { user }),
            Step::Perform(Action::Authenticate(credentials)),
        )
    }

    fn stls(self, terms: Terms<'_>, out: &mut Output) -> Turn {
        if !terms.stls_is_taken() {
            return Turn::refused(self.passed_over(), "TLS cannot be started here");
        }
        reply::ok(out, "begin TLS");
        Turn::Next(State::StartingTls, Step::Perform(Action::StartTls))
    }
}
