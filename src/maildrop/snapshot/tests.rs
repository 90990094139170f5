use std::collections::HashSet;

use proptest::prelude::*;

use super::super::announce::{digest, hex};
use super::super::uidl::{self, Form, Packed};
use super::*;
use crate::limits;

fn number(n: usize) -> MessageNumber {
    MessageNumber::new(u32::try_from(n).expect("small")).expect("not 0")
}

fn uidls(snapshot: &Snapshot) -> Vec<String> {
    (1..=snapshot.len())
        .map(|n| {
            let mut out = Vec::new();
            snapshot.write_uidl(number(n), &mut out);
            String::from_utf8(out).expect("printable")
        })
        .collect()
}

/// A snapshot of names in new/ with inodes of their own, after `previous`.
fn snapshot_of(names: &[(&[u8], u64)], previous: Option<&Snapshot>) -> Snapshot {
    let facts = Facts {
        octets: 1,
        stored: 1,
        verbatim: true,
        sum: Some(1),
    };
    let mut listed = Roll::default();
    for (name, inode) in names {
        let name = super::super::Name::parse(name).expect("a name");
        listed.add(name, Folder::New, *inode, Some(facts));
    }
    listed.mark_seen(1);
    listed.sort();
    let known = previous.map(Roll::recall).unwrap_or_default();
    let (mut roll, _) = known.lay_over(listed);
    roll.keep_seen_since(1);
    let former: Vec<Message<'_>> = previous.into_iter().flat_map(Snapshot::messages).collect();
    announce::announce(&mut roll, None, &Earlier::default(), &former, &[]);
    let root = Path::new("/m");
    Snapshot::assemble(root, root, Knowledge::none(), roll)
}

#[test]
fn messages_stand_in_order_with_their_facts() {
    let snapshot = Snapshot::builder("/m/ann")
        .message("10.b:2,S", 300)
        .message("9.a", 20)
        .build();
    assert_eq!((snapshot.len(), snapshot.total()), (2, Octets::new(320)));
    assert_eq!(snapshot.octets(number(1)), Some(Octets::new(20)));
    assert_eq!(snapshot.stored(number(2)), Some(300));
    assert_eq!(snapshot.as_stored(number(2)), Some(StoredForm::Text));
    assert_eq!(snapshot.unique_name(number(2)), Some(b"10.b".as_slice()));
    assert_eq!(snapshot.name(number(2)), Some(b"10.b:2,S".as_slice()));
    assert_eq!(snapshot.path(number(2)), Some("/m/ann/cur/10.b:2,S".into()));
    assert_eq!(
        snapshot.c_path(number(1)).as_deref(),
        Some(c"/m/ann/cur/9.a")
    );
    assert_eq!(uidls(&snapshot), ["9.a", "10.b"]);
}

#[test]
fn a_number_out_of_range_has_nothing() {
    let snapshot = Snapshot::builder("/m").message("1.a", 1).build();
    let beyond = number(2);
    assert_eq!(snapshot.octets(beyond), None);
    assert_eq!(snapshot.name(beyond), None);
    assert_eq!(snapshot.path(beyond), None);
    assert_eq!(snapshot.unique_name(beyond), None);
    let empty = Snapshot::builder("/m").build();
    assert!(empty.is_empty() && empty.total() == Octets::new(0));
}

#[test]
fn names_that_cannot_be_announced_are_hashed() {
    let long = "1.".to_owned() + &"x".repeat(69);
    let longest = "1.".to_owned() + &"x".repeat(68);
    let names: [&[u8]; 4] = [long.as_bytes(), longest.as_bytes(), b"2.\xe4:2,S", b"3.a b"];
    let inodes = names.iter().zip(1..).map(|(name, inode)| (*name, inode));
    let snapshot = snapshot_of(&inodes.collect::<Vec<_>>(), None);
    // SHA-256 of the unique names, by sha256sum(1).
    assert_eq!(uidls(&snapshot)[0], longest);
    assert_eq!(uidls(&snapshot)[2], "97b14b165c0604e33592df2aa3a590f4");
    assert_eq!(uidls(&snapshot)[3], "d0ccdd26e49de6011fc1066915f679b9");
    assert_eq!(uidls(&snapshot)[1].len(), 32);
}

