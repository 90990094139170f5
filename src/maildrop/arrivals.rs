//! A listing beside a snapshot, where all that was known is as it was and a few messages
//! have come: what most listings of a large maildrop show.
//!
//! Such a listing is not laid over what is known, sorted and announced with it: what is new
//! is all that is worked on. Mail that comes bears the time in its name, so what is new is
//! looked for among the names that sort behind nearly all that is known; if all others are
//! together those that are known, by their [`Census`], nobody else is new, and nobody is
//! gone, renamed or listed twice. If not, it is looked for among all names once more, and
//! what is no such listing is for [`survey`](super::survey) to lay over what is known. So this
//! may only be asked of a whole listing, and holds where a directory was not listed because
//! its stamp is the one it had: then what is known of it is true, and a message that was
//! moved from there to a directory that was listed has changed that stamp.
//!
//! Rejected: to keep the places of inodes with each snapshot. It would take four octets a
//! message of the memory that its bound has not left. To look each name up in a table of
//! inodes made for that: a third of what the listing itself takes, for places in memory that
//! are far from each other.

use std::collections::HashSet;

use super::census::{Census, Mark};
use super::entries::Entries;
use super::name::Name;
use super::roll::Roll;
use super::snapshot::{Folder, Snapshot};

/// Arrivals that are few: more are laid over what is known.
const MOST: usize = 64;

/// As many messages of those that are known may have come with the last ones.
const LATE: usize = 256;

/// Those of `listed`, which is whole but for directories that are `held`, that are not
/// `known`; `None` where that is not all there is to say of it.
pub(super) fn beside(
    known: &Snapshot,
    listed: &Entries,
    held: impl Fn(Folder) -> bool,
) -> Option<Roll> {
    let listed_folders = [Folder::New, Folder::Cur].into_iter().filter(|f| !held(*f));
    let expected = listed_folders.map(|folder| known.census(folder));
    let expected = expected.fold(Census::default(), |all, one| all + one);
    let few = listed.len().checked_sub(expected.files)?;
    if known.is_empty() || few > MOST {
        return None;
    }
    let late = known.len().saturating_sub(LATE);
    let mut arrivals = others(known, late, listed, expected);
    if arrivals.is_none() && late > 0 {
        arrivals = others(known, 0, listed, expected);
    }
    let mut arrivals = arrivals?;
    arrivals.sort();
    // A second name of a file that is known is no other message.
    let names: HashSet<&[u8]> = arrivals.newcomers().collect();
    let namesakes: HashSet<_> = known
        .named(&names)
        .iter()
        .map(|m| (m.unique(), m.inode))
        .collect();
    let is_new = !arrivals
        .members()
        .any(|m| namesakes.contains(&(m.unique, m.inode)));
    (is_new && arrivals.len() == few).then_some(arrivals)
}

/// Those of `listed` that are not known, if they sort behind the messages before `first`,
/// counted from 0, and all others are the `expected` ones.
fn others(known: &Snapshot, first: usize, listed: &Entries, expected: Census) -> Option<Roll> {
    let late = known.messages_from(first);
    let late: HashSet<Mark> = late.map(|m| Mark::of(m.name, m.folder, m.inode)).collect();
    // Of names with as many digits, and all have as many till the year 2286.
    let since = match known.messages_from(first).next() {
        Some(message) if first > 0 => seconds(message.name),
        _ => b"",
    };
    let few = listed.len() - expected.files;
    let (mut arrivals, mut there) = (Roll::default(), Census::default());
    for (octets, folder, inode) in listed.octets() {
        let mark = Mark::of(octets, folder, inode);
        if octets < since || late.contains(&mark) {
            there += mark;
        } else if arrivals.len() < few {
            let name = Name::parse(octets).expect("it was parsed when it was listed");
            arrivals.add(name, folder, inode, None);
        } else {
            return None;
        }
    }
    (there == expected).then_some(arrivals)
}

