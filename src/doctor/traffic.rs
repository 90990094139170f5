//! What the network has come to: how full the kernel's tables are, and who of the CPUs
//! did the work.

use std::time::Duration;

use super::finding::{Finding, Mend, State, Weight};
use super::machine::{Machine, Unseen};

/// Packets received below which their spread over CPUs says nothing.
const FEW_PACKETS: u64 = 100_000;

/// The same for a spread that was watched for a moment.
const FEW_NOW: u64 = 1000;

/// Percent of a table or of a bound above which it counts as nearly full.
const NEARLY_FULL: u64 = 80;

/// Looks at the network that `process` (a folder of proc) sees, and at the machine's
/// CPUs. BLOCKING for as long as two looks at the CPUs are `apart`, where one does not do.
pub(super) fn findings(machine: &Machine, process: &str, apart: Duration) -> Vec<Finding> {
    let sockstat = machine.read(&format!("{process}/net/sockstat"));
    vec![
        memory(machine, &sockstat.unwrap_or_default()),
        spread(machine, apart),
        tracked(machine),
    ]
}

/// Pages of all sockets' buffers beside the bound above which the kernel saves.
fn memory(machine: &Machine, sockstat: &str) -> Finding {
    let tcp = sockstat.lines().find(|line| line.starts_with("TCP:"));
    let used = tcp.and_then(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "mem");
        words.nth(1)?.parse::<u64>().ok()
    });
    let bounds = machine.sysctl("net.ipv4.tcp_mem");
    let bounds = bounds.map_err(Unseen::reason);
    let state = match (used, bounds) {
        (_, Err(reason)) => State::Unseen(reason),
        (None, _) => State::Unseen("sockstat does not tell it".to_owned()),
        (Some(used), Ok(bounds)) => {
            let bound = bounds.split_whitespace().nth(1);
            let bound = bound.and_then(|bound| bound.parse::<u64>().ok());
            let text = format!("{used} of {} pages", bound.unwrap_or(0));
            match bound {
                Some(bound) if used * 100 < bound * NEARLY_FULL => State::Ok(text),
                _ => Weight::Problem.of(
                    text,
                    Mend::Words(
                        "raise net.ipv4.tcp_mem, or lower the last number of net.ipv4.tcp_wmem"
                            .to_owned(),
                    ),
                ),
            }
        }
    };
    Finding {
        name: "traffic.socket_memory".to_owned(),
        wanted: format!("less than {NEARLY_FULL} % of the second number of net.ipv4.tcp_mem"),
        why: "above it the kernel makes all buffers smaller, and at the third it drops",
        state,
    }
}

/// How evenly the CPUs receive: since the kernel started, and where that was uneven, now.
fn spread(machine: &Machine, apart: Duration) -> Finding {
    let state = match turns(machine) {
        Err(unseen) => State::Unseen(unseen.reason()),
        Ok(before) => judge_turns(&before, || {
            std::thread::sleep(apart);
            turns(machine).unwrap_or_default()
        }),
    };
    Finding {
        name: "traffic.spread".to_owned(),
        wanted: "no CPU with most of the work of several".to_owned(),
        why: "a CPU that receives for all has nothing left for its shard",
        state,
    }
}

/// How often each CPU has received (`/proc/softirqs`).
fn turns(machine: &Machine) -> Result<Vec<u64>, Unseen> {
    let text = machine.read("proc/softirqs")?;
    let row = text.lines().find_map(|line| {
        let (name, counts) = line.split_once(':')?;
        (name.trim() == "NET_RX").then_some(counts)
    });
    let counts = row.unwrap_or_default().split_whitespace();
    let mut counts: Vec<u64> = counts.filter_map(|count| count.parse().ok()).collect();
    // Columns are CPUs that are possible, not those that are there.
    counts.truncate(machine.cpus());
    Ok(counts)
}

fn judge_turns(before: &[u64], look_again: impl FnOnce() -> Vec<u64>) -> State {
    let since_start = judge_spread(before, FEW_PACKETS);
    if let State::Ok(_) = since_start {
        return since_start;
    }
    let after = look_again();
    let pairs = after.iter().zip(before);
    let now: Vec<u64> = pairs
        .map(|(after, before)| after.saturating_sub(*before))
        .collect();
    match judge_spread(&now, FEW_NOW) {
        State::Ok(text) if now.iter().sum::<u64>() >= FEW_NOW => {
            State::Ok(format!("{text} now, unevenly before"))
        }
        _ => since_start,
    }
}

fn judge_spread(turns: &[u64], few: u64) -> State {
    let (cpus, all) = (turns.len(), turns.iter().sum::<u64>());
    let most = turns.iter().copied().max().unwrap_or(0);
    if cpus < 2 || all < few {
        return State::Ok(format!("{all} turns of receiving on {cpus} CPUs"));
    }
    let share = most.saturating_mul(100) / all;
    let even = 100 / u64::try_from(cpus).unwrap_or(100);
    let text = format!("{share} % of receiving on one of {cpus} CPUs");
    // 80 % of two CPUs, 65 % of eight.
    if share <= even + (100 - even) * 6 / 10 {
        State::Ok(text)
    } else {
        let words = "popcore-irq --dry-run INTERFACE (tuning/) shows what would spread it";
        Weight::Advice.of(text, Mend::Words(words.to_owned()))
    }
}

/// How full the table of tracked connections is.
fn tracked(machine: &Machine) -> Finding {
    let number = |name: &str| -> Result<u64, Unseen> {
        let text = machine.sysctl(&format!("net.netfilter.nf_conntrack_{name}"))?;
        text.parse()
            .map_err(|_| Unseen::Refused(format!("{text:?} is no number")))
    };
    let state = match (number("count"), number("max")) {
        (Err(Unseen::Absent), _) => State::Ok("connections are not tracked".to_owned()),
        (Err(unseen), _) | (_, Err(unseen)) => State::Unseen(unseen.reason()),
        (Ok(count), Ok(most)) if count * 100 < most * NEARLY_FULL => {
            State::Ok(format!("{count} of {most}"))
        }
        (Ok(count), Ok(most)) => Weight::Problem.of(
            format!("{count} of {most}"),
            Mend::Command(format!(
                "sysctl -w net.netfilter.nf_conntrack_max={}",
                2 * most
            )),
        ),
    };
    Finding {
        name: "traffic.tracked".to_owned(),
        wanted: format!("less than {NEARLY_FULL} % of net.netfilter.nf_conntrack_max"),
        why: "once the table is full every new connection is dropped",
        state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_receives_alone_is_told() {
        let is_ok = |turns: &[u64]| matches!(judge_spread(turns, FEW_PACKETS), State::Ok(_));
        assert!(is_ok(&[700_000, 300_000]) && !is_ok(&[900_000, 100_000]));
        let eight = |most: u64| [most, 100, 100, 100, 100, 100, 100, 1_000_000 - most];
        assert!(is_ok(&eight(550_000)) && !is_ok(&eight(800_000)));
        assert!(is_ok(&[1_000_000]) && is_ok(&[10, 0]));
    }

    #[test]
    fn a_spread_that_was_mended_is_even_at_the_second_look() {
        let word = |after: [u64; 2]| judge_turns(&[9_000_000, 100], || after.to_vec()).word();
        assert_eq!(word([9_002_000, 2_100]), "ok");
        assert_eq!(word([9_002_000, 110]), "advice");
        // Nothing happened in between.
        assert_eq!(word([9_000_010, 110]), "advice");
        let even = judge_turns(&[500_000, 500_000], || unreachable!("one look does"));
        assert_eq!(even.word(), "ok");
    }
}
