//! Latencies and how they spread.

use std::time::Duration;

/// Latencies of one run, exact.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    nanoseconds: Vec<u64>,
}

impl Sample {
    /// Takes up one latency.
    pub fn add(&mut self, latency: Duration) {
        self.nanoseconds.push(latency.as_nanos().try_into().unwrap_or(u64::MAX));
    }

    /// Takes up another's latencies.
    pub fn merge(&mut self, other: Self) {
        self.nanoseconds.extend(other.nanoseconds);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.nanoseconds.len()
    }

    /// The latencies that the given shares of all stay at or below; zero without any.
    pub fn percentiles<const N: usize>(&mut self, shares: [f64; N]) -> [Duration; N] {
        self.nanoseconds.sort_unstable();
        shares.map(|share| {
            let rank = (share * self.nanoseconds.len() as f64).ceil() as usize;
            let nanoseconds = self.nanoseconds.get(rank.saturating_sub(1)).copied();
            Duration::from_nanos(nanoseconds.unwrap_or_default())
        })
    }
}

/// The middle of some values, and the least and greatest of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => return None,
            length if length % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self { median, least: values[0], greatest: values[values.len() - 1] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let mut sample = Sample::default();
        (1..=1000).rev().for_each(|number| sample.add(Duration::from_nanos(number)));
        let found = sample.percentiles([0.5, 0.9, 0.99, 0.999, 1.0]);
        assert_eq!(found.map(|latency| latency.as_nanos()), [500, 900, 990, 999, 1000]);
        assert_eq!(Sample::default().percentiles([0.5]), [Duration::ZERO]);
    }

    #[test]
    fn a_spread_has_the_median_in_the_middle() {
        let odd = Spread::of(vec![3.0, 1.0, 2.0]).expect("values");
        assert_eq!((odd.median, odd.least, odd.greatest), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of(vec![1.0, 2.0]).expect("values").median, 1.5);
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
