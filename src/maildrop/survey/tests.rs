//! Surveys on a kernel whose clock ticks, simulated over real directories: a stamp is the
//! tick of the last change, time passes from call to call and while it is waited, and
//! another program renames messages between any two calls.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// What is about to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Call {
    Stamps,
    Open,
    List(Folder),
}

/// The clock and the stamps.
pub(in super::super) struct Kernel {
    path: PathBuf,
    /// Since some moment long ago.
    now: Duration,
    new: Time,
    cur: Time,
    waited: Duration,
    /// When a directory was first listed.
    listed: Option<Duration>,
}

impl Kernel {
    pub(in super::super) fn new(path: &Path) -> Self {
        let now = Duration::from_secs(1_000);
        Self {
            path: path.to_owned(),
            now,
            new: tick(now),
            cur: tick(now),
            waited: Duration::ZERO,
            listed: None,
        }
    }

    pub(in super::super) fn rename(&mut self, from: &str, to: &str) {
        fs::rename(self.path.join(from), self.path.join(to)).expect("nobody else moves it");
        for name in [from, to] {
            if name.starts_with("new/") {
                self.new = tick(self.now);
            } else {
                self.cur = tick(self.now);
            }
        }
    }

    /// Renames it if it is there.
    pub(in super::super) fn rename_if_there(&mut self, from: &str, to: &str) {
        if self.path.join(from).exists() {
            self.rename(from, to);
        }
    }
}

/// The time that a change then is stamped with.
fn tick(now: Duration) -> Time {
    let ticks = now.as_nanos() / TICK.as_nanos();
    let whole = TICK * u32::try_from(ticks).expect("a short test");
    // Off the second, whose ticks would look as if there were no others.
    Time(
        i64::try_from(whole.as_secs()).expect("small"),
        whole.subsec_nanos() + 1,
    )
}

/// A maildrop below that kernel.
pub(in super::super) struct Ticking<'a, M> {
    disk: Disk<'a>,
    pub(in super::super) kernel: Kernel,
    /// What the other program does before a call.
    meddle: M,
}

impl<'a, M: FnMut(&mut Kernel, Call)> Ticking<'a, M> {
    pub(in super::super) fn new(root: &'a Root, meddle: M) -> Self {
        Self {
            disk: Disk::new(root, Buffers::new()),
            kernel: Kernel::new(root.path()),
            meddle,
        }
    }

    fn before(&mut self, call: Call) {
        self.kernel.now += Duration::from_micros(50);
        (self.meddle)(&mut self.kernel, call);
    }
}

impl<M: FnMut(&mut Kernel, Call)> Ground for Ticking<'_, M> {
    fn reading(&self) -> Reading {
        Reading::Own(tick(self.kernel.now))
    }

    fn wait(&mut self, time: Duration) {
        self.kernel.now += time;
        self.kernel.waited += time;
    }

    fn stamps(&mut self) -> Result<Stamps, OpenError> {
        self.before(Call::Stamps);
        Ok(Stamps::at(self.kernel.new, self.kernel.cur))
    }

    fn open(&mut self) -> Result<(), OpenError> {
        self.before(Call::Open);
        self.disk.open()
    }

    fn list(&mut self, folder: Folder, listed: &mut Entries) -> Result<(), OpenError> {
        self.kernel.listed.get_or_insert(self.kernel.now);
        self.before(Call::List(folder));
        self.disk.list(folder, listed)
    }

    fn measure(&mut self, folder: Folder, name: &[u8]) -> Result<Measured, OpenError> {
        self.disk.measure(folder, name)
    }

    fn folders(&self) -> &Folders {
        self.disk.folders()
    }
}

/// A maildrop of these files.
pub(in super::super) fn maildrop(names: &[String]) -> (TempDir, Root) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().canonicalize().expect("a path");
    for part in ["new", "cur"] {
        fs::create_dir(path.join(part)).expect("a folder");
    }
    for name in names {
        fs::write(path.join(name), "x\n").expect("a message");
    }
    let root = Root::open(&path).expect("no error").expect("there");
    (folder, root)
}

/// Moves a message so that it is always where nobody looks, in the tick of the first
/// listing.
pub(in super::super) fn hide(kernel: &mut Kernel, call: Call) {
    if kernel
        .listed
        .is_none_or(|listed| tick(listed) != tick(kernel.now))
    {
        return;
    }
    match call {
        Call::List(Folder::New) => kernel.rename_if_there("new/1.x", "cur/1.x:2,S"),
        Call::List(Folder::Cur) => kernel.rename_if_there("cur/1.x:2,S", "new/1.x"),
        Call::Stamps | Call::Open => {}
    }
}

#[test]
fn a_message_moved_to_and_fro_within_one_tick_is_not_missed() {
    let (_folder, root) = maildrop(&["cur/1.x:2,S".to_owned(), "cur/2.y:2,".to_owned()]);
    let surveyed = Survey::new(&root, Ticking::new(&root, hide), None).run();
    let surveyed = surveyed.expect("it is surveyed");
    let names: Vec<&[u8]> = surveyed.roll.members().map(|member| member.name).collect();
    assert_eq!(names, [b"1.x".as_slice(), b"2.y:2,"]);
    assert!(matches!(surveyed.standing, Standing::Settled { .. }));
}

