//! Keys of SCRAM, for the time when a directory does not answer, and where they would have
//! to be derived of a password that is stored in clear, which is slow.
//!
//! An exchange of SCRAM begins with what is stored of the user, so there is nothing to
//! compare a client's proof with unless that was kept. It is: the keys of whoever has
//! proved to know the password to them, for as long as good logins are believed while
//! their directory is away, and for that time alone. While it answers, each exchange looks
//! the user up: with keys of before, a client that brings a changed password would be
//! refused.
//!
//! Keys that were derived stand for the stored password, salt and network by which they
//! were proved, for as long as those are the same. By the network because whoever names a
//! user could tell by the time that the user is there, and has been of late; from elsewhere
//! it takes as long as for a name that nobody has.
//!
//! Keys are what directories store in place of passwords, salted and hashed slowly: who
//! reads them out of memory can log in with them nowhere, and has to guess.

use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use super::{DIGEST, Fingerprint, LoginCache, within};
use crate::auth::judge::{Admission, Networks};
use crate::auth::scheme::ScramHash;
use crate::auth::{
    Account, Identity, Proved, Refusal, ScramAnswer, ScramKeys, ScramQuestion, UserName,
};

/// What is remembered of a user who has proved to have the password to these keys.
#[derive(Clone)]
pub(in crate::auth) struct Memo {
    of: Fingerprint,
    /// By which the maildrop was asked for.
    owner: UserName,
    keys: ScramKeys,
    derived: Option<Derived>,
    networks: Networks,
}

/// Salt, password in clear and the client's network, under this process's key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::auth) struct Derived([u8; DIGEST]);

/// A user who has done so.
pub(super) struct Known {
    keys: ScramKeys,
    derived: Option<Derived>,
    since: Instant,
    admission: Admission,
}

/// Without the keys.
impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memo(..)")
    }
}

impl LoginCache {
    /// What the keys of a user are remembered by.
    pub(in crate::auth) fn keys_of(&self, question: &ScramQuestion) -> Fingerprint {
        let Identity { user, acts_for } = &question.identity;
        let owner = acts_for
            .as_ref()
            .map(UserName::as_bytes)
            .unwrap_or_default();
        let kind = match question.hash {
            ScramHash::Sha1 => b'1',
            ScramHash::Sha256 => b'2',
        };
        Fingerprint(self.digest(kind, [user.as_bytes(), owner]))
    }

    /// What keys are remembered by that are derived of this, for clients of the network of
    /// this number.
    pub(in crate::auth) fn derived(&self, of: [&[u8]; 2], origin: u64) -> Derived {
        let derived = self.digest(b'd', of);
        Derived(self.digest(b'n', [&derived, &origin.to_le_bytes()]))
    }

    /// Keys that were derived of this before and proved.
    pub(in crate::auth) fn derived_keys(
        &self,
        owner: &UserName,
        of: &Fingerprint,
        derived: &Derived,
    ) -> Option<ScramKeys> {
        let mut stripe = self.stripe(owner);
        let known = stripe.keys.get(of, self.room.keys)?;
        let keys = (known.derived.as_ref() == Some(derived)).then(|| known.keys.clone());
        stripe.counts.hashes += u64::from(keys.is_some());
        keys
    }

    /// Takes notice of what a directory says: what was remembered and is so no more is
    /// forgotten. The answer gets what is to be remembered of it once it is proved.
    pub(in crate::auth) fn meet_keys(
        &self,
        owner: &UserName,
        of: Fingerprint,
        derived: Option<Derived>,
        networks: Networks,
        answer: &mut ScramAnswer,
    ) {
        let is_barred = matches!(answer.verdict, Err(Refusal::Disabled(_)));
        let mut stripe = self.stripe(owner);
        if let Some(known) = stripe.keys.get(&of, self.room.keys)
            && (is_barred || !known.keys.are(&answer.keys))
        {
            stripe.keys.remove(&of);
        }
        if let Ok(proved) = &mut answer.verdict {
            proved.memo = Some(Box::new(Memo {
                of,
                owner: owner.clone(),
                keys: answer.keys.clone(),
                derived,
                networks,
            }));
        }
    }

    /// Remembers the keys of a user who has proved to have the password to them.
    pub(in crate::auth) fn put_keys(&self, proved: &Proved, now: Instant) {
        let Some(memo) = proved.memo.as_deref() else {
            return;
        };
        let Memo {
            of,
            owner,
            keys,
            derived,
            networks,
        } = memo.clone();
        let known = Known {
            keys,
            derived,
            since: now,
            admission: Admission {
                account: proved.account.clone(),
                networks,
                until: None,
            },
        };
        let mut stripe = self.stripe(&owner);
        stripe.keys.insert(of, known, self.room.keys);
    }

