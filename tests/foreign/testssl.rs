//! testssl.sh: what an auditor finds.
//!
//! It tries every version, cipher suite, curve and known weakness. Nothing that
//! it finds may be graver than "low".

use std::fs;

use serde_json::Value;

use crate::program::run_within;
use crate::site::{HOST, Protection, Site};

/// Ways of its to say that there is nothing to worry about.
const HARMLESS: [&str; 4] = ["OK", "INFO", "LOW", "DEBUG"];

/// What it says of itself and not of the server. Its look at resumption saves
/// a ticket of TLS 1.3 in a client that hangs up at once, most often before the
/// ticket can have come, and then fails to load it; `openssl` looks properly.
const ITS_OWN: [&str; 3] = ["engine_problem", "scanTime", "sessionresumption_ticket"];

/// Seconds for a run on a busy machine; half a minute is usual on an idle one.
const PATIENCE: &str = "600";

#[test]
fn an_auditor_finds_nothing_worth_a_mention() {
    for protection in [Protection::Tls, Protection::Stls] {
        let site = Site::start(&[]);
        let report = site.home().join("report.json");
        let target = format!("{HOST}:{}", site.port(protection));
        let shown = report.display().to_string();
        let authority = site.authority().display().to_string();
        let stls: &[&str] = match protection {
            Protection::Stls => &["-t", "pop3"],
            _ => &[],
        };
        let fixed = [
            "--quiet",
            "--color",
            "0",
            "--warnings",
            "off",
            "--ip",
            "127.0.0.1",
        ];
        let files = ["--add-ca", &authority, "--jsonfile", &shown];
        let arguments = fixed.iter().chain(&files).chain(stls).copied();
        let ended = run_within(
            PATIENCE,
            "testssl",
            "testssl.sh",
            &site.home(),
            arguments.chain([&*target]),
        );
        let text = fs::read_to_string(&report);
        let text = text.unwrap_or_else(|error| panic!("{error}\n{ended:?}"));
        let findings: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        let of = |finding: &Value, key: &str| finding[key].as_str().unwrap_or("").to_owned();
        let grave: Vec<_> = findings
            .iter()
            .filter(|finding| !HARMLESS.contains(&&*of(finding, "severity")))
            .filter(|finding| !ITS_OWN.contains(&&*of(finding, "id")))
            .collect();
        assert!(grave.is_empty(), "{protection:?}: {grave:#?}");
        // That it came to the end, and saw what there is.
        for (id, found) in [
            ("TLS1_2", "offered"),
            ("TLS1_3", "offered"),
            ("TLS1", "not offered"),
            ("ROBOT", "not vulnerable"),
        ] {
            let finding = findings.iter().find(|finding| of(finding, "id") == id);
            let finding = finding.unwrap_or_else(|| panic!("no {id} in {text}"));
            assert!(of(finding, "finding").starts_with(found), "{finding}");
        }
    }
}
