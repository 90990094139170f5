//! The task that turns the ring.
//!
//! A turn hands queued submissions to the kernel, runs its deferred work and
//! dispatches the completions, and then always lets the other tasks run: it is
//! they who queue the next submissions, and glommio must come round to what other
//! threads woke.
//!
//! **The flag that stays.** `IORING_SQ_TASKRUN` says that deferred work waits for
//! us to enter, and while it stands the driver must not sleep: the kernel signals
//! the eventfd only for the first item of its list. But the kernel takes the flag
//! down *before* it takes the list, and only when there is a list. An item that
//! another CPU adds between the two is run with the others and leaves the flag up
//! over an empty list, and entering again does not take it down. A driver that
//! goes round as long as it stands never ends if the next thing to happen is not
//! the ring's, such as the answer of an auth thread that everybody waits for.
//! Sleeping in spite of the flag would be wrong where it is true (one entry runs
//! only some of a long list). So after a few turns that brought nothing the
//! driver makes an item of its own, a no-op that a kernel thread completes: the
//! kernel takes the flag down as it runs it.
//!
//! **The executor that parks too early.** glommio can go to sleep with tasks that
//! are ready (see `pulse`). So the driver does not stake a session on being run: it
//! keeps a timer for as long as it works, and after it has gone to sleep it looks
//! at the ring a few times, at growing distances, before it rests until it is woken.
//! `signals_missed` counts what only such a look found.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{Ordering, fence};
use std::task::Poll;
use std::time::{Duration, Instant};

use glommio::timer::Timer;

use super::core::{Aftermath, Submitted};
use super::{Ring, count};
use crate::limits;

/// Turns that bring nothing, in a row, before the flag counts as one that stays.
/// Each of them runs what deferred work there is, so that a true flag is seldom
/// taken for a false one; it would cost a no-op.
const FRUITLESS: u32 = 4;

/// When a driver that sleeps looks at its ring all the same, counted from the last
/// thing that it did.
const CHECKS: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(400),
    Duration::from_millis(3200),
    Duration::from_millis(25_600),
];

/// How long a driver stands back for glommio to look at what other threads woke:
/// not over when it is first asked for, which glommio would not wait for.
const STAND_BACK: Duration = Duration::from_micros(20);

/// What a look at the ring before sleeping found.
enum Rest {
    /// There is something to do at once.
    None,
    /// The driver has slept and was woken.
    Slept,
    /// The driver has slept and it is time for a look.
    Check,
}

impl Ring {
    /// Turns the ring for as long as its shard lives. Runs as one task of the
    /// shard's executor and ends only with an error.
    ///
    /// # Errors
    ///
    /// What `io_uring_enter(2)` says where waiting would not help; the shard
    /// cannot go on then.
    pub async fn drive(self) -> io::Result<()> {
        let listening = glommio::spawn_local(self.clone().listen());
        let mut listening = pin!(listening);
        // Ends with the driver.
        let _pulse = glommio::spawn_local(self.clone().pulse());
        let mut after = Aftermath::default();
        let mut fruitless = 0;
        let mut checks = CHECKS.iter();
        let mut looked = Instant::now();
        self.shared.core.borrow_mut().notify_completions(false);
        loop {
            self.beat();
            let (submitted, dispatched) = {
                let mut core = self.shared.core.borrow_mut();
                let submitted = core.submit(&self.shared.counters)?;
                let dispatched = core.dispatch(&self.shared.counters, &mut after);
                (submitted, dispatched)
            };
            after.settle();
            fruitless = match (dispatched, submitted) {
                (0, Submitted::Refused) => {
                    glommio::timer::sleep(limits::TURN).await;
                    0
                }
                (0, submitted) => match (
                    self.sleep(listening.as_mut(), checks.next()).await?,
                    submitted,
                ) {
                    (Rest::Slept, _) => {
                        checks = CHECKS.iter();
                        continue;
                    }
                    (Rest::Check, _) => {
                        if self.check(&mut after)? {
                            checks = CHECKS.iter();
                        }
                        continue;
                    }
                    (Rest::None, Submitted::Nothing) => fruitless + 1,
                    (Rest::None, _) => 0,
                },
                _ => 0,
            };
            checks = CHECKS.iter();
            if fruitless > FRUITLESS {
                fruitless = 0;
                let mut core = self.shared.core.borrow_mut();
                core.clear_flag(&self.shared.counters);
            }
            // The tasks just woken run before the next turn; their submissions
            // go out together.
            if self.is_awaited(&mut looked) {
                glommio::timer::sleep(STAND_BACK).await;
            } else {
                yield_now().await;
            }
        }
    }

    /// Whether glommio must look at what other threads woke: somebody waits for one,
    /// and it has been a while (see `blocking`). It looks when no task is ready, so
    /// the driver is not, until the shortest of timers.
    fn is_awaited(&self, looked: &mut Instant) -> bool {
        if self.shared.abroad.get() == 0 {
            return false;
        }
        let now = Instant::now();
        let due = now.duration_since(*looked) >= limits::TURN;
        if due {
            *looked = now;
        }
        due
    }

    /// Has the kernel run whatever it has deferred, and says whether there was
    /// something that nobody had signalled.
    fn check(&self, after: &mut Aftermath) -> io::Result<bool> {
        let mut core = self.shared.core.borrow_mut();
        core.enter(&self.shared.counters)?;
        let found = core.dispatch(&self.shared.counters, after) > 0;
        drop(core);
        if found {
            count(&self.shared.counters.signals_missed);
        }
        after.settle();
        Ok(found)
    }

    /// Waits until a task queues a submission or the kernel has a completion, or
    /// until it is time for a look.
    async fn sleep(
        &self,
        mut listening: Pin<&mut impl Future<Output = io::Result<Infallible>>>,
        check: Option<&Duration>,
    ) -> io::Result<Rest> {
        let mut rest = Rest::None;
        let mut timer = None;
        let slept = poll_fn(|context| {
            let mut core = self.shared.core.borrow_mut();
            // On before the look, not after it: a completion that arrives
            // between the two must find the signal on.
            core.notify_completions(true);
            // Either we see the completion or the kernel sees the signal on.
            fence(Ordering::SeqCst);
            if core.has_work() || self.shared.signalled.take() {
                return Poll::Ready(Ok(()));
            }
            drop(core);
            rest = Rest::Slept;
            *self.shared.driver.borrow_mut() = Some(context.waker().clone());
            match listening.as_mut().poll(context) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(never)) => match never {},
                Poll::Pending => {}
            }
            if let Some(check) = check {
                let timer = timer.get_or_insert_with(|| Timer::new(*check));
                if pin!(timer).poll(context).is_ready() {
                    rest = Rest::Check;
                    return Poll::Ready(Ok(()));
                }
            }
            Poll::Pending
        })
        .await;
        self.shared.core.borrow_mut().notify_completions(false);
        self.shared.driver.borrow_mut().take();
        slept.map(|()| rest)
    }
}

/// Lets every other task that is ready run first.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
