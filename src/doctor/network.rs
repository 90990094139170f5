//! Interfaces and ports.

use super::finding::{Finding, Mend, State, Weight, quoted};
use super::machine::{Machine, numbers_of};
use crate::config::Config;

const DEVICES: &str = "sys/class/net";

/// Without a configuration: where clients expect POP3 (RFC 1939) and POP3 over TLS (RFC
/// 8314), which no range holds unless `ip_unprivileged_port_start` was lowered, and where
/// the README has metrics.
const PORTS: [u16; 3] = [110, 995, 9110];

pub(super) fn findings(machine: &Machine, config: Option<&Config>) -> Vec<Finding> {
    let mut findings = vec![ports(machine, config)];
    let devices = hardware(machine);
    findings.extend(devices.iter().map(|name| queues(machine, name)));
    findings
}

/// The interfaces that are hardware: others, such as a bridge, have no folder of a device.
pub(super) fn hardware(machine: &Machine) -> Vec<String> {
    let mut devices = machine.list(DEVICES).unwrap_or_default();
    devices.retain(|name| machine.list(&format!("{DEVICES}/{name}/device")).is_ok());
    devices
}

/// Ports of the server that the kernel may give away.
fn ports(machine: &Machine, config: Option<&Config>) -> Finding {
    let own: Vec<u16> = match config {
        None => PORTS.to_vec(),
        Some(config) => {
            let listeners = config.listeners.iter().map(|listener| listener.address);
            let admin = config.admin.iter().map(|admin| admin.listen);
            let ports = listeners.chain(admin).map(|address| address.port());
            ports.filter(|port| *port != 0).collect()
        }
    };
    let reserved = machine
        .sysctl("net.ipv4.ip_local_reserved_ports")
        .unwrap_or_default();
    let state = match machine.sysctl("net.ipv4.ip_local_port_range") {
        Err(unseen) => State::Unseen(unseen.reason()),
        Ok(text) => judge_ports(&own, &text, &reserved),
    };
    Finding {
        name: "net.ipv4.ip_local_port_range".to_owned(),
        wanted: format!("none of the ports {own:?}, or these reserved"),
        why: "a port that an outgoing connection was given is not there when popcore starts",
        state,
    }
}

fn judge_ports(own: &[u16], range: &str, reserved: &str) -> State {
    let bounds: Vec<u16> = range
        .split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect();
    let [first, last] = bounds[..] else {
        return State::Unseen(format!("{range:?} is no range"));
    };
    let kept = numbers_of(reserved);
    let free: Vec<String> = own
        .iter()
        .filter(|port| (first..=last).contains(port) && !kept.contains(&usize::from(**port)))
        .map(u16::to_string)
        .collect();
    let text = format!("{first} {last}");
    if free.is_empty() {
        return State::Ok(text);
    }
    let mut all = free.join(",");
    if !reserved.is_empty() {
        all = format!("{reserved},{all}");
    }
    let command = format!(
        "sysctl -w net.ipv4.ip_local_reserved_ports={}",
        quoted(&all)
    );
    let found = format!("{text} with port {}", free.join(" and "));
    Weight::Problem.of(found, Mend::Command(command))
}

/// How many CPUs are of the same node of memory as the device, which popcore-irq keeps to
/// where there are as many queues.
fn near_cpus(machine: &Machine, device: &str) -> Option<usize> {
    let places = ["device/local_cpulist", "device/../local_cpulist"];
    let lists = places
        .iter()
        .map(|place| format!("{DEVICES}/{device}/{place}"));
    let mut read = lists.filter_map(|list| machine.read(&list).ok());
    read.find_map(|list| Some(numbers_of(&list).len()).filter(|count| *count > 0))
}

/// Whether every CPU can receive, at least of those near the device: a queue each, or
/// packets passed on to it (RPS, Documentation/networking/scaling.rst).
fn queues(machine: &Machine, device: &str) -> Finding {
    let folder = format!("{DEVICES}/{device}/queues");
    let cpus = machine.cpus();
    let state = match machine.list(&folder) {
        Err(unseen) => State::Unseen(unseen.reason()),
        Ok(names) => {
            let queues: Vec<_> = names
                .iter()
                .filter(|name| name.starts_with("rx-"))
                .collect();
            let passed_on = queues.iter().any(|queue| {
                let mask = machine.read(&format!("{folder}/{queue}/rps_cpus"));
                mask.is_ok_and(|mask| mask.chars().any(|digit| !matches!(digit, '0' | ',')))
            });
            let text = format!("{} for {cpus} CPUs", queues.len());
            let near = near_cpus(machine, device).unwrap_or(cpus);
            if queues.len() >= cpus {
                State::Ok(text)
            } else if queues.len() >= near {
                State::Ok(format!("{text}, {near} of them near"))
            } else if passed_on {
                State::Ok(format!("{text}, passed on by RPS"))
            } else {
                let command = format!("popcore-irq {}", quoted(device));
                Weight::Advice.of(text, Mend::Command(command))
            }
        }
    };
    Finding {
        name: format!("nic.{device}.queues"),
        wanted: format!("{cpus} for receiving, or RPS"),
        why: "a CPU that receives for others has less left for its own shard",
        state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_may_be_given_away_is_reserved() {
        let is_ok = |reserved| {
            matches!(
                judge_ports(&[110, 9110], "1024 65535", reserved),
                State::Ok(_)
            )
        };
        assert!(is_ok("9110") && is_ok("9000-9200") && !is_ok("9111"));
        let state = judge_ports(&[110, 9110], "1024 65535", "5353");
        let mend = state.fault().expect("a fault").mend.to_string();
        assert_eq!(mend, "sysctl -w net.ipv4.ip_local_reserved_ports=5353,9110");
    }
}
