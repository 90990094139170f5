//! One coarse wheel for every deadline of a shard.
//!
//! A session has one deadline at a time and moves it with every command. Moving
//! it later is a store into its [`Watch`]; the wheel learns of it when it visits
//! the slot where the watch was left, and carries it on to its new one. Only a
//! deadline that comes earlier touches the wheel, and so does a connection's
//! end, which takes its watch away at once: a busy shard ends ten thousand
//! connections a second whose deadlines lie a minute off. A shard without deadlines has
//! no timer at all, and one whose sessions idle wakes at most once a [`TICK`].
//!
//! The wheel itself takes time as an argument; the shard's task sleeps until
//! [`Deadlines::next`] says.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_channel::oneshot;

/// How coarse deadlines are: one is met up to this much late, never early.
pub const TICK: Duration = Duration::from_millis(250);

/// Slots of the wheel: 17 minutes, so that an autologout is one visit. What
/// lies further off is visited once a round.
const SLOTS: usize = 4096;

/// Why a watch woke its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The deadline last armed has passed.
    Deadline,
    /// The server closes; stays set for good.
    Shutdown,
}

/// What a connection waits on beside its socket: its deadline, and the order to
/// close. Dropping it takes it off the wheel.
pub struct Alarm {
    deadlines: Rc<Deadlines>,
    watch: Rc<Watch>,
}

/// The part of an alarm that others may reach.
#[derive(Debug, Default)]
pub struct Watch {
    /// The tick at which the deadline has passed; none while there is none.
    due: Cell<Option<u64>>,
    /// Where the wheel holds this watch.
    place: Cell<Option<Place>>,
    signal: Cell<Option<Signal>>,
    waker: RefCell<Option<Waker>>,
    /// Where the shard's roster has it.
    berth: Cell<Option<(usize, u64)>>,
    challenge: RefCell<Option<Box<Challenge>>>,
}

/// The question whether a connection's client is still there.
#[derive(Debug)]
pub struct Challenge {
    silence: Duration,
    /// Hears when this is dropped.
    _asker: oneshot::Sender<()>,
}

impl Challenge {
    /// Whether anything was heard of the client for `silence`; `asker` is told
    /// nothing but that the answer is over.
    pub fn new(silence: Duration, asker: oneshot::Sender<()>) -> Challenge {
        Challenge {
            silence,
            _asker: asker,
        }
    }

    /// The time without a word after which the client counts as gone.
    pub fn silence(&self) -> Duration {
        self.silence
    }
}

/// A place on the wheel.
#[derive(Clone, Copy, Debug)]
struct Place {
    tick: u64,
    index: usize,
}

impl Watch {
    /// Orders the connection to close.
    pub fn shut_down(&self) {
        self.raise(Signal::Shutdown);
    }

    /// Ends what its connection waits for, as if the deadline had passed.
    pub fn expire(&self) {
        self.raise(Signal::Deadline);
    }

    /// Ready once the order to close was given.
    pub fn poll_shutdown(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.signal.get() == Some(Signal::Shutdown) {
            return Poll::Ready(());
        }
        self.listen(context);
        Poll::Pending
    }

    fn listen(&self, context: &mut Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match waker.as_mut() {
            Some(waker) => waker.clone_from(context.waker()),
            None => *waker = Some(context.waker().clone()),
        }
    }

    /// The place on the shard's roster, and the number that no other connection of
    /// the shard has.
    pub fn berth(&self) -> Option<(usize, u64)> {
        self.berth.get()
    }

    /// Enters it.
    pub fn settle(&self, key: usize, number: u64) {
        self.berth.set(Some((key, number)));
    }

