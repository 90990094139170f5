//! A tuned machine made of files, on which nothing is found, and the same with one
//! setting wrong at a time, on which exactly that is found.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::{Config, Process};

const SESSIONS: u64 = 100_000;

/// A machine of four CPUs, two nodes of memory and one interface, tuned for
/// [`SESSIONS`].
const TUNED: [(&str, &str); 52] = [
    ("proc/sys/kernel/osrelease", "6.12.43+deb13-amd64"),
    ("proc/sys/kernel/io_uring_disabled", "1"),
    ("proc/sys/kernel/io_uring_group", "997"),
    ("proc/sys/kernel/numa_balancing", "0"),
    ("proc/sys/fs/nr_open", "1048576"),
    ("proc/sys/fs/file-max", "9223372036854775807"),
    ("proc/sys/vm/vfs_cache_pressure", "100"),
    ("proc/sys/vm/zone_reclaim_mode", "0"),
    ("proc/sys/net/core/somaxconn", "16384"),
    ("proc/sys/net/core/netdev_max_backlog", "1000"),
    ("proc/sys/net/ipv4/tcp_syncookies", "1"),
    ("proc/sys/net/ipv4/tcp_abort_on_overflow", "0"),
    ("proc/sys/net/ipv4/tcp_window_scaling", "1"),
    ("proc/sys/net/ipv4/tcp_sack", "1"),
    ("proc/sys/net/ipv4/tcp_timestamps", "1"),
    ("proc/sys/net/ipv4/tcp_moderate_rcvbuf", "1"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t33554432"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304"),
    ("proc/sys/net/ipv4/tcp_mem", "287898\t383866\t575796"),
    ("proc/sys/net/ipv4/tcp_max_tw_buckets", "131072"),
    ("proc/sys/net/ipv4/tcp_fin_timeout", "60"),
    ("proc/sys/net/ipv4/tcp_available_ulp", "mptcp tls"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999"),
    ("proc/sys/net/ipv4/ip_local_reserved_ports", ""),
    ("proc/sys/net/netfilter/nf_conntrack_max", "1048576"),
    ("proc/sys/net/netfilter/nf_conntrack_count", "90000"),
    (
        "proc/softirqs",
        "  CPU0 CPU1 CPU2 CPU3 CPU4\nNET_RX: 300000 310000 290000 305000 0",
    ),
    (
        "proc/net/softnet_stat",
        "00100000 00000000 00000003\n00100000 00000000 00000001",
    ),
    ("proc/7/comm", "chronyd"),
    ("proc/8/comm", "popcore"),
    ("proc/8/limits", LIMITS),
    (
        "proc/8/status",
        "Name:\tpopcore\nGid:\t997\t997\t997\t997\nGroups:\t8 \nVmSwap:\t       0 kB\n\
        Cpus_allowed_list:\t2-3",
    ),
    ("proc/8/cgroup", "0::/system.slice/popcore.service"),
    (
        "proc/8/mountinfo",
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda rw",
    ),
    ("proc/8/net/netstat", NETSTAT),
    (
        "proc/8/net/snmp",
        "Tcp: ActiveOpens PassiveOpens\nTcp: 5 9000000",
    ),
    (
        "proc/8/net/sockstat",
        "TCP: inuse 90000 orphan 3 tw 900 alloc 90010 mem 1200",
    ),
    ("sys/devices/system/cpu/online", "0-3"),
    ("sys/devices/system/cpu/isolated", "2-3"),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
        "performance",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver",
        "acpi-cpufreq",
    ),
    ("sys/devices/system/node/online", "0-1"),
    (
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "tsc",
    ),
    (
        "sys/devices/system/clocksource/clocksource0/available_clocksource",
        "tsc hpet",
    ),
    ("sys/fs/cgroup/cgroup.controllers", "cpu memory pids"),
    (
        "sys/fs/cgroup/system.slice/popcore.service/cpu.max",
        "max 100000",
    ),
    (
        "sys/fs/cgroup/system.slice/popcore.service/cpu.stat",
        "nr_throttled 0",
    ),
    (
        "sys/fs/cgroup/system.slice/popcore.service/memory.max",
        "max",
    ),
    (
        "sys/fs/cgroup/system.slice/popcore.service/memory.events",
        "low 0\nmax 0\noom_kill 0",
    ),
    (
        "sys/fs/cgroup/system.slice/popcore.service/pids.max",
        "4915",
    ),
    ("sys/class/net/eth0/device/uevent", ""),
    ("sys/class/net/eth0/queues/rx-0/rps_cpus", "f"),
];

