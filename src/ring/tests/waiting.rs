//! The driver sleeps when nobody is ready, and for no longer.

use std::future::poll_fn;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::time::{Duration, Instant};

use super::*;

#[test]
fn timers_end_in_their_order_and_not_before_their_time() {
    on_a_ring(|ring| async move {
        let ended = Rc::new(RefCell::new(Vec::new()));
        let begun = Instant::now();
        let tasks: Vec<_> = [30, 10, 20, 10, 0]
            .into_iter()
            .map(|milliseconds| {
                let (own, ended) = (ring.clone(), Rc::clone(&ended));
                ring.spawn(async move {
                    own.sleep(Duration::from_millis(milliseconds)).await;
                    assert!(begun.elapsed() >= Duration::from_millis(milliseconds));
                    ended.borrow_mut().push(milliseconds);
                })
            })
            .collect();
        // One that is given up is nobody's any more.
        let mut dropped = Box::pin(ring.sleep(Duration::from_millis(5)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(dropped.as_mut().poll(&mut context).is_pending());
        drop(dropped);
        for task in tasks {
            task.await;
        }
        assert_eq!(*ended.borrow(), [0, 10, 10, 20, 30]);
        assert!(ring.shared.timers.borrow().first().is_none());
    });
}

/// A shard that waits enters the kernel once and stays there.
#[test]
fn a_driver_with_nothing_to_do_enters_once_and_waits() {
    on_a_ring(|ring| async move {
        for _ in 0..3 {
            let before = ring.counters().enters();
            ring.sleep(Duration::from_millis(60)).await;
            let enters = ring.counters().enters() - before;
            assert!((1..=3).contains(&enters), "{enters} system calls");
        }
    });
}

/// What the tasks of a turn ask for goes to the kernel together.
#[test]
fn the_submissions_of_a_turn_are_one_system_call() {
    const TASKS: u64 = 100;
    on_a_ring(|ring| async move {
        let before = ring.counters().enters();
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let (ours, mut theirs) = UnixStream::pair().expect("sockets");
                let sending = ring.send(&handle(ours), vec![7; 10]);
                ring.spawn(async move {
                    let (sent, _) = sending.await;
                    assert_eq!(sent.expect("open"), 10);
                    theirs.read_exact(&mut [0; 10]).expect("it has arrived");
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        let enters = ring.counters().enters() - before;
        assert!((1..=2).contains(&enters), "{enters} system calls");
    });
}

/// Neither the end of a task nor what a destructor wakes is slept upon: nothing
/// else happens on this ring, and a driver that slept would never wake.
#[test]
fn what_the_end_of_a_task_wakes_runs_before_the_driver_sleeps() {
    struct Wakes(Option<futures_channel::oneshot::Sender<()>>);
    impl Drop for Wakes {
        fn drop(&mut self) {
            let sender = self.0.take().expect("dropped once");
            sender.send(()).expect("awaited");
        }
    }
    on_a_ring(|ring| async move {
        for cancelled in [false, true] {
            let (sender, receiver) = futures_channel::oneshot::channel();
            let wakes = Wakes(Some(sender));
            let task = ring.spawn(async move {
                let _wakes = wakes;
                if cancelled {
                    std::future::pending::<()>().await;
                }
            });
            round().await;
            drop(task);
            receiver.await.expect("sent");
        }
    });
}

/// A chain of tasks of which each wakes the next is longer than a turn has rounds.
#[test]
fn a_chain_of_tasks_runs_to_its_end() {
    const LINKS: u32 = 10 * limits::ROUNDS_A_TURN;
    on_a_ring(|ring| async move {
        let (first, mut previous) = futures_channel::oneshot::channel();
        let mut tasks = Vec::new();
        for _ in 0..LINKS {
            let (sender, receiver) = futures_channel::oneshot::channel();
            let waits = std::mem::replace(&mut previous, receiver);
            tasks.push(ring.spawn(async move {
                waits.await.expect("sent");
                sender.send(()).expect("awaited");
            }));
        }
        round().await;
        first.send(()).expect("awaited");
        previous.await.expect("the last link");
    });
}

/// Another thread answers at every moment of the driver's way into its sleep.
#[test]
fn no_wake_of_another_thread_is_lost() {
    const QUESTIONS: usize = 20_000;
    let (questions, asked) = std::sync::mpsc::channel::<futures_channel::oneshot::Sender<()>>();
    let answering = std::thread::spawn(move || {
        let mut spins = 0u32;
        for question in asked {
            spins = (spins + 7) % 400;
            for _ in 0..spins {
                std::hint::spin_loop();
            }
            question.send(()).expect("awaited");
        }
    });
    on_a_ring(move |ring| async move {
        for _ in 0..QUESTIONS {
            let (question, answer) = futures_channel::oneshot::channel();
            questions.send(question).expect("somebody listens");
            ring.abroad(answer).await.expect("an answer");
        }
        assert!(ring.shared.guests.borrow().is_empty());
    });
    answering.join().expect("no panic");
}

#[test]
fn an_answer_that_nobody_waits_for_any_more_wakes_nobody() {
    on_a_ring(|ring| async move {
        let (sender, receiver) = futures_channel::oneshot::channel::<()>();
        let mut waiting = Box::pin(ring.abroad(receiver));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        let kept = ring.shared.guests.borrow().len();
        assert_eq!(kept, 1);
        drop(waiting);
        assert!(sender.send(()).is_err());
        assert!(ring.shared.guests.borrow().is_empty());
        ring.sleep(Duration::from_millis(1)).await;
    });
}

#[test]
fn submissions_that_the_kernel_refuses_go_out_later() {
    on_a_ring(|ring| async move {
        let zero = handle(std::fs::File::open("/dev/zero").expect("there"));
        ring.shared.core.borrow_mut().refusals = 3;
        let begun = Instant::now();
        let (read, octets) = ring.read_at(&zero, Vec::with_capacity(8), 0, 8).await;
        assert_eq!((read.expect("read"), octets.len()), (8, 8));
        assert_eq!(ring.shared.core.borrow().refusals, 0);
        assert!(begun.elapsed() >= limits::RING_REST, "it did not rest");
    });
}

/// Entries that found the queue full do not keep the driver from its rest.
#[test]
fn a_driver_rests_after_a_refusal_also_where_entries_wait_for_room() {
    const READS: usize = 32;
    let sizes = Sizes {
        submissions: 4,
        ..Sizes::default()
    };
    on_a_ring_of(sizes, |ring| async move {
        let zero = handle(std::fs::File::open("/dev/zero").expect("there"));
        ring.shared.core.borrow_mut().refusals = 2;
        let begun = Instant::now();
        let reads: Vec<_> = (0..READS)
            .map(|_| ring.read_at(&zero, Vec::with_capacity(8), 0, 8))
            .collect();
        for read in reads {
            assert_eq!(read.await.0.expect("read"), 8);
        }
        assert!(ring.counters().queue_full() > 0, "all found room");
        assert!(begun.elapsed() >= 2 * limits::RING_REST, "it did not rest");
    });
}

#[test]
#[should_panic(expected = "no panic: ")]
fn a_panic_of_work_for_the_pool_is_the_shards() {
    on_a_ring(|ring| async move {
        ring.blocking(Place::Local, || panic!("on purpose")).await;
    });
}

/// Whatever a detached task waits for when its shard ends, it ends with that, and
/// lets go of what it holds; so does the ring.
#[test]
fn the_end_of_a_shard_is_the_end_of_its_tasks() {
    on_a_private_table(|| {
        let before = ownership::descriptors_with_an_executor_gone();
        let held = Arc::new(());
        let holder = Arc::clone(&held);
        on_a_ring(|ring| async move {
            let (ours, theirs) = UnixStream::pair().expect("sockets");
            let (listener, _) = listener();
            let mut receiver = ring.receive(handle(ours));
            let mut acceptor = ring.accept(handle(listener));
            let (_never, sent) = futures_channel::oneshot::channel::<()>();
            let own = ring.clone();
            let waits: [Pin<Box<dyn Future<Output = ()>>>; 4] = [
                Box::pin({
                    let ring = ring.clone();
                    async move { ring.sleep(Duration::from_hours(1)).await }
                }),
                Box::pin(async move { own.abroad(sent).await.expect("nobody sends") }),
                Box::pin(async move {
                    drop((poll_fn(|context| receiver.poll_next(context)).await, theirs));
                }),
                Box::pin(async move { drop(acceptor.connection().await) }),
            ];
            for wait in waits {
                let held = Arc::clone(&holder);
                let task = ring.spawn(async move {
                    wait.await;
                    drop(held);
                });
                task.detach();
            }
            // Until all of them wait.
            ring.sleep(Duration::from_millis(1)).await;
            assert_eq!(Arc::strong_count(&holder), 6);
        });
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(descriptors(), before);
    });
}
