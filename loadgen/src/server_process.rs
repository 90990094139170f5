//! CPU time, memory, threads and context switches of the server: of processes by
//! number, of a process with all its descendants, or of a cgroup (proc(5),
//! cgroups(7)).
//!
//! Two clocks tell a process's CPU time. `stat` counts every thread, those that
//! have ended too, in ticks of 10 ms. `task/*/schedstat` counts nanoseconds, but
//! only of threads that are still there. The fine clock is believed when it
//! agrees with the coarse one to within the coarse one's rounding; where it
//! does not, threads ended during the run and the coarse clock is right.
//!
//! A server that makes a process for each session is measured by its tree or its
//! cgroup. What an ended process used goes to the one that waited for it, so
//! over a tree nothing is lost but what a daemon orphaned or refused to wait
//! for; a cgroup loses nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::switches::Switches;

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// These processes and nothing that they start.
    Processes(Vec<u32>),
    /// A process and its descendants.
    Tree(u32),
    /// A folder of cgroup version 2.
    Cgroup(PathBuf),
}

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
    /// Processes.
    pub processes: u64,
}

/// A measurement that began.
#[derive(Debug)]
pub struct Observation {
    watched: Watched,
    began: Began,
    switches: LivingSwitches,
    /// Those of processes that end too, where the kernel lets count.
    all_switches: Option<RefCell<Switches>>,
}

#[derive(Debug)]
enum Began {
    Clocks(BTreeMap<u32, Clock>),
    /// All that was used before, by whom ever.
    Used(Duration),
}

/// Context switches of the threads that are there, voluntary and not.
type LivingSwitches = BTreeMap<u32, (u64, u64)>;

impl Observation {
    /// Begins to measure.
    ///
    /// Errors are for the operator: they name the process or the folder.
    pub fn begin(watched: &Watched) -> Result<Self, String> {
        let began = match watched {
            Watched::Processes(pids) => {
                let clocks = pids.iter().map(|pid| Ok((*pid, Clock::read(*pid)?)));
                Began::Clocks(clocks.collect::<Result<_, String>>()?)
            }
            other => Began::Used(other.used()?),
        };
        Ok(Self {
            watched: watched.clone(),
            began,
            switches: watched.switches()?,
            all_switches: watched.count_switches().map(RefCell::new),
        })
    }

    /// CPU time used since the beginning.
    pub fn cpu(&self) -> Result<Duration, String> {
        match &self.began {
            Began::Used(before) => Ok(self.watched.used()?.saturating_sub(*before)),
            Began::Clocks(clocks) => {
                let mut sum = Duration::ZERO;
                for (pid, before) in clocks {
                    sum += Clock::read(*pid)?.since(before, tick());
                }
                Ok(sum)
            }
        }
    }

    /// Voluntary and involuntary context switches since the beginning, of the
    /// threads that are there now.
    pub fn context_switches(&self) -> Result<(u64, u64), String> {
        let mut sum = (0, 0);
        for (thread, (voluntary, forced)) in self.watched.switches()? {
            let before = self.switches.get(&thread).copied().unwrap_or_default();
            sum.0 += voluntary.saturating_sub(before.0);
            sum.1 += forced.saturating_sub(before.1);
        }
        Ok(sum)
    }

    /// All context switches since the beginning, those of processes that have
    /// ended among them. `None`: of a process by number, and where the kernel
    /// does not let count.
    pub fn all_context_switches(&self) -> Option<u64> {
        let counters = self.all_switches.as_ref()?;
        counters.borrow_mut().count().ok()
    }

    /// The processes' memory now.
    pub fn memory(&self) -> Result<Memory, String> {
        let mut sum = Memory::default();
        let named = matches!(self.watched, Watched::Processes(_));
        for pid in self.watched.pids()? {
            match read(pid, "status") {
                Ok(text) => sum.add(&status(&text)),
                // One of a tree may end between the listing and the reading.
                Err(error) if named => return Err(error),
                Err(_) => continue,
            }
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
            if let Some(pss) = rollup.ok().and_then(|text| field(&text, "Pss:")) {
                *sum.proportional.get_or_insert(0) += pss * 1024;
            }
        }
        Ok(sum)
    }
}

