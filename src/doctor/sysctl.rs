//! The sysctls of the guide: what each should be, why, and how bad it is otherwise.
//!
//! A kernel's default stands here where another value hurts, and is not installed:
//! what is in the file to install is what defaults do not give. Settings that popcore
//! makes on its own sockets (keepalive, user timeout, unsent octets) are not here, for
//! their sysctls change nothing; nor is `tcp_max_syn_backlog`, which the kernel reads
//! only where SYN cookies are off (`tcp_conn_request`, `net/ipv4/tcp_input.c`).

use super::finding::{Finding, Mend, State, Weight};
use super::machine::{Machine, Unseen};
use super::sizes::Sizes;

/// What a value should be.
#[derive(Clone, Copy)]
enum Want {
    Is(u64),
    AtLeast(fn(Sizes) -> u64),
    AtMost(u64),
    /// The number at this place of three, counted from 0, should be at least that.
    Part(usize, u64),
}

struct Knob {
    key: &'static str,
    want: Want,
    weight: Weight,
    why: &'static str,
    /// What it means that there is no such key; otherwise it is worth a line.
    absent: Option<&'static str>,
    /// Whether it is in the file to install.
    installed: bool,
}

const KNOBS: [Knob; 17] = [
    Knob {
        key: "fs.nr_open",
        want: Want::AtLeast(Sizes::nr_open),
        weight: Weight::Problem,
        why: "no process may have more files open, whatever its unit says: two for a session",
        absent: None,
        installed: true,
    },
    Knob {
        key: "fs.file-max",
        want: Want::AtLeast(Sizes::file_max),
        weight: Weight::Problem,
        why: "all processes together may have no more files open",
        absent: None,
        // systemd sets it as high as it goes; a file here would lower it.
        installed: false,
    },
    Knob {
        key: "net.core.somaxconn",
        want: Want::AtLeast(Sizes::queue),
        weight: Weight::Problem,
        why: "the queue in front of each shard, as it is when popcore starts: clients who find it \
              full wait a second or more",
        absent: None,
        installed: true,
    },
    Knob {
        key: "net.ipv4.tcp_syncookies",
        want: Want::Is(1),
        weight: Weight::Problem,
        why: "without cookies a flood of SYNs keeps clients out; at 2 every client pays for it",
        absent: Some("no SYN cookies in this kernel"),
        installed: true,
    },
    Knob {
        key: "net.ipv4.tcp_abort_on_overflow",
        want: Want::Is(0),
        weight: Weight::Problem,
        why: "at 1 a client is reset where it could have been served a moment later",
        absent: None,
        installed: true,
    },
    Knob {
        key: "net.ipv4.tcp_window_scaling",
        want: Want::Is(1),
        weight: Weight::Problem,
        why: "without it a message moves at 64 KiB a round trip",
        absent: None,
        installed: false,
    },
    Knob {
        key: "net.ipv4.tcp_sack",
        want: Want::Is(1),
        weight: Weight::Problem,
        why: "without it each loss costs a round trip of its own",
        absent: None,
        installed: false,
    },
    Knob {
        key: "net.ipv4.tcp_timestamps",
        want: Want::Is(1),
        weight: Weight::Advice,
        why: "SYN cookies carry window scaling and SACK in timestamps, and nowhere else",
        absent: None,
        installed: false,
    },
    Knob {
        key: "net.ipv4.tcp_moderate_rcvbuf",
        want: Want::Is(1),
        weight: Weight::Advice,
        why: "the kernel gives a socket that receives little a small buffer by itself",
        absent: None,
        installed: false,
    },
    Knob {
        key: "net.ipv4.tcp_rmem",
        want: Want::Part(1, 64 << 10),
        weight: Weight::Problem,
        why: "what a client sends ahead, 16 KiB, and what the kernel books beside it must fit",
        absent: None,
        installed: false,
    },
    Knob {
        key: "net.ipv4.tcp_wmem",
        want: Want::Part(2, 1 << 20),
        weight: Weight::Problem,
        why: "bounds a client's rate: 1 MiB is 100 Mbit/s at a round trip of 80 ms",
        absent: None,
        installed: false,
    },
    Knob {
        key: "net.ipv4.tcp_max_tw_buckets",
        want: Want::AtLeast(|_| 16 << 10),
        weight: Weight::Advice,
        why: "beyond it the kernel forgets connections at once and says so in its log",
        absent: None,
        installed: false,
    },
    Knob {
        key: "net.ipv4.tcp_fin_timeout",
        want: Want::AtMost(60),
        weight: Weight::Advice,
        why: "for so many seconds a client that never ends its half keeps the kernel's memory",
        absent: None,
        installed: false,
    },
    Knob {
        key: "net.netfilter.nf_conntrack_max",
        want: Want::AtLeast(Sizes::tracked),
        weight: Weight::Advice,
        why: "where connections are tracked and the table is full, new ones are dropped",
        absent: Some("connections are not tracked"),
        installed: true,
    },
    Knob {
        key: "vm.vfs_cache_pressure",
        want: Want::AtMost(100),
        weight: Weight::Advice,
        why: "logins live on cached inodes and names of Maildirs",
        absent: None,
        installed: false,
    },
    Knob {
        key: "vm.zone_reclaim_mode",
        want: Want::Is(0),
        weight: Weight::Problem,
        why: "otherwise cached mail is thrown away while another node has memory",
        absent: Some("one node of memory"),
        installed: true,
    },
    Knob {
        key: "kernel.numa_balancing",
        want: Want::Is(0),
        weight: Weight::Advice,
        why: "it unmaps memory to see who uses it; shards are pinned and their memory is near",
        absent: Some("one node of memory"),
        installed: true,
    },
];

