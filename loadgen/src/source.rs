//! The Maildirs behind the server, where they are at hand: what messages there
//! are by the hash of their contents, and mail delivered while the load runs.
//!
//! A message is known before it can be fetched: a delivery is entered here
//! before its file is renamed into `new/`.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sha2::{Digest as _, Sha256};

use crate::fault::{Fault, Kind};
use crate::reply::{Digest, digest};
use crate::users::Login;

/// How often each content is there.
type Contents = HashMap<Digest, u32>;

/// All users' Maildirs.
#[derive(Debug)]
pub struct Source {
    users: Vec<Mailbox>,
    delivered: AtomicU64,
}

#[derive(Debug)]
struct Mailbox {
    path: PathBuf,
    contents: Mutex<Contents>,
}

/// The Maildir of a user by a template of `{user}`, `{local}` and `{domain}`.
fn path_of(template: &str, user: &str) -> PathBuf {
    let (local, domain) = user.split_once('@').unwrap_or((user, ""));
    let path = template
        .replace("{user}", user)
        .replace("{local}", local)
        .replace("{domain}", domain);
    PathBuf::from(path)
}

/// Hashes a stored message as a client sees it: every line end as CRLF, the
/// last line ended.
fn hash_message(stored: &[u8]) -> Digest {
    let mut hasher = Sha256::new();
    for line in stored.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        hasher.update(line);
        hasher.update(b"\r\n");
    }
    digest(&mut hasher)
}

fn read_maildir(path: &Path) -> io::Result<Contents> {
    let mut contents = Contents::new();
    for part in ["new", "cur"] {
        for entry in fs::read_dir(path.join(part))? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with('.') {
                let message = fs::read(entry.path())?;
                *contents.entry(hash_message(&message)).or_default() += 1;
            }
        }
    }
    Ok(contents)
}

impl Source {
    /// Reads all Maildirs.
    ///
    /// Errors are for the operator: they name the folder.
    pub fn read(template: &str, logins: &[Login]) -> Result<Self, String> {
        if !template.contains('{') && logins.len() > 1 {
            return Err(format!(
                "--maildir {template}: names one Maildir for all users; use {{user}}, or {{local}} \
                 and {{domain}}"
            ));
        }
        let users = logins.iter().map(|login| {
            let path = path_of(template, &login.user);
            let contents = read_maildir(&path)
                .map_err(|e| format!("--maildir {template}: {}: {e}", path.display()))?;
            Ok(Mailbox {
                path,
                contents: Mutex::new(contents),
            })
        });
        Ok(Self {
            users: users.collect::<Result<_, String>>()?,
            delivered: AtomicU64::new(0),
        })
    }

