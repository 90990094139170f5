//! When sessions begin: as soon as one ends (closed loop), or on a schedule
//! that does not ask how the server is doing (open loop).
//!
//! In an open loop a session's time counts from when it was meant to begin. A
//! generator that waits for a slow server and counts from when it came round to
//! it would leave out just the sessions that users would have waited for.

use std::time::Duration;

use crate::random::Random;

/// A stretch of a schedule: a rate that stays or changes evenly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// Sessions a second at its beginning.
    pub from: f64,
    /// Sessions a second at its end.
    pub to: f64,
    /// How long it is.
    pub length: Duration,
}

/// A rate over time; behind its last stretch nothing begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule(Vec<Stretch>);

/// How sessions lie within a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arrivals {
    /// At even distances.
    Constant,
    /// As independent users come: a Poisson process.
    Poisson,
}

/// Highest rate that can be asked for.
const FASTEST: f64 = 10_000_000.0;

impl Schedule {
    /// From `5000/s`, `100..5000/s` (a ramp over `whole`) or
    /// `1000/s:10s,2000/s:10s` (steps, which may be ramps).
    ///
    /// Errors are for the operator: they say how it is written.
    pub fn parse(text: &str, whole: Duration) -> Result<Self, String> {
        let form = || {
            format!(
                "--rate {text}: write it as 5000/s, 100..5000/s or 1000/s:10s,2000/s:10s, with \
                 rates above 0 and up to {FASTEST}"
            )
        };
        let parts: Vec<&str> = text.split(',').collect();
        let stretches = parts.iter().map(|part| {
            let (rate, length) = match part.split_once(':') {
                Some((rate, length)) => {
                    let seconds = length.strip_suffix('s').ok_or_else(form)?;
                    let seconds: f64 = seconds.parse().map_err(|_| form())?;
                    let sound = (0.001..=86_400.0).contains(&seconds);
                    let length = sound.then(|| Duration::from_secs_f64(seconds));
                    (rate, length.ok_or_else(form)?)
                }
                None if parts.len() == 1 => (*part, whole),
                None => return Err(form()),
            };
            let rate = rate.strip_suffix("/s").unwrap_or(rate);
            let (from, to) = rate.split_once("..").unwrap_or((rate, rate));
            let number = |word: &str| match word.trim().parse::<f64>() {
                Ok(n) if (0.0..=FASTEST).contains(&n) => Ok(n),
                _ => Err(form()),
            };
            let (from, to) = (number(from)?, number(to)?);
            if from + to == 0.0 {
                return Err(form());
            }
            Ok(Stretch { from, to, length })
        });
        stretches.collect::<Result<_, String>>().map(Self)
    }

    /// An even rate.
    pub fn even(rate: f64, length: Duration) -> Self {
        Self(vec![Stretch {
            from: rate,
            to: rate,
            length,
        }])
    }

    /// From its beginning to its end.
    pub fn length(&self) -> Duration {
        self.0.iter().map(|stretch| stretch.length).sum()
    }

    /// Sessions that an even arrival gives over the whole.
    pub fn sessions(&self) -> f64 {
        self.0.iter().map(Stretch::sessions).sum()
    }

    /// When so many sessions (a number that need not be whole) are due.
    /// `None`: never.
    fn due(&self, mut sessions: f64) -> Option<Duration> {
        let mut passed = Duration::ZERO;
        for stretch in &self.0 {
            if sessions < stretch.sessions() {
                return Some(passed + stretch.due(sessions));
            }
            sessions -= stretch.sessions();
            passed += stretch.length;
        }
        None
    }
}

impl Stretch {
    fn sessions(&self) -> f64 {
        f64::midpoint(self.from, self.to) * self.length.as_secs_f64()
    }

    /// The time at which the integral of the rate reaches `sessions`: the root
    /// of `from t + (to - from) t^2 / (2 length)`, in the form that stays exact
    /// where the two rates are nearly one.
    fn due(&self, sessions: f64) -> Duration {
        let growth = (self.to - self.from) / self.length.as_secs_f64();
        let root = (self.from * self.from + 2.0 * growth * sessions)
            .max(0.0)
            .sqrt();
        let seconds = if sessions == 0.0 {
            0.0
        } else {
            2.0 * sessions / (self.from + root)
        };
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(self.length)
            .min(self.length)
    }
}

