//! What the kernel has lost since it started, and whether it still loses.
//!
//! These counters only grow, so that a fault which was mended stays in them until the
//! next boot. Where more was lost than may be borne they are therefore read a second
//! time: what grew in between is lost now. What did not grow was lost before, and weighs
//! as much only while the setting that loses is still wrong; once that is mended it weighs
//! one step less, for whether the mending was enough shows on the next busy day.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::finding::{Finding, Mend, State, Weight};
use super::machine::{Machine, Unseen};

/// One in so many of what passed may be lost before it is worth a line.
const TOLERATED: u64 = 10_000;

/// `net.core.netdev_max_backlog` as kernels have it.
const BACKLOG: u64 = 1000;

/// What is counted, and what it means.
struct Kind {
    /// Its name among the findings, behind `traffic.`.
    name: &'static str,
    weight: Weight,
    /// What passed beside what was lost.
    unit: &'static str,
    why: &'static str,
    mend: &'static str,
    /// Whether the setting behind it is still wrong.
    still_wrong: fn(&Machine, &[Finding]) -> bool,
}

/// Counters of `/proc/net/netstat`, by their names there.
const CONNECTIONS: [Kind; 7] = [
    Kind {
        name: "ListenOverflows",
        weight: Weight::Problem,
        unit: "connections",
        why: "clients found a listen queue full and had to try again",
        mend: "raise net.core.somaxconn, then restart popcore; add shards or nodes where CPUs \
               are full",
        still_wrong: |_, settings| is_wrong(settings, "net.core.somaxconn"),
    },
    Kind {
        name: "TCPReqQFullDrop",
        weight: Weight::Problem,
        unit: "connections",
        why: "SYNs were dropped for want of room and of SYN cookies",
        mend: "set net.ipv4.tcp_syncookies=1",
        still_wrong: |_, settings| is_wrong(settings, "net.ipv4.tcp_syncookies"),
    },
    Kind {
        name: "TCPReqQFullDoCookies",
        weight: Weight::Advice,
        unit: "connections",
        why: "a flood of SYNs, or a queue too short, was met with cookies",
        mend: "raise net.core.somaxconn, then restart popcore",
        still_wrong: |_, settings| is_wrong(settings, "net.core.somaxconn"),
    },
    Kind {
        name: "TCPTimeWaitOverflow",
        weight: Weight::Advice,
        unit: "connections",
        why: "ended connections were forgotten before their time",
        mend: "raise net.ipv4.tcp_max_tw_buckets",
        still_wrong: |_, settings| is_wrong(settings, "net.ipv4.tcp_max_tw_buckets"),
    },
    Kind {
        name: "TCPAbortOnMemory",
        weight: Weight::Problem,
        unit: "connections",
        why: "connections were reset for want of memory or as too many orphans",
        mend: "raise net.ipv4.tcp_mem and net.ipv4.tcp_max_orphans, or give the machine memory",
        still_wrong: |_, _| false,
    },
    Kind {
        name: "TCPMemoryPressures",
        weight: Weight::Advice,
        unit: "connections",
        why: "sockets together came near their bound of memory and were made smaller",
        mend: "raise net.ipv4.tcp_mem, or lower the last number of net.ipv4.tcp_wmem",
        still_wrong: |_, _| false,
    },
    Kind {
        name: "ListenDrops",
        weight: Weight::Problem,
        unit: "connections",
        why: "clients were dropped at a listening socket that had room: for want of memory, or by \
              a filter on it",
        mend: "see dmesg(1) and net.ipv4.tcp_mem; give the machine memory",
        still_wrong: |_, _| false,
    },
];

/// Those of [`CONNECTIONS`] that the kernel counts among `ListenDrops` as well
/// (`tcp_conn_request`, `net/ipv4/tcp_input.c`): each has a finding of its own.
const OF_DROPS: [&str; 2] = ["ListenOverflows", "TCPReqQFullDrop"];

/// Packets that found a CPU's queue full: `/proc/net/softnet_stat`.
const QUEUED: Kind = Kind {
    name: "backlog_drops",
    weight: Weight::Advice,
    unit: "packets",
    why: "packets steered to a CPU (RPS, veth, loopback) wait there in a queue of this bound",
    mend: "double net.core.netdev_max_backlog",
    still_wrong: |machine, _| {
        let most = machine.sysctl("net.core.netdev_max_backlog");
        most.is_ok_and(|most| most.parse().is_ok_and(|most: u64| most <= BACKLOG))
    },
};

/// Packets that found an interface's own ring full: `sysfs-class-net-statistics`.
const RECEIVED: Kind = Kind {
    name: "interface_drops",
    weight: Weight::Advice,
    unit: "packets",
    why: "packets that an interface had no room for are sent again, a round trip later",
    mend: "ethtool -g INTERFACE shows its ring; ethtool -G INTERFACE rx NUMBER makes it longer",
    still_wrong: |_, _| false,
};

