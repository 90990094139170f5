//! How a shard ends: it stops to accept, lets its sessions finish, and then
//! closes those that have not.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::deadlines::{Challenge, Watch};
use crate::conn::Takeover;
use crate::maildrop::Berth;

/// What the main thread tells a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Go on.
    Serve,
    /// Accept no more; end when the last session has.
    Drain,
    /// Close every session and end.
    Close,
}

/// The shard's ear: written by the main thread, twice in a lifetime.
#[derive(Debug)]
pub struct Orders(Mutex<(Order, Option<Waker>)>);

impl Default for Orders {
    fn default() -> Self {
        Orders(Mutex::new((Order::Serve, None)))
    }
}

impl Orders {
    /// Gives an order. One that was given stays in force against a lesser one.
    pub fn give(&self, order: Order) {
        let waker = {
            let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            held.0 = held.0.max(order);
            held.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The order in force; a change wakes the task that asked.
    fn poll(&self, context: &Context<'_>) -> Order {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.1 = Some(context.waker().clone());
        held.0
    }
}

/// What a shard's listeners go by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Serving,
    Draining,
    Closing,
}

/// The connections of a shard.
#[derive(Debug, Default)]
pub(super) struct Roster {
    watches: RefCell<Slab<Rc<Watch>>>,
    /// Connections entered so far.
    entered: Cell<u64>,
    phase: Cell<Phase>,
    /// Listeners that wait for the phase to change.
    listeners: RefCell<Vec<Waker>>,
    /// Who waits for the roster to be empty.
    drained: RefCell<Option<Waker>>,
}

/// A connection's place on the roster until this is dropped.
pub(super) struct Entry {
    roster: Rc<Roster>,
    key: usize,
}

impl Roster {
    /// Enters a connection.
    pub(super) fn enter(roster: &Rc<Roster>, watch: &Rc<Watch>) -> Entry {
        if roster.phase.get() == Phase::Closing {
            watch.shut_down();
        }
        let key = roster.watches.borrow_mut().insert(Rc::clone(watch));
        let number = roster.entered.get() + 1;
        roster.entered.set(number);
        watch.settle(key, number);
        Entry {
            key,
            roster: Rc::clone(roster),
        }
    }

    /// The phase; a change wakes the task that asked.
    pub(super) fn poll_phase(&self, context: &Context<'_>) -> Phase {
        let mut listeners = self.listeners.borrow_mut();
        if !listeners.iter().any(|w| w.will_wake(context.waker())) {
            listeners.push(context.waker().clone());
        }
        self.phase.get()
    }

    fn change(&self, phase: Phase) {
        self.phase.set(phase);
        let listeners = std::mem::take(&mut *self.listeners.borrow_mut());
        for waker in listeners {
            waker.wake();
        }
    }

    fn shut_down(&self) {
        for (_, watch) in self.watches.borrow().iter() {
            watch.shut_down();
        }
    }

    /// Asks a connection whether its client is still there, unless it is gone by now.
    fn challenge(&self, berth: Berth, challenge: Challenge) {
        let watches = self.watches.borrow();
        let watch = watches.get(berth.key);
        let asked = watch.filter(|watch| watch.berth() == Some((berth.key, berth.number)));
        if let Some(watch) = asked {
            watch.challenge(challenge);
        }
    }

    fn is_empty(&self) -> bool {
        self.watches.borrow().is_empty()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.roster.watches.borrow_mut().remove(self.key);
        if self.roster.is_empty() {
            let waker = self.roster.drained.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Passes on what sessions of this shard are asked by others, for ever.
pub(super) async fn pass_on(takeover: &Takeover, shard: usize, roster: &Roster) {
    loop {
        let asked = poll_fn(|context| takeover.poll_asked(shard, context)).await;
        for (berth, challenge) in asked {
            roster.challenge(berth, challenge);
        }
    }
}

/// Obeys orders; done when the shard has nothing left to serve.
pub(super) async fn obey(orders: &Orders, roster: &Roster) {
    poll_fn(|context| {
        *roster.drained.borrow_mut() = Some(context.waker().clone());
        match (orders.poll(context), roster.phase.get()) {
            (Order::Serve, _) => return Poll::Pending,
            (Order::Drain, Phase::Serving) => roster.change(Phase::Draining),
            (Order::Close, Phase::Serving | Phase::Draining) => {
                roster.change(Phase::Closing);
                roster.shut_down();
            }
            _ => {}
        }
        if roster.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::super::deadlines::Signal;
    use super::*;

    #[test]
    fn a_shard_ends_when_it_drains_and_the_last_session_has_gone() {
        let (orders, roster) = (Orders::default(), Rc::new(Roster::default()));
        let watch = Rc::new(Watch::default());
        let entry = Roster::enter(&roster, &watch);
        let mut obeying = pin!(obey(&orders, &roster));
        let mut context = Context::from_waker(Waker::noop());
        assert!(obeying.as_mut().poll(&mut context).is_pending());
        orders.give(Order::Drain);
        assert!(obeying.as_mut().poll(&mut context).is_pending());
        assert_eq!(roster.poll_phase(&context), Phase::Draining);
        drop(entry);
        assert!(obeying.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn a_lesser_order_does_not_take_back_a_greater() {
        let orders = Orders::default();
        orders.give(Order::Close);
        orders.give(Order::Drain);
        let context = Context::from_waker(Waker::noop());
        assert_eq!(orders.poll(&context), Order::Close);
    }

    #[test]
    fn closing_reaches_those_who_enter_afterwards_too() {
        let (orders, roster) = (Orders::default(), Rc::new(Roster::default()));
        let before = Rc::new(Watch::default());
        let _one = Roster::enter(&roster, &before);
        orders.give(Order::Close);
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(obey(&orders, &roster)).poll(&mut context).is_pending());
        let after = Rc::new(Watch::default());
        let _two = Roster::enter(&roster, &after);
        for watch in [before, after] {
            assert_eq!(watch.signal(), Some(Signal::Shutdown));
        }
    }
}
