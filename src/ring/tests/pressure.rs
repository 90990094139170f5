//! What is short is waited for, counted, and costs nobody a byte.

use std::os::unix::net::UnixStream;
use std::task::Context;
use std::time::Duration;

use super::*;

/// Too small for what the tests do with it.
fn tiny() -> Sizes {
    Sizes {
        submissions: 4,
        completions: 8,
        buffers: 4,
        buffer_octets: 64,
        completions_a_turn: 8,
    }
}

#[test]
fn more_operations_than_either_queue_holds_all_end() {
    const OPERATIONS: usize = 200;
    on_a_ring_of(tiny(), |ring| async move {
        let zero = handle(std::fs::File::open("/dev/zero").expect("there"));
        let reads: Vec<_> = (1..=OPERATIONS)
            .map(|octets| {
                let buffer = Vec::with_capacity(OPERATIONS);
                ring.read_at(&zero, buffer, 0, octets as u64)
            })
            .collect();
        for (read, octets) in reads.into_iter().zip(1..) {
            let (count, buffer) = read.await;
            assert_eq!((count.expect("read"), buffer.len()), (octets, octets));
        }
        let counters = ring.counters();
        assert!(counters.queue_full() >= (OPERATIONS - 4) as u64);
        assert!(counters.overflows() > 0, "no completion queue overflew");
        assert_eq!(ring.in_flight(), 0);
    });
}

/// A completion queue without room ends a multishot operation with what it just
/// brought.
#[test]
fn an_accept_that_the_kernel_ends_early_goes_on() {
    const CLIENTS: usize = 40;
    let (listener, address) = listener();
    let ended = on_a_ring_of(tiny(), move |ring| async move {
        let mut acceptor = ring.accept(handle(listener));
        // Armed, and then the shard is away while they all connect.
        let mut context = Context::from_waker(Waker::noop());
        assert!(acceptor.poll_next(&mut context).is_pending());
        for _ in 0..10 {
            driver_turn().await;
        }
        let clients: Vec<TcpStream> = (0..CLIENTS)
            .map(|_| TcpStream::connect(address).expect("connect"))
            .collect();
        let mut sockets = Vec::new();
        for _ in &clients {
            sockets.push(acceptor.connection().await.expect("a connection"));
        }
        let mut addresses: Vec<_> = sockets
            .iter()
            .map(|socket| rustix::net::getpeername(socket).expect("connected"))
            .map(|peer| std::net::SocketAddr::try_from(peer.expect("named")).expect("IP"))
            .collect();
        let mut expected: Vec<_> = clients
            .iter()
            .map(|client| client.local_addr().expect("connected"))
            .collect();
        addresses.sort();
        expected.sort();
        assert_eq!(addresses, expected);
        ring.counters().ended_early()
    });
    assert!(ended > 0, "the kernel ended none");
}

#[test]
fn a_receive_without_room_for_buffers_or_completions_goes_on() {
    const PAIRS: usize = 12;
    const OCTETS: u32 = 4000;
    let pairs: Vec<_> = (0..PAIRS)
        .map(|_| UnixStream::pair().expect("a pair"))
        .collect();
    let (mut theirs, ours): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    on_a_ring_of(tiny(), move |ring| async move {
        let mut receivers: Vec<Receiver> = ours
            .into_iter()
            .map(|socket| ring.receive(handle(socket)))
            .collect();
        let mut context = Context::from_waker(Waker::noop());
        for receiver in &mut receivers {
            assert!(receiver.poll_next(&mut context).is_pending());
        }
        for _ in 0..10 {
            driver_turn().await;
        }
        for stream in &mut theirs {
            stream.write_all(&pattern(OCTETS)).expect("written");
        }
        drop(theirs);
        for receiver in &mut receivers {
            let mut got = Vec::new();
            while let Received::Bytes(bytes) = next(receiver).await.expect("no error") {
                got.extend(bytes);
            }
            assert!(got == pattern(OCTETS), "{} octets", got.len());
        }
        let counters = ring.counters();
        assert!(counters.buffers_exhausted() > 0, "the buffers sufficed");
        assert!(counters.ended_early() > 0, "the completion queue sufficed");
    });
}

