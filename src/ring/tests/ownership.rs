//! Who owns what when futures, wakers and rings come to their ends.

use std::cell::RefCell;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::{Context, Wake};

use super::super::core::Aftermath;
use super::super::slot::Slot;
use super::*;

thread_local! {
    static RING: RefCell<Option<Ring>> = const { RefCell::new(None) };
}

/// A waker at whose end the ring is used, as the end of a task that holds
/// operations does.
struct Last;

impl Wake for Last {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Last {
    fn drop(&mut self) {
        RING.with_borrow(|ring| {
            let ring = ring.as_ref().expect("a test is under way");
            let null = std::fs::File::open("/dev/null").expect("there");
            drop(ring.sync(&handle(null)));
        });
    }
}

#[test]
fn a_waker_may_use_the_ring_when_it_ends() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    on_a_ring(move |ring| async move {
        RING.set(Some(ring.clone()));
        let socket = handle(ours);
        let poll = |receiver: &mut Receiver| {
            let waker = Waker::from(Arc::new(Last));
            let mut context = Context::from_waker(&waker);
            assert!(receiver.poll_next(&mut context).is_pending());
        };
        let mut receiver = ring.receive(socket.clone());
        // The second takes the first one's place, the drop ends the second.
        poll(&mut receiver);
        poll(&mut receiver);
        drop(receiver);
        let stuck = vec![b'x'; 16 << 20];
        let mut sending = Box::pin(ring.send(&socket, stuck));
        for _ in 0..2 {
            let waker = Waker::from(Arc::new(Last));
            let mut context = Context::from_waker(&waker);
            assert!(sending.as_mut().poll(&mut context).is_pending());
        }
        drop(sending);
        let (listener, _) = listener();
        let mut acceptor = ring.accept(handle(listener));
        for _ in 0..2 {
            let waker = Waker::from(Arc::new(Last));
            let mut context = Context::from_waker(&waker);
            let mut connection = Box::pin(acceptor.connection());
            assert!(connection.as_mut().poll(&mut context).is_pending());
        }
        drop(acceptor);
        while ring.in_flight() > 0 {
            driver_turn().await;
        }
        RING.take();
    });
    drop(theirs);
}

#[test]
#[should_panic(expected = "no panic")]
fn a_future_polled_after_its_end_takes_nobodys_result() {
    on_a_ring(|ring| async move {
        let null = handle(std::fs::File::open("/dev/zero").expect("there"));
        let mut read = Box::pin(ring.read_at(&null, Vec::with_capacity(8), 0, 8));
        read.as_mut().await.0.expect("read");
        let other = ring.read_at(&null, Vec::with_capacity(8), 0, 8);
        let mut context = Context::from_waker(Waker::noop());
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = read.as_mut().poll(&mut context);
        }));
        let (count, octets) = other.await;
        assert_eq!((count.expect("read"), octets.len()), (8, 8));
        if let Err(panic) = polled {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The kernel looks a descriptor up when it takes the entry. Closed before that,
/// its number is the next file's, whose octets the receive would swallow.
#[test]
fn a_receive_given_up_before_its_turn_never_reads_from_a_stranger() {
    on_a_private_table(|| {
        on_a_ring(|ring| async move {
            for _ in 0..100 {
                let (ours, theirs) = UnixStream::pair().expect("a pair");
                let number = ours.as_raw_fd();
                let socket = handle(ours);
                let mut receiver = ring.receive(socket.clone());
                let mut context = Context::from_waker(Waker::noop());
                assert!(receiver.poll_next(&mut context).is_pending());
                // Both go before the driver's turn, and nobody has the ring close.
                drop((receiver, socket));
                let (mut stranger, mut sender) = UnixStream::pair().expect("a pair");
                sender.write_all(b"not for the ring").expect("written");
                while ring.in_flight() > 0 {
                    driver_turn().await;
                }
                stranger.set_nonblocking(true).expect("set");
                let mut octets = [0; 32];
                let count = stranger.read(&mut octets).expect("what was written");
                assert_eq!(&octets[..count], b"not for the ring", "{number}");
                drop(theirs);
            }
        });
    });
}

#[test]
fn what_the_kernel_may_touch_outlives_a_dropped_future_and_no_longer() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    on_a_ring(move |ring| async move {
        let socket = handle(ours);
        let shared: Rc<[u8]> = vec![b'x'; 16 << 20].into();
        let whole = 0..shared.len();
        let part = Part::Shared(Rc::clone(&shared), whole);
        let mut sending = Box::pin(ring.send_parts(&socket, vec![part]));
        let mut context = Context::from_waker(Waker::noop());
        assert!(sending.as_mut().poll(&mut context).is_pending());
        for _ in 0..10 {
            driver_turn().await;
        }
        drop(sending);
        assert_eq!(Rc::strong_count(&shared), 2, "the kernel may still read it");
        assert_eq!(Rc::strong_count(&socket.descriptor), 2);
        while ring.in_flight() > 0 {
            driver_turn().await;
        }
        assert_eq!(Rc::strong_count(&shared), 1, "kept for nobody");
        assert_eq!(Rc::strong_count(&socket.descriptor), 1);
    });
    drop(theirs);
}

