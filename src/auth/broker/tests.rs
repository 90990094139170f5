//! The queue: its bound, withdrawal, wake-ups, stopping; reloads under load.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use std::sync::atomic::AtomicBool;
use std::thread;

use crossbeam::channel::{self, Receiver, Sender};
use tempfile::TempDir;

use super::*;
use crate::auth::directory::{Directory, Profile, Proof, Record, User};
use crate::auth::judge::Source;
use crate::auth::{DirectoryKind, DirectoryOptions, Password, UserName};

const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Knows everybody, by the password `x`; each lookup says that it has begun and
/// waits to be let go.
struct Gate {
    begun: mpsc::SyncSender<()>,
    pass: Receiver<()>,
    lookups: Arc<AtomicUsize>,
}

impl Directory for Gate {
    fn lookup(&self, _: &UserName) -> Result<Option<Record>, DirectoryError> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        let _ = self.begun.send(());
        let _ = self.pass.recv();
        Ok(Some(Record::User(User {
            proof: Proof::Stored(Verifier::parse(b"{PLAIN}x").expect("a scheme")),
            profile: Profile::default(),
            renewal: None,
        })))
    }

    fn decoys(&self) -> usize {
        0
    }

    fn decoy(&self, _: usize) -> Option<Verifier> {
        None
    }

    fn reload(&self) -> Result<LoadReport, DirectoryError> {
        Ok(LoadReport::default())
    }
}

/// A broker whose directory is a gate, and the other side of that gate.
struct Gated {
    broker: Broker,
    begun: mpsc::Receiver<()>,
    /// Dropped, it lets everything pass.
    pass: Sender<()>,
    lookups: Arc<AtomicUsize>,
}

fn gated(threads: usize, bound: usize) -> Gated {
    let (begun_sender, begun) = mpsc::sync_channel(1024);
    let (pass, pass_receiver) = channel::unbounded();
    let lookups = Arc::default();
    let gate = Gate {
        begun: begun_sender,
        pass: pass_receiver,
        lookups: Arc::clone(&lookups),
    };
    let threads = NonZeroUsize::new(threads).expect("some");
    let (away, ()) = Lookups::start(bound, || ()).expect("a thread");
    let broker = Broker::with(
        Judge::new(
            vec![Source::Here(Box::new(gate))],
            Vec::new(),
            MadeUp::new(None),
        ),
        away,
        &[None],
        threads,
        NonZeroUsize::MIN,
        bound,
    );
    Gated {
        broker: broker.expect("threads"),
        begun,
        pass,
        lookups,
    }
}

fn login(broker: &Broker, user: &str, password: &str) -> Result<Pending, QueueFull> {
    let credentials = Credentials::new(
        UserName::new(user.as_bytes()).expect("a name"),
        Password::new(password.as_bytes()).expect("short"),
    );
    broker.authenticate(0, broker.recall(credentials, FROM))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => thread::park(),
        }
    }
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn passwd_file(text: &str) -> (TempDir, Options) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("users");
    fs::write(&path, text).expect("a file");
    let options = Options {
        directories: vec![DirectoryOptions {
            kind: DirectoryKind::PasswdFile { path },
        }],
        masters: Vec::new(),
        scram_secret: None,
        oauth: None,
        desks: vec![None],
        threads: NonZeroUsize::new(2).expect("two"),
    };
    (folder, options)
}

#[test]
fn a_login_is_answered() {
    let (_folder, options) = passwd_file("joe:{PLAIN}secret\n");
    let broker = Broker::start(&options).expect("started");
    let account = block_on(login(&broker, "joe", "secret").expect("room")).expect("right");
    assert_eq!(account.user.as_bytes(), b"joe");
    for (user, password) in [("joe", "wrong"), ("ann", "secret")] {
        let answer = block_on(login(&broker, user, password).expect("room"));
        assert_eq!(answer, Err(Refusal::Rejected));
    }
    // The counter moves before the answer goes out.
    assert_eq!(count(&broker.counters().verified), 1);
    assert_eq!(count(&broker.counters().refused), 2);
    assert_eq!(broker.queue_length(), 0);
}

