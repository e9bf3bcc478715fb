//! What is measured for an operator: counters and histograms that cost next to nothing to raise.
//!
//! Relaxed atomics, read when somebody asks. Nothing here decides anything. A counter that many
//! threads raise often is kept once per thread by its owner, who adds them up when asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Raises it, from any thread.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Raises it; only one thread may ever do so, and saves the price of a shared counter.
    pub fn add_alone(&self, count: u64) {
        self.0.store(self.get() + count, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The most buckets a histogram has, without the one for everything.
pub const BUCKETS_MAX: usize = 20;

/// The upper bounds of a histogram's buckets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bounds {
    /// The first bound in microseconds, and how many there are, each twice the one before.
    Doubling {
        /// The first.
        first_micros: u64,
        /// `0 < count <= BUCKETS_MAX`.
        count: usize,
    },
    /// Bounds in microseconds, ascending, at most [`BUCKETS_MAX`].
    Listed(&'static [u64]),
}

impl Bounds {
    /// How many bounds there are.
    pub fn len(self) -> usize {
        match self {
            Self::Doubling { count, .. } => count,
            Self::Listed(bounds) => bounds.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// One of the bounds, in microseconds.
    pub fn micros(self, at: usize) -> u64 {
        match self {
            Self::Doubling { first_micros, .. } => first_micros << at,
            Self::Listed(bounds) => bounds[at],
        }
    }
}

/// How often something took how long.
#[derive(Debug)]
pub struct Histogram {
    bounds: Bounds,
    /// By bucket, not cumulative; the last is for everything above the bounds.
    counts: [AtomicU64; BUCKETS_MAX + 1],
    sum_nanos: AtomicU64,
}

/// A histogram's numbers at one moment, more or less.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// The upper bounds.
    pub bounds: Bounds,
    /// By bucket, not cumulative; one more than there are bounds.
    pub counts: Vec<u64>,
    /// Of everything measured.
    pub sum: Duration,
}

impl Distribution {
    /// Adds another with the same bounds.
    pub fn add(&mut self, other: &Self) {
        assert_eq!(self.bounds, other.bounds, "one family has one set of bounds");
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.sum += other.sum;
    }
}

impl Histogram {
    /// One that has measured nothing.
    pub fn new(bounds: Bounds) -> Self {
        assert!(!bounds.is_empty() && bounds.len() <= BUCKETS_MAX, "{} bounds", bounds.len());
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        Self { bounds, counts, sum_nanos: AtomicU64::new(0) }
    }

    /// Adds a measurement.
    pub fn observe(&self, took: Duration) {
        let micros = took.as_nanos().div_ceil(1000) as u64;
        let buckets = 0..self.bounds.len();
        let fits = buckets.into_iter().find(|at| micros <= self.bounds.micros(*at));
        let bucket = fits.unwrap_or(self.bounds.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    /// What was measured so far.
    pub fn distribution(&self) -> Distribution {
        let counts = self.counts[..=self.bounds.len()].iter();
        Distribution {
            bounds: self.bounds,
            counts: counts.map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed)),
        }
    }
}

/// What the store counts. The apply thread alone raises these; their cache lines are theirs alone,
/// so that readers of what lies beside them do not wait for them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counts {
    /// Puts applied, those of transactions included.
    pub puts: Counter,
    /// Bytes of their keys and values.
    pub put_bytes: Counter,
    /// Deletes applied, each of one range.
    pub deletes: Counter,
    /// Ranges read by transactions that were applied.
    pub ranges: Counter,
    /// Transactions applied of more than one operation.
    pub txns: Counter,
    /// Leases granted.
    pub leases_granted: Counter,
    /// Leases revoked, by clients or by time.
    pub leases_revoked: Counter,
    /// Leases revoked by time.
    pub leases_expired: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_falls_into_the_first_bucket_that_reaches_it() {
        let histogram = Histogram::new(Bounds::Doubling { first_micros: 1000, count: 3 });
        for micros in [0, 1000, 1001, 2000, 4000, 4001, 1_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        // Above a bound by less than a microsecond is above it.
        histogram.observe(Duration::from_nanos(1_000_001));
        let mut distribution = histogram.distribution();
        assert_eq!(distribution.counts, [2, 3, 1, 2]);
        assert_eq!(distribution.sum, Duration::from_nanos(1_013_002_001));
        distribution.add(&histogram.distribution());
        assert_eq!(distribution.counts, [4, 6, 2, 4]);
    }

    #[test]
    fn bounds_can_be_listed() {
        let histogram = Histogram::new(Bounds::Listed(&[5000, 10_000]));
        histogram.observe(Duration::from_millis(7));
        assert_eq!(histogram.distribution().counts, [0, 1, 0]);
    }
}
