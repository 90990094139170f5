//! The file systems that maildrops and their indexes lie on, and how they are mounted.

use std::path::{Path, PathBuf};

use super::finding::{Finding, Mend, State, Weight, quoted};
use super::machine::Machine;
use crate::config::Config;
use crate::maildrop::Template;

/// Percent of space or of inodes below which a disk counts as full.
const NEARLY_NONE: u64 = 5;

/// File systems that forget with the machine, or were not made to be written to.
const FLEETING: [&str; 4] = ["tmpfs", "ramfs", "overlay", "squashfs"];

/// One line of `/proc/PID/mountinfo` (`proc_pid_mountinfo(5)`).
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    kind: String,
    /// Of the mount and of the file system, which have some of them each.
    options: Vec<String>,
}

pub(super) fn findings(machine: &Machine, process: &str, config: &Config) -> Vec<Finding> {
    let mounts = machine.read(&format!("{process}/mountinfo"));
    let mounts = match mounts {
        Ok(text) => Ok(text.lines().filter_map(Mount::parse).collect::<Vec<_>>()),
        Err(unseen) => Err(unseen.reason()),
    };
    let index = config.maildrop.index.as_ref();
    let templates = [("maildrop", Some(&config.maildrop.path)), ("index", index)];
    let mut findings = Vec::new();
    for (name, text) in templates {
        let Some(text) = text else { continue };
        let begins = Template::parse(text).ok().and_then(|all| all.beginning());
        let Some(folder) = begins else {
            findings.push(finding(
                name,
                "mount",
                State::Unseen(
                    "its place is a user's home: look at the file systems of homes".to_owned(),
                ),
            ));
            continue;
        };
        let state = match &mounts {
            Err(reason) => State::Unseen(reason.clone()),
            Ok(mounts) => match Mount::of(mounts, &place(machine, &folder)) {
                Some(mount) => mount.judge(),
                None => State::Unseen(format!("no mount holds {}", folder.display())),
            },
        };
        findings.push(finding(name, "mount", state));
        if machine.is_this() {
            findings.push(finding(name, "room", room(&folder)));
        }
    }
    findings
}

/// Behind symbolic links, where they can be followed.
fn place(machine: &Machine, folder: &Path) -> PathBuf {
    let real = machine.is_this().then(|| folder.canonicalize().ok());
    real.flatten().unwrap_or_else(|| folder.to_owned())
}

fn finding(name: &str, what: &str, state: State) -> Finding {
    let (wanted, why) = match what {
        "mount" => (
            "a local file system with relatime, NFS from 4.0 on, or CephFS".to_owned(),
            "locks, removals and reads of every session are as good as this mount",
        ),
        _ => (
            format!("more than {NEARLY_NONE} % of space and of inodes free"),
            "without room no index is written and no mail arrives; a Maildir takes an inode a \
             message",
        ),
    };
    Finding {
        name: format!("{name}.{what}"),
        wanted,
        why,
        state,
    }
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(4);
        let point = PathBuf::from(unescape(mount.next()?));
        let own = mount.next()?;
        let mut system = system.split(' ');
        let kind = system.next()?.to_owned();
        let super_options = system.nth(1).unwrap_or_default();
        let options = own.split(',').chain(super_options.split(','));
        Some(Self {
            point,
            kind,
            options: options.map(str::to_owned).collect(),
        })
    }

    /// The mount that a path lies on: the deepest, of these the last.
    fn of<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
        let above = mounts.iter().filter(|mount| path.starts_with(&mount.point));
        above.max_by_key(|mount| mount.point.components().count())
    }

    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|found| found == option)
    }

    fn value(&self, name: &str) -> Option<&str> {
        let mut values = self
            .options
            .iter()
            .filter_map(|option| option.split_once('='));
        values
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    fn judge(&self) -> State {
        let point = self.point.display();
        let text = format!("{} at {point}", self.kind);
        let bad = |option: &str, words: &str| {
            Weight::Problem.of(
                format!("{text} with {option}"),
                Mend::Words(words.to_owned()),
            )
        };
        let remount = |option: &str, wanted: &str| {
            let point = quoted(&self.point.to_string_lossy());
            let command = format!("mount -o remount,{wanted} {point}");
            Weight::Advice.of(format!("{text} with {option}"), Mend::Command(command))
        };
        if self.has("ro") {
            return bad("ro", "mount it to be written to: clients delete");
        }
        if self.kind == "nfs" {
            let words = "mount it with vers=4.1 or newer: locks of 3 do not end with their holder";
            return bad("a version below 4", words);
        }
        if self.kind.starts_with("nfs") && self.has("soft") {
            let words = "mount it with hard: soft turns a slow server into read errors";
            return bad("soft", words);
        }
        let kept_here = self
            .value("local_lock")
            .is_some_and(|which| which != "none");
        if self.has("nolock") || kept_here {
            let words = "mount it without nolock and local_lock: other nodes do not see such locks";
            return bad("locks that stay on this node", words);
        }
        if self.has("sync") || self.has("dirsync") {
            return remount("sync", "async");
        }
        let is_disk = !self.kind.starts_with("nfs") && !self.kind.contains("ceph");
        let reads_write = is_disk && !self.has("noatime") && !self.has("relatime");
        if reads_write && !FLEETING.contains(&&*self.kind) {
            return remount("a write for each read", "noatime");
        }
        if FLEETING.contains(&&*self.kind) {
            let words = "put mail on a disk, unless it may go with this machine";
            return Weight::Advice.of(text, Mend::Words(words.to_owned()));
        }
        State::Ok(text)
    }
}

