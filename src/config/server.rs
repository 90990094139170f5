//! `[server]` and `[log]`.

use std::ffi::CString;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{self, Gid, Group, Uid, User};

use super::file::{Field, File, NameOrNumber, PeriodText, Place, Section, Value, nearest};
use super::process::Process;
use super::{LogLevel, LogOptions, LogTarget, RunAs, ServerOptions, Shards, Steering, duration};
use crate::limits;

/// Longest host name in octets (RFC 1035, section 2.3.4).
const HOSTNAME: usize = 255;

pub(super) fn server(mut section: Section<'_>, process: &Process) -> Option<ServerOptions> {
    let hostname = hostname(&mut section, process);
    let shards = shards(&mut section);
    let steering = steering(&mut section);
    let run_as = run_as(&mut section, process);
    let drain = period(&mut section, "drain", Duration::from_secs(30));
    section.finish();
    Some(ServerOptions {
        hostname: hostname?,
        shards: shards?,
        steering: steering?,
        run_as: run_as.ok()?,
        drain: drain?,
    })
}

pub(super) fn log(mut section: Section<'_>, base: &Path) -> Option<LogOptions> {
    let target = match section.take::<String>("target") {
        None => Some(LogTarget::Stderr),
        Some(field) => log_target(section.file(), field, base),
    };
    let level = match section.take::<String>("level") {
        None => Some(LogLevel::Info),
        Some(field) => log_level(section.file(), &field),
    };
    section.finish();
    Some(LogOptions {
        target: target?,
        level: level?,
    })
}

fn log_target(file: &File<'_>, field: Field<String>, base: &Path) -> Option<LogTarget> {
    let (target, place) = field.split();
    match target.as_str() {
        "stderr" => return Some(LogTarget::Stderr),
        "journald" => {
            let remedy = "set it to \"stderr\", which systemd passes to the journal, or to a path";
            file.reject(&place, "\"journald\" is not there in this version", remedy);
            return None;
        }
        "" => {
            file.reject(
                &place,
                "is empty",
                "set it to \"stderr\" or to a file's path",
            );
            return None;
        }
        _ => {}
    }
    let path = base.join(target);
    if path.is_dir() {
        let problem = format!("{} is a folder", path.display());
        file.reject(&place, problem, "name a file in it");
        return None;
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        let problem = format!("the folder {} does not exist", folder.display());
        file.reject(&place, problem, "create the folder or correct the path");
        return None;
    }
    Some(LogTarget::File(path))
}

fn log_level(file: &File<'_>, field: &Field<String>) -> Option<LogLevel> {
    let known = LogLevel::NAMES.map(|(name, _)| name);
    let found = LogLevel::NAMES
        .iter()
        .find(|(name, _)| *name == field.value);
    if found.is_none() {
        let remedy = match nearest(&field.value, &known) {
            Some(name) => format!("did you mean {name:?}?"),
            None => format!("set it to one of {}", known.join(", ")),
        };
        let problem = format!("{:?} is not a level", field.value);
        file.reject(&field.place, problem, remedy);
    }
    found.map(|(_, level)| *level)
}

/// A duration of any length from zero.
pub(super) fn period(
    section: &mut Section<'_>,
    name: &'static str,
    default: Duration,
) -> Option<Duration> {
    match section.take::<PeriodText>(name) {
        None => Some(default),
        Some(field) => read_period(section.file(), field).map(|(period, _)| period),
    }
}

pub(super) fn read_period(file: &File<'_>, field: Field<PeriodText>) -> Option<(Duration, Place)> {
    let (PeriodText(text), place) = field.split();
    match duration::parse(&text) {
        Ok(period) => Some((period, place)),
        Err(error) => {
            file.reject(&place, format!("{text:?} {error}"), PeriodText::REMEDY);
            None
        }
    }
}

fn hostname(section: &mut Section<'_>, process: &Process) -> Option<String> {
    let (name, place) = match section.take::<String>("hostname") {
        Some(field) => field.split(),
        None => (process.hostname.clone(), section.absent("hostname")),
    };
    let usable = (1..=HOSTNAME).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if !usable {
        let problem = format!("{name:?} is not a host name");
        let remedy = "set it to the name that clients connect to, such as \"pop.example.net\"";
        section.file().reject(&place, problem, remedy);
    }
    usable.then_some(name)
}

fn shards(section: &mut Section<'_>) -> Option<Shards> {
    let Some((value, place)) = section.take::<NameOrNumber>("shards").map(Field::split) else {
        return Some(Shards::Auto);
    };
    let count = match &value {
        NameOrNumber::Name(name) if name == "auto" => return Some(Shards::Auto),
        NameOrNumber::Name(_) => None,
        NameOrNumber::Number(number) => usize::try_from(*number).ok(),
    };
    let count = count
        .filter(|count| *count <= limits::SHARDS)
        .and_then(NonZeroUsize::new);
    if count.is_none() {
        let problem = match value {
            NameOrNumber::Name(name) => format!("{name:?} is not a number of shards"),
            NameOrNumber::Number(number) => format!("{number} is not a number of shards"),
        };
        let remedy = format!(
            "set it to \"auto\" or to a number from 1 to {}",
            limits::SHARDS
        );
        section.file().reject(&place, problem, remedy);
    }
    count.map(Shards::Count)
}