const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units\n\
    Max open files            1048576              1048576              files\n\
    Max locked memory         536870912            536870912            bytes";

const NETSTAT: &str = "TcpExt: ListenOverflows TCPReqQFullDrop TCPReqQFullDoCookies \
    TCPTimeWaitOverflow TCPAbortOnMemory TCPMemoryPressures ListenDrops\nTcpExt: 0 0 0 0 0 0 0";

/// A file of the machine, what is wrong in it, and what is found then.
const WRONG: [(&str, &str, &str, &str); 44] = [
    (
        "proc/sys/kernel/osrelease",
        "5.15.0-100-generic",
        "kernel.release",
        "problem",
    ),
    (
        "proc/sys/kernel/io_uring_disabled",
        "2",
        "kernel.io_uring_disabled",
        "problem",
    ),
    (
        "proc/sys/kernel/io_uring_group",
        "998",
        "kernel.io_uring_disabled",
        "problem",
    ),
    (
        "proc/sys/kernel/numa_balancing",
        "1",
        "kernel.numa_balancing",
        "advice",
    ),
    ("proc/sys/fs/nr_open", "65536", "fs.nr_open", "problem"),
    ("proc/sys/fs/file-max", "100000", "fs.file-max", "problem"),
    (
        "proc/sys/vm/vfs_cache_pressure",
        "200",
        "vm.vfs_cache_pressure",
        "advice",
    ),
    (
        "proc/sys/vm/zone_reclaim_mode",
        "1",
        "vm.zone_reclaim_mode",
        "problem",
    ),
    (
        "proc/sys/net/core/somaxconn",
        "128",
        "net.core.somaxconn",
        "problem",
    ),
    (
        "proc/sys/net/ipv4/tcp_syncookies",
        "0",
        "net.ipv4.tcp_syncookies",
        "problem",
    ),
    (
        "proc/sys/net/ipv4/tcp_abort_on_overflow",
        "1",
        "net.ipv4.tcp_abort_on_overflow",
        "problem",
    ),
    (
        "proc/sys/net/ipv4/tcp_window_scaling",
        "0",
        "net.ipv4.tcp_window_scaling",
        "problem",
    ),
    (
        "proc/sys/net/ipv4/tcp_sack",
        "0",
        "net.ipv4.tcp_sack",
        "problem",
    ),
    (
        "proc/sys/net/ipv4/tcp_timestamps",
        "0",
        "net.ipv4.tcp_timestamps",
        "advice",
    ),
    (
        "proc/sys/net/ipv4/tcp_moderate_rcvbuf",
        "0",
        "net.ipv4.tcp_moderate_rcvbuf",
        "advice",
    ),
    (
        "proc/sys/net/ipv4/tcp_rmem",
        "4096 4096 4096",
        "net.ipv4.tcp_rmem",
        "problem",
    ),
    (
        "proc/sys/net/ipv4/tcp_wmem",
        "4096 4096 65536",
        "net.ipv4.tcp_wmem",
        "problem",
    ),
    (
        "proc/sys/net/ipv4/tcp_max_tw_buckets",
        "100",
        "net.ipv4.tcp_max_tw_buckets",
        "advice",
    ),
    (
        "proc/sys/net/ipv4/tcp_fin_timeout",
        "600",
        "net.ipv4.tcp_fin_timeout",
        "advice",
    ),
    (
        "proc/sys/net/ipv4/ip_local_port_range",
        "1024 60999",
        "net.ipv4.ip_local_port_range",
        "problem",
    ),
    (
        "proc/sys/net/netfilter/nf_conntrack_max",
        "262144",
        "net.netfilter.nf_conntrack_max",
        "advice",
    ),
    (
        "proc/sys/net/netfilter/nf_conntrack_count",
        "1048000",
        "traffic.tracked",
        "problem",
    ),
    (
        "proc/softirqs",
        "NET_RX: 9000000 100 100 100",
        "traffic.spread",
        "advice",
    ),
    (
        "proc/net/softnet_stat",
        "00001000 00000100 0",
        "traffic.backlog_drops",
        "advice",
    ),
    ("proc/7/comm", "bash", "clock.kept", "advice"),
    (
        "proc/8/limits",
        "Max open files 1024 4096 files\nMax locked memory 536870912 536870912 b",
        "process.open_files",
        "problem",
    ),
    (
        "proc/8/limits",
        "Max open files 1048576 1048576 files\nMax locked memory 65536 65536 b",
        "process.locked_memory",
        "problem",
    ),
    (
        "proc/8/status",
        "Gid:\t1 997 1 1\nVmSwap:\t 812 kB\nCpus_allowed_list:\t2-3",
        "process.swapped",
        "problem",
    ),
    (
        "proc/8/status",
        "Gid:\t1 997 1 1\nVmSwap:\t 0 kB\nCpus_allowed_list:\t0-1",
        "cpu.isolated",
        "advice",
    ),
    (
        "proc/8/net/netstat",
        "TcpExt: ListenOverflows TCPReqQFullDrop TCPReqQFullDoCookies \
        TCPTimeWaitOverflow TCPAbortOnMemory TCPMemoryPressures ListenDrops\nTcpExt: 9000 0 0 0 0 0 9000",
        "traffic.ListenOverflows",
        "advice",
    ),
    (
        "proc/8/net/netstat",
        "TcpExt: ListenOverflows TCPReqQFullDrop TCPReqQFullDoCookies \
        TCPTimeWaitOverflow TCPAbortOnMemory TCPMemoryPressures ListenDrops\nTcpExt: 0 9000 0 0 0 0 9000",
        "traffic.TCPReqQFullDrop",
        "advice",
    ),
    (
        "proc/8/net/sockstat",
        "TCP: inuse 9 orphan 0 tw 0 alloc 9 mem 380000",
        "traffic.socket_memory",
        "problem",
    ),
    (
        "sys/devices/system/cpu/isolated",
        "",
        "process.cpus",
        "advice",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
        "powersave",
        "cpu.governor",
        "advice",
    ),
    (
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "hpet",
        "clock.source",
        "problem",
    ),
    (
        "sys/fs/cgroup/system.slice/popcore.service/cpu.max",
        "150000 100000",
        "cgroup.cpu",
        "advice",
    ),
    (
        "sys/fs/cgroup/system.slice/cpu.max",
        "150000 100000",
        "cgroup.cpu",
        "advice",
    ),
    (
        "sys/fs/cgroup/system.slice/popcore.service/memory.events",
        "max 7\noom_kill 0",
        "cgroup.memory",
        "problem",
    ),
    (
        "sys/fs/cgroup/system.slice/popcore.service/pids.max",
        "100",
        "cgroup.threads",
        "problem",
    ),
    (
        "sys/class/net/eth0/queues/rx-0/rps_cpus",
        "0",
        "nic.eth0.queues",
        "advice",
    ),
    (
        "proc/8/mountinfo",
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda rw\n\
        23 22 0:9 / /var rw - nfs s:/m rw,vers=3",
        "maildrop.mount",
        "problem",
    ),
    (
        "proc/8/mountinfo",
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda rw\n\
        23 22 0:9 / /var rw - nfs4 s:/m rw,vers=4.2,soft",
        "maildrop.mount",
        "problem",
    ),
    (
        "proc/8/mountinfo",
        "22 1 8:1 / / rw - ext4 /dev/sda rw",
        "maildrop.mount",
        "advice",
    ),
    (
        "proc/sys/net/ipv4/tcp_available_ulp",
        "mptcp",
        "kernel.tls",
        "advice",
    ),
];

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("below the root")).expect("own folder");
    fs::write(path, text).expect("own folder");
}

