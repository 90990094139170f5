//! What of the kernel popcore stands on. The files tell most of it; the kernel of this
//! machine is asked as well, by calls that leave nothing behind.

use super::finding::{Finding, Mend, State, Weight};
use super::machine::{Machine, Unseen};
use crate::config::Config;
use crate::maildrop;
use crate::ring::{self, RingError};

/// Looks at the kernel. `config` says whether TLS is to be its business, and who the
/// server is; `server`, its folder of proc, does that too where it runs.
pub(super) fn findings(
    machine: &Machine,
    config: Option<&Config>,
    server: Option<&str>,
) -> Vec<Finding> {
    let mut findings = vec![
        release(machine),
        allowed(machine, config, server),
        tls(machine, config),
    ];
    if machine.is_this() {
        findings.push(uring(machine));
        findings.push(openat2());
        findings.push(reuseport());
    }
    findings
}

fn release(machine: &Machine) -> Finding {
    let (major, minor) = ring::OLDEST_KERNEL;
    let state = match machine.sysctl("kernel.osrelease") {
        Err(unseen) => State::Unseen(unseen.reason()),
        Ok(found) if ring::is_new_enough(&found) => State::Ok(found),
        Ok(found) => {
            let words = format!("install a kernel of Linux {major}.{minor} or newer");
            Weight::Problem.of(found, Mend::Words(words))
        }
    };
    Finding {
        name: "kernel.release".to_owned(),
        wanted: format!("{major}.{minor} or newer"),
        why: "older kernels lack operations and flags of io_uring that every shard uses",
        state,
    }
}

/// Documentation/admin-guide/sysctl/kernel.rst: at 1, processes of one group may use
/// it, and those that may administer the system.
fn allowed(machine: &Machine, config: Option<&Config>, server: Option<&str>) -> Finding {
    let key = "kernel.io_uring_disabled";
    let state = match machine.sysctl(key).as_deref() {
        Err(Unseen::Absent) => State::Ok("not there: allowed to all".to_owned()),
        Err(Unseen::Refused(reason)) => State::Unseen(reason.clone()),
        Ok("0") => State::Ok("0".to_owned()),
        Ok("1") => {
            let group = machine.sysctl("kernel.io_uring_group").unwrap_or_default();
            judge_group(&group, &groups(machine, config, server))
        }
        Ok(other) => Weight::Problem.of(other, Mend::Command(format!("sysctl -w {key}=0"))),
    };
    Finding {
        name: key.to_owned(),
        wanted: "0, or 1 with server.group in kernel.io_uring_group".to_owned(),
        why: "without io_uring there is no shard",
        state,
    }
}

/// Groups of the server, its own first; none where nothing tells who it is.
fn groups(machine: &Machine, config: Option<&Config>, server: Option<&str>) -> Vec<String> {
    if let Some(run_as) = config.and_then(|config| config.server.run_as.as_ref()) {
        let groups = [&run_as.gid].into_iter().chain(&run_as.supplementary);
        return groups.map(ToString::to_string).collect();
    }
    let status = server.and_then(|server| machine.read(&format!("{server}/status")).ok());
    let status = status.unwrap_or_default();
    let row = |name| status.lines().find_map(|line| line.strip_prefix(name));
    // Real, effective, saved, and that of files (`proc_pid_status(5)`).
    let own = row("Gid:").and_then(|row: &str| row.split_whitespace().nth(1));
    let others = row("Groups:").unwrap_or_default().split_whitespace();
    own.into_iter().chain(others).map(str::to_owned).collect()
}

fn judge_group(group: &str, groups: &[String]) -> State {
    let text = format!("1, for group {group}");
    match groups {
        [] => State::Unseen(format!(
            "{text}, and nothing says which the server's is: --config names it, or --pid"
        )),
        groups if groups.iter().any(|own| own == group) => State::Ok(text),
        // Groups of root's are not to be opened for it: it may anyway, as administrator.
        [own, ..] if own == "0" => State::Unseen(format!(
            "{text}, and the server is of root's group, which may if it has CAP_SYS_ADMIN"
        )),
        [own, ..] => {
            let command = format!("sysctl -w kernel.io_uring_group={own}");
            Weight::Problem.of(text, Mend::Command(command))
        }
    }
}

