//! A login on its way: who may try, how long the attempt waits, and who may come now.
//!
//! What is known to be good waits for nothing, and so does what is known to be bad: it
//! is no guess. Only a login that nothing is known of goes through the throttle, before
//! its password costs anybody a hash.

use std::sync::Arc;
use std::time::Instant;

use crate::auth::throttle::{Attempt, Guess, Times, TooMany, Turn};
use crate::auth::{
    Account, Candidate, Credentials, Identity, Proved, Refusal, ScramAnswer, ScramQuestion,
    UserLimits, UserName,
};
use crate::observe::Limit;
use crate::session::{Outcome, TurnedAway};
use crate::shard::admission::{Entrance, Full, Seat};

use super::Connection;
use super::broken::Broken;
use super::rules::Rules;

/// What a session counts for until it ends.
#[derive(Debug, Default)]
pub(super) struct Seats {
    /// Its connection.
    _address: Option<Seat>,
    /// Its login, from the attempt on.
    user: Vec<Seat>,
    /// An exchange of SCRAM, from its first message to its proof.
    guess: Option<Guess>,
}

impl Seats {
    pub(super) fn of_address(seat: Seat) -> Self {
        Self {
            _address: Some(seat),
            ..Self::default()
        }
    }
}

impl Connection {
    /// Asks whether credentials are right.
    pub(super) async fn authenticate(
        &mut self,
        credentials: Credentials,
    ) -> Result<Outcome, Broken> {
        self.stand_up();
        let identity = credentials.identity.clone();
        let (rules, from) = (self.context.rules.get(), self.report.at.remote);
        let candidate = self.context.services.broker.recall(credentials, from);
        let verdict = if rules.exempts(from) {
            self.ask(candidate).await
        } else {
            let is_guess = candidate.is_guess();
            match self.wait_turn(&identity, is_guess, &rules).await? {
                Ok(guess) => {
                    let verdict = self.ask(candidate).await;
                    self.book(&identity.user, guess, &verdict, &rules);
                    verdict
                }
                Err(refusal) => Err(refusal),
            }
        };
        Ok(self.tell(&identity, verdict))
    }