/// What is open when an executor without a ring has come and gone: glommio leaves
/// one eventfd of its own for each. And one more like it.
pub(super) fn descriptors_with_an_executor_gone() -> Vec<String> {
    let before = descriptors();
    let executor = LocalExecutorBuilder::new(Placement::Unbound);
    let running = executor.spawn(|| async {}).expect("an executor");
    running.join().expect("no panic");
    let mut after = descriptors();
    let left = after.iter().filter(|link| link.contains("eventfd")).count()
        - before
            .iter()
            .filter(|link| link.contains("eventfd"))
            .count();
    assert!(left <= 1 && after.len() == before.len() + left, "{after:?}");
    after.extend(vec!["anon_inode:[eventfd]".to_owned(); left]);
    after.sort();
    after
}

#[test]
fn a_descriptor_that_nobody_took_is_closed() {
    on_a_private_table(|| {
        let before = descriptors_with_an_executor_gone();
        let dropped = on_a_ring(|ring| async move {
            let path = std::ffi::CString::new("/").expect("no NUL");
            for turns in 0..40 {
                let opening = ring.open_folder(At::path(path.clone()));
                let mut opening = Box::pin(opening);
                let mut context = Context::from_waker(Waker::noop());
                let polled = opening.as_mut().poll(&mut context);
                assert!(polled.is_pending());
                for _ in 0..turns % 4 {
                    driver_turn().await;
                }
                drop(opening);
            }
            while ring.in_flight() > 0 {
                driver_turn().await;
            }
            ring.counters().cancelled()
        });
        assert!(dropped > 0, "none was given up under way");
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn a_ring_leaves_no_descriptor_whatever_is_in_flight() {
    on_a_private_table(|| {
        let before = descriptors_with_an_executor_gone();
        let (listener, address) = listener();
        let client = TcpStream::connect(address).expect("connect");
        on_a_ring(move |ring| async move {
            let mut acceptor = ring.accept(handle(listener));
            let socket = acceptor.connection().await.expect("a connection");
            // One that nobody takes.
            let late = TcpStream::connect(address).expect("connect");
            let mut receiver = ring.receive(socket.clone());
            let pipe = Pipe::new().expect("a pipe");
            let mut reading = Box::pin(ring.read_at(&pipe.read, Vec::with_capacity(64), 0, 64));
            let stuck = vec![b'x'; 64 << 20];
            let mut sending = Box::pin(ring.send(&socket, stuck));
            let mut context = Context::from_waker(Waker::noop());
            assert!(receiver.poll_next(&mut context).is_pending());
            assert!(reading.as_mut().poll(&mut context).is_pending());
            assert!(sending.as_mut().poll(&mut context).is_pending());
            for _ in 0..10 {
                driver_turn().await;
            }
            assert!(ring.in_flight() >= 4);
            // A close whose turn never comes, and an opening.
            ring.close(handle(late));
            let root = std::ffi::CString::new("/").expect("no NUL");
            drop(ring.open_folder(At::path(root)));
        });
        drop(client);
        assert_eq!(descriptors(), before);
    });
}

/// Where a file has something to do at its close, a thread of the kernel closes it,
/// and at the ring's end such a close may be cancelled before it began. The
/// completion is made here: no file of every machine is like that.
#[test]
fn a_close_that_was_cancelled_is_made_up_for() {
    on_a_private_table(|| {
        let before = descriptors_with_an_executor_gone();
        on_a_ring(|ring| async move {
            let null = std::fs::File::open("/dev/null").expect("there");
            let mut core = ring.shared.core.borrow_mut();
            let key = core.slots.insert(Slot::Closing(null.into_raw_fd()));
            let mut after = Aftermath::default();
            core.complete(key, -libc::ECANCELED, 0, ring.counters(), &mut after);
            assert_eq!(core.in_flight(), 0);
        });
        assert_eq!(descriptors(), before);
    });
}