fn tuned(root: &Path) {
    for (path, text) in TUNED {
        write(root, path, text);
    }
}

/// A configuration whose mail lies in /var, and whose TLS is the kernel's.
fn config(folder: &Path) -> Config {
    let users = folder.join("users");
    fs::write(&users, "").expect("own folder");
    let text = format!(
        "[server]\nhostname = \"h\"\n[[listener]]\naddress = \"127.0.0.1:1110\"\n\
         [auth]\nplaintext_without_tls = true\n[[auth.directory]]\nkind = \"passwd-file\"\n\
         path = \"{}\"\n[maildrop]\npath = \"/var/{{user}}\"\n[tls]\nkernel = \"auto\"\n",
        users.display()
    );
    let process = Process {
        root: true,
        hostname: "h".to_owned(),
    };
    Config::parse(&text, &folder.join("popcore.toml"), &process).expect("it is right")
}

fn look(root: &Path) -> Report {
    let question = Question {
        sizes: Sizes::of(SESSIONS),
        pid: Some(8),
        config: Some(Seen {
            config: Some(config(root)),
            faults: None,
        }),
        apart: Duration::ZERO,
    };
    examine(&Machine::at(root), &question)
}

fn told(report: &Report) -> Vec<(String, &'static str)> {
    let worth = |finding: &&Finding| finding.state.word() != "ok";
    let told = report.findings.iter().filter(worth);
    told.map(|finding| (finding.name.clone(), finding.state.word()))
        .collect()
}

