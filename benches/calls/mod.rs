//! System calls of a server under load: all of them by strace(1), and those into
//! the rings at full speed by the server's own counter.
//!
//! strace makes each call dearer, so that a turn of the ring serves fewer sessions
//! than it would: what it counts is more than what an untraced server makes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::rig::Result;

/// A strace that counts.
pub(crate) struct Trace(Child);

impl Trace {
    /// Counts the calls of all threads of a process from now on.
    pub(crate) fn attach(pid: u32, table: &Path) -> Result<Trace> {
        let mut command = Command::new("strace");
        command
            .args(["-f", "-c", "-U", "name,calls", "-o"])
            .arg(table);
        command.args(["-p", &pid.to_string()]);
        let spawned = command.stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|e| format!("strace: {e}"))?;
        let stderr = child.stderr.take().ok_or("strace: no output")?;
        let mut said = String::new();
        let read = BufReader::new(stderr).read_line(&mut said);
        // "strace: Process 4711 attached with 9 threads"
        if read.is_err() || !said.contains("attached") {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("strace does not attach: {said}"));
        }
        Ok(Trace(child))
    }

    /// The calls by name since.
    pub(crate) fn detach(mut self, table: &Path) -> Result<BTreeMap<String, u64>> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or("strace: no process")?;
        kill_process(pid, Signal::INT).map_err(|e| format!("strace: {e}"))?;
        self.0.wait().map_err(|e| format!("strace: {e}"))?;
        let text = std::fs::read_to_string(table).map_err(|e| format!("strace: {e}"))?;
        let rows = text.lines().filter_map(|line| {
            let (name, calls) = line.trim().split_once(char::is_whitespace)?;
            Some((name.to_owned(), calls.trim().parse().ok()?))
        });
        let mut calls: BTreeMap<String, u64> = rows.collect();
        calls.remove("total");
        if calls.is_empty() {
            return Err(format!("strace counted nothing: {text}"));
        }
        Ok(calls)
    }
}