#[test]
fn a_full_queue_refuses_and_recovers() {
    let Gated {
        broker,
        begun,
        pass,
        ..
    } = gated(1, 3);
    let first = login(&broker, "joe", "x").expect("room");
    begun.recv().expect("begun");
    let queued: Vec<_> = (0..3)
        .map(|_| login(&broker, "joe", "x").expect("room"))
        .collect();
    assert_eq!(broker.queue_length(), 3);
    for refused in 1..=5 {
        assert_eq!(login(&broker, "joe", "x").err(), Some(QueueFull));
        assert_eq!(count(&broker.counters().rejected_full), refused);
    }
    drop(pass);
    assert!(block_on(first).is_ok());
    for pending in queued {
        assert!(block_on(pending).is_ok());
    }
    assert!(block_on(login(&broker, "ann", "x").expect("room")).is_ok());
    assert_eq!(count(&broker.counters().verified), 5);
}

#[test]
fn a_flood_from_one_network_holds_nobody_else_up() {
    let Gated {
        broker,
        begun,
        pass,
        ..
    } = gated(1, 8);
    let from = |user: &str, from: [u8; 4]| {
        let credentials = Credentials::new(
            UserName::new(user.as_bytes()).expect("a name"),
            Password::new(b"x").expect("short"),
        );
        broker.authenticate(0, broker.recall(credentials, IpAddr::from(from)))
    };
    let first = from("first", [192, 0, 2, 1]).expect("room");
    begun.recv().expect("begun");
    let mut flood: Vec<_> = (2..10)
        .map(|host| from("guess", [192, 0, 2, host]).expect("room"))
        .collect();
    assert_eq!(from("guess", [192, 0, 2, 99]).err(), Some(QueueFull));
    // From elsewhere there is room, at the price of the flood's last.
    let ann = from("ann", [198, 51, 100, 1]).expect("room");
    let displaced = flood.pop().expect("eight");
    assert_eq!(block_on(displaced), Err(Refusal::Busy));
    assert_eq!(count(&broker.counters().rejected_full), 2);
    // It is the second whose turn comes, though it was the last to come.
    for _ in 0..3 {
        pass.send(()).expect("a gate");
    }
    assert!(block_on(first).is_ok());
    assert!(block_on(ann).is_ok());
    let waits = broker.queue_length();
    assert!((5..=6).contains(&waits), "{waits}");
    drop(pass);
    assert!(flood.into_iter().map(block_on).all(|answer| answer.is_ok()));
}

#[test]
fn who_logged_in_before_needs_no_thread() {
    let Gated {
        broker,
        begun,
        pass,
        lookups,
    } = gated(1, 1);
    pass.send(()).expect("a gate");
    assert!(block_on(login(&broker, "joe", "x").expect("room")).is_ok());
    begun.recv().expect("begun");
    // The one thread is held, and its queue is full.
    let held = login(&broker, "ann", "x").expect("room");
    begun.recv().expect("begun");
    let queued = login(&broker, "kim", "x").expect("room");
    let known = block_on(login(&broker, "joe", "x").expect("known"));
    assert_eq!(known.expect("right").user.as_bytes(), b"joe");
    assert_eq!(
        (broker.cached().good, lookups.load(Ordering::SeqCst)),
        (1, 2)
    );
    // Another password is another matter, and so is everything after a reload.
    assert_eq!(login(&broker, "joe", "y").err(), Some(QueueFull));
    broker.reload();
    assert_eq!(login(&broker, "joe", "x").err(), Some(QueueFull));
    drop(pass);
    for pending in [held, queued] {
        assert!(block_on(pending).is_ok());
    }
}