/// Looks at every sysctl of the guide.
pub(super) fn findings(machine: &Machine, sizes: Sizes) -> Vec<Finding> {
    let one_node = machine
        .read("sys/devices/system/node/online")
        .map_or(true, |nodes| nodes == "0");
    let none_tracked = machine
        .sysctl("net.netfilter.nf_conntrack_count")
        .is_ok_and(|count| count == "0");
    let judged = KNOBS.iter().map(|knob| {
        let mut state = knob.judge(machine.sysctl(knob.key), sizes);
        let idle = match knob.key {
            // Distributions turn it on everywhere.
            "kernel.numa_balancing" => one_node.then_some("on one node of memory"),
            // A kernel that could track has the key as well.
            "net.netfilter.nf_conntrack_max" => none_tracked.then_some("with nothing tracked"),
            _ => None,
        };
        if let (Some(idle), Some(fault)) = (idle, state.fault()) {
            state = State::Ok(format!("{} {idle}", fault.found));
        }
        Finding {
            name: knob.key.to_owned(),
            wanted: knob.want.words(sizes),
            why: knob.why,
            state,
        }
    });
    judged.collect()
}

/// A line of the file to install.
pub(super) struct Installed {
    pub(super) key: &'static str,
    pub(super) value: u64,
    pub(super) why: &'static str,
    /// Whether there are kernels without it.
    pub(super) may_be_absent: bool,
    /// What would do, where the machine has more already and that is kept.
    pub(super) would_do: Option<u64>,
}

/// What is to be installed, on a machine if there is one: what is large enough there
/// already is never made smaller.
pub(super) fn installed(sizes: Sizes, machine: Option<&Machine>) -> Vec<Installed> {
    let knobs = KNOBS.iter().filter(|knob| knob.installed);
    let lines = knobs.map(|knob| {
        let derived = knob.want.value(sizes);
        let running = machine.and_then(|machine| machine.sysctl(knob.key).ok());
        let running = running.and_then(|found| found.parse::<u64>().ok());
        let more = match knob.want {
            Want::AtLeast(_) => running.filter(|running| *running > derived),
            Want::Is(_) | Want::AtMost(_) | Want::Part(..) => None,
        };
        Installed {
            key: knob.key,
            value: more.unwrap_or(derived),
            why: knob.why,
            may_be_absent: knob.absent.is_some(),
            would_do: more.map(|_| derived),
        }
    });
    lines.collect()
}