fn is_wrong(settings: &[Finding], name: &str) -> bool {
    let found = settings.iter().find(|finding| finding.name == name);
    found.is_some_and(|finding| finding.state.fault().is_some())
}

/// What was lost, of what passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Loss {
    lost: u64,
    passed: u64,
}

impl Loss {
    fn is_borne(self) -> bool {
        self.lost.saturating_mul(TOLERATED) < self.passed.max(1)
    }

    fn since(self, earlier: Loss) -> Loss {
        Loss {
            lost: self.lost.saturating_sub(earlier.lost),
            passed: self.passed.saturating_sub(earlier.passed),
        }
    }
}

/// All counters at one moment, in the order of the findings.
pub(super) struct Reading {
    at: Instant,
    losses: Vec<(&'static Kind, Result<Loss, String>)>,
}

impl Reading {
    /// Reads the counters of the network that `process` (a folder of proc) sees.
    pub(super) fn take(machine: &Machine, process: &str) -> Self {
        let read = |name: &str| machine.read(&format!("{process}/net/{name}"));
        let netstat = read("netstat").map_err(Unseen::reason);
        let snmp = read("snmp").unwrap_or_default();
        let passed = counter(&snmp, "Tcp:", "PassiveOpens").unwrap_or(0);
        let connections = CONNECTIONS.iter().map(|kind| {
            let uncounted = || "this kernel does not count it".to_owned();
            let lost = match &netstat {
                Ok(text) => lost(text, kind.name).ok_or_else(uncounted),
                Err(reason) => Err(reason.clone()),
            };
            (kind, lost.map(|lost| Loss { lost, passed }))
        });
        let mut losses: Vec<_> = connections.collect();
        losses.push((&QUEUED, queued(machine)));
        losses.push((&RECEIVED, received(machine)));
        Self {
            at: Instant::now(),
            losses,
        }
    }

    /// The findings, after a second reading where this one asks for it: one that is
    /// `apart` later. BLOCKING for at most as long.
    pub(super) fn findings(
        self,
        machine: &Machine,
        process: &str,
        settings: &[Finding],
        apart: Duration,
    ) -> Vec<Finding> {
        let asks = |loss: &Result<Loss, String>| loss.as_ref().is_ok_and(|l| !l.is_borne());
        let later = self.losses.iter().any(|(_, loss)| asks(loss)).then(|| {
            std::thread::sleep(apart.saturating_sub(self.at.elapsed()));
            Reading::take(machine, process)
        });
        let watched = later
            .as_ref()
            .map_or(Duration::ZERO, |later| later.at - self.at);
        let later = later.map_or_else(|| self.losses.clone(), |later| later.losses);
        let both = self.losses.into_iter().zip(later);
        let findings = both.map(|((kind, before), (_, after))| {
            let state = match (before, after) {
                (Ok(before), Ok(after)) => {
                    let still_wrong = (kind.still_wrong)(machine, settings);
                    judge(kind, before, after, watched, still_wrong)
                }
                (Err(reason), _) | (_, Err(reason)) => State::Unseen(reason),
            };
            Finding {
                name: format!("traffic.{}", kind.name),
                wanted: format!("less than one in {TOLERATED} {}", kind.unit),
                why: kind.why,
                state,
            }
        });
        findings.collect()
    }
}

fn judge(kind: &Kind, before: Loss, after: Loss, watched: Duration, still_wrong: bool) -> State {
    let now = after.since(before);
    let Loss { lost, passed } = after;
    let mut text = format!("{lost} of {passed} since the kernel started");
    if before.is_borne() && after.is_borne() {
        return State::Ok(text);
    }
    let is_over = now.is_borne();
    let count = match now.lost {
        0 => "none".to_owned(),
        lost => lost.to_string(),
    };
    let seconds = watched.as_secs_f64();
    write!(text, ", {count} of them in the last {seconds:.1} s").expect("a String");
    let mend = kind.mend;
    if !is_over {
        return kind.weight.of(text, Mend::Words(mend.to_owned()));
    }
    match kind.weight {
        weight if still_wrong => weight.of(text, Mend::Words(mend.to_owned())),
        Weight::Advice => State::Ok(text),
        Weight::Problem => {
            let words = format!(
                "nothing, if that was before a setting was mended: the next boot forgets it. \
                 Where it grows: {mend}"
            );
            Weight::Advice.of(text, Mend::Words(words))
        }
    }
}

/// How many were lost in this way and in none that has a name of its own.
fn lost(netstat: &str, name: &str) -> Option<u64> {
    let count = |name| counter(netstat, "TcpExt:", name);
    let all = count(name)?;
    if name != "ListenDrops" {
        return Some(all);
    }
    let named: u64 = OF_DROPS.into_iter().filter_map(count).sum();
    Some(all.saturating_sub(named))
}

/// A counter of `/proc/net/netstat` or `snmp` (`proc(5)`): a line of names, and one of
/// numbers that begins with the same word.
fn counter(text: &str, begin: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(begin));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|found| found == name)?;
    numbers.split_whitespace().nth(at)?.parse().ok()
}

