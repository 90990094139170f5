//! Limits of the running server, and what it is left of memory and CPUs.

use super::finding::{Finding, Mend, State, Weight};
use super::machine::{Machine, Unseen, numbers_of};
use super::processors;
use super::sizes::{LOCKED, Sizes};

/// Looks at a process: that of the server, or the one that looks, whose limits are
/// those of a server that is started from here.
pub(super) fn findings(
    machine: &Machine,
    sizes: Sizes,
    pid: Option<u32>,
    folder: &str,
) -> Vec<Finding> {
    if let (Some(pid), Err(Unseen::Absent)) = (pid, machine.read(&format!("{folder}/limits"))) {
        return vec![missing(pid)];
    }
    // A unit sets other limits than a shell has.
    let weight = match pid {
        Some(_) => Weight::Problem,
        None => Weight::Advice,
    };
    let limits = machine.read(&format!("{folder}/limits"));
    let limits = limits.map_err(Unseen::reason);
    let status = machine.read(&format!("{folder}/status"));
    let status = status.map_err(Unseen::reason);

    let locked = LOCKED * u64::try_from(machine.cpus()).unwrap_or(u64::MAX);
    let limit = |name, row, least, why, unit: &str| {
        let state = match &limits {
            Ok(limits) => judge_limit(limits, row, least, weight, unit),
            Err(reason) => State::Unseen(reason.clone()),
        };
        Finding {
            name: format!("process.{name}"),
            wanted: format!("at least {least}"),
            why,
            state,
        }
    };
    let mut findings = vec![
        limit(
            "open_files",
            "Max open files",
            sizes.descriptors(),
            "a session takes a descriptor, and one more for its lock or the message it sends",
            "LimitNOFILE",
        ),
        limit(
            "locked_memory",
            "Max locked memory",
            locked,
            "each shard's rings take 512 KiB of it, and the server does not start without",
            "LimitMEMLOCK",
        ),
    ];
    if pid.is_some() {
        let field = |name: &str| match &status {
            Ok(status) => field(status, name).ok_or(format!("{folder}/status has no {name}")),
            Err(reason) => Err(reason.clone()),
        };
        findings.push(swapped(field("VmSwap")));
        findings.push(cpus(field("Cpus_allowed_list"), machine));
    }
    findings
}

fn missing(pid: u32) -> Finding {
    let words = "name the running server: systemctl show -P MainPID popcore";
    let state = Weight::Problem.of(format!("no process {pid}"), Mend::Words(words.to_owned()));
    Finding {
        name: "process".to_owned(),
        wanted: "a running server".to_owned(),
        why: "limits of a process can be read while it runs",
        state,
    }
}

/// The hard limit, to which popcore raises the soft one.
fn judge_limit(limits: &str, row: &str, least: u64, weight: Weight, unit: &str) -> State {
    let row = limits.lines().find_map(|line| line.strip_prefix(row));
    let Some(hard) = row.and_then(|row| row.split_whitespace().nth(1)) else {
        return State::Unseen("its limits cannot be read".to_owned());
    };
    let enough = hard == "unlimited" || hard.parse::<u64>().is_ok_and(|hard| hard >= least);
    if enough {
        return State::Ok(hard.to_owned());
    }
    let words = format!("{unit}={least} in the unit, then restart popcore");
    weight.of(hard, Mend::Words(words))
}

fn field(status: &str, name: &str) -> Option<String> {
    let row = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(row.strip_prefix(':')?.trim().to_owned())
}

/// The CPUs that the process of this folder may run on.
pub(super) fn allowed_cpus(machine: &Machine, folder: &str) -> Option<Vec<usize>> {
    let status = machine.read(&format!("{folder}/status")).ok()?;
    Some(numbers_of(&field(&status, "Cpus_allowed_list")?))
}

fn swapped(found: Result<String, String>) -> Finding {
    let state = match found {
        Err(reason) => State::Unseen(reason),
        Ok(found) if found == "0 kB" => State::Ok(found),
        Ok(found) => {
            let words = "give the machine memory or MemorySwapMax=0 in the unit; free(1) shows \
                         who has it";
            Weight::Problem.of(found, Mend::Words(words.to_owned()))
        }
    };
    Finding {
        name: "process.swapped".to_owned(),
        wanted: "0 kB".to_owned(),
        why: "a shard that waits for its own memory stops all of its sessions",
        state,
    }
}

fn cpus(found: Result<String, String>, machine: &Machine) -> Finding {
    let online = machine.cpus();
    let isolated = processors::isolated_cpus(machine);
    // What is isolated is for one program: for this one, or for another.
    let is_share = |own: &[usize]| {
        let is_isolated = own.first().is_some_and(|first| isolated.contains(first));
        let share = if is_isolated {
            isolated.len()
        } else {
            online.saturating_sub(isolated.len())
        };
        own.len() >= share && own.iter().all(|cpu| isolated.contains(cpu) == is_isolated)
    };
    let state = match found {
        Err(reason) => State::Unseen(reason),
        Ok(found) if numbers_of(&found).len() >= online => State::Ok(found),
        Ok(found) if !isolated.is_empty() && is_share(&numbers_of(&found)) => State::Ok(found),
        Ok(found) => {
            let words = "nothing, if CPUAffinity= in the unit or the cpuset of its container is \
                         meant so; else take that away, and restart popcore";
            Weight::Advice.of(found, Mend::Words(words.to_owned()))
        }
    };
    Finding {
        name: "process.cpus".to_owned(),
        wanted: format!("all {online} that are online, or those that are isolated"),
        why: "there is a shard for each CPU that the process may run on, and no more",
        state,
    }
}
