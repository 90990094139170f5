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
use super::{Account, Credentials, DirectoryError, Password, Refusal, UserName, Verifier};

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

    /// Decides one login. `verify` is [`Verifier::verify`]; it is an argument so
    /// that tests can see the work that is done.
    pub(super) fn judge(
        &self,
        credentials: Credentials,
        from: IpAddr,
        mut verify: impl FnMut(&Verifier, &Password) -> bool,
    ) -> Result<Account, Refusal> {
        let Credentials {
            user: name,
            password,
        } = credentials;
        let record = match self.lookup(&name) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(user = %name, "login not possible now: {error}");
                return Err(Refusal::Unavailable);
            }
        };
        let Some(Record::User(user)) = record else {
            black_box(self.verify_decoy(&name, &password, verify));
            return Err(Refusal::Rejected);
        };
        if !verify(&user.verifier, &password) {
            return Err(Refusal::Rejected);
        }
        admit(name, user, from)
    }

    fn lookup(&self, name: &UserName) -> Result<Option<Record>, DirectoryError> {
        for directory in &self.directories {
            if let Some(record) = directory.lookup(name)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    fn verify_decoy(
        &self,
        name: &UserName,
        password: &Password,
        mut verify: impl FnMut(&Verifier, &Password) -> bool,
    ) -> bool {
        match self.decoy(self.key.hash_one(name.as_bytes())) {
            Some(decoy) => verify(&decoy, password),
            None => verify(&self.stand_in, password),
        }
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

/// What is decided once the password was right.
fn admit(name: UserName, user: User, from: IpAddr) -> Result<Account, Refusal> {
    let allowed = |networks: &[super::Network]| networks.iter().any(|n| n.contains(from));
    if !user.networks.as_deref().is_none_or(allowed) {
        tracing::info!(user = %name, rip = %from, "login refused: address not in allow_nets");
        return Err(Refusal::Rejected);
    }
    if let Some(notice) = user.disabled {
        return Err(Refusal::Disabled(notice));
    }
    Ok(Account {
        user: name,
        home: user.home,
        mail: user.mail,
    })
}

#[cfg(test)]
mod tests;
