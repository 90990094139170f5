//! `popcore migrate verify`: the earlier server and popcore, asked the same
//! questions. Exit code 1 on any difference and where either cannot be asked.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::super::parallel;
use super::client::{Client, Protection, Server, Trouble, Trust};

/// Differences of one mailbox that are told; the others are counted.
const TOLD: usize = 20;

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// The earlier server, which still runs
    #[arg(long, value_name = "HOST:PORT")]
    against: String,
    /// popcore
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:110")]
    server: String,
    /// How to speak to the earlier server
    #[arg(long, value_enum, default_value = "none")]
    tls: Protection,
    /// How to speak to popcore
    #[arg(long, value_enum, default_value = "none")]
    server_tls: Protection,
    /// Whose certificates are believed: PEM
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/ssl/certs/ca-certificates.crt"
    )]
    authority: PathBuf,
    /// Users and passwords, a line each: user:password
    #[arg(long, value_name = "FILE")]
    users: PathBuf,
    /// Fetch every message from both and compare them
    #[arg(long)]
    content: bool,
    /// Mailboxes at a time
    #[arg(long, value_name = "NUMBER", default_value = "8")]
    parallel: NonZeroUsize,
    /// Say it as JSON
    #[arg(long)]
    json: bool,
}

struct User {
    name: String,
    password: Zeroizing<String>,
}

/// What one server says of a mailbox.
struct Said {
    uidls: Vec<String>,
    octets: Vec<String>,
    /// Empty unless messages are compared.
    contents: Vec<[u8; 32]>,
}

