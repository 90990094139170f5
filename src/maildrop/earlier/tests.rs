use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

fn sources(names: &[&str]) -> Sources {
    Sources::parse(names.iter().copied()).expect("sources")
}

type Texts = Vec<(String, String, Option<u32>)>;

fn sorted<'a>(announced: impl Iterator<Item = (&'a Box<[u8]>, &'a Announced)>) -> Texts {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let texts = announced.map(|(name, all)| (text(name), text(&all.text), all.rank));
    let mut texts: Vec<_> = texts.collect();
    texts.sort();
    texts
}

fn texts(earlier: &Earlier) -> Texts {
    sorted(earlier.messages.iter())
}

fn of_rows(rows: Option<Rows>) -> Texts {
    let messages = rows.map(|rows| rows.messages).unwrap_or_default();
    sorted(messages.iter().map(|(name, row)| (name, &row.announced)))
}

fn dovecot(octets: &[u8], format: &str) -> Result<Texts, ListFault> {
    let format = Format::parse(format).expect("a format");
    dovecot::read(octets, &format).map(of_rows)
}

fn row(name: &str, text: &str, rank: u32) -> (String, String, Option<u32>) {
    (name.to_owned(), text.to_owned(), Some(rank))
}

const UIDLIST: &[u8] = b"3 V1600000000 N9 G0123456789abcdef0123456789abcdef Pold\n\
    3 S10 W12 :1.a,S=10,W=12\n\
    5 PUID17-1500000000 O2 W9 :2.b\n\
    6 P :3.c\n\
    7 Gguid-of-d :4.d\n";

#[test]
fn saved_unique_ids_come_before_the_format_and_orders_before_uids() {
    let behind = 1_u32 << 31;
    assert_eq!(
        dovecot(UIDLIST, "%08Xu%08Xv"),
        Ok(vec![
            row("1.a,S=10,W=12", "000000035f5e1000", behind + 3),
            row("2.b", "UID17-1500000000", 2),
            row("3.c", "3.c", behind + 6),
            row("4.d", "000000075f5e1000", behind + 7),
        ])
    );
}

#[test]
fn formats_of_other_servers_are_spelt() {
    for (format, third) in [
        ("%08Xv%08Xu", "5f5e100000000003"),
        ("%v.%u", "1600000000.3"),
        ("%v-%u", "1600000000-3"),
        ("%u", "3"),
        ("%f", "1.a,S=10,W=12"),
        ("%Mf", "0fdd3d34fac3ec2ae9b9ce0a3d6fd5ae"),
        ("x%%%Xu", "x%3"),
    ] {
        let found = dovecot(UIDLIST, format).expect("a good list");
        if format == "%Mf" {
            assert_eq!(found[0].1.len(), 32);
        } else {
            assert_eq!(found[0].1, third, "{format}");
        }
    }
    assert_eq!(dovecot(UIDLIST, "%g").expect("good")[3].1, "guid-of-d");
}

#[test]
fn the_md5_of_a_name_is_that_of_md5sum() {
    // printf 1700000000.1_0.host | md5sum
    assert_eq!(md5_hex(b""), b"d41d8cd98f00b204e9800998ecf8427e");
    assert_eq!(md5_hex(b"abc"), b"900150983cd24fb0d6963f7d28e17f72");
}

#[test]
fn the_first_version_is_read() {
    assert_eq!(
        dovecot(b"1 1600000000 4\n1 1.a:2,S\n3 2 b\n", "%v.%u"),
        Ok(vec![
            row("1.a", "1600000000.1", (1 << 31) + 1),
            row("2 b", "1600000000.3", (1 << 31) + 3),
        ])
    );
}

#[test]
fn a_line_that_is_being_written_is_none_yet_and_a_malformed_one_is_a_fault() {
    assert_eq!(
        dovecot(b"3 V1 N2\n1 :1.a\n2 :2.", "%u").map(|rows| rows.len()),
        Ok(1)
    );
    assert_eq!(dovecot(b"", "%u"), Ok(Vec::new()));
    assert_eq!(dovecot(b"3 V1", "%u"), Ok(Vec::new()));
    for (text, line) in [
        (&b"4 V1 N2\n"[..], 1),
        (b"3 N2\n", 1),
        (b"junk\n", 1),
        (b"3 V1 N2\nx :1.a\n", 2),
        (b"3 V1 N3\n1 :1.a\n1 :2.b\n", 3),
        (b"3 V1 N3\n1 :../a\n", 2),
        (b"3 V1 N3\n1 Ox :a\n", 2),
        (b"3 V1 N3\n1 P2\n", 2),
    ] {
        let fault = dovecot(text, "%u").expect_err("a fault");
        assert_eq!(fault.line, line, "{}", text.escape_ascii());
    }
}

fn courier(octets: &[u8]) -> Result<Texts, ListFault> {
    courier::read(octets).map(of_rows)
}

