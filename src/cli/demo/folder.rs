//! The demo's folder: users, mailboxes, a certificate.
//!
//! It is made beside its final place and moved there when it is whole, the mark
//! of a demo folder last, so that an interrupted run leaves nothing that a later
//! one would take for its own. A folder that holds anything else is left alone.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, SystemTime};

use sha_crypt::PasswordHasher as _;

use super::messages::{self, Message};

/// The file that marks a folder as one of the demo's.
const MARK: &str = "popcore-demo";
/// What is in it: the version of the folder's layout.
const LAYOUT: &str = "1\n";

/// How many users there are for the load generator.
pub(super) const LOAD_USERS: u64 = 200;
/// The password of the load users.
pub(super) const LOAD_PASSWORD: &str = "demo";

/// A user with a name, for people to try.
#[derive(Debug, Clone, Copy)]
pub(super) struct Person {
    pub(super) name: &'static str,
    pub(super) password: &'static str,
    pub(super) scheme: Scheme,
}

/// How a password is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Plain,
    Sha512Crypt,
    BlfCrypt,
    Argon2id,
}

impl Scheme {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "{PLAIN}",
            Self::Sha512Crypt => "{SHA512-CRYPT}",
            Self::BlfCrypt => "{BLF-CRYPT}",
            Self::Argon2id => "{ARGON2ID}",
        }
    }
}

/// One user per scheme; one password has a space in it, which some servers
/// refuse.
pub(super) const PEOPLE: [Person; 4] = [
    Person {
        name: "alice",
        password: "demo",
        scheme: Scheme::Plain,
    },
    Person {
        name: "bob",
        password: "demo",
        scheme: Scheme::Sha512Crypt,
    },
    Person {
        name: "carol",
        password: "demo",
        scheme: Scheme::BlfCrypt,
    },
    Person {
        name: "dave",
        password: "two words",
        scheme: Scheme::Argon2id,
    },
];

/// Why there is no folder.
#[derive(Debug)]
pub(super) enum FolderError {
    /// Something else is in it.
    Foreign(PathBuf),
    /// A file or folder cannot be made.
    Io(PathBuf, io::Error),
    /// A password cannot be hashed or a certificate made.
    Secret(String),
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign(path) => write!(
                f,
                "{} holds files that are not the demo's; name another folder with --folder, or \
                 remove it",
                path.display()
            ),
            Self::Io(path, error) => write!(
                f,
                "{}: {error}; name a folder that you may write to with --folder",
                path.display()
            ),
            Self::Secret(error) => write!(
                f,
                "no password or certificate can be made: {error}; check that the system gives \
                 random numbers"
            ),
        }
    }
}

/// Whether a folder was there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prepared {
    Made,
    Reused,
}

/// Makes the folder with so many users for the load generator, or finds that it
/// is there.
pub(super) fn prepare(folder: &Path, load_users: u64) -> Result<Prepared, FolderError> {
    match fs::read_dir(folder) {
        Ok(mut entries) => {
            if fs::read(folder.join(MARK)).is_ok_and(|mark| mark == LAYOUT.as_bytes()) {
                return Ok(Prepared::Reused);
            }
            if entries.next().is_some() {
                return Err(FolderError::Foreign(folder.to_owned()));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(FolderError::Io(folder.to_owned(), error)),
    }
    let mut name = folder.as_os_str().to_owned();
    name.push(format!(".new-{}", process::id()));
    let beside = PathBuf::from(name);
    let made = make(&beside, load_users).and_then(|()| move_into(&beside, folder));
    if made.is_err() {
        // What failed is worth reporting; what remains of it is not.
        let _ = fs::remove_dir_all(&beside);
    }
    made.map(|()| Prepared::Made)
}

fn make(folder: &Path, load_users: u64) -> Result<(), FolderError> {
    new_folder(folder)?;
    let (chain, key) = certificate()?;
    write(&folder.join("certificate.pem"), chain.as_bytes())?;
    write(&folder.join("key.pem"), key.as_bytes())?;
    write(&folder.join("users"), users(load_users)?.as_bytes())?;
    let mail = folder.join("mail");
    new_folder(&mail)?;
    for person in PEOPLE {
        mailbox(&mail.join(person.name), &messages::every_kind(person.name))?;
    }
    for number in 0..load_users {
        let user = format!("user{number}");
        mailbox(&mail.join(&user), &messages::load_mix(&user, number))?;
    }
    Ok(())
}

fn move_into(from: &Path, to: &Path) -> Result<(), FolderError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| FolderError::Io(path, error)
    };
    fs::create_dir_all(to).map_err(at(to))?;
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let target = to.join(entry.file_name());
        fs::rename(entry.path(), &target).map_err(at(&target))?;
    }
    fs::remove_dir(from).map_err(at(from))?;
    write(&to.join(MARK), LAYOUT.as_bytes())
}