/// The digits that a name begins with.
fn seconds(name: &[u8]) -> &[u8] {
    let digits = name.iter().take_while(|octet| octet.is_ascii_digit());
    &name[..digits.count()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maildrop::message::Facts;
    use crate::maildrop::snapshot::Knowledge;

    const FACTS: Facts = Facts {
        octets: 3,
        stored: 2,
        verbatim: false,
        sum: Some(7),
    };

    fn roll(messages: &[(&str, Folder, u64)]) -> Roll {
        let mut roll = Roll::default();
        for (name, folder, inode) in messages {
            let name = Name::parse(name.as_bytes()).expect("a name");
            roll.add(name, *folder, *inode, Some(FACTS));
        }
        roll
    }

    fn known(messages: &[(&str, Folder, u64)]) -> Snapshot {
        let mut roll = roll(messages);
        roll.sort();
        Snapshot::assemble("/m".as_ref(), "/m".as_ref(), Knowledge::none(), roll)
    }

    fn arrived(known: &Snapshot, listed: &[(&str, Folder, u64)]) -> Option<Vec<String>> {
        let mut shown = Entries::default();
        for (name, folder, inode) in listed {
            let name = Name::parse(name.as_bytes()).expect("a name");
            shown.add(name, *folder, *inode);
        }
        let few = beside(known, &shown, |folder| folder == Folder::Cur)?;
        let name = |name: &[u8]| String::from_utf8(name.to_vec()).expect("ASCII");
        Some(few.members().map(|member| name(member.name)).collect())
    }

    #[test]
    fn what_came_is_told_and_all_else_is_left_to_the_survey() {
        use Folder::{Cur, New};
        let known = known(&[("1.a", New, 1), ("2.b:2,S", Cur, 2), ("3.c", New, 3)]);
        let told = |names: &[&str]| Some(names.iter().map(|n| (*n).to_owned()).collect());
        let both = [("3.c", New, 3), ("1.a", New, 1)];
        assert_eq!(arrived(&known, &both), told(&[]));
        let with = |more: &[(&'static str, Folder, u64)]| [&both[..], more].concat();
        let two = with(&[("9.z", New, 9), ("4.d", New, 4)]);
        assert_eq!(arrived(&known, &two), told(&["4.d", "9.z"]));
        // Of the same name, or of the same inode: another message.
        let twins = with(&[("1.a:2,S", New, 5), ("5.e", New, 1)]);
        assert_eq!(arrived(&known, &twins), told(&["1.a:2,S", "5.e"]));
        // Gone, renamed, moved from what was not listed, and listed twice.
        assert_eq!(arrived(&known, &both[..1]), None);
        assert_eq!(arrived(&known, &[both[0], ("4.d", New, 4)]), None);
        assert_eq!(arrived(&known, &[both[0], ("1.a:2,S", New, 1)]), None);
        assert_eq!(arrived(&known, &with(&[("2.b", New, 2)])), None);
        assert_eq!(arrived(&known, &with(&[both[0]])), None);
        assert_eq!(arrived(&known, &[both[0], both[0]]), None);
    }

    #[test]
    fn more_than_a_few_are_left_to_the_survey() {
        let names: Vec<String> = (0..200).map(|n| format!("{n}.x")).collect();
        // All are one inode: who is who is told by the names alone.
        let files: Vec<(&str, Folder, u64)> =
            names.iter().map(|name| (&**name, Folder::New, 7)).collect();
        assert_eq!(arrived(&known(&files), &files), Some(Vec::new()));
        let (few, more) = files.split_at(20);
        let with = |count: usize| [few, &more[..count]].concat();
        assert_eq!(
            arrived(&known(few), &with(MOST)).map(|found| found.len()),
            Some(MOST)
        );
        assert_eq!(arrived(&known(few), &with(MOST + 1)), None);
    }

    #[test]
    fn what_came_is_found_among_many_whatever_its_name_is() {
        let names: Vec<String> = (1..=3 * LATE).map(|n| format!("{}.x", 1_000 + n)).collect();
        let files: Vec<(&str, Folder, u64)> = names
            .iter()
            .zip(1..)
            .map(|(name, inode)| (&**name, Folder::New, inode))
            .collect();
        let known = known(&files);
        let with = |name: &'static str, inode| [&files[..], &[(name, Folder::New, inode)]].concat();
        for name in ["9999.new", "1500.new", "1.new", "new", "10000.new"] {
            let told = Some(vec![name.to_owned()]);
            assert_eq!(arrived(&known, &with(name, 9_000)), told);
        }
        // Another came in the place of one, early or late.
        for place in [0, files.len() - 1] {
            let mut changed = files.clone();
            changed[place] = ("9999.new", Folder::New, 9_000);
            assert_eq!(arrived(&known, &changed), None);
            changed.push(("9999.newer", Folder::New, 9_001));
            assert_eq!(arrived(&known, &changed), None);
        }
    }

    #[test]
    fn a_second_name_of_a_file_that_is_known_is_left_to_the_survey() {
        let first = ("1.a", Folder::New, 1);
        let twice = [first, ("1.a:2,S", Folder::New, 1)];
        assert_eq!(arrived(&known(&[first]), &twice), None);
    }
}
