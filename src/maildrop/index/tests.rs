use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::super::message::Facts;
use super::super::retention::Day;
use super::super::snapshot::Knowledge;
use super::super::stamps::Standing;
use super::super::uidl::{self, Packed};
use super::*;

/// A message that owns what it is made of.
#[derive(Clone, Debug)]
struct Owned {
    name: String,
    folder: Folder,
    inode: u64,
    facts: Facts,
    rank: Option<u32>,
    retrieved: Option<Day>,
    uidl: String,
}

impl Owned {
    fn with<T>(&self, use_it: impl FnOnce(&Message<'_>) -> T) -> T {
        let unique = self.name.split(':').next().expect("something");
        let mut packed = Vec::new();
        let form = uidl::pack(self.uidl.as_bytes(), unique.as_bytes(), &mut packed);
        use_it(&Message {
            name: self.name.as_bytes(),
            folder: self.folder,
            inode: self.inode,
            facts: self.facts,
            rank: self.rank,
            uidl: Packed::new(form, &packed).expect("a unique-id"),
            retrieved: self.retrieved,
        })
    }
}

fn snapshot(messages: &[Owned], retired: Vec<Digest>) -> Snapshot {
    let mut sorted = messages.to_vec();
    sorted.sort_by(|a, b| a.with(|a| b.with(|b| compare(a, b))));
    let mut columns = Columns::default();
    for message in &sorted {
        message.with(|message| columns.push(message));
    }
    let knowledge = Knowledge {
        standing: Standing::Unsettled,
        retired: retired.into(),
        ..Knowledge::none()
    };
    Snapshot::new(Path::new("/m"), Path::new("/m"), knowledge, columns.into())
}

fn same(contents: &Contents<'_>, snapshot: &Snapshot) {
    assert_eq!(contents.damage(), None);
    assert!(contents.table.messages().eq(snapshot.messages()));
    let sorted = |retired: &[Digest]| {
        let mut retired = retired.to_vec();
        retired.sort_unstable();
        retired
    };
    let kept = sorted(&contents.retired);
    assert_eq!(kept, sorted(&snapshot.knowledge().retired));
}

fn message() -> impl Strategy<Value = Owned> {
    let name = "[1-4]\\.[a-c]{1,2}(,S=[0-9]{1,2})?(:2,[FS]{0,2})?";
    let uidl = prop_oneof![
        "[!-~]{1,70}",
        "[0-9a-f]{16}",
        "[0-9a-f]{32}",
        "UID[0-9]{1,6}-[0-9]{1,9}"
    ];
    let sizes = prop_oneof![0..10_000_u64, Just(u64::from(u32::MAX)), Just(1 << 40)];
    let facts = (sizes, any::<bool>(), any::<bool>());
    let rank = (
        proptest::option::of(0..6_u32),
        proptest::option::of(any::<u16>()),
    );
    (
        name,
        any::<bool>(),
        1..5_u64,
        facts,
        rank,
        proptest::option::of(uidl),
    )
        .prop_map(
            |(name, cur, inode, (octets, verbatim, summed), (rank, day), uidl)| Owned {
                uidl: uidl.unwrap_or_else(|| name.split(':').next().expect("something").to_owned()),
                name,
                folder: if cur { Folder::Cur } else { Folder::New },
                inode,
                facts: Facts {
                    octets,
                    stored: octets,
                    verbatim,
                    sum: summed.then_some(7),
                },
                rank,
                retrieved: day.and_then(Day::new),
            },
        )
}

/// Messages that differ in name or inode; ranked ones first is what order makes.
fn messages() -> impl Strategy<Value = Vec<Owned>> {
    proptest::collection::vec(message(), 0..14).prop_map(|messages| {
        let key = |m: &Owned| {
            let unique = m.name.split(':').next().expect("something").to_owned();
            (unique, m.inode)
        };
        let distinct: BTreeMap<_, _> = messages.into_iter().map(|m| (key(&m), m)).collect();
        distinct.into_values().collect()
    })
}

proptest! {
    #[test]
    fn what_is_written_whole_or_bit_by_bit_is_read(
        steps in proptest::collection::vec((messages(), 0..3_usize), 1..6),
    ) {
        let mut retired: Vec<Digest> = Vec::new();
        let mut file = Vec::new();
        let mut before: Option<Snapshot> = None;
        for (messages, more) in steps {
            for _ in 0..more {
                let next = u8::try_from(retired.len()).expect("few");
                retired.push([next; 16]);
            }
            let now = snapshot(&messages, retired.clone());
            match &before {
                None => file = whole(&now, &[]),
                Some(before) => file.extend(changes(before, &now)),
            }
            same(&Contents::read(&file), &now);
            prop_assert!(changes(&now, &now).is_empty());
            // Said again, it is the same and shorter.
            let again = Contents::read(&file).to_octets();
            prop_assert!(again.len() <= file.len().max(whole(&now, &[]).len()));
            same(&Contents::read(&again), &now);
            let at_least = least(&now);
            let whole = whole(&now, &[]).len() as u64;
            prop_assert!(whole <= at_least + 64 && at_least <= whole + 128);
            before = Some(now);
        }
    }

    #[test]
    fn no_octets_make_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
        let contents = Contents::read(&octets);
        prop_assert!(contents.damage().is_some());
        prop_assert!(contents.kept().is_none());
    }
}