/// One thread's share of a schedule, arrival by arrival.
#[derive(Clone, Debug)]
pub struct Clock {
    schedule: Schedule,
    arrivals: Arrivals,
    random: Random,
    /// Sessions of all threads that are due at this thread's next.
    position: f64,
    threads: f64,
    next: Option<Duration>,
}

impl Clock {
    /// The share of thread number `thread` of `threads`.
    pub fn new(
        schedule: &Schedule,
        arrivals: Arrivals,
        thread: usize,
        threads: usize,
        seed: u64,
    ) -> Self {
        let small = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        let mut clock = Self {
            schedule: schedule.clone(),
            arrivals,
            random: Random::new(seed ^ (thread as u64) << 40),
            position: small(thread),
            threads: small(threads),
            next: None,
        };
        if arrivals == Arrivals::Poisson {
            clock.position = clock.gap();
        }
        clock.next = clock.schedule.due(clock.position);
        clock
    }

    fn gap(&mut self) -> f64 {
        match self.arrivals {
            Arrivals::Constant => self.threads,
            // 1 - fraction is above 0: the logarithm is finite.
            Arrivals::Poisson => -(1.0 - self.random.fraction()).ln() * self.threads,
        }
    }

    /// When the next session is to begin, from the run's beginning.
    pub fn next(&self) -> Option<Duration> {
        self.next
    }

    /// Takes the next session if it is due.
    pub fn take(&mut self, passed: Duration) -> Option<Duration> {
        let due = self.next.filter(|due| *due <= passed)?;
        let gap = self.gap();
        self.position += gap;
        self.next = self.schedule.due(self.position);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    fn arrivals(text: &str, kind: Arrivals, threads: usize) -> Vec<f64> {
        let schedule = Schedule::parse(text, TEN).expect(text);
        let mut all = Vec::new();
        for thread in 0..threads {
            let mut clock = Clock::new(&schedule, kind, thread, threads, 1);
            while let Some(due) = clock.take(Duration::MAX) {
                all.push(due.as_secs_f64());
            }
        }
        all.sort_by(f64::total_cmp);
        all
    }

    #[test]
    fn an_even_rate_is_even_over_all_threads() {
        for threads in [1, 3] {
            let all = arrivals("50/s", Arrivals::Constant, threads);
            assert_eq!(all.len(), 500);
            for (number, due) in all.iter().enumerate() {
                let expected = f64::from(u32::try_from(number).expect("few")) / 50.0;
                assert!((due - expected).abs() < 1e-6, "{number}: {due}");
            }
        }
    }

    #[test]
    fn a_ramp_reaches_half_its_sessions_late() {
        let all = arrivals("0..100/s", Arrivals::Constant, 2);
        assert_eq!(all.len(), 500);
        // Half of the integral of t is reached at the square root of a half.
        assert!((all[250] - 7.07).abs() < 0.02, "{}", all[250]);
    }

    #[test]
    fn steps_follow_each_other() {
        let all = arrivals("10/s:2s,100/s:1s", Arrivals::Constant, 1);
        assert_eq!(all.len(), 120);
        assert_eq!(all.iter().filter(|due| **due < 2.0).count(), 20);
        assert!(all.iter().all(|due| *due < 3.0));
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_its_spread() {
        for threads in [1, 4] {
            let all = arrivals("1000/s", Arrivals::Poisson, threads);
            assert!((9_600..10_400).contains(&all.len()), "{}", all.len());
            let gaps: Vec<f64> = all.windows(2).map(|two| two[1] - two[0]).collect();
            let long = gaps.iter().filter(|gap| **gap > 0.001).count();
            let count = f64::from(u32::try_from(gaps.len()).expect("few"));
            let share = f64::from(u32::try_from(long).expect("few")) / count;
            // e^-1 of all gaps of a Poisson process are longer than the mean.
            assert!((share - 0.368).abs() < 0.02, "{share}");
        }
    }

    #[test]
    fn a_rate_that_cannot_be_read_is_refused() {
        for text in [
            "", "x", "0/s", "-1/s", "5/m", "1/s,2/s", "1/s:0s", "1/s:5", "nan", "inf/s", "1..x/s",
        ] {
            assert!(Schedule::parse(text, TEN).is_err(), "{text}");
        }
    }
}
