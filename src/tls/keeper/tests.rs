use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::{CertificateOptions, Cipher};

fn write_pair(folder: &Path, stem: &str, name: &str) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("made");
    fs::write(folder.join(format!("{stem}.chain")), made.cert.pem()).expect("written");
    let key = made.signing_key.serialize_pem();
    fs::write(folder.join(format!("{stem}.key")), key).expect("written");
}

fn options(folder: &Path, stems: &[&str]) -> TlsOptions {
    let pair = |stem: &&str| CertificateOptions {
        chain: folder.join(format!("{stem}.chain")),
        key: folder.join(format!("{stem}.key")),
    };
    TlsOptions {
        certificates: stems.iter().map(pair).collect(),
        ciphers: Cipher::all().collect(),
        clients: ClientCertificates::None,
        ticket_keys: Vec::new(),
        ticket_lifetime: Duration::from_hours(6),
        kernel: false,
    }
}

fn names(keeper: &Keeper) -> Vec<String> {
    let facts = keeper.shown.facts();
    facts.into_iter().flat_map(|facts| facts.names).collect()
}

#[test]
fn a_renewed_pair_is_taken_once_it_stands_still() {
    let folder = tempfile::tempdir().expect("a folder");
    write_pair(folder.path(), "a", "old.example");
    write_pair(folder.path(), "b", "other.example");
    let now = SystemTime::now();
    let mut keeper = Keeper::load(&options(folder.path(), &["a", "b"]), 2, now).expect("right");
    let current = keeper.current(1);
    let before = current.get();
    keeper.look(now);
    assert!(Arc::ptr_eq(&before, &current.get()), "nothing has changed");
    write_pair(folder.path(), "a", "new.example");
    keeper.look(now);
    assert_eq!(names(&keeper), ["old.example", "other.example"]);
    keeper.look(now);
    assert_eq!(names(&keeper), ["new.example", "other.example"]);
    assert!(!Arc::ptr_eq(&before, &current.get()));
    assert_eq!(keeper.shown.loaded.load(Ordering::Relaxed), 1);
}

#[test]
fn a_pair_that_does_not_fit_leaves_the_one_before() {
    let folder = tempfile::tempdir().expect("a folder");
    write_pair(folder.path(), "a", "old.example");
    let now = SystemTime::now();
    let mut keeper = Keeper::load(&options(folder.path(), &["a"]), 1, now).expect("right");
    let chain = folder.path().join("a.chain");
    let key = folder.path().join("a.key");
    let whole = fs::read(&chain).expect("there");
    write_pair(folder.path(), "b", "new.example");
    let mut refused = 0;
    // The other's chain, half a chain, an empty one, none.
    let other = fs::read(folder.path().join("b.chain")).expect("there");
    let faults = [
        Some(&*other),
        Some(&whole[..whole.len() / 2]),
        Some(&[][..]),
        None,
    ];
    for fault in faults {
        match fault {
            Some(octets) => fs::write(&chain, octets).expect("written"),
            None => fs::remove_file(&chain).expect("removed"),
        }
        for _ in 0..3 {
            keeper.look(now);
        }
        refused += 1;
        assert_eq!(
            keeper.shown.refused.load(Ordering::Relaxed),
            refused,
            "told once"
        );
        assert_eq!(names(&keeper), ["old.example"]);
    }
    fs::copy(folder.path().join("b.chain"), &chain).expect("copied");
    fs::copy(folder.path().join("b.key"), &key).expect("copied");
    keeper.look(now);
    keeper.look(now);
    assert_eq!(names(&keeper), ["new.example"]);
}

#[test]
fn a_symbolic_link_that_leads_elsewhere_is_a_renewal() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    for generation in ["1", "2"] {
        fs::create_dir(path.join(generation)).expect("made");
        write_pair(
            &path.join(generation),
            "a",
            &format!("name{generation}.example"),
        );
    }
    std::os::unix::fs::symlink(path.join("1"), path.join("live")).expect("made");
    let now = SystemTime::now();
    let options = options(&path.join("live"), &["a"]);
    let mut keeper = Keeper::load(&options, 1, now).expect("right");
    std::os::unix::fs::symlink(path.join("2"), path.join("next")).expect("made");
    fs::rename(path.join("next"), path.join("live")).expect("renamed");
    keeper.look(now);
    keeper.look(now);
    assert_eq!(names(&keeper), ["name2.example"]);
}

#[test]
fn ticket_keys_change_with_their_lifetime() {
    let folder = tempfile::tempdir().expect("a folder");
    write_pair(folder.path(), "a", "name.example");
    let options = options(folder.path(), &["a"]);
    let now = SystemTime::now();
    let mut keeper = Keeper::load(&options, 1, now).expect("right");
    let current = keeper.current(0);
    let seal = |current: &Current| current.get().ticketer.encrypt(b"session").expect("sealed");
    let ticket = seal(&current);
    keeper.look(now + options.ticket_lifetime);
    assert_ne!(seal(&current)[..16], ticket[..16]);
    assert!(current.get().ticketer.decrypt(&ticket).is_some());
    keeper.look(now + 2 * options.ticket_lifetime);
    assert!(current.get().ticketer.decrypt(&ticket).is_none());
}

#[test]
fn every_fault_is_found_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    write_pair(folder.path(), "a", "name.example");
    write_pair(folder.path(), "b", "name.example");
    let mut options = options(folder.path(), &["a", "b"]);
    let facts = inspect(&options).expect("right");
    assert_eq!(facts.len(), 2);
    assert!(facts[0].days_left(SystemTime::now()) > 300);
    assert_eq!(
        facts[0].days_left(facts[0].expires + Duration::from_secs(1)),
        -1
    );
    fs::copy(folder.path().join("a.key"), folder.path().join("b.key")).expect("copied");
    options.clients = ClientCertificates::Optional(folder.path().join("absent"));
    let faults = inspect(&options).expect_err("faults");
    assert_eq!(faults.len(), 2, "{faults:?}");
}

#[test]
fn it_rests_until_keys_change_or_the_day_does() {
    let folder = tempfile::tempdir().expect("a folder");
    write_pair(folder.path(), "a", "pop.example");
    let rest = |lifetime: u64, now: Duration| {
        let mut options = options(folder.path(), &["a"]);
        options.ticket_lifetime = Duration::from_secs(lifetime);
        let now = SystemTime::UNIX_EPOCH + now;
        let mut keeper = Keeper::load(&options, 1, now).expect("right");
        assert!(!keeper.look(now), "nothing has changed");
        let rest = keeper.rest(now);
        let before = keeper.epoch;
        keeper.look(now + rest.saturating_sub(Duration::from_nanos(1)));
        assert_eq!(keeper.epoch, before);
        rest
    };
    let hours = Duration::from_hours;
    assert_eq!(rest(6 * 3600, hours(24_000)), hours(6));
    assert_eq!(rest(6 * 3600, hours(24_005)), hours(1));
    assert_eq!(rest(48 * 3600, hours(24_001)), hours(23));
    let half = Duration::from_millis(500);
    assert_eq!(rest(2, hours(24_000) + half), Duration::from_millis(1500));
}