#[test]
fn two_files_of_one_unique_name_are_two_messages() {
    let snapshot = snapshot_of(&[(b"1.a:2,S", 8), (b"1.a:2,RS", 7), (b"1.a", 9)], None);
    let found = uidls(&snapshot);
    assert_eq!(found[0], "1.a");
    assert!(found[1..].iter().all(|uidl| uidl.len() == 32));
    assert_ne!(found[1], found[2]);
    assert_eq!(snapshot.name(number(1)), Some(b"1.a:2,RS".as_slice()));
}

#[test]
fn one_file_seen_twice_is_one_message() {
    let snapshot = snapshot_of(&[(b"1.a", 7), (b"1.a:2,S", 7)], None);
    assert_eq!(uidls(&snapshot), ["1.a"]);
    assert_eq!(snapshot.name(number(1)), Some(b"1.a:2,S".as_slice()));
}

#[test]
fn a_uidl_outlives_its_twins_and_is_not_passed_on() {
    let both = snapshot_of(&[(b"1.a", 7), (b"1.a:2,S", 8)], None);
    let second = uidls(&both).remove(1);
    // The first goes: the second keeps its hash, and the name is free again only
    // in the sense that nobody has it.
    let alone = snapshot_of(&[(b"1.a:2,S", 8)], Some(&both));
    assert_eq!(uidls(&alone), [second.as_str()]);
    // A new twin that sorts before the holder of the name does not take it.
    let holder = snapshot_of(&[(b"1.a", 7)], None);
    let joined = snapshot_of(&[(b"1.a", 7), (b"1.a:2,S", 3)], Some(&holder));
    assert_eq!(joined.inode(number(1)), Some(3));
    assert_eq!(uidls(&joined)[1], "1.a");
    assert_ne!(uidls(&joined)[0], "1.a");
}

#[test]
fn a_file_named_like_the_hash_of_another_does_not_share_it() {
    let taken = String::from_utf8(hex(&digest(b"1.\xe4", 0))).expect("hex");
    let names: [(&[u8], u64); 2] = [(b"1.\xe4", 1), (taken.as_bytes(), 2)];
    let together = uidls(&snapshot_of(&names, None));
    assert!(together.contains(&taken), "the file's name is free for it");
    assert_ne!(together[0], together[1]);
    // Announced first, the hash stays and the file has to give way.
    let first = snapshot_of(&names[..1], None);
    let later = snapshot_of(&names, Some(&first));
    let found = uidls(&later);
    assert_ne!(found[0], found[1]);
    let hashed = (1..=2).find(|n| later.inode(number(*n)) == Some(1));
    assert_eq!(found[hashed.expect("it is there") - 1], taken);
}

#[test]
fn a_hundred_thousand_messages_take_eight_mebibytes_at_most() {
    const MESSAGES: usize = 100_000;
    let mut builder = Snapshot::builder("/var/mail/example.org/ann");
    for message in 0..MESSAGES {
        let name = format!("17{message:08}.M123456P7890_{message:06}.mx.test,S=512:2,S__");
        assert_eq!(name.len(), 50);
        builder = builder.message(name, 4_096);
    }
    let snapshot = builder.build();
    let of_messages = snapshot.memory() - size_of::<Snapshot>();
    assert!(of_messages <= 69 * MESSAGES + 256, "{of_messages}");
    assert!(snapshot.memory() <= 8 << 20, "{}", snapshot.memory());
}

