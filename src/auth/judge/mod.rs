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
//! the name, whatever the password, and one that says no and cannot tell an unknown
//! name from a wrong password.
//!
//! SCRAM asks for what is stored before anything is proved. Its answer is the same for
//! everybody: keys, which for whoever has none stored are made up, of a secret and the
//! name, and a verdict that is told to whoever proves to have the password to them. Its
//! cost is that of a user who is there as well: keys are derived where a decoy's password
//! would have to be.
//!
//! Whoever logs in for another user is looked up among the master users, and there alone;
//! the other one's record says where the maildrop is, and whether anybody may have it. It
//! takes a password of the master's: who issues tokens or certificates says who somebody
//! is, and not that this somebody may read all mail.
//!
//! A bearer token is verified before anybody is looked up, by an [`Authority`] that knows
//! tokens and no users: a name costs nobody a look-up whose token is wrong.
//!
//! A user may have no password at all and be there for what proves the name without one, a
//! token or a certificate. Whoever comes with a password, or to prove one, is answered as
//! for a name that is not there, at the same cost.
//!
//! A directory that verifies by itself is also given passwords for names that it
//! does not know; what an answer about them costs is its own affair, as far as it is asked
//! the same ([`Remote::pretend`]). Where all directories do so no password costs anything
//! here, and a decoy's would show that there is nobody.

mod admission;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

pub(super) use self::admission::{Admission, Networks};
use self::admission::{admit, allow};
use super::credentials::Ask;
use super::directory::{Directory, LoadReport, Notice, Profile, Proof, Record, User};
use super::oauth::{Authority, Verdict};
use super::remote::{DirectoryMetrics, Question, Remote, Renewal};
use super::scheme::{KeyPlan, MadeUp};
use super::{
    DirectoryError, Password, Proved, Refusal, ScramAnswer, ScramKeys, UserName, Verifier,
};

/// The directories, in the order in which they are asked.
pub(super) struct Judge {
    directories: Vec<Source>,
    masters: Vec<Source>,
    authority: Option<Authority>,
    made_up: MadeUp,
    key: RandomState,
    stand_in: Verifier,
}

/// A directory, by where its answers come from.
pub(super) enum Source {
    /// From memory, at once.
    Here(Box<dyn Directory>),
    /// From a server or a program, in a while.
    Away(Arc<Remote>),
}

/// How far a name was looked up without waiting.
pub(super) enum Heard {
    Case(Case),
    /// The directory of this number is away and is to be asked next.
    Away(Question, usize),
}

type Found = Result<Option<Record>, DirectoryError>;

impl Judge {
    pub(super) fn new(directories: Vec<Source>, masters: Vec<Source>, made_up: MadeUp) -> Self {
        Self {
            directories,
            masters,
            authority: None,
            made_up,
            key: RandomState::new(),
            stand_in: Verifier::stand_in(),
        }
    }

    /// The same with somebody who verifies tokens.
    pub(super) fn with_authority(self, authority: Option<Authority>) -> Self {
        Self { authority, ..self }
    }

    /// Whether this cannot be heard at a desk: the first directory is away, or whoever
    /// verifies tokens.
    pub(super) fn begins_away(&self, question: &Question) -> bool {
        let first = self.directories.first();
        matches!(first, Some(Source::Away(_))) || question.ask.token().is_some()
    }

    /// Looks a name up in the directories that answer from memory, up to the first
    /// that does not.
    pub(super) fn hear(&self, question: Question) -> Heard {
        if question.wants_more_than_it_proves() {
            return Heard::Case(Case::closed(question, Claim::Forged));
        }
        let Some(about_owner) = question.about_owner() else {
            return match look_up_here(&self.directories, &question.name) {
                Ok(found) => Heard::Case(self.case(question, found)),
                Err(first) => Heard::Away(question, first),
            };
        };
        let master = look_up_here(&self.masters, &question.name);
        let owner = look_up_here(&self.directories, &about_owner.name);
        match (master, owner) {
            (Ok(master), Ok(owner)) => Heard::Case(self.case_for(question, master, owner)),
            _ => Heard::Away(question, 0),
        }
    }

