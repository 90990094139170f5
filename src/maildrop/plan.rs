//! What popcore would announce for a maildrop, and what of an earlier server's
//! unique-ids it cannot keep. BLOCKING; takes no lock and writes nothing, so that a
//! server, the earlier one included, may run.

use std::collections::HashSet;
use std::path::Path;

use super::Location;
use super::earlier::{Question, Sources};
use super::error::{Anew, Cause, OpenError};
use super::guard::{self, Before};
use super::index::Contents;
use super::listing::Root;
use super::message::Message;
use super::scan::{self, Gone, Reading};
use super::snapshot::{Knowledge, Snapshot};

/// One message as it would be announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its file, below the maildrop.
    pub file: Vec<u8>,
    /// Octets on the wire.
    pub octets: u64,
    /// The unique-id.
    pub uidl: Vec<u8>,
    /// Where that comes from.
    pub origin: Origin,
}

/// Where a unique-id comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An earlier server announced it.
    Earlier,
    /// popcore announced it before, and no earlier server is known to have
    /// announced another one.
    Index,
    /// The file's name: no earlier server has announced the message.
    Name,
    /// The name cannot be announced, and no earlier server has announced the
    /// message.
    Digest,
    /// Another server numbered the message when popcore had taken over, and was to be asked
    /// by no client any more.
    Since {
        /// What it would announce.
        other: Vec<u8>,
    },
    /// An earlier server announced this, and it cannot be kept.
    Lost {
        /// What it announced.
        earlier: Vec<u8>,
        /// Why it cannot be kept.
        why: Loss,
    },
}

/// Why a unique-id cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// RFC 1939 does not allow it: 1 to 70 octets of 0x21 to 0x7E.
    Unfit,
    /// Another message of the maildrop has it.
    Shared,
    /// popcore has announced the message by another one already.
    Announced,
}

impl Loss {
    /// For an operator.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unfit => "RFC 1939 does not allow it",
            Self::Shared => "another message has it",
            Self::Announced => "popcore has announced the message by another one already",
        }
    }
}

/// The messages of a maildrop in their order, as the next login would see them.
pub fn plan(at: &Location, sources: &Sources) -> Result<Vec<Planned>, OpenError> {
    let path = scan::canonical(&at.path)?;
    let Some(root) = Root::open(&path)? else {
        return Ok(Vec::new());
    };
    let index = at.index(&path);
    let octets = index.octets()?;
    let contents = Contents::read(&octets);
    if let Some(version) = contents.foreign_version() {
        return Err(OpenError::of(
            index.path(),
            Cause::Anew(Anew::Newer { version }),
        ));
    }
    let unknown = contents.damage().is_some();
    let (known, gone) = recalled(&at.path, &path, contents);
    let gone = Gone::Known(&gone);
    let listed = scan::list(&at.path, &root, Some(&known), sources, Reading::New, &gone)?;
    let before = Before {
        known: Some(&known),
        gone: &gone,
        unknown,
    };
    if let Some(refusal) = guard::doubt(&before, &listed, &root, sources)? {
        return Err(refusal);
    }
    let snapshot = listed.snapshot;
    let origins = origins(&root, sources, &known, &snapshot)?;
    let planned = snapshot.messages().zip(origins);
    let planned = planned.map(|(message, origin)| Planned {
        file: [message.folder.name().as_bytes(), b"/", message.name].concat(),
        octets: message.facts.octets,
        uidl: message.uidl_text(),
        origin,
    });
    Ok(planned.collect())
}

/// Where the unique-ids of a listing come from, of which the index knows these.
fn origins(
    root: &Root,
    sources: &Sources,
    known: &Snapshot,
    listed: &Snapshot,
) -> Result<Vec<Origin>, OpenError> {
    let names: Vec<&[u8]> = listed.messages().map(|m| m.unique()).collect();
    let question = Question {
        root,
        newcomers: &names,
        // What popcore has announced otherwise is to be told of.
        previous: None,
        gone: &Gone::Known(&[]),
    };
    let all = sources.ask(&question, None)?.earlier;
    let kept = sources.kept(root)?;
    let counting = match &kept {
        Some(_) => &sources.ask(&question, kept.as_ref())?.earlier,
        None => &all,
    };
    let before: HashSet<Vec<u8>> = known.messages().map(|m| m.uidl_text()).collect();
    let announced: Vec<Vec<u8>> = listed.messages().map(|m| m.uidl_text()).collect();
    let taken: HashSet<&[u8]> = announced.iter().map(Vec::as_slice).collect();
    let origin = |(unique, uidl): (&&[u8], &Vec<u8>)| match all.get(unique) {
        Some(found) if *found.text == **uidl => Origin::Earlier,
        Some(found) if counting.get(unique) != Some(found) => Origin::Since {
            other: found.text.to_vec(),
        },
        Some(found) => Origin::Lost {
            earlier: found.text.to_vec(),
            why: if before.contains(uidl) {
                Loss::Announced
            } else if !super::uidl::is_announceable(&found.text) {
                Loss::Unfit
            } else if taken.contains(&*found.text) {
                Loss::Shared
            } else {
                Loss::Announced
            },
        },
        None if before.contains(uidl) => Origin::Index,
        None if uidl == unique => Origin::Name,
        None => Origin::Digest,
    };
    Ok(names.iter().zip(&announced).map(origin).collect())
}

