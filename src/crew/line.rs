//! A bounded queue in which each origin has a line of its own, and lines take turns.
//!
//! One queue for all would be whoever's sends the most: behind a thousand guesses from
//! one network everybody else waits, or is turned away. Here the next job is that of
//! the origin whose turn is longest ago, and where there is no room the longest line
//! gives way: its last job makes room for a job of a shorter line. So an origin that
//! sends one job at a time waits for at most one job of each other origin, however many
//! jobs the others send.
//!
//! Which origins there are is the sender's business: here they are numbers. Two that
//! have the same number share a line, and nothing else comes of it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Jobs by origin, between threads.
pub(super) struct Line<J>(Mutex<Lines<J>>);

/// What became of a job that was to be queued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Queued<J> {
    /// It waits.
    Waits,
    /// It waits, and this one, the last of the longest line, does so no more.
    InPlaceOf(J),
    /// There is no room for it.
    Refused(J),
    /// Nobody works any more.
    Closed(J),
}

/// The jobs, and whose turn it is.
pub(crate) struct Lines<J> {
    waiting: HashMap<u64, VecDeque<J>>,
    /// Every origin with a job, in the order of their turns.
    turns: VecDeque<u64>,
    /// Jobs in all lines.
    length: usize,
    bound: usize,
    closed: bool,
}

impl<J> Line<J> {
    /// At most `bound` jobs wait.
    pub(super) fn new(bound: usize) -> Self {
        Self(Mutex::new(Lines::new(bound)))
    }

    pub(super) fn queue(&self, origin: u64, job: J) -> Queued<J> {
        self.lock().queue(origin, job)
    }

    /// The job whose turn it is.
    pub(super) fn take(&self) -> Option<J> {
        self.lock().take()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().length
    }

    /// Closes an empty queue; a job that comes later is given back. Whether it is closed.
    pub(super) fn close_if_empty(&self) -> bool {
        let mut lines = self.lock();
        lines.closed |= lines.length == 0;
        lines.closed
    }

