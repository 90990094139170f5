//! The two ends of a session's hold on its maildrop.

use std::sync::Arc;

use crate::auth::Account;
use crate::maildrop::{CommitReport, Departure, FaultKind, Location, OpenError, Opened};
use crate::observe::Limit;
use crate::proto::MessageNumber;
use crate::ring::Place;
use crate::session::{Deletions, Outcome};
use crate::shard::admission::Entrance;

use super::Connection;
use super::broken::Broken;

/// Whom work on a maildrop waits for.
pub(super) fn place(is_local: bool) -> Place {
    if is_local { Place::Local } else { Place::Far }
}

impl Connection {
    /// Locks and reads the maildrop of a user who has just logged in.
    pub(super) async fn open(&mut self, account: Account) -> Result<Outcome, Broken> {
        let entrance = match self.admit(&account) {
            Ok(entrance) => entrance,
            Err(turned_away) => {
                self.stand_up();
                self.report.turned_away(&self.context.counters, turned_away);
                return Ok(Outcome::TurnedAway(turned_away));
            }
        };
        let (name, own) = (account.user.clone(), account.limits.clone());
        let services = Arc::clone(&self.context.services);
        let user = services.takeover.as_ref().map(|_| account.user.clone());
        let opened = match Location::of(account, &services.template, services.index.as_ref()) {
            Ok(at) => {
                let mut opened = self.open_at(&at, entrance).await;
                if let (Err(OpenError::InUse(_)), Some(user)) = (&opened, &user)
                    && Box::pin(self.displace(&at, user)).await
                {
                    opened = self.open_at(&at, Entrance::Now).await;
                }
                opened
            }
            Err(error) => Err(error),
        };
        if let (Ok(opened), Some(user)) = (&opened, user) {
            self.identify(&opened.lock, user);
        }
        self.report.opened(&self.context.counters, &opened);
        if opened.is_ok() {
            self.enters(&name, own.as_deref());
        } else {
            self.stand_up();
        }
        let opened = opened.map(|Opened { snapshot, lock }| {
            self.maildrop = Some(super::Maildrop {
                snapshot: Arc::clone(&snapshot),
                lock,
                retrieved: None,
            });
            snapshot
        });
        Ok(Outcome::MaildropOpened(opened))
    }

    /// On the shard if the maildrop is known and did not change, or may be shown as it
    /// was, and else by the pool.
    async fn open_at(&self, at: &Location, entrance: Entrance) -> Result<Opened, OpenError> {
        let maildrops = &self.context.services.maildrops;
        if entrance == Entrance::AsSeenLast
            && let Some(opened) = maildrops.open_as_seen_last(&at.path)?
        {
            self.context.counters.limit(Limit::Polls);
            return Ok(opened);
        }
        match maildrops.open_unchanged(&at.path) {
            Ok(Some(opened)) => Ok(opened),
            Ok(None) => {
                let (maildrops, at) = (maildrops.clone(), at.clone());
                let place = place(maildrops.is_local(&at.path));
                let work = move || maildrops.open(&at);
                self.context.ring.blocking(place, work).await
            }
            Err(in_use) => Err(OpenError::from(in_use)),
        }
    }

    /// Removes what the session has marked (UPDATE, RFC 1939, section 6).
    pub(super) async fn commit(&mut self, deletions: Deletions) -> Result<Outcome, Broken> {
        let Some(maildrop) = self.maildrop.take() else {
            unreachable!("messages are removed from an open maildrop");
        };
        let snapshot = Arc::clone(&maildrop.snapshot);
        let maildrops = self.context.services.maildrops.clone();
        // One trip for all of them: a removal is a few microseconds, and so is
        // a trip to a thread. The maildrop is free once it is done.
        let place = maildrop.place();
        let updating = move || {
            let marked: Vec<MessageNumber> = deletions.iter().collect();
            maildrop.let_go(&maildrops, Departure::Quit(&marked))
        };
        let report: CommitReport = self.context.ring.blocking(place, updating).await;
        if let Some((count, kind)) = report.failed {
            let help = match kind {
                FaultKind::Permanent => "check the owner and the mode of new/ and cur/",
                FaultKind::Temporary => "they are back in the next session",
            };
            let root = snapshot.root().display();
            tracing::warn!("{root}: {count} messages could not be removed; {help}");
        }
        Ok(Outcome::Committed(report))
    }
}