/// What was known of a login when it came answers it, whatever the cache knows by then.
#[test]
fn the_cache_is_asked_once_for_a_login() {
    let (_folder, options) = passwd_file("joe:{PLAIN}secret\n");
    let broker = Broker::start(&options).expect("started");
    let candidate = |password: &[u8]| {
        let user = UserName::new(b"joe").expect("a name");
        let password = Password::new(password).expect("short");
        broker.recall(Credentials::new(user, password), FROM)
    };
    let login = |candidate| block_on(broker.authenticate(0, candidate).expect("room"));
    assert!(candidate(b"secret").is_guess() && candidate(b"wrong").is_guess());
    assert!(login(candidate(b"secret")).is_ok());
    assert!(login(candidate(b"wrong")).is_err());
    let (good, bad) = (candidate(b"secret"), candidate(b"wrong"));
    assert!(!good.is_guess() && !bad.is_guess());
    assert_eq!((broker.cached().good, broker.cached().bad), (1, 1));
    broker.reload();
    assert!(login(good).is_ok());
    assert!(login(bad).is_err());
    assert_eq!((broker.cached().good, broker.cached().bad), (1, 1));
    assert_eq!(count(&broker.counters().verified), 1, "no second look-up");
    // What has faded is no guess, and is looked up.
    let faded = candidate(b"secret");
    assert!(!faded.is_guess());
    assert!(login(faded).is_ok());
    assert_eq!(count(&broker.counters().verified), 2);
}

#[test]
fn a_withdrawn_request_costs_no_lookup() {
    let Gated {
        broker,
        begun,
        pass,
        lookups,
    } = gated(1, 8);
    let first = login(&broker, "joe", "x").expect("room");
    begun.recv().expect("begun");
    for _ in 0..5 {
        drop(login(&broker, "joe", "x").expect("room"));
    }
    let last = login(&broker, "joe", "x").expect("room");
    drop(pass);
    assert!(block_on(first).is_ok());
    assert!(block_on(last).is_ok());
    assert_eq!(count(&broker.counters().skipped), 5);
    assert_eq!(lookups.load(Ordering::SeqCst), 2);
}

#[test]
fn a_client_that_leaves_during_its_verification_hurts_nobody() {
    let Gated {
        broker,
        begun,
        pass,
        ..
    } = gated(1, 8);
    let first = login(&broker, "joe", "x").expect("room");
    begun.recv().expect("begun");
    drop(first);
    drop(pass);
    assert!(block_on(login(&broker, "joe", "x").expect("room")).is_ok());
    // The first is verified all the same, and the second may find it remembered.
    let verified = count(&broker.counters().verified);
    assert_eq!(verified + broker.cached().good, 2);
    assert!(verified >= 1);
}

#[test]
fn requests_run_on_all_threads_at_once() {
    let Gated {
        broker,
        begun,
        pass,
        ..
    } = gated(4, 8);
    let pending: Vec<_> = (0..4)
        .map(|_| login(&broker, "joe", "x").expect("room"))
        .collect();
    // No lookup passes before all four have begun.
    for _ in 0..4 {
        begun.recv().expect("begun");
    }
    drop(pass);
    for pending in pending {
        assert!(block_on(pending).is_ok());
    }
}

#[test]
fn stopping_answers_what_is_queued_and_no_more() {
    let Gated {
        broker,
        begun,
        pass,
        ..
    } = gated(2, 16);
    let queued: Vec<_> = (0..16)
        .map(|_| login(&broker, "joe", "x").expect("room"))
        .collect();
    begun.recv().expect("begun");
    thread::scope(|scope| {
        let stop = scope.spawn(|| broker.stop());
        drop(pass);
        stop.join().expect("stopped");
    });
    for pending in queued {
        assert!(block_on(pending).is_ok());
    }
    let late = login(&broker, "ann", "x").expect("not full");
    assert_eq!(block_on(late), Err(Refusal::Unavailable));
    broker.stop();
    assert_eq!(count(&broker.counters().verified), 16);
}

#[test]
fn stopping_while_logins_arrive_leaves_none_unanswered() {
    for _ in 0..50 {
        let Gated { broker, pass, .. } = gated(2, 1024);
        drop(pass);
        thread::scope(|scope| {
            let logins = scope.spawn(|| {
                let users = (0..200).map(|number| format!("joe{number}"));
                let pending: Vec<_> = users.flat_map(|user| login(&broker, &user, "x")).collect();
                assert_eq!(pending.len(), 200);
                let answered = pending.into_iter().flat_map(block_on);
                answered.count() as u64
            });
            broker.stop();
            let answered = logins.join().expect("all answered");
            assert_eq!(count(&broker.counters().verified), answered);
        });
    }
}

