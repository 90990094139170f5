//! One thread of the run: its slots, its epoll, its clock.
//!
//! A slot plays one session after the other. Kernel calls are what a generator
//! spends its time on, so: a socket serves one session after the other; it is
//! registered once, edge-triggered, for reading and writing together, and never
//! again; it is read only after its
//! event and not read again when the read was short (where much is there, the
//! rest waits its turn on a list, for the kernel does not tell again); commands are written
//! without asking whether the socket takes them (only what it did not take
//! waits for the event); one `epoll_wait` serves all that is ready. Nagle's
//! algorithm is left on: with one command under way nothing is ever held back,
//! and turning it off would be a call more.
//!
//! epoll and not `io_uring`: of two bare clients that know no POP3, interleaved
//! (benches/README.md, `sessions -- generator`), the one with a ring (direct descriptors,
//! multishot receives, one call for all sessions that are ready) took 0.99 to 1.07 of
//! what the one with epoll did. What a session costs is TCP, and the simpler of the two
//! stays.
//!
//! A session ends when the server closes after its reply to QUIT: whoever
//! closes first keeps the port in TIME-WAIT, and a client that did would run
//! out of ports, or would log in again before the maildrop is free. What is left
//! is then taken off the socket, by a reset ([`Close::Reset`]): a FIN would cost
//! its segment and its answer, a new socket and its registration, and the
//! server's kernel a port in TIME-WAIT: 5 us of 34 for a poll session here. A
//! server that has closed does not see it. One that has only shut down its side,
//! or stands behind a proxy that has, sees a reset where a client's FIN would
//! come, and for it there is [`Close::Fin`].
//!
//! Time-outs are looked for ten times a second over all slots rather than kept
//! by a timer each: they are rare and need no precision. Pauses and the chaotic
//! sessions' ticks have timers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::account::Account;
use crate::args::Chaos;
#[cfg(doc)]
use crate::args::Close;
use crate::dialogue::{Dialogue, Surroundings};
use crate::fault::{Fault, Kind};
use crate::measure::{Interval, Record};
use crate::pace::Clock;
use crate::plan::{Load, Plan};
use crate::pool::Pool;
use crate::random::Random;
use crate::slot::{Link, Slot};

mod connection;

/// Octets read at once: a whole message of mean size, or much of a large one.
const READ: usize = 256 * 1024;
/// How often a socket is read before the other slots and the clock have their turn: a
/// server that sends faster than it is read would else have the thread to itself.
const READS: usize = 4;
/// Events taken from the kernel at once.
const EVENTS: usize = 256;
/// How often slots are looked over for time-outs, and the run's end is noticed.
const LOOK: Duration = Duration::from_millis(100);
/// First rest of a slot after a failure; doubled with each further one.
const FIRST_REST: Duration = Duration::from_millis(100);
/// Longest rest of a slot.
const LONGEST_REST: Duration = Duration::from_secs(5);
/// Logins under way at a time on a thread while idle sessions are gathered: a
/// server whose logins queue up shall not be tried with ten thousand at once.
const IDLE_LOGINS: usize = 32;
/// How long a user rests whose session ended without QUIT: so long may a server
/// take to notice, and hold the maildrop.
const QUARANTINE: Duration = Duration::from_secs(1);
/// Length of the time line's intervals.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// What the threads and their coordinator tell each other.
#[derive(Debug, Default)]
pub struct Shared {
    /// No session is begun any more but those that are due; idle ones quit.
    pub stop: AtomicBool,
    /// What is due is not begun either.
    cut: AtomicBool,
    /// Sessions under way are dropped, and count as not answered in time.
    pub abandon: AtomicBool,
    /// The operator interrupted: sessions under way are dropped and not counted.
    pub interrupt: AtomicBool,
    /// Sessions begun.
    pub begun: AtomicU64,
    /// Sessions that came to their end or to idleness, faulty or not.
    pub lived: AtomicU64,
    /// Sessions that broke off.
    pub broken: AtomicU64,
    /// Sessions idle now.
    pub idle: AtomicU64,
    /// Connections that are open, or on their way.
    open: AtomicU64,
}

impl Shared {
    /// Ends the run, whatever the schedule has still to come.
    pub fn cut(&self) {
        self.cut.store(true, Relaxed);
        self.stop.store(true, Relaxed);
    }
}

