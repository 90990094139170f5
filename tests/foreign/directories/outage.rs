//! A directory that goes away in the midst of a load: its processes end or stand still, or
//! its connections go silent.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::served::{Client, Served};
use super::{PASSWORD, until};

/// Logins at a time of users who are not remembered.
const ASKING: usize = 4;

/// How long a login may take: the directories' time-out of two seconds, as long again for a
/// place among those who ask, and what a busy machine adds.
const LONGEST: Duration = Duration::from_secs(4 + 6);

/// The directory goes away in the midst of a load and comes back: who is remembered never
/// sees it, others are told to come back, and after its return all is as before, without
/// a restart.
pub(super) fn an_outage_is_survived(
    served: &Served,
    mut stop: impl FnMut(),
    mut start: impl FnMut(),
) {
    let suspended = served.log().matches("left in peace").count();
    let resumed = served.log().matches("answers again").count();
    beside_a_load(served, |load| {
        stop();
        let refused = load.refused.load(Ordering::Relaxed);
        let stranger = served.stranger();
        for _ in 0..8 {
            let reply = served.reply(&stranger, PASSWORD);
            assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{reply}");
        }
        until("it to be left in peace", || {
            let reply = served.reply(&stranger, PASSWORD);
            assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{reply}");
            let told = served.log().matches("left in peace").count();
            (told > suspended).then_some(())
        });
        until("others to be told so", || {
            (load.refused.load(Ordering::Relaxed) > refused).then_some(())
        });
        until_more("polls meanwhile", &load.polls);
        start();
        until("them to log in again", || {
            let reply = served.reply(&stranger, PASSWORD);
            let temporary = reply.starts_with("-ERR [SYS/TEMP] ");
            assert!(temporary || reply.starts_with("+OK"), "{reply}");
            (!temporary).then_some(())
        });
        until_more("others to log in", &load.let_in);
    });
    until("the log to say so", || {
        let told = served.log().matches("answers again").count();
        (told > resumed).then_some(())
    });
    served.log_in("cat", PASSWORD);
}

/// Connections to a directory go silent, as those do whose other end has lost its power or
/// whose state a firewall has forgotten: new ones take their place, without a restart.
pub(super) fn hung_connections_are_given_up(served: &Served, silence: impl FnOnce()) {
    beside_a_load(served, |load| {
        let refused = load.refused.load(Ordering::Relaxed);
        silence();
        until("somebody to have waited in vain", || {
            (load.refused.load(Ordering::Relaxed) > refused).then_some(())
        });
        until_more("others to log in", &load.let_in);
    });
}

/// Logins that go on.
#[derive(Default)]
struct Load {
    over: AtomicBool,
    /// Logins of who is remembered.
    polls: AtomicU32,
    /// Logins of who is not, by their answer.
    let_in: AtomicU32,
    refused: AtomicU32,
}

/// Waits for so many more that none of them was on its way.
fn until_more(what: &str, counter: &AtomicU32) {
    let before = counter.load(Ordering::Relaxed);
    until(what, || {
        (counter.load(Ordering::Relaxed) > before + 50).then_some(())
    });
}

/// Runs something while users who are remembered poll and others, who are not, log in.
fn beside_a_load(served: &Served, during: impl FnOnce(&Load)) {
    let load = Load::default();
    for user in ["ann@example.net", "bob"] {
        served.log_in(user, PASSWORD);
    }
    thread::scope(|scope| {
        for user in ["ann@example.net", "bob"] {
            scope.spawn(|| load.poll(served, user));
        }
        for _ in 0..ASKING {
            scope.spawn(|| load.ask(served));
        }
        // Whatever fails here, the load ends.
        let done = catch_unwind(AssertUnwindSafe(|| {
            until_more("a load", &load.let_in);
            during(&load);
        }));
        load.over.store(true, Ordering::Relaxed);
        if let Err(panic) = done {
            resume_unwind(panic);
        }
    });
}