#[test]
fn no_wake_up_is_lost() {
    let name = |client: u32, round: u32| format!("joe{client}.{round}");
    let users = (0..3).flat_map(|client| (0..2000).map(move |round| name(client, round)));
    let lines: Vec<_> = users.map(|user| user + ":{PLAIN}secret\n").collect();
    let (_folder, options) = passwd_file(&lines.concat());
    let broker = Broker::start(&options).expect("started");
    thread::scope(|scope| {
        for client in 0..3 {
            let broker = &broker;
            scope.spawn(move || {
                // One at a time, and each user once, so that the threads sleep and wake at each.
                for round in 0..2000 {
                    let pending = login(broker, &name(client, round), "secret").expect("room");
                    assert!(block_on(pending).is_ok());
                }
            });
        }
    });
    assert_eq!(count(&broker.counters().verified), 6000);
}

#[test]
fn reloads_under_load_refuse_nobody() {
    let users = |extra: &str| format!("joe:{{PLAIN}}secret\n{extra}:{{PLAIN}}x\n");
    let (folder, options) = passwd_file(&users("ann"));
    let broker = Broker::start(&options).expect("started");
    let path = folder.path().join("users");
    let running = AtomicBool::new(true);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while running.load(Ordering::Relaxed) {
                    let pending = login(&broker, "joe", "secret").expect("room");
                    assert!(block_on(pending).is_ok());
                }
            });
        }
        for round in 0..50 {
            let new = path.with_extension("new");
            fs::write(&new, users(if round % 2 == 0 { "kim" } else { "ann" })).expect("a file");
            fs::rename(&new, &path).expect("a rename");
            assert!(broker.reload().iter().all(Result::is_ok));
        }
        fs::remove_file(&path).expect("removed");
        assert!(broker.reload().iter().all(Result::is_err));
        running.store(false, Ordering::Relaxed);
    });
    assert!(block_on(login(&broker, "joe", "secret").expect("room")).is_ok());
    assert_eq!(count(&broker.counters().refused), 0);
}

#[test]
fn a_hash_is_computed_once_for_as_long_as_the_stored_password_is_the_same() {
    let line = |stored: &str| format!("joe:{stored}\n");
    // The password `right` and `other`, 2^4 rounds of bcrypt.
    let [right, other] = ["right", "other"].map(|password| {
        let hash = bcrypt::hash(password, 4).expect("a cost");
        line(&hash)
    });
    let (folder, options) = passwd_file(&right);
    let broker = Broker::start(&options).expect("started");
    let hashed = |broker: &Broker| broker.cached().hashes;
    let joe = |password| block_on(login(&broker, "joe", password).expect("room"));
    assert!(joe("right").is_ok());
    assert_eq!(joe("other"), Err(Refusal::Rejected));
    assert_eq!(hashed(&broker), 0);
    // Both are looked up again after a reload, and neither takes a hash.
    broker.reload();
    assert!(joe("right").is_ok());
    assert_eq!(joe("other"), Err(Refusal::Rejected));
    assert_eq!(hashed(&broker), 2);
    // Bad logins are not looked up again at once, good ones neither.
    assert_eq!(joe("other"), Err(Refusal::Rejected));
    assert!(joe("right").is_ok());
    let cached = broker.cached();
    assert_eq!((cached.good, cached.bad, cached.hashes), (1, 1, 2));
    // A changed password works at once, and the old one does not.
    fs::write(folder.path().join("users"), other).expect("a file");
    broker.reload();
    assert_eq!(joe("right"), Err(Refusal::Rejected));
    assert!(joe("other").is_ok());
    assert_eq!(hashed(&broker), 2);
}

#[test]
fn a_start_that_fails_says_why() {
    let (folder, mut options) = passwd_file("");
    drop(folder);
    let error = Broker::start(&options).expect_err("no file").to_string();
    assert!(
        error.contains("users: ") && error.contains("may read"),
        "{error}"
    );
    options.directories.clear();
    let error = Broker::start(&options)
        .expect_err("no directory")
        .to_string();
    assert!(error.contains("[[auth.directory]]"), "{error}");
}

#[test]
fn debug_prints_no_secret() {
    let credentials = Credentials::new(
        UserName::new(b"joe").expect("a name"),
        Password::new(b"hunter2").expect("short"),
    );
    assert!(!format!("{credentials:?}").contains("hunter2"));
}

