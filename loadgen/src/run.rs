//! A run from its first connection to its last: threads, clock, interrupts.
//!
//! The thread that calls [`run`] starts the others, watches the clock and the
//! signals, and measures the server before the first connection and after the
//! last, so that the CPU time belongs to exactly the sessions that are counted.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::engine::{Engine, Shared};
use crate::interrupt::Interrupt;
use crate::live::View;
use crate::measure::{Interval, Record};
use crate::plan::{Load, OTHER_DESCRIPTORS, Plan};
use crate::random::Random;
use crate::server_process::{Memory, Observation, Watched};
use crate::source::Source;
use crate::timeline::{Moment, Timeline};

/// How often the coordinator looks at the clock and the signals.
const LOOK: Duration = Duration::from_millis(10);
/// How often it looks at the server's memory, and shows how things are.
const SAMPLE: Duration = Duration::from_millis(500);
/// Failures without a single success after which a run is given up.
const HOPELESS: u64 = 20;
/// A thread that is on its CPU for more of its time than this has no more to
/// give: what it measures is itself.
const BUSIEST: f64 = 0.95;
/// By how much one session in a hundred may begin late before the schedule is
/// no longer what was asked for.
const LATEST: Duration = Duration::from_millis(10);

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// What all threads counted.
    pub record: Record,
    /// The same second by second.
    pub timeline: Vec<Moment>,
    /// When it began.
    pub started: SystemTime,
    /// From the first connection to the end of the last session.
    pub elapsed: Duration,
    /// CPU time of this process for it.
    pub own_cpu: Duration,
    /// What the server used, where it was named.
    pub server: Option<ServerUse>,
    /// Sessions that were held idle together, for that profile.
    pub held: Option<u64>,
    /// Messages delivered.
    pub delivered: Option<u64>,
    /// The operator ended the run early.
    pub interrupted: bool,
    /// Why the run was given up.
    pub given_up: Option<String>,
    /// Why the figures are the generator's more than the server's.
    pub invalid: Option<String>,
    /// Which figures are the generator's own more than the server's.
    pub doubtful: Option<String>,
}

/// What the server used.
#[derive(Debug)]
pub struct ServerUse {
    /// CPU time during the run.
    pub cpu: Duration,
    /// CPU time while sessions were held idle.
    pub idle_cpu: Option<Duration>,
    /// Context switches, voluntary and not, of threads that are there still.
    pub switches: (u64, u64),
    /// All of them, also of what has ended, where they can be counted.
    pub all_switches: Option<u64>,
    /// Memory before the first connection.
    pub before: Memory,
    /// Memory with all sessions held, or else at the end.
    pub after: Memory,
    /// The most anonymous memory and processes that were seen during the run.
    pub most: Memory,
}

/// Plays the plan. `interrupt` is the operator's wish to end.
///
/// Errors are for the operator: what could not be had, and the remedy.
pub fn run(
    plan: &Plan,
    watched: Option<&Watched>,
    interrupt: &Interrupt,
    view: View,
) -> Result<Outcome, String> {
    raise_descriptors(plan.sessions + plan.chaotic_sessions)?;
    let server = watched.map(observe).transpose()?;
    let shared = Shared::default();
    interrupt.defer();
    let own_before = own_cpu();
    let (sender, receiver) = mpsc::channel();
    let clock = SystemTime::now();
    let started = Instant::now();
    let mut watch = Watch {
        plan,
        shared: &shared,
        interrupt,
        observation: server.as_ref().map(|(observation, _)| observation),
        started,
        intervals: receiver,
        timeline: Timeline::default(),
        errors: 0,
        view,
        next_sample: started + SAMPLE,
        most: Memory::default(),
        held: None,
        given_up: None,
    };
    let record = play_all(plan, &shared, sender, &mut watch)?;
    let elapsed = started.elapsed();
    let own_cpu = own_cpu().saturating_sub(own_before);
    watch.gather();
    let held = watch.held.take();
    let server = server
        .as_ref()
        .map(|(observation, before)| used(observation, before, held.as_ref(), &watch.most))
        .transpose();
    // What the sessions came to is worth telling without the server's figures too.
    let server = server.unwrap_or_else(|error| {
        let ended = || format!("the server ended during the run: {error}");
        watch.given_up.get_or_insert_with(ended);
        None
    });
    let mut outcome = Outcome {
        invalid: invalid(plan, &record),
        doubtful: doubtful(&record),
        record,
        timeline: std::mem::take(&mut watch.timeline).moments(),
        started: clock,
        elapsed,
        own_cpu,
        server,
        held: held.map(|held| held.sessions),
        delivered: plan
            .deliver
            .and(plan.conduct.source.as_ref().map(Source::delivered)),
        interrupted: false,
        given_up: watch.given_up.take(),
    };
    audit(plan, &mut outcome, interrupt);
    outcome.interrupted = interrupt.wished();
    Ok(outcome)
}