#[test]
fn nothing_is_found_on_a_tuned_machine() {
    let folder = tempfile::tempdir().expect("a folder");
    tuned(folder.path());
    let report = look(folder.path());
    assert_eq!(told(&report), [], "{}", report.text());
    assert!(!report.has_problems());
    assert!(report.findings.len() > 40, "{}", report.text());
    // A reader learns why of what is right, too.
    for (finding, line) in report.findings.iter().zip(report.text().lines()) {
        assert!(line.ends_with(finding.why), "{line}");
    }
}

#[test]
fn each_wrong_setting_is_found_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, text, name, word) in WRONG {
        tuned(folder.path());
        write(folder.path(), path, text);
        let report = look(folder.path());
        assert_eq!(told(&report), [(name.to_owned(), word)], "{path}: {text}");
        let text = report.text();
        let line = text.lines().find(|line| line.starts_with(word));
        let line = line.expect("a line");
        for part in [name, ": found ", ", wanted ", "; mend: "] {
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(report.has_problems(), word == "problem");
        // A level above the service, which no other case has.
        let above = folder.path().join("sys/fs/cgroup/system.slice/cpu.max");
        let _ = fs::remove_file(above);
    }
}

#[test]
fn a_queue_for_each_cpu_near_the_device_is_enough() {
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = [("nic.eth0.queues".to_owned(), "advice")];
    for (place, near, told_of) in [
        ("device/local_cpulist", "0-3", &wrong[..]),
        ("device/local_cpulist", "1", &[]),
        // Of a virtio device it is the parent that has a place.
        ("local_cpulist", "1", &[]),
        ("local_cpulist", "", &wrong),
    ] {
        let tree = folder.path().join("sys");
        let _ = fs::remove_dir_all(tree);
        tuned(folder.path());
        write(
            folder.path(),
            "sys/class/net/eth0/queues/rx-0/rps_cpus",
            "0",
        );
        write(folder.path(), &format!("sys/class/net/eth0/{place}"), near);
        assert_eq!(told(&look(folder.path())), told_of, "{place}: {near}");
    }
}

