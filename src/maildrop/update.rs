//! What the end of a session does to its maildrop (UPDATE, RFC 1939, section 6), and
//! what the operator's rules add to it.
//!
//! Only QUIT removes anything: what the client marked, what has been kept long enough
//! since it was fetched, and what was kept aside long enough; the latter two only once two days
//! agree that it is so ([`retention`](super::retention)). That a message was
//! fetched is noted however the session ends. The index is told first, with one
//! write, then messages are removed, then renamed: see [`index`](super::index) for
//! what a crash between leaves.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::commit;
use super::error::CommitReport;
use super::index::Noted;
use super::listing::Root;
use super::maildrops::{Maildrops, index_of};
use super::message::Message;
use super::retention::{Day, Retention};
use super::snapshot::Snapshot;
use super::stamps::Time;
use super::{aside, seen};
use crate::limits;
use crate::proto::MessageNumber;

/// What the operator wants done when a session ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Messages that were fetched move to cur/ with the flag S.
    pub mark_seen: bool,
    /// How long they are kept; `None`: for ever.
    pub retention: Option<Retention>,
    /// How long deleted messages are kept aside; `None`: not at all.
    pub undelete: Option<Duration>,
}

/// How a session came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure<'a> {
    /// By QUIT, with these messages marked.
    Quit(&'a [MessageNumber]),
    /// In any other way: nothing is removed.
    Lost,
}

impl Maildrops {
    /// Whether that a message was sent whole is to be told at the session's end.
    pub fn follows(&self, snapshot: &Snapshot, message: MessageNumber) -> bool {
        let rules = self.rules();
        let first = || {
            snapshot
                .message(message)
                .is_some_and(|m| m.retrieved.is_none())
        };
        rules.mark_seen || rules.retention.is_some() && first()
    }

    /// Whether QUIT has something to do that no client asked for. Cheap: each session
    /// asks.
    pub fn is_due(&self, snapshot: &Snapshot, now: SystemTime) -> bool {
        self.due(snapshot, now).is_some() || self.confirmed(snapshot, now).is_some()
    }

    /// The day, if something is to go by itself that only another day can confirm, or if
    /// the one that was noted lies ahead.
    fn due(&self, snapshot: &Snapshot, now: SystemTime) -> Option<Day> {
        let today = Day::of(now)?;
        let noted = snapshot.knowledge().due;
        let is_ahead = noted.is_some_and(|noted| noted > today);
        let goes = || self.expires_by(snapshot, today) || self.is_kept_until(snapshot, now);
        (is_ahead || noted != Some(today) && goes()).then_some(today)
    }

    /// A day before this one on which something was to go that is still there.
    fn confirmed(&self, snapshot: &Snapshot, now: SystemTime) -> Option<Day> {
        let (noted, today) = (snapshot.knowledge().due?, Day::of(now)?);
        let goes = || self.expires_by(snapshot, noted) || self.is_kept_until(snapshot, noted.end());
        (noted < today && goes()).then_some(noted)
    }

    fn expires_by(&self, snapshot: &Snapshot, day: Day) -> bool {
        let rule = self.rules().retention.zip(snapshot.first_retrieved());
        rule.is_some_and(|(rule, first)| rule.is_over(first, day))
    }

    fn is_kept_until(&self, snapshot: &Snapshot, time: SystemTime) -> bool {
        let oldest = snapshot.knowledge().aside;
        let until = self.kept_until(time).zip(oldest);
        until.is_some_and(|(until, oldest)| oldest < until)
    }

    /// What was deleted before that has been kept long enough by `time`.
    fn kept_until(&self, time: SystemTime) -> Option<SystemTime> {
        time.checked_sub(self.rules().undelete?)
    }

    /// Ends a session that still holds the maildrop and fetched these messages; tells
    /// what became of those it had marked. BLOCKING.
    pub fn update(
        &self,
        snapshot: &Snapshot,
        retrieved: &BTreeSet<MessageNumber>,
        departure: Departure<'_>,
        now: SystemTime,
    ) -> CommitReport {
        let (marked, quits) = match departure {
            Departure::Quit(marked) => (marked, true),
            Departure::Lost => (&[][..], false),
        };
        let confirmed = self.confirmed(snapshot, now).filter(|_| quits);
        let expired = confirmed.map_or_else(Vec::new, |day| self.expired(snapshot, marked, day));
        let due = self.due(snapshot, now).filter(|_| quits);
        let going: BTreeSet<MessageNumber> = marked.iter().chain(&expired).copied().collect();
        let staying: Vec<MessageNumber> = retrieved.difference(&going).copied().collect();
        if !going.is_empty() {
            // No later session is to be shown what this one removes.
            self.cache().forget(snapshot.asked());
        }
        let from = no_earlier(snapshot, now);
        self.note(snapshot, &staying, &going, due, from);
        let kept_aside = self.rules().undelete.map(|_| from);
        let report = commit::remove_or_keep(snapshot, marked, kept_aside);
        if !expired.is_empty() {
            self.remove_expired(snapshot, &expired);
        }
        if self.rules().mark_seen {
            seen::mark_seen(snapshot, staying);
        }
        if let Some(until) = confirmed.and_then(|day| self.kept_until(day.end()))
            && snapshot
                .knowledge()
                .aside
                .is_some_and(|oldest| oldest < until)
        {
            self.purge(snapshot, until);
        }
        report
    }

