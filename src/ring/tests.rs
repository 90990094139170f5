//! The ring against real sockets and files, on a glommio executor.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::task::Context;

use glommio::{LocalExecutorBuilder, Placement};

use super::core::Aftermath;
use super::driver::round;
use super::task::run_with;
use super::*;

mod operations;
mod ownership;
mod pressure;
mod stress;
mod waiting;

/// Runs `body` on an executor whose ring is driven, and tears both down.
fn on_a_ring<T: Send + 'static, F: Future<Output = T> + 'static>(
    body: impl FnOnce(Ring) -> F + Send + 'static,
) -> T {
    on_a_ring_of(Sizes::default(), body)
}

fn on_a_ring_of<T: Send + 'static, F: Future<Output = T> + 'static>(
    sizes: Sizes,
    body: impl FnOnce(Ring) -> F + Send + 'static,
) -> T {
    let pool = Pool::start("pool", limits::POOL_THREADS).expect("threads");
    let running = LocalExecutorBuilder::new(Placement::Unbound)
        .preempt_timer(limits::PREEMPTION)
        .spawn(move || async move { run_with(Arc::default(), pool, &sizes, body).await });
    let result = running.expect("an executor").join().expect("no panic");
    result.expect("a kernel with io_uring")
}

/// Runs `body` on a thread whose table of descriptors is its own and that of the
/// threads it starts, so that other tests neither count nor run out.
pub(crate) fn on_a_private_table<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let files = rustix::thread::UnshareFlags::FILES;
            // SAFETY: the thread was just made, has no descriptor of its own, and
            // hands those that it will have to its own threads alone.
            unsafe { rustix::thread::unshare_unsafe(files) }.expect("a table of its own");
            // SAFETY: the numbers copied into this table are owned by nobody in it.
            let closed = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
            assert_eq!(closed, 0, "{}", io::Error::last_os_error());
            body()
        });
        running.join().expect("no panic")
    })
}

/// What this thread's table has open, but for the table's own listing.
pub(crate) fn descriptors() -> Vec<String> {
    let open = std::fs::read_dir("/proc/thread-self/fd").expect("/proc");
    let links = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let mut links: Vec<String> = links
        .map(|link| link.display().to_string())
        .filter(|link| !link.starts_with("/proc/"))
        .collect();
    links.sort();
    links
}

fn listener() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

fn handle(owned: impl Into<OwnedFd>) -> Handle {
    Handle::new(owned.into())
}

/// Octets in which a lost, doubled or moved one shows.
fn pattern(octets: u32) -> Vec<u8> {
    (0..octets)
        .flat_map(u32::to_le_bytes)
        .take(octets as usize)
        .collect()
}

async fn next(receiver: &mut Receiver) -> io::Result<Received> {
    std::future::poll_fn(|context| receiver.poll_next(context)).await
}

#[test]
fn this_machine_passes_the_probe() {
    probe().expect("the tests need a ring");
}

#[test]
fn bytes_go_round_through_accept_receive_and_send() {
    let (listener, address) = listener();
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).expect("connect");
        let sent = pattern(100_000);
        stream.write_all(&sent).expect("write");
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("shutdown");
        let mut back = Vec::new();
        stream.read_to_end(&mut back).expect("read");
        (sent, back)
    });
    on_a_ring(move |ring| async move {
        let mut acceptor = ring.accept(handle(listener));
        let socket = acceptor.connection().await.expect("a connection");
        let mut receiver = ring.receive(socket.clone());
        while let Received::Bytes(bytes) = next(&mut receiver).await.expect("no reset") {
            let length = bytes.len();
            let (sent, _) = ring.send(&socket, bytes).await;
            assert_eq!(sent.expect("sent"), length);
        }
        assert_eq!(next(&mut receiver).await.expect("still"), Received::End);
        drop(receiver);
        ring.close(socket);
        drop(acceptor);
        while ring.in_flight() > 0 {
            driver_turn().await;
        }
    });
    let (sent, back) = client.join().expect("client");
    assert!(sent == back, "{} octets came back changed", back.len());
}

/// Lets the driver take a turn.
async fn driver_turn() {
    for _ in 0..=limits::ROUNDS_A_TURN {
        round().await;
    }
}