/// Lines of a passwd-file. Passwords are in it, so that only its owner may read
/// it.
fn users(load_users: u64) -> Result<String, FolderError> {
    let mut text = String::new();
    for person in PEOPLE {
        let hash = hash(person.scheme, person.password)?;
        let (name, scheme) = (person.name, person.scheme.name());
        text.extend([name, ":", scheme, &hash, "\n"]);
    }
    for number in 0..load_users {
        let (number, scheme) = (number.to_string(), Scheme::Plain.name());
        text.extend(["user", &number, ":", scheme, LOAD_PASSWORD, "\n"]);
    }
    Ok(text)
}

fn hash(scheme: Scheme, password: &str) -> Result<String, FolderError> {
    // The least cost that still is the scheme: a demo on a small machine should
    // spend its time on mail.
    let bytes = password.as_bytes();
    match scheme {
        Scheme::Plain => Ok(password.to_owned()),
        Scheme::Sha512Crypt => sha_crypt::ShaCrypt::new(
            sha_crypt::Algorithm::Sha512Crypt,
            sha_crypt::Params::RECOMMENDED,
        )
        .hash_password(bytes)
        .map(|hash| hash.as_str().to_owned())
        .map_err(|error| FolderError::Secret(error.to_string())),
        Scheme::BlfCrypt => {
            bcrypt::hash(bytes, 5).map_err(|error| FolderError::Secret(error.to_string()))
        }
        Scheme::Argon2id => {
            use argon2::PasswordHasher as _;
            argon2::Argon2::default()
                .hash_password(bytes)
                .map(|hash| hash.to_string())
                .map_err(|error| FolderError::Secret(error.to_string()))
        }
    }
}

/// A self-signed certificate for loopback and its key, in PEM.
fn certificate() -> Result<(String, String), FolderError> {
    let secret = |error: rcgen::Error| FolderError::Secret(error.to_string());
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut params = rcgen::CertificateParams::new(names).map_err(secret)?;
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "popcore demo");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    // A day back for clocks that differ; two years, as some clients refuse more.
    let day = Duration::from_hours(24);
    params.not_before = (SystemTime::now() - day).into();
    params.not_after = (SystemTime::now() + 730 * day).into();
    let key = rcgen::KeyPair::generate().map_err(secret)?;
    let certificate = params.self_signed(&key).map_err(secret)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// A Maildir. Names carry the size, as an LMTP server writes them.
fn mailbox(path: &Path, messages: &[Message]) -> Result<(), FolderError> {
    /// Monday, 6 January 2025, 00:00 UTC.
    const FIRST: u64 = 1_736_121_600;
    new_folder(path)?;
    for part in ["tmp", "new", "cur"] {
        new_folder(&path.join(part))?;
    }
    for (second, (index, message)) in (FIRST..).zip(messages.iter().enumerate()) {
        let size = message.bytes.len();
        let base = format!("{second}.M{:06}P1Q{index}.localhost,S={size}", index * 7);
        let (part, flags) = if message.seen {
            ("cur", ":2,S")
        } else {
            ("new", "")
        };
        write(&path.join(part).join(base + flags), &message.bytes)?;
    }
    Ok(())
}

fn new_folder(path: &Path) -> Result<(), FolderError> {
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(path)
        .map_err(|error| FolderError::Io(path.to_owned(), error))
}

/// Writes a file that only its owner may read.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|error| FolderError::Io(path.to_owned(), error))
}

#[cfg(test)]
mod tests;