/// Octal escapes of spaces and the like.
fn unescape(text: &str) -> String {
    let mut pieces = text.split('\\');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let code = piece
            .get(..3)
            .and_then(|code| u8::from_str_radix(code, 8).ok());
        if let Some(code) = code {
            plain.push(char::from(code));
            plain.push_str(&piece[3..]);
        } else {
            plain.push('\\');
            plain.push_str(piece);
        }
    }
    plain
}

fn room(folder: &Path) -> State {
    let found = match rustix::fs::statvfs(folder) {
        Ok(found) => found,
        Err(error) => return State::Unseen(format!("{}: {error}", folder.display())),
    };
    judge_room(
        percent(found.f_bavail, found.f_blocks),
        percent(found.f_favail, found.f_files),
    )
}

/// File systems without a fixed number of inodes say 0 of 0.
fn percent(left: u64, all: u64) -> u64 {
    left.saturating_mul(100).checked_div(all).unwrap_or(100)
}

fn judge_room(space: u64, inodes: u64) -> State {
    let text = format!("{space} % of space, {inodes} % of inodes free");
    if space > NEARLY_NONE && inodes > NEARLY_NONE {
        return State::Ok(text);
    }
    let words = "make room, or grow the file system; df -h and df -i show it";
    Weight::Problem.of(text, Mend::Words(words.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "22 27 0:21 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
        23 22 0:22 / /var/my\\040mail rw,noatime - nfs4 s:/m rw,vers=4.2,hard,local_lock=none\n\
        24 22 0:23 / /var rw,relatime - xfs /dev/vdb rw,noquota";

    fn mounts() -> Vec<Mount> {
        MOUNTS.lines().filter_map(Mount::parse).collect()
    }

    fn judge(line: &str) -> State {
        Mount::parse(line).expect("a mount").judge()
    }

    #[test]
    fn the_deepest_mount_holds_a_path() {
        let mounts = mounts();
        let kind = |path: &str| &*Mount::of(&mounts, Path::new(path)).expect("one").kind;
        assert_eq!(kind("/var/my mail/a"), "nfs4");
        assert_eq!(kind("/var/mail"), "xfs");
        assert_eq!(kind("/variety"), "ext4");
    }

    #[test]
    fn sound_mounts_are_ok() {
        for mount in mounts() {
            let state = mount.judge();
            assert!(matches!(state, State::Ok(_)), "{state:?}");
        }
    }

    #[test]
    fn mounts_that_lose_are_problems_and_slow_ones_advice() {
        for (line, word) in [
            ("1 1 0:1 / /m ro,relatime - ext4 /dev/a ro", "problem"),
            ("1 1 0:1 / /m rw - nfs s:/m rw,vers=3,hard", "problem"),
            ("1 1 0:1 / /m rw - nfs4 s:/m rw,vers=4.2,soft", "problem"),
            (
                "1 1 0:1 / /m rw - nfs4 s:/m rw,hard,local_lock=all",
                "problem",
            ),
            ("1 1 0:1 / /m rw - ext4 /dev/a rw", "advice"),
            (
                "1 1 0:1 / /m rw,sync,relatime - ext4 /dev/a rw,sync",
                "advice",
            ),
            ("1 1 0:1 / /m rw,relatime - tmpfs none rw", "advice"),
            ("1 1 0:1 / /m rw - ceph a:/ rw", "ok"),
        ] {
            assert_eq!(judge(line).word(), word, "{line}");
        }
    }

    #[test]
    fn a_disk_without_room_or_without_inodes_is_told() {
        assert_eq!(judge_room(50, 50).word(), "ok");
        assert_eq!(judge_room(4, 50).word(), "problem");
        assert_eq!(judge_room(50, 4).word(), "problem");
        assert_eq!(percent(0, 0), 100);
    }
}
