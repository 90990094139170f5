//! A user's maildrop on disk, as other programs see and change it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One Maildir.
#[derive(Clone)]
pub(crate) struct Mailbox(PathBuf);

impl Mailbox {
    /// An empty Maildir at `path`.
    pub(crate) fn make(path: PathBuf) -> Mailbox {
        for part in ["tmp", "new", "cur"] {
            fs::create_dir_all(path.join(part)).expect("a folder");
        }
        Mailbox(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Puts a message there as an MTA does: whole before it is seen. `place` is
    /// its folder and name.
    pub(crate) fn deliver(&self, place: &str, octets: impl AsRef<[u8]>) {
        let name = place.rsplit('/').next().expect("a name");
        let made = self.0.join("tmp").join(name);
        fs::write(&made, octets).expect("written");
        fs::rename(&made, self.0.join(place)).expect("renamed");
    }

    /// Numbered messages of a few lines each.
    pub(crate) fn fill(&self, messages: usize) {
        for number in 1..=messages {
            self.deliver(&format!("new/{number}.m"), message(number));
        }
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.0.join(from), self.0.join(to)).expect("renamed");
    }

    pub(crate) fn remove(&self, place: &str) {
        fs::remove_file(self.0.join(place)).expect("removed");
    }

    /// Every file of new/ and cur/ with its octets.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for part in ["new", "cur"] {
            for entry in fs::read_dir(self.0.join(part)).expect("a folder") {
                let entry = entry.expect("an entry");
                let name = entry.file_name().to_string_lossy().into_owned();
                let octets = fs::read(entry.path()).expect("a file");
                files.insert(format!("{part}/{name}"), octets);
            }
        }
        files
    }

    /// The names of every file of new/ and cur/.
    pub(crate) fn names(&self) -> Vec<String> {
        self.files().into_keys().collect()
    }
}

/// A message that says which one it is; some lines begin with a dot.
pub(crate) fn message(number: usize) -> Vec<u8> {
    let body = "a line\n.a dot\n..\n.\n".repeat(number % 5);
    format!("From: a@example.net\nSubject: {number}\n\n{body}the end\n").into_bytes()
}
