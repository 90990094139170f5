//! What the server asks of the kernel for its process: CPUs and descriptors.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::server::{PROGRAM, Server, Site};

/// The CPUs that each thread may run on, by the thread's name.
fn cpus_of_threads(server: &Server) -> BTreeMap<String, Vec<usize>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("it runs");
    let threads = tasks.filter_map(|task| {
        let task = task.expect("an entry").path();
        // A thread may have ended since.
        let name = fs::read_to_string(task.join("comm")).ok()?;
        let id = task.file_name()?.to_str()?.parse().ok()?;
        let mask = sched_getaffinity(rustix::process::Pid::from_raw(id)).ok()?;
        Some((name.trim_end().to_owned(), cpus(&mask)))
    });
    threads.collect()
}

fn cpus(mask: &CpuSet) -> Vec<usize> {
    let all = 0..CpuSet::MAX_CPU;
    all.filter(|cpu| mask.is_set(*cpu)).collect()
}

/// Starts a server with a shard for each of the CPUs that it may use, which are
/// these.
fn server_on(allowed: &[usize]) -> Server {
    let mut site = Site::with_users(&["ann"]);
    site.shards = "\"auto\"".into();
    // A process inherits the mask of the thread that starts it; this test's
    // thread is its own.
    let mut mask = CpuSet::new();
    for cpu in allowed {
        mask.set(*cpu);
    }
    sched_setaffinity(None, &mask).expect("CPUs that were allowed before");
    site.start()
}

#[test]
fn each_cpu_of_the_affinity_mask_has_a_shard_that_is_pinned_to_it() {
    let all = cpus(&sched_getaffinity(None).expect("a mask"));
    let last = all[all.len() - 1..].to_vec();
    for allowed in [all, last] {
        let server = server_on(&allowed);
        let threads = cpus_of_threads(&server);
        for (number, cpu) in allowed.iter().enumerate() {
            // Behind the number stands one of the executor's own.
            let own = format!("shard-{number}-");
            let mut own = threads.iter().filter(|(name, _)| name.starts_with(&own));
            assert!(own.clone().count() > 0, "{threads:?}");
            assert!(own.all(|(_, on)| on == &[*cpu]), "{threads:?}");
        }
        let beyond = format!("shard-{}-", allowed.len());
        assert!(!threads.keys().any(|name| name.starts_with(&beyond)));
        // What may wait or takes long runs where there is room.
        for name in ["pool-0-0", "hasher-0", "signals"] {
            assert_eq!(threads[name], allowed, "{threads:?}");
        }
    }
}

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let site = Site::with_users(&["ann"]);
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "ulimit -S -n 100; ulimit -H -n 900; exec \"$0\" \"$@\"",
    ]);
    shell.arg(PROGRAM);
    let server = site.start_by(shell);
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).expect("it runs");
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words: Vec<_> = files.expect("a line").split_whitespace().collect();
    assert_eq!(words[3..5], ["900", "900"], "{limits}");
}