#[test]
fn a_slow_hash_holds_nobody_up_at_its_desk() {
    // 2^12 rounds of bcrypt: some 200 ms where a plain password takes one
    // millionth of it.
    let slow = "$2b$12$abcdefghijklmnopqrstuuZu9Ci/3WGoeKPEsQqtnBGnbYOpXmVcW";
    let (_folder, options) = passwd_file(&format!("slow:{slow}\njoe:{{PLAIN}}secret\n"));
    let broker = Broker::start(&options).expect("started");
    let mut hashed = std::pin::pin!(login(&broker, "slow", "guess").expect("room"));
    assert!(block_on(login(&broker, "joe", "secret").expect("room")).is_ok());
    let mut context = Context::from_waker(Waker::noop());
    assert!(
        hashed.as_mut().poll(&mut context).is_pending(),
        "joe waited"
    );
    assert_eq!(block_on(hashed), Err(Refusal::Rejected));
}

/// The right password tells nobody anything where it may not be used: not by the answer,
/// nor by what is known the next time, nor by a hash that is not computed.
#[test]
fn a_right_password_from_a_forbidden_network_is_as_wrong_as_any() {
    let stored = bcrypt::hash("right", 4).expect("a cost");
    let line = format!("joe:{stored}::::::allow_nets=192.0.2.0/24\n");
    let (_folder, options) = passwd_file(&line);
    let broker = Broker::start(&options).expect("started");
    let [home, away]: [IpAddr; 2] = ["192.0.2.1", "198.51.100.1"].map(|ip| ip.parse().expect("ip"));
    // Whether it was a guess, what was said, and how often a hash was known.
    let joe = |password: &str, from| {
        let credentials = Credentials::new(
            UserName::new(b"joe").expect("a name"),
            Password::new(password.as_bytes()).expect("short"),
        );
        let before = broker.cached().hashes;
        let candidate = broker.recall(credentials, from);
        let is_guess = candidate.is_guess();
        let said = block_on(broker.authenticate(0, candidate).expect("room"));
        (is_guess, said.is_ok(), broker.cached().hashes - before)
    };
    assert_eq!(joe("right", home), (true, true, 0));
    for attempt in 0..3 {
        let [right, wrong] = ["right", "wrong"].map(|password| joe(password, away));
        assert_eq!(right, wrong, "attempt {attempt}");
        assert!(!right.1);
    }
    // Nothing of it is known of the address that may.
    assert_eq!(joe("right", home), (false, true, 0));
    assert_eq!(broker.cached().good, 1);
    let terms = Terms {
        bad: std::time::Duration::ZERO,
        ..Terms::default()
    };
    broker.set_terms(terms);
    let [right, wrong] = ["right", "wrong"].map(|password| joe(password, away));
    assert_eq!(right, wrong, "looked up again");
}

/// Keys for SCRAM that have to be derived are so once for a network from which they were
/// proved: whoever names a user elsewhere sees no difference to a name that nobody has.
#[test]
fn keys_are_derived_once_for_a_network_and_a_stored_password() {
    let (folder, options) = passwd_file("joe:{PLAIN}secret\n");
    let broker = Broker::start(&options).expect("started");
    let known = |from: &str, proves: bool| {
        let question = ScramQuestion {
            identity: crate::auth::Identity::own(UserName::new(b"joe").expect("a name")),
            hash: crate::auth::ScramHash::Sha256,
        };
        let from = from.parse().expect("an address");
        let before = broker.cached().hashes;
        let found = block_on(broker.find_keys(0, question, from).expect("room"));
        let answer = found.expect("answered");
        if proves {
            broker.remember(answer.verdict.expect("may log in"));
        }
        broker.cached().hashes - before
    };
    // Nothing is proved by asking.
    assert_eq!(known("192.0.2.1", false), 0);
    assert_eq!(known("192.0.2.1", true), 0);
    assert_eq!(known("192.0.2.9", true), 1);
    assert_eq!(known("198.51.100.1", false), 0);
    assert_eq!(known("192.0.2.1", false), 1);
    fs::write(folder.path().join("users"), "joe:{PLAIN}other\n").expect("a file");
    broker.reload();
    assert_eq!(known("192.0.2.1", true), 0);
    assert_eq!(known("192.0.2.1", true), 1);
}
