//! Which user is next: in turn, at random, or as real mailboxes are used (Zipf).
//!
//! A maildrop is exclusive (RFC 1939, section 8), so a user who has a session is
//! not given out again before it is over. Each thread has users of its own, and all
//! threads begin as many sessions: a user's rank is that among all users of the run,
//! but nobody is given more than a thread's share of the sessions.

use std::collections::VecDeque;

use crate::random::Random;

/// How users are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// One after the other.
    InTurn,
    /// Each as likely as any other.
    Uniform,
    /// The user of rank n in proportion to n to the power of minus this.
    Zipf(f64),
}

impl Choice {
    /// From `in-turn`, `uniform`, `zipf` or `zipf:1.1`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = || format!("{text}: in-turn, uniform, zipf or zipf:EXPONENT, from 0.1 to 10");
        match text.split_once(':') {
            None if text == "in-turn" => Ok(Self::InTurn),
            None if text == "uniform" => Ok(Self::Uniform),
            None if text == "zipf" => Ok(Self::Zipf(1.0)),
            Some(("zipf", exponent)) => match exponent.parse::<f64>() {
                Ok(s) if (0.1..=10.0).contains(&s) => Ok(Self::Zipf(s)),
                _ => Err(form()),
            },
            _ => Err(form()),
        }
    }
}

/// A thread's users that have no session.
#[derive(Debug)]
pub struct Pool {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    InTurn(VecDeque<usize>),
    Drawn {
        free: Vec<bool>,
        left: usize,
        /// Sums of the shares up to each user; empty: all alike.
        sums: Vec<f64>,
        random: Random,
    },
}

/// Draws of a busy user before the next free one after it is taken.
const DRAWS: usize = 8;

impl Pool {
    /// Users of these ranks among all of the run, from 1 on; they are numbered from 0.
    pub fn new(ranks: impl ExactSizeIterator<Item = usize>, choice: Choice, seed: u64) -> Self {
        let users = ranks.len();
        let drawn = |sums| Kind::Drawn {
            free: vec![true; users],
            left: users,
            sums,
            random: Random::new(seed),
        };
        let kind = match choice {
            Choice::InTurn => Kind::InTurn((0..users).collect()),
            Choice::Uniform => drawn(Vec::new()),
            Choice::Zipf(exponent) => {
                let mut sum = 0.0;
                let shares = ranks.map(|rank| {
                    let rank = f64::from(u32::try_from(rank).unwrap_or(u32::MAX));
                    sum += rank.powf(-exponent);
                    sum
                });
                drawn(shares.collect())
            }
        };
        Self { kind }
    }

    /// A user without a session. `None`: all have one.
    pub fn take(&mut self) -> Option<usize> {
        match &mut self.kind {
            Kind::InTurn(queue) => queue.pop_front(),
            Kind::Drawn { left: 0, .. } => None,
            Kind::Drawn {
                free,
                left,
                sums,
                random,
            } => {
                let mut draw = || match sums.last() {
                    None => random.below(free.len()),
                    Some(sum) => {
                        let point = random.fraction() * sum;
                        sums.partition_point(|s| *s <= point).min(free.len() - 1)
                    }
                };
                let mut user = draw();
                for _ in 0..DRAWS {
                    if free[user] {
                        break;
                    }
                    user = draw();
                }
                while !free[user] {
                    user = (user + 1) % free.len();
                }
                free[user] = false;
                *left -= 1;
                Some(user)
            }
        }
    }

    /// How many have no session.
    pub fn free(&self) -> usize {
        match &self.kind {
            Kind::InTurn(queue) => queue.len(),
            Kind::Drawn { left, .. } => *left,
        }
    }

    /// The user's session is over.
    pub fn give(&mut self, user: usize) {
        match &mut self.kind {
            Kind::InTurn(queue) => queue.push_back(user),
            Kind::Drawn { free, left, .. } => {
                assert!(!free[user], "a user is given back once");
                free[user] = true;
                *left += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_two_sessions() {
        for choice in [Choice::InTurn, Choice::Uniform, Choice::Zipf(2.0)] {
            let mut pool = Pool::new(1..8, choice, 1);
            let mut seen: Vec<usize> = (0..7).map(|_| pool.take().expect("free")).collect();
            assert_eq!(pool.take(), None);
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6]);
            pool.give(3);
            assert_eq!(pool.take(), Some(3));
        }
    }

    /// Pearson's statistic of draws beside the distribution that they should have.
    fn chi_square(choice: Choice, seed: u64, share: impl Fn(f64) -> f64) -> f64 {
        const DRAWN: u32 = 100_000;
        let mut counts = [0u32; 100];
        let mut pool = Pool::new(1..101, choice, seed);
        for _ in 0..DRAWN {
            let user = pool.take().expect("free");
            counts[user] += 1;
            pool.give(user);
        }
        let ranks = || (1..=100).map(f64::from);
        let sum: f64 = ranks().map(&share).sum();
        let terms = ranks().zip(counts).map(|(rank, count)| {
            let expected = f64::from(DRAWN) * share(rank) / sum;
            assert!(expected > 5.0, "too few for the statistic");
            (f64::from(count) - expected).powi(2) / expected
        });
        terms.sum()
    }

    #[test]
    fn draws_have_the_distribution_that_was_asked_for() {
        // With 99 degrees of freedom one in some ten thousand is above, and one below.
        // Users in turn would be at 0, and other exponents far beyond.
        let likely = 55.0..160.0;
        for seed in 1..=5 {
            let uniform = chi_square(Choice::Uniform, seed, |_| 1.0);
            assert!(likely.contains(&uniform), "uniform, {seed}: {uniform}");
            for exponent in [0.5, 1.0, 1.1, 1.5] {
                let share = |rank: f64| rank.powf(-exponent);
                let zipf = chi_square(Choice::Zipf(exponent), seed, share);
                assert!(likely.contains(&zipf), "zipf:{exponent}, {seed}: {zipf}");
            }
        }
        // The proof that it is looked at.
        let near = chi_square(Choice::Zipf(1.0), 1, |rank| rank.powf(-1.05));
        assert!(near > 200.0, "{near}");
        let turns = chi_square(Choice::InTurn, 1, |_| 1.0);
        assert!(turns < 1.0, "{turns}");
    }

    #[test]
    fn a_threads_users_have_their_ranks_among_all() {
        // Numbers 3 of every 4: of ranks 4, 8, 12 and so on.
        let mut counts = [0usize; 25];
        let mut pool = Pool::new((4..101).step_by(4), Choice::Zipf(2.0), 1);
        let mut first = Pool::new((1..101).step_by(4), Choice::Zipf(2.0), 1);
        let mut firsts = 0;
        for _ in 0..10_000 {
            let user = pool.take().expect("free");
            counts[user] += 1;
            pool.give(user);
            let user = first.take().expect("free");
            firsts += usize::from(user == 0);
            first.give(user);
        }
        // 1 to 1/4 and 1 to 1/25, and their like: 0.62 and 0.93 of all.
        assert!((6_000..6_450).contains(&counts[0]), "{}", counts[0]);
        assert!((9_150..9_450).contains(&firsts), "{firsts}");
    }

    #[test]
    fn choices_are_read() {
        assert_eq!(Choice::parse("zipf:1.2"), Ok(Choice::Zipf(1.2)));
        assert_eq!(Choice::parse("uniform"), Ok(Choice::Uniform));
        for text in ["", "zipf:", "zipf:0", "zipf:nan", "uniform:1", "pareto"] {
            assert!(Choice::parse(text).is_err(), "{text}");
        }
    }
}