    /// Asks what SCRAM needs of a user, whose password is a guess until it is proved.
    pub(super) async fn find_keys(&mut self, question: ScramQuestion) -> Result<Outcome, Broken> {
        self.stand_up();
        let identity = question.identity.clone();
        let rules = self.context.rules.get();
        let turn = if rules.exempts(self.report.at.remote) {
            Ok(None)
        } else {
            self.wait_turn(&identity, true, &rules).await?
        };
        let found = match turn {
            Ok(guess) => {
                let found = self.ask_keys(question).await;
                if found.is_ok() && guess.is_some() {
                    self.seats.get_or_insert_default().guess = guess;
                }
                found
            }
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = &found {
            self.tell(&identity, Err(refusal.clone()));
        }
        Ok(Outcome::Found(found.map(Box::new)))
    }

    /// Takes notice of how a login by SCRAM came out.
    pub(super) fn conclude(
        &mut self,
        identity: &Identity,
        verdict: Result<Proved, Refusal>,
    ) -> Outcome {
        let broker = &self.context.services.broker;
        let verdict = verdict.map(|proved| broker.remember(proved));
        let rules = self.context.rules.get();
        if !rules.exempts(self.report.at.remote) {
            let guess = self.seats.as_mut().and_then(|seats| seats.guess.take());
            let guess = Some(guess.unwrap_or_default());
            self.book(&identity.user, guess, &verdict, &rules);
        }
        self.tell(identity, verdict)
    }

    fn tell(&mut self, identity: &Identity, verdict: Result<Account, Refusal>) -> Outcome {
        if verdict.is_err() {
            self.stand_up();
        }
        let (counters, method) = (&self.context.counters, self.session.method());
        self.report.login(counters, identity, method, &verdict);
        Outcome::Authenticated(verdict)
    }

    /// Waits until the user may try, and not before the attempt's time has come. A session
    /// counts for whose maildrop is wanted, a guess for whose secret it is.
    async fn wait_turn(
        &mut self,
        identity: &Identity,
        is_guess: bool,
        rules: &Rules,
    ) -> Result<Result<Option<Guess>, Refusal>, Broken> {
        let services = Arc::clone(&self.context.services);
        let from = self.report.at.remote;
        let owner = identity.owner();
        let Ok(seat) = services.admission.attempt(owner, from, &rules.sessions) else {
            self.context.counters.limit(Limit::UserAndAddress);
            return Ok(Err(Refusal::Crowded));
        };
        self.sit(seat);
        if !is_guess {
            return Ok(Ok(None));
        }
        let guess = self.wait_for_guess(&identity.user, rules).await?;
        let counters = &self.context.counters;
        Ok(guess.map(Some).map_err(|TooMany| {
            counters.limit(Limit::Failures);
            Refusal::Throttled
        }))
    }

    async fn wait_for_guess(
        &mut self,
        user: &UserName,
        rules: &Rules,
    ) -> Result<Result<Guess, TooMany>, Broken> {
        let services = Arc::clone(&self.context.services);
        let begun = Instant::now();
        let (mut has_waited, mut times) = (false, Times::default());
        loop {
            let (attempt, now) = (self.attempt(user, rules), Instant::now());
            let turn = services.throttle.ask(&attempt, times, &rules.delays, now);
            if !has_waited && matches!(turn, Ok(Turn::After(..) | Turn::InLine(..))) {
                self.context.counters.limit(Limit::FailureDelay);
                self.flush().await?;
                has_waited = true;
            }
            times = match turn {
                Ok(Turn::Granted(guess)) => return Ok(Ok(guess)),
                Err(TooMany) => return Ok(Err(TooMany)),
                Ok(Turn::After(wait, times)) => {
                    self.link.pause(now + wait).await?;
                    times
                }
                Ok(Turn::InLine(waiting, times)) => {
                    let longest = begun + rules.delays.longest;
                    if !self.link.pause_unless(longest, waiting).await? {
                        return Ok(Err(TooMany));
                    }
                    times
                }
            };
        }
    }

    fn attempt<'a>(&self, user: &'a UserName, rules: &Rules) -> Attempt<'a> {
        let from = self.report.at.remote;
        let admission = &self.context.services.admission;
        Attempt {
            user,
            from,
            standing: admission.standing(user, from, &rules.sessions, Instant::now()),
        }
    }

    /// Has an attempt count for or against the user whose secret was to prove it.
    fn book(
        &self,
        user: &UserName,
        guess: Option<Guess>,
        verdict: &Result<Account, Refusal>,
        rules: &Rules,
    ) {
        let services = &self.context.services;
        let (from, now) = (self.report.at.remote, Instant::now());
        let attempt = guess.map(|guess| (guess, self.attempt(user, rules)));
        if verdict.is_ok() {
            // Who is known to the cache needs no other to know him.
            let unknown = attempt.is_some().then_some(user);
            let admission = &services.admission;
            admission.succeeded(unknown, from, &rules.sessions, now);
        }
        let (throttle, delays) = (&services.throttle, &rules.delays);
        match (attempt, verdict) {
            (Some((guess, attempt)), Ok(_)) => throttle.succeeded(guess, &attempt, delays),
            (Some((guess, attempt)), Err(Refusal::Rejected)) => {
                throttle.failed(guess, &attempt, delays, now);
            }
            (Some(_), Err(_)) | (None, _) => {}
        }
    }

    /// The client does not go on with what it began to prove.
    pub(super) fn withdraw(&mut self) {
        if let Some(seats) = &mut self.seats {
            seats.guess = None;
        }
    }

    async fn ask_keys(&self, question: ScramQuestion) -> Result<ScramAnswer, Refusal> {
        let (shard, from) = (self.context.shard, self.report.at.remote);
        let broker = &self.context.services.broker;
        match broker.find_keys(shard, question, from) {
            Ok(pending) => self.context.ring.abroad(pending).await,
            Err(_full) => Err(Refusal::Busy),
        }
    }

    async fn ask(&self, candidate: Candidate) -> Result<Account, Refusal> {
        let broker = &self.context.services.broker;
        match broker.authenticate(self.context.shard, candidate) {
            Ok(pending) => self.context.ring.abroad(pending).await,
            Err(_full) => Err(Refusal::Busy),
        }
    }

    /// Whether a user whose password was right may have the maildrop now, and whether as
    /// it is or as it was seen last.
    pub(super) fn admit(&mut self, account: &Account) -> Result<Entrance, TurnedAway> {
        let (rules, services) = (self.context.rules.get(), Arc::clone(&self.context.services));
        let from = self.report.at.remote;
        if rules.exempts(from) {
            return Ok(Entrance::Now);
        }
        let (user, own) = (&account.user, account.limits.as_deref());
        let (now, visits) = (Instant::now(), rules.visits.of(own));
        let counters = &self.context.counters;
        let entrance = services.visits.may_enter(user, &visits, now);
        entrance.map_err(|too_soon| {
            counters.limit(Limit::LoginDelay);
            TurnedAway::TooSoon(too_soon.left)
        })?;
        let (admission, sessions) = (&services.admission, &rules.sessions);
        let seat = admission.log_in(user, own, sessions);
        let seat = seat.map_err(|Full| {
            counters.limit(Limit::User);
            TurnedAway::TooMany
        })?;
        let at_address = admission.log_in_from(user, from, own, sessions);
        let at_address = at_address.map_err(|Full| {
            counters.limit(Limit::UserAndAddress);
            TurnedAway::TooMany
        })?;
        self.sit(seat);
        self.sit(at_address);
        Ok(services.visits.look(user, &visits, now))
    }

    fn sit(&mut self, seat: Option<Seat>) {
        if let Some(seat) = seat {
            self.seats.get_or_insert_default().user.push(seat);
        }
    }

    /// The session counts for no user any more.
    pub(super) fn stand_up(&mut self) {
        if let Some(seats) = &mut self.seats {
            seats.user.clear();
            seats.guess = None;
        }
    }

    /// A user has the maildrop, with these limits of the own.
    pub(super) fn enters(&self, user: &UserName, own: Option<&UserLimits>) {
        let rules = self.context.rules.get();
        if !rules.exempts(self.report.at.remote) {
            let visits = &self.context.services.visits;
            visits.enters(user, &rules.visits.of(own), Instant::now());
        }
    }

    /// The session is over, and with it what it counted for.
    pub(super) fn leaves(&mut self) {
        self.seats = None;
        let summary = self.session.summary();
        if let (true, Some(user)) = (summary.authenticated, summary.user) {
            let rules = self.context.rules.get();
            let deleted = summary.tally.removed.messages > 0;
            let visits = &self.context.services.visits;
            visits.leaves(user, deleted, &rules.visits, Instant::now());
        }
    }
}
