//! Context switches of a server whose processes come and go: the kernel's own
//! counters (`perf_event_open(2)`), which whatever a watched thread starts inherits,
//! or which belong to a cgroup.
//!
//! proc(5) tells the switches of threads that are there; a server that makes a
//! process for each session has most of its own in processes that are gone. The
//! counters need `kernel.perf_event_paranoid` of 1 or less, or `CAP_PERFMON`, and
//! are a little work at each fork and switch: only trees and cgroups have them,
//! whose ended processes cannot be told otherwise.

use std::fs::File;
use std::io;
use std::path::Path;

use perf_event::events::Software;
use perf_event::{Builder, Counter};

/// Counters that run.
#[derive(Debug)]
pub struct Switches(Vec<Counter>);

impl Switches {
    /// Counts those of these threads and of all that they start from now on.
    pub fn of_threads(threads: impl Iterator<Item = u32>) -> io::Result<Self> {
        let counters = threads.map(|thread| {
            let mut builder = builder();
            builder.observe_pid(thread.cast_signed()).any_cpu();
            match builder.inherit(true).build() {
                // It has ended since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) if error.raw_os_error() == Some(NO_SUCH_THREAD) => Ok(None),
                built => built.map(Some),
            }
        });
        let counters = counters.filter_map(Result::transpose);
        Self::begin(counters.collect::<io::Result<_>>()?)
    }

    /// Counts those of a cgroup (version 2) and of those below it.
    pub fn of_cgroup(folder: &Path) -> io::Result<Self> {
        let folder = File::open(folder)?;
        let counters = online()?.into_iter().map(|cpu| {
            let mut builder = builder();
            builder.observe_cgroup(&folder).one_cpu(cpu).build()
        });
        Self::begin(counters.collect::<io::Result<_>>()?)
    }

    fn begin(mut counters: Vec<Counter>) -> io::Result<Self> {
        for counter in &mut counters {
            counter.enable()?;
        }
        Ok(Self(counters))
    }

    /// So many since the beginning.
    pub fn count(&mut self) -> io::Result<u64> {
        self.0.iter_mut().map(Counter::read).sum()
    }
}

/// ESRCH.
const NO_SUCH_THREAD: i32 = rustix::io::Errno::SRCH.raw_os_error();

fn builder<'a>() -> Builder<'a> {
    let mut builder = Builder::new(Software::CONTEXT_SWITCHES);
    // A switch happens in the kernel, which is left out otherwise.
    builder.include_kernel();
    builder
}

/// CPUs that are there, as `0-3,8`.
fn online() -> io::Result<Vec<usize>> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online")?;
    let unreadable = || io::Error::other(format!("cpu/online: {text:?}"));
    let mut cpus = Vec::new();
    for part in text.trim_end().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |word: &str| word.parse::<usize>().map_err(|_| unreadable());
        cpus.extend(number(first)?..=number(last)?);
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::thread;
    use std::time::Duration;

    /// Every sleep is a switch. Who may not count is told so.
    fn counts_sleeps(counting: io::Result<Switches>) {
        let mut counting = match counting {
            Ok(counting) => counting,
            Err(error) => return assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        };
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(1));
        }
        let count = counting.count().expect("a counter");
        assert!(count >= 5, "{count}");
    }

    #[test]
    fn switches_of_a_thread_are_counted() {
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        counts_sleeps(Switches::of_threads(std::iter::once(own.cast_unsigned())));
    }

    #[test]
    fn switches_of_a_cgroup_are_counted() {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("proc is mounted");
        let words = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>());
        let mut mounted = words.filter(|words| words[2] == "cgroup2");
        let groups = fs::read_to_string("/proc/self/cgroup").expect("proc is mounted");
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let missing = Switches::of_cgroup(Path::new("/nowhere")).expect_err("no such folder");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        if let (Some(mount), Some(own)) = (mounted.next(), own) {
            counts_sleeps(Switches::of_cgroup(&Path::new(mount[1]).join(own)));
        }
    }
}
