//! The files in which a kernel tells of itself, below a folder of the caller's.
//!
//! That folder is `/` for the machine at hand, another where the files of a host are
//! mounted in a container, and a fixture in tests. Files are only read: there is no
//! call here that writes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A machine, as its `/proc` and `/sys` show it.
#[derive(Debug, Clone)]
pub struct Machine {
    root: PathBuf,
}

/// Why something was not seen.
#[derive(Debug)]
pub enum Unseen {
    /// There is no such file: another kernel, or a part of it that is not loaded.
    Absent,
    /// It is there, and is not told.
    Refused(String),
}

impl Machine {
    /// The machine whose root file system is at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether it is the one that runs this, whose kernel can be asked as well.
    pub fn is_this(&self) -> bool {
        self.root == Path::new("/")
    }

    /// A file's text without the white space around it. `path` has no leading slash.
    pub fn read(&self, path: &str) -> Result<String, Unseen> {
        let path = self.root.join(path);
        match fs::read(&path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).trim().to_owned()),
            Err(error) => Err(Unseen::because(&path, &error)),
        }
    }

    /// The names in a folder, in order.
    pub fn list(&self, path: &str) -> Result<Vec<String>, Unseen> {
        let path = self.root.join(path);
        let entries = fs::read_dir(&path).map_err(|error| Unseen::because(&path, &error))?;
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut names: Vec<String> = names.flat_map(std::ffi::OsString::into_string).collect();
        names.sort();
        Ok(names)
    }

    /// A sysctl by its name.
    pub fn sysctl(&self, key: &str) -> Result<String, Unseen> {
        self.read(&format!("proc/sys/{}", key.replace('.', "/")))
    }

    /// How many CPUs are at work; at least one.
    pub fn cpus(&self) -> usize {
        let online = self.read("sys/devices/system/cpu/online");
        let count = online.ok().map(|text| numbers_of(&text).len());
        count.filter(|count| *count > 0).unwrap_or(1)
    }
}

impl Unseen {
    fn because(path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Unseen::Absent,
            _ => Unseen::Refused(format!("{}: {error}", path.display())),
        }
    }

    /// Why, in words.
    pub fn reason(self) -> String {
        match self {
            Unseen::Absent => "this kernel does not tell it".to_owned(),
            Unseen::Refused(reason) => reason,
        }
    }
}

/// The numbers of a list such as `0-3,8` (`cpuset(7)`, "List format"). What is no
/// number is left out.
pub(super) fn numbers_of(list: &str) -> Vec<usize> {
    let parts = list.trim().split(',');
    let ranges = parts.filter_map(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.parse().ok()?..=to.parse().ok()?)
    });
    ranges.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(numbers_of("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(numbers_of("7\n"), [7]);
        assert!(numbers_of("").is_empty());
    }

    #[test]
    fn what_is_not_there_is_told_from_what_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("proc/sys/net")).expect("a folder");
        fs::write(folder.path().join("proc/sys/net/a"), " 7 \n").expect("a file");
        let machine = Machine::at(folder.path());
        assert_eq!(machine.sysctl("net.a").expect("there"), "7");
        assert!(matches!(machine.sysctl("net.b"), Err(Unseen::Absent)));
        assert!(matches!(machine.read("proc/sys"), Err(Unseen::Refused(_))));
        assert_eq!(machine.list("proc/sys/net").expect("there"), ["a"]);
        assert!(!machine.is_this() && Machine::at("/").is_this());
    }
}
