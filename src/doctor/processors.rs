//! CPUs and clocks: what makes a shard slower than its core.

use super::finding::{Finding, Mend, State, Weight};
use super::machine::{Machine, numbers_of};
use super::process;
use crate::ring::{self, ClockState};

/// Clock sources that the vDSO reads without a system call (`vdso(7)`).
const FAST_CLOCKS: [&str; 5] = [
    "tsc",
    "kvm-clock",
    "hyperv_clocksource_tsc_page",
    "arch_sys_counter",
    "timebase",
];

/// Programs that keep a clock right, as `/proc/PID/comm` has them (15 octets).
const TIMEKEEPERS: [&str; 7] = [
    "chronyd",
    "ntpd",
    "ntp-daemon",
    "openntpd",
    "phc2sys",
    "systemd-timesyn",
    "VBoxService",
];

/// Frequency drivers whose `powersave` is the hardware's own choice
/// (Documentation/admin-guide/pm/intel_pstate.rst, amd-pstate.rst).
const SELF_SCALING: [&str; 2] = ["intel_pstate", "amd-pstate-epp"];

const SOURCE: &str = "sys/devices/system/clocksource/clocksource0/current_clocksource";
const CPUS: &str = "sys/devices/system/cpu";

/// `server` is its folder of proc, where it runs.
pub(super) fn findings(machine: &Machine, server: Option<&str>) -> Vec<Finding> {
    vec![
        clock_source(machine),
        clock_kept(machine),
        governor(machine),
        isolated(machine, server),
    ]
}

fn clock_source(machine: &Machine) -> Finding {
    let state = match machine.read(SOURCE) {
        Err(unseen) => State::Unseen(unseen.reason()),
        Ok(found) if FAST_CLOCKS.contains(&&*found) => State::Ok(found),
        Ok(found) => {
            let available = machine.read(&SOURCE.replace("current", "available"));
            let available = available.unwrap_or_default();
            let better = available
                .split_whitespace()
                .find(|name| FAST_CLOCKS.contains(name));
            let mend = match better {
                Some(name) => Mend::Command(format!("echo {name} > /{SOURCE}")),
                None => Mend::Words(
                    "ask dmesg(1) why the kernel gave its own clock up; firmware or hypervisor \
                     is what mends it"
                        .to_owned(),
                ),
            };
            Weight::Problem.of(found, mend)
        }
    };
    Finding {
        name: "clock.source".to_owned(),
        wanted: FAST_CLOCKS.join(" or "),
        why: "a shard reads the clock in each turn; any other source makes that a system call",
        state,
    }
}

/// What keeps the clock and no kernel hears of: the host's own hand.
const HOSTS: [&str; 1] = ["VBoxService"];

/// Whether the kernel holds its clock for right, where it can be asked, and who keeps it.
fn clock_kept(machine: &Machine) -> Finding {
    let running = machine.list("proc").unwrap_or_default();
    let keeper = running
        .iter()
        .filter(|name| name.bytes().all(|octet| octet.is_ascii_digit()))
        .filter_map(|pid| machine.read(&format!("proc/{pid}/comm")).ok())
        .find(|comm| TIMEKEEPERS.contains(&&**comm));
    let asked = machine
        .is_this()
        .then(|| ring::clock_state().ok())
        .flatten();
    Finding {
        name: "clock.kept".to_owned(),
        wanted: "a clock that the kernel holds for right, or a program that keeps it".to_owned(),
        why: "certificates, tickets and the times of logs and of Maildirs lean on it",
        state: judge_clock(asked, keeper),
    }
}

