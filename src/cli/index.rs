//! `popcore index`: what the index of a maildrop says, whether it is right, and
//! making it anew.
//!
//! Many maildrops are worked on at a time, one on each core; what is said of them
//! stands in the order that they were named in.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::parallel;
use crate::maildrop::index::Contents;
use crate::maildrop::{Location, Maildrops, inspect};

#[derive(Debug, Args)]
pub(super) struct IndexArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say what indexes hold: octets, unique-id and file of each message
    Show(Maildrop),
    /// Hold indexes against the messages, all of which are read
    Verify(Maildrop),
    /// Make indexes anew: count every message, keep every unique-id
    Rebuild(Maildrop),
    /// Let the next login announce most messages by other unique-ids than before
    Accept(Maildrop),
}

#[derive(Debug, Args)]
struct Maildrop {
    /// Maildrops: the folders that hold new/ and cur/
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The index, where it is not beside new/ and cur/; for one maildrop
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
    /// Say it as JSON
    #[arg(long)]
    json: bool,
}

/// What is to be said of one maildrop.
struct Said {
    good: bool,
    text: String,
    json: Value,
}

impl Said {
    fn failed(path: &Path, error: &str) -> Self {
        Self {
            good: false,
            text: format!("{}: {error}\n", path.display()),
            json: json!({ "path": path.display().to_string(), "error": error }),
        }
    }
}

