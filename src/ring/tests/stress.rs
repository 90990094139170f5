//! Futures of every kind of operation dropped at random points, under load, on a
//! ring too small for it.
//!
//! What the kernel may still touch is looked for in two ways. Octets that come out
//! of a socket, a file or a read are those of one pattern and nothing else, so a
//! buffer that was filled for something else before the kernel had read it shows.
//! And whenever a future has been dropped, blocks of the sizes it may have owned
//! are taken from the allocator, which gives out first what was freed last, filled
//! with poison, kept for a while and looked at again: what the kernel wrote to
//! freed memory shows in them. Provided buffers are poisoned when they go back.
//!
//! In the end nothing may be left: no slot, no provided buffer, no descriptor, and
//! no name or octet in the folder that was not meant.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::task::Context;
use std::time::{Duration, Instant};

use rustix::fs::StatxFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::*;

/// What freed memory is filled with, and what no pattern here has.
const POISON: u8 = 0xee;
/// Octets of a message between two tasks; a provided buffer takes one.
const MESSAGE: usize = 256;
const BUFFERS: u16 = 8;
/// Sets of tasks.
const SETS: usize = 6;
/// Octets of the file that is read and written.
const FILE: usize = 64 * 1024;

/// The generator of a linear congruence: a seed gives a run again.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }
}

/// The octet at a place of the pattern; none is poison, and none is zero.
fn octet(place: usize) -> u8 {
    u8::try_from(place % 199 + 1).expect("at most 199")
}

fn octets(place: usize, count: usize) -> Vec<u8> {
    (place..place + count).map(octet).collect()
}

/// A message: where in the pattern it begins, and the pattern from there.
fn message(place: usize) -> Vec<u8> {
    let mut message = octets(place, MESSAGE);
    message[..2].copy_from_slice(&u16::try_from(place).expect("small").to_le_bytes());
    message
}

/// Asserts that these are whole messages, one behind the other.
fn check_messages(received: &[u8]) {
    assert_eq!(received.len() % MESSAGE, 0, "a piece of a message");
    for got in received.chunks(MESSAGE) {
        let place = u16::from_le_bytes([got[0], got[1]]);
        assert!(got == message(place.into()), "a message changed: {got:?}");
    }
}

/// Blocks that were free a moment ago.
#[derive(Default)]
struct Quarantine(VecDeque<Vec<u8>>);

impl Quarantine {
    /// Takes what the allocator has just been given back.
    fn take(&mut self) {
        // What buffers, status and headers are taken from.
        for octets in [
            MESSAGE,
            size_of::<rustix::fs::Statx>(),
            size_of::<libc::msghdr>(),
        ] {
            self.0.push_back(vec![POISON; octets]);
        }
        while self.0.len() > 64 {
            let oldest = self.0.pop_front().expect("not empty");
            assert!(
                oldest.iter().all(|&octet| octet == POISON),
                "the kernel wrote to memory that was free: {oldest:?}"
            );
        }
    }
}

/// What the tasks of a run share.
#[derive(Clone)]
struct Stress {
    ring: Ring,
    random: Rc<RefCell<Random>>,
    quarantine: Rc<RefCell<Quarantine>>,
    folder: Handle,
    file: Handle,
    until: Instant,
    finished: Rc<Cell<u64>>,
    dropped: Rc<Cell<u64>>,
}

impl Stress {
    fn below(&self, bound: usize) -> usize {
        self.random.borrow_mut().below(bound)
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Runs an operation to its end, or drops it after some turns.
    async fn some_of<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = Box::pin(future);
        let mut patience = match self.below(3) {
            0 => usize::MAX,
            _ => self.below(6),
        };
        loop {
            // Polled with the task's waker, so that it is woken by the completion.
            let polled = std::future::poll_fn(|context| {
                std::task::Poll::Ready(future.as_mut().poll(context))
            });
            if let std::task::Poll::Ready(output) = polled.await {
                self.finished.set(self.finished.get() + 1);
                return Some(output);
            }
            if patience == 0 || self.is_over() {
                drop(future);
                self.quarantine.borrow_mut().take();
                self.dropped.set(self.dropped.get() + 1);
                return None;
            }
            patience -= 1;
            driver_turn().await;
        }
    }

    fn at(&self, name: &str) -> At {
        At::inside(&self.folder, CString::new(name).expect("no NUL"))
    }