    /// Messages that had been kept as long as they are to be by that day.
    fn expired(
        &self,
        snapshot: &Snapshot,
        marked: &[MessageNumber],
        by: Day,
    ) -> Vec<MessageNumber> {
        let Some(rule) = self.rules().retention else {
            return Vec::new();
        };
        let marked: BTreeSet<&MessageNumber> = marked.iter().collect();
        let numbers = (0..snapshot.len()).filter_map(MessageNumber::from_index);
        let over = |number: &MessageNumber| {
            let message = snapshot.message(*number);
            let retrieved = message.and_then(|message| message.retrieved);
            retrieved.is_some_and(|day| rule.is_over(day, by)) && !marked.contains(number)
        };
        numbers.filter(over).collect()
    }

    fn remove_expired(&self, snapshot: &Snapshot, expired: &[MessageNumber]) {
        let report = commit::remove_or_keep(snapshot, expired, None);
        let root = snapshot.root().display();
        let removed = u64::from(report.removed);
        self.counters()
            .expired
            .fetch_add(removed, Ordering::Relaxed);
        tracing::info!("{root}: {removed} messages removed as maildrop.retention has it");
        if let Some((count, _)) = report.failed {
            tracing::warn!(
                "{root}: {count} messages whose time is over could not be removed: check the \
                 owner and the mode of new/ and cur/"
            );
        }
    }

    /// Has the index say who was fetched and who is about to go.
    fn note(
        &self,
        snapshot: &Snapshot,
        retrieved: &[MessageNumber],
        going: &BTreeSet<MessageNumber>,
        due: Option<Day>,
        now: SystemTime,
    ) {
        let Some(position) = snapshot.knowledge().index else {
            return;
        };
        let today = Day::of(now).filter(|_| self.rules().retention.is_some());
        let fetched = retrieved.iter().filter_map(|number| {
            let message = snapshot.message(*number)?;
            let first = message.retrieved.is_none().then_some(today?)?;
            Some(Message {
                retrieved: Some(first),
                ..message
            })
        });
        let last = going.len().saturating_sub(limits::GONE_MESSAGES);
        let noted = Noted {
            retrieved: fetched.collect(),
            gone: going
                .iter()
                .skip(last)
                .filter_map(|number| snapshot.message(*number))
                .collect(),
            due,
        };
        if noted.retrieved.is_empty() && noted.gone.is_empty() && due.is_none() {
            return;
        }
        let index = index_of(snapshot);
        // What is in memory is no longer what is in there.
        self.cache().forget(snapshot.asked());
        if let Err(error) = index.note(position, snapshot, &noted) {
            self.unwritten(&index, &error);
        }
    }

    /// Removes for good what was kept aside long enough.
    fn purge(&self, snapshot: &Snapshot, until: SystemTime) {
        // The next session is told by the disk what is left.
        self.cache().forget(snapshot.asked());
        let purged = match Root::open(snapshot.root()) {
            Ok(Some(root)) => aside::purge(&root, until),
            // It is gone with all there was.
            Ok(None) | Err(_) => return,
        };
        if let Err(errno) = purged {
            let path = snapshot.root().join(aside::FOLDER);
            tracing::warn!(
                "{}: deleted messages whose time is over stay there: {errno}; remove what is not \
                 popcore's own",
                path.display()
            );
        }
    }
}

/// From when on what a session fetched or deleted is kept: a clock that stands before the
/// last change of the maildrop is behind.
fn no_earlier(snapshot: &Snapshot, now: SystemTime) -> SystemTime {
    let Some(Time(seconds, nanos)) = snapshot.knowledge().newest else {
        return now;
    };
    let since = Duration::new(u64::try_from(seconds).unwrap_or_default(), nanos);
    UNIX_EPOCH
        .checked_add(since)
        .map_or(now, |changed| changed.max(now))
}

#[cfg(test)]
mod tests;
