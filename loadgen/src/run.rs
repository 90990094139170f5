//! A run from its first connection to its last: threads, clock, interrupts.
//!
//! The thread that calls [`run`] starts the others, watches the clock and the
//! signals, and measures the server before the first connection and after the
//! last, so that the CPU time belongs to exactly the sessions that are counted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::dialogue::Profile;
use crate::engine::{Engine, Shared};
use crate::measure::Record;
use crate::plan::Plan;
use crate::server_process::{Memory, Observation};

/// How often the coordinator looks at the clock and the signals.
const LOOK: Duration = Duration::from_millis(10);
/// Failures without a single success after which a run is given up.
const HOPELESS: u64 = 20;
/// Descriptors beside those of the sessions.
const OTHER_DESCRIPTORS: u64 = 32;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// What all threads counted.
    pub record: Record,
    /// From the first connection to the end of the last session.
    pub elapsed: Duration,
    /// CPU time of this process for it.
    pub own_cpu: Duration,
    /// What the server used, where it was named.
    pub server: Option<ServerUse>,
    /// Sessions that were held idle together, for that profile.
    pub held: Option<u64>,
    /// The operator ended the run early.
    pub interrupted: bool,
    /// Why the run was given up.
    pub given_up: Option<String>,
}

/// What the server used.
#[derive(Debug)]
pub struct ServerUse {
    /// CPU time during the run.
    pub cpu: Duration,
    /// CPU time while sessions were held idle.
    pub idle_cpu: Option<Duration>,
    /// Memory before the first connection.
    pub before: Memory,
    /// Memory with all sessions held, or else at the end.
    pub after: Memory,
}

/// Plays the plan.
///
/// Errors are for the operator: what could not be had, and the remedy.
pub fn run(plan: &Plan, server_pids: &[u32]) -> Result<Outcome, String> {
    raise_descriptors(plan.sessions)?;
    let interrupt = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupt))
            .map_err(|e| format!("signal {signal} cannot be handled: {e}"))?;
    }
    let server = match server_pids {
        [] => None,
        pids => {
            let observation = Observation::begin(pids)?;
            let before = observation.memory()?;
            Some((observation, before))
        }
    };
    let shared = Shared::default();
    let started = Instant::now();
    let mut watch = Watch {
        plan,
        shared: &shared,
        interrupt: &interrupt,
        observation: server.as_ref().map(|(observation, _)| observation),
        held: None,
        given_up: None,
    };
    let record = thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|number| {
                let shared = &shared;
                scope.spawn(move || play(plan, shared, number))
            })
            .collect();
        let alive = || threads.iter().any(|thread| !thread.is_finished());
        let watched = watch.until_over(started, &alive);
        let mut all = Record::default();
        for thread in threads {
            all.merge(
                thread
                    .join()
                    .map_err(|_| "a thread panicked".to_owned())??,
            );
        }
        watched.map(|()| all)
    })?;
    let elapsed = started.elapsed();
    let Watch { held, given_up, .. } = watch;
    let server = server.map(|(observation, before)| {
        Ok::<_, String>(ServerUse {
            cpu: observation.cpu()?,
            idle_cpu: held.as_ref().and_then(|held| held.cpu),
            before,
            after: match held.as_ref().and_then(|held| held.memory) {
                Some(memory) => memory,
                None => observation.memory()?,
            },
        })
    });
    Ok(Outcome {
        record,
        elapsed,
        own_cpu: own_cpu(),
        server: server.transpose()?,
        held: held.map(|held| held.sessions),
        interrupted: interrupt.load(Relaxed),
        given_up,
    })
}

/// One thread's part. A thread that cannot play its part ends the run.
fn play(plan: &Plan, shared: &Shared, number: usize) -> Result<Record, String> {
    let played = pin(plan, number).and_then(|()| {
        let engine = Engine::new(plan, shared, number).and_then(Engine::run);
        engine.map_err(|e| format!("epoll: {e}"))
    });
    if played.is_err() {
        shared.stop.store(true, Relaxed);
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
    interrupt: &'a AtomicBool,
    observation: Option<&'a Observation>,
    held: Option<Held>,
    given_up: Option<String>,
}

impl Watch<'_> {
    /// Returns when all threads are about to end. Threads end on an error too:
    /// whatever happens here, they are told to stop.
    fn until_over(&mut self, started: Instant, alive: &dyn Fn() -> bool) -> Result<(), String> {
        let result = if self.plan.profile == Profile::Idle {
            self.hold(alive)
        } else {
            self.wait(started + self.plan.duration, alive);
            Ok(())
        };
        self.shared.stop.store(true, Relaxed);
        let patience = Instant::now() + self.plan.timeout + Duration::from_secs(1);
        while alive() {
            if self.interrupt.load(Relaxed) {
                self.shared.interrupt.store(true, Relaxed);
            } else if Instant::now() >= patience {
                self.shared.abandon.store(true, Relaxed);
            }
            thread::sleep(LOOK);
        }
        result
    }

    /// Waits until then, the end of all sessions, an interrupt or despair.
    fn wait(&mut self, until: Instant, alive: &dyn Fn() -> bool) {
        while Instant::now() < until && self.goes_on(alive) {
            thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
        }
    }

    fn goes_on(&mut self, alive: &dyn Fn() -> bool) -> bool {
        let broken = self.shared.broken.load(Relaxed);
        let hopeless = HOPELESS.min(self.plan.sessions as u64);
        if self.shared.lived.load(Relaxed) == 0 && broken >= hopeless {
            self.given_up = Some(format!("given up: the first {broken} sessions all failed"));
        }
        self.given_up.is_none() && alive() && !self.interrupt.load(Relaxed)
    }

    /// Gathers all sessions, holds them, and measures the server meanwhile.
    fn hold(&mut self, alive: &dyn Fn() -> bool) -> Result<(), String> {
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
                return Ok(());
            }
            thread::sleep(LOOK);
        }
        let cpu_before = self.observation.map(Observation::cpu).transpose()?;
        self.wait(Instant::now() + self.plan.duration, alive);
        let cpu = self.observation.map(Observation::cpu).transpose()?;
        self.held = Some(Held {
            sessions: self.shared.idle.load(Relaxed),
            memory: self.observation.map(Observation::memory).transpose()?,
            cpu: cpu
                .zip(cpu_before)
                .map(|(after, before)| after.saturating_sub(before)),
        });
        Ok(())
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
