//! The threads that look users up and verify passwords, and the queues before
//! them.
//!
//! Each shard has a desk: one thread on the shard's own CPU, behind a bounded
//! queue, which looks the name up and verifies what costs a microsecond. A password
//! whose verification is made to be slow goes on to the hashers, which are shared by all
//! shards and run wherever and whenever nobody else does: see `hashing`.
//!
//! In both queues networks take turns, so that a flood of guesses from one of them is
//! a queue of its own: the others wait for one of its logins at most, and where there
//! is no room it is the flood that gives way.
//!
//! Why a desk of its own and on the same CPU: a shard that hands a login to a
//! thread on another core interrupts that core, and is interrupted in turn by the
//! answer. On a machine of two cores that made a poll session a third dearer with
//! two shards than with one. On its own core the desk runs when the shard has
//! nothing else to do, finds all logins of that turn at once, and wakes the shard
//! once. A desk that hashed would hold its shard up for tens of milliseconds;
//! that is what the hashers are for.
//!
//! A login that was verified a moment ago is answered from the [`LoginCache`] and is
//! never queued: most logins of a server are polls of clients that it knows. One that
//! has to be looked up again costs no second hash, as long as the stored password is
//! the same.
//!
//! A request whose [`Pending`] is gone (the connection was closed) is skipped before
//! anything is looked up or hashed. When the broker stops, what is queued is
//! answered first; what comes later is answered [`Refusal::Unavailable`].

mod answer;
mod away;
mod candidate;
mod error;
mod hashing;
mod networks;
mod renewer;
mod sources;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures_channel::oneshot;

pub use self::answer::Pending;
use self::answer::{Reply, Wait, nonce};
use self::away::Away;
pub use self::candidate::Candidate;
pub use self::error::{QueueFull, StartError};
use self::hashing::Hashing;
use self::networks::Networks;
use self::renewer::Renewer;
use self::sources::{log, open};
use super::cache::{CacheCounts, Derived, Fingerprint, Generation, LoginCache, Terms};
use super::credentials::Ask;
use super::directory::LoadReport;
use super::judge::{Case, Heard, Judge};
use super::lookups::Lookups;
use super::oauth::Authority;
use super::remote::{DirectoryMetrics, Question};
use super::scheme::MadeUp;
use super::{
    Account, Credentials, DirectoryError, Options, Password, Prefixes, Proved, Refusal,
    ScramAnswer, ScramQuestion, Verifier,
};
use crate::crew::{Class, Crew, Order, Plan};
use crate::limits;

/// The process's auth threads. Shared by all shards behind an `Arc`.
pub struct Broker {
    /// One for each shard; they end before the look-ups do, and those before the
    /// hashers.
    desks: Vec<Crew<Request>>,
    away: Arc<Away>,
    hashing: Arc<Hashing>,
    shared: Arc<Shared>,
}

/// What has become of logins since the start. Read with relaxed order.
#[derive(Debug, Default)]
pub struct Counters {
    /// Logins whose password was verified and that succeeded.
    pub verified: AtomicU64,
    /// Logins that were [`Refusal::Rejected`] or [`Refusal::Disabled`].
    pub refused: AtomicU64,
    /// Logins that were [`Refusal::Unavailable`].
    pub unavailable: AtomicU64,
    /// Requests that nobody awaited any more.
    pub skipped: AtomicU64,
    /// Logins that were not queued because a queue, that of a desk or that of
    /// the hashers, was full, or had to leave it for those of other networks.
    pub rejected_full: AtomicU64,
}

struct Request {
    question: Question,
    ticket: Ticket,
}

/// Who waits for an answer, and what is to be remembered with it.
struct Ticket {
    /// Of the directories, before the name was looked up.
    generation: Generation,
    /// Whose turn it takes: see [`Networks`].
    origin: u64,
    reply: Reply,
}