#[test]
fn a_client_that_sends_too_far_ahead_is_held_back_and_loses_nothing() {
    const OCTETS: u32 = 1 << 20;
    let (listener, address) = listener();
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).expect("connect");
        let sent = pattern(OCTETS);
        stream.write_all(&sent).expect("write");
        sent
    });
    let (got, throttled, most) = on_a_ring(move |ring| async move {
        let mut acceptor = ring.accept(handle(listener));
        let socket = acceptor.connection().await.expect("a connection");
        let mut receiver = ring.receive(socket.clone());
        let mut got = Vec::new();
        let mut most = 0;
        // One look arms the receive; then the client runs ahead until the ring
        // stops listening to it.
        let first = next(&mut receiver).await.expect("bytes");
        let Received::Bytes(bytes) = first else {
            panic!("ended at once");
        };
        got.extend_from_slice(&bytes);
        while ring.counters().throttled() == 0 {
            driver_turn().await;
        }
        while let Received::Bytes(bytes) = next(&mut receiver).await.expect("bytes") {
            most = most.max(bytes.len());
            got.extend_from_slice(&bytes);
        }
        (got, ring.counters().throttled(), most)
    });
    let sent = client.join().expect("client");
    assert!(sent == got, "{} of {} octets", got.len(), sent.len());
    assert!(throttled > 0);
    // What one turn may add on top of the bound: every provided buffer.
    let slack = usize::from(limits::PROVIDED_BUFFERS) * limits::PROVIDED_BUFFER;
    assert!(most <= limits::PIPELINED + slack, "{most}");
}

#[test]
fn more_bytes_than_provided_buffers_lose_nothing() {
    const CLIENTS: usize = 32;
    const OCTETS: usize = 100 * 1024;
    let (listener, address) = listener();
    let (written, all_written) = std::sync::mpsc::channel::<()>();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let writers = std::thread::spawn(move || {
        let mut streams: Vec<TcpStream> = (0..CLIENTS)
            .map(|_| TcpStream::connect(address).expect("connect"))
            .collect();
        wait.recv().expect("the server is ready");
        for stream in &mut streams {
            stream.write_all(&vec![b'x'; OCTETS]).expect("write");
        }
        written.send(()).expect("the server waits");
        for stream in &mut streams {
            stream.read_exact(&mut [0u8]).expect("an answer");
        }
    });
    let exhausted = on_a_ring(move |ring| async move {
        let mut acceptor = ring.accept(handle(listener));
        let mut connections = Vec::new();
        for _ in 0..CLIENTS {
            let socket = acceptor.connection().await.expect("a connection");
            let mut receiver = ring.receive(socket.clone());
            // Arms the receive without waiting for it.
            let mut context = Context::from_waker(Waker::noop());
            assert!(receiver.poll_next(&mut context).is_pending());
            connections.push((socket, receiver));
        }
        for _ in 0..10 {
            driver_turn().await;
        }
        go.send(()).expect("the clients wait");
        // The shard is away while all of them write, so that one turn finds
        // more to receive than it has provided buffers.
        all_written.recv().expect("written");
        for (socket, receiver) in &mut connections {
            let mut got = 0;
            while got < OCTETS {
                match next(receiver).await.expect("bytes") {
                    Received::Bytes(bytes) => {
                        assert!(bytes.iter().all(|&byte| byte == b'x'));
                        got += bytes.len();
                    }
                    Received::End => panic!("ended early"),
                }
            }
            assert_eq!(got, OCTETS);
            ring.send(socket, b"!".to_vec()).await.0.expect("sent");
        }
        ring.counters().buffers_exhausted()
    });
    writers.join().expect("clients");
    assert!(exhausted > 0, "the test did not exhaust the buffers");
}

#[test]
fn files_are_opened_and_read_and_links_are_not_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().canonicalize().expect("canonical");
    let path = root.join("message");
    std::fs::write(&path, b"Subject: x\n\nbody\n").expect("written");
    std::os::unix::fs::symlink(&path, root.join("link")).expect("linked");
    let name = |name: &str| {
        std::ffi::CString::new(root.join(name).to_str().expect("UTF-8")).expect("no NUL")
    };
    let (message, link) = (name("message"), name("link"));
    on_a_ring(move |ring| async move {
        let refused = ring
            .open_message(link, Place::Local)
            .await
            .expect_err("a link");
        assert_eq!(refused.raw_os_error(), Some(libc::ELOOP));
        let file = ring
            .open_message(message.clone(), Place::Local)
            .await
            .expect("opened");
        let (count, buffer) = ring.read_at(&file, Vec::with_capacity(64), 9, 4).await;
        assert_eq!(count.expect("read"), 4);
        assert_eq!(buffer, b"x\n\nb");
        let (count, buffer) = ring
            .read_at(&file, Vec::with_capacity(64), 12, u64::MAX)
            .await;
        assert_eq!(
            (count.expect("read"), buffer.as_slice()),
            (5, &b"body\n"[..])
        );
        let (count, _) = ring.read_at(&file, Vec::with_capacity(64), 17, 1).await;
        assert_eq!(count.expect("the end"), 0);
        ring.close(file);
        std::fs::remove_file(&path).expect("removed");
        let gone = ring
            .open_message(message, Place::Local)
            .await
            .expect_err("gone");
        assert_eq!(gone.raw_os_error(), Some(libc::ENOENT));
    });
}