#[test]
fn so_they_do_with_long_names_a_dovecots_ids_and_order_and_days_of_retrieval() {
    const MESSAGES: u32 = 100_000;
    let (mut columns, mut packed) = (Columns::default(), Vec::new());
    for message in 0..MESSAGES {
        let name = format!(
            "17{message:08}.M{:06}P{:07}.mail001.a,S=12345,W=12678:2,S",
            message % 999_999,
            1_000_000 + message
        );
        assert_eq!(name.len(), 56);
        // Dovecot's `%08Xu%08Xv`.
        let uidl = format!("{message:08x}{:08x}", 0x5f3e_91a7_u32);
        let form = uidl::pack(uidl.as_bytes(), name.as_bytes(), &mut packed);
        columns.push(&Message {
            name: name.as_bytes(),
            folder: Folder::Cur,
            inode: (7 << 32) + u64::from(message),
            facts: Facts {
                octets: 12_678,
                stored: 12_345,
                verbatim: false,
                sum: None,
            },
            // Without an order of its own.
            rank: Some((1 << 31) + message),
            uidl: Packed::new(form, &packed).expect("it was packed"),
            retrieved: Day::new(20_000),
        });
    }
    let path = Path::new("/var/mail/example.org/ann");
    let snapshot = Snapshot::new(path, path, Knowledge::none(), columns.into());
    assert!(snapshot.memory() <= 8 << 20, "{}", snapshot.memory());
}

#[test]
fn inodes_from_far_apart_and_sizes_of_all_sizes_come_out_as_they_went_in() {
    let numbers = [3, 1 << 40, (1 << 40) + 1, u64::MAX, 4, 200_000];
    for first in 0..numbers.len() {
        let mut columns = Columns::default();
        let mut order = numbers;
        order.rotate_left(first);
        let messages = order.map(|number| Message {
            name: b"1.a",
            folder: Folder::New,
            inode: number,
            facts: Facts {
                octets: number,
                stored: number / 2,
                verbatim: true,
                sum: (number > 3).then_some(9),
            },
            rank: Some(u32::try_from(number).unwrap_or(u32::MAX)),
            uidl: Packed::new(Form::Name, b"").expect("the name"),
            retrieved: None,
        });
        for message in &messages {
            columns.push(message);
        }
        assert!(columns.messages().eq(messages));
    }
}

proptest! {
    #[test]
    fn two_messages_never_share_a_uidl_and_all_keep_theirs(
        first in listing(), second in listing(),
    ) {
        let before = snapshot_of(&borrowed(&first), None);
        let after = snapshot_of(&borrowed(&second), Some(&before));
        for snapshot in [&before, &after] {
            let found = uidls(snapshot);
            let distinct: HashSet<_> = found.iter().collect();
            prop_assert_eq!(distinct.len(), found.len());
            for uidl in &found {
                prop_assert!((1..=limits::UNIQUE_ID).contains(&uidl.len()));
                prop_assert!(uidl.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
        for (n, uidl) in (1..).zip(uidls(&before)) {
            let same = |m: &usize| after.inode(number(*m)) == before.inode(number(n))
                && after.unique_name(number(*m)) == before.unique_name(number(n));
            if let Some(m) = (1..=after.len()).find(same) {
                prop_assert_eq!(&uidls(&after)[m - 1], &uidl);
            }
        }
    }
}

/// Few names and inodes, so that they often meet.
fn listing() -> impl Strategy<Value = Vec<(Vec<u8>, u64)>> {
    let hashed = hex(&digest(b"1.\xe4", 0));
    let name = prop_oneof![
        Just(b"1.a".to_vec()),
        Just(b"1.a:2,S".to_vec()),
        Just(b"1.\xe4".to_vec()),
        Just(hashed),
        "[12]\\.[ab]{1,2}(:2,[FS]{0,1})?".prop_map(String::into_bytes),
        "[ -~&&[^/.]]{1,80}"
            .prop_filter("something before the colon", |name| !name.starts_with(':'))
            .prop_map(String::into_bytes),
    ];
    proptest::collection::vec((name, 1_u64..6), 0..12)
}

fn borrowed(names: &[(Vec<u8>, u64)]) -> Vec<(&[u8], u64)> {
    let pairs = names.iter().map(|(name, inode)| (&name[..], *inode));
    pairs.collect()
}
