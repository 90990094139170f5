//! The real binary, and what it reports.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::server::FakeServer;

pub(crate) fn run(arguments: &str) -> (Option<i32>, Value, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_popcore-loadgen"))
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .expect("the generator starts");
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!shown.contains("panicked"), "{shown}");
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), report, shown)
}

pub(crate) fn load(server: &FakeServer, arguments: &str) -> (Option<i32>, Value, String) {
    let target = server.address();
    run(&format!(
        "--target {target} --password pw --json - {arguments}"
    ))
}

#[track_caller]
pub(crate) fn number(report: &Value, pointer: &str) -> f64 {
    let number = report.pointer(pointer).and_then(Value::as_f64);
    number.unwrap_or_else(|| panic!("no {pointer} in {report}"))
}

#[track_caller]
pub(crate) fn count(report: &Value, pointer: &str) -> u64 {
    let count = report.pointer(pointer).and_then(Value::as_u64);
    count.unwrap_or_else(|| panic!("no {pointer} in {report}"))
}