/// Begins to measure the server, and says what memory it has.
fn observe(watched: &Watched) -> Result<(Observation, Memory), String> {
    let observation = Observation::begin(watched)?;
    let before = observation.memory()?;
    Ok((observation, before))
}

/// What the server used, once the run is over.
fn used(
    observation: &Observation,
    before: &Memory,
    held: Option<&Held>,
    most: &Memory,
) -> Result<ServerUse, String> {
    let after = match held.and_then(|held| held.memory) {
        Some(memory) => memory,
        None => observation.memory()?,
    };
    Ok(ServerUse {
        cpu: observation.cpu()?,
        idle_cpu: held.and_then(|held| held.cpu),
        switches: observation.context_switches()?,
        all_switches: observation.all_context_switches(),
        before: *before,
        after,
        most: most.at_least(&after),
    })
}

/// All threads, and the coordinator beside them.
fn play_all(
    plan: &Plan,
    shared: &Shared,
    sender: Sender<Interval>,
    watch: &mut Watch<'_>,
) -> Result<Record, String> {
    let started = watch.started;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|number| {
                let sender = sender.clone();
                scope.spawn(move || play(plan, shared, sender, started, number))
            })
            .collect();
        drop(sender);
        let postman = plan
            .deliver
            .map(|rate| scope.spawn(move || deliver(plan, shared, rate)));
        let alive = || threads.iter().any(|thread| !thread.is_finished());
        watch.until_over(&alive);
        let mut all = Record::default();
        let panicked = |_| "a thread panicked".to_owned();
        for thread in threads {
            all.merge(thread.join().map_err(panicked)??);
        }
        // Without deliveries the run is not what was asked for, and is over; what was
        // counted until then is told all the same.
        if let Some(postman) = postman
            && let Err(error) = postman.join().map_err(panicked)?
        {
            watch.given_up.get_or_insert(error);
        }
        Ok(all)
    })
}

/// Delivers mail until no session is begun any more.
fn deliver(plan: &Plan, shared: &Shared, rate: f64) -> Result<(), String> {
    let Some(source) = &plan.conduct.source else {
        return Ok(());
    };
    let mut random = Random::new(plan.seed.rotate_left(32));
    let (started, gap) = (Instant::now(), Duration::from_secs_f64(1.0 / rate));
    for number in 0..u32::MAX {
        let due = started + gap.saturating_mul(number);
        loop {
            if shared.stop.load(Relaxed) {
                return Ok(());
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(LOOK));
        }
        let user = random.below(plan.logins.len());
        if let Err(error) = source.deliver(user, plan.seed) {
            shared.cut();
            return Err(error);
        }
    }
    Ok(())
}

/// Whether the generator kept up, and if not, why.
fn invalid(plan: &Plan, record: &Record) -> Option<String> {
    let late = Duration::from_nanos(record.lag.value_at_percentile(99.0));
    if plan.load != Load::Closed && late > LATEST {
        return Some(format!(
            "the generator fell behind its schedule: one session in a hundred began more than \
             {:.1} ms late (its busiest thread was on its CPU for {:.0} % of the time); give it \
             more --threads and CPUs, or lower --rate",
            late.as_secs_f64() * 1e3,
            record.busiest * 100.0
        ));
    }
    (record.busiest > BUSIEST).then(|| {
        format!(
            "the generator had no CPU left: its busiest thread was on its CPU for {:.0} % of the \
             time; give it more --threads and CPUs",
            record.busiest * 100.0
        )
    })
}

/// Which figures of sessions are made of the generator's lateness more than of the
/// server: a stall of its own that is too short to spoil the run reaches the longest
/// times first.
fn doubtful(record: &Record) -> Option<String> {
    let shown = [
        ("p50", 50.0),
        ("p99", 99.0),
        ("p99.9", 99.9),
        ("max", 100.0),
    ];
    let made = shown.iter().filter_map(|(name, percentile)| {
        let late = record.lag.value_at_percentile(*percentile);
        let session = record.session.value_at_percentile(*percentile);
        (late > session / 2).then(|| {
            let late = Duration::from_nanos(late).as_secs_f64() * 1e3;
            format!("{name} (sessions began up to {late:.2} ms late)")
        })
    });
    let made: Vec<String> = made.collect();
    let none = made.is_empty() || record.session.is_empty();
    (!none).then(|| {
        let made = made.join(", ");
        format!("more than half of these session latencies is the generator's own lateness: {made}")
    })
}

