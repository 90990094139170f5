//! CPU time and memory of the server's processes, from /proc (proc(5)).
//!
//! Two clocks tell a process's CPU time. `stat` counts every thread, those that
//! have ended too, in ticks of 10 ms. `task/*/schedstat` counts nanoseconds, but
//! only of threads that are still there. The fine clock is believed when it
//! agrees with the coarse one to within the coarse one's rounding; where it
//! does not, threads ended during the run and the coarse clock is right.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// What the clocks of a process stood at.
#[derive(Clone, Debug)]
struct Clock {
    ticks: u64,
    threads: BTreeMap<u32, u64>,
}

/// Memory of the processes together, in octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// `VmRSS`: resident, shared pages counted in each process.
    pub resident: u64,
    /// `RssAnon`: resident and backed by no file: the process's own.
    pub anonymous: u64,
    /// `VmHWM`: the most that was ever resident.
    pub peak: u64,
    /// `Pss` of `smaps_rollup`, shared pages divided among their users; `None`
    /// where it may not be read.
    pub proportional: Option<u64>,
    /// Threads.
    pub threads: u64,
}

/// A measurement that began.
#[derive(Debug)]
pub struct Observation {
    clocks: BTreeMap<u32, Clock>,
}

impl Observation {
    /// Begins to measure these processes.
    ///
    /// Errors are for the operator: they name the process.
    pub fn begin(pids: &[u32]) -> Result<Self, String> {
        let clocks = pids.iter().map(|pid| Ok((*pid, Clock::read(*pid)?)));
        Ok(Self {
            clocks: clocks.collect::<Result<_, String>>()?,
        })
    }

    /// CPU time that the processes have used since the beginning.
    pub fn cpu(&self) -> Result<Duration, String> {
        let mut sum = Duration::ZERO;
        for (pid, before) in &self.clocks {
            sum += Clock::read(*pid)?.since(before, tick());
        }
        Ok(sum)
    }

    /// The processes' memory now.
    pub fn memory(&self) -> Result<Memory, String> {
        let mut sum = Memory::default();
        for pid in self.clocks.keys() {
            sum.add(&status(&read(*pid, "status")?));
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
            if let Some(pss) = rollup.ok().and_then(|text| field(&text, "Pss:")) {
                *sum.proportional.get_or_insert(0) += pss * 1024;
            }
        }
        Ok(sum)
    }
}

/// Length of a tick.
fn tick() -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_secs(1) / u32::try_from(per_second).unwrap_or(100)
}

fn read(pid: u32, file: &str) -> Result<String, String> {
    fs::read_to_string(format!("/proc/{pid}/{file}"))
        .map_err(|e| format!("--server-pid {pid}: /proc/{pid}/{file}: {e}"))
}

impl Clock {
    fn read(pid: u32) -> Result<Self, String> {
        let stat = read(pid, "stat")?;
        let ticks = ticks(&stat).ok_or_else(|| format!("/proc/{pid}/stat: cannot be read"))?;
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let Ok(thread) = entry.file_name().to_string_lossy().parse() else {
                continue;
            };
            // A thread may end between the listing and the reading.
            let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
            if let Some(Ok(nanos)) = text.split(' ').next().map(str::parse) {
                threads.insert(thread, nanos);
            }
        }
        Ok(Self { ticks, threads })
    }

    fn since(&self, before: &Self, tick: Duration) -> Duration {
        let coarse = tick * u32::try_from(self.ticks - before.ticks).unwrap_or(u32::MAX);
        let run = |(thread, now): (&u32, &u64)| {
            let then = before.threads.get(thread).copied().unwrap_or_default();
            now.saturating_sub(then)
        };
        let fine = Duration::from_nanos(self.threads.iter().map(run).sum());
        // User and system time are each cut to a whole tick, at both ends.
        if fine.abs_diff(coarse) <= tick * 4 {
            fine
        } else {
            coarse
        }
    }
}

/// utime and stime, fields 14 and 15; the name in field 2 may hold spaces.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The number after `name` at the head of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn status(text: &str) -> Memory {
    let kib = |name: &str| field(text, name).unwrap_or_default() * 1024;
    Memory {
        resident: kib("VmRSS:"),
        anonymous: kib("RssAnon:"),
        peak: kib("VmHWM:"),
        proportional: None,
        threads: field(text, "Threads:").unwrap_or_default(),
    }
}

impl Memory {
    fn add(&mut self, other: &Self) {
        self.resident += other.resident;
        self.anonymous += other.anonymous;
        self.peak += other.peak;
        self.threads += other.threads;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;
    use std::time::Instant;

    #[test]
    fn the_fields_of_stat_are_found_behind_an_odd_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 90 0 0 0 12 30 0 0 20 0 1 0 9 1 1";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (x) S 1"), None);
    }

    #[test]
    fn a_thread_that_ended_is_counted_by_the_coarse_clock() {
        let tick = Duration::from_millis(10);
        let clock = |ticks, threads: &[(u32, u64)]| Clock {
            ticks,
            threads: threads.iter().copied().collect(),
        };
        let before = clock(10, &[(1, 100_000_000), (2, 5_000_000)]);
        let lived = clock(20, &[(1, 201_234_567), (2, 5_000_000)]);
        assert_eq!(
            lived.since(&before, tick),
            Duration::from_nanos(101_234_567)
        );
        let ended = clock(110, &[(1, 201_234_567)]);
        assert_eq!(ended.since(&before, tick), Duration::from_secs(1));
    }

    #[test]
    fn work_of_this_process_is_seen() {
        let own = Observation::begin(&[std::process::id()]).expect("own process");
        let started = Instant::now();
        let mut sum = 0u64;
        while own.cpu().expect("own process") < Duration::from_millis(30) {
            sum = black_box(sum + 1);
            assert!(
                started.elapsed() < Duration::from_mins(1),
                "no CPU time seen"
            );
        }
        let memory = own.memory().expect("own process");
        assert!(memory.anonymous > 0 && memory.resident >= memory.anonymous);
        assert!(memory.threads >= 1);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = Observation::begin(&[u32::MAX]).expect_err("no such process");
        assert!(error.contains("--server-pid 4294967295"), "{error}");
    }
}
