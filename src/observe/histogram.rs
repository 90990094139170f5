//! Latencies in fixed buckets that double, written by one shard.
//!
//! Buckets that double need no search: the bucket of a duration is the position
//! of its highest bit. 27 of them reach from one unit to 67 million units, so
//! that with microseconds they cover a cache hit and a dying disk alike. A
//! quantile read from them is right within a factor of two, which is what an
//! alarm needs; the load generator measures finer.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets with an upper bound; one more has none.
const BOUNDED: usize = 27;

/// A histogram with one writer and any number of readers. `UNIT` is the upper
/// bound of its first bucket in nanoseconds.
#[derive(Debug)]
pub struct Histogram<const UNIT: u64> {
    buckets: [AtomicU64; BOUNDED + 1],
    sum_nanoseconds: AtomicU64,
}

impl<const UNIT: u64> Default for Histogram<UNIT> {
    fn default() -> Self {
        Self {
            buckets: array::from_fn(|_| AtomicU64::new(0)),
            sum_nanoseconds: AtomicU64::new(0),
        }
    }
}

impl<const UNIT: u64> Histogram<UNIT> {
    /// Adds one duration. Only the owning shard may call it: a second writer
    /// would lose counts (not safety).
    pub(super) fn record(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = &self.buckets[bucket_of(nanoseconds.div_ceil(UNIT))];
        bucket.store(bucket.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let sum = self.sum_nanoseconds.load(Ordering::Relaxed);
        self.sum_nanoseconds
            .store(sum.saturating_add(nanoseconds), Ordering::Relaxed);
    }

    /// Adds what this histogram holds to `total`.
    pub fn merge_into(&self, total: &mut Distribution<UNIT>) {
        for (bucket, sum) in self.buckets.iter().zip(&mut total.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        let sum = Duration::from_nanos(self.sum_nanoseconds.load(Ordering::Relaxed));
        total.sum = total.sum.saturating_add(sum);
    }
}

/// The bucket of a duration in units, rounded up: the first whose bound, a power
/// of two, is not below it.
fn bucket_of(units: u64) -> usize {
    let bits = u64::BITS - units.saturating_sub(1).leading_zeros();
    usize::try_from(bits).map_or(BOUNDED, |bucket| bucket.min(BOUNDED))
}

/// The merged content of histograms of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution<const UNIT: u64> {
    buckets: [u64; BOUNDED + 1],
    sum: Duration,
}

impl<const UNIT: u64> Default for Distribution<UNIT> {
    fn default() -> Self {
        Self {
            buckets: [0; BOUNDED + 1],
            sum: Duration::ZERO,
        }
    }
}

impl<const UNIT: u64> Distribution<UNIT> {
    /// How many durations were added.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of all durations.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The buckets, each with its upper bound (none for the last) and the count
    /// of durations in it alone.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = (0..BOUNDED)
            .map(|bit| Some(Duration::from_nanos(UNIT << bit)))
            .chain([None]);
        bounds.zip(self.buckets.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MICROSECOND: u64 = 1000;

    #[test]
    fn the_bounds_reach_from_a_microsecond_past_a_minute() {
        let empty = Distribution::<MICROSECOND>::default();
        let bounds: Vec<_> = empty.buckets().map(|(bound, _)| bound).collect();
        assert_eq!(bounds[0], Some(Duration::from_micros(1)));
        assert_eq!(bounds[1], Some(Duration::from_micros(2)));
        assert!(bounds[BOUNDED - 1] > Some(Duration::from_mins(1)));
        assert_eq!(bounds[BOUNDED], None);
    }

    #[test]
    fn shards_are_merged() {
        let shards = [
            Histogram::<MICROSECOND>::default(),
            Histogram::<MICROSECOND>::default(),
        ];
        shards[0].record(Duration::from_micros(3));
        shards[0].record(Duration::from_hours(1));
        shards[1].record(Duration::from_micros(4));
        let mut total = Distribution::default();
        for shard in &shards {
            shard.merge_into(&mut total);
        }
        assert_eq!(total.count(), 3);
        assert_eq!(
            total.sum(),
            Duration::from_hours(1) + Duration::from_micros(7)
        );
        let full: Vec<_> = total.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(full, [(Some(Duration::from_micros(4)), 2), (None, 1)]);
    }

    proptest! {
        #[test]
        fn a_duration_lands_under_the_first_bound_not_below_it(nanoseconds in 0u64..200_000_000_000) {
            let histogram = Histogram::<MICROSECOND>::default();
            let duration = Duration::from_nanos(nanoseconds);
            histogram.record(duration);
            let mut total = Distribution::default();
            histogram.merge_into(&mut total);
            let model = total.buckets().position(|(bound, _)| bound.is_none_or(|b| b >= duration));
            prop_assert_eq!(total.buckets().position(|(_, count)| count == 1), model);
        }
    }
}
