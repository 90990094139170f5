//! What a control group leaves of the machine (Documentation/admin-guide/cgroup-v2.rst).
//!
//! A bound may stand at any level above the process, so each is looked for from its
//! own group upwards, and the first counts that is one.

use super::finding::{Finding, Mend, State, Weight};
use super::machine::{Machine, Unseen};
use crate::limits;

/// Threads of a shard: its executor's two, the one that waits for it, its pool's four,
/// and two that check passwords; the rest is for the first of those that the kernel starts
/// for its ring, and for directories that are asked over a network.
const THREADS_OF_A_SHARD: u64 = 16;

/// Threads of the process beside them: those that read files far away, and signals, log,
/// lookups and the like.
const OWN_THREADS: u64 = limits::FAR_THREADS.get() as u64 + 16;

pub(super) fn findings(machine: &Machine, process: &str) -> Vec<Finding> {
    let groups = match groups(machine, process) {
        Ok(groups) => groups,
        Err(reason) => {
            return vec![Finding {
                name: "cgroup".to_owned(),
                wanted: "no bound below what the server needs".to_owned(),
                why: "a bound that is met stops every session at once",
                state: State::Unseen(reason),
            }];
        }
    };
    let cpus = u64::try_from(machine.cpus()).unwrap_or(u64::MAX);
    vec![
        time(machine, &groups, cpus),
        memory(machine, &groups),
        threads(machine, &groups, cpus),
    ]
}

/// The process's group and those above it, or why they cannot be looked at.
fn groups(machine: &Machine, process: &str) -> Result<Vec<String>, String> {
    let text = machine.read(&format!("{process}/cgroup"));
    let text = text.map_err(Unseen::reason)?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"));
    if let Some(own) = own
        && machine.read("sys/fs/cgroup/cgroup.controllers").is_ok()
    {
        return Ok(levels(own));
    }
    // `NUMBER:CONTROLLERS:PATH`; systemd's own tree, `name=systemd`, bounds nothing.
    let is_first_version = |line: &str| {
        let names = line.split(':').nth(1).unwrap_or_default();
        !names.is_empty() && !names.starts_with("name=")
    };
    let reason = if text.lines().any(is_first_version) {
        "its bounds are those of cgroup v1, beside v2 in a hybrid hierarchy or alone, which \
         are not looked at: see cpu.cfs_quota_us, memory.limit_in_bytes and pids.max there, or \
         boot with systemd.unified_cgroup_hierarchy=1"
    } else {
        "no cgroup v2 is mounted at /sys/fs/cgroup, so that its bounds cannot be seen"
    };
    Err(reason.to_owned())
}

/// The group and those above it, as folders, the group first. The last is the root of
/// what is mounted: in a container it may have bounds, on a host it has no such files.
fn levels(own: &str) -> Vec<String> {
    let mut levels = Vec::new();
    let mut path = own.trim_end_matches('/');
    while !path.is_empty() {
        levels.push(format!("sys/fs/cgroup/{path}"));
        path = path.rsplit_once('/').map_or("", |(above, _)| above);
    }
    levels.push("sys/fs/cgroup".to_owned());
    levels
}

/// The first level with such a file whose text is a bound.
fn bound<'a>(machine: &Machine, groups: &'a [String], name: &str) -> Option<(&'a String, String)> {
    groups.iter().find_map(|group| {
        let text = machine.read(&format!("{group}/{name}")).ok()?;
        (!text.starts_with("max")).then_some((group, text))
    })
}

/// A counter of a file of `NAME NUMBER` lines.
fn counted(machine: &Machine, group: &str, file: &str, name: &str) -> u64 {
    let text = machine.read(&format!("{group}/{file}")).unwrap_or_default();
    let mut rows = text.lines().filter_map(|line| line.split_once(' '));
    let found = rows.find(|(found, _)| *found == name);
    found
        .and_then(|(_, number)| number.parse().ok())
        .unwrap_or(0)
}