impl Watched {
    /// The processes that are there now.
    fn pids(&self) -> Result<Vec<u32>, String> {
        match self {
            Self::Processes(pids) => Ok(pids.clone()),
            Self::Tree(root) => Ok(tree(*root)?.into_keys().collect()),
            Self::Cgroup(folder) => {
                let mut pids = Vec::new();
                members(folder, &mut pids)?;
                Ok(pids)
            }
        }
    }

    /// CPU time of all there is and ever was.
    fn used(&self) -> Result<Duration, String> {
        match self {
            Self::Cgroup(folder) => {
                let text = read_cgroup(folder, "cpu.stat")?;
                let micros = field(&text, "usage_usec").ok_or_else(|| {
                    format!(
                        "--server-cgroup {}: cpu.stat has no usage_usec",
                        folder.display()
                    )
                })?;
                Ok(Duration::from_micros(micros))
            }
            Self::Tree(root) => {
                let ticks: u64 = tree(*root)?.into_values().sum();
                Ok(tick() * u32::try_from(ticks).unwrap_or(u32::MAX))
            }
            Self::Processes(_) => Ok(Duration::ZERO),
        }
    }

    fn count_switches(&self) -> Option<Switches> {
        match self {
            Self::Processes(_) => None,
            Self::Tree(_) => {
                let all = self.pids().ok()?.into_iter().flat_map(threads);
                Switches::of_threads(all.map(|(thread, _)| thread)).ok()
            }
            Self::Cgroup(folder) => Switches::of_cgroup(folder).ok(),
        }
    }

    fn switches(&self) -> Result<LivingSwitches, String> {
        let mut all = LivingSwitches::new();
        for pid in self.pids()? {
            for (thread, folder) in threads(pid) {
                let text = fs::read_to_string(folder.join("status")).unwrap_or_default();
                let count = |name| field(&text, name).unwrap_or_default();
                let both = (
                    count("voluntary_ctxt_switches:"),
                    count("nonvoluntary_ctxt_switches:"),
                );
                all.insert(thread, both);
            }
        }
        Ok(all)
    }
}

/// A process and its descendants, with the ticks that each and its children
/// that ended have used.
fn tree(root: u32) -> Result<BTreeMap<u32, u64>, String> {
    let mut ticks = BTreeMap::new();
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let stat = read(root, "stat").map_err(|e| e.replace("--server-pid", "--server-tree"))?;
    ticks.insert(root, used_by_all(&stat).unwrap_or_default());
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let (Some(parent), Some(used)) = (parent(&stat), used_by_all(&stat)) {
            children.entry(parent).or_default().push(pid);
            all.insert(pid, used);
        }
    }
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            ticks.insert(child, all[&child]);
            next.push(child);
        }
    }
    Ok(ticks)
}

/// The processes of a cgroup and those below it.
fn members(folder: &Path, pids: &mut Vec<u32>) -> Result<(), String> {
    let text = read_cgroup(folder, "cgroup.procs")?;
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().join("cgroup.procs").exists() {
            members(&entry.path(), pids)?;
        }
    }
    Ok(())
}

fn read_cgroup(folder: &Path, file: &str) -> Result<String, String> {
    fs::read_to_string(folder.join(file)).map_err(|e| {
        let folder = folder.display();
        format!("--server-cgroup {folder}: {file}: {e}; name a folder of cgroup version 2")
    })
}