/// First and second column, hexadecimal (`softnet_seq_show`, `net/core/net-procfs.c`).
fn queued(machine: &Machine) -> Result<Loss, String> {
    let text = machine.read("proc/net/softnet_stat");
    let text = text.map_err(Unseen::reason)?;
    let column = |at: usize| {
        let numbers = text
            .lines()
            .filter_map(|line| u64::from_str_radix(line.split_whitespace().nth(at)?, 16).ok());
        numbers.sum()
    };
    Ok(Loss {
        passed: column(0),
        lost: column(1),
    })
}

/// Of all interfaces that are hardware.
fn received(machine: &Machine) -> Result<Loss, String> {
    machine.list("sys/class/net").map_err(Unseen::reason)?;
    let mut all = Loss { lost: 0, passed: 0 };
    for device in super::network::hardware(machine) {
        let count = |name: &str| {
            let text = machine.read(&format!("sys/class/net/{device}/statistics/{name}"));
            text.ok()
                .and_then(|text| text.parse::<u64>().ok())
                .unwrap_or(0)
        };
        all.passed += count("rx_packets");
        all.lost += count("rx_missed_errors") + count("rx_fifo_errors");
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn loss(lost: u64, passed: u64) -> Loss {
        Loss { lost, passed }
    }

    fn word(kind: usize, before: Loss, after: Loss, still_wrong: bool) -> &'static str {
        judge(&CONNECTIONS[kind], before, after, SECOND, still_wrong).word()
    }

    #[test]
    fn counters_are_read_by_name() {
        let text = "TcpExt: A ListenOverflows B\nTcpExt: 1 22 3\nIpExt: C\nIpExt: 4\n";
        assert_eq!(counter(text, "TcpExt:", "ListenOverflows"), Some(22));
        assert_eq!(counter(text, "IpExt:", "C"), Some(4));
        assert_eq!(counter(text, "TcpExt:", "C"), None);
    }

    #[test]
    fn drops_that_have_a_name_of_their_own_are_counted_once() {
        let text = "TcpExt: ListenOverflows ListenDrops TCPReqQFullDrop\nTcpExt: 7 12 3";
        assert_eq!(lost(text, "ListenOverflows"), Some(7));
        assert_eq!(lost(text, "ListenDrops"), Some(2));
    }

    #[test]
    fn few_losses_among_many_connections_are_borne() {
        let now = |lost, passed| word(0, loss(0, 0), loss(lost, passed), false);
        assert_eq!((now(9, 100_000), now(0, 0)), ("ok", "ok"));
        assert_eq!((now(10, 100_000), now(1, 0)), ("problem", "problem"));
    }

    #[test]
    fn what_is_over_weighs_less_once_its_setting_is_right() {
        let (before, same) = (loss(9000, 100_000), loss(9000, 100_050));
        let (overflows, forgotten) = (0, 3);
        assert_eq!(word(overflows, before, same, true), "problem");
        assert_eq!(word(overflows, before, same, false), "advice");
        assert_eq!(word(forgotten, before, same, true), "advice");
        assert_eq!(word(forgotten, before, same, false), "ok");
        let grown = loss(9001, 100_050);
        assert_eq!(word(overflows, before, grown, false), "problem");
        assert_eq!(word(forgotten, before, grown, false), "advice");
        let state = judge(&CONNECTIONS[0], before, same, SECOND, false);
        let fault = state.fault().expect("one");
        assert!(
            fault.found.ends_with(", none of them in the last 1.0 s"),
            "{fault:?}"
        );
    }

    #[test]
    fn the_second_reading_is_of_what_the_machine_says_then() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join("proc/8/net").join(name);
            std::fs::create_dir_all(path.parent().expect("below the root")).expect("own folder");
            std::fs::write(path, text).expect("own folder");
        };
        let overflows = |lost: u64| {
            write(
                "netstat",
                &format!("TcpExt: ListenOverflows\nTcpExt: {lost}"),
            );
            write("snmp", "Tcp: PassiveOpens\nTcp: 1000");
        };
        let machine = Machine::at(folder.path());
        let told = |first, second| {
            overflows(first);
            let reading = Reading::take(&machine, "proc/8");
            overflows(second);
            let findings = reading.findings(&machine, "proc/8", &[], Duration::ZERO);
            findings[0].state.word()
        };
        assert_eq!(told(700, 700), "advice");
        assert_eq!(told(700, 701), "problem");
        assert_eq!(told(0, 0), "ok");
    }
}