    fn lock(&self) -> MutexGuard<'_, Lines<J>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<J> Lines<J> {
    /// At most `bound` jobs wait.
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            length: 0,
            bound,
            closed: false,
        }
    }

    /// Has a job wait for its turn.
    pub(crate) fn queue(&mut self, origin: u64, job: J) -> Queued<J> {
        if self.closed {
            return Queued::Closed(job);
        }
        let displaced = if self.length >= self.bound {
            match self.make_room(origin) {
                Some(displaced) => Some(displaced),
                None => return Queued::Refused(job),
            }
        } else {
            None
        };
        let line = self.waiting.entry(origin).or_default();
        if line.is_empty() {
            self.turns.push_back(origin);
        }
        line.push_back(job);
        self.length += 1;
        displaced.map_or(Queued::Waits, Queued::InPlaceOf)
    }

    /// Takes the last job of the longest line, if that stays no shorter than the line
    /// of `origin` becomes.
    fn make_room(&mut self, origin: u64) -> Option<J> {
        let own = self.waiting.get(&origin).map_or(0, VecDeque::len);
        let (_, longest) = self.waiting.iter_mut().max_by_key(|(_, line)| line.len())?;
        if longest.len() < own + 2 {
            return None;
        }
        self.length -= 1;
        longest.pop_back()
    }

    /// The job whose turn it is.
    pub(crate) fn take(&mut self) -> Option<J> {
        let origin = self.turns.pop_front()?;
        let line = self.waiting.get_mut(&origin).expect("its turn has come");
        let job = line.pop_front().expect("who has a turn has a job");
        self.length -= 1;
        if line.is_empty() {
            self.waiting.remove(&origin);
        } else {
            self.turns.push_back(origin);
        }
        Some(job)
    }

    /// Takes the jobs of an origin away that are not to wait any more.
    pub(crate) fn retain(&mut self, origin: u64, waits: impl FnMut(&J) -> bool) {
        let Some(line) = self.waiting.get_mut(&origin) else {
            return;
        };
        let before = line.len();
        line.retain(waits);
        self.length -= before - line.len();
        if line.is_empty() {
            self.waiting.remove(&origin);
            self.turns.retain(|turn| *turn != origin);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(bound: usize, jobs: &[(u64, u32)]) -> Line<u32> {
        let line = Line::new(bound);
        for (origin, job) in jobs {
            assert_eq!(line.queue(*origin, *job), Queued::Waits);
        }
        line
    }

    fn all(line: &Line<u32>) -> Vec<u32> {
        std::iter::from_fn(|| line.take()).collect()
    }

    #[test]
    fn origins_take_turns() {
        let line = filled(9, &[(1, 10), (1, 11), (1, 12), (2, 20), (3, 30), (3, 31)]);
        assert_eq!(all(&line), [10, 20, 30, 11, 31, 12]);
        assert_eq!(line.len(), 0);
    }

    #[test]
    fn the_longest_line_gives_way_to_a_shorter_one_and_to_no_other() {
        let line = filled(4, &[(1, 10), (1, 11), (1, 12), (1, 13)]);
        assert_eq!(line.queue(1, 14), Queued::Refused(14));
        assert_eq!(line.queue(2, 20), Queued::InPlaceOf(13));
        assert_eq!(line.queue(3, 30), Queued::InPlaceOf(12));
        // Two lines of one and one of two: nobody has more than he would leave.
        assert_eq!(line.queue(2, 21), Queued::Refused(21));
        assert_eq!(line.queue(4, 40), Queued::InPlaceOf(11));
        assert_eq!(line.queue(5, 50), Queued::Refused(50));
        assert_eq!(all(&line), [10, 20, 30, 40]);
    }

    #[test]
    fn one_job_at_a_time_waits_for_one_of_each_other_origin() {
        let line = Line::new(100);
        for job in 0..80 {
            line.queue(1, job);
        }
        for round in 0..30 {
            line.queue(2, 1000 + round);
            let taken = [line.take(), line.take()];
            assert!(taken.contains(&Some(1000 + round)), "{taken:?}");
        }
    }

    #[test]
    fn a_queue_with_jobs_does_not_close_and_a_closed_one_takes_none() {
        let line = filled(2, &[(1, 1)]);
        assert!(!line.close_if_empty());
        assert_eq!(line.take(), Some(1));
        assert!(line.close_if_empty());
        assert_eq!(line.queue(1, 2), Queued::Closed(2));
    }

    proptest! {
        #[test]
        fn no_job_is_lost_or_doubled_and_each_line_keeps_its_order(
            steps in prop::collection::vec(prop::option::of(0_u64..7), 0..200),
        ) {
            let line: Line<(u64, usize)> = Line::new(7);
            let (mut given, mut back) = (Vec::new(), Vec::new());
            let mut taken: Vec<(u64, usize)> = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    None => taken.extend(line.take()),
                    // Those of one origin that came in even steps leave.
                    Some(origin @ 5..) => line.lock().retain(origin - 5, |job| {
                        let waits = job.1 % 2 == 1;
                        back.extend((!waits).then_some(*job));
                        waits
                    }),
                    Some(origin) => {
                        let job = (origin, number);
                        given.push(job);
                        match line.queue(origin, job) {
                            Queued::Waits => {}
                            Queued::InPlaceOf(job) | Queued::Refused(job) => back.push(job),
                            Queued::Closed(_) => prop_assert!(false),
                        }
                    }
                }
                prop_assert!(line.len() <= 7);
            }
            taken.extend(std::iter::from_fn(|| line.take()));
            for origin in 0..5 {
                let own = taken.iter().filter(|job| job.0 == origin);
                prop_assert!(own.is_sorted_by_key(|job| job.1));
            }
            let mut seen: Vec<_> = taken.into_iter().chain(back).collect();
            seen.sort_unstable_by_key(|job| job.1);
            prop_assert_eq!(seen, given);
        }
    }
}