/// Compares the Maildirs with what should be in them, or as many of them as the
/// operator has the patience for. One that cannot be read takes no figure with it.
fn audit(plan: &Plan, outcome: &mut Outcome, interrupt: &Interrupt) {
    let Some(source) = &plan.conduct.source else {
        return;
    };
    for (user, login) in plan.logins.iter().enumerate() {
        if interrupt.wished() {
            break;
        }
        match source.audit(user) {
            Ok(faults) => {
                for fault in faults {
                    outcome.record.fault(&fault, &login.user);
                }
            }
            Err(error) => {
                let told = || format!("the Maildirs cannot be compared: {error}");
                outcome.given_up.get_or_insert_with(told);
            }
        }
    }
}

/// One thread's part. A thread that cannot play its part ends the run.
fn play(
    plan: &Plan,
    shared: &Shared,
    timeline: Sender<Interval>,
    started: Instant,
    number: usize,
) -> Result<Record, String> {
    let played = pin(plan, number).and_then(|()| {
        let engine = Engine::new(plan, shared, timeline, started, number).and_then(Engine::run);
        engine.map_err(|e| format!("epoll: {e}"))
    });
    if played.is_err() {
        shared.cut();
    }
    played
}

fn pin(plan: &Plan, number: usize) -> Result<(), String> {
    let Some(cpu) = plan.cpus.iter().cycle().nth(number) else {
        return Ok(());
    };
    let mut set = CpuSet::new();
    set.set(*cpu);
    sched_setaffinity(None, &set).map_err(|e| format!("--cpu {cpu}: {}", io::Error::from(e)))
}

/// What was seen while sessions were held idle.
#[derive(Debug)]
struct Held {
    sessions: u64,
    memory: Option<Memory>,
    cpu: Option<Duration>,
}

/// The coordinator's view of the run.
struct Watch<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    interrupt: &'a Interrupt,
    observation: Option<&'a Observation>,
    started: Instant,
    intervals: Receiver<Interval>,
    timeline: Timeline,
    errors: u64,
    view: View,
    next_sample: Instant,
    most: Memory,
    held: Option<Held>,
    given_up: Option<String>,
}