#[test]
fn what_is_not_there_is_said_or_known_to_be_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = look(folder.path());
    let problems = report.findings.iter();
    let problems: Vec<_> = problems
        .filter(|finding| finding.state.word() == "problem")
        .collect();
    assert!(
        matches!(&problems[..], [one] if one.name == "process"),
        "{}",
        report.text()
    );
    let unseen = |finding: &&Finding| finding.state.word() == "unseen";
    let unseen: Vec<_> = report.findings.iter().filter(unseen).collect();
    assert!(unseen.len() > 20, "{}", report.text());
    let names: Vec<_> = unseen.iter().map(|finding| &*finding.name).collect();
    assert!(names.contains(&"net.core.somaxconn") && names.contains(&"maildrop.mount"));
    // No key, no tracking: that is known, not unseen.
    assert!(!names.contains(&"traffic.tracked"));
}

#[test]
fn the_forms_of_a_report_say_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    tuned(folder.path());
    write(folder.path(), "proc/sys/net/core/somaxconn", "128");
    write(
        folder.path(),
        "proc/8/status",
        "Gid:\t1 997 1 1\nVmSwap:\t1 kB\nCpus_allowed_list:\t2-3",
    );
    let report = look(folder.path());
    let text = report.text();
    assert!(text.ends_with("0 advice, 2 problem, 0 unseen\n"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
    assert_eq!(
        (&json["problems"], &json["sessions"]),
        (&2.into(), &SESSIONS.into())
    );
    let findings = json["findings"].as_array().expect("a list");
    assert_eq!(findings.len(), report.findings.len());
    let found = |name: &str| findings.iter().find(|finding| finding["name"] == name);
    let queue = found("net.core.somaxconn").expect("there");
    assert_eq!(queue["command"], "sysctl -w net.core.somaxconn=16384");
    assert_eq!(
        (&queue["found"], &queue["state"]),
        (&"128".into(), &"problem".into())
    );
    let script = report.script();
    let steps: Vec<_> = script.lines().filter(|line| line.contains("||")).collect();
    assert_eq!(
        steps,
        ["{ sysctl -w net.core.somaxconn=16384; } || refuse net.core.somaxconn"]
    );
    assert!(
        script.contains("# By hand: give the machine memory"),
        "{script}"
    );
}

/// A setting that is wrong and what was lost by it are two findings; once it is right and
/// nothing more is lost there is no problem left.
#[test]
fn what_was_lost_by_a_setting_is_a_problem_as_long_as_it_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    tuned(folder.path());
    let lost = NETSTAT.replace("TcpExt: 0", "TcpExt: 90000");
    write(folder.path(), "proc/8/net/netstat", &lost);
    write(folder.path(), "proc/sys/net/core/somaxconn", "128");
    let both = [
        ("net.core.somaxconn".to_owned(), "problem"),
        ("traffic.ListenOverflows".to_owned(), "problem"),
    ];
    assert_eq!(told(&look(folder.path())), both);
    write(folder.path(), "proc/sys/net/core/somaxconn", "16384");
    let report = look(folder.path());
    let over = [("traffic.ListenOverflows".to_owned(), "advice")];
    assert_eq!(told(&report), over);
    assert!(!report.has_problems());
}

/// What a kernel, or a mount's name, says does not become a command.
#[test]
fn what_was_found_stays_words_in_a_script() {
    let folder = tempfile::tempdir().expect("a folder");
    tuned(folder.path());
    let mounts = "1 1 8:1 / / rw,relatime - ext4 /dev/a rw\n\
                  2 1 8:2 / /var rw - ext4 /dev/b rw";
    write(folder.path(), "proc/8/mountinfo", mounts);
    write(folder.path(), "proc/sys/kernel/osrelease", "5.1\nreboot");
    let script = look(folder.path()).script();
    assert!(!script.lines().any(|line| line == "reboot"), "{script}");
    assert!(
        script.contains("\n{ mount -o remount,noatime /var; } || refuse maildrop.mount\n"),
        "{script}"
    );
    assert_eq!(finding::quoted("/m y'$(x)"), "'/m y'\\''$(x)'");
}
