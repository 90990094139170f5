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
    left: Mutex<Left>,
}

/// What should be left in a Maildir.
#[derive(Debug, Default)]
struct Left {
    contents: Contents,
    /// Of those, what may be gone: deleted with a QUIT that was not answered.
    in_doubt: Contents,
    /// Messages of any content that may be gone: deleted without having been fetched.
    unseen: u32,
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

/// How often a Maildir is listed before its reader despairs: who moves messages while
/// they are read would have to be quicker each time.
const LISTINGS: usize = 8;

fn read_maildir(path: &Path) -> io::Result<Contents> {
    let mut listings = 1;
    loop {
        match hash_all(&list(path)?) {
            // Moved from new/ to cur/, or flagged, since the folder was listed.
            Err(e) if e.kind() == io::ErrorKind::NotFound && listings < LISTINGS => listings += 1,
            read => return read,
        }
    }
}

fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut messages = Vec::new();
    for part in ["new", "cur"] {
        for entry in fs::read_dir(path.join(part))? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with('.') {
                messages.push(entry.path());
            }
        }
    }
    Ok(messages)
}

fn hash_all(messages: &[PathBuf]) -> io::Result<Contents> {
    let mut contents = Contents::new();
    for message in messages {
        *contents
            .entry(hash_message(&fs::read(message)?))
            .or_default() += 1;
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
                left: Mutex::new(Left {
                    contents,
                    ..Left::default()
                }),
            })
        });
        Ok(Self {
            users: users.collect::<Result<_, String>>()?,
            delivered: AtomicU64::new(0),
        })
    }

    fn left(&self, user: usize) -> std::sync::MutexGuard<'_, Left> {
        let left = self.users[user].left.lock();
        left.expect("nobody panics while holding it")
    }

    /// A message was fetched whole: it must be one of the user's.
    pub fn check(&self, user: usize, message: Digest) -> Option<Fault> {
        let known = self.left(user).contents.contains_key(&message);
        (!known).then(|| {
            Fault::new(
                Kind::Content,
                "the message is none of those in the user's Maildir",
            )
        })
    }

    /// A message was fetched and deleted for good.
    pub fn take(&self, user: usize, message: Digest) -> Option<Fault> {
        match self.left(user).contents.get_mut(&message) {
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

    /// A message may have been deleted for good, or was deleted without having been
    /// fetched, and nobody knows which it was.
    pub fn doubt(&self, user: usize, message: Option<Digest>) {
        let mut left = self.left(user);
        match message {
            Some(message) => *left.in_doubt.entry(message).or_default() += 1,
            None => left.unseen += 1,
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
        *self.left(user).contents.entry(message).or_default() += 1;
        if let Err(error) = fs::rename(&unfinished, &finished) {
            // Not there, and so it cannot be lost.
            if let Some(left) = self.left(user).contents.get_mut(&message) {
                *left -= 1;
            }
            return Err(at(error));
        }
        self.delivered.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Compares a user's Maildir with what should be left, once the run is over.
    pub fn audit(&self, user: usize) -> Result<Vec<Fault>, String> {
        let path = &self.users[user].path;
        let there =
            read_maildir(path).map_err(|e| format!("--maildir: {}: {e}", path.display()))?;
        let Left {
            contents: expected,
            in_doubt,
            unseen,
        } = &*self.left(user);
        let count = |all: &Contents, message| all.get(message).copied().unwrap_or_default();
        let lost: u32 = expected
            .iter()
            .map(|(message, wanted)| {
                let certain = wanted.saturating_sub(count(in_doubt, message));
                certain.saturating_sub(count(&there, message))
            })
            .sum();
        let lost = lost.saturating_sub(*unseen);
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
    fn what_may_be_gone_is_not_called_lost() {
        let root = maildir(&["one\n", "two\n", "three\n"]);
        let source = source(root.path());
        let lost = || source.audit(0).expect("readable");
        source.doubt(0, Some(hash_message(b"one\n")));
        assert_eq!(lost(), []);
        fs::remove_file(root.path().join("new/0")).expect("there");
        assert_eq!(lost(), []);
        fs::remove_file(root.path().join("new/1")).expect("there");
        assert_eq!(lost().len(), 1);
        source.doubt(0, None);
        assert_eq!(lost(), []);
        fs::remove_file(root.path().join("new/2")).expect("there");
        assert_eq!(lost().len(), 1);
    }

    #[test]
    fn a_message_that_is_moved_meanwhile_is_looked_for_again() {
        let root = maildir(&["one\n"]);
        let listed = list(root.path()).expect("a Maildir");
        let moved = root.path().join("cur/0:2,S");
        fs::rename(root.path().join("new/0"), moved).expect("there");
        let error = hash_all(&listed).expect_err("moved");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(read_maildir(root.path()).expect("a Maildir").len(), 1);
        fs::remove_dir(root.path().join("new")).expect("empty");
        assert!(read_maildir(root.path()).is_err(), "no Maildir any more");
    }

    #[test]
    fn a_message_that_moves_again_and_again_is_read_at_last() {
        let root = maildir(&["one\n"]);
        let source = source(root.path());
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut from = root.path().join("new/0");
                for number in 0_u64.. {
                    if over.load(Relaxed) {
                        return;
                    }
                    let to = root.path().join(format!("new/{number}"));
                    fs::rename(&from, &to).expect("own file");
                    from = to;
                    // As a server does: now and then, and not in a loop.
                    std::thread::sleep(std::time::Duration::from_micros(200));
                }
            });
            for _ in 0..500 {
                let read = source.audit(0).map(|_| ());
                over.store(read.is_err(), Relaxed);
                assert_eq!(read, Ok(()));
            }
            over.store(true, Relaxed);
        });
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