/// One thread's share of the run.
#[derive(Debug)]
pub struct Engine<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    timeline: Sender<Interval>,
    started: Instant,
    epoll: OwnedFd,
    slots: Vec<Slot>,
    /// The first slots are for sessions that behave; those behind, for the others.
    sane: usize,
    /// Slots for sessions that misbehave and have none.
    places: Vec<usize>,
    /// Sane slots that have a user.
    engaged: usize,
    /// Global number of the first slot and user: those of all threads interleave.
    thread: usize,
    record: Record,
    /// What sessions that misbehave come to: not the server's figures.
    shadow: Record,
    interval_ends: Instant,
    pool: Pool,
    accounts: Vec<Account>,
    /// Users on their way back to the pool.
    quarantine: VecDeque<(Instant, usize)>,
    /// Slots that are [`Link::Ready`], last first.
    ready: Vec<usize>,
    /// Slots whose sockets have more than one turn may read, each once.
    hungry: VecDeque<usize>,
    /// When slots are to go on, with their turn.
    timers: BinaryHeap<Reverse<(Instant, usize, u32)>>,
    /// Open loop: the schedule, and sessions that are due and wait for a slot.
    clock: Option<Clock>,
    waiting: VecDeque<Instant>,
    random: Random,
    logins: usize,
    over: usize,
    /// As many sessions as may be are begun.
    spent: bool,
    plain: Vec<u8>,
}

impl<'a> Engine<'a> {
    /// The share of thread number `thread` of `plan.threads`.
    pub fn new(
        plan: &'a Plan,
        shared: &'a Shared,
        timeline: Sender<Interval>,
        started: Instant,
        thread: usize,
    ) -> io::Result<Self> {
        let sane = (thread..plan.sessions).step_by(plan.threads);
        let chaotic = plan.sessions..plan.sessions + plan.chaotic_sessions;
        let chaotic = chaotic.skip(thread).step_by(plan.threads);
        let slots: Vec<Slot> = (sane.clone().chain(chaotic))
            .map(|number| Slot {
                link: Link::Ready(None),
                dialogue: Dialogue::new(
                    Arc::clone(&plan.conduct),
                    plan.seed ^ (number as u64) << 32,
                    started,
                ),
                out: Vec::new(),
                tls: None,
                deadline: started,
                user: None,
                chaos: None,
                rest: FIRST_REST,
                turn: 0,
                hungry: false,
            })
            .collect();
        let numbers = (thread..plan.logins.len()).step_by(plan.threads);
        let ranks = numbers.map(|number| number + 1);
        let users = ranks.len();
        let clock = match &plan.load {
            Load::Closed => None,
            Load::Open(schedule, arrivals) => {
                let clock = Clock::new(schedule, *arrivals, thread, plan.threads, plan.seed);
                Some(clock)
            }
        };
        let seed = plan.seed ^ (thread as u64) << 16;
        Ok(Self {
            plan,
            shared,
            timeline,
            started,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            ready: (0..sane.len()).rev().collect(),
            places: (sane.len()..slots.len()).collect(),
            sane: sane.len(),
            engaged: 0,
            slots,
            thread,
            record: Record::default(),
            shadow: Record::default(),
            interval_ends: started + INTERVAL,
            pool: Pool::new(ranks, plan.choice, seed),
            accounts: (0..users).map(|_| Account::default()).collect(),
            quarantine: VecDeque::new(),
            hungry: VecDeque::new(),
            timers: BinaryHeap::new(),
            clock,
            waiting: VecDeque::new(),
            random: Random::new(seed.rotate_left(7)),
            logins: 0,
            over: 0,
            spent: false,
            plain: Vec::new(),
        })
    }

