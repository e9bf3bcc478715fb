//! Log lines that strangers can cause: at most one in a while, which says how many were left out.
//!
//! Knows nothing of logs: it only tells whoever writes one whether to.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one through in each interval.
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Throttle {
    /// Nothing was let through yet.
    pub const fn every(interval: Duration) -> Self {
        Self { interval, state: Mutex::new(State { last: None, left_out: 0 }) }
    }

    /// Whether the line may be written, and then how many were not since the last one.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < self.interval) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
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
}