impl Load {
    fn poll(&self, served: &Served, user: &str) {
        while !self.over.load(Ordering::Relaxed) {
            let reply = served.reply(user, PASSWORD);
            // A session before this one may be on its way out.
            let passed = reply.starts_with("+OK") || reply.starts_with("-ERR [IN-USE]");
            assert!(passed, "{user}: {reply}");
            self.polls.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn ask(&self, served: &Served) {
        let mut user = served.stranger();
        while !self.over.load(Ordering::Relaxed) {
            let mut client = Client::connect(served.pop3());
            let begun = Instant::now();
            let reply = client.log_in(&user, PASSWORD);
            let took = begun.elapsed();
            client.quit();
            assert!(took < LONGEST, "{user} waited for {took:?}: {reply}");
            if reply.starts_with("+OK") {
                self.let_in.fetch_add(1, Ordering::Relaxed);
                user = served.stranger();
            } else {
                assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{user}: {reply}");
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            // There are so many of them, and no more.
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Processes that stand still until this is dropped.
pub(super) struct Halted(Vec<Pid>);

impl Halted {
    /// A process and all that it has started.
    pub(super) fn tree(child: &Child) -> Self {
        let mut halted = Self(Vec::new());
        // One that stands still starts no others.
        halted.halt(Pid::from_child(child));
        let mut at = 0;
        while let Some(parent) = halted.0.get(at).copied() {
            for child in children(parent) {
                halted.halt(child);
            }
            at += 1;
        }
        halted
    }

    /// What a process has started and whose command line says this.
    pub(super) fn children(child: &Child, says: &str) -> Self {
        let mut halted = Self(Vec::new());
        for pid in children(Pid::from_child(child)) {
            let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid()));
            let line = line.unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(says) {
                halted.halt(pid);
            }
        }
        assert!(!halted.0.is_empty(), "no process says {says}");
        halted
    }

    fn halt(&mut self, pid: Pid) {
        kill_process(pid, Signal::STOP).expect("own process");
        self.0.push(pid);
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        for pid in &self.0 {
            // It may have ended.
            let _ = kill_process(*pid, Signal::CONT);
        }
    }
}

fn children(of: Pid) -> Vec<Pid> {
    let line = format!("\nPPid:\t{}\n", of.as_raw_pid());
    let all = fs::read_dir("/proc").expect("processes");
    let pids = all.filter_map(|entry| {
        let name = entry.expect("an entry").file_name();
        Pid::from_raw(name.to_str()?.parse().ok()?)
    });
    pids.filter(|pid| {
        // It may have ended.
        let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid()));
        status.is_ok_and(|status| status.contains(&line))
    })
    .collect()
}

/// What stands between popcore and a directory, and passes on what they say.
pub(super) struct Relay {
    pub(super) port: u16,
    /// Connections of an age before this one are silent.
    age: Arc<AtomicUsize>,
}

impl Relay {
    /// Before the directory at this port.
    pub(super) fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let relay = Self {
            port: listener.local_addr().expect("an address").port(),
            age: Arc::default(),
        };
        let age = Arc::clone(&relay.age);
        thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.expect("a connection");
                let far = TcpStream::connect(("127.0.0.1", port)).expect("a directory");
                let other_way = [&far, &near].map(|end| end.try_clone().expect("a socket"));
                for [from, to] in [[near, far], other_way] {
                    let age = Arc::clone(&age);
                    // Either side may leave at any time.
                    thread::spawn(move || pass_on(from, to, &age).unwrap_or_default());
                }
            }
        });
        relay
    }

    /// From now on nothing passes by the connections that there are.
    pub(super) fn silence(&self) {
        self.age.fetch_add(1, Ordering::SeqCst);
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, age: &AtomicUsize) -> std::io::Result<()> {
    let own = age.load(Ordering::SeqCst);
    let mut octets = [0; 4096];
    loop {
        let count = from.read(&mut octets)?;
        if count == 0 {
            return to.shutdown(Shutdown::Both);
        }
        if age.load(Ordering::SeqCst) == own {
            to.write_all(&octets[..count])?;
        }
    }
}