/// What an index remembers, of which nothing is true any more but the unique-ids, and
/// which messages went.
fn recalled<'a>(asked: &Path, root: &Path, contents: Contents<'a>) -> (Snapshot, Vec<Message<'a>>) {
    let knowledge = Knowledge {
        trust: contents.trust(),
        retired: contents.retired(),
        ..Knowledge::none()
    };
    let (table, gone) = contents.into_parts();
    (Snapshot::new(asked, root, knowledge, table), gone)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Maildrops;
    use super::*;

    fn origins(at: &Location, sources: &Sources) -> Vec<(String, Origin)> {
        let planned = plan(at, sources).expect("it can be read");
        let text = |m: Planned| (String::from_utf8(m.uidl).expect("ASCII"), m.origin);
        planned.into_iter().map(text).collect()
    }

    #[test]
    fn what_an_earlier_server_announced_is_kept_or_named() {
        let folder = tempfile::tempdir().expect("a folder");
        for part in ["new", "cur"] {
            fs::create_dir(folder.path().join(part)).expect("a folder");
        }
        let names = ["1.kept", "2.twin", "3.unfit", "4.new", "5.\u{e4}"];
        for name in names {
            fs::write(folder.path().join("new").join(name), "x\n").expect("a message");
        }
        let long = "x".repeat(71);
        let known = format!("3 V9 N9\n1 Pa :1.kept\n2 Pa :2.twin\n3 P{long} :3.unfit\n4 :gone\n");
        fs::write(folder.path().join("dovecot-uidlist"), known).expect("a list");
        let at = Location::beside(folder.path());
        let sources = Sources::parse(["dovecot"]).expect("a source");
        let lost = |earlier: &str, why| Origin::Lost {
            earlier: earlier.into(),
            why,
        };
        let planned = origins(&at, &sources);
        let told: Vec<_> = planned
            .iter()
            .map(|(uidl, origin)| (&**uidl, origin))
            .collect();
        assert_eq!(told[0], ("a", &Origin::Earlier));
        assert_eq!(told[1], ("2.twin", &lost("a", Loss::Shared)));
        assert_eq!(told[2], ("3.unfit", &lost(&long, Loss::Unfit)));
        assert_eq!(told[3], ("4.new", &Origin::Name));
        assert_eq!(told[4].1, &Origin::Digest);
        assert!(
            !folder.path().join("popcore.index").exists(),
            "it only looks"
        );

        // What is planned is what is announced, and stays so.
        let maildrops = Maildrops::new(0).with_sources(Sources::name());
        drop(maildrops.open(&at).expect("it opens"));
        let after = origins(&at, &sources);
        assert_eq!(after[0], ("1.kept".into(), lost("a", Loss::Announced)));
        assert_eq!(after[3], ("4.new".into(), Origin::Index));
    }

    #[test]
    fn what_another_server_numbered_since_popcore_took_over_is_no_loss() {
        let folder = tempfile::tempdir().expect("a folder");
        for part in ["new", "cur"] {
            fs::create_dir(folder.path().join(part)).expect("a folder");
        }
        let deliver = |name| fs::write(folder.path().join("new").join(name), "x\n");
        let write = |rows: &str| fs::write(folder.path().join("dovecot-uidlist"), rows);
        for name in ["1.kept", "2.early"] {
            deliver(name).expect("a message");
        }
        write("3 V9 N2\n1 :1.kept\n").expect("a list");
        let at = Location::beside(folder.path());
        let sources = Sources::parse(["dovecot:%v.%u"]).expect("a source");
        let maildrops = Maildrops::new(0).with_sources(sources.clone());
        drop(maildrops.open(&at).expect("it opens"));
        // The earlier server goes on.
        deliver("3.later").expect("a message");
        write("3 V9 N4\n1 :1.kept\n2 :2.early\n3 :3.later\n").expect("a list");
        let since = |other: &str| Origin::Since {
            other: other.into(),
        };
        let expected = [
            ("9.1".to_owned(), Origin::Earlier),
            ("2.early".to_owned(), since("9.2")),
            ("3.later".to_owned(), since("9.3")),
        ];
        assert_eq!(origins(&at, &sources), expected);
        // As is said of a trial.
        for file in ["popcore.index", "popcore.cutoff"] {
            fs::remove_file(folder.path().join(file)).expect("a file");
        }
        let origins = origins(&at, &sources);
        assert!(origins.iter().all(|(_, origin)| *origin == Origin::Earlier));
    }
}
