//! Which peers have fallen silent: said in the log once when it happens, and once when it ends.
//!
//! A call that fails is no news by itself, since one heartbeat is lost easily; a peer counts as
//! silent when its calls have failed for an election timeout without a success.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What is known of each peer that failed to answer.
pub(crate) struct Contacts {
    patience: Duration,
    silent: Mutex<BTreeMap<u64, Silence>>,
}

struct Silence {
    since: Instant,
    told: bool,
}

/// What is worth a line.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Nothing,
    Inactive,
    Active,
}

impl Contacts {
    /// Peers that are silent for `patience` are spoken of.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, silent: Mutex::default() }
    }

    /// `member` answered, if only with a refusal of what it was asked.
    pub(crate) fn heard(&self, member: u64, urls: &[String]) {
        if self.note(member, true) == News::Active {
            let peer = format_args!("{member:x}");
            tracing::info!(peer, ?urls, "peer became active");
        }
    }

    /// A call to `member` failed.
    pub(crate) fn missed(&self, member: u64, urls: &[String], reason: &dyn std::fmt::Display) {
        if self.note(member, false) == News::Inactive {
            let peer = format_args!("{member:x}");
            tracing::warn!(peer, ?urls, error = %reason, "peer became inactive");
        }
    }

    /// For how long every call to `member` has failed.
    pub(crate) fn silence_of(&self, member: u64) -> Duration {
        self.silent().get(&member).map_or(Duration::ZERO, |silence| silence.since.elapsed())
    }

    fn silent(&self) -> MutexGuard<'_, BTreeMap<u64, Silence>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, member: u64, answered: bool) -> News {
        let mut silent = self.silent();
        if answered {
            let ended = silent.remove(&member).is_some_and(|silence| silence.told);
            return if ended { News::Active } else { News::Nothing };
        }
        let now = Instant::now();
        let silence = silent.entry(member).or_insert(Silence { since: now, told: false });
        if silence.told || now - silence.since < self.patience {
            return News::Nothing;
        }
        silence.told = true;
        News::Inactive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: u64 = 7;
    const PATIENCE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_silence_is_told_once_and_so_is_its_end() {
        let contacts = Contacts::new(PATIENCE);
        assert_eq!(contacts.note(PEER, true), News::Nothing);
        assert_eq!(contacts.note(PEER, false), News::Nothing, "one call was lost");
        tokio::time::advance(PATIENCE).await;
        assert_eq!(contacts.note(PEER, false), News::Inactive);
        assert_eq!(contacts.note(PEER, false), News::Nothing);
        assert_eq!(contacts.silence_of(PEER), PATIENCE);
        assert_eq!(contacts.note(PEER, true), News::Active);
        assert_eq!(contacts.silence_of(PEER), Duration::ZERO);
        assert_eq!(contacts.note(PEER, true), News::Nothing);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_between_begins_the_wait_anew() {
        let contacts = Contacts::new(PATIENCE);
        contacts.note(PEER, false);
        tokio::time::advance(PATIENCE).await;
        contacts.note(PEER, true);
        assert_eq!(contacts.note(PEER, false), News::Nothing);
        assert_eq!(contacts.note(PEER + 1, false), News::Nothing, "each peer has its own");
    }
}
