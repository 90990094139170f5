//! Whether a login succeeds.
//!
//! Invariant: every login that a directory could answer costs exactly one
//! verification of a password, and until that password was right nothing of the
//! answer tells whether there is such a user. For a name that does not exist, or
//! whose stored password cannot be verified, the stored password of another user
//! is verified and its outcome thrown away. Which user is chosen by a hash of the
//! name under a key that this process made: the same name always costs the same,
//! and over many names the costs are spread as those of the real users are. One
//! fixed costly hash for all unknown names would tell them apart wherever users
//! have another scheme.
//!
//! A directory that cannot be asked ends the matter ([`Refusal::Unavailable`]):
//! the next one may know another user of the same name. So does one that knows
//! the name, whatever the password.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::net::IpAddr;

use super::directory::{Directory, LoadReport, Record, User};
use super::{Account, Credentials, DirectoryError, Network, Password, Refusal, UserName, Verifier};

/// The directories, in the order in which they are asked.
pub(super) struct Judge {
    directories: Vec<Box<dyn Directory>>,
    key: RandomState,
    stand_in: Verifier,
}

impl Judge {
    pub(super) fn new(directories: Vec<Box<dyn Directory>>) -> Self {
        Self {
            directories,
            key: RandomState::new(),
            stand_in: Verifier::stand_in(),
        }
    }

    /// Looks a name up and says what password it takes to let it in.
    pub(super) fn hear(&self, credentials: Credentials, from: IpAddr) -> Case {
        let Credentials {
            user: name,
            password,
        } = credentials;
        let claim = match self.lookup(&name) {
            Ok(Some(Record::User(user))) => Claim::User(user),
            Ok(_) => Claim::Nobody(self.decoy_for(&name)),
            Err(error) => {
                tracing::error!(user = %name, "login not possible now: {error}");
                Claim::Unanswered
            }
        };
        Case {
            name,
            password,
            from,
            claim,
        }
    }

    fn lookup(&self, name: &UserName) -> Result<Option<Record>, DirectoryError> {
        for directory in &self.directories {
            if let Some(record) = directory.lookup(name)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Whose password is verified in place of that of a user who is not there.
    fn decoy_for(&self, name: &UserName) -> Verifier {
        let decoy = self.decoy(self.key.hash_one(name.as_bytes()));
        decoy.unwrap_or_else(|| self.stand_in.clone())
    }

    /// One of all users of all directories, evenly.
    fn decoy(&self, hash: u64) -> Option<Verifier> {
        let counts = self.directories.iter().map(|directory| directory.decoys());
        let total: usize = counts.sum();
        let mut index = usize::try_from(hash.checked_rem(total as u64)?).ok()?;
        for directory in &self.directories {
            let count = directory.decoys();
            if index < count {
                return directory.decoy(index);
            }
            index -= count;
        }
        None
    }

    /// Reads every directory again and says of each how that went.
    pub(super) fn reload(&self) -> Vec<Result<LoadReport, DirectoryError>> {
        let reloads = self.directories.iter().map(|directory| directory.reload());
        reloads.collect()
    }
}

/// A login whose name has been looked up and whose password has not been
/// verified.
pub(super) struct Case {
    name: UserName,
    password: Password,
    from: IpAddr,
    claim: Claim,
}

enum Claim {
    User(User),
    /// No such user, or none whose password can be verified: the decoy's is.
    Nobody(Verifier),
    /// A directory did not answer.
    Unanswered,
}

impl Case {
    /// Whether the verification is made to be slow (see [`Verifier::is_slow`]).
    pub(super) fn is_slow(&self) -> bool {
        match &self.claim {
            Claim::User(user) => user.verifier.is_slow(),
            Claim::Nobody(decoy) => decoy.is_slow(),
            Claim::Unanswered => false,
        }
    }

    /// Decides. `verify` is [`Verifier::verify`]; it is an argument so that tests
    /// can see the work that is done.
    pub(super) fn decide(
        self,
        mut verify: impl FnMut(&Verifier, &Password) -> bool,
    ) -> Result<Admission, Refusal> {
        match self.claim {
            Claim::User(user) if verify(&user.verifier, &self.password) => {
                admit(self.name, user, self.from)
            }
            Claim::User(_) => Err(Refusal::Rejected),
            Claim::Nobody(decoy) => {
                black_box(verify(&decoy, &self.password));
                Err(Refusal::Rejected)
            }
            Claim::Unanswered => Err(Refusal::Unavailable),
        }
    }
}

/// A user who may log in, and from where.
pub(super) struct Admission {
    pub(super) account: Account,
    /// `None`: from anywhere.
    pub(super) networks: Option<Box<[Network]>>,
}

impl Admission {
    /// Whether the user may log in from this address.
    pub(super) fn allows(&self, from: IpAddr) -> bool {
        let networks = self.networks.as_deref();
        networks.is_none_or(|networks| networks.iter().any(|n| n.contains(from)))
    }
}

/// What is decided once the password was right.
fn admit(name: UserName, user: User, from: IpAddr) -> Result<Admission, Refusal> {
    let admission = Admission {
        account: Account {
            user: name,
            home: user.home,
            mail: user.mail,
        },
        networks: user.networks,
    };
    if !admission.allows(from) {
        let user = &admission.account.user;
        tracing::info!(%user, rip = %from, "login refused: address not in allow_nets");
        return Err(Refusal::Rejected);
    }
    match user.disabled {
        Some(notice) => Err(Refusal::Disabled(notice)),
        None => Ok(admission),
    }
}

#[cfg(test)]
mod tests;