fn judge_clock(asked: Option<ClockState>, keeper: Option<String>) -> State {
    let mends_itself = |name: &String| HOSTS.contains(&&**name);
    match (asked, keeper) {
        (Some(ClockState::Kept { within }), keeper) => {
            let keeper = keeper.unwrap_or_else(|| "something unknown".to_owned());
            State::Ok(format!(
                "right within {} ms, by {keeper}",
                within.as_millis()
            ))
        }
        (None, Some(name)) => State::Ok(name),
        (Some(ClockState::Unkept), Some(name)) if mends_itself(&name) => State::Ok(name),
        (Some(ClockState::Unkept), Some(name)) => Weight::Advice.of(
            format!("{name}, which has not told the kernel that the clock is right"),
            Mend::Words(
                "see whether it reaches its servers: chronyc tracking, or timedatectl \
                 timesync-status"
                    .to_owned(),
            ),
        ),
        (_, None) => Weight::Advice.of(
            "none that is known, and the kernel knows of none",
            Mend::Words(
                "install chrony or turn systemd-timesyncd on, unless the host keeps this clock"
                    .to_owned(),
            ),
        ),
    }
}

fn governor(machine: &Machine) -> Finding {
    let read = |cpu: &String, name: &str| machine.read(&format!("{CPUS}/{cpu}/cpufreq/{name}"));
    let cpus = machine.list(CPUS).unwrap_or_default();
    let slow = cpus.iter().find_map(|cpu| {
        let governor = read(cpu, "scaling_governor").ok()?;
        let driver = read(cpu, "scaling_driver").unwrap_or_default();
        let chosen = governor == "powersave" && !SELF_SCALING.contains(&&*driver);
        (chosen || governor == "userspace").then(|| format!("{governor} of {driver} on {cpu}"))
    });
    let state = match slow {
        None => {
            let first = cpus
                .iter()
                .find_map(|cpu| read(cpu, "scaling_governor").ok());
            State::Ok(first.unwrap_or_else(|| "no frequencies to choose".to_owned()))
        }
        Some(found) => Weight::Advice.of(
            found,
            Mend::Command(format!(
                "echo performance | tee /{CPUS}/cpu*/cpufreq/scaling_governor"
            )),
        ),
    };
    Finding {
        name: "cpu.governor".to_owned(),
        wanted: "performance, schedutil or the hardware's own".to_owned(),
        why: "a core kept at its lowest frequency serves as many times fewer sessions",
        state,
    }
}

/// CPUs that the scheduler puts nothing on by itself.
pub(super) fn isolated_cpus(machine: &Machine) -> Vec<usize> {
    let list = machine.read(&format!("{CPUS}/isolated"));
    list.map(|list| numbers_of(&list)).unwrap_or_default()
}

fn isolated(machine: &Machine, server: Option<&str>) -> Finding {
    let allowed = server.and_then(|server| process::allowed_cpus(machine, server));
    let has_them = |list: &str| {
        let has = |cpu: &usize| allowed.as_ref().is_some_and(|own| own.contains(cpu));
        numbers_of(list).iter().all(has)
    };
    let state = match machine.read(&format!("{CPUS}/isolated")) {
        Err(unseen) => State::Unseen(unseen.reason()),
        Ok(list) if list.is_empty() => State::Ok("none".to_owned()),
        Ok(list) if has_them(&list) => State::Ok(format!("{list}, and the server has them")),
        Ok(list) => Weight::Advice.of(
            list,
            Mend::Words(
                "CPUAffinity= in the unit if they are for popcore, else nothing to do".to_owned(),
            ),
        ),
    };
    Finding {
        name: "cpu.isolated".to_owned(),
        wanted: "none, or those that the unit names".to_owned(),
        why: "isolated CPUs get no shard unless the unit's CPUAffinity names them",
        state,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_kernels_word_on_the_clock_counts_before_a_programs_name() {
        let kept = ClockState::Kept {
            within: Duration::from_millis(7),
        };
        let word =
            |asked, keeper: Option<&str>| judge_clock(asked, keeper.map(str::to_owned)).word();
        assert_eq!(word(Some(kept), None), "ok");
        assert_eq!(word(Some(kept), Some("chronyd")), "ok");
        assert_eq!(word(Some(ClockState::Unkept), Some("chronyd")), "advice");
        assert_eq!(word(Some(ClockState::Unkept), Some("VBoxService")), "ok");
        assert_eq!(word(Some(ClockState::Unkept), None), "advice");
        assert_eq!(word(None, Some("chronyd")), "ok");
        assert_eq!(word(None, None), "advice");
    }
}
