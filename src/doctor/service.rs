//! What the configuration names beside the machine: certificates and directories.

use std::io;
use std::time::{Duration, SystemTime};

use super::finding::{Finding, Mend, State, Weight};
use crate::auth::{self, DirectoryError, Found, Probe};
use crate::config::{Config, DirectoryOptions};
use crate::tls::{self, Facts};

/// Days before its end from which a certificate should have been renewed: those that
/// renew themselves do so a month before.
const RENEWED: i64 = 14;

/// How long a directory may take to be asked or read. Clients wait for a login behind
/// all those before it.
const PROMPT: Duration = Duration::from_secs(1);

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = certificates(config);
    for (number, directory) in config.auth.directories.iter().enumerate() {
        findings.push(answers(number + 1, directory));
    }
    findings
}

/// When they end, which a chain says to everybody, and whether they can be served, which
/// takes their keys.
fn certificates(config: &Config) -> Vec<Finding> {
    let now = SystemTime::now();
    let chains = config.tls.certificates.iter().map(|pair| &pair.chain);
    let mut findings: Vec<Finding> = chains
        .flat_map(|chain| Facts::read(chain))
        .map(|facts| expiry(&facts, now))
        .collect();
    if let Err(faults) = tls::inspect(&config.tls) {
        findings.extend(faults.iter().map(|fault| Finding {
            name: "certificate".to_owned(),
            wanted: "files that can be read and belong together".to_owned(),
            why: "what cannot be used is served to nobody",
            state: if fault.is_refusal() {
                State::Unseen(fault.to_string())
            } else {
                Weight::Problem.of("cannot be used", Mend::Words(fault.to_string()))
            },
        }));
    }
    findings
}

fn expiry(facts: &Facts, now: SystemTime) -> Finding {
    let days = facts.days_left(now);
    let mend = || Mend::Words("renew it: popcore loads the new one by itself".to_owned());
    let state = match days {
        ..0 => Weight::Problem.of("it has expired", mend()),
        0..=RENEWED => Weight::Advice.of(format!("{days} days left"), mend()),
        _ => State::Ok(format!("{days} days left")),
    };
    Finding {
        name: format!("certificate.{}", facts.names.join(",")),
        wanted: format!("more than {RENEWED} days left"),
        why: "clients refuse a certificate whose time is over",
        state,
    }
}

fn answers(number: usize, directory: &DirectoryOptions) -> Finding {
    let state = match auth::probe(directory) {
        Ok(probe) => judge_answer(&probe),
        // What only the server's own user may read is no fault that can be told from here.
        Err(DirectoryError::Unreadable { path, source })
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            State::Unseen(format!("{}: {source}", path.display()))
        }
        Err(error) => Weight::Problem.of("it does not answer", Mend::Words(error.to_string())),
    };
    Finding {
        name: format!("directory.{number} ({})", directory.kind),
        wanted: format!("an answer within {} s", PROMPT.as_secs()),
        why: "a reload reads all users, and logins wait for a directory that is slow",
        state,
    }
}

fn judge_answer(probe: &Probe) -> State {
    let text = match probe.found {
        Found::Users(_) => format!("{probe}, read in {} ms", probe.took.as_millis()),
        Found::Answer => probe.to_string(),
    };
    if probe.took <= PROMPT {
        return State::Ok(text);
    }
    let words = match probe.found {
        Found::Users(_) => "put the file on a local disk, or split it over several directories",
        Found::Answer => "see what holds it up: an index that is missing, a line, its own load",
    };
    Weight::Advice.of(text, Mend::Words(words.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::tls::KeyKind;

    #[test]
    fn a_certificate_near_its_end_is_told() {
        let now = SystemTime::now();
        let word = |days: u64| {
            let facts = Facts {
                chain: PathBuf::from("c"),
                names: vec!["pop.example.net".to_owned()],
                kind: KeyKind::Elliptic,
                expires: now + Duration::from_hours(days * 24 + 1),
            };
            expiry(&facts, now).state.word()
        };
        assert_eq!((word(60), word(3)), ("ok", "advice"));
        let facts = Facts {
            chain: PathBuf::from("c"),
            names: Vec::new(),
            kind: KeyKind::Elliptic,
            expires: now - Duration::from_hours(48),
        };
        assert_eq!(expiry(&facts, now).state.word(), "problem");
    }

    #[test]
    fn a_slow_directory_is_told() {
        let word = |took| {
            let found = Found::Answer;
            judge_answer(&Probe { found, took }).word()
        };
        assert_eq!(word(Duration::from_millis(3)), "ok");
        assert_eq!(word(Duration::from_secs(3)), "advice");
    }
}