/// A login whose password is to be verified, and who waits for the outcome.
struct Hearing {
    case: Case,
    ticket: Ticket,
    /// Whether the password is right, once a hasher has found that out.
    said: Option<bool>,
}

struct Shared {
    judge: Judge,
    cache: LoginCache,
    counters: Counters,
    networks: Networks,
    /// Replaces weak stored passwords, where a directory takes others.
    renewer: Option<Renewer>,
}

impl Broker {
    /// Loads the directories, tells their faults to the log, and starts the
    /// threads.
    pub fn start(options: &Options) -> Result<Self, StartError> {
        if options.directories.is_empty() {
            return Err(StartError::NoDirectory);
        }
        let all = || {
            let authority = options.oauth.as_ref().map(Authority::open).transpose()?;
            Ok((
                open(&options.directories)?,
                open(&options.masters)?,
                authority,
            ))
        };
        let (lookups, opened) = Lookups::start(limits::LOOKUPS, all).map_err(StartError::Thread)?;
        let (directories, masters, authority) = opened.map_err(StartError::Directory)?;
        let made_up = MadeUp::new(options.scram_secret.as_ref());
        let judge = Judge::new(directories, masters, made_up).with_authority(authority);
        let bound = limits::AUTH_QUEUE;
        let one = NonZeroUsize::MIN;
        Self::with(judge, lookups, &options.desks, one, options.threads, bound)
            .map_err(StartError::Thread)
    }

    fn with(
        judge: Judge,
        lookups: Lookups,
        desks: &[Option<usize>],
        threads_a_desk: NonZeroUsize,
        hashers: NonZeroUsize,
        bound: usize,
    ) -> io::Result<Self> {
        let lookups = Arc::new(lookups);
        let renewer = judge.renews().then(|| Renewer::start(&lookups));
        let shared = Arc::new(Shared {
            renewer: renewer.transpose()?,
            judge,
            cache: LoginCache::new(Terms::default()),
            counters: Counters::default(),
            networks: Networks::new(),
        });
        let hashing = Arc::new(Hashing::start(&shared, hashers, bound)?);
        let away = Arc::new(Away {
            lookups,
            shared: Arc::clone(&shared),
            hashing: Arc::clone(&hashing),
        });
        let desk = |(number, cpu): (usize, &Option<usize>)| {
            let plan = Plan {
                name: format!("desk-{number}"),
                threads: threads_a_desk,
                cpu: *cpu,
                order: Order::InTurn {
                    bound,
                    origin: |request: &Request| request.ticket.origin,
                    displaced: Shared::refusing(&shared, |request: Request| request.ticket.reply),
                },
                class: Class::Ordinary,
            };
            let (own, away) = (Arc::clone(&shared), Arc::clone(&away));
            Crew::start(plan, move |request| own.receive(request, &away))
        };
        let desks = desks.iter().enumerate().map(desk);
        Ok(Self {
            desks: desks.collect::<io::Result<_>>()?,
            away,
            hashing,
            shared,
        })
    }

    /// What is known of a login of a client at the address `from`. Never waits.
    pub fn recall(&self, credentials: Credentials, from: IpAddr) -> Candidate {
        let cache = &self.shared.cache;
        let fingerprint = cache.fingerprint(&credentials);
        let owner = credentials.identity.owner();
        let recall = cache.recall(owner, &fingerprint, from, Instant::now());
        Candidate {
            credentials,
            from,
            fingerprint,
            recall,
        }
    }

    /// Answers a login that was verified a moment ago, or queues it at a shard's desk.
    /// Never waits.
    pub fn authenticate(
        &self,
        shard: usize,
        mut candidate: Candidate,
    ) -> Result<Pending, QueueFull> {
        let known = candidate.known();
        if known.is_some() {
            return Ok(Pending(Wait::Known(known)));
        }
        let Candidate {
            credentials,
            from,
            fingerprint,
            ..
        } = candidate;
        let (to, answer) = oneshot::channel();
        let origin = self.shared.networks.number(from);
        let ask = credentials.evidence.into();
        let question = Question::of(credentials.identity, ask, from, origin);
        self.queue(shard, question, Reply::Login { fingerprint, to })?;
        Ok(Pending(Wait::Queued(answer)))
    }

