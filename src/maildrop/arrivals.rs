//! A listing beside a snapshot, where all that was known is as it was and a few messages
//! have come: what most listings of a large maildrop show.
//!
//! Such a listing is not laid over what is known, sorted and announced with it: its names
//! are only looked up, and what is new is all that is worked on. To look up means inode
//! and name, so that nothing is taken for what it is not; whatever else a listing shows, a
//! message renamed, gone or listed twice, is for [`survey`](super::survey) to lay over
//! what is known. So this may only be asked of a whole listing, and holds where a
//! directory was not listed because its stamp is the one it had: then what is known of it
//! is true, and a message that was moved from there to a directory that was listed has
//! changed that stamp.
//!
//! Rejected: to keep the places of inodes with each snapshot. It would save a pass over the
//! snapshot, and take four octets a message of the memory that its bound has not left.

use super::name::Name;
use super::roll::Roll;
use super::snapshot::{Folder, Snapshot};
use crate::proto::MessageNumber;

/// Arrivals that are few: what is done for each may look at all that is known.
const MOST: usize = 64;

/// Slots that are looked at for one message. Files that are one inode under many names
/// crowd together, and are left to the survey.
const PROBES: usize = 32;

/// Those of `listed`, which is whole but for directories that are `held`, that are not
/// `known`; `None` where that is not all there is to say of it.
pub(super) fn beside(
    known: &Snapshot,
    listed: &Roll,
    held: impl Fn(Folder) -> bool,
) -> Option<Roll> {
    let numbers = || (0..known.len()).filter_map(MessageNumber::from_index);
    let expected = numbers().filter(|number| known.folder(*number).is_some_and(|f| !held(f)));
    let expected = expected.count();
    let few = listed.len().checked_sub(expected)?;
    if known.is_empty() || few > MOST {
        return None;
    }
    let finder = Finder::new(known)?;
    let (mut seen, mut count) = (vec![false; known.len()], 0);
    let mut arrivals = Roll::default();
    for member in listed.members() {
        let Some(number) = finder.find(member.inode, member.unique) else {
            let name = Name::parse(member.name).expect("it was parsed when it was listed");
            arrivals.add(name, member.folder, member.inode, None);
            continue;
        };
        let there = known.folder(number) == Some(member.folder)
            && known.name(number) == Some(member.name)
            && !seen[number.index()];
        if !there {
            return None;
        }
        seen[number.index()] = true;
        count += 1;
    }
    arrivals.sort();
    (count == expected).then_some(arrivals)
}

/// The messages of a snapshot by inode: open addressing, at most half full.
struct Finder<'a> {
    known: &'a Snapshot,
    slots: Vec<Option<MessageNumber>>,
}

impl<'a> Finder<'a> {
    /// `None` where too many have inodes that meet.
    fn new(known: &'a Snapshot) -> Option<Self> {
        let size = (2 * known.len()).next_power_of_two();
        let mut finder = Self {
            known,
            slots: vec![None; size],
        };
        for number in (0..known.len()).filter_map(MessageNumber::from_index) {
            let inode = known.inode(number)?;
            let mut places = finder.places(inode);
            let free = places.find(|place| finder.slots[*place].is_none())?;
            finder.slots[free] = Some(number);
        }
        Some(finder)
    }

    /// Where a message with that inode may be.
    fn places(&self, inode: u64) -> impl Iterator<Item = usize> + use<> {
        let mask = self.slots.len() - 1;
        // An odd factor; its upper half depends on every bit of the inode.
        let mixed = inode.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let first = usize::try_from(mixed).expect("32 bits");
        (0..PROBES.min(mask + 1)).map(move |step| (first + step) & mask)
    }

    /// The message with that inode and unique name, if there is one.
    fn find(&self, inode: u64, unique: &[u8]) -> Option<MessageNumber> {
        let taken = self.places(inode).map_while(|place| self.slots[place]);
        let mut taken = taken.filter(|number| self.known.inode(*number) == Some(inode));
        taken.find(|number| self.known.unique_name(*number) == Some(unique))
    }
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

    fn roll(messages: &[(&str, Folder, u64)], facts: Option<Facts>) -> Roll {
        let mut roll = Roll::default();
        for (name, folder, inode) in messages {
            let name = Name::parse(name.as_bytes()).expect("a name");
            roll.add(name, *folder, *inode, facts);
        }
        roll
    }

    fn known(messages: &[(&str, Folder, u64)]) -> Snapshot {
        let mut roll = roll(messages, Some(FACTS));
        roll.sort();
        Snapshot::assemble("/m".as_ref(), "/m".as_ref(), Knowledge::none(), roll)
    }

    fn arrived(known: &Snapshot, listed: &[(&str, Folder, u64)]) -> Option<Vec<String>> {
        let few = beside(known, &roll(listed, None), |folder| folder == Folder::Cur)?;
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
    fn many_names_of_one_inode_are_left_to_the_survey() {
        let names: Vec<String> = (0..200).map(|n| format!("{n}.x")).collect();
        let files: Vec<(&str, Folder, u64)> =
            names.iter().map(|name| (&**name, Folder::New, 7)).collect();
        assert_eq!(arrived(&known(&files), &files), None);
        let few = &files[..20];
        assert_eq!(arrived(&known(few), few), Some(Vec::new()));
        let many: Vec<(&str, Folder, u64)> = names
            .iter()
            .zip(8..)
            .map(|(name, inode)| (&**name, Folder::New, inode))
            .collect();
        assert_eq!(
            arrived(&known(few), &[few, &many[..MOST]].concat()).map(|n| n.len()),
            Some(MOST)
        );
        assert_eq!(arrived(&known(few), &[few, &many[..=MOST]].concat()), None);
    }
}