/// What was found of one user.
struct Found {
    user: String,
    outcome: Result<Compared, String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Compared {
    messages: usize,
    count: usize,
    differences: Vec<Difference>,
}

#[derive(Debug, PartialEq, Eq)]
struct Difference {
    /// Which of the mailbox's properties: messages, uidl, order, octets, content.
    what: &'static str,
    /// A message of the earlier server, or of popcore where that has it alone.
    number: usize,
    earlier: String,
    now: String,
}

impl Compared {
    fn note(&mut self, what: &'static str, number: usize, earlier: &str, now: &str) {
        self.count += 1;
        if self.differences.len() < TOLD {
            self.differences.push(Difference {
                what,
                number,
                earlier: earlier.to_owned(),
                now: now.to_owned(),
            });
        }
    }
}

pub(super) fn run(arguments: &VerifyArguments) -> ExitCode {
    let users = match read_users(&arguments.users) {
        Ok(users) => users,
        Err(error) => {
            eprintln!("popcore: {}: {error}", arguments.users.display());
            return ExitCode::FAILURE;
        }
    };
    let secure = [arguments.tls, arguments.server_tls].map(|tls| tls != Protection::None);
    let trust = if secure.contains(&true) {
        match Trust::read(&arguments.authority) {
            Ok(trust) => Some(trust),
            Err(error) => {
                eprintln!("popcore: {error}; name the servers' authority with --authority");
                return ExitCode::FAILURE;
            }
        }
    } else {
        None
    };
    let threads = arguments.parallel.get();
    let look = |user: &User| Found {
        user: user.name.clone(),
        outcome: verify(arguments, trust.as_ref(), user),
    };
    let found = parallel::map(&users, threads, "mailboxes", look);
    if arguments.json {
        let all = found.iter().map(as_json).collect();
        super::super::say(&format!("{}\n", Value::Array(all)));
    } else {
        for found in &found {
            super::super::say(&as_text(found));
        }
    }
    let same = |found: &Found| found.outcome.as_ref().is_ok_and(|found| found.count == 0);
    if found.iter().all(same) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Lines of user:password; the password may hold colons. Blank ones and those that
/// begin with # are passed over.
fn read_users(path: &Path) -> Result<Vec<User>, String> {
    let text = Zeroizing::new(fs::read_to_string(path).map_err(|error| error.to_string())?);
    let lines = (1..).zip(text.lines());
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let user = |(number, line): (usize, &str)| match line.split_once(':') {
        Some((name, password)) if !name.is_empty() => Ok(User {
            name: name.to_owned(),
            password: Zeroizing::new(password.to_owned()),
        }),
        _ => Err(format!("line {number}: write it as user:password")),
    };
    let users: Vec<User> = lines.map(user).collect::<Result<_, _>>()?;
    if users.is_empty() {
        return Err("it names no user".to_owned());
    }
    Ok(users)
}

fn verify(
    arguments: &VerifyArguments,
    trust: Option<&Trust>,
    user: &User,
) -> Result<Compared, String> {
    let ask = |address: &str, protection| {
        let server = Server {
            address,
            protection,
            trust,
        };
        ask(server, user, arguments.content).map_err(|trouble| format!("{address}: {trouble}"))
    };
    // One after the other: on one Maildir they may exclude each other. The earlier server
    // first: what it has not numbered when popcore is asked popcore takes over.
    let earlier = ask(&arguments.against, arguments.tls)?;
    let now = ask(&arguments.server, arguments.server_tls)?;
    Ok(compare(&earlier, &now))
}

fn ask(server: Server<'_>, user: &User, content: bool) -> Result<Said, Trouble> {
    let mut client = Client::log_in(server, &user.name, &user.password)?;
    let uidls = client.listing("UIDL")?;
    let octets = client.listing("LIST")?;
    let mut contents = Vec::new();
    if content {
        for number in 1..=uidls.len() {
            contents.push(client.message(number)?);
        }
    }
    client.quit()?;
    Ok(Said {
        uidls,
        octets,
        contents,
    })
}

fn compare(earlier: &Said, now: &Said) -> Compared {
    let mut compared = Compared {
        messages: earlier.uidls.len(),
        ..Compared::default()
    };
    if earlier.uidls.len() != now.uidls.len() {
        let counts = (earlier.uidls.len().to_string(), now.uidls.len().to_string());
        compared.note("messages", 0, &counts.0, &counts.1);
    }
    let places: HashMap<&str, usize> = now.uidls.iter().map(String::as_str).zip(0..).collect();
    let before: HashMap<&str, usize> = earlier.uidls.iter().map(String::as_str).zip(0..).collect();
    for (uidl, at) in earlier.uidls.iter().zip(0..) {
        let there = now.uidls.get(at).map_or("", String::as_str);
        let Some(place) = places.get(&**uidl).copied() else {
            compared.note("uidl", at + 1, uidl, there);
            continue;
        };
        if place != at {
            compared.note("order", at + 1, uidl, there);
        }
        let none = String::new();
        let octets = |said: &Said, at: usize| said.octets.get(at).unwrap_or(&none).clone();
        let (was, is) = (octets(earlier, at), octets(now, place));
        if was != is {
            compared.note("octets", at + 1, &was, &is);
        }
        if earlier.contents.get(at) != now.contents.get(place) {
            compared.note("content", at + 1, uidl, uidl);
        }
    }
    for (uidl, at) in now.uidls.iter().zip(0..) {
        if at >= earlier.uidls.len() && !before.contains_key(&**uidl) {
            compared.note("uidl", at + 1, "", uidl);
        }
    }
    compared
}

fn as_text(found: &Found) -> String {
    let user = &found.user;
    let compared = match &found.outcome {
        Ok(compared) => compared,
        Err(error) => return format!("{user}: CANNOT BE ASKED: {error}\n"),
    };
    let mut text = match compared.count {
        0 => format!("{user}: same, {} messages\n", compared.messages),
        count => format!(
            "{user}: DIFFERENT, {} messages, {count} differences\n",
            compared.messages
        ),
    };
    for difference in &compared.differences {
        let Difference {
            what,
            number,
            earlier,
            now,
        } = difference;
        writeln!(
            text,
            "  {what} of message {number}: {earlier:?} before, {now:?} now"
        )
        .expect("a String");
    }
    text
}

fn as_json(found: &Found) -> Value {
    let compared = match &found.outcome {
        Ok(compared) => compared,
        Err(error) => return json!({ "user": found.user, "error": error }),
    };
    let difference = |difference: &Difference| {
        json!({
            "what": difference.what, "message": difference.number,
            "earlier": difference.earlier, "now": difference.now,
        })
    };
    json!({
        "user": found.user, "same": compared.count == 0, "messages": compared.messages,
        "differences": compared.count,
        "told": compared.differences.iter().map(difference).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(rows: &[(&str, &str, u8)]) -> Said {
        Said {
            uidls: rows.iter().map(|row| row.0.to_owned()).collect(),
            octets: rows.iter().map(|row| row.1.to_owned()).collect(),
            contents: rows.iter().map(|row| [row.2; 32]).collect(),
        }
    }

    fn differences(earlier: &Said, now: &Said) -> Vec<(&'static str, usize)> {
        let compared = compare(earlier, now);
        assert_eq!(compared.count, compared.differences.len());
        let told = compared.differences.into_iter();
        told.map(|difference| (difference.what, difference.number))
            .collect()
    }

    #[test]
    fn every_kind_of_difference_is_named_and_none_is_made_up() {
        let earlier = said(&[("a", "1", 1), ("b", "2", 2), ("c", "3", 3)]);
        assert_eq!(differences(&earlier, &earlier), []);
        let now = said(&[("b", "2", 2), ("a", "1", 1), ("c", "3", 3)]);
        assert_eq!(differences(&earlier, &now), [("order", 1), ("order", 2)]);
        let now = said(&[("a", "1", 1), ("x", "2", 2), ("c", "4", 9)]);
        let told = [("uidl", 2), ("octets", 3), ("content", 3)];
        assert_eq!(differences(&earlier, &now), told);
        let now = said(&[("a", "1", 1), ("b", "2", 2)]);
        assert_eq!(differences(&earlier, &now), [("messages", 0), ("uidl", 3)]);
        assert_eq!(differences(&now, &earlier), [("messages", 0), ("uidl", 3)]);
    }

    #[test]
    fn differences_that_are_too_many_are_counted() {
        let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let rows: Vec<(&str, &str, u8)> = many.iter().map(|n| (&**n, "1", 0)).collect();
        let compared = compare(&said(&rows), &said(&[]));
        assert_eq!((compared.count, compared.differences.len()), (101, TOLD));
    }

    #[test]
    fn users_are_read_with_their_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users");
        fs::write(&path, "# those\nann:a:b\n\nbob:\n").expect("a file");
        let users = read_users(&path).expect("users");
        let told: Vec<_> = users
            .iter()
            .map(|user| (&*user.name, &**user.password))
            .collect();
        assert_eq!(told, [("ann", "a:b"), ("bob", "")]);
        fs::write(&path, "ann:x\nbob\n").expect("a file");
        assert!(read_users(&path).is_err_and(|error| error.starts_with("line 2")));
        fs::write(&path, "").expect("a file");
        assert!(read_users(&path).is_err());
    }
}
