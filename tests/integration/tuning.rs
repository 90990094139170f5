//! `tuning/popcore-irq`, on an interface that is a folder.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tuning/popcore-irq");

struct Interface(TempDir);

impl Interface {
    /// With so many CPUs and queues; the interrupts of the queues are 40 and on.
    fn new(cpus: &str, queues: usize) -> Self {
        let interface = Self(tempfile::tempdir().expect("a folder"));
        interface.write("sys/devices/system/cpu/online", cpus);
        for queue in 0..queues {
            interface.write(&own(&format!("rx-{queue}/rps_cpus")), "00000000");
            interface.write(&own(&format!("tx-{queue}/xps_cpus")), "00000000");
            let irq = 40 + queue;
            interface.write(&format!("sys/class/net/eth7/device/msi_irqs/{irq}"), "msix");
            interface.write(&format!("proc/irq/{irq}/smp_affinity_list"), "0-63");
        }
        interface
    }

    /// Interrupts of those names, 40 and on, where virtio has them: at the device above
    /// that of the interface.
    fn above(&self, names: &[&str]) {
        let bus = "sys/devices/pci0/0000:00:03.0";
        let device = self.path("sys/class/net/eth7/device");
        fs::remove_dir_all(&device).expect("own folder");
        self.write(&format!("{bus}/virtio0/uevent"), "");
        symlink(self.path(&format!("{bus}/virtio0")), &device).expect("own folder");
        for irq in (40..).take(names.len()) {
            self.write(&format!("{bus}/msi_irqs/{irq}"), "msix");
        }
        self.interrupts(names);
    }

    /// Gives the interrupts 40 and on these names.
    fn interrupts(&self, names: &[&str]) {
        let mut text = "            CPU0       CPU1\n  1:    9    0  IO-APIC  i8042\n".to_owned();
        for (irq, name) in (40..).zip(names) {
            writeln!(
                text,
                " {irq}:  7  0  PCI-MSIX-0000:00:03.0  {irq}-edge  {name}"
            )
            .expect("a String");
            self.write(&format!("proc/irq/{irq}/smp_affinity_list"), "0-63");
        }
        self.write("proc/interrupts", &text);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("own folder");
        fs::write(path, text).expect("own folder");
    }

    fn read(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path(name)).expect("it is there");
        text.trim().to_owned()
    }

    fn affinity(&self, irq: usize) -> String {
        self.read(&format!("proc/irq/{irq}/smp_affinity_list"))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new("sh")
            .arg(SCRIPT)
            .args(arguments)
            .env("POPCORE_IRQ_ROOT", self.0.path())
            .env("POPCORE_IRQ_STATE", self.path("state"))
            .output()
            .expect("sh")
    }

    /// Every file that the script may write, with what it holds.
    fn all(&self) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        for top in ["sys", "proc"] {
            gather(&self.path(top), &mut found);
        }
        found.sort();
        found
    }
}

fn own(name: &str) -> String {
    format!("sys/class/net/eth7/queues/{name}")
}

fn gather(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            gather(&path, found);
        } else {
            let text = fs::read_to_string(&path).expect("text");
            found.push((path, text.trim().to_owned()));
        }
    }
}

#[test]
fn each_queue_gets_a_cpu_where_there_are_as_many() {
    let interface = Interface::new("0-3", 4);
    let output = interface.run(&["eth7"]);
    assert!(output.status.success(), "{output:?}");
    for queue in 0..4 {
        assert_eq!(interface.affinity(40 + queue), queue.to_string());
        assert_eq!(interface.read(&own(&format!("rx-{queue}/rps_cpus"))), "0");
        let near = format!("{:08x}", 1 << queue);
        assert_eq!(interface.read(&own(&format!("tx-{queue}/xps_cpus"))), near);
    }
}

#[test]
fn packets_of_few_queues_are_passed_on_to_all_cpus() {
    let interface = Interface::new("0-39", 2);
    assert!(interface.run(&["eth7"]).status.success());
    assert_eq!(interface.affinity(40), "0");
    assert_eq!(interface.affinity(41), "1");
    for queue in 0..2 {
        let mask = interface.read(&own(&format!("rx-{queue}/rps_cpus")));
        assert_eq!(mask, "000000ff,ffffffff");
    }
    assert_eq!(interface.read(&own("tx-0/xps_cpus")), "00000055,55555555");
    assert_eq!(interface.read(&own("tx-1/xps_cpus")), "000000aa,aaaaaaaa");
}

#[test]
fn cpus_near_the_interface_are_taken_where_it_names_them() {
    let interface = Interface::new("0-7", 2);
    interface.write("sys/class/net/eth7/device/local_cpulist", "4-5");
    assert!(interface.run(&["eth7"]).status.success());
    assert_eq!(
        (interface.affinity(40), interface.affinity(41)),
        ("4".into(), "5".into())
    );
}

