//! The removals of a session's QUIT: one trip to a thread of the shard's pool for
//! all of them, or an operation of the ring for each.
//!
//! Not criterion: both ways work on other threads, so the CPU time of the whole
//! process counts. Rounds of the two alternate and the median is shown. Each round
//! asserts that the files are gone.

use std::ffi::CString;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};

use popcore::limits;
use popcore::ring::{self, At, Place, Pool, Ring};

/// Messages that a session removes.
const MESSAGES: [usize; 4] = [1, 5, 20, 100];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Trip,
    Ring,
}

/// One commit.
#[derive(Clone, Copy)]
struct Cost {
    cpu: Duration,
    wall: Duration,
}

fn main() {
    let test = std::env::args().any(|argument| argument == "--test");
    let rounds = if test { 2 } else { 301 };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().canonicalize().expect("canonical");
    let pool = Pool::start("pool", limits::POOL_THREADS).expect("threads");
    let compare = move |ring: Ring| async move {
        println!(
            "{:>8} {:>14} {:>14}   us of CPU (us in all)",
            "removed", "one trip", "ring"
        );
        for messages in MESSAGES {
            let mut costs: [Vec<Cost>; 2] = Default::default();
            for _ in 0..rounds {
                for (way, costs) in [Way::Trip, Way::Ring].into_iter().zip(&mut costs) {
                    costs.push(commit(&ring, &path, way, messages).await);
                }
            }
            let [trip, ring] = costs.map(|mut costs| {
                costs.sort_by_key(|cost| cost.cpu);
                let middle = costs[costs.len() / 2];
                format!(
                    "{:.1} ({:.1})",
                    middle.cpu.as_secs_f64() * 1e6,
                    middle.wall.as_secs_f64() * 1e6
                )
            });
            println!("{messages:>8} {trip:>14} {ring:>14}");
        }
    };
    let running = LocalExecutorBuilder::new(Placement::Unbound)
        .preempt_timer(limits::PREEMPTION)
        .spawn(|| ring::run(Arc::default(), pool, compare));
    let compared = running.expect("an executor").join().expect("no panic");
    compared.expect("a kernel with io_uring");
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("not negative")
}

/// Makes so many files and removes them.
async fn commit(ring: &Ring, path: &Path, way: Way, messages: usize) -> Cost {
    let names: Vec<CString> = (0..messages)
        .map(|number| CString::new(format!("{number}.m")).expect("no NUL"))
        .collect();
    for name in &names {
        std::fs::write(path.join(name.to_str().expect("UTF-8")), "x").expect("written");
    }
    let begun = (cpu(), Instant::now());
    match way {
        Way::Trip => {
            let path = path.to_owned();
            ring.blocking(Place::Local, move || {
                let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
                let folder = rustix::fs::open(&path, flags, Mode::empty()).expect("opened");
                for name in &names {
                    rustix::fs::unlinkat(&folder, name, AtFlags::empty()).expect("removed");
                }
            })
            .await;
        }
        Way::Ring => {
            let whole = CString::new(path.to_str().expect("UTF-8")).expect("no NUL");
            let folder = ring.open_folder(At::path(whole)).await.expect("opened");
            // All of them leave in one system call.
            let removals: Vec<_> = names
                .into_iter()
                .map(|name| ring.unlink(At::inside(&folder, name)))
                .collect();
            for removal in removals {
                removal.await.expect("removed");
            }
            ring.close(folder);
        }
    }
    let cost = Cost {
        cpu: cpu().saturating_sub(begun.0),
        wall: begun.1.elapsed(),
    };
    assert_eq!(std::fs::read_dir(path).expect("a folder").count(), 0);
    cost
}
