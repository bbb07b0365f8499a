//! PURE. A histogram of how long responses took, with buckets a quarter of an octave wide.

/// Buckets per octave. An estimate is wrong by a ninth at most.
const PER_OCTAVE: usize = 4;
const PER_OCTAVE_LOG2: u32 = PER_OCTAVE.ilog2();
/// The end of the last but one bucket in microseconds, as an exponent of two: 67 s.
const BEYOND_LOG2: u32 = 26;

/// The number of buckets: one for each microsecond below four, four in each octave above, and one for the rest.
pub(crate) const BUCKETS: usize = PER_OCTAVE + PER_OCTAVE * (BEYOND_LOG2 - PER_OCTAVE_LOG2) as usize + 1;

/// The bucket of a time in microseconds.
#[inline]
pub(crate) fn bucket(micros: u64) -> usize {
    if micros < PER_OCTAVE as u64 {
        return micros as usize;
    }
    let octave = micros.ilog2() - PER_OCTAVE_LOG2;
    let index = (octave as usize + 1) * PER_OCTAVE + ((micros >> octave) as usize & (PER_OCTAVE - 1));
    index.min(BUCKETS - 1)
}

/// The end of a bucket in microseconds; the bucket begins at the end of the one below. For the last bucket, a day.
pub(crate) fn bound(bucket: usize) -> u64 {
    match bucket {
        _ if bucket >= BUCKETS - 1 => 86_400_000_000,
        _ if bucket < PER_OCTAVE => bucket as u64 + 1,
        _ => ((bucket % PER_OCTAVE + PER_OCTAVE + 1) as u64) << (bucket / PER_OCTAVE - 1),
    }
}

/// The durations of a number of responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Latency {
    pub(crate) buckets: [u64; BUCKETS],
    /// The sum, in microseconds.
    pub(crate) sum: u64,
}

impl Default for Latency {
    fn default() -> Latency {
        Latency { buckets: [0; BUCKETS], sum: 0 }
    }
}

impl Latency {
    pub(crate) fn count(&self) -> u64 {
        total(self.buckets.iter().copied())
    }

    /// The number of responses below a duration. Exact at the end of a bucket, such as a power of two.
    pub(crate) fn shorter_than(&self, micros: u64) -> u64 {
        let below = (0..BUCKETS).take_while(|bucket| bound(*bucket) <= micros);
        total(below.map(|bucket| self.buckets[bucket]))
    }

    pub(crate) fn add(&mut self, other: &Latency) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(count, more)| *count = count.saturating_add(more));
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// The microseconds that this many thousandths of the responses did not exceed; `None` without responses.
    pub(crate) fn quantile(&self, thousandths: u64) -> Option<u64> {
        let rank = (u128::from(self.count()) * u128::from(thousandths)).div_ceil(1000).max(1);
        let mut seen = 0_u128;
        let bucket = self.buckets.iter().position(|count| {
            seen += u128::from(*count);
            seen >= rank
        })?;
        // The harmonic mean of the ends of a bucket is at most a ninth away from any value in it.
        let (begin, end) = (if bucket == 0 { 0 } else { bound(bucket - 1) }, bound(bucket));
        Some(if bucket < PER_OCTAVE || bucket == BUCKETS - 1 { begin } else { 2 * begin * end / (begin + end) })
    }

    /// The buckets that are not empty: the end of each in microseconds, and its count.
    pub(crate) fn filled(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let filled = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(bucket, count)| (bound(bucket), *count))
    }
}

/// Saturates, since the counts come from workers, which may have written anything.
fn total(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_the_bucket_that_ends_behind_it() {
        let octaves = (0..BEYOND_LOG2).flat_map(|octave| [-1, 0, 1].map(|near| (1_i64 << octave) + near));
        for micros in octaves.map(|micros| micros.unsigned_abs()).chain(0..5000) {
            let found = bucket(micros);
            assert!(micros < bound(found), "{micros}");
            assert!(found == 0 || bound(found - 1) <= micros, "{micros}");
        }
        for micros in [1 << BEYOND_LOG2, u64::MAX] {
            assert_eq!(bucket(micros), BUCKETS - 1);
        }
        assert_eq!(bound(BUCKETS - 2), 1 << BEYOND_LOG2);
    }

    #[test]
    fn a_quantile_is_off_by_a_ninth_at_most() {
        for micros in (4..100_000).chain([1_000_000, 60_000_000]) {
            let mut latency = Latency::default();
            latency.buckets[bucket(micros)] += 1;
            let estimate = latency.quantile(500).expect("there is one");
            // One microsecond more for rounding.
            assert!(estimate.abs_diff(micros) <= micros.div_ceil(9) + 1, "{micros}: {estimate}");
        }
    }

    #[test]
    fn quantiles_are_of_all() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile(500), None);
        for micros in [1, 1, 1, 1, 1, 1, 1, 1, 1, 3] {
            latency.buckets[bucket(micros)] += 1;
        }
        assert_eq!([0, 500, 900, 901, 1000].map(|it| latency.quantile(it)), [1, 1, 1, 3, 3].map(Some));
        assert_eq!((latency.count(), latency.shorter_than(2), latency.shorter_than(4)), (10, 9, 10));
        latency.buckets[BUCKETS - 1] += 1;
        assert_eq!((latency.count(), latency.shorter_than(1 << BEYOND_LOG2)), (11, 10));
    }
}