#[test]
fn dropped_futures_leave_nothing_behind() {
    let (listener, address) = listener();
    let client = TcpStream::connect(address).expect("connect");
    on_a_ring(move |ring| async move {
        let mut acceptor = ring.accept(handle(listener));
        let socket = acceptor.connection().await.expect("a connection");
        // The client reads nothing: the send cannot finish.
        let stuck = ring.send(&socket, vec![b'x'; 64 << 20]);
        let mut stuck = Box::pin(stuck);
        for _ in 0..10 {
            let mut context = Context::from_waker(Waker::noop());
            assert!(stuck.as_mut().poll(&mut context).is_pending());
            driver_turn().await;
        }
        drop(stuck);
        let mut receiver = ring.receive(socket.clone());
        let mut context = Context::from_waker(Waker::noop());
        assert!(receiver.poll_next(&mut context).is_pending());
        driver_turn().await;
        drop((receiver, acceptor));
        assert!(ring.counters().cancelled() > 0);
        while ring.in_flight() > 0 {
            driver_turn().await;
        }
        ring.close(socket);
    });
    drop(client);
}

#[test]
fn a_ring_dropped_with_operations_in_flight_reaps_them() {
    let (listener, address) = listener();
    let mut client = TcpStream::connect(address).expect("connect");
    on_a_ring(move |ring| async move {
        let mut acceptor = ring.accept(handle(listener));
        let socket = acceptor.connection().await.expect("a connection");
        let mut receiver = ring.receive(socket.clone());
        let mut context = Context::from_waker(Waker::noop());
        assert!(receiver.poll_next(&mut context).is_pending());
        let stuck = ring.send(&socket, vec![b'x'; 64 << 20]);
        drop(stuck);
        // Everything goes at once, with the driver not having run since.
    });
    let mut octets = Vec::new();
    // The socket is closed: an end or a reset, not a wait for more.
    let patience = Some(std::time::Duration::from_secs(30));
    client.set_read_timeout(patience).expect("a timeout");
    if let Err(error) = client.read_to_end(&mut octets) {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

/// The driver must neither sleep over work nor go round over nothing, whatever
/// the order in which the network and other threads have something for the shard:
/// each task here waits for bytes, then for another thread, in turn.
#[test]
fn answers_of_other_threads_come_through_whatever_the_ring_does() {
    const TASKS: usize = 32;
    const ROUNDS: usize = 600;
    let (listener, address) = listener();
    let clients = std::thread::spawn(move || {
        let mut streams: Vec<TcpStream> = (0..TASKS)
            .map(|_| TcpStream::connect(address).expect("connect"))
            .collect();
        for stream in &streams {
            let patience = Some(std::time::Duration::from_secs(30));
            stream.set_read_timeout(patience).expect("a timeout");
        }
        for round in 0..ROUNDS {
            for stream in &mut streams {
                stream.write_all(b"?").expect("write");
            }
            for stream in &mut streams {
                let mut answer = [0u8];
                let read = stream.read_exact(&mut answer);
                read.unwrap_or_else(|error| panic!("round {round}: {error}"));
            }
        }
    });
    let (questions, asked) = std::sync::mpsc::channel::<futures_channel::oneshot::Sender<()>>();
    let answering = std::thread::spawn(move || {
        for question in asked {
            let _ = question.send(());
        }
    });
    on_a_ring(move |ring| async move {
        let mut acceptor = ring.accept(handle(listener));
        let mut tasks = Vec::new();
        for _ in 0..TASKS {
            let socket = acceptor.connection().await.expect("a connection");
            let (ring, own, questions) = (ring.clone(), ring.clone(), questions.clone());
            tasks.push(own.spawn(async move {
                let mut receiver = ring.receive(socket.clone());
                while let Ok(Received::Bytes(_)) = next(&mut receiver).await {
                    let (question, answer) = futures_channel::oneshot::channel();
                    questions.send(question).expect("somebody listens");
                    ring.abroad(answer).await.expect("an answer");
                    ring.send(&socket, b"!".to_vec()).await.0.expect("sent");
                }
            }));
        }
        drop(questions);
        for task in tasks {
            task.await;
        }
    });
    clients.join().expect("every answer came");
    answering.join().expect("no panic");
}
