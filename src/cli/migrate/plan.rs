//! `popcore migrate plan`: for every mailbox what popcore would announce, and what it
//! cannot keep. Exit code 1 where anything cannot be kept or read.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::super::account::{Places, accounts};
use super::super::parallel;
use crate::auth::Account;
use crate::config::Config;
use crate::maildrop::OpenError;
use crate::maildrop::plan::{Origin, Planned, plan};

#[derive(Debug, Args)]
pub(super) struct PlanArguments {
    /// The configuration file that popcore will have
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Say it as JSON, with every message
    #[arg(long)]
    json: bool,
    /// These users alone [default: everybody with a password]
    #[arg(value_name = "USER")]
    users: Vec<String>,
}

/// What was found of one user.
struct Found {
    user: String,
    planned: Result<Vec<Planned>, OpenError>,
}

/// How many messages are announced how.
#[derive(Default)]
struct Sums {
    earlier: usize,
    index: usize,
    name: usize,
    digest: usize,
    since: usize,
    lost: usize,
}

impl Sums {
    fn of(planned: &[Planned]) -> Self {
        let mut sums = Self::default();
        for message in planned {
            match message.origin {
                Origin::Earlier => sums.earlier += 1,
                Origin::Index => sums.index += 1,
                Origin::Name => sums.name += 1,
                Origin::Digest => sums.digest += 1,
                Origin::Since { .. } => sums.since += 1,
                Origin::Lost { .. } => sums.lost += 1,
            }
        }
        sums
    }
}

pub(super) fn run(arguments: &PlanArguments) -> ExitCode {
    let found = match find(arguments) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.json {
        let all = found.iter().map(as_json).collect();
        super::super::say(&format!("{}\n", Value::Array(all)));
    } else {
        for found in &found {
            super::super::say(&as_text(found));
        }
    }
    let good = |found: &Found| match &found.planned {
        Ok(planned) => Sums::of(planned).lost == 0,
        Err(_) => false,
    };
    if found.iter().all(good) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn find(arguments: &PlanArguments) -> Result<Vec<Found>, String> {
    let config = Config::load(&arguments.config).map_err(|errors| errors.to_string())?;
    let places = Places::of(&config)?;
    let accounts = accounts(&config, &arguments.users)?;
    let sources = &config.maildrop.uidl;
    let look = |account: &Account| Found {
        user: account.user.to_string(),
        planned: places.find(account).and_then(|at| plan(&at, sources)),
    };
    Ok(parallel::map(
        &accounts,
        parallel::cores(),
        "mailboxes",
        look,
    ))
}

fn as_text(found: &Found) -> String {
    let planned = match &found.planned {
        Ok(planned) => planned,
        Err(error) => return format!("{}: CANNOT BE OPENED: {error}\n", found.user),
    };
    let sums = Sums::of(planned);
    let mut text = format!("{}: {} messages", found.user, planned.len());
    for (count, what) in [
        (sums.earlier, "announced as before"),
        (sums.index, "as popcore announced them"),
        (sums.name, "new, by their names"),
        (sums.digest, "new, by a hash of their names"),
        (
            sums.since,
            "numbered by another server since popcore took over",
        ),
        (sums.lost, "ANNOUNCED ANEW"),
    ] {
        if count > 0 {
            write!(text, ", {count} {what}").expect("a String");
        }
    }
    text.push('\n');
    if sums.since > 0 {
        text.push_str(
            "  The numbers since popcore took over are nobody's after a move. After a mere trial \
             users still get them: stop popcore and remove popcore.index and popcore.cutoff there \
             before the move\n",
        );
    }
    for (message, number) in planned.iter().zip(1..) {
        if let Origin::Lost { earlier, why } = &message.origin {
            let (before, now) = (earlier.escape_ascii(), message.uidl.escape_ascii());
            let (file, why) = (message.file.escape_ascii(), why.as_str());
            writeln!(text, "  {number} {file}: {before} before, {now} now: {why}")
                .expect("a String");
        }
    }
    text
}

fn as_json(found: &Found) -> Value {
    let text = |octets: &[u8]| octets.escape_ascii().to_string();
    let planned = match &found.planned {
        Ok(planned) => planned,
        Err(error) => return json!({ "user": found.user, "error": error.to_string() }),
    };
    let message = |message: &Planned| {
        let mut value = json!({
            "file": text(&message.file), "octets": message.octets, "uidl": text(&message.uidl),
        });
        let origin = match &message.origin {
            Origin::Earlier => "earlier",
            Origin::Index => "index",
            Origin::Name => "name",
            Origin::Digest => "hash",
            Origin::Since { other } => {
                value["other"] = text(other).into();
                "since"
            }
            Origin::Lost { earlier, why } => {
                value["before"] = text(earlier).into();
                value["why"] = why.as_str().into();
                "lost"
            }
        };
        value["origin"] = origin.into();
        value
    };
    json!({
        "user": found.user, "lost": Sums::of(planned).lost,
        "messages": planned.iter().map(message).collect::<Vec<_>>(),
    })
}