/// The connection waits in the listen queue meanwhile.
#[test]
fn without_descriptors_an_accept_says_so_and_goes_on_later() {
    on_a_private_table(|| {
        let (listener, address) = listener();
        on_a_ring(move |ring| async move {
            let mut acceptor = ring.accept(handle(listener));
            let client = TcpStream::connect(address).expect("connect");
            acceptor.connection().await.expect("a connection");
            let _late = TcpStream::connect(address).expect("connect");
            let mut taken = Vec::new();
            let full = loop {
                match rustix::io::dup(&client) {
                    Ok(descriptor) => taken.push(descriptor),
                    Err(error) => break error,
                }
            };
            assert_eq!(full, rustix::io::Errno::MFILE);
            let error = acceptor.connection().await.expect_err("no descriptor");
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            taken.clear();
            acceptor.connection().await.expect("the one that waited");
        });
    });
}

/// The system's own limit cannot be reached without harm to others on it: the
/// completion is made here.
#[test]
fn a_system_without_descriptors_ends_an_accept_and_it_goes_on_later() {
    let (listener, address) = listener();
    on_a_ring(move |ring| async move {
        let mut acceptor = ring.accept(handle(listener));
        {
            let mut core = ring.shared.core.borrow_mut();
            let mut after = Aftermath::default();
            let (key, _) = core.slots.iter().next().expect("the acceptor's");
            core.complete(key, -libc::ENFILE, 0, ring.counters(), &mut after);
        }
        let error = acceptor.connection().await.expect_err("told");
        assert_eq!(error.raw_os_error(), Some(libc::ENFILE));
        let client = TcpStream::connect(address).expect("connect");
        acceptor.connection().await.expect("a connection");
        drop(client);
    });
}

/// Tasks of a flood.
const BUSY: usize = 16;

#[test]
fn a_flood_of_completions_starves_no_task_timer_or_other_thread() {
    let sizes = Sizes {
        completions_a_turn: 8,
        ..Sizes::default()
    };
    on_a_ring_of(sizes, |ring| async move {
        let zero = handle(std::fs::File::open("/dev/zero").expect("there"));
        let flood: Vec<_> = (0..16 * BUSY)
            .map(|_| {
                let (ring, zero) = (ring.clone(), zero.clone());
                ring.clone().spawn(async move {
                    let mut buffer = Vec::with_capacity(8);
                    loop {
                        buffer.clear();
                        buffer = ring.read_at(&zero, buffer, 0, 8).await.1;
                    }
                })
            })
            .collect();
        // More are ready than a turn dispatches, and yet no turn of another task
        // is further from the last than one turn of the driver.
        let mut before = ring.counters().completions();
        let mut most = 0;
        for _ in 0..20_000 {
            round().await;
            let now = ring.counters().completions();
            most = most.max(now - before);
            before = now;
        }
        assert_eq!(most, 8, "completions between two turns of a task");
        for _ in 0..3 {
            ring.sleep(Duration::from_millis(1)).await;
            let (send, receive) = futures_channel::oneshot::channel();
            let other = std::thread::spawn(move || send.send(()).expect("awaited"));
            ring.abroad(receive).await.expect("an answer");
            other.join().expect("no panic");
        }
        for task in flood {
            task.cancel().await;
        }
    });
}

#[test]
fn a_flood_of_tasks_does_not_starve_the_ring() {
    on_a_ring(|ring| async move {
        let rounds = Rc::new(Cell::new(0u64));
        let flood: Vec<_> = (0..BUSY)
            .map(|_| {
                let rounds = Rc::clone(&rounds);
                ring.spawn(async move {
                    loop {
                        rounds.set(rounds.get() + 1);
                        round().await;
                    }
                })
            })
            .collect();
        let zero = handle(std::fs::File::open("/dev/zero").expect("there"));
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let socket = handle(ours);
        let mut receiver = ring.receive(socket.clone());
        let mut most = 0;
        for _ in 0..200 {
            let before = rounds.get();
            let (count, _) = ring.read_at(&zero, Vec::with_capacity(8), 0, 8).await;
            assert_eq!(count.expect("read"), 8);
            most = most.max(rounds.get() - before);
            let before = rounds.get();
            theirs.write_all(b"x").expect("written");
            let bytes = next(&mut receiver).await.expect("no error");
            assert_eq!(bytes, Received::Bytes(b"x".to_vec()));
            most = most.max(rounds.get() - before);
        }
        // A turn to submit, one to dispatch, one to be woken, and as many again.
        let bound = 6 * BUSY as u64;
        assert!(most <= bound, "{most} rounds of {BUSY} tasks");
        for task in flood {
            task.cancel().await;
        }
    });
}