    /// Has looked up what SCRAM needs of a user, at a shard's desk. Never waits.
    pub fn find_keys(
        &self,
        shard: usize,
        question: ScramQuestion,
        from: IpAddr,
    ) -> Result<Pending<ScramAnswer>, QueueFull> {
        let (to, answer) = oneshot::channel();
        let of = self.shared.cache.keys_of(&question);
        let ask = Ask::Keys(question.hash);
        let origin = self.shared.networks.number(from);
        let question = Question::of(question.identity, ask, from, origin);
        let reply = Reply::Keys {
            of,
            derived: None,
            to,
        };
        self.queue(shard, question, reply)?;
        Ok(Pending(Wait::Queued(answer)))
    }

    /// A user has proved by SCRAM to know the password.
    pub fn remember(&self, proved: Proved) -> Account {
        self.shared.cache.put_keys(&proved, Instant::now());
        proved.into()
    }

    fn queue(&self, shard: usize, question: Question, reply: Reply) -> Result<(), QueueFull> {
        let ticket = Ticket {
            generation: self.shared.cache.generation(),
            origin: question.origin,
            reply,
        };
        let queued = if self.shared.judge.begins_away(&question) {
            self.away.begin(question, 0, ticket).is_ok()
        } else {
            self.desks[shard]
                .queue(Request { question, ticket })
                .is_ok()
        };
        if !queued {
            let counter = &self.shared.counters.rejected_full;
            counter.fetch_add(1, Ordering::Relaxed);
            return Err(QueueFull);
        }
        Ok(())
    }

    /// Reads every directory again, in the calling thread, which must not be a
    /// shard. Logins go on meanwhile. A directory that cannot be read keeps the
    /// users it had. Returns, and tells the log, how it went, in the order of the
    /// directories.
    pub fn reload(&self) -> Vec<Result<LoadReport, DirectoryError>> {
        let reloads = self.shared.judge.reload();
        self.shared.cache.invalidate();
        for reload in &reloads {
            match reload {
                Ok(report) => log(report),
                Err(error) => tracing::error!("the users loaded before stay in force: {error}"),
            }
        }
        reloads
    }

    /// What has become of logins since the start.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// What was answered without a look-up or without a hash, because it was known.
    pub fn cached(&self) -> CacheCounts {
        self.shared.cache.counts()
    }

    /// Believes what is known of logins for these times from now on.
    pub fn set_terms(&self, terms: Terms) {
        self.shared.cache.set_terms(terms);
    }

    /// Has logins from networks of these sizes take turns from now on.
    pub fn set_networks(&self, prefixes: Prefixes) {
        self.shared.networks.set(prefixes);
    }

    /// What the directories that are away did.
    pub fn directories(&self) -> DirectoryMetrics {
        self.shared.judge.metrics()
    }

    /// Logins that wait for a thread now.
    pub fn queue_length(&self) -> usize {
        let desks: usize = self.desks.iter().map(Crew::len).sum();
        desks + self.away.lookups.len() + self.hashing.len()
    }