#[test]
fn near_cpus_that_are_too_few_for_the_queues_are_not_the_only_ones() {
    let interface = Interface::new("0-7", 4);
    interface.write("sys/class/net/eth7/device/local_cpulist", "4-5");
    assert!(interface.run(&["eth7"]).status.success());
    let all: Vec<_> = (40..44).map(|irq| interface.affinity(irq)).collect();
    assert_eq!(all, ["0", "1", "2", "3"]);
    assert_eq!(interface.read(&own("rx-0/rps_cpus")), "000000ff");
}

#[test]
fn all_cpus_are_taken_where_that_is_asked_for() {
    let interface = Interface::new("0-7", 2);
    interface.write("sys/class/net/eth7/device/local_cpulist", "4-5");
    assert!(interface.run(&["--all", "eth7"]).status.success());
    assert_eq!(
        (interface.affinity(40), interface.affinity(41)),
        ("0".into(), "1".into())
    );
    assert_eq!(interface.read(&own("rx-0/rps_cpus")), "000000ff");
}

/// A queue of virtio has an interrupt for each direction, and the device one of its own.
#[test]
fn both_directions_of_a_virtio_queue_are_with_the_same_cpu() {
    let interface = Interface::new("0-3", 4);
    let mut names = vec!["virtio0-config".to_owned()];
    for queue in 0..4 {
        names.push(format!("virtio0-input.{queue}"));
        names.push(format!("virtio0-output.{queue}"));
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    interface.above(&names);
    assert!(interface.run(&["eth7"]).status.success());
    let all: Vec<_> = (40..49).map(|irq| interface.affinity(irq)).collect();
    assert_eq!(all, ["0-63", "0", "0", "1", "1", "2", "2", "3", "3"]);
}

#[test]
fn interrupts_that_are_of_no_queue_are_left_where_they_are() {
    // Before the queues, as Mellanox has it, and behind them, as ixgbe.
    for (names, expected) in [
        (
            [
                "mlx5_async0@pci:0000:00:03.0",
                "mlx5_comp0@pci:0000:00:03.0",
                "mlx5_comp1@pci:0000:00:03.0",
            ],
            ["0-63", "0", "1"],
        ),
        (["eth7-TxRx-0", "eth7-TxRx-1", "eth7"], ["0", "1", "0-63"]),
        // Names that say nothing: the first is one too many.
        (["a", "b", "c"], ["0-63", "0", "1"]),
    ] {
        let interface = Interface::new("0-1", 2);
        interface.above(&names);
        assert!(interface.run(&["eth7"]).status.success());
        let all: Vec<_> = (40..43).map(|irq| interface.affinity(irq)).collect();
        assert_eq!(all, expected, "{names:?}");
    }
}

#[test]
fn a_dry_run_writes_nothing_and_says_what_would_be_written() {
    let interface = Interface::new("0-1", 1);
    let before = interface.all();
    let output = interface.run(&["--dry-run", "eth7"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(interface.all(), before);
    assert!(!interface.path("state").exists());
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    for part in [
        "smp_affinity_list: 0-63 -> 0",
        "rps_cpus: 00000000 -> 00000003",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn undo_brings_back_what_was_before_the_first_of_several_runs() {
    let interface = Interface::new("0-1", 1);
    let before = interface.all();
    assert!(interface.run(&["eth7"]).status.success());
    let after = interface.all();
    assert_ne!(after, before);
    assert!(interface.run(&["eth7"]).status.success());
    assert_eq!(interface.all(), after);
    assert!(interface.run(&["--undo", "eth7"]).status.success());
    assert_eq!(interface.all(), before);
    let output = interface.run(&["--undo", "eth7"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(said.contains("nothing was changed on eth7"), "{said}");
}

/// What could not be changed is not undone, and what cannot be undone stays known.
#[test]
fn undo_goes_on_where_a_file_refuses() {
    let interface = Interface::new("0-3", 3);
    // It can be read and not written, by anybody.
    let managed = interface.path("proc/irq/40/smp_affinity_list");
    fs::remove_file(&managed).expect("own folder");
    symlink("/proc/version", &managed).expect("own folder");
    let before = interface.all();
    let output = interface.run(&["eth7"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        said.contains("irq/40/smp_affinity_list cannot be written"),
        "{said}"
    );
    let kept = interface.read("state/eth7");
    assert!(!kept.contains("irq/40/"), "{kept}");

    let refuses = interface.path("proc/irq/41/smp_affinity_list");
    fs::remove_file(&refuses).expect("own folder");
    fs::create_dir(&refuses).expect("own folder");
    let output = interface.run(&["--undo", "eth7"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(interface.affinity(42), "0-63");
    assert_eq!(
        interface.read("state/eth7"),
        format!("0-63 {}", refuses.display())
    );

    fs::remove_dir(&refuses).expect("own folder");
    fs::write(&refuses, "1").expect("own folder");
    assert!(interface.run(&["--undo", "eth7"]).status.success());
    assert_eq!(interface.all(), before);
    assert!(!interface.path("state/eth7").exists());
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let interface = Interface::new("0-1", 1);
    let output = interface.run(&["eth9"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(said.contains("no interface eth9"), "{said}");
    assert_eq!(interface.run(&["../etc"]).status.code(), Some(2));
    assert_eq!(interface.run(&[]).status.code(), Some(2));
}
