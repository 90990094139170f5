//! What a server has open.

use std::fs;

/// Files that the locks of maildrops are spread over, at most.
const LOCK_FILES: usize = 256;

/// What a server has open for its sessions and for itself, by name. The files of
/// locks are not among it: they are opened once each, and there is an end to them.
pub(crate) fn of_sessions(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let links = entries.filter_map(|entry| {
        let link = fs::read_link(entry.expect("an entry").path());
        // It may be closed since it was listed.
        Some(link.ok()?.display().to_string())
    });
    let (locks, others): (Vec<_>, Vec<_>) =
        links.partition(|link| link.contains("/.popcore.locks/"));
    assert!(locks.len() <= LOCK_FILES, "{locks:#?}");
    others
}