fn steering(section: &mut Section<'_>) -> Option<Steering> {
    let Some(field) = section.take::<String>("steering") else {
        return Some(Steering::Hash);
    };
    match field.value.as_str() {
        "hash" => Some(Steering::Hash),
        "cpu" => Some(Steering::Cpu),
        other => {
            let problem = format!("{other:?} is not a way to steer");
            let remedy = "set it to \"hash\" or \"cpu\"";
            section.file().reject(&field.place, problem, remedy);
            None
        }
    }
}

/// The value is faulty, and the fault has been noted.
struct Rejected;

/// `None`: privileges stay as they are.
fn run_as(section: &mut Section<'_>, process: &Process) -> Result<Option<RunAs>, Rejected> {
    let file = section.file();
    let user = section.take::<NameOrNumber>("user");
    let group = section.take::<NameOrNumber>("group");
    let Some(user) = user else {
        if let Some(group) = group {
            let problem = "is set without server.user, so that nothing would use it";
            file.reject(
                &group.place,
                problem,
                "set server.user as well, or remove it",
            );
            return Err(Rejected);
        }
        return Ok(None);
    };
    let account = lookup_user(file, &user);
    let gid = group.as_ref().map(|group| lookup_group(file, group));
    if !process.root {
        let remedy = "start popcore as root, or remove server.user and server.group";
        let problem = "is set, but only root can change to another user";
        file.reject(&user.place, problem, remedy);
        return Err(Rejected);
    }
    let gid = match (gid, &account) {
        (Some(gid), _) => gid.ok_or(Rejected)?,
        (None, Some(Account::Listed(user))) => user.gid,
        (None, Some(Account::Bare(uid))) => {
            let problem = format!("user {uid} has no entry, so its group is not known");
            file.reject(&user.place, problem, "set server.group as well");
            return Err(Rejected);
        }
        (None, None) => return Err(Rejected),
    };
    let (uid, supplementary) = match account.ok_or(Rejected)? {
        Account::Bare(uid) => (uid, Vec::new()),
        Account::Listed(user) => {
            let name = CString::new(user.name).map_err(|_| Rejected)?;
            let groups = unistd::getgrouplist(&name, gid).unwrap_or_default();
            (user.uid, groups.into_iter().map(Gid::as_raw).collect())
        }
    };
    Ok(Some(RunAs {
        uid: uid.as_raw(),
        gid: gid.as_raw(),
        supplementary,
    }))
}

/// A user as the system knows it.
enum Account {
    /// It has an entry.
    Listed(User),
    /// A number without an entry, as containers have them.
    Bare(Uid),
}

fn lookup_user(file: &File<'_>, field: &Field<NameOrNumber>) -> Option<Account> {
    let found = match &field.value {
        NameOrNumber::Name(name) => User::from_name(name).ok().flatten(),
        NameOrNumber::Number(number) => {
            // The last number means "no change" to setuid(2).
            let Some(number) = u32::try_from(*number).ok().filter(|n| *n != u32::MAX) else {
                let problem = format!("{number} is not a user's number");
                file.reject(
                    &field.place,
                    problem,
                    "use a number below 4294967295 or a name",
                );
                return None;
            };
            let uid = Uid::from_raw(number);
            let listed = User::from_uid(uid).ok().flatten();
            return Some(listed.map_or(Account::Bare(uid), Account::Listed));
        }
    };
    if found.is_none()
        && let NameOrNumber::Name(name) = &field.value
    {
        let remedy = "create it (useradd --system) or name one that exists";
        file.reject(&field.place, format!("there is no user {name:?}"), remedy);
    }
    found.map(Account::Listed)
}

fn lookup_group(file: &File<'_>, field: &Field<NameOrNumber>) -> Option<Gid> {
    let (gid, shown) = match &field.value {
        NameOrNumber::Name(name) => {
            let group = Group::from_name(name).ok().flatten();
            (group.map(|group| group.gid), format!("{name:?}"))
        }
        NameOrNumber::Number(number) => {
            let number = u32::try_from(*number).ok().filter(|n| *n != u32::MAX);
            (number.map(Gid::from_raw), format!("{:?}", field.value))
        }
    };
    if gid.is_none() {
        let remedy = "create it (groupadd --system) or name one that exists";
        file.reject(&field.place, format!("there is no group {shown}"), remedy);
    }
    gid
}
