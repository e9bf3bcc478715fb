//! Log lines that strangers can cause: at most so many in a while, and the next one says how many
//! were left out.
//!
//! Knows nothing of logs: it only tells whoever writes one whether to.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets a few through in each interval.
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    burst: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the present interval began.
    began: Option<Instant>,
    passed: u32,
    left_out: u64,
}

impl Throttle {
    /// One in each interval.
    pub const fn every(interval: Duration) -> Self {
        Self::burst(1, interval)
    }

    /// At most `burst` in each interval, which begins with the first of them.
    pub const fn burst(burst: u32, interval: Duration) -> Self {
        let state = State { began: None, passed: 0, left_out: 0 };
        Self { interval, burst, state: Mutex::new(state) }
    }

    /// Whether the line may be written, and then how many were not since the last one.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.began.is_none_or(|began| now.saturating_duration_since(began) >= self.interval) {
            state.began = Some(now);
            state.passed = 0;
        }
        if state.passed == self.burst {
            state.left_out += 1;
            return None;
        }
        state.passed += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_passes_in_each_interval_and_counts_the_others() {
        let second = Duration::from_secs(1);
        let throttle = Throttle::every(second);
        let start = Instant::now();
        assert_eq!(throttle.pass(start), Some(0));
        assert_eq!(throttle.pass(start), None);
        assert_eq!(throttle.pass(start + second / 2), None);
        assert_eq!(throttle.pass(start + second), Some(2));
        assert_eq!(throttle.pass(start + second * 2), Some(0));
    }

    #[test]
    fn a_burst_passes_before_the_others_are_left_out() {
        let second = Duration::from_secs(1);
        let throttle = Throttle::burst(2, second);
        let start = Instant::now();
        assert_eq!(throttle.pass(start), Some(0));
        assert_eq!(throttle.pass(start + second / 2), Some(0));
        assert_eq!(throttle.pass(start + second / 2), None);
        assert_eq!(throttle.pass(start + second), Some(1));
    }
}