    /// Looks a name up in the directories from this number on, and says what
    /// password it takes to let it in.
    pub(super) async fn hear_away(&self, mut question: Question, first: usize) -> Case {
        if question.wants_more_than_it_proves() {
            return Case::closed(question, Claim::Forged);
        }
        let until = match self.verify_token(&question).await {
            Verdict::Good(until) => until,
            Verdict::Bad => return Case::closed(question, Claim::Forged),
            Verdict::Unanswered => return Case::closed(question, Claim::Unanswered),
        };
        if question.ask.token().is_some() {
            question.ask = Ask::Known;
        }
        let case = self.look_up_away(question, first).await;
        Case { until, ..case }
    }

    /// Whether a token is that of whom it is to prove; what has none needs no proof here.
    async fn verify_token(&self, question: &Question) -> Verdict {
        match (question.ask.token(), &self.authority) {
            (None, _) => Verdict::Good(None),
            (Some(token), Some(authority)) => {
                authority
                    .check(token, &question.name, question.origin)
                    .await
            }
            // No such mechanism is offered.
            (Some(_), None) => Verdict::Bad,
        }
    }

    async fn look_up_away(&self, question: Question, first: usize) -> Case {
        let Some(about_owner) = question.about_owner() else {
            let found = look_up(&self.directories[first..], &question).await;
            if let (Ok(None), Some(Source::Away(last))) = (&found, self.directories.last()) {
                last.pretend(&question).await;
            }
            return self.case(question, found);
        };
        let master = look_up(&self.masters, &question).await;
        let owner = look_up(&self.directories, &about_owner).await;
        self.case_for(question, master, owner)
    }

    fn case(&self, question: Question, found: Found) -> Case {
        let Question {
            name,
            acts_for,
            ask,
            from,
            ..
        } = question;
        let mut renewal = None;
        let claim = match found {
            Ok(Some(Record::User(user))) => {
                renewal = user.renewal;
                match user.proof {
                    Proof::Stored(verifier) => Claim::User(verifier, user.profile),
                    Proof::Accepted => Claim::Accepted(user.profile),
                }
            }
            Ok(Some(Record::Passwordless(profile))) if matches!(ask, Ask::Known) => {
                Claim::Accepted(profile)
            }
            Ok(Some(Record::Rejected)) => Claim::Rejected,
            Ok(_) if acts_for.is_none() && self.costs_nothing() => Claim::Rejected,
            // Nobody, or somebody whose password cannot be verified.
            Ok(_) => Claim::Nobody(self.decoy_for(&name)),
            Err(error) => {
                if error.is_news() {
                    tracing::error!(user = %name, "login not possible now: {error}");
                }
                Claim::Unanswered
            }
        };
        let stored = match &claim {
            Claim::User(stored, _) => Some((stored, true)),
            Claim::Nobody(decoy) => Some((decoy, false)),
            Claim::Accepted(_) | Claim::Rejected | Claim::Forged | Claim::Unanswered => None,
        };
        let keys = match ask {
            Ask::Keys(hash) => {
                let is_there = stored.is_some_and(|(_, is_there)| is_there);
                let stored = stored.map(|(stored, _)| stored);
                Some(Box::new(self.made_up.plan(hash, &name, stored, is_there)))
            }
            Ask::Password(_) | Ask::Token(_) | Ask::Apop(_) | Ask::Known => None,
        };
        Case {
            name,
            ask,
            from,
            claim,
            keys,
            renewal,
            until: None,
        }
    }