fn threads(pid: u32) -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    entries.into_iter().flatten().flatten().filter_map(|entry| {
        let thread = entry.file_name().to_string_lossy().parse().ok()?;
        Some((thread, entry.path()))
    })
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
        let mut clocks = BTreeMap::new();
        for (thread, folder) in threads(pid) {
            // A thread may end between the listing and the reading.
            let text = fs::read_to_string(folder.join("schedstat")).unwrap_or_default();
            if let Some(Ok(nanos)) = text.split(' ').next().map(str::parse) {
                clocks.insert(thread, nanos);
            }
        }
        let threads = clocks;
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

/// The same with cutime and cstime, fields 16 and 17: of children that ended and
/// were waited for.
fn used_by_all(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields = rest.split_whitespace().skip(11).take(4);
    fields.map(|field| field.parse::<u64>().ok()).sum()
}

/// Field 4.
fn parent(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
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
        processes: 1,
    }
}

impl Memory {
    /// The larger of each figure.
    #[must_use]
    pub fn at_least(&self, other: &Self) -> Self {
        Self {
            resident: self.resident.max(other.resident),
            anonymous: self.anonymous.max(other.anonymous),
            peak: self.peak.max(other.peak),
            proportional: self.proportional.max(other.proportional),
            threads: self.threads.max(other.threads),
            processes: self.processes.max(other.processes),
        }
    }

    fn add(&mut self, other: &Self) {
        self.resident += other.resident;
        self.anonymous += other.anonymous;
        self.peak += other.peak;
        self.threads += other.threads;
        self.processes += other.processes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;
    use std::io::{Read as _, Write as _};
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
        let own =
            Observation::begin(&Watched::Processes(vec![std::process::id()])).expect("own process");
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
    fn a_child_that_ended_is_counted_in_its_tree() {
        let mut parent = std::process::Command::new("sh")
            .args(["-c", "read go; sh -c 'i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done'; echo done; read end"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a shell");
        let watched = Watched::Tree(parent.id());
        let observation = Observation::begin(&watched).expect("a tree");
        let mut input = parent.stdin.take().expect("a pipe");
        input.write_all(b"go\n").expect("written");
        let mut said = [0; 4];
        let mut output = parent.stdout.take().expect("a pipe");
        output.read_exact(&mut said).expect("the child ended");
        let used = observation.cpu().expect("a tree");
        assert!(used >= Duration::from_millis(10), "{used:?}");
        assert_eq!(observation.memory().expect("a tree").processes, 1);
        // The shell slept until the child ended, and the child was switched to. Where
        // the kernel lets nobody count there is no number.
        let (living, all) = (
            observation.context_switches(),
            observation.all_context_switches(),
        );
        let (asked_for, forced) = living.expect("a tree");
        assert!(all.is_none_or(|all| all > asked_for + forced), "{all:?}");
        drop(input);
        parent.wait().expect("ends");
    }

    #[test]
    fn a_cgroup_is_read_with_those_below_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |file: &str, text: &str| {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("own folder");
            fs::write(path, text).expect("own folder");
        };
        let own = std::process::id();
        write("cgroup.procs", "");
        write("below/cgroup.procs", &format!("{own}\n"));
        write("cpu.stat", "usage_usec 1500\nuser_usec 1000\n");
        let watched = Watched::Cgroup(folder.path().to_owned());
        let observation = Observation::begin(&watched).expect("a cgroup");
        write("cpu.stat", "usage_usec 4000\nuser_usec 1000\n");
        assert_eq!(observation.cpu(), Ok(Duration::from_micros(2_500)));
        assert_eq!(observation.memory().expect("own process").processes, 1);
        let error = Observation::begin(&Watched::Cgroup("/nowhere".into()));
        assert!(
            error
                .expect_err("absent")
                .contains("--server-cgroup /nowhere")
        );
    }

    /// The folder of the cgroup (version 2) that this test runs in, where one is mounted.
    fn own_cgroup() -> Option<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("proc is mounted");
        let mut mounts = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>());
        let mount = PathBuf::from(mounts.find(|words| words[2] == "cgroup2")?[1]);
        let groups = fs::read_to_string("/proc/self/cgroup").expect("proc is mounted");
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let folder = mount.join(own);
        folder.join("cpu.stat").exists().then_some(folder)
    }

