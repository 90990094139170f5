//! Taking a maildrop over from a session whose client seems to be gone
//! (`maildrop.takeover`).
//!
//! A client whose line broke comes back from the same address and is told `[IN-USE]`
//! until its old session is found dead, which may take as long as the autologout.
//! Where the operator allows it, the new session asks the old one to go. That one
//! lives on another shard, perhaps, and only it can tell: it looks when the kernel
//! last heard anything of its client, be it only an acknowledgement, and goes if that
//! is too long ago. It goes as if its line had broken, so that it deletes nothing.
//!
//! A session is asked by its berth, which no other one ever has, so a question that
//! comes too late reaches nobody. Who asked waits for the answer: the end of the old
//! session, or its silence about the question.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_channel::oneshot;

use super::{Connection, open};
use crate::auth::UserName;
use crate::limits;
use crate::maildrop::{Berth, Holder, Location, LockGuard};
use crate::shard::deadlines::Challenge;

/// What sessions of all shards ask of each other.
pub struct Takeover {
    silence: Duration,
    shards: Box<[Mutex<Inbox>]>,
}

#[derive(Default)]
struct Inbox {
    asked: Vec<(Berth, Challenge)>,
    waker: Option<Waker>,
}

impl Takeover {
    /// Clients of whom nothing was heard for `silence` give way.
    pub fn new(silence: Duration, shards: usize) -> Takeover {
        Takeover {
            silence,
            shards: (0..shards).map(|_| Mutex::default()).collect(),
        }
    }

    /// Asks a session to go; the answer comes to nothing once it is given.
    fn ask(&self, berth: Berth) -> oneshot::Receiver<()> {
        let (asker, answer) = oneshot::channel();
        let challenge = Challenge::new(self.silence, asker);
        let waker = {
            let inbox = self.shards[berth.shard].lock();
            let mut inbox = inbox.unwrap_or_else(PoisonError::into_inner);
            inbox.asked.push((berth, challenge));
            inbox.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        answer
    }

    /// What a shard's sessions were asked.
    pub fn poll_asked(&self, shard: usize, context: &Context<'_>) -> Poll<Vec<(Berth, Challenge)>> {
        let inbox = self.shards[shard].lock();
        let mut inbox = inbox.unwrap_or_else(PoisonError::into_inner);
        if inbox.asked.is_empty() {
            inbox.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut inbox.asked))
    }
}

impl Connection {
    /// Asks the session that has a maildrop to go, if it is the same user's from the
    /// same address. Tells whether it is worth trying again.
    pub(super) async fn displace(&self, at: &Location, user: &UserName) -> bool {
        let services = Arc::clone(&self.context.services);
        let Some(takeover) = &services.takeover else {
            return false;
        };
        let (maildrops, at) = (services.maildrops.clone(), at.clone());
        let place = open::place(maildrops.is_local(&at.path));
        let looking = move || maildrops.holder(&at);
        let holder = self.context.ring.blocking(place, looking).await;
        let from = self.report.at.remote;
        let Some(holder) = holder.filter(|held| held.from == from && held.user == *user) else {
            return false;
        };
        let mut answer = pin!(self.context.ring.abroad(takeover.ask(holder.berth)));
        let mut patience = pin!(self.context.ring.sleep(limits::TAKEOVER_ANSWER));
        std::future::poll_fn(|context| {
            let answered = answer.as_mut().poll(context).is_ready();
            if answered || patience.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
        true
    }

    /// Has the lock say who holds it.
    pub(super) fn identify(&self, lock: &LockGuard, user: UserName) {
        let Some((key, number)) = self.link.watch().berth() else {
            return;
        };
        lock.identify(Holder {
            user,
            from: self.report.at.remote,
            berth: Berth {
                shard: self.context.shard,
                key,
                number,
            },
        });
    }
}
