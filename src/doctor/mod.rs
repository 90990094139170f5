//! `popcore doctor`: the machine beside `tuning/README.md`.
//!
//! [`Machine`] reads what a kernel tells of itself, below a folder that is the
//! caller's to choose; every other module here judges one part of it and comes to
//! [`Finding`]s. Judgements are functions of what was read, so that each is tested on
//! files of the test's own; only where a question has no file (may this process have
//! a ring?) is the kernel asked, and only the one that runs this.
//!
//! Nothing here writes, loads a module, or keeps anything open. What cannot be seen, for
//! want of rights or because this kernel does not tell it, is a finding as well.

mod cgroup;
mod finding;
mod kernel;
mod losses;
mod machine;
mod network;
mod process;
mod processors;
mod report;
mod service;
mod sizes;
mod storage;
mod sysctl;
mod traffic;

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::config::{Cause, ConfigError, ConfigErrors, Seen};
use losses::Reading;

pub use finding::{Fault, Finding, Mend, State, Weight};
pub use machine::{Machine, Unseen};
pub use report::Report;
pub use sizes::{GUIDE, LOCKED, MOST, Sizes};

/// What is to be examined beside the machine.
#[derive(Debug)]
pub struct Question {
    /// How many sessions it is to bear.
    pub sizes: Sizes,
    /// The running server.
    pub pid: Option<u32>,
    /// Its configuration, as far as it is one and may be read.
    pub config: Option<Seen>,
    /// How far apart two looks at what only grows are.
    pub apart: Duration,
}

/// Looks at everything. BLOCKING: for as long as the directories of users take to answer,
/// and twice `apart` where a first look does not do.
pub fn examine(machine: &Machine, question: &Question) -> Report {
    let config = question
        .config
        .as_ref()
        .and_then(|seen| seen.config.as_ref());
    // In another root `self` would be this process, which that machine does not have.
    let process = match question.pid {
        Some(pid) => format!("proc/{pid}"),
        None if machine.is_this() => "proc/self".to_owned(),
        None => "proc/1".to_owned(),
    };
    let losses = Reading::take(machine, &process);
    let mut findings = faults_of_configuration(question);
    let server = question.pid.map(|_| &*process);
    findings.extend(kernel::findings(machine, config, server));
    findings.extend(process::findings(
        machine,
        question.sizes,
        question.pid,
        &process,
    ));
    findings.extend(cgroup::findings(machine, &process));
    let settings = sysctl::findings(machine, question.sizes);
    findings.extend(settings.iter().cloned());
    findings.extend(network::findings(machine, config));
    findings.extend(traffic::findings(machine, &process, question.apart));
    findings.extend(processors::findings(machine, server));
    if let Some(config) = config {
        findings.extend(storage::findings(machine, &process, config));
        if machine.is_this() {
            findings.extend(service::findings(config));
        }
    }
    // Last, so that what else there was to do has passed some of the time.
    findings.extend(losses.findings(machine, &process, &settings, question.apart));
    Report::new(question.sizes, findings)
}

fn faults_of_configuration(question: &Question) -> Vec<Finding> {
    let Some(seen) = &question.config else {
        return Vec::new();
    };
    let faults = seen.faults.iter().flat_map(ConfigErrors::iter);
    let rest = match &seen.config {
        Some(_) => "",
        None => ", so that nothing of what it names was looked at",
    };
    faults
        .map(|error| fault_of_configuration(error, rest))
        .collect()
}

fn fault_of_configuration(error: &ConfigError, rest: &str) -> Finding {
    let mend = Mend::Words(error.remedy.clone());
    let state = match error.cause {
        Cause::Wrong => Weight::Problem.of(error.problem.clone(), mend),
        Cause::Refused => {
            let problem = &error.problem;
            State::Unseen(format!(
                "{problem}{rest}; it needs root, or who starts popcore"
            ))
        }
    };
    let name = match &error.key {
        Some(key) => format!("configuration.{key}"),
        None => "configuration".to_owned(),
    };
    Finding {
        name,
        wanted: "what popcore check accepts".to_owned(),
        why: "a server with a faulty configuration does not start",
        state,
    }
}