fn three() -> (Snapshot, Vec<u8>) {
    let owned = |name: &str, inode, uidl: &str| Owned {
        name: name.to_owned(),
        folder: Folder::New,
        inode,
        facts: Facts {
            octets: 10,
            stored: 9,
            verbatim: false,
            sum: Some(3),
        },
        rank: None,
        retrieved: None,
        uidl: uidl.to_owned(),
    };
    let first = [
        owned("1.a", 1, "0000000100000002"),
        owned("2.b:2,S", 2, "2.b"),
    ];
    let all = [&first[..], &[owned("3.c", 3, "P-value")]].concat();
    let (before, after) = (
        snapshot(&first, vec![[7; 16]]),
        snapshot(&all, vec![[7; 16]]),
    );
    let mut file = whole(&before, &[]);
    file.extend(changes(&before, &after));
    (after, file)
}

fn texts(contents: &Contents<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let text = |m: Indexed<'_>| (m.name().to_owned(), m.uidl());
    contents.messages().map(text).collect()
}

#[test]
fn an_index_cut_off_anywhere_is_found_out_and_gives_what_is_left() {
    let (_, file) = three();
    let all = texts(&Contents::read(&file));
    assert_eq!(all.len(), 3);
    // Where a change ends nothing is missing but the change.
    let mut good = 0;
    for length in 0..file.len() {
        let contents = Contents::read(&file[..length]);
        let found = texts(&contents);
        assert!(found.iter().all(|message| all.contains(message)));
        assert!(contents.kept().is_none() || found.len() == 2);
        good += usize::from(contents.damage().is_none());
    }
    // Behind the header and each record: nothing is torn there.
    assert_eq!(good, 6);
}

#[test]
fn a_flipped_bit_anywhere_is_found_out_and_costs_one_record_at_most() {
    let (_, file) = three();
    let all = texts(&Contents::read(&file));
    for bit in 0..8 * file.len() {
        let mut flipped = file.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let contents = Contents::read(&flipped);
        assert!(contents.damage().is_some(), "bit {bit}");
        assert!(contents.kept().is_none());
        let found = texts(&contents);
        assert!(
            found.iter().all(|message| all.contains(message)),
            "bit {bit}"
        );
        // A version that is another one by a flipped bit is no other version: its
        // checksum is wrong.
        assert!(found.len() >= 2, "bit {bit}: {}", found.len());
    }
}

#[test]
fn a_record_that_is_missing_altogether_is_found_out() {
    let (after, file) = three();
    let second = after.messages().nth(1).expect("three");
    let mut record = Vec::new();
    format::write(&Record::Message(second), &mut record);
    let at = memchr::memmem::find(&file, &record).expect("it was written");
    let without = [&file[..at], &file[at + record.len()..]].concat();
    assert_eq!(Contents::read(&without).damage(), Some(Damage::Missing));
}

fn of_version_9(file: &mut [u8]) {
    file[12] = 9;
    let checksum = crc32fast::hash(&file[..16]).to_le_bytes();
    file[16..20].copy_from_slice(&checksum);
}

#[test]
fn of_another_version_is_taken_what_can_be_read() {
    let (_, mut file) = three();
    let all = texts(&Contents::read(&file));
    of_version_9(&mut file);
    let contents = Contents::read(&file);
    assert_eq!(contents.damage(), Some(Damage::Version(9)));
    assert_eq!(contents.foreign_version(), None);
    assert!(contents.kept().is_none());
    assert_eq!(texts(&contents), all);
    // One that has other records than these is not given up in silence.
    let header = file[..20].to_vec();
    for record in (20..file.len())
        .filter(|at| file[*at] == 0xa7)
        .collect::<Vec<_>>()
    {
        file[record] = 0xa8;
    }
    let contents = Contents::read(&file);
    assert!(contents.is_empty());
    assert_eq!(contents.foreign_version(), Some(9));
    // Without any there is nothing to give up.
    assert_eq!(Contents::read(&header).foreign_version(), None);
}
