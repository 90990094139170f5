//! The findings for people, for programs, and as a script.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::finding::{Finding, Mend, State, quoted};
use super::sizes::Sizes;

/// What an examination came to.
#[derive(Debug)]
pub struct Report {
    sizes: Sizes,
    /// What was configured, the kernel and the process first; what was lost last.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(sizes: Sizes, findings: Vec<Finding>) -> Self {
        Self { sizes, findings }
    }

    /// Whether anything is a problem.
    pub fn has_problems(&self) -> bool {
        self.count("problem") > 0
    }

    fn count(&self, word: &str) -> usize {
        let found = self.findings.iter();
        found.filter(|finding| finding.state.word() == word).count()
    }

    /// A line for each finding, and one that counts them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            writeln!(text, "{finding}").expect("a String");
        }
        let count = |word| self.count(word);
        writeln!(
            text,
            "for {} sessions: {} ok, {} advice, {} problem, {} unseen",
            self.sizes.sessions(),
            count("ok"),
            count("advice"),
            count("problem"),
            count("unseen"),
        )
        .expect("a String");
        text
    }

    /// The same for programs.
    pub fn json(&self) -> String {
        let findings: Vec<Value> = self.findings.iter().map(as_json).collect();
        let report = json!({
            "sessions": self.sizes.sessions(),
            "problems": self.count("problem"),
            "advice": self.count("advice"),
            "unseen": self.count("unseen"),
            "findings": findings,
        });
        format!("{report:#}\n")
    }

    /// A script of what mends the faults, for a shell of root. It ends with 1 where the
    /// machine refused some of it.
    pub fn script(&self) -> String {
        let mut text = format!(
            "#!/bin/sh\n\
             # What popcore doctor would have changed for {sessions} sessions. Read it before it\n\
             # is run. Values of sysctls last until the next boot; to keep them:\n\
             #   popcore doctor --sizes {sessions} > /etc/sysctl.d/60-popcore.conf\n\
             # What is refused is told, and does not keep the rest from being done.\n\
             refused=0\n\
             refuse() {{\n    echo \"refused: $1\" >&2\n    refused=$((refused + 1))\n}}\n",
            sessions = self.sizes.sessions()
        );
        for finding in &self.findings {
            let Some(fault) = finding.state.fault() else {
                continue;
            };
            let comment = format!(
                "{} {}: found {}, wanted {}: {}",
                finding.state.word(),
                finding.name,
                fault.found,
                finding.wanted,
                finding.why
            );
            // A comment ends with its line, whatever a file of the kernel held.
            let comment = comment.replace(char::is_control, " ");
            let step = match &fault.mend {
                Mend::Command(command) => {
                    format!("{{ {command}; }} || refuse {}", quoted(&finding.name))
                }
                Mend::Words(words) => {
                    format!("# By hand: {}", words.replace(char::is_control, " "))
                }
            };
            write!(text, "\n# {comment}\n{step}\n").expect("a String");
        }
        text += "\n[ \"$refused\" -eq 0 ]\n";
        text
    }
}

fn as_json(finding: &Finding) -> Value {
    let mut object = json!({
        "name": finding.name,
        "state": finding.state.word(),
        "wanted": finding.wanted,
        "why": finding.why,
    });
    match &finding.state {
        State::Ok(found) => object["found"] = json!(found),
        State::Unseen(reason) => object["reason"] = json!(reason),
        State::Advice(fault) | State::Problem(fault) => {
            object["found"] = json!(fault.found);
            let key = match fault.mend {
                Mend::Command(_) => "command",
                Mend::Words(_) => "remedy",
            };
            object[key] = json!(fault.mend.to_string());
        }
    }
    object
}