    /// Plays until the run is over, and gives what was counted.
    pub fn run(mut self) -> io::Result<Record> {
        let mut buffer = vec![0; READ];
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        let mut next_look = self.started;
        while self.over < self.slots.len() {
            let now = Instant::now();
            if now >= next_look {
                next_look = now + LOOK;
                self.look_over(now);
                if self.shared.interrupt.load(Relaxed) {
                    break;
                }
                if self.shared.abandon.load(Relaxed) {
                    self.abandon(now);
                    break;
                }
            }
            if now >= self.interval_ends {
                self.end_interval(now);
            }
            self.arrive(now);
            self.fire_timers(now, &mut buffer);
            self.begin_ready(now);
            let wait = if self.hungry.is_empty() {
                let next = self.next_event(next_look);
                next.saturating_duration_since(Instant::now())
            } else {
                Duration::ZERO
            };
            let wait = Timespec::try_from(wait).expect("a short time");
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                let (flags, data) = (event.flags, event.data);
                let slot = usize::try_from(data.u64()).expect("an index that was an usize");
                self.serve(slot, flags, &mut buffer);
            }
            self.feed(&mut buffer);
        }
        self.end_interval(Instant::now());
        self.record.chaos_failed = self.shadow.failed;
        let used = clock_gettime(ClockId::ThreadCPUTime);
        let used = Duration::try_from(used).unwrap_or_default();
        self.record.busiest = used.as_secs_f64() / self.started.elapsed().as_secs_f64().max(1e-9);
        Ok(self.record)
    }

    /// Whether no session is begun any more.
    fn stopping(&self) -> bool {
        let due = match &self.clock {
            Some(clock) => !self.waiting.is_empty() || clock.next().is_some(),
            None => false,
        };
        self.spent || (self.shared.stop.load(Relaxed) && !due)
    }

    fn next_event(&self, next_look: Instant) -> Instant {
        let due = self.clock.as_ref().and_then(Clock::next);
        let timer = self.timers.peek().map(|Reverse((at, _, _))| *at);
        [due.map(|due| self.started + due), timer]
            .into_iter()
            .flatten()
            .fold(next_look, Instant::min)
    }

    /// Sessions that are due.
    fn arrive(&mut self, now: Instant) {
        let Some(clock) = &mut self.clock else {
            return;
        };
        let passed = now - self.started;
        while let Some(due) = clock.take(passed) {
            if !self.spent {
                self.record.late(passed.saturating_sub(due));
                self.waiting.push_back(self.started + due);
            }
        }
    }

    fn end_interval(&mut self, now: Instant) {
        self.interval_ends = now + INTERVAL;
        let from = now.saturating_duration_since(self.started).as_secs_f64();
        let mut interval = self.record.cut_interval(from);
        interval.waiting = self.waiting.len() as u64;
        // The coordinator is gone only when the run has failed.
        let _ = self.timeline.send(interval);
    }

    fn fire_timers(&mut self, now: Instant, buffer: &mut [u8]) {
        while let Some(Reverse((at, index, turn))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            if self.slots[index].turn == turn {
                self.tick(index, buffer, now);
            }
        }
    }

    fn set_timer(&mut self, index: usize, at: Instant) {
        let slot = &mut self.slots[index];
        slot.turn = slot.turn.wrapping_add(1);
        self.timers.push(Reverse((at, index, slot.turn)));
    }

    /// Wakes slots whose rest is over, gives up what is late, ends idle sessions.
    fn look_over(&mut self, now: Instant) {
        if self.shared.cut.load(Relaxed) {
            self.spent = true;
            self.waiting.clear();
        }
        while self
            .quarantine
            .front()
            .is_some_and(|(until, _)| now >= *until)
        {
            if let Some((_, user)) = self.quarantine.pop_front() {
                self.pool.give(user);
            }
        }
        let stopping = self.stopping();
        let told = self.shared.stop.load(Relaxed);
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            match slot.link {
                Link::Ready(_) | Link::Resting { .. } if stopping => {
                    slot.link = Link::Over;
                    self.over += 1;
                }
                Link::Resting { until } if now >= until => {
                    slot.link = Link::Ready(None);
                    let user = self.free_user(index);
                    self.pool
                        .give(user.expect("a slot that rests keeps its user"));
                    self.ready.push(index);
                }
                Link::Holding(_) if told => self.quit(index, now),
                // Nobody waits for the end of a pause when the run is over.
                Link::Pausing(_) if told => self.set_timer(index, now),
                Link::Stalled(_) if now >= slot.deadline => self.vanish(index, now),
                // Those that take their time do not make the run longer.
                _ if told && slot.chaos.is_some() && slot.socket().is_some() => {
                    self.vanish(index, now);
                }
                Link::Connecting(_) | Link::Talking(_) | Link::Closing(_)
                    if now >= slot.deadline =>
                {
                    self.give_up(index, now);
                }
                _ => {}
            }
        }
        if stopping {
            self.ready.clear();
            self.places.clear();
        }
    }

    /// The time-out of a slot has passed.
    fn give_up(&mut self, index: usize, now: Instant) {
        let seconds = self.plan.timeout.as_secs_f64();
        let fault = match &self.slots[index].link {
            Link::Connecting(_) => {
                Fault::new(Kind::Connect, format!("no connection within {seconds} s"))
            }
            Link::Closing(_) => {
                let text = format!("still open {seconds} s after the reply to QUIT");
                Fault::new(Kind::NoClose, text)
            }
            _ => Fault::new(Kind::Timeout, format!("no answer within {seconds} s")),
        };
        self.fail(index, fault, now);
    }

    /// Counts sessions that outlive the run, and those that were due and never
    /// begun.
    fn abandon(&mut self, now: Instant) {
        let late = || Fault::new(Kind::Timeout, "the run is over and the session is not");
        for index in 0..self.slots.len() {
            if self.slots[index].socket().is_some() {
                self.fail(index, late(), now);
            }
        }
        for _ in 0..self.waiting.len() {
            let fault = Fault::new(Kind::Timeout, "was due, and no session came free for it");
            self.record.fault(&fault, "nobody");
            self.record.failed += 1;
        }
    }

    fn begin_ready(&mut self, now: Instant) {
        let holds = self.plan.conduct.mix.holds();
        while !(holds && self.logins >= IDLE_LOGINS) {
            if self.clock.is_some() && self.waiting.is_empty() {
                return;
            }
            let Some(index) = self.ready.pop() else {
                return;
            };
            if !self.begin(index, now) {
                return;
            }
        }
    }

    /// Begins a session on a ready slot, or ends the slot. False: no user is
    /// free, and the slot waits.
    fn begin(&mut self, index: usize, now: Instant) -> bool {
        if self.stopping() {
            return self.end(index);
        }
        while let Some((place, chaos)) = self.draw_chaos() {
            let Some(intended) = self.admitted(now) else {
                self.places.push(place);
                return self.end(index);
            };
            self.record.chaos[chaos as usize] += 1;
            self.slots[place].user = self.pool.take();
            self.slots[place].chaos = Some(chaos);
            self.open(place, intended, now);
            if self.clock.is_some() {
                self.ready.push(index);
                return true;
            }
        }
        let Some(user) = self.pool.take() else {
            self.ready.push(index);
            return false;
        };
        let Some(intended) = self.admitted(now) else {
            self.pool.give(user);
            return self.end(index);
        };
        self.slots[index].user = Some(user);
        self.engaged += 1;
        self.open(index, intended, now);
        true
    }

    /// When the next session was meant to begin. `None`: as many as may be are begun.
    fn admitted(&mut self, now: Instant) -> Option<Instant> {
        if self.shared.begun.fetch_add(1, Relaxed) >= self.plan.max_sessions {
            self.spent = true;
            self.waiting.clear();
            return None;
        }
        Some(self.waiting.pop_front().unwrap_or(now))
    }

    /// A slot has nothing more to do.
    fn end(&mut self, index: usize) -> bool {
        self.slots[index].link = Link::Over;
        self.over += 1;
        true
    }

    /// Whether the next session misbehaves, how and where. It does where there is a
    /// place for it, and a user whom nobody else will need.
    fn draw_chaos(&mut self) -> Option<(usize, Chaos)> {
        let misconduct = self.plan.chaos.as_ref()?;
        if self.random.fraction() >= misconduct.share {
            return None;
        }
        let needed = match self.clock {
            Some(_) => 0,
            None => self.sane - self.engaged,
        };
        let spare = self.pool.free() > needed;
        let place = self.places.pop_if(|_| spare)?;
        let kind = misconduct.kinds[self.random.below(misconduct.kinds.len())];
        Some((place, kind))
    }

    /// A slot's session is over; its user, if it had one.
    fn free_user(&mut self, index: usize) -> Option<usize> {
        let user = self.slots[index].user.take();
        self.engaged -= usize::from(index < self.sane && user.is_some());
        user
    }

    /// Plays a part of a session with what it needs around it.
    fn with<R>(
        &mut self,
        index: usize,
        now: Instant,
        part: impl FnOnce(&mut Dialogue, &mut Surroundings<'_>) -> R,
    ) -> R {
        let slot = &mut self.slots[index];
        let user = slot.user.expect("a session has a user");
        let number = self.thread + user * self.plan.threads;
        let mut around = Surroundings {
            now,
            login: &self.plan.logins[number],
            user: number,
            account: &mut self.accounts[user],
            record: if slot.chaos.is_none() {
                &mut self.record
            } else {
                &mut self.shadow
            },
            out: if slot.tls.is_none() {
                &mut slot.out
            } else {
                &mut self.plain
            },
        };
        part(&mut slot.dialogue, &mut around)
    }
}
