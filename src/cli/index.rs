//! `popcore index`: what the index of a maildrop says, whether it is right, and
//! making it anew.
//!
//! Many maildrops are worked on at a time, one on each core; what is said of them
//! stands in the order that they were named in.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::account::{Places, accounts};
use super::parallel;
use crate::config::Config;
use crate::maildrop::index::Contents;
use crate::maildrop::{self, Elsewhere, Location, Sources, inspect};

#[derive(Debug, Args)]
pub(super) struct IndexArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say what indexes hold: octets, unique-id and file of each message
    Show(Indexes),
    /// Hold indexes against the messages, all of which are read
    Verify(Indexes),
    /// Make indexes anew: count every message, keep every unique-id
    Rebuild(Rebuild),
    /// Let the next login announce most messages by other unique-ids than before
    Accept(Maildrops),
}

#[derive(Debug, Args)]
struct Maildrops {
    /// Maildrops: the folders that hold new/ and cur/
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Say it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Indexes {
    #[command(flatten)]
    of: Maildrops,
    /// The index, where it is not beside new/ and cur/; for one maildrop
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Rebuild {
    #[command(flatten)]
    about: Indexes,
    /// The server's configuration, for the unique-ids that an earlier server announced, and
    /// for where indexes are
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
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
    match said(&arguments.what) {
        Ok(good) if good => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Does it, says it, and tells whether all is good.
fn said(what: &What) -> Result<bool, String> {
    let (of, said) = match what {
        What::Show(about) => (&about.of, for_all(&Site::default(), about, show)?),
        What::Verify(about) => (&about.of, for_all(&Site::default(), about, verify)?),
        What::Rebuild(Rebuild { about, config }) => {
            let site = config
                .as_deref()
                .map(Site::of)
                .transpose()?
                .unwrap_or_default();
            let work = |at: &Location| rebuild(at, site.sources.as_ref());
            (&about.of, for_all(&site, about, work)?)
        }
        What::Accept(of) => (of, each(&of.paths, accept)),
    };
    let good = said.iter().all(|said| said.good);
    if of.json {
        let all: Vec<Value> = said.into_iter().map(|said| said.json).collect();
        super::say(&format!("{}\n", Value::Array(all)));
    } else {
        for said in &said {
            super::say(&said.text);
        }
    }
    Ok(good)
}

/// Works on all maildrops, as many at a time as there are cores.
fn each(paths: &[PathBuf], work: impl Fn(&Path) -> Said + Sync) -> Vec<Said> {
    parallel::map(paths, parallel::cores(), "maildrops", |path| work(path))
}

/// The same where their indexes are worked on.
fn for_all(
    site: &Site,
    about: &Indexes,
    work: impl Fn(&Location) -> Said + Sync,
) -> Result<Vec<Said>, String> {
    let paths = &about.of.paths;
    let Some(index) = &about.index else {
        return Ok(each(paths, |path| match site.find(path) {
            Ok(at) => work(&at),
            Err(error) => Said::failed(path, &error),
        }));
    };
    if paths.len() != 1 {
        return Err("popcore: --index names the index of one maildrop: name one PATH".to_owned());
    }
    let index = Elsewhere {
        path: index.clone(),
        // No folder is made for it.
        top: index
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
            .into(),
    };
    Ok(each(paths, |path| {
        work(&Location {
            index: Some(index.clone()),
            ..Location::beside(path)
        })
    }))
}

/// What a configuration says of indexes.
#[derive(Default)]
struct Site {
    /// Where the server's unique-ids come from.
    sources: Option<Sources>,
    /// Where maildrops are, without a link, whose indexes are not beside them.
    elsewhere: Option<HashMap<PathBuf, Location>>,
}

impl Site {
    fn of(config: &Path) -> Result<Self, String> {
        let config = Config::load(config).map_err(|errors| errors.to_string())?;
        let locate = || -> Result<_, String> {
            let places = Places::of(&config)?;
            let found = accounts(&config, &[])?.into_iter().filter_map(|account| {
                // Of a user without a place there is no index either.
                let at = places.find(&account).ok()?;
                Some((at.path.canonicalize().ok()?, at))
            });
            Ok(found.collect())
        };
        let is_elsewhere = config.maildrop.index.is_some();
        Ok(Self {
            elsewhere: is_elsewhere.then(locate).transpose()?,
            sources: Some(config.maildrop.uidl),
        })
    }

    fn find(&self, path: &Path) -> Result<Location, String> {
        let Some(elsewhere) = &self.elsewhere else {
            return Ok(Location::beside(path));
        };
        let canonical = path.canonicalize().map_err(|error| error.to_string())?;
        elsewhere.get(&canonical).cloned().ok_or_else(|| {
            "maildrop.index puts its index elsewhere, and no user that a file of the \
             configuration lists has this maildrop: name the index by --index"
                .to_owned()
        })
    }
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

/// What an earlier server has left in a Maildir that says how it called messages.
const LEFT: [&str; 2] = ["dovecot-uidlist", "courierpop3dsizelist"];

fn rebuild(at: &Location, sources: Option<&Sources>) -> Said {
    let path = &at.path;
    let left = LEFT.iter().find(|left| path.join(left).exists());
    let maildrops = match (sources, left) {
        (Some(sources), _) => maildrop::Maildrops::new(0).with_sources(sources.clone()),
        (None, None) => maildrop::Maildrops::new(0),
        // What it would write of a message that the index does not know is final.
        (None, Some(left)) => {
            let problem = format!(
                "an earlier server left {left} here, and whether its unique-ids are announced \
                 is the configuration's: give it with --config"
            );
            return Said::failed(path, &problem);
        }
    };
    match maildrops.rebuild(at) {
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

fn accept(path: &Path) -> Said {
    match inspect::accept(path) {
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
    use std::collections::HashSet;
    use std::fs;
    use std::sync::{Barrier, Mutex};
    use std::thread;

    use super::*;

    fn maildrops(count: usize) -> (tempfile::TempDir, Vec<PathBuf>) {
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
        (folder, paths)
    }

    fn for_all(paths: &[PathBuf], work: impl Fn(&Location) -> Said + Sync) -> Vec<Said> {
        let about = Indexes {
            of: Maildrops {
                paths: paths.to_vec(),
                json: false,
            },
            index: None,
        };
        super::for_all(&Site::default(), &about, work).expect("no index is named")
    }

    fn by_name(at: &Location) -> Said {
        rebuild(at, None)
    }

    #[test]
    fn what_an_earlier_server_announced_is_kept_or_nothing_is_written() {
        let (_folder, paths) = maildrops(1);
        let list = "3 V1700000000 N2 G0123456789abcdef0123456789abcdef\n1 :0.a\n";
        fs::write(paths[0].join("dovecot-uidlist"), list).expect("a list");
        let said = &for_all(&paths, by_name)[0];
        assert!(
            !said.good && said.text.contains("--config"),
            "{}",
            said.text
        );
        assert!(!paths[0].join("popcore.index").exists());

        let sources = Sources::parse(["dovecot", "name"]).expect("sources");
        let said = for_all(&paths, |at| rebuild(at, Some(&sources)));
        assert!(said[0].good, "{}", said[0].text);
        let shown = for_all(&paths, show);
        assert_eq!(shown[0].json["messages"][0]["uidl"], "000000016553f100");
    }

    #[test]
    fn many_are_made_anew_and_told_of_in_order() {
        let (_folder, paths) = maildrops(50);
        let said = for_all(&paths, by_name);
        for (number, (path, said)) in paths.iter().zip(&said).enumerate() {
            assert!(said.good, "{}", said.text);
            let path = path.display();
            let messages = number % 3 + 1;
            assert_eq!(
                said.text,
                format!("{path}: made anew: {messages} messages; 0 were known\n")
            );
            assert_eq!(said.json["messages"], messages);
        }
        assert!(for_all(&paths, verify).iter().all(|said| said.good));
        let shown = for_all(&paths, show);
        assert_eq!(shown[2].json["messages"][1]["uidl"], "1.a");
        assert!(
            shown[2].text.contains("         3 1.a new/1.a\n"),
            "{}",
            shown[2].text
        );
    }

    #[test]
    fn as_many_are_made_anew_at_a_time_as_there_are_cores() {
        let cores = parallel::cores();
        let (_folder, paths) = maildrops(8 * cores);
        // The first of each thread waits for all others: fewer would wait for ever.
        let all = Barrier::new(cores);
        let threads = Mutex::new(HashSet::new());
        let said = for_all(&paths, |at| {
            let is_first = threads
                .lock()
                .expect("no panic")
                .insert(thread::current().id());
            if is_first {
                all.wait();
            }
            rebuild(at, None)
        });
        assert!(said.iter().all(|said| said.good));
        assert_eq!(threads.into_inner().expect("no panic").len(), cores);
    }

    #[test]
    fn what_is_wrong_is_told_and_mended() {
        let (_folder, paths) = maildrops(1);
        let verified = for_all(&paths, verify);
        assert!(!verified[0].good && verified[0].text.contains("it has no index"));
        for_all(&paths, by_name);
        fs::write(paths[0].join("new/0.a"), "longer\n").expect("a message");
        let verified = for_all(&paths, verify);
        assert!(!verified[0].good);
        assert!(
            verified[0]
                .text
                .contains("0.a: 3 octets in the index, 8 counted")
        );
        let index = paths[0].join("popcore.index");
        let mut octets = fs::read(&index).expect("an index");
        octets[3] ^= 1;
        fs::write(&index, octets).expect("an index");
        assert!(!for_all(&paths, show)[0].good);
        assert!(for_all(&paths, by_name)[0].good);
        assert!(for_all(&paths, verify)[0].good);
    }

    #[test]
    fn a_change_is_accepted_by_a_file_beside_the_index() {
        let (_folder, paths) = maildrops(1);
        assert!(each(&paths, accept)[0].good);
        assert!(paths[0].join("popcore.index.accept").exists());
    }

    #[test]
    fn an_index_is_made_anew_where_the_configuration_puts_it() {
        let (folder, paths) = maildrops(2);
        fs::create_dir(folder.path().join("indexes")).expect("a folder");
        fs::write(folder.path().join("users"), "0:{PLAIN}x\n").expect("a file");
        let config = folder.path().join("popcore.toml");
        let text = "[server]\nhostname = \"pop.example.net\"\n\
            [[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"none\"\n\
            [auth]\nplaintext_without_tls = true\n\
            [[auth.directory]]\nkind = \"passwd-file\"\npath = \"users\"\n\
            [maildrop]\npath = \"{user}\"\nindex = \"indexes/{user}\"\n";
        fs::write(&config, text).expect("a file");
        let site = Site::of(&config).expect("a configuration");
        let about = Indexes {
            of: Maildrops {
                paths: paths.clone(),
                json: false,
            },
            index: None,
        };
        let work = |at: &Location| rebuild(at, site.sources.as_ref());
        let said = super::for_all(&site, &about, work).expect("no index is named");
        assert!(said[0].good, "{}", said[0].text);
        assert!(folder.path().join("indexes/0").is_file());
        assert!(
            !said[1].good && said[1].text.contains("--index"),
            "{}",
            said[1].text
        );
        assert!(
            paths
                .iter()
                .all(|path| !path.join("popcore.index").exists())
        );
    }
}