    /// A cgroup of a test's own.
    struct Group(PathBuf);

    impl Drop for Group {
        fn drop(&mut self) {
            let removed = fs::remove_dir(&self.0);
            if !std::thread::panicking() {
                removed.expect("nobody is in it any more");
            }
        }
    }

    /// Uses so much CPU time and holds it against what the cgroup says.
    fn own_work_is_seen_in(folder: PathBuf) {
        let work = Duration::from_millis(50);
        let observation = Observation::begin(&Watched::Cgroup(folder)).expect("a cgroup");
        let clock = || {
            let clock = rustix::time::ClockId::ThreadCPUTime;
            Duration::try_from(rustix::time::clock_gettime(clock)).expect("not negative")
        };
        let (before, mut sum) = (clock(), 0u64);
        while clock().saturating_sub(before) < work {
            sum = black_box(sum + 1);
        }
        // The kernel adds it up by ticks.
        let used = observation.cpu().expect("a cgroup");
        assert!(used >= work / 2, "{used:?}");
        assert!(observation.memory().expect("a cgroup").processes >= 1);
    }

    #[test]
    fn a_cgroup_misses_nothing_of_what_ended_in_it() {
        let Some(own) = own_cgroup() else {
            // Nothing of the kind is mounted; what is mistaken for it is refused.
            let other = Watched::Cgroup("/sys/fs/cgroup".into());
            let error = Observation::begin(&other).expect_err("no cgroup");
            return assert!(error.contains("of cgroup version 2"), "{error}");
        };
        let folder = own.join(format!("popcore-loadgen-{}", std::process::id()));
        if let Err(error) = fs::create_dir(&folder) {
            // To make one takes root, or a group that was handed over; anybody may read.
            let refused = [
                std::io::ErrorKind::PermissionDenied,
                std::io::ErrorKind::ReadOnlyFilesystem,
            ];
            assert!(refused.contains(&error.kind()), "{error}");
            return own_work_is_seen_in(own);
        }
        let group = Group(folder);
        // A process that orphans its child: no tree has it, and nobody waits for it.
        let mut parent = std::process::Command::new("sh")
            .args([
                "-c",
                "read go; (sh -c 'i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; echo done' &)",
            ])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a shell");
        fs::write(group.0.join("cgroup.procs"), parent.id().to_string()).expect("moved");
        let watched = Watched::Cgroup(group.0.clone());
        let observation = Observation::begin(&watched).expect("a cgroup");
        assert_eq!(observation.memory().expect("a cgroup").processes, 1);
        let mut input = parent.stdin.take().expect("a pipe");
        input.write_all(b"go\n").expect("written");
        let mut said = String::new();
        let mut output = parent.stdout.take().expect("a pipe");
        output.read_to_string(&mut said).expect("both have ended");
        assert_eq!(said, "done\n");
        parent.wait().expect("ends");
        let used = observation.cpu().expect("a cgroup");
        assert!(used >= Duration::from_millis(10), "{used:?}");
        // Both have slept. Where the kernel lets nobody count there is no number.
        let switches = observation.all_context_switches();
        assert!(switches.is_none_or(|all| all >= 2), "{switches:?}");
        // The orphan is somebody else's to wait for.
        let started = Instant::now();
        while observation.memory().expect("a cgroup").processes > 0 {
            assert!(started.elapsed() < Duration::from_mins(1), "still there");
            std::thread::sleep(Duration::from_millis(5));
        }
        let later = observation.cpu().expect("a cgroup");
        assert!(later >= used, "{later:?} and {used:?} before");
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error =
            Observation::begin(&Watched::Processes(vec![u32::MAX])).expect_err("no such process");
        assert!(error.contains("--server-pid 4294967295"), "{error}");
    }
}