    /// Asks whether the client is still there.
    pub fn challenge(&self, challenge: Challenge) {
        *self.challenge.borrow_mut() = Some(Box::new(challenge));
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Answers the question, if there is one: whether the connection is to go. Where
    /// it is, who asked hears when it has gone, and at once otherwise.
    pub fn gives_way(&self, is_gone: impl FnOnce(Duration) -> bool) -> bool {
        let mut challenge = self.challenge.borrow_mut();
        let goes = challenge
            .as_ref()
            .is_some_and(|asked| is_gone(asked.silence()));
        if !goes {
            *challenge = None;
        }
        goes
    }

    /// The signal that stands, if one does.
    pub fn signal(&self) -> Option<Signal> {
        self.signal.get()
    }

    fn raise(&self, signal: Signal) {
        if self.signal.get() != Some(Signal::Shutdown) {
            self.signal.set(Some(signal));
        }
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Alarm {
    /// An alarm without a deadline.
    pub fn new(deadlines: &Rc<Deadlines>) -> Alarm {
        Alarm {
            deadlines: Rc::clone(deadlines),
            watch: Rc::default(),
        }
    }

    /// What others use to order this alarm's owner to close.
    pub fn watch(&self) -> &Rc<Watch> {
        &self.watch
    }

    /// Sets the deadline in place of the one there was.
    pub fn set(&self, deadline: Instant) {
        if self.watch.signal.get() == Some(Signal::Deadline) {
            self.watch.signal.set(None);
        }
        let due = self.deadlines.tick_after(deadline);
        self.watch.due.set(Some(due));
        if self.watch.place.get().is_none_or(|place| due < place.tick) {
            self.deadlines.place(&self.watch, due);
        }
    }

    /// Ready once the deadline has passed or the order to close was given.
    pub fn poll_signal(&self, context: &mut Context<'_>) -> Poll<Signal> {
        if let Some(signal) = self.watch.signal() {
            return Poll::Ready(signal);
        }
        self.watch.listen(context);
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.deadlines.wheel.borrow_mut().remove(&self.watch);
    }
}

/// The deadlines of one shard.
pub struct Deadlines {
    origin: Instant,
    wheel: RefCell<Wheel>,
    /// The waker of the task that sleeps until the next slot.
    sleeper: RefCell<Option<Waker>>,
}

struct Wheel {
    slots: Vec<Vec<Rc<Watch>>>,
    /// Every slot up to and including this tick has been visited.
    visited: u64,
    /// No slot before this tick holds a watch.
    empty_before: u64,
    /// Watches in all slots.
    entries: usize,
}

impl Deadlines {
    /// An empty wheel; ticks count from `now`.
    pub fn new(now: Instant) -> Deadlines {
        Deadlines {
            origin: now,
            wheel: RefCell::new(Wheel {
                slots: vec![Vec::new(); SLOTS],
                visited: 0,
                empty_before: 1,
                entries: 0,
            }),
            sleeper: RefCell::new(None),
        }
    }

    /// When the wheel must be turned next; nothing while it is empty. The task
    /// that asked is woken when that changes to something earlier.
    pub fn next(&self, context: &Context<'_>) -> Option<Instant> {
        *self.sleeper.borrow_mut() = Some(context.waker().clone());
        let next = self.wheel.borrow_mut().next()?;
        Some(self.origin + TICK * u32::try_from(next).unwrap_or(u32::MAX))
    }

    /// Visits every slot up to `now` and signals the watches that are due.
    pub fn advance(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.origin);
        let now = tick_count(elapsed.as_nanos() / TICK.as_nanos());
        loop {
            let due = self.wheel.borrow_mut().next().filter(|tick| *tick <= now);
            let Some(tick) = due else {
                break;
            };
            let visited = self.wheel.borrow_mut().take(tick);
            for watch in visited {
                match watch.due.get() {
                    Some(due) if due > now => {
                        self.wheel.borrow_mut().insert(&watch, due);
                    }
                    _ => watch.raise(Signal::Deadline),
                }
            }
        }
        let mut wheel = self.wheel.borrow_mut();
        wheel.visited = wheel.visited.max(now);
    }

    /// Moves a watch to the slot of `due`.
    fn place(&self, watch: &Rc<Watch>, due: u64) {
        let mut wheel = self.wheel.borrow_mut();
        let next = wheel.next();
        wheel.remove(watch);
        let tick = wheel.insert(watch, due);
        drop(wheel);
        if next.is_none_or(|next| tick < next) {
            let sleeper = self.sleeper.borrow_mut().take();
            if let Some(sleeper) = sleeper {
                sleeper.wake();
            }
        }
    }

    /// The first tick at which `deadline` has passed.
    fn tick_after(&self, deadline: Instant) -> u64 {
        let ahead = deadline.saturating_duration_since(self.origin);
        tick_count(ahead.as_nanos().div_ceil(TICK.as_nanos()))
    }
}

fn tick_count(ticks: u128) -> u64 {
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

fn slot_of(tick: u64) -> usize {
    usize::try_from(tick % SLOTS as u64).expect("below SLOTS")
}

impl Wheel {
    /// Puts a watch into the slot of `due`, or the last of this round where
    /// that is further off; gives the tick of its visit.
    fn insert(&mut self, watch: &Rc<Watch>, due: u64) -> u64 {
        let first = self.visited + 1;
        let tick = due.clamp(first, first + SLOTS as u64 - 1);
        let slot = &mut self.slots[slot_of(tick)];
        watch.place.set(Some(Place {
            tick,
            index: slot.len(),
        }));
        slot.push(Rc::clone(watch));
        self.entries += 1;
        self.empty_before = self.empty_before.min(tick);
        tick
    }

    fn remove(&mut self, watch: &Rc<Watch>) {
        let Some(place) = watch.place.take() else {
            return;
        };
        let slot = &mut self.slots[slot_of(place.tick)];
        let removed = slot.swap_remove(place.index);
        debug_assert!(Rc::ptr_eq(&removed, watch));
        if let Some(moved) = slot.get(place.index) {
            moved.place.set(Some(place));
        }
        self.entries -= 1;
    }

    /// The next tick whose slot holds a watch.
    fn next(&mut self) -> Option<u64> {
        if self.entries == 0 {
            return None;
        }
        let from = self.empty_before.max(self.visited + 1);
        let next = (from..from + SLOTS as u64)
            .find(|tick| !self.slots[slot_of(*tick)].is_empty())
            .expect("an entry is in one of the slots of this round");
        self.empty_before = next;
        Some(next)
    }

    fn take(&mut self, tick: u64) -> Vec<Rc<Watch>> {
        self.visited = tick;
        let watches = std::mem::take(&mut self.slots[slot_of(tick)]);
        self.entries -= watches.len();
        for watch in &watches {
            watch.place.set(None);
        }
        watches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadlines() -> (Instant, Rc<Deadlines>) {
        let start = Instant::now();
        (start, Rc::new(Deadlines::new(start)))
    }

    fn signalled(alarm: &Alarm) -> Option<Signal> {
        let mut context = Context::from_waker(Waker::noop());
        match alarm.poll_signal(&mut context) {
            Poll::Ready(signal) => Some(signal),
            Poll::Pending => None,
        }
    }

    fn next(deadlines: &Deadlines) -> Option<Instant> {
        deadlines.next(&Context::from_waker(Waker::noop()))
    }

    fn entries(deadlines: &Deadlines) -> usize {
        deadlines.wheel.borrow().entries
    }

    #[test]
    fn a_deadline_is_met_late_by_less_than_two_ticks_and_never_early() {
        for millis in [0, 1, 249, 250, 251, 999, 60_000, 600_000, 5_000_000] {
            let (start, deadlines) = deadlines();
            let alarm = Alarm::new(&deadlines);
            let deadline = start + Duration::from_millis(millis);
            alarm.set(deadline);
            let mut now = start;
            while signalled(&alarm).is_none() {
                now = next(&deadlines).expect("set");
                deadlines.advance(now);
            }
            assert_eq!(signalled(&alarm), Some(Signal::Deadline));
            assert!(now >= deadline, "{millis} ms: early");
            assert!(now < deadline + 2 * TICK, "{millis} ms: late");
            assert_eq!(next(&deadlines), None);
        }
    }

    #[test]
    fn moving_a_deadline_later_does_not_touch_the_wheel() {
        let (start, deadlines) = deadlines();
        let alarm = Alarm::new(&deadlines);
        alarm.set(start + Duration::from_secs(1));
        let place = alarm.watch.place.get().expect("on the wheel").tick;
        for seconds in 2..100 {
            alarm.set(start + Duration::from_secs(seconds));
            assert_eq!(alarm.watch.place.get().map(|at| at.tick), Some(place));
        }
        assert_eq!(entries(&deadlines), 1);
        deadlines.advance(start + Duration::from_secs(98));
        assert_eq!(signalled(&alarm), None);
        deadlines.advance(start + Duration::from_secs(99));
        assert_eq!(signalled(&alarm), Some(Signal::Deadline));
    }

    #[test]
    fn an_earlier_deadline_is_met_and_a_new_one_quietens_the_signal() {
        let (start, deadlines) = deadlines();
        let alarm = Alarm::new(&deadlines);
        alarm.set(start + Duration::from_mins(10));
        alarm.set(start + Duration::from_secs(5));
        assert_eq!(entries(&deadlines), 1);
        deadlines.advance(start + Duration::from_secs(6));
        assert_eq!(signalled(&alarm), Some(Signal::Deadline));
        alarm.set(start + Duration::from_mins(15));
        assert_eq!(signalled(&alarm), None);
        deadlines.advance(start + Duration::from_secs(700));
        assert_eq!(signalled(&alarm), None);
        deadlines.advance(start + Duration::from_secs(901));
        assert_eq!(signalled(&alarm), Some(Signal::Deadline));
    }

    #[test]
    fn dropped_alarms_leave_the_wheel_whatever_their_order() {
        let (start, deadlines) = deadlines();
        let at = |n: u64| start + Duration::from_secs(1 + n % 3);
        let mut alarms: Vec<Alarm> = (0..64)
            .map(|n| {
                let alarm = Alarm::new(&deadlines);
                alarm.set(at(n));
                alarm
            })
            .collect();
        let mut state = 7usize;
        while !alarms.is_empty() {
            assert_eq!(entries(&deadlines), alarms.len());
            state = state.wrapping_mul(25).wrapping_add(11) % 1009;
            drop(alarms.swap_remove(state % alarms.len()));
        }
        assert_eq!(next(&deadlines), None);
        deadlines.advance(start + Duration::from_secs(5));
    }

    #[test]
    fn the_order_to_close_outlives_deadlines() {
        let (start, deadlines) = deadlines();
        let alarm = Alarm::new(&deadlines);
        alarm.watch().shut_down();
        alarm.set(start + Duration::from_secs(1));
        assert_eq!(signalled(&alarm), Some(Signal::Shutdown));
        deadlines.advance(start + Duration::from_secs(2));
        assert_eq!(signalled(&alarm), Some(Signal::Shutdown));
    }
}
