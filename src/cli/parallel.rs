//! Work on many things at a time, with a progress bar.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use indicatif::{ProgressBar, ProgressStyle};

/// Does `work` for each item, on that many threads, and returns what it gave in the
/// order of the items. `name` is what the items are, for the bar, which one item
/// alone does not get.
pub(super) fn map<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    name: &str,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let bar = if items.len() > 1 {
        ProgressBar::new(items.len() as u64)
    } else {
        ProgressBar::hidden()
    };
    let template = format!("{{bar:40}} {{pos}} of {{len}} {name}, {{eta}} left");
    bar.set_style(ProgressStyle::with_template(&template).expect("a template of known words"));
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else {
                return done;
            };
            done.push((at, work(item)));
            bar.inc(1);
        }
    };
    let mut done: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, items.len().max(1)))
            .map(|_| scope.spawn(worker))
            .collect();
        let done = workers.into_iter().map(thread::ScopedJoinHandle::join);
        done.flat_map(|done| done.expect("a worker that does not panic"))
            .collect()
    });
    bar.finish_and_clear();
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// As many threads as there are cores.
pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn all_is_done_in_order_and_by_all_threads() {
        let items: Vec<usize> = (0..100).collect();
        // The first two wait for each other: two threads, or this never ends.
        let both = Barrier::new(2);
        let done = map(&items, 2, "items", |item| {
            if *item < 2 {
                both.wait();
            }
            (item * 2, thread::current().id())
        });
        let threads: HashSet<_> = done.iter().map(|(_, thread)| *thread).collect();
        assert_eq!(threads.len(), 2);
        assert!(done.iter().map(|(n, _)| *n).eq((0..100).map(|n| n * 2)));
        assert!(map(&[0; 0], 2, "items", |_| ()).is_empty());
    }
}
