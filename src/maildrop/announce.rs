//! How new messages are announced (UIDL, RFC 1939, section 7).
//!
//! What was announced once stays; only messages that no snapshot and no index
//! knows get a unique-id here, each the first of these that is free:
//!
//! 1. that of a message which went, had the same unique name and, as far as is known,
//!    the same text: it was restored from a copy;
//! 2. what an earlier server announced it by ([`Earlier`]), if it is a unique-id;
//! 3. its unique name, if RFC 1939 allows that;
//! 4. a digest of its unique name, with an ordinal behind the name while another
//!    message has the same, or had it.
//!
//! Free means that no other message of the maildrop is announced by it, nor was one
//! of those that went and are still remembered
//! ([`GONE_MESSAGES`](crate::limits::GONE_MESSAGES)): a client that knows it would take the new message
//! for the one it has. Earlier servers' go first and names second, so that what the Maildir says by itself
//! does not depend on what had to be made up. A digest that is not simply that of
//! its message's name is never used again after its message is gone.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};

use super::earlier::Earlier;
use super::message::{Facts, Message};
use super::roll::Roll;
use super::snapshot::Snapshot;
use super::uidl::{self, Form, Packed};

/// The first half of a SHA-256.
pub(super) type Digest = [u8; 16];

/// A new message that is given a unique-id.
struct Newcomer {
    at: usize,
    unique: Vec<u8>,
    facts: Option<Facts>,
}