#[test]
fn courier_s_list_is_read_from_the_right() {
    let list = b"/3 9 1600000000\n1.a:2,S 100 3:1600000000:0\n2 b 50 4:0:1\n3.'c+ 7 0:0:0\n";
    assert_eq!(
        courier(list),
        Ok(vec![
            row("1.a", "UID3-1600000000", 0),
            row("2 b", "UID4", 1),
            row("3.'c+", "3.+27c+2B", 2),
        ])
    );
    assert_eq!(
        courier(b"/2 9 16\n1.a 100 3:16\n"),
        Ok(vec![row("1.a", "UID3-16", 0)])
    );
    assert!(courier(b"/4 9 16\n").is_err());
    assert!(courier(b"/3 9 16\n1.a 3:16:0\n").is_err());
}

#[test]
fn what_comes_next_is_told_by_header_or_lines() {
    let next = |rows: Result<Option<Rows>, ListFault>| {
        let next = rows.expect("a list").expect("a list").next;
        (next.validity, next.number)
    };
    let dovecot = |list: &str| next(dovecot::read(list.as_bytes(), &Format::default()));
    assert_eq!(dovecot("3 V7 N9\n1 :1.a\n"), (7, 9));
    // Lines are appended without a change of the header.
    assert_eq!(dovecot("3 V7 N2\n1 :1.a\n5 :2.b\n"), (7, 6));
    assert_eq!(dovecot("1 7 4\n1 1.a:2,S\n"), (7, 4));
    let courier = |list: &str| next(courier::read(list.as_bytes()));
    assert_eq!(courier("/3 9 16\n1.a 1 5:16:0\n"), (16, 9));
}

#[test]
fn sources_are_asked_in_order_and_the_first_that_knows_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().canonicalize().expect("a path");
    let root = Root::open(&path).expect("no error").expect("there");
    let names: [&[u8]; 2] = [b"1.a", b"2.b"];
    let question = Question {
        root: &root,
        newcomers: &names,
        previous: None,
        gone: &Gone::Known(&[]),
    };
    let ask = |names_of: &[&str]| {
        let answer = sources(names_of).ask(&question, None);
        answer.map(|answer| answer.earlier)
    };
    assert!(texts(&ask(&["dovecot", "courier"]).expect("no file")).is_empty());
    std::fs::write(path.join("dovecot-uidlist"), "3 V1 N2\n1 :1.a\n").expect("a file");
    let list = "/3 9 16\n1.a 1 5:16:0\n2.b 1 6:16:0\n";
    std::fs::write(path.join("courierpop3dsizelist"), list).expect("a file");
    let both = texts(&ask(&["dovecot:%v.%u", "courier", "tpop3d"]).expect("good"));
    assert_eq!(both[0].1, "1.1");
    assert_eq!(both[1].1, "UID6-16");
    let courier_first = texts(&ask(&["courier", "dovecot"]).expect("good"));
    assert_eq!(courier_first[0].1, "UID5-16");
    let digests = texts(&ask(&["tpop3d"]).expect("good"));
    assert!(digests.iter().all(|row| row.1.len() == 32));
    std::fs::write(path.join("dovecot-uidlist"), "damaged\n").expect("a file");
    assert!(matches!(ask(&["dovecot"]), Err(OpenError::Permanent(_))));
    assert!(ask(&["courier"]).is_ok());
}

#[test]
fn lists_of_sources_that_cannot_work_are_refused() {
    let parse = |names: &[&str]| Sources::parse(names.iter().copied());
    assert_eq!(parse(&[]), Ok(Sources::name()));
    assert_eq!(parse(&["name"]), Ok(Sources::name()));
    assert!(matches!(parse(&["cyrus"]), Err(SourcesError::Unknown(_))));
    assert!(matches!(
        parse(&["name", "courier"]),
        Err(SourcesError::Unreachable(_))
    ));
    assert!(matches!(
        parse(&["dovecot", "dovecot:%u"]),
        Err(SourcesError::Unreachable(_))
    ));
    for format in ["%v", "x", "", "%q", "%Xf", "%99u", "% u", "%"] {
        let refused = parse(&[&format!("dovecot:{format}")]);
        assert!(
            matches!(refused, Err(SourcesError::Format(_))),
            "{format:?}"
        );
    }
}

proptest! {
    #[test]
    fn no_list_makes_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = dovecot(&octets, "%u");
        let _ = courier(&octets);
        let with_header = [b"3 V1 N2\n", &octets[..]].concat();
        let _ = dovecot(&with_header, "%u");
        let _ = courier(&[b"/3 1 2\n", &octets[..]].concat());
    }

    #[test]
    fn every_line_is_kept(uids in proptest::collection::btree_set(1..u32::MAX, 0..20)) {
        let mut list = "3 V7 N1\n".to_owned();
        for uid in &uids {
            writeln!(list, "{uid} W1 :{uid}.x,S=1").expect("a String");
        }
        let found = dovecot(list.as_bytes(), "%v.%u").expect("a good list");
        prop_assert_eq!(found.len(), uids.len());
        for (name, text, _) in found {
            prop_assert_eq!(text, format!("7.{}", name.trim_end_matches(".x,S=1")));
        }
    }
}
