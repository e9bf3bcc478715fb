//! When each lease ends, by the leader's clock. No IO, no waiting; time comes in as an argument.
//!
//! ```text
//! granted --deadline passes--> expired --revoke proposed--> revoking --applied--> gone
//!    ^  keep-alive                |  keep-alives wait for the outcome     |
//!    +----------------------------+-- a revoke that failed is proposed again
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_store::{LeaseEvent, LeaseInfo};
use tokio::time::Instant;

use crate::port::TimeToLive;

/// Leases granted for longer have their remainder replicated now and then.
pub(crate) const CHECKPOINT_ABOVE: i64 = 300;
/// Leases in one such entry.
pub(crate) const CHECKPOINT_LEASES_MAX: usize = 1000;

#[derive(Clone, Copy, Debug)]
struct Running {
    ttl: i64,
    deadline: Instant,
    /// An expiry is proposed and its outcome not known.
    revoking: bool,
    /// The replicated remainder is less than the full TTL.
    checkpointed: bool,
}

/// What a keep-alive has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeepAlive {
    /// The lease starts anew, for so many seconds.
    Renewed(i64),
    /// No such lease.
    Gone,
    /// The lease is about to be revoked; ask again when that is decided.
    Ending,
    /// A shorter remainder is replicated: "full again" must be committed first.
    CommitFirst,
}

/// The leases of one leader in one term.
#[derive(Debug)]
pub(crate) struct Clock {
    term: u64,
    leases: BTreeMap<i64, Running>,
    by_deadline: BTreeSet<(Instant, i64)>,
}

fn seconds(seconds: i64) -> Duration {
    // TTLs are bounded far below this where they are granted.
    Duration::from_secs(seconds.clamp(0, 1 << 40) as u64)
}

impl Clock {
    /// Starts every lease at its replicated remainder, or else its full TTL, and `extension` more:
    /// the time in which nobody could be heard.
    pub(crate) fn start(
        term: u64,
        leases: &[LeaseInfo],
        extension: Duration,
        now: Instant,
    ) -> Self {
        let mut clock = Self { term, leases: BTreeMap::new(), by_deadline: BTreeSet::new() };
        for lease in leases {
            let checkpointed = lease.remaining_ttl > 0;
            let left = if checkpointed { lease.remaining_ttl } else { lease.ttl };
            let deadline = now + seconds(left) + extension;
            let running = Running { ttl: lease.ttl, deadline, revoking: false, checkpointed };
            clock.insert(lease.id, running);
        }
        clock
    }

    pub(crate) fn term(&self) -> u64 {
        self.term
    }

    fn insert(&mut self, id: i64, running: Running) {
        self.remove(id);
        self.by_deadline.insert((running.deadline, id));
        self.leases.insert(id, running);
    }

    fn remove(&mut self, id: i64) {
        if let Some(old) = self.leases.remove(&id) {
            self.by_deadline.remove(&(old.deadline, id));
        }
    }

    /// Takes over all leases there are, after events were lost. Known ones keep their deadlines.
    pub(crate) fn rescan(&mut self, leases: &[LeaseInfo], now: Instant) {
        let present: BTreeSet<i64> = leases.iter().map(|lease| lease.id).collect();
        let gone: Vec<i64> =
            self.leases.keys().copied().filter(|id| !present.contains(id)).collect();
        for id in gone {
            self.remove(id);
        }
        for lease in leases {
            let checkpointed = lease.remaining_ttl > 0;
            match self.leases.get_mut(&lease.id) {
                Some(running) => running.checkpointed = checkpointed,
                None => {
                    let deadline = now + seconds(lease.ttl);
                    let running =
                        Running { ttl: lease.ttl, deadline, revoking: false, checkpointed };
                    self.insert(lease.id, running);
                }
            }
        }
    }

    /// Takes over what was applied.
    pub(crate) fn observe(&mut self, event: &LeaseEvent, now: Instant) {
        match *event {
            LeaseEvent::Granted { id, ttl } => {
                let deadline = now + seconds(ttl);
                let running = Running { ttl, deadline, revoking: false, checkpointed: false };
                self.insert(id, running);
            }
            LeaseEvent::Revoked { id } => self.remove(id),
            LeaseEvent::Checkpoint { id, remaining } => {
                if let Some(running) = self.leases.get_mut(&id) {
                    running.checkpointed = remaining > 0;
                }
            }
            LeaseEvent::Rescan => unreachable!("the caller reads all leases then"),
        }
    }

    pub(crate) fn keep_alive(&mut self, id: i64, now: Instant) -> KeepAlive {
        match self.leases.get(&id) {
            None => KeepAlive::Gone,
            Some(running) if running.revoking || running.deadline <= now => KeepAlive::Ending,
            Some(running) if running.checkpointed => KeepAlive::CommitFirst,
            Some(running) => {
                let renewed = Running { deadline: now + seconds(running.ttl), ..*running };
                self.insert(id, renewed);
                KeepAlive::Renewed(renewed.ttl)
            }
        }
    }