/// Gives every new member of the roll a unique-id that nobody has in it or among those
/// who are known `beside` it, none of `retired`, and that of a former message only if it is
/// that one. Tells whether one was made up: it follows from nothing but what is remembered.
pub(super) fn announce(
    roll: &mut Roll,
    beside: Option<&Snapshot>,
    earlier: &Earlier,
    former: &[Message<'_>],
    retired: &[Digest],
) -> bool {
    let newcomers: Vec<Newcomer> = roll
        .members()
        .enumerate()
        .filter(|(_, member)| member.uidl.is_none())
        .map(|(at, member)| Newcomer {
            at,
            unique: member.unique.to_owned(),
            facts: member.facts,
        })
        .collect();
    if newcomers.is_empty() {
        return false;
    }
    let mut taken = taken_by_others(roll, beside, &newcomers, earlier, former);
    let newcomers = bring_back(roll, newcomers, former, &mut taken);
    let mut packed = Vec::new();
    let mut give = |roll: &mut Roll, newcomer: &Newcomer, text: &[u8], rank| {
        let form = uidl::pack(text, &newcomer.unique, &mut packed);
        let uidl = Packed::new(form, &packed).expect("it was just packed");
        roll.announce(newcomer.at, uidl, rank);
    };
    let mut left = Vec::new();
    for newcomer in newcomers {
        let found = earlier.get(&newcomer.unique);
        let found = found.filter(|found| uidl::is_announceable(&found.text));
        match found {
            Some(found) if taken.insert(found.text.to_vec()) => {
                give(roll, &newcomer, &found.text, found.rank);
            }
            _ => left.push(newcomer),
        }
    }
    let mut nameless = Vec::new();
    for newcomer in left {
        if uidl::is_announceable(&newcomer.unique) && taken.insert(newcomer.unique.clone()) {
            let rank = earlier.get(&newcomer.unique).and_then(|found| found.rank);
            give(roll, &newcomer, &newcomer.unique, rank);
        } else {
            nameless.push(newcomer);
        }
    }
    if nameless.is_empty() {
        return false;
    }
    let mut made_up = false;
    let others = announced(roll, beside);
    taken.extend(others.filter(|text| text.len() == 2 * size_of::<Digest>()));
    let retired: HashSet<&Digest> = retired.iter().collect();
    for newcomer in nameless {
        let free = |digest: &Digest| !retired.contains(digest) && taken.insert(hex(digest));
        // One is free before as many were tried as there are messages and retired
        // ones together.
        let mut candidates = (0..=u64::MAX).map(|ordinal| digest(&newcomer.unique, ordinal));
        let digest = candidates.find(free).expect("ordinals do not end");
        let uidl = Packed::new(Form::Digest, &digest).expect("a digest");
        let rank = earlier.get(&newcomer.unique).and_then(|found| found.rank);
        roll.announce(newcomer.at, uidl, rank);
        made_up |= !is_own(&newcomer.unique, &digest);
    }
    made_up
}

/// Whether that is what a name gives which cannot be announced itself, whoever else is there.
fn is_own(unique: &[u8], digest: &Digest) -> bool {
    !uidl::is_announceable(unique) && self::digest(unique, 0) == *digest
}

/// Announces those that were restored as before, and takes what all former messages
/// were announced by. Tells who is left.
fn bring_back(
    roll: &mut Roll,
    newcomers: Vec<Newcomer>,
    former: &[Message<'_>],
    taken: &mut HashSet<Vec<u8>>,
) -> Vec<Newcomer> {
    if former.is_empty() {
        return newcomers;
    }
    let mut by_name: HashMap<&[u8], Vec<&Message<'_>>> = HashMap::new();
    for message in former {
        by_name.entry(message.unique()).or_default().push(message);
    }
    let mut left = Vec::new();
    for newcomer in newcomers {
        let namesakes = by_name.get(&*newcomer.unique).into_iter().flatten();
        let same = |message: &&&Message<'_>| {
            let facts = newcomer.facts.as_ref();
            facts.is_some_and(|facts| facts.may_be_of(&message.facts))
                && taken.insert(message.uidl_text())
        };
        // The one that went last is the likeliest.
        match namesakes.rev().find(same) {
            // Its time begins anew: who brought it back wants it to stay.
            Some(message) => roll.announce(newcomer.at, message.uidl, message.rank),
            None => left.push(newcomer),
        }
    }
    taken.extend(former.iter().map(Message::uidl_text));
    left
}

/// Which of the unique-ids that newcomers would have are those of others.
fn taken_by_others(
    roll: &Roll,
    beside: Option<&Snapshot>,
    newcomers: &[Newcomer],
    earlier: &Earlier,
    former: &[Message<'_>],
) -> HashSet<Vec<u8>> {
    let mut taken = HashSet::new();
    if newcomers.len() == roll.len() && beside.is_none() {
        return taken;
    }
    let texts: Vec<Vec<u8>> = former.iter().map(Message::uidl_text).collect();
    let mut wanted: HashSet<&[u8]> = HashSet::with_capacity(newcomers.len());
    wanted.extend(texts.iter().map(Vec::as_slice));
    for newcomer in newcomers {
        wanted.insert(&newcomer.unique);
        wanted.extend(earlier.get(&newcomer.unique).map(|found| &*found.text));
    }
    taken.extend(
        beside
            .map(|known| known.announced_among(&wanted))
            .into_iter()
            .flatten(),
    );
    let mut text = Vec::new();
    for (unique, uidl) in those_announced(roll, None) {
        text.clear();
        uidl.write(unique, &mut text);
        if wanted.contains(&*text) {
            taken.insert(text.clone());
        }
    }
    taken
}

/// The unique names of those who have a unique-id, and these.
fn those_announced<'a>(
    roll: &'a Roll,
    beside: Option<&'a Snapshot>,
) -> impl Iterator<Item = (&'a [u8], Packed<'a>)> {
    let members = roll.members();
    let members = members.filter_map(|member| Some((member.unique, member.uidl?)));
    let others = beside.into_iter().flat_map(Snapshot::messages);
    members.chain(others.map(|message| (message.unique(), message.uidl)))
}

fn announced<'a>(
    roll: &'a Roll,
    beside: Option<&'a Snapshot>,
) -> impl Iterator<Item = Vec<u8>> + 'a {
    those_announced(roll, beside).map(|(unique, uidl)| {
        let mut text = Vec::new();
        uidl.write(unique, &mut text);
        text
    })
}

/// Of the digests whose messages went between two snapshots, those that another
/// message could be given. The digest of a name that cannot be announced is its own
/// again, should the message come back.
pub(super) fn retire(before: &Snapshot, now: &Roll) -> Vec<Digest> {
    let there: HashSet<Digest> = now
        .members()
        .filter_map(|member| member.uidl?.digest())
        .collect();
    let announced = before.messages().filter_map(|message| {
        let digest = message.uidl.digest()?;
        let own = is_own(message.unique(), &digest);
        (!own && !there.contains(&digest)).then_some(digest)
    });
    announced.collect()
}

pub(super) fn digest(unique: &[u8], ordinal: u64) -> Digest {
    let mut hash = Sha256::new();
    hash.update(unique);
    if ordinal > 0 {
        hash.update([0]);
        hash.update(ordinal.to_string());
    }
    let mut digest = Digest::default();
    digest.copy_from_slice(&hash.finalize()[..size_of::<Digest>()]);
    digest
}

pub(super) fn hex(digest: &Digest) -> Vec<u8> {
    let mut text = Vec::with_capacity(2 * digest.len());
    let packed = Packed::new(Form::Digest, digest).expect("a digest");
    packed.write(&[], &mut text);
    text
}