impl Watch<'_> {
    /// Returns when all threads are about to end. Threads end on an error too:
    /// whatever happens here, they are told to stop.
    fn until_over(&mut self, alive: &dyn Fn() -> bool) {
        if self.plan.conduct.mix.holds() {
            self.hold(alive);
        } else {
            self.wait(self.started + self.plan.duration, alive);
        }
        if self.given_up.is_some() {
            self.shared.cut();
        }
        self.shared.stop.store(true, Relaxed);
        let ends = Instant::now();
        let mut patience = ends + self.plan.timeout + Duration::from_secs(1);
        // Of a schedule that no server could keep there may be hours left.
        let longest = patience + self.plan.duration;
        let mut lived = 0;
        while alive() {
            // What is due and late is still begun, as long as sessions end.
            let now_lived = self.shared.lived.load(Relaxed);
            if now_lived > lived {
                lived = now_lived;
                patience = Instant::now() + self.plan.timeout + Duration::from_secs(1);
                patience = patience.min(longest);
            }
            if self.interrupt.wished() {
                self.shared.interrupt.store(true, Relaxed);
            } else if Instant::now() >= patience {
                self.shared.abandon.store(true, Relaxed);
            }
            self.look();
            thread::sleep(LOOK);
        }
    }

    /// Waits until then, the end of all sessions, an interrupt or despair.
    fn wait(&mut self, until: Instant, alive: &dyn Fn() -> bool) {
        while Instant::now() < until && self.goes_on(alive) {
            self.look();
            thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
        }
    }

    /// Takes what the threads have sent.
    fn gather(&mut self) {
        while let Ok(interval) = self.intervals.try_recv() {
            self.errors += interval.faults;
            self.timeline.add(&interval);
        }
    }

    /// Samples the server's memory and shows how things are, now and then.
    fn look(&mut self) {
        if Instant::now() < self.next_sample {
            return;
        }
        self.next_sample = Instant::now() + SAMPLE;
        self.gather();
        if let Some(Ok(memory)) = self.observation.map(Observation::memory) {
            self.most = self.most.at_least(&memory);
        }
        let passed = self.started.elapsed();
        self.view.show(passed, self.timeline.last(), self.errors);
    }

    fn goes_on(&mut self, alive: &dyn Fn() -> bool) -> bool {
        let broken = self.shared.broken.load(Relaxed);
        let hopeless = HOPELESS.min(self.plan.sessions as u64);
        if self.shared.lived.load(Relaxed) == 0 && broken >= hopeless {
            self.given_up = Some(format!("given up: the first {broken} sessions all failed"));
        }
        self.given_up.is_none() && alive() && !self.interrupt.wished()
    }

    /// Gathers all sessions, holds them, and measures the server meanwhile.
    fn hold(&mut self, alive: &dyn Fn() -> bool) {
        let wanted = self.plan.sessions as u64;
        let (mut most, mut patience) = (0, Instant::now() + self.plan.timeout);
        loop {
            let idle = self.shared.idle.load(Relaxed);
            if idle == wanted {
                break;
            }
            if idle > most {
                (most, patience) = (idle, Instant::now() + self.plan.timeout);
            }
            if Instant::now() >= patience {
                self.given_up = Some(format!(
                    "given up: only {idle} of {wanted} sessions are held"
                ));
            }
            if !self.goes_on(alive) {
                return;
            }
            self.look();
            thread::sleep(LOOK);
        }
        // Where the server has ended, the end of the run finds that out.
        let cpu = |watch: &Self| watch.observation.and_then(|o| o.cpu().ok());
        let cpu_before = cpu(self);
        self.wait(Instant::now() + self.plan.duration, alive);
        let cpu = cpu(self);
        self.held = Some(Held {
            sessions: self.shared.idle.load(Relaxed),
            memory: self.observation.and_then(|o| o.memory().ok()),
            cpu: cpu
                .zip(cpu_before)
                .map(|(after, before)| after.saturating_sub(before)),
        });
    }
}

/// Raises the soft limit of open files to the hard one.
fn raise_descriptors(sessions: usize) -> Result<(), String> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)
        .map_err(|e| format!("the limit of open files: {}", io::Error::from(e)))?;
    let needed = sessions as u64 + OTHER_DESCRIPTORS;
    match limit.maximum {
        Some(most) if most < needed => Err(format!(
            "{sessions} sessions need {needed} open files and the hard limit is {most}: \
             raise it (ulimit -Hn) or lower --sessions"
        )),
        _ => Ok(()),
    }
}

/// CPU time of this process.
fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::CommandLine;
    use clap::Parser as _;

    fn plan(load: &str) -> Plan {
        let line = format!("x --target 127.0.0.1:1 --profile poll --users u --password p {load}");
        let args = CommandLine::try_parse_from(line.split_whitespace()).expect("sound");
        Plan::new(&args.run, 0).expect("sound")
    }

    /// Of a thousand sessions, all but the last `late` in time.
    fn record(busiest: f64, late: usize) -> Record {
        let mut record = Record::default();
        record.busiest = busiest;
        for number in 0..1000 {
            record.session(Duration::from_millis(30));
            let lag = if number < late { 25 } else { 0 };
            record.late(Duration::from_millis(lag));
        }
        record
    }

    #[test]
    fn a_generator_without_cpu_to_spare_spoils_either_loop() {
        for load in ["--sessions 1", "--rate 5/s"] {
            assert_eq!(invalid(&plan(load), &record(0.94, 0)), None);
            let reason = invalid(&plan(load), &record(0.97, 0)).expect("full");
            assert!(reason.contains("97 % of the time"), "{reason}");
        }
    }

    #[test]
    fn lateness_spoils_the_run_or_the_figures_that_it_reaches() {
        let open = plan("--rate 5/s");
        assert!(invalid(&open, &record(0.1, 11)).is_some());
        let brief = record(0.1, 5);
        assert_eq!(invalid(&open, &brief), None);
        let told = doubtful(&brief).expect("half of one in a hundred");
        assert!(told.contains("p99.9") && told.contains("max"), "{told}");
        assert!(!told.contains("p99 "), "{told}");
        assert_eq!(doubtful(&record(0.1, 0)), None);
        assert_eq!(doubtful(&Record::default()), None);
    }
}