    fn contents(&self, user: usize) -> std::sync::MutexGuard<'_, Contents> {
        let contents = self.users[user].contents.lock();
        contents.expect("nobody panics while holding it")
    }

    /// A message was fetched whole: it must be one of the user's.
    pub fn check(&self, user: usize, message: Digest) -> Option<Fault> {
        let known = self.contents(user).contains_key(&message);
        (!known).then(|| {
            Fault::new(
                Kind::Content,
                "the message is none of those in the user's Maildir",
            )
        })
    }

    /// A message was fetched and deleted for good.
    pub fn take(&self, user: usize, message: Digest) -> Option<Fault> {
        let mut contents = self.contents(user);
        match contents.get_mut(&message) {
            Some(left) if *left > 0 => {
                *left -= 1;
                None
            }
            // Kept at zero: a message that comes after its deletion is known.
            Some(_) => Some(Fault::new(
                Kind::Doubled,
                "a message was fetched and deleted oftener than it was there",
            )),
            None => None,
        }
    }

    /// Messages delivered.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    /// Delivers one message to a user.
    ///
    /// Errors are for the operator: they name the folder.
    pub fn deliver(&self, user: usize, seed: u64) -> Result<(), String> {
        let number = self.delivered.load(Relaxed);
        let Mailbox { path, .. } = &self.users[user];
        let at = |e: io::Error| format!("--deliver: {}: {e}", path.display());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let name = format!(
            "{}.M{}P{}Q{number}.popcore-loadgen",
            now.as_secs(),
            now.subsec_micros(),
            std::process::id()
        );
        let body = ".a line that begins with a dot\nand one that does not\n".repeat(16);
        let text = format!(
            "From: popcore-loadgen@localhost\nSubject: delivery {number} of {seed}\n\n{body}"
        );
        let (unfinished, finished) = (path.join("tmp").join(&name), path.join("new").join(&name));
        let mut file = fs::File::create_new(&unfinished).map_err(at)?;
        file.write_all(text.as_bytes()).map_err(at)?;
        let owner = fs::metadata(path.join("new")).map_err(at)?;
        if file.metadata().map_err(at)?.uid() != owner.uid() {
            chown(&unfinished, Some(owner.uid()), Some(owner.gid())).map_err(at)?;
        }
        let message = hash_message(text.as_bytes());
        *self.contents(user).entry(message).or_default() += 1;
        fs::rename(&unfinished, &finished).map_err(at)?;
        self.delivered.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Compares a user's Maildir with what should be left, once the run is over.
    pub fn audit(&self, user: usize) -> Result<Vec<Fault>, String> {
        let path = &self.users[user].path;
        let there =
            read_maildir(path).map_err(|e| format!("--maildir: {}: {e}", path.display()))?;
        let expected = self.contents(user);
        let count = |all: &Contents, message| all.get(message).copied().unwrap_or_default();
        let lost: u32 = expected
            .iter()
            .map(|(message, wanted)| wanted.saturating_sub(count(&there, message)))
            .sum();
        // More than expected of a content that was known: mail of others has
        // contents of its own.
        let doubled: u32 = there
            .iter()
            .filter_map(|(message, found)| Some(found.saturating_sub(*expected.get(message)?)))
            .sum();
        let found = [
            (Kind::Lost, lost, "that nobody deleted are gone"),
            (
                Kind::Doubled,
                doubled,
                "are there that were deleted or came once",
            ),
        ];
        let faults = found.into_iter().filter(|(_, number, _)| *number > 0);
        Ok(faults
            .map(|(kind, number, what)| {
                Fault::new(kind, format!("after the run {number} messages {what}"))
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maildir(messages: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for part in ["new", "cur", "tmp"] {
            fs::create_dir(root.path().join(part)).expect("own folder");
        }
        for (number, message) in messages.iter().enumerate() {
            fs::write(root.path().join("new").join(number.to_string()), message)
                .expect("own folder");
        }
        root
    }

    fn source(root: &Path) -> Source {
        let login = Login {
            user: "ann".into(),
            password: String::new(),
        };
        Source::read(&root.display().to_string(), &[login]).expect("a Maildir")
    }

    #[test]
    fn line_ends_do_not_matter_and_contents_do() {
        let hash = |text: &str| hash_message(text.as_bytes());
        assert_eq!(hash("a\nb\n"), hash("a\r\nb"));
        assert_ne!(hash("a\nb\n"), hash("a\nb\n\n"));
        assert_ne!(hash(""), hash("\n"));
    }

    #[test]
    fn what_is_lost_or_doubled_is_found_after_the_run() {
        let root = maildir(&["one\n", "two\n"]);
        let source = source(root.path());
        assert_eq!(source.audit(0), Ok(Vec::new()));
        assert_eq!(source.check(0, hash_message(b"two\r\n")), None);
        let fault = source.check(0, hash_message(b"three\r\n"));
        assert_eq!(fault.map(|f| f.kind), Some(Kind::Content));

        // Deleted, and still there.
        assert_eq!(source.take(0, hash_message(b"one\n")), None);
        let kinds = |source: &Source| -> Vec<Kind> {
            let faults = source.audit(0).expect("readable");
            faults.iter().map(|fault| fault.kind).collect()
        };
        assert_eq!(kinds(&source), [Kind::Doubled]);
        fs::remove_file(root.path().join("new/0")).expect("there");
        assert_eq!(kinds(&source), []);
        let twice = source.take(0, hash_message(b"one\n"));
        assert_eq!(twice.map(|f| f.kind), Some(Kind::Doubled));

        // Not deleted, and gone.
        fs::remove_file(root.path().join("new/1")).expect("there");
        assert_eq!(kinds(&source), [Kind::Lost]);
    }

    #[test]
    fn deliveries_are_known_and_arrive() {
        let root = maildir(&[]);
        let source = source(root.path());
        source.deliver(0, 1).expect("delivered");
        source.deliver(0, 1).expect("delivered");
        assert_eq!(source.delivered(), 2);
        assert_eq!(source.audit(0), Ok(Vec::new()));
        let files: Vec<_> = fs::read_dir(root.path().join("new"))
            .expect("own folder")
            .flatten()
            .collect();
        assert_eq!(files.len(), 2);
        let message = fs::read(files[0].path()).expect("own file");
        assert_eq!(source.check(0, hash_message(&message)), None);
    }
}