    /// The same for a login of a master user.
    fn case_for(&self, question: Question, master: Found, owner: Found) -> Case {
        let name = question.acts_for.clone();
        let name = name.expect("somebody's maildrop is wanted");
        let mut case = self.case(question, master);
        case.name = name.clone();
        let owner = match owner {
            Ok(Some(Record::User(User { profile, .. }) | Record::Passwordless(profile))) => profile,
            Ok(_) => Profile {
                disabled: Some(Notice::NOBODY),
                ..Profile::default()
            },
            Err(error) => {
                if error.is_news() {
                    tracing::error!(user = %name, "login not possible now: {error}");
                }
                case.claim = Claim::Unanswered;
                return case;
            }
        };
        if let Claim::User(_, profile) | Claim::Accepted(profile) = &mut case.claim {
            // From where is the master user's affair.
            *profile = Profile {
                networks: profile.networks.take(),
                disabled: profile.disabled.take().or(owner.disabled),
                ..owner
            };
        }
        case
    }

    /// Whose password is verified in place of that of a user who is not there.
    fn decoy_for(&self, name: &UserName) -> Verifier {
        let decoy = self.decoy(self.key.hash_one(name.as_bytes()));
        decoy.unwrap_or_else(|| self.stand_in.clone())
    }

    /// Whether no user's password is verified here.
    fn costs_nothing(&self) -> bool {
        let mut all = self.directories.iter();
        !self.directories.is_empty() && all.all(Source::verifies)
    }

    /// One of all users of all directories, evenly, and as far as that can be the same one
    /// when there are more of them: who is there is not another one a moment later.
    fn decoy(&self, hash: u64) -> Option<Verifier> {
        let total: usize = self.directories.iter().map(Source::decoys).sum();
        let mut index = lasting_choice(hash, total)?;
        for directory in &self.directories {
            let count = directory.decoys();
            if index < count {
                return directory.decoy(index);
            }
            index -= count;
        }
        None
    }

    /// Whether any directory takes other stored passwords for weak ones.
    pub(super) fn renews(&self) -> bool {
        let mut all = self.directories.iter().chain(&self.masters);
        all.any(|source| matches!(source, Source::Away(remote) if remote.may_renew()))
    }

    /// What the directories that are away did.
    pub(super) fn metrics(&self) -> DirectoryMetrics {
        let mut metrics = DirectoryMetrics::default();
        for directory in self.directories.iter().chain(&self.masters) {
            if let Source::Away(remote) = directory {
                remote.measure(&mut metrics);
            }
        }
        if let Some(authority) = &self.authority {
            authority.measure(&mut metrics);
        }
        metrics
    }

    /// Reads every directory that is read again and says of each how that went.
    pub(super) fn reload(&self) -> Vec<Result<LoadReport, DirectoryError>> {
        let reload = |directory: &Source| match directory {
            Source::Here(directory) => Some(directory.reload()),
            Source::Away(_) => None,
        };
        if let Some(authority) = &self.authority {
            authority.expire();
        }
        let all = self.directories.iter().chain(&self.masters);
        all.filter_map(reload).collect()
    }
}

/// One of so many, evenly; of one more it is another one for the share of the new one alone
/// ("A Fast, Minimal Memory, Consistent Hash Algorithm", Lamping and Veach).
fn lasting_choice(mut hash: u64, total: usize) -> Option<usize> {
    let (mut choice, mut next) = (None, 0_u64);
    while next < total as u64 {
        choice = usize::try_from(next).ok();
        hash = hash.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        // 31 bits, so that the product has room.
        next = ((next + 1) << 31) / ((hash >> 33) + 1);
    }
    choice
}

/// What the first of these directories knows that knows the name; the number of one that
/// is away before it.
fn look_up_here(directories: &[Source], name: &UserName) -> Result<Found, usize> {
    for (number, directory) in directories.iter().enumerate() {
        let found = match directory {
            Source::Here(directory) => directory.lookup(name),
            Source::Away(_) => return Err(number),
        };
        if !matches!(found, Ok(None)) {
            return Ok(found);
        }
    }
    Ok(Ok(None))
}

async fn look_up(directories: &[Source], question: &Question) -> Found {
    for directory in directories {
        let found = match directory {
            Source::Here(directory) => directory.lookup(&question.name),
            Source::Away(remote) => remote.ask(question).await,
        };
        if !matches!(found, Ok(None)) {
            return found;
        }
    }
    Ok(None)
}

