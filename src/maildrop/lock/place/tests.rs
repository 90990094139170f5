use std::collections::HashSet;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// A folder with maildrops of these names.
fn maildrops<const N: usize>(names: [&str; N]) -> (tempfile::TempDir, [PathBuf; N]) {
    let folder = tempfile::tempdir().expect("a folder");
    let top = folder.path().canonicalize().expect("a path");
    let paths = names.map(|name| top.join(name));
    for path in &paths {
        fs::create_dir_all(path).expect("a folder");
    }
    (folder, paths)
}

fn hold(place: &LockPlace, root: &Path) -> Held {
    place.try_lock(root).expect("free").expect("writable")
}

/// Another process, as far as locks go, has a place of its own.
fn is_held(root: &Path) -> bool {
    let places = LockPlaces::default();
    let place = places.find(root).expect("it is there");
    match place.try_lock(root) {
        Ok(held) => {
            assert!(held.is_some(), "writable");
            false
        }
        Err(OpenError::InUse(_)) => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_lock_beside_has_one_holder_and_its_file_stays_empty() {
    let (_folder, [ann]) = maildrops(["ann"]);
    let place = LockPlaces::default().find(&ann).expect("it is there");
    assert!(matches!(place, LockPlace::Beside));
    assert!(matches!(place.try_without_blocking(&ann), Ok(None)));
    let held = hold(&place, &ann);
    assert!(is_held(&ann));
    assert!(place.try_without_blocking(&ann).is_err());
    drop(held);
    assert!(!is_held(&ann));
    let again = place.try_without_blocking(&ann).expect("free");
    assert!(again.is_some() && is_held(&ann));
    let file = fs::metadata(ann.join(BESIDE)).expect("a file");
    assert_eq!(file.len(), 0);
}

#[test]
fn maildrops_below_a_folder_share_its_files_and_no_lock() {
    let (folder, [ann, bob]) = maildrops(["a.example/ann", "b.example/bob"]);
    let places = LockPlaces::default();
    places.share_below(folder.path()).expect("it is made");
    let of_ann = places.find(&ann).expect("it is there");
    let of_bob = places.find(&bob).expect("it is there");
    assert!(matches!(of_ann.try_without_blocking(&ann), Ok(None)));
    let held = hold(&of_ann, &ann);
    assert!(is_held(&ann) && !is_held(&bob));
    // Within the process, too, and however it is asked.
    assert!(of_ann.try_without_blocking(&ann).is_err());
    assert!(of_ann.try_lock(&ann).is_err());
    let other = hold(&of_bob, &bob);
    drop(held);
    assert!(!is_held(&ann) && is_held(&bob));
    let again = of_ann.try_without_blocking(&ann).expect("free");
    assert!(again.is_some() && is_held(&ann));
    drop((again, other));
    assert!(!is_held(&ann) && !is_held(&bob));
    assert!(!ann.join(BESIDE).exists());
}

#[test]
fn every_process_finds_the_nearest_folder_on_the_file_system() {
    let (folder, [ann, bob]) = maildrops(["near/ann", "bob"]);
    for top in [folder.path(), &folder.path().join("near")] {
        fs::create_dir(top.join(FOLDER)).expect("a folder");
    }
    let folder_of = |root: &Path| match LockPlaces::default().find(root) {
        Ok(LockPlace::Above(folder, _)) => folder.path.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(folder_of(&ann), ann.parent().expect("one").join(FOLDER));
    assert_eq!(folder_of(&bob), bob.parent().expect("one").join(FOLDER));
    // A server whose maildrops have one above them makes no other.
    let further = folder.path().join("further");
    fs::create_dir(&further).expect("a folder");
    let places = LockPlaces::default();
    places.share_below(&further).expect("there is one");
    assert!(!further.join(FOLDER).exists());
}

#[test]
fn a_folder_of_another_file_system_is_none() {
    // proc is mounted wherever there is Linux, and is no place for a folder.
    let device = fs::metadata("/proc").expect("it is mounted").dev();
    let (folder, [ann]) = maildrops(["ann"]);
    fs::create_dir(folder.path().join(FOLDER)).expect("a folder");
    assert!(nearest(&ann, device).expect("readable").is_none());
    let here = fs::metadata(&ann).expect("a folder").dev();
    assert!(nearest(&ann, here).expect("readable").is_some());
}

#[test]
fn a_maildrop_is_the_same_by_whatever_path() {
    let (folder, [ann]) = maildrops(["ann"]);
    let places = LockPlaces::default();
    places.share_below(folder.path()).expect("it is made");
    let held = hold(&places.find(&ann).expect("it is there"), &ann);
    // As a node does that mounts the file system elsewhere.
    let moved = folder.path().join("moved");
    fs::rename(&ann, &moved).expect("it is there");
    assert!(is_held(&moved));
    drop(held);
    assert!(!is_held(&moved));
}

#[test]
fn what_is_no_file_is_an_error_and_no_link_is_followed() {
    let (_folder, [ann]) = maildrops(["ann"]);
    let other = ann.join("other");
    symlink(&other, ann.join(BESIDE)).expect("a link");
    let refused = LockPlace::Beside.try_lock(&ann);
    assert!(
        matches!(refused, Err(OpenError::Permanent(_))),
        "{refused:?}"
    );
    assert!(!other.exists());
    fs::remove_file(ann.join(BESIDE)).expect("a link");
    fs::create_dir(ann.join(BESIDE)).expect("a folder");
    assert!(LockPlace::Beside.try_lock(&ann).is_err());
}

#[test]
fn many_threads_that_open_a_file_at_once_do_not_exclude_each_other() {
    const THREADS: usize = 8;
    let names: Vec<String> = (0..THREADS).map(|n| format!("m{n}")).collect();
    let (folder, []) = maildrops([]);
    for round in 0..50 {
        let top = folder.path().join(round.to_string());
        for name in &names {
            fs::create_dir_all(top.join(name)).expect("a folder");
        }
        let places = LockPlaces::default();
        places.share_below(&top).expect("it is made");
        let start = std::sync::Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for root in names.iter().map(|name| top.join(name)) {
                let (places, start) = (&places, &start);
                scope.spawn(move || {
                    let seat = Seat {
                        file: 0,
                        ..Seat::of(fs::metadata(&root).expect("a folder").ino())
                    };
                    let Ok(LockPlace::Above(folder, _)) = places.find(&root) else {
                        panic!("it was made");
                    };
                    start.wait();
                    let held = hold(&LockPlace::Above(folder, seat), &root);
                    start.wait();
                    drop(held);
                });
            }
        });
    }
}

#[test]
fn inodes_have_seats_of_their_own_and_spread() {
    let mut seats = HashSet::new();
    let mut files = [0_u32; limits::LOCK_FILES];
    let inodes = (0..200_000).chain((0..50_000).map(|n| n * 8192));
    let inodes: HashSet<u64> = inodes.collect();
    for inode in &inodes {
        let seat = Seat::of(*inode);
        assert!(seats.insert((seat.file, seat.lane)), "{inode}");
        files[usize::from(seat.file)] += 1;
    }
    let fair = u32::try_from(inodes.len() / limits::LOCK_FILES).expect("small");
    let (least, most) = (files.iter().min(), files.iter().max());
    assert!(
        least > Some(&(fair / 2)) && most < Some(&(fair * 2)),
        "{least:?} {most:?}"
    );
}

/// Does it as somebody who is not root, to whom `folder` belongs; a thread of its own has
/// rights of its own.
fn as_nobody(folder: &Path, work: impl FnOnce() + Send) {
    const NOBODY: u32 = 65_534;
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            if rustix::process::geteuid().is_root() {
                let (user, group) = (NOBODY.into(), NOBODY.into());
                fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("own");
                for part in walk(folder) {
                    nix::unistd::chown(&part, Some(user), Some(group)).expect("root may");
                }
                nix::unistd::setfsuid(user);
            }
            work();
        });
        done.join().expect("no panic");
    });
}

