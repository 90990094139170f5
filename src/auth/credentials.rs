//! What a client says of itself, and by what.

use super::cache::Memo;
use super::scheme::{ScramHash, ScramKeys};
use super::{Account, ApopProof, Password, Refusal, Token, UserName};
use crate::limits;

/// Who a client says it is, and whose maildrop it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Whose secret is verified.
    pub user: UserName,
    /// Whose maildrop is wanted, if it is another's: for that, `user` must be a master
    /// user.
    pub acts_for: Option<UserName>,
}

impl Identity {
    /// Somebody who wants the own maildrop.
    pub fn own(user: UserName) -> Self {
        Self {
            user,
            acts_for: None,
        }
    }

    /// The two as one name, for the log of what came to nothing.
    pub fn shown(&self) -> UserName {
        let Some(owner) = &self.acts_for else {
            return self.user.clone();
        };
        let both = [self.user.as_bytes(), b"*", owner.as_bytes()].concat();
        let most = both.len().min(limits::USER_NAME);
        UserName::new(&both[..most]).expect("names, cut to the length of one")
    }

    /// Whose maildrop is wanted.
    pub fn owner(&self) -> &UserName {
        self.acts_for.as_ref().unwrap_or(&self.user)
    }
}

/// A login that is to be verified.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Who it is.
    pub identity: Identity,
    /// What proves it.
    pub evidence: Evidence,
}

impl Credentials {
    /// Those of a user who brings the own password.
    pub fn new(user: UserName, password: Password) -> Self {
        Self {
            identity: Identity::own(user),
            evidence: Evidence::Password(password),
        }
    }
}

/// What proves a name.
#[derive(Debug, Clone)]
pub enum Evidence {
    /// The password.
    Password(Password),
    /// The certificate of the TLS connection, which was verified.
    Certificate,
    /// A bearer token.
    Token(Token),
    /// A digest of the password.
    Apop(ApopProof),
}

/// What SCRAM has to know of a user.
#[derive(Debug, Clone)]
pub struct ScramQuestion {
    /// Who it is.
    pub identity: Identity,
    /// The hash of the mechanism.
    pub hash: ScramHash,
}

/// What SCRAM is told of a user who may be none.
#[derive(Debug)]
pub struct ScramAnswer {
    /// The user's keys, or some that nobody has a password to.
    pub keys: ScramKeys,
    /// What holds once the client has proved that it knows the password: to be told to
    /// nobody before.
    pub verdict: Result<Proved, Refusal>,
    /// Our part of the nonce: random, printable and without a comma.
    pub nonce: String,
}

/// A user who has proved by SCRAM to know the password, once the exchange has come so far.
#[derive(Debug, Clone)]
pub struct Proved {
    pub(super) account: Account,
    /// What the broker remembers then.
    pub(super) memo: Option<Box<Memo>>,
}

/// Somebody of whom nothing is remembered.
impl From<Account> for Proved {
    fn from(account: Account) -> Self {
        Self {
            account,
            memo: None,
        }
    }
}

impl From<Proved> for Account {
    fn from(proved: Proved) -> Self {
        proved.account
    }
}

/// What is asked about a name.
#[derive(Debug)]
pub(super) enum Ask {
    /// Whether this is the password.
    Password(Password),
    /// What SCRAM needs.
    Keys(ScramHash),
    /// Whether this is a token of that user.
    Token(Token),
    /// Whether this was made of the password, which has to be stored in clear.
    Apop(ApopProof),
    /// Nothing: it is proved already who it is.
    Known,
}

impl Ask {
    /// The password, for a directory that verifies by itself. Without one it can say no
    /// more than whether there is such a user.
    pub(super) fn password(&self) -> Option<&Password> {
        match self {
            Self::Password(password) => Some(password),
            Self::Keys(_) | Self::Token(_) | Self::Apop(_) | Self::Known => None,
        }
    }

    /// The token, which somebody else than the directories has to verify.
    pub(super) fn token(&self) -> Option<&Token> {
        match self {
            Self::Token(token) => Some(token),
            Self::Password(_) | Self::Keys(_) | Self::Apop(_) | Self::Known => None,
        }
    }
}

impl From<Evidence> for Ask {
    fn from(evidence: Evidence) -> Self {
        match evidence {
            Evidence::Password(password) => Self::Password(password),
            Evidence::Certificate => Self::Known,
            Evidence::Token(token) => Self::Token(token),
            Evidence::Apop(proof) => Self::Apop(proof),
        }
    }
}
