//! Listings and openings while another program renames messages.

use super::*;

/// Ends what another thread does until told, also where an assertion fails first:
/// a scope waits for its threads.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Renames all messages back and forth, between folders and flags, until told.
fn move_about(path: &Path, messages: usize, stop: &AtomicBool) {
    let places = ["new/", "cur/", "cur/", "cur/"];
    let flags = ["", ":2,", ":2,S", ":2,FS"];
    let name = |at: usize, place: usize| {
        path.join(format!("{}{at}.x{}", places[place % 4], flags[place % 4]))
    };
    let mut place = 0;
    while !stop.load(Ordering::Relaxed) {
        for at in 0..messages {
            fs::rename(name(at, place), name(at, place + 1)).expect("nobody else moves it");
        }
        place += 1;
    }
}

/// A kernel that was told to stay beneath new/ reports a message that goes to cur/
/// in that very moment as an escape from it (`EXDEV`).
#[test]
fn a_message_moved_while_it_is_opened_is_no_fault() {
    const OPENS: usize = 20_000;
    let maildrop = Maildrop::new();
    maildrop.write("new/1.x", "x\n");
    let root = Root::open(&maildrop.path).expect("no error");
    let folders = root.expect("there").folders().expect("they open");
    let new = folders.fd(Folder::New).expect("there");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                maildrop.rename("new/1.x", "cur/1.x");
                maildrop.rename("cur/1.x", "new/1.x");
            }
        });
        let _until_the_end = Stop(&stop);
        let mut buffers = Buffers::new();
        for _ in 0..OPENS {
            match listing::measure(new, b"1.x", &mut buffers) {
                Ok(Measured::Facts(facts)) => assert_eq!(facts.octets, 3),
                Ok(Measured::Vanished) => {}
                Ok(Measured::Foreign) => panic!("it is a file"),
                Err((_, errno)) => panic!("{errno}"),
            }
        }
    });
}

/// So few messages that each has another name within microseconds.
#[test]
fn a_message_that_is_renamed_at_full_speed_is_located() {
    const MESSAGES: usize = 3;
    const SEARCHES: usize = 3_000;
    let maildrop = Maildrop::new();
    for at in 0..MESSAGES {
        maildrop.write(format!("new/{at}.x"), "x\n");
    }
    let snapshot = maildrop.open();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let mover = scope.spawn(|| move_about(&maildrop.path, MESSAGES, &stop));
        let until_the_end = Stop(&stop);
        for search in 0..SEARCHES {
            let wanted = number(search % 3 + 1);
            let file = locate(&snapshot, wanted).expect("it can be listed");
            let file = fs::File::from(file.expect("it is there"));
            let inode = file.metadata().expect("its status").ino();
            assert_eq!(Some(inode), snapshot.inode(wanted), "search {search}");
        }
        drop(until_the_end);
        mover.join().expect("it ran");
    });
}

#[test]
fn no_message_is_missed_while_all_are_renamed_at_full_speed() {
    const MESSAGES: usize = 150;
    const OPENS: usize = 300;
    /// Some ten names, so that a listing takes many reads.
    const DIRECTORY_BUFFER: usize = 512;
    let maildrop = Maildrop::new();
    for at in 0..MESSAGES {
        maildrop.write(format!("new/{at}.x"), "x\n");
    }
    let stop = AtomicBool::new(false);
    let (mut short, mut missing, mut restless) = (0, 0, 0);
    thread::scope(|scope| {
        let mover = scope.spawn(|| move_about(&maildrop.path, MESSAGES, &stop));
        let until_the_end = Stop(&stop);
        let root = Root::open(&maildrop.path)
            .expect("no error")
            .expect("there");
        let buffers = || Buffers::with_directory(DIRECTORY_BUFFER);
        let mut previous: Option<Snapshot> = None;
        for round in 0..OPENS {
            let folders = root.folders().expect("they open");
            let mut single = Entries::default();
            for folder in [Folder::New, Folder::Cur] {
                let listed = folders.list(folder, &maildrop.path, &mut buffers(), &mut single);
                listed.expect("a listing");
            }
            let mut single = Roll::of(&single);
            single.sort();
            short += usize::from(single.len() < MESSAGES);
            missing += MESSAGES - single.len();
            let disk = Disk::new(&root, buffers());
            match Survey::new(&root, disk, previous.as_ref()).run() {
                Ok(surveyed) => {
                    let path = &maildrop.path;
                    let none = Knowledge::none();
                    let snapshot = surveyed.snapshot(path, path, none);
                    assert_eq!(snapshot.len(), MESSAGES, "round {round}");
                    assert!(octets(&snapshot).iter().all(|octets| *octets == 3));
                    // Every other round begins without a snapshot to lean on.
                    previous = (round % 2 == 0).then_some(snapshot);
                }
                Err(error) => {
                    restless += 1;
                    assert!(matches!(error, OpenError::Temporary(_)), "{error}");
                }
            }
        }
        drop(until_the_end);
        mover.join().expect("it ran");
    });
    println!("{OPENS} opens: {short} single listings short by {missing}, {restless} gave up");
    assert!(restless <= OPENS / 10, "{restless} of {OPENS} gave up");
    assert_eq!(maildrop.open().len(), MESSAGES);
}