    /// Sends messages, by either way of sending.
    async fn send(self, socket: Handle) {
        while !self.is_over() {
            let place = self.below(60_000);
            let whole = message(place);
            if self.below(2) == 0 {
                if let Some((Ok(sent), _)) = self.some_of(self.ring.send(&socket, whole)).await {
                    assert_eq!(sent, MESSAGE);
                }
                continue;
            }
            let cut = self.below(MESSAGE);
            let parts = vec![
                Part::Owned(whole[..cut].to_vec()),
                Part::Shared(whole.into(), cut..MESSAGE),
            ];
            let sending = self.ring.send_parts(&socket, parts);
            if let Some((Ok(sent), _)) = self.some_of(sending).await {
                assert_eq!(sent, MESSAGE);
            }
        }
    }

    /// Receives what is sent, by one receiver after the other.
    async fn receive(self, socket: Handle) {
        while !self.is_over() {
            let mut receiver = self.ring.receive(socket.clone());
            for _ in 0..self.below(20) {
                let arrival = self.some_of(next(&mut receiver)).await;
                if let Some(Ok(Received::Bytes(bytes))) = arrival {
                    check_messages(&bytes);
                }
            }
        }
    }

    /// Reads and writes a file whose contents are the pattern, and nothing else.
    async fn read_and_write(self) {
        while !self.is_over() {
            let place = self.below(FILE - MESSAGE);
            if self.below(2) == 0 {
                let buffer = octets(place, MESSAGE);
                let writing = self.ring.write_at(&self.file, buffer, place as u64);
                if let Some((written, _)) = self.some_of(writing).await {
                    assert_eq!(written.expect("written"), MESSAGE);
                }
                continue;
            }
            let buffer = Vec::with_capacity(MESSAGE);
            let most = MESSAGE as u64;
            let reading = self.ring.read_at(&self.file, buffer, place as u64, most);
            if let Some((count, buffer)) = self.some_of(reading).await {
                assert_eq!(count.expect("read"), MESSAGE);
                assert!(buffer == octets(place, MESSAGE), "{place}: {buffer:?}");
            }
        }
    }

    /// Reads from a pipe that is written to when the read has often been dropped.
    async fn wait_for_a_pipe(self) {
        let pipe = Pipe::new().expect("a pipe");
        while !self.is_over() {
            let buffer = Vec::with_capacity(MESSAGE);
            let reading = self.ring.read_at(&pipe.read, buffer, 0, MESSAGE as u64);
            let writing = self.ring.write_at(&pipe.write, vec![7; MESSAGE], 0);
            let both = async {
                let read = self.some_of(reading).await;
                (read, self.some_of(writing).await)
            };
            let (read, _) = both.await;
            if let Some((Ok(_), buffer)) = read {
                assert!(buffer.iter().all(|&octet| octet == 7), "{buffer:?}");
            }
            // So that the next read waits, whatever was written late.
            let mut rest = [0; 16 * MESSAGE];
            rustix::io::ioctl_fionbio(&pipe.read, true).expect("set");
            while rustix::io::read(&pipe.read, &mut rest).is_ok() {}
            rustix::io::ioctl_fionbio(&pipe.read, false).expect("set");
        }
    }

    /// Moves one file between two names, and asks for it by both.
    async fn rename_and_stat(self, number: usize) {
        let names = [format!("a-{number}"), format!("b-{number}")];
        let wanted = StatxFlags::SIZE;
        while !self.is_over() {
            let from = self.below(2);
            let renaming = self
                .ring
                .rename(self.at(&names[from]), self.at(&names[1 - from]));
            if let Some(Err(error)) = self.some_of(renaming).await {
                assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
            }
            let asking = self.ring.stat(self.at(&names[from]), wanted);
            match self.some_of(asking).await {
                Some(Ok(status)) => assert_eq!(status.stx_size, number as u64),
                Some(Err(error)) => assert_eq!(error.raw_os_error(), Some(libc::ENOENT)),
                None => {}
            }
            let asking = self.ring.stat_open(&self.file, wanted);
            if let Some(status) = self.some_of(asking).await {
                assert_eq!(status.expect("open").stx_size, FILE as u64);
            }
        }
    }