#[test]
fn a_stamp_is_waited_for_no_longer_than_its_tick() {
    let (_folder, root) = maildrop(&["cur/1.x:2,S".to_owned()]);
    let mut ground = Ticking::new(&root, |_: &mut Kernel, _| {});
    let look = Patience::new().look(&mut ground).expect("stamps");
    assert!(look.holds(&mut ground).expect("stamps"));
    assert!((STEP..=TICK).contains(&ground.kernel.waited));
    // It is old by now.
    ground.kernel.waited = Duration::ZERO;
    let look = Patience::new().look(&mut ground).expect("stamps");
    assert!(look.holds(&mut ground).expect("stamps"));
    assert_eq!(ground.kernel.waited, Duration::ZERO);
}

#[test]
fn a_maildrop_that_changes_in_every_tick_is_not_waited_for_for_ever() {
    let (_folder, root) = maildrop(&["cur/1.x:2,S".to_owned()]);
    let mut flags = ["cur/1.x:2,S", "cur/1.x:2,"].into_iter().cycle();
    let mut at = flags.next().expect("a cycle");
    let meddle = |kernel: &mut Kernel, call| {
        if call == Call::Stamps {
            let to = flags.next().expect("a cycle");
            kernel.rename(at, to);
            at = to;
        }
    };
    let mut ground = Ticking::new(&root, meddle);
    let mut patience = Patience::new();
    for _ in 0..20 {
        let look = patience.look(&mut ground).expect("stamps");
        assert!(!look.holds(&mut ground).expect("stamps"));
    }
    assert!(
        ground.kernel.waited <= TICK * WAITS,
        "{:?}",
        ground.kernel.waited
    );
}

#[test]
fn a_stamp_of_a_clock_that_is_ahead_is_believed_after_a_tick() {
    let (_folder, root) = maildrop(&["cur/1.x:2,S".to_owned()]);
    let mut ground = Ticking::new(&root, |_: &mut Kernel, _| {});
    ground.kernel.cur = tick(ground.kernel.now + Duration::from_mins(1));
    let look = Patience::new().look(&mut ground).expect("stamps");
    assert!(look.holds(&mut ground).expect("stamps"));
    assert_eq!(ground.kernel.waited, TICK);
    assert!(matches!(
        look.standing(),
        Standing::Partly {
            folder: Folder::New,
            ..
        }
    ));
    // Whole seconds are not worth it.
    ground.kernel.cur = Time(ground.kernel.cur.0, 0);
    let look = Patience::new().look(&mut ground).expect("stamps");
    assert!(!look.holds(&mut ground).expect("stamps"));
    assert_eq!(ground.kernel.waited, TICK);
}

/// What another program does before a call, and how long it took until then.
#[derive(Clone, Debug)]
struct Deed {
    micros: u64,
    /// Which message, and where to, if anything.
    rename: Option<(usize, usize)>,
}

const MESSAGES: usize = 4;
const PLACES: [(&str, &str); 4] = [
    ("new", ""),
    ("cur", ":2,"),
    ("cur", ":2,S"),
    ("new", ":2,S"),
];

fn place(message: usize, place: usize) -> String {
    let (folder, flags) = PLACES[place];
    format!("{folder}/{message}.x{flags}")
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let rename = proptest::option::weighted(0.6, (0..MESSAGES, 0..PLACES.len()));
    let deed = (0_u64..4_000, rename).prop_map(|(micros, rename)| Deed { micros, rename });
    proptest::collection::vec(deed, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Also where a part of what was listed before is still believed.
    #[test]
    fn whatever_is_renamed_when_nobody_is_missed(first in deeds(), later in deeds()) {
        let names: Vec<String> = (0..MESSAGES).map(|message| place(message, 0)).collect();
        let (_folder, root) = maildrop(&names);
        let mut at = [0; MESSAGES];
        let mut kernel = Kernel::new(root.path());
        let mut previous: Option<Snapshot> = None;
        for deeds in [first, later] {
            let mut deeds = deeds.into_iter();
            let mut ground = Ticking::new(&root, |kernel: &mut Kernel, _| {
                let Some(deed) = deeds.next() else { return };
                kernel.now += Duration::from_micros(deed.micros);
                if let Some((message, to)) = deed.rename {
                    kernel.rename(&place(message, at[message]), &place(message, to));
                    at[message] = to;
                }
            });
            std::mem::swap(&mut ground.kernel, &mut kernel);
            let mut survey = Survey::new(&root, ground, previous.as_ref());
            let (beside, standing) = loop {
                match survey.pass().expect("no fault") {
                    Verdict::Beside(known, standing) => break (Some(known), standing),
                    Verdict::Whole(standing) => {
                        survey.roll.keep_seen_since(survey.listings);
                        if survey.roll.unmeasured_since(0) == 0 {
                            break (None, standing);
                        }
                    }
                    Verdict::Torn => {}
                }
                prop_assert!(survey.listings < limits::LISTINGS);
            };
            std::mem::swap(&mut survey.ground.kernel, &mut kernel);
            let surveyed = Surveyed { beside, ..survey.end(standing) };
            let knowledge = Knowledge {
                standing,
                ..Knowledge::none()
            };
            let snapshot = surveyed.snapshot(root.path(), root.path(), knowledge);
            let found: BTreeSet<String> = snapshot.messages().map(|message| {
                format!("{}/{}", message.folder.name(), String::from_utf8_lossy(message.name))
            }).collect();
            let there: BTreeSet<String> = (0..MESSAGES).map(|m| place(m, at[m])).collect();
            prop_assert_eq!(found, there);
            previous = Some(snapshot);
        }
    }
}