    pub(crate) fn time_to_live(&self, id: i64, now: Instant) -> Option<TimeToLive> {
        let running = self.leases.get(&id)?;
        let remaining = match running.deadline.checked_duration_since(now) {
            Some(left) => left.as_secs() as i64,
            None => -(now.duration_since(running.deadline).as_secs() as i64),
        };
        Some(TimeToLive { granted: running.ttl, remaining })
    }

    /// At most `max` leases whose time is up and whose revoke is now to be proposed.
    pub(crate) fn expire(&mut self, now: Instant, max: usize) -> Vec<i64> {
        let mut expired = Vec::new();
        for &(deadline, id) in &self.by_deadline {
            if deadline > now || expired.len() == max {
                break;
            }
            let running = self.leases.get_mut(&id).expect("both maps hold the same leases");
            if !running.revoking {
                running.revoking = true;
                expired.push(id);
            }
        }
        expired
    }

    /// A revoke was proposed and did not take effect, as far as is known: propose it again.
    pub(crate) fn revoke_failed(&mut self, id: i64) {
        if let Some(running) = self.leases.get_mut(&id) {
            running.revoking = false;
        }
    }

    /// The remainders to replicate: of long leases that are running, rounded up.
    pub(crate) fn remainders(&self, now: Instant) -> Vec<(i64, i64)> {
        let mut remainders = Vec::new();
        for (&id, running) in &self.leases {
            let Some(left) = running.deadline.checked_duration_since(now) else { continue };
            let left = left.as_secs() as i64 + 1;
            if running.ttl > CHECKPOINT_ABOVE && left < running.ttl && !running.revoking {
                remainders.push((id, left));
            }
        }
        remainders
    }

    /// A remainder is about to be proposed: from now on a keep-alive has to undo it first.
    pub(crate) fn mark_checkpointed(&mut self, id: i64) {
        if let Some(running) = self.leases.get_mut(&id) {
            running.checkpointed = true;
        }
    }

    /// When the next lease ends.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENSION: Duration = Duration::from_secs(1);

    fn clock(now: Instant) -> Clock {
        let leases = [
            LeaseInfo { id: 1, ttl: 10, remaining_ttl: 0 },
            LeaseInfo { id: 2, ttl: 600, remaining_ttl: 60 },
        ];
        Clock::start(1, &leases, EXTENSION, now)
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_starts_leases_at_their_remainder_and_one_election_timeout() {
        let now = Instant::now();
        let mut clock = clock(now);
        assert_eq!(clock.time_to_live(1, now).expect("there").remaining, 11);
        assert_eq!(clock.time_to_live(2, now).expect("there").remaining, 61);
        assert!(clock.expire(now + Duration::from_millis(10_999), 10).is_empty());
        assert_eq!(clock.expire(now + Duration::from_secs(11), 10), [1]);
        assert_eq!(clock.expire(now + Duration::from_secs(61), 10), [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn keep_alives_wait_once_a_lease_has_expired() {
        let now = Instant::now();
        let mut clock = clock(now);
        assert_eq!(clock.keep_alive(1, now), KeepAlive::Renewed(10));
        let late = now + Duration::from_secs(10);
        assert_eq!(clock.keep_alive(1, late), KeepAlive::Ending);
        assert_eq!(clock.expire(late, 10), [1]);
        assert_eq!(clock.keep_alive(1, now), KeepAlive::Ending);
        assert!(clock.expire(late, 10).is_empty(), "one proposal at a time");
        clock.revoke_failed(1);
        assert_eq!(clock.expire(late, 10), [1]);
        clock.observe(&LeaseEvent::Revoked { id: 1 }, late);
        assert_eq!(clock.keep_alive(1, late), KeepAlive::Gone);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replicated_remainder_is_undone_before_a_keep_alive_is_answered() {
        let now = Instant::now();
        let mut clock = clock(now);
        assert_eq!(clock.keep_alive(2, now), KeepAlive::CommitFirst);
        clock.observe(&LeaseEvent::Checkpoint { id: 2, remaining: 0 }, now);
        assert_eq!(clock.keep_alive(2, now), KeepAlive::Renewed(600));
        assert!(clock.remainders(now).is_empty(), "a full lease has nothing to replicate");
        let later = now + Duration::from_secs(100);
        assert_eq!(clock.remainders(later), [(2, 501)]);
        clock.mark_checkpointed(2);
        assert_eq!(clock.keep_alive(2, later), KeepAlive::CommitFirst);
    }
}