    /// Makes, opens, syncs and removes a file.
    async fn make_and_remove(self, number: usize) {
        let name = format!("new-{number}");
        while !self.is_over() {
            if let Some(Ok(file)) = self.some_of(self.ring.create(self.at(&name))).await {
                if self.below(2) == 0 {
                    self.some_of(self.ring.sync_data(&file)).await;
                } else {
                    self.some_of(self.ring.sync(&file)).await;
                }
                self.ring.close(file);
            }
            if let Some(Ok(folder)) = self.some_of(self.ring.open_folder(self.at("."))).await {
                self.ring.close(folder);
            }
            self.some_of(self.ring.unlink(self.at(&name))).await;
        }
    }

    /// Asks for memory that is there, and ends streams that nobody uses.
    async fn advise_and_shut_down(self) {
        let pages = Rc::new(octets(0, FILE));
        while !self.is_over() {
            let from = self.below(FILE);
            let advice = [Advice::WillNeed, Advice::Populate][self.below(2)];
            let advising = self.ring.advise(Rc::clone(&pages), from..FILE, advice);
            self.some_of(advising).await;
            let (ours, mut theirs) = UnixStream::pair().expect("sockets");
            let ours = handle(ours);
            let ending = self.ring.shut_down(&ours, std::net::Shutdown::Write);
            if let Some(ended) = self.some_of(ending).await {
                ended.expect("open");
                assert_eq!(theirs.read(&mut [0]).expect("an end"), 0);
            }
            self.ring.close(ours);
        }
        assert!(*pages == *octets(0, FILE));
    }

    /// Accepts connections, by one acceptor after the other.
    async fn accept(self, listener: Handle, address: std::net::SocketAddr) {
        while !self.is_over() {
            let mut acceptor = self.ring.accept(listener.clone());
            for _ in 0..self.below(4) {
                // Not waited for: acceptors that go at once leave the queue full.
                let kind = SocketType::STREAM;
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let client = rustix::net::socket_with(AddressFamily::INET, kind, flags, None);
                let client = client.expect("a socket");
                // A reset leaves no port behind that waits for late segments.
                rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO))
                    .expect("set");
                let connected = rustix::net::connect(&client, &address);
                assert_eq!(connected, Err(rustix::io::Errno::INPROGRESS));
                if let Some(Ok(socket)) = self.some_of(acceptor.connection()).await {
                    self.ring.close(socket);
                }
            }
        }
    }

    /// Moves a file's octets into a pipe and on, and gives up the splices.
    async fn splice(self) {
        while !self.is_over() {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let (ours, theirs) = (handle(ours), handle(theirs));
            // Until one is given up: what the pipe holds then is not known.
            let pipe = Pipe::new().expect("a pipe");
            loop {
                let place = self.below(FILE - MESSAGE);
                let filling = self.ring.splice_from(&self.file, place as u64, &pipe, 64);
                let Some(filled) = self.some_of(filling).await else {
                    break;
                };
                assert_eq!(filled.expect("filled"), 64);
                let moving = self.ring.splice_to(&pipe, &ours, 64);
                let Some(moved) = self.some_of(moving).await else {
                    break;
                };
                assert_eq!(moved.expect("moved"), 64);
                if self.below(4) == 0 {
                    continue;
                }
                let reading = self.ring.read_at(&theirs, Vec::with_capacity(64), 0, 64);
                let (count, _) = reading.await;
                assert_eq!(count.expect("read"), 64);
            }
        }
    }

    /// All tasks of one set.
    fn start(&self, number: usize) -> Vec<Task<()>> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("a pair");
        let (listener, address) = listener();
        vec![
            self.ring.spawn(self.clone().send(handle(ours))),
            self.ring.spawn(self.clone().receive(handle(theirs))),
            self.ring.spawn(self.clone().read_and_write()),
            self.ring.spawn(self.clone().wait_for_a_pipe()),
            self.ring.spawn(self.clone().rename_and_stat(number)),
            self.ring.spawn(self.clone().make_and_remove(number)),
            self.ring.spawn(self.clone().advise_and_shut_down()),
            self.ring
                .spawn(self.clone().accept(handle(listener), address)),
            self.ring.spawn(self.clone().splice()),
        ]
    }
}