    /// Answers what is queued and ends the threads; blocks until they have
    /// ended. Later logins are answered [`Refusal::Unavailable`]. A second call
    /// does nothing.
    pub fn stop(&self) {
        self.desks.iter().for_each(Crew::stop);
        if let Some(renewer) = &self.shared.renewer {
            renewer.stop();
        }
        self.away.lookups.stop();
        self.hashing.stop();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// Tells whoever waits that there is no room.
    fn refuse(&self, reply: Reply) {
        let counter = &self.counters.rejected_full;
        counter.fetch_add(1, Ordering::Relaxed);
        reply.refuse(Refusal::Busy);
    }

    /// The same for jobs that make room for others.
    fn refusing<J>(shared: &Arc<Self>, reply: fn(J) -> Reply) -> Box<dyn Fn(J) + Send + Sync>
    where
        J: 'static,
    {
        let shared = Arc::clone(shared);
        Box::new(move |job| shared.refuse(reply(job)))
    }

    /// The work of a desk.
    fn receive(&self, request: Request, away: &Away) {
        let Request { question, ticket } = request;
        if self.is_over(&ticket) {
            return;
        }
        match self.judge.hear(question) {
            Heard::Case(case) => self.settle(case, ticket, &away.hashing),
            Heard::Away(question, first) => {
                if let Err(ticket) = away.begin(question, first, ticket) {
                    self.refuse(ticket.reply);
                }
            }
        }
    }

    /// What follows when the name has been looked up: the verification, here or by a
    /// hasher.
    fn settle(&self, mut case: Case, mut ticket: Ticket, hashing: &Hashing) {
        if let (Reply::Keys { of, derived, .. }, Some(parts)) =
            (&mut ticket.reply, case.derivation())
        {
            let parts = derived.insert(self.cache.derived(parts, ticket.origin));
            if let Some(keys) = self.cache.derived_keys(case.name(), of, parts) {
                case.have_keys(keys);
            }
        }
        let hearing = Hearing {
            case,
            ticket,
            said: None,
        };
        if !self.takes_a_hash(&hearing) {
            self.answer(hearing);
        } else if let Err(ticket) = hashing.queue(hearing) {
            self.refuse(ticket.reply);
        }
    }

    /// The work of a hasher: nothing but the hash. It may be kept from the CPU at any
    /// point for as long as others want it, so whatever has a lock is left to the clerk.
    fn hash(&self, mut hearing: Hearing, clerk: &Crew<Hearing>) {
        if self.is_over(&hearing.ticket) {
            return;
        }
        match hearing.ticket.reply {
            Reply::Login { .. } => hearing.said = hearing.case.verify(),
            Reply::Keys { .. } => hearing.case.derive(),
        }
        // It has no bound but that of the queue before the hashers.
        let _ = clerk.queue(hearing);
    }

    /// Whether nobody awaits the answer any more.
    fn is_over(&self, ticket: &Ticket) -> bool {
        let over = ticket.reply.is_canceled();
        if over {
            self.counters.skipped.fetch_add(1, Ordering::Relaxed);
        }
        over
    }

    /// Whether the password is yet to be verified, by a scheme that is made to be slow.
    fn takes_a_hash(&self, hearing: &Hearing) -> bool {
        let Hearing { case, ticket, .. } = hearing;
        let key = match &ticket.reply {
            Reply::Login { fingerprint, .. } => case.stored().and_then(|stored| {
                let fingerprint = self.hashed_by(case, *fingerprint);
                self.cache.hash_key(&fingerprint, stored)
            }),
            Reply::Keys { .. } => None,
        };
        key.map_or(case.is_slow(), |key| !self.cache.knows_hash(&key))
    }

    /// What a hash is remembered by. Where the user may not log in from, a right password
    /// must not be told by its hash that was computed for a login from elsewhere.
    fn hashed_by(&self, case: &Case, fingerprint: Fingerprint) -> Fingerprint {
        if case.is_from_elsewhere() {
            self.cache.elsewhere(&fingerprint)
        } else {
            fingerprint
        }
    }

    /// Whether the password is right: what a hasher said, or what was said before where
    /// that is slow, or [`Verifier::verify`].
    fn verify(
        &self,
        fingerprint: &Fingerprint,
        stored: &Verifier,
        password: &Password,
        said: Option<bool>,
    ) -> bool {
        let key = self.cache.hash_key(fingerprint, stored);
        match (key, said) {
            (Some(key), Some(said)) => {
                self.cache.put_hash(key, said);
                said
            }
            (_, Some(said)) => said,
            (Some(key), None) => self.cache.hash(&key).unwrap_or_else(|| {
                // Forgotten since it was asked for a moment ago.
                stored.verify(password)
            }),
            (None, None) => stored.verify(password),
        }
    }

    fn answer(&self, hearing: Hearing) {
        let Hearing { case, ticket, said } = hearing;
        let Ticket {
            generation,
            origin,
            reply,
        } = ticket;
        match reply {
            Reply::Login { fingerprint, to } => {
                let answer = self.decide(case, fingerprint, generation, said, origin);
                // The client may have left while its password was verified.
                let _ = to.send(answer);
            }
            // Nothing is counted: nothing is decided yet.
            Reply::Keys { of, derived, to } => drop(to.send(self.tell_keys(case, of, derived))),
        }
    }

    fn tell_keys(
        &self,
        case: Case,
        of: Fingerprint,
        derived: Option<Derived>,
    ) -> Result<ScramAnswer, Refusal> {
        let (owner, from) = (case.name().clone(), case.from());
        match case.answer(nonce()) {
            Ok((mut answer, networks)) => {
                self.cache
                    .meet_keys(&owner, of, derived, networks, &mut answer);
                Ok(answer)
            }
            // What was so when the directory last answered is believed meanwhile.
            Err(refusal) => {
                let known = self.cache.last_keys(&owner, &of, from, Instant::now());
                let (keys, account) = known.ok_or(refusal)?;
                Ok(ScramAnswer {
                    keys,
                    verdict: Ok(account.into()),
                    nonce: nonce(),
                })
            }
        }
    }

    fn decide(
        &self,
        mut case: Case,
        fingerprint: Fingerprint,
        generation: Generation,
        said: Option<bool>,
        origin: u64,
    ) -> Result<Account, Refusal> {
        let renewal = case.renewal();
        let (user, from) = (case.name().clone(), case.from());
        let mut is_wrong = case.is_refused();
        let (is_kept, is_from_elsewhere) = (case.can_come_again(), case.is_from_elsewhere());
        let hashed_by = self.hashed_by(&case, fingerprint);
        let decided = case.decide(|stored, password| {
            let is_right = self.verify(&hashed_by, stored, password, said);
            is_wrong = !is_right;
            is_right
        });
        let now = Instant::now();
        // From where the user may not log in, what is right is refused as what is wrong.
        let is_barred = is_from_elsewhere && matches!(decided, Err(Refusal::Rejected));
        if is_wrong || is_barred && is_kept {
            self.cache
                .put_bad(&user, &fingerprint, from, generation, now);
        }
        let answer = match decided {
            Ok(admission) => {
                if let (Some((renewal, password)), Some(renewer)) = (renewal, &self.renewer) {
                    renewer.queue(renewal, password, origin);
                }
                let account = admission.account.clone();
                if is_kept {
                    self.cache
                        .put(&user, fingerprint, generation, admission, now);
                }
                Ok(account)
            }
            // What was right when the directory last answered is believed meanwhile.
            Err(Refusal::Unavailable) => {
                let known = self.cache.last_known(&user, &fingerprint, from, now);
                known.ok_or(Refusal::Unavailable)
            }
            Err(refusal) => {
                // What bars a user now bars the same login while the directory is away, and
                // a user who is disabled all of them.
                if matches!(refusal, Refusal::Disabled(_)) {
                    self.cache.forget_all(&user);
                } else if is_wrong || !is_barred {
                    self.cache.forget(&user, &fingerprint);
                }
                Err(refusal)
            }
        };
        let counter = match &answer {
            Ok(_) => &self.counters.verified,
            Err(Refusal::Rejected | Refusal::Disabled(_)) => &self.counters.refused,
            Err(_) => &self.counters.unavailable,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        answer
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("queue_length", &self.queue_length())
            .field("counters", self.counters())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