/// A login whose name has been looked up and whose password has not been
/// verified.
pub(super) struct Case {
    /// Whose maildrop is wanted.
    name: UserName,
    ask: Ask,
    from: IpAddr,
    claim: Claim,
    /// For SCRAM: the keys, or how to come to them.
    keys: Option<Box<KeyPlan>>,
    /// What replaces the stored password once it was found right.
    renewal: Option<Box<Renewal>>,
    /// When what proved the name proves it no more, if it ever ends.
    until: Option<Instant>,
}

enum Claim {
    /// A user whose password is to be this one.
    User(Verifier, Profile),
    /// A user whose password was right, as the directory says, or who needs none.
    Accepted(Profile),
    /// The directory says that the password is wrong.
    Rejected,
    /// The token is none of this user's.
    Forged,
    /// No such user, or none whose password can be verified: the decoy's is.
    Nobody(Verifier),
    /// A directory did not answer.
    Unanswered,
}

impl Case {
    /// One in which nobody was looked up.
    fn closed(question: Question, claim: Claim) -> Self {
        Self {
            name: question.acts_for.unwrap_or(question.name),
            ask: question.ask,
            from: question.from,
            claim,
            keys: None,
            renewal: None,
            until: None,
        }
    }

    /// Whether what proves the name could be of use once more.
    pub(super) fn can_come_again(&self) -> bool {
        !matches!(self.ask, Ask::Apop(_))
    }

    /// Whether it was a wrong token, or a password that a directory refused by itself.
    pub(super) fn is_refused(&self) -> bool {
        match self.claim {
            Claim::Forged => true,
            Claim::Rejected => matches!(self.ask, Ask::Password(_)),
            Claim::User(..) | Claim::Accepted(_) | Claim::Nobody(_) | Claim::Unanswered => false,
        }
    }

    /// Whether the user may not log in from where the client is, whatever it brings.
    pub(super) fn is_from_elsewhere(&self) -> bool {
        match &self.claim {
            Claim::User(_, profile) | Claim::Accepted(profile) => {
                !allow(&profile.networks, self.from)
            }
            Claim::Rejected | Claim::Forged | Claim::Nobody(_) | Claim::Unanswered => false,
        }
    }

    /// Whether the verification is made to be slow (see [`Verifier::is_slow`]).
    pub(super) fn is_slow(&self) -> bool {
        if !matches!(self.ask, Ask::Password(_)) {
            return self.keys.as_ref().is_some_and(|keys| keys.is_slow());
        }
        match &self.claim {
            Claim::User(verifier, _) | Claim::Nobody(verifier) => verifier.is_slow(),
            Claim::Accepted(_) | Claim::Rejected | Claim::Forged | Claim::Unanswered => false,
        }
    }

    /// Who logs in.
    pub(super) fn name(&self) -> &UserName {
        &self.name
    }

    /// Where the client is.
    pub(super) fn from(&self) -> IpAddr {
        self.from
    }

    /// The stored password that is to be verified.
    pub(super) fn stored(&self) -> Option<&Verifier> {
        self.ask.password()?;
        match &self.claim {
            Claim::User(stored, _) => Some(stored),
            Claim::Nobody(decoy) => Some(decoy),
            Claim::Accepted(_) | Claim::Rejected | Claim::Forged | Claim::Unanswered => None,
        }
    }

    /// Whether the password is the stored one, if there is one. Takes as long as
    /// [`Verifier::verify`].
    pub(super) fn verify(&self) -> Option<bool> {
        let stored = self.stored()?;
        Some(stored.verify(self.ask.password()?))
    }

    /// What replaces the stored password, and the password that is to be found right
    /// before it does.
    pub(super) fn renewal(&mut self) -> Option<(Box<Renewal>, Password)> {
        let renewal = self.renewal.take()?;
        Some((renewal, self.ask.password()?.clone()))
    }

    /// What a user's keys for SCRAM are derived of, where they have to be.
    pub(super) fn derivation(&self) -> Option<[&[u8]; 2]> {
        self.keys.as_ref()?.derivation()
    }