pub(super) fn run(arguments: &IndexArguments) -> ExitCode {
    let (about, work): (_, fn(&Location) -> Said) = match &arguments.what {
        What::Show(about) => (about, show),
        What::Verify(about) => (about, verify),
        What::Rebuild(about) => (about, rebuild),
        What::Accept(about) => (about, accept),
    };
    if about.index.is_some() && about.paths.len() != 1 {
        eprintln!("popcore: --index names the index of one maildrop: name one PATH");
        return ExitCode::FAILURE;
    }
    let said = for_all(about, work);
    let good = said.iter().all(|said| said.good);
    if about.json {
        let all: Vec<Value> = said.into_iter().map(|said| said.json).collect();
        super::say(&format!("{}\n", Value::Array(all)));
    } else {
        for said in &said {
            super::say(&said.text);
        }
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Works on all maildrops, as many at a time as there are cores.
fn for_all(about: &Maildrop, work: fn(&Location) -> Said) -> Vec<Said> {
    parallel::map(&about.paths, parallel::cores(), "maildrops", |path| {
        work(&Location {
            path: path.clone(),
            index: about.index.clone(),
        })
    })
}

fn show(at: &Location) -> Said {
    let path = &at.path;
    let octets = match inspect::octets(at) {
        Ok(Some(octets)) => octets,
        Ok(None) => return Said::failed(path, "it has no index"),
        Err(error) => return Said::failed(path, &error.to_string()),
    };
    let contents = Contents::read(&octets);
    let total: u64 = contents.messages().map(|m| m.octets()).sum();
    let damage = contents.damage().map(|damage| damage.to_string());
    let mut text = format!(
        "{}: {} messages, {total} octets{}\n",
        path.display(),
        contents.len(),
        damage
            .as_ref()
            .map(|d| format!("; damaged: {d}"))
            .unwrap_or_default()
    );
    let mut messages = Vec::new();
    for message in contents.messages() {
        let uidl = String::from_utf8_lossy(&message.uidl()).into_owned();
        let file = format!(
            "{}/{}",
            message.folder().name(),
            message.name().escape_ascii()
        );
        writeln!(text, "  {:>10} {uidl} {file}", message.octets()).expect("a String");
        messages.push(json!({
            "octets": message.octets(), "stored": message.stored(), "uidl": uidl, "file": file,
        }));
    }
    Said {
        good: damage.is_none(),
        text,
        json: json!({
            "path": path.display().to_string(), "octets": total, "damage": damage,
            "messages": messages,
        }),
    }
}

fn verify(at: &Location) -> Said {
    let path = &at.path;
    let verified = match inspect::verify(at) {
        Ok(Some(verified)) => verified,
        Ok(None) => return Said::failed(path, "it has no index"),
        Err(error) => return Said::failed(path, &error.to_string()),
    };
    let damage = verified.damage.map(|damage| damage.to_string());
    let mut text = format!(
        "{}: {}: {} messages, {} of them with wrong sizes; {} gone and {} new since{}\n",
        path.display(),
        if verified.is_good() { "good" } else { "WRONG" },
        verified.messages,
        verified.wrong.len(),
        verified.gone,
        verified.new,
        damage
            .as_ref()
            .map(|d| format!("; damaged: {d}"))
            .unwrap_or_default()
    );
    let mut wrong = Vec::new();
    for size in &verified.wrong {
        let (indexed, counted) = (size.indexed, size.counted);
        let name = size.name.escape_ascii().to_string();
        writeln!(
            text,
            "  {name}: {indexed} octets in the index, {counted} counted"
        )
        .expect("a String");
        wrong.push(json!({ "file": name, "indexed": indexed, "counted": counted }));
    }
    Said {
        good: verified.is_good(),
        text,
        json: json!({
            "path": path.display().to_string(), "good": verified.is_good(), "damage": damage,
            "messages": verified.messages, "wrong": wrong, "gone": verified.gone,
            "new": verified.new,
        }),
    }
}

fn rebuild(at: &Location) -> Said {
    let path = &at.path;
    match Maildrops::new(0).rebuild(at) {
        Ok(rebuilt) => Said {
            good: true,
            text: format!(
                "{}: made anew: {} messages; {} were known\n",
                path.display(),
                rebuilt.messages,
                rebuilt.recalled
            ),
            json: json!({
                "path": path.display().to_string(), "messages": rebuilt.messages,
                "known": rebuilt.recalled,
            }),
        },
        Err(error) => Said::failed(path, &error.to_string()),
    }
}

fn accept(at: &Location) -> Said {
    let path = &at.path;
    match inspect::accept(at) {
        Ok(file) => Said {
            good: true,
            text: format!("{}: accepted once, by {}\n", path.display(), file.display()),
            json: json!({ "path": path.display().to_string(), "file": file.display().to_string() }),
        },
        Err(error) => Said::failed(path, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn maildrops(count: usize) -> (tempfile::TempDir, Maildrop) {
        let folder = tempfile::tempdir().expect("a folder");
        let paths: Vec<PathBuf> = (0..count)
            .map(|n| folder.path().join(n.to_string()))
            .collect();
        for (number, path) in paths.iter().enumerate() {
            for part in ["new", "cur"] {
                fs::create_dir_all(path.join(part)).expect("a folder");
            }
            for message in 0..=number % 3 {
                fs::write(path.join(format!("new/{message}.a")), "x\n").expect("a message");
            }
        }
        let about = Maildrop {
            paths,
            index: None,
            json: false,
        };
        (folder, about)
    }

    #[test]
    fn many_are_made_anew_and_told_of_in_order() {
        let (_folder, about) = maildrops(50);
        let said = for_all(&about, rebuild);
        for (number, (path, said)) in about.paths.iter().zip(&said).enumerate() {
            assert!(said.good, "{}", said.text);
            let path = path.display();
            let messages = number % 3 + 1;
            assert_eq!(
                said.text,
                format!("{path}: made anew: {messages} messages; 0 were known\n")
            );
            assert_eq!(said.json["messages"], messages);
        }
        assert!(for_all(&about, verify).iter().all(|said| said.good));
        let shown = for_all(&about, show);
        assert_eq!(shown[2].json["messages"][1]["uidl"], "1.a");
        assert!(
            shown[2].text.contains("         3 1.a new/1.a\n"),
            "{}",
            shown[2].text
        );
    }

    #[test]
    fn what_is_wrong_is_told_and_mended() {
        let (_folder, about) = maildrops(1);
        let verified = for_all(&about, verify);
        assert!(!verified[0].good && verified[0].text.contains("it has no index"));
        for_all(&about, rebuild);
        fs::write(about.paths[0].join("new/0.a"), "longer\n").expect("a message");
        let verified = for_all(&about, verify);
        assert!(!verified[0].good);
        assert!(
            verified[0]
                .text
                .contains("0.a: 3 octets in the index, 8 counted")
        );
        let index = about.paths[0].join("popcore.index");
        let mut octets = fs::read(&index).expect("an index");
        octets[3] ^= 1;
        fs::write(&index, octets).expect("an index");
        assert!(!for_all(&about, show)[0].good);
        assert!(for_all(&about, rebuild)[0].good);
        assert!(for_all(&about, verify)[0].good);
    }

    #[test]
    fn a_change_is_accepted_by_a_file_beside_the_index() {
        let (_folder, about) = maildrops(1);
        assert!(for_all(&about, accept)[0].good);
        assert!(about.paths[0].join("popcore.index.accept").exists());
    }
}