fn time(machine: &Machine, groups: &[String], cpus: u64) -> Finding {
    let state = match bound(machine, groups, "cpu.max") {
        None => State::Ok("no bound".to_owned()),
        Some((group, text)) => {
            let numbers: Vec<u64> = text
                .split_whitespace()
                .filter_map(|number| number.parse().ok())
                .collect();
            let throttled = counted(machine, group, "cpu.stat", "nr_throttled");
            match numbers[..] {
                [quota, period] if quota >= cpus.saturating_mul(period) => State::Ok(text),
                _ => {
                    let weight = match throttled {
                        0 => Weight::Advice,
                        _ => Weight::Problem,
                    };
                    let words = "CPUQuota= away and CPUAffinity= in its place: whole CPUs \
                                 instead of parts of all; then restart popcore";
                    let found = format!("{text}, throttled {throttled} times");
                    weight.of(found, Mend::Words(words.to_owned()))
                }
            }
        }
    };
    Finding {
        name: "cgroup.cpu".to_owned(),
        wanted: format!("no bound, or {cpus} CPUs"),
        why: "a shard that has used up its share stands still with all of its sessions",
        state,
    }
}

fn memory(machine: &Machine, groups: &[String]) -> Finding {
    let met = groups.iter().find_map(|group| {
        let events = |name| counted(machine, group, "memory.events", name);
        let (most, killed) = (events("max"), events("oom_kill"));
        (most + killed > 0).then(|| format!("bound met {most} times, {killed} processes killed"))
    });
    let state = match met {
        None => match bound(machine, groups, "memory.max") {
            None => State::Ok("no bound".to_owned()),
            Some((_, octets)) => State::Ok(format!("{octets} octets, never met")),
        },
        Some(found) => Weight::Problem.of(
            found,
            Mend::Words("raise MemoryMax= in the unit; cached mail counts in it".to_owned()),
        ),
    };
    Finding {
        name: "cgroup.memory".to_owned(),
        wanted: "a bound that is never met".to_owned(),
        why: "at the bound the kernel throws cached mail away, and then kills",
        state,
    }
}

fn threads(machine: &Machine, groups: &[String], cpus: u64) -> Finding {
    let least = THREADS_OF_A_SHARD * cpus + OWN_THREADS;
    let state = match bound(machine, groups, "pids.max") {
        None => State::Ok("no bound".to_owned()),
        Some((_, text)) if text.parse::<u64>().is_ok_and(|most| most >= least) => State::Ok(text),
        Some((_, text)) => Weight::Problem.of(
            text,
            Mend::Words(format!(
                "TasksMax={least} in the unit, then restart popcore"
            )),
        ),
    };
    Finding {
        name: "cgroup.threads".to_owned(),
        wanted: format!("at least {least}"),
        why: "each shard has a thread and a pool of its own, and the server does not start without",
        state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_of_a_group_is_looked_at() {
        assert_eq!(
            levels("a.slice/b.service"),
            [
                "sys/fs/cgroup/a.slice/b.service",
                "sys/fs/cgroup/a.slice",
                "sys/fs/cgroup"
            ]
        );
        assert_eq!(levels(""), ["sys/fs/cgroup"]);
    }

    #[test]
    fn a_hierarchy_that_is_not_looked_at_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().expect("below the root")).expect("own folder");
            std::fs::write(path, text).expect("own folder");
        };
        let machine = Machine::at(folder.path());
        let told = |text: &str| {
            write("proc/8/cgroup", text);
            groups(&machine, "proc/8").expect_err("not looked at")
        };
        let hybrid = told("9:name=systemd:/a\n4:memory:/a\n1:cpu,cpuacct:/a\n0::/a");
        assert!(hybrid.contains("cgroup v1"), "{hybrid}");
        assert!(told("0::/a").contains("no cgroup v2 is mounted"));
        write("sys/fs/cgroup/cgroup.controllers", "cpu memory pids");
        assert!(groups(&machine, "proc/8").is_ok());
    }
}