/// A folder and all folders below it.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let below = paths
        .filter(|path| path.is_dir())
        .flat_map(|path| walk(&path));
    std::iter::once(folder.to_owned()).chain(below).collect()
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

#[test]
fn who_may_remove_messages_and_make_no_file_beside_them_excludes_others() {
    for parts in [&["new", "cur"][..], &["new"]] {
        let (folder, [ann]) = maildrops(["ann"]);
        for part in parts {
            fs::create_dir(ann.join(part)).expect("a folder");
        }
        let last = ann.join(parts.last().expect("one")).join(WITHIN);
        as_nobody(folder.path(), || {
            allow(&ann, 0o555);
            let place = LockPlaces::default().find(&ann).expect("it is there");
            let held = hold(&place, &ann);
            assert!(is_held(&ann) && last.exists() && !ann.join(BESIDE).exists());
            drop(held);
            assert!(!is_held(&ann));
            // It is no message, nor is anything left of it but its file.
            assert_eq!(
                crate::maildrop::open(&ann, None).map(|all| all.len()),
                Ok(0)
            );
            allow(&ann, 0o755);
        });
    }
}

#[test]
fn who_may_write_nowhere_has_a_maildrop_within_the_process() {
    let (folder, [ann]) = maildrops(["ann"]);
    let parts = ["new", "cur"].map(|part| ann.join(part));
    for part in &parts {
        fs::create_dir(part).expect("a folder");
    }
    as_nobody(folder.path(), || {
        for path in parts.iter().chain([&ann]) {
            allow(path, 0o555);
        }
        let place = LockPlaces::default().find(&ann).expect("it is there");
        assert!(matches!(place.try_lock(&ann), Ok(None)));
        let maildrops = crate::maildrop::Maildrops::new(1 << 20);
        let at = crate::maildrop::Location::beside(&ann);
        let opened = maildrops.open(&at).expect("it can be read");
        assert!(matches!(maildrops.open(&at), Err(OpenError::InUse(_))));
        assert!(!matches!(maildrops.open_unchanged(&ann), Ok(Some(_))));
        drop(opened);
        drop(maildrops.open(&at).expect("free again"));
        for path in parts.iter().chain([&ann]) {
            allow(path, 0o755);
        }
    });
}

#[test]
fn a_lock_of_somebody_with_more_rights_is_not_passed_by() {
    let (folder, [ann]) = maildrops(["ann"]);
    fs::create_dir(ann.join("cur")).expect("a folder");
    as_nobody(folder.path(), || {
        fs::write(ann.join(BESIDE), "").expect("a file");
        allow(&ann.join(BESIDE), 0o000);
        allow(&ann, 0o555);
        let refused = LockPlace::Beside.try_lock(&ann);
        assert!(
            matches!(refused, Err(OpenError::Permanent(_))),
            "{refused:?}"
        );
        assert!(!ann.join("cur").join(WITHIN).exists());
        allow(&ann, 0o755);
    });
}
