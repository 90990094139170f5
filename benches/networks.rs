//! Block lists: what a list of a thousand and of a million networks costs to be read, to
//! be asked about each connection, and in memory.
//!
//! Every other network of 16 addresses is in the list, in an order without order, so that
//! nothing can be joined. Asked are addresses all over them, half of them in the list,
//! and each answer is asserted.

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Instant;

use popcore::auth::NetworkSet;

/// Networks of the two lists, and rounds of each measurement.
struct Scale {
    networks: [u32; 2],
    rounds: usize,
}

const FULL: Scale = Scale {
    networks: [1_000, 1_000_000],
    rounds: 7,
};

/// Enough to see that it works.
const TRIAL: Scale = Scale {
    networks: [1_000, 5_000],
    rounds: 1,
};

/// Addresses that are asked about in a round.
const ASKED: u32 = 1_000_000;

/// A stride that shares no factor with any count here: all numbers, far from in order.
const STRIDE: u32 = 7_919;

fn network(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0b00_0000 + number * 32)
}

fn write(path: &Path, networks: u32) {
    let mut text = String::new();
    for number in 0..networks {
        let number = u64::from(number) * u64::from(STRIDE) % u64::from(networks);
        let network = network(u32::try_from(number).expect("one of them"));
        writeln!(text, "{network}/28").expect("a String");
    }
    fs::write(path, text).expect("own folder");
}

/// Nanoseconds of a question; and how many addresses were in the list.
fn ask(list: &NetworkSet, networks: u32) -> (f64, u32) {
    let mut inside = 0;
    let begun = Instant::now();
    for number in 0..ASKED {
        let at = number.wrapping_mul(STRIDE) % networks;
        // In the network, or in the gap behind it.
        let address = u32::from(network(at)) + 16 * (number % 2) + 7;
        inside += u32::from(list.contains(black_box(IpAddr::V4(address.into()))));
    }
    let nanos = begun.elapsed().as_secs_f64() * 1e9 / f64::from(ASKED);
    (nanos, inside)
}

/// Octets that the process has in memory now, and had at most (proc(5)).
fn memory() -> [u64; 2] {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    ["VmRSS:", "VmHWM:"].map(|name| {
        let line = status.lines().find(|line| line.starts_with(name));
        let kib = line.and_then(|line| line.split_ascii_whitespace().nth(1));
        1024 * kib.expect("a number").parse::<u64>().expect("a number")
    })
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    let is_trial = std::env::args().any(|argument| argument == "--test");
    let scale = if is_trial { TRIAL } else { FULL };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("list");
    for networks in scale.networks {
        write(&path, networks);
        let [before, _] = memory();
        let (mut read, mut asked) = (Vec::new(), Vec::new());
        let mut list = NetworkSet::default();
        for _ in 0..scale.rounds {
            let begun = Instant::now();
            list = NetworkSet::load(&path).expect("networks");
            read.push(begun.elapsed().as_secs_f64() * 1e3);
            assert_eq!(list.len(), networks as usize);
            let (nanos, inside) = ask(&list, networks);
            assert_eq!(inside, ASKED / 2);
            asked.push(nanos);
        }
        let [after, most] = memory();
        let mib = |octets: u64| octets >> 20;
        println!(
            "{networks} networks: read in {:.1} ms, asked in {:.0} ns; {} KiB of ranges, the \
             process {} MiB before, {} MiB after, {} MiB at most",
            median(read),
            median(asked),
            list.len() * size_of::<(u32, u32)>() / 1024,
            mib(before),
            mib(after),
            mib(most)
        );
    }
}