/// Read where protocols that are loaded are listed: to ask the kernel for it would have
/// it load the module.
fn tls(machine: &Machine, config: Option<&Config>) -> Finding {
    let asked = config.is_some_and(|config| config.tls.kernel);
    let state = match machine.sysctl("net.ipv4.tcp_available_ulp") {
        Ok(found) if found.split_whitespace().any(|name| name == "tls") => State::Ok(found),
        _ if !asked => State::Ok("not loaded, and not asked for".to_owned()),
        Err(Unseen::Refused(reason)) => State::Unseen(reason),
        Ok(_) | Err(Unseen::Absent) => Weight::Advice.of(
            "not loaded",
            Mend::Command("modprobe tls && echo tls > /etc/modules-load.d/tls.conf".to_owned()),
        ),
    };
    Finding {
        name: "kernel.tls".to_owned(),
        wanted: "loaded where tls.kernel is \"auto\"".to_owned(),
        why: "otherwise popcore seals large messages itself, as without the key",
        state,
    }
}

fn uring(machine: &Machine) -> Finding {
    let of_one_group = machine
        .sysctl("kernel.io_uring_disabled")
        .is_ok_and(|value| value == "1");
    let state = judge_probe(ring::probe(), of_one_group);
    Finding {
        name: "kernel.io_uring".to_owned(),
        wanted: "every operation and flag that shards use".to_owned(),
        why: "without io_uring there is no shard",
        state,
    }
}

/// What whoever asks can do with `io_uring`. Where that is for one group, who is not of it
/// cannot tell what the server can.
fn judge_probe(probed: Result<(), RingError>, of_one_group: bool) -> State {
    match probed {
        Ok(()) => State::Ok("every operation is there".to_owned()),
        Err(RingError::Forbidden(error)) if of_one_group => State::Unseen(format!(
            "it is for a group that this user is not of: {error}"
        )),
        Err(error) => Weight::Problem.of("refused", Mend::Words(error.to_string())),
    }
}

fn openat2() -> Finding {
    let state = match maildrop::probe() {
        Ok(()) => State::Ok("there".to_owned()),
        Err(error) => Weight::Problem.of(
            error.to_string(),
            Mend::Words("allow openat2 in the seccomp profile of this process".to_owned()),
        ),
    };
    Finding {
        name: "kernel.openat2".to_owned(),
        wanted: "openat2(2)".to_owned(),
        why: "every file of a maildrop is opened by it, so that none outside of it can be",
        state,
    }
}

fn reuseport() -> Finding {
    use rustix::net::{AddressFamily, SocketType, socket, sockopt};
    let tried = socket(AddressFamily::INET, SocketType::STREAM, None)
        .and_then(|socket| sockopt::set_socket_reuseport(&socket, true));
    let state = match tried {
        Ok(()) => State::Ok("there".to_owned()),
        Err(error) => Weight::Problem.of(
            error.to_string(),
            Mend::Words("allow socket(2) and setsockopt(2) to the process".to_owned()),
        ),
    };
    Finding {
        name: "kernel.reuseport".to_owned(),
        wanted: "SO_REUSEPORT".to_owned(),
        why: "each shard has a listening socket of its own on every address",
        state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_of_the_group_cannot_tell_what_the_server_can() {
        let forbidden = || Err(RingError::Forbidden(std::io::Error::other("no")));
        assert_eq!(judge_probe(forbidden(), true).word(), "unseen");
        assert_eq!(judge_probe(forbidden(), false).word(), "problem");
        assert_eq!(judge_probe(Ok(()), true).word(), "ok");
    }

    #[test]
    fn a_server_that_nobody_named_is_not_judged_by_its_group() {
        let own = |groups: &[&str]| {
            let groups: Vec<_> = groups.iter().map(ToString::to_string).collect();
            judge_group("997", &groups)
        };
        assert_eq!(own(&[]).word(), "unseen");
        assert_eq!(own(&["0"]).word(), "unseen");
        assert_eq!(own(&["33", "997"]).word(), "ok");
        let state = own(&["33", "44"]);
        let mend = state.fault().expect("a fault").mend.to_string();
        assert_eq!(mend, "sysctl -w kernel.io_uring_group=33");
    }
}