/// As many messages as there are provided buffers arrive by one arming, which ends
/// when there is no buffer left: none has been lost.
async fn check_provided(ring: &Ring) {
    let kind = SocketType::SEQPACKET;
    let pair = rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.expect("a pair");
    let mut receiver = ring.receive(handle(theirs));
    let mut context = Context::from_waker(Waker::noop());
    for place in 0..10 {
        for number in 0..usize::from(BUFFERS) {
            let sent = rustix::io::write(&ours, &message(place + number));
            assert_eq!(sent.expect("sent"), MESSAGE);
        }
        assert!(receiver.poll_next(&mut context).is_pending());
        // Looked at only then: a look would arm it again.
        for _ in 0..50 {
            driver_turn().await;
        }
        match receiver.poll_next(&mut context) {
            std::task::Poll::Ready(Ok(Received::Bytes(bytes))) => {
                check_messages(&bytes);
                let buffers = bytes.len() / MESSAGE;
                assert_eq!(
                    buffers,
                    usize::from(BUFFERS),
                    "provided buffers are missing"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn run(ring: Ring, root: std::path::PathBuf, seed: u64, length: Duration) -> (u64, u64) {
    let path = |name: &str| CString::new(root.join(name).to_str().expect("UTF-8")).expect("no NUL");
    fs::write(root.join("file"), octets(0, FILE)).expect("written");
    for number in 0..SETS {
        fs::write(root.join(format!("a-{number}")), vec![0; number]).expect("written");
    }
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(root.join("file"));
    let stress = Stress {
        folder: ring.open_folder(At::path(path(""))).await.expect("opened"),
        file: handle(file.expect("opened")),
        ring: ring.clone(),
        random: Rc::new(RefCell::new(Random(seed))),
        quarantine: Rc::default(),
        until: Instant::now() + length,
        finished: Rc::default(),
        dropped: Rc::default(),
    };
    let tasks: Vec<_> = (0..SETS).flat_map(|number| stress.start(number)).collect();
    for task in tasks {
        task.await;
    }
    while ring.in_flight() > 0 {
        driver_turn().await;
    }
    for _ in 0..64 {
        stress.quarantine.borrow_mut().take();
    }
    check_provided(&ring).await;
    (stress.finished.get(), stress.dropped.get())
}

/// What the folder holds in the end: each file under one of its names, and the
/// pattern.
fn check_folder(root: &Path) {
    assert!(fs::read(root.join("file")).expect("there") == octets(0, FILE));
    let mut left: Vec<String> = fs::read_dir(root)
        .expect("a folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .filter(|name| name != "file" && !name.starts_with("new-"))
        .map(|name| name.trim_start_matches(['a', 'b', '-']).to_owned())
        .collect();
    left.sort();
    let expected: Vec<String> = (0..SETS).map(|number| number.to_string()).collect();
    assert_eq!(left, expected);
}

fn stress(seed: u64, length: Duration) {
    let kept = tempfile::tempdir().expect("a folder");
    let root = kept.path().canonicalize().expect("canonical");
    let folder = root.clone();
    on_a_private_table(move || {
        let before = ownership::descriptors_with_an_executor_gone();
        let sizes = Sizes {
            submissions: 16,
            completions: 32,
            buffers: BUFFERS,
            buffer_octets: u32::try_from(MESSAGE).expect("small"),
            completions_a_turn: 8,
        };
        let (finished, dropped, counted) = on_a_ring_of(sizes, move |ring| async move {
            let (finished, dropped) = run(ring.clone(), folder, seed, length).await;
            let counters = ring.counters();
            let counted = [
                counters.cancelled(),
                counters.queue_full(),
                counters.overflows(),
                counters.buffers_exhausted(),
            ];
            (finished, dropped, counted)
        });
        println!("seed {seed}: {finished} ended, {dropped} dropped, {counted:?}");
        assert!(finished > 1000 && dropped > 1000, "{finished}, {dropped}");
        assert!(counted.iter().all(|&count| count > 0), "{counted:?}");
        assert_eq!(descriptors(), before);
    });
    check_folder(&root);
}

#[test]
fn futures_dropped_at_random_leave_and_touch_nothing() {
    stress(1, Duration::from_secs(3));
}

/// The same for a minute: `cargo test --lib ring::tests::stress -- --ignored`.
#[test]
#[ignore = "takes a minute; .ci/run has a step for it"]
fn futures_dropped_at_random_for_a_minute() {
    let seed = std::process::id();
    stress(seed.into(), Duration::from_mins(1));
}