    /// Takes what was derived of that before.
    pub(super) fn have_keys(&mut self, keys: ScramKeys) {
        self.keys = Some(Box::new(KeyPlan::Ready(keys)));
    }

    /// Derives what SCRAM needs. Takes as long as that does.
    pub(super) fn derive(&mut self) {
        let keys = self.keys.take().map(|keys| keys.carry_out());
        self.keys = keys.map(|keys| Box::new(KeyPlan::Ready(keys)));
    }

    /// The answer to a question for keys, with this as our part of the nonce, and the
    /// networks that it holds for.
    pub(super) fn answer(mut self, nonce: String) -> Result<(ScramAnswer, Networks), Refusal> {
        let keys = self.keys.take().expect("keys were asked for").carry_out();
        let admission = match self.claim {
            Claim::Unanswered => return Err(Refusal::Unavailable),
            Claim::User(_, profile) => admit(self.name, profile, self.from, None),
            // Who verifies by itself has no keys: nobody can prove anything.
            Claim::Accepted(_) | Claim::Rejected | Claim::Forged | Claim::Nobody(_) => {
                Err(Refusal::Rejected)
            }
        };
        let mut networks = None;
        let verdict = admission.map(|admission| {
            networks = admission.networks;
            Proved::from(admission.account)
        });
        let answer = ScramAnswer {
            keys,
            verdict,
            nonce,
        };
        Ok((answer, networks))
    }

    /// Decides. `verify` is [`Verifier::verify`]; it is an argument so that tests
    /// can see the work that is done.
    pub(super) fn decide(
        self,
        mut verify: impl FnMut(&Verifier, &Password) -> bool,
    ) -> Result<Admission, Refusal> {
        let password = match &self.ask {
            Ask::Password(password) => password,
            Ask::Known => {
                return match self.claim {
                    Claim::User(_, profile) | Claim::Accepted(profile) => {
                        admit(self.name, profile, self.from, self.until)
                    }
                    Claim::Rejected | Claim::Forged | Claim::Nobody(_) => Err(Refusal::Rejected),
                    Claim::Unanswered => Err(Refusal::Unavailable),
                };
            }
            Ask::Apop(proof) => {
                return match self.claim {
                    Claim::User(stored, profile) if stored.is_proved_by(proof) => {
                        admit(self.name, profile, self.from, None)
                    }
                    Claim::Nobody(decoy) => {
                        black_box(decoy.is_proved_by(proof));
                        Err(Refusal::Rejected)
                    }
                    Claim::Unanswered => Err(Refusal::Unavailable),
                    _ => Err(Refusal::Rejected),
                };
            }
            // Nothing is proved by what is still to be proved.
            Ask::Token(_) | Ask::Keys(_) => {
                return Err(match self.claim {
                    Claim::Unanswered => Refusal::Unavailable,
                    _ => Refusal::Rejected,
                });
            }
        };
        match self.claim {
            Claim::User(verifier, profile) if verify(&verifier, password) => {
                admit(self.name, profile, self.from, None)
            }
            Claim::Accepted(profile) => admit(self.name, profile, self.from, None),
            Claim::User(..) | Claim::Rejected | Claim::Forged => Err(Refusal::Rejected),
            Claim::Nobody(decoy) => {
                black_box(verify(&decoy, password));
                Err(Refusal::Rejected)
            }
            Claim::Unanswered => Err(Refusal::Unavailable),
        }
    }
}

impl Source {
    /// Whether it verifies passwords by itself.
    fn verifies(&self) -> bool {
        matches!(self, Self::Away(remote) if remote.verifies())
    }

    fn decoys(&self) -> usize {
        match self {
            Self::Here(directory) => directory.decoys(),
            Self::Away(remote) => remote.decoys(),
        }
    }

    fn decoy(&self, index: usize) -> Option<Verifier> {
        match self {
            Self::Here(directory) => directory.decoy(index),
            Self::Away(remote) => remote.decoy(index),
        }
    }
}

#[cfg(test)]
mod tests;