    /// Keys that a user at this address had when the directories last answered, for the
    /// time when one does not.
    pub(in crate::auth) fn last_keys(
        &self,
        owner: &UserName,
        of: &Fingerprint,
        from: IpAddr,
        now: Instant,
    ) -> Option<(ScramKeys, Account)> {
        let mut stripe = self.stripe(owner);
        let known = stripe.keys.get(of, self.room.keys)?;
        let holds = known.admission.allows(from) && within(&self.stale, known.since, now);
        let found = holds.then(|| (known.keys.clone(), known.admission.account.clone()));
        stripe.counts.stale += u64::from(found.is_some());
        found
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::Terms;
    use super::*;
    use crate::auth::Verifier;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const PENCIL: &str = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    const OTHER: &str = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=";

    fn name(text: &str) -> UserName {
        UserName::new(text.as_bytes()).expect("a name")
    }

    struct Fixture {
        cache: LoginCache,
        now: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            let cache = LoginCache::new(Terms::default());
            let now = Instant::now();
            Self { cache, now }
        }

        fn question(user: &str) -> ScramQuestion {
            ScramQuestion {
                identity: Identity::own(name(user)),
                hash: ScramHash::Sha256,
            }
        }

        /// What a directory says, and what is to be proved.
        fn asked(&self, user: &str, stored: &str, refusal: Option<Refusal>) -> ScramAnswer {
            let verifier = Verifier::parse(stored.as_bytes()).expect("known");
            let account = Account {
                user: name(user),
                home: None,
                mail: None,
                limits: None,
            };
            let mut answer = ScramAnswer {
                keys: verifier.scram_keys().expect("of SCRAM").clone(),
                verdict: refusal.map_or(Ok(Proved::from(account)), Err),
                nonce: "x".to_owned(),
            };
            let of = self.cache.keys_of(&Self::question(user));
            let networks = Some(Box::from(["127.0.0.0/8".parse().expect("a network")]));
            self.cache
                .meet_keys(&name(user), of, None, networks, &mut answer);
            answer
        }

        fn log_in(&self, user: &str, stored: &str) {
            let proved = self.asked(user, stored, None).verdict.expect("may log in");
            self.cache.put_keys(&proved, self.now);
        }

        fn knows(&self, user: &str, from: IpAddr) -> bool {
            let of = self.cache.keys_of(&Self::question(user));
            let found = self.cache.last_keys(&name(user), &of, from, self.now);
            found.is_some_and(|(_, account)| account.user == name(user))
        }
    }

    #[test]
    fn who_has_proved_the_password_is_known_and_nobody_else() {
        let mut fixture = Fixture::new();
        fixture.asked("ann", PENCIL, None);
        assert!(!fixture.knows("ann", HERE), "nothing was proved");
        fixture.log_in("ann", PENCIL);
        assert!(fixture.knows("ann", HERE) && !fixture.knows("bob", HERE));
        assert!(!fixture.knows("ann", [192, 0, 2, 1].into()), "allow_nets");
        assert_eq!(fixture.cache.counts().stale, 1);
        fixture.now += Terms::default().stale;
        assert!(!fixture.knows("ann", HERE));
    }

    #[test]
    fn what_a_directory_says_now_ends_what_it_said_before() {
        let fixture = Fixture::new();
        fixture.log_in("ann", PENCIL);
        // Somebody asks, and from an address that may not.
        fixture.asked("ann", PENCIL, None);
        fixture.asked("ann", PENCIL, Some(Refusal::Rejected));
        assert!(fixture.knows("ann", HERE));
        fixture.asked("ann", OTHER, None);
        assert!(!fixture.knows("ann", HERE), "another password");
        fixture.log_in("ann", OTHER);
        let disabled = Refusal::Disabled(crate::auth::Notice::new("off").expect("text"));
        fixture.asked("ann", OTHER, Some(disabled));
        assert!(!fixture.knows("ann", HERE), "disabled");
    }

    #[test]
    fn what_was_believed_meanwhile_is_not_believed_for_longer() {
        let mut fixture = Fixture::new();
        fixture.log_in("ann", PENCIL);
        let of = fixture.cache.keys_of(&Fixture::question("ann"));
        fixture.now += Terms::default().stale / 2;
        let found = fixture
            .cache
            .last_keys(&name("ann"), &of, HERE, fixture.now);
        let (_, account) = found.expect("known");
        fixture.cache.put_keys(&account.into(), fixture.now);
        fixture.now += Terms::default().stale / 2;
        assert!(!fixture.knows("ann", HERE));
    }
}
