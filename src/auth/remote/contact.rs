//! Asking a server that may be away: how long, how often, and when not at all.
//!
//! So many questions are under way at a time as there are [`Places`], for which networks
//! take turns. A question has its time from when it has a place, further tries where a
//! connection broke included. A server that fails is left in peace by a [`Breaker`], with a
//! line in the log when that begins and when it ends.
//!
//! Waiting for a place has the same time once more, and says nothing of the server: with
//! more questions than it answers in time it is busy, and not away.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::breaker::{Breaker, Change};
use super::lock;
use super::metrics::{Counters, DirectoryMetrics};
use super::places::{Place, Places};
use crate::auth::DirectoryError;
use crate::auth::directory::Failure;
use crate::limits;

/// A server that is asked, and how it fares.
pub(in crate::auth) struct Contact {
    label: Box<str>,
    timeout: Duration,
    places: Places,
    breaker: Mutex<Breaker>,
    /// When the log was told last that places were wanting.
    crowded: Mutex<Option<Instant>>,
    counters: Arc<Counters>,
}

impl Contact {
    /// One that nobody has asked yet, and that may be asked so many questions at a time;
    /// the log and the metrics know it by its label.
    pub(in crate::auth) fn new(label: &str, timeout: Duration, places: u32) -> Self {
        Self {
            label: label.into(),
            timeout,
            places: Places::new(places),
            breaker: Mutex::new(Breaker::NEW),
            crowded: Mutex::default(),
            counters: Arc::default(),
        }
    }

    pub(in crate::auth) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Adds its own counters to the metrics.
    pub(in crate::auth) fn measure(&self, metrics: &mut DirectoryMetrics) {
        metrics.add(&self.label, &self.counters);
    }

    /// What it answers to somebody in the network of this number, where it is asked at all.
    pub(in crate::auth) async fn ask<T, F>(
        &self,
        origin: u64,
        ask: impl Fn() -> F,
    ) -> Result<T, DirectoryError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        // Whoever could not be let in behind it does not wait for a place.
        if lock(&self.breaker).rests(Instant::now()) {
            return Err(self.spared());
        }
        let _place = match self.place(origin).await {
            Ok(place) => place,
            Err(failure) => {
                count(&self.counters.crowded);
                self.tell_crowded(&failure, Instant::now());
                return Err(self.error(failure));
            }
        };
        // It may have failed while this one waited.
        if !lock(&self.breaker).admits(Instant::now()) {
            return Err(self.spared());
        }
        match self.try_within_time(ask).await {
            Ok(answer) => {
                let change = lock(&self.breaker).answered();
                self.tell(change, None);
                Ok(answer)
            }
            Err(failure) => {
                count(&self.counters.failed);
                let change = lock(&self.breaker).failed(Instant::now());
                self.tell(change, Some(&failure));
                Err(self.error(failure))
            }
        }
    }

    /// Counts an answer, by whether it knew what it was asked about.
    pub(in crate::auth) fn answered(&self, known: bool) {
        count(if known {
            &self.counters.known
        } else {
            &self.counters.unknown
        });
    }

    pub(in crate::auth) fn error(&self, failure: Failure) -> DirectoryError {
        DirectoryError::Failed {
            directory: self.label.clone(),
            failure,
        }
    }

    /// A place for one question, when it is the turn of this network.
    pub(super) async fn place(&self, origin: u64) -> Result<Place, Failure> {
        let place = tokio::time::timeout(self.timeout, self.places.take(origin)).await;
        place.ok().flatten().ok_or(Failure::Crowded)
    }

    fn spared(&self) -> DirectoryError {
        count(&self.counters.spared);
        self.error(Failure::Suspended)
    }

    async fn try_within_time<T, F>(&self, ask: impl Fn() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let tries = async {
            let mut tries = Tries::default();
            loop {
                let outcome = ask().await;
                let Some(pause) = tries.after(&outcome) else {
                    return outcome;
                };
                tokio::time::sleep(pause).await;
            }
        };
        let outcome = tokio::time::timeout(self.timeout, tries).await;
        outcome.unwrap_or(Err(Failure::TimedOut(self.timeout)))
    }

    fn tell_crowded(&self, failure: &Failure, now: Instant) {
        let mut told = lock(&self.crowded);
        let since = |then| now.saturating_duration_since(then);
        if told.is_none_or(|then| since(then) >= limits::CROWDED_PAUSE) {
            *told = Some(now);
            tracing::warn!("{}: {failure}", self.label);
        }
    }

    fn tell(&self, change: Option<Change>, why: Option<&Failure>) {
        let Some(change) = change else { return };
        let label = &self.label;
        let suspended = match change {
            Change::Closed => {
                tracing::info!("{label}: it answers again");
                0
            }
            Change::Opened(rest) => {
                let why = why.map(ToString::to_string).unwrap_or_default();
                tracing::error!(
                    "{label}: {why}; it is left in peace for {rest:?}, and who is not \
                     remembered cannot log in meanwhile"
                );
                1
            }
        };
        self.counters.suspended.store(suspended, Ordering::Relaxed);
    }
}

/// How often one question was asked.
#[derive(Default)]
struct Tries(u32);