impl Knob {
    fn judge(&self, found: Result<String, Unseen>, sizes: Sizes) -> State {
        let found = match (found, self.absent) {
            (Ok(found), _) => found,
            (Err(Unseen::Absent), Some(meaning)) => return State::Ok(meaning.to_owned()),
            (Err(unseen), _) => return State::Unseen(unseen.reason()),
        };
        let numbers: Vec<u64> = found
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        if self.want.is_met(&numbers, sizes) {
            return State::Ok(numbers_as_text(&numbers));
        }
        let mut mended = numbers.clone();
        let place = self.want.place();
        if mended.len() <= place {
            return State::Unseen(format!("{found:?} is not what this key holds"));
        }
        mended[place] = self.want.value(sizes);
        // The three numbers are in order.
        for later in place + 1..mended.len() {
            mended[later] = mended[later].max(mended[place]);
        }
        let value = numbers_as_text(&mended);
        let quote = if mended.len() > 1 { "'" } else { "" };
        let command = format!("sysctl -w {quote}{}={value}{quote}", self.key);
        let found = numbers_as_text(&numbers);
        self.weight.of(found, Mend::Command(command))
    }
}

impl Want {
    fn place(self) -> usize {
        match self {
            Want::Part(place, _) => place,
            Want::Is(_) | Want::AtLeast(_) | Want::AtMost(_) => 0,
        }
    }

    fn value(self, sizes: Sizes) -> u64 {
        match self {
            Want::Is(value) | Want::AtMost(value) | Want::Part(_, value) => value,
            Want::AtLeast(value) => value(sizes),
        }
    }

    fn is_met(self, numbers: &[u64], sizes: Sizes) -> bool {
        let Some(found) = numbers.get(self.place()) else {
            return false;
        };
        let value = self.value(sizes);
        match self {
            Want::Is(_) => *found == value,
            Want::AtMost(_) => *found <= value,
            Want::AtLeast(_) | Want::Part(..) => *found >= value,
        }
    }

    fn words(self, sizes: Sizes) -> String {
        let value = self.value(sizes);
        match self {
            Want::Is(_) => value.to_string(),
            Want::AtMost(_) => format!("at most {value}"),
            Want::AtLeast(_) => format!("at least {value}"),
            Want::Part(0, _) => format!("a first number of at least {value}"),
            Want::Part(1, _) => format!("a second number of at least {value}"),
            Want::Part(..) => format!("a last number of at least {value}"),
        }
    }
}

fn numbers_as_text(numbers: &[u64]) -> String {
    let texts: Vec<String> = numbers.iter().map(u64::to_string).collect();
    texts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(key: &str, found: &str) -> State {
        let knob = KNOBS.iter().find(|knob| knob.key == key).expect("a knob");
        knob.judge(Ok(found.to_owned()), Sizes::of(100_000))
    }

    fn mend(key: &str, found: &str) -> String {
        let state = judge(key, found);
        state.fault().expect("a fault").mend.to_string()
    }

    #[test]
    fn a_fault_is_mended_to_what_is_wanted() {
        assert_eq!(
            mend("net.core.somaxconn", "128"),
            "sysctl -w net.core.somaxconn=16384"
        );
        assert_eq!(
            mend("net.ipv4.tcp_rmem", "4096\t8192\t16384"),
            "sysctl -w 'net.ipv4.tcp_rmem=4096 65536 65536'"
        );
        assert_eq!(
            mend("net.ipv4.tcp_fin_timeout", "600"),
            "sysctl -w net.ipv4.tcp_fin_timeout=60"
        );
    }

    #[test]
    fn a_value_beyond_what_is_wanted_is_right() {
        assert!(matches!(judge("net.core.somaxconn", "65535"), State::Ok(_)));
        assert!(matches!(judge("vm.vfs_cache_pressure", "50"), State::Ok(_)));
        let wmem = judge("net.ipv4.tcp_wmem", "4096\t16384\t4194304");
        assert_eq!(wmem, State::Ok("4096 16384 4194304".to_owned()));
    }

    #[test]
    fn each_key_is_in_the_guide() {
        let guide = include_str!("../../tuning/README.md");
        for knob in &KNOBS {
            let last = knob.key.rsplit('.').next().expect("a last part");
            assert!(guide.contains(last), "{}", knob.key);
        }
    }

    #[test]
    fn a_value_that_is_none_is_not_taken_for_one() {
        assert!(matches!(judge("fs.nr_open", "many"), State::Unseen(_)));
        assert!(matches!(
            judge("net.ipv4.tcp_wmem", "4096"),
            State::Unseen(_)
        ));
    }
}