impl Tries {
    /// The pause before it is asked once more, if it is, since it has this outcome.
    fn after<T>(&mut self, outcome: &Result<T, Failure>) -> Option<Duration> {
        self.0 += 1;
        let broke = matches!(outcome, Err(Failure::Unreachable(_)));
        let again = broke && self.0 < limits::LOOKUP_TRIES;
        again.then(|| limits::LOOKUP_PAUSE * (1 << (self.0 - 1)))
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, AtomicUsize};

    use tokio::runtime::Builder;
    use tokio::sync::Notify;

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test)
    }

    #[test]
    fn a_broken_connection_is_tried_again_after_pauses_that_double() {
        let broke = || Err::<(), _>(Failure::Unreachable("reset".to_owned()));
        let mut tries = Tries::default();
        let mut pause = limits::LOOKUP_PAUSE;
        for _ in 1..limits::LOOKUP_TRIES {
            assert_eq!(tries.after(&broke()), Some(pause));
            pause *= 2;
        }
        assert_eq!(tries.after(&broke()), None, "often enough");
        for outcome in [
            Ok(()),
            Err(Failure::TimedOut(Duration::from_secs(1))),
            Err(Failure::Refused("no such table".to_owned())),
        ] {
            assert_eq!(Tries::default().after(&outcome), None, "{outcome:?}");
        }
    }

    /// What breaks twice and answers then is one answer, with which the server counts as
    /// there; what breaks each time is one failure.
    #[test]
    fn tries_are_one_question() {
        let contact = Contact::new("test", Duration::from_mins(1), 1);
        let asked = AtomicU32::new(0);
        let ask = |good_at: u32| {
            asked.store(0, Ordering::SeqCst);
            let asked = &asked;
            contact.ask(1, move || async move {
                let at = asked.fetch_add(1, Ordering::SeqCst) + 1;
                if at == good_at {
                    Ok(at)
                } else {
                    Err(Failure::Unreachable("reset".to_owned()))
                }
            })
        };
        run(async {
            let last = limits::LOOKUP_TRIES;
            assert_eq!(ask(last).await.ok(), Some(last));
            assert_eq!(contact.counters.failed.load(Ordering::Relaxed), 0);
            assert!(ask(last + 1).await.is_err());
            assert_eq!(asked.load(Ordering::SeqCst), last);
            assert_eq!(contact.counters.failed.load(Ordering::Relaxed), 1);
        });
    }

    /// All tries together have the time of one.
    #[test]
    fn tries_end_with_the_time_out() {
        let contact = Contact::new("test", 2 * limits::LOOKUP_PAUSE, 1);
        let asked = AtomicU32::new(0);
        run(async {
            let hung = contact.ask(1, || async {
                if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                    return Err::<(), _>(Failure::Unreachable("reset".to_owned()));
                }
                std::future::pending().await
            });
            let error = hung.await.err();
            assert!(error.is_some_and(|error| error.is_silence()));
        });
    }

    /// A server that is slow: who waits too long for a place is told so, the server is not
    /// blamed for it, and others come in between.
    #[test]
    fn more_questions_than_it_answers_do_not_make_it_fail() {
        let contact = Arc::new(Contact::new("test", Duration::from_millis(200), 1));
        run(async {
            let slow = || async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok::<_, Failure>(())
            };
            let flood: Vec<_> = (0..100)
                .map(|_| {
                    let contact = Arc::clone(&contact);
                    tokio::spawn(async move { contact.ask(1, slow).await.is_ok() })
                })
                .collect();
            tokio::task::yield_now().await;
            for _ in 0..10 {
                contact.ask(2, slow).await.expect("an answer");
            }
            let mut answered = 0;
            for one in flood {
                answered += usize::from(one.await.expect("it ends"));
            }
            assert!(answered < 100, "all within the time of one");
            let crowded = contact.counters.crowded.load(Ordering::Relaxed);
            assert_eq!(crowded, 100 - answered as u64);
            assert_eq!(contact.counters.failed.load(Ordering::Relaxed), 0);
            contact.ask(1, slow).await.expect("an answer");
        });
    }

    /// Whoever is not asked anyway does not wait until a question that hangs has timed out.
    #[test]
    fn nobody_waits_for_a_place_at_a_server_that_is_left_in_peace() {
        let contact = Arc::new(Contact::new("test", Duration::from_mins(1), 1));
        run(async {
            for _ in 0..limits::DIRECTORY_FAILURES {
                let asked = contact.ask(1, || async {
                    Err::<(), _>(Failure::TimedOut(Duration::ZERO))
                });
                assert!(asked.await.is_err());
            }
            let (began, gate) = (Arc::new(Notify::new()), Notify::new());
            let asked = AtomicUsize::new(0);
            tokio::time::sleep(limits::DIRECTORY_REST_LEAST).await;
            let trial = contact.ask(1, || async {
                asked.fetch_add(1, Ordering::SeqCst);
                began.notify_one();
                gate.notified().await;
                Ok(())
            });
            let others = async {
                began.notified().await;
                let error = contact.ask(2, || async { Ok(()) }).await.err();
                assert!(error.is_some_and(|error| !error.is_news()), "not suspended");
                gate.notify_one();
            };
            let (trial, ()) = tokio::join!(trial, others);
            trial.expect("an answer");
            assert_eq!(asked.load(Ordering::SeqCst), 1);
        });
    }
}
