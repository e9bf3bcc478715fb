//! Compaction by itself, as `--auto-compaction-mode` and `--auto-compaction-retention` ask for it.
//!
//! The rules are etcd's. *Periodic*: the revision is noted ten times in every period (or hour, if
//! that is shorter); after the first whole period, and then every period or hour, everything
//! before the revision of one period ago goes; notes being what they are, up to a tenth more stays.
//! *Revision*: every five minutes all but the newest so many revisions go. Every member keeps its
//! notes; only the leader compacts.

use std::collections::VecDeque;
use std::time::Duration;

use holdfast_raft::{Node, Port, ProposeError};
use holdfast_store::Rejected;
use tokio::time::Instant;

use crate::convert;

/// However long the period, history is cut this often.
const INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);
/// The revision is noted so many times in an interval, and a failed compaction tried again.
const NOTES: u32 = 10;
/// Between two compactions by revision.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// A period of next to nothing must not keep the runtime busy.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// How much history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// What happened within this time.
    Period(Duration),
    /// So many revisions.
    Revisions(i64),
}

/// Where the compactor looks, and what it asks for.
trait Store {
    /// The revision now.
    fn revision(&self) -> i64;
    /// Whether it is for this member to compact.
    fn leads(&self) -> bool;
    /// Compacts, or gives the reason why not.
    async fn compact(&self, revision: i64) -> Result<(), String>;
}

struct Member {
    node: Node,
    port: Port,
}

impl Store for Member {
    fn revision(&self) -> i64 {
        self.node.reader().revision()
    }

    fn leads(&self) -> bool {
        self.node.status().is_leader
    }

    async fn compact(&self, revision: i64) -> Result<(), String> {
        let proposed = self.port.propose(convert::compact(revision)).await;
        match proposed.map_err(|error: ProposeError| error.to_string())?.outcome.result {
            // Somebody else was quicker.
            Ok(_) | Err(Rejected::Compacted) => Ok(()),
            Err(rejected) => Err(rejected.to_string()),
        }
    }
}

/// Compacts now and then, for as long as it is polled; on the node's runtime.
pub async fn run(node: Node, retention: Retention) {
    let member = Member { port: node.port(), node };
    match retention {
        Retention::Period(period) => by_period(&member, period).await,
        Retention::Revisions(kept) => by_revision(&member, kept).await,
    }
}

async fn by_period(store: &impl Store, period: Duration) {
    let mut notes = Notes::new(period, Instant::now());
    loop {
        notes.note(store.revision());
        tokio::time::sleep(notes.pause()).await;
        let Some(revision) = notes.due(Instant::now()).filter(|_| store.leads()) else { continue };
        tracing::info!(revision, "compact-period" = ?period, "starting auto periodic compaction");
        let started = Instant::now();
        match store.compact(revision).await {
            Ok(()) => {
                let took = started.elapsed();
                tracing::info!(
                    revision,
                    "compact-period" = ?period,
                    ?took,
                    "completed auto periodic compaction"
                );
                notes.compacted(revision, Instant::now());
            }
            Err(error) => tracing::warn!(
                revision,
                "compact-period" = ?period,
                "retry-interval" = ?notes.pause(),
                error,
                "failed auto periodic compaction"
            ),
        }
    }
}

/// What periodic compaction remembers.
struct Notes {
    period: Duration,
    /// When the newest is added the oldest is of one period ago, once there are enough.
    revisions: VecDeque<i64>,
    /// The revision compacted last, 0 for none.
    last: i64,
    /// Nothing is compacted before this moment.
    not_before: Instant,
}

impl Notes {
    fn new(period: Duration, now: Instant) -> Self {
        let not_before = now + period;
        Self { period, revisions: VecDeque::new(), last: 0, not_before }
    }

    fn interval(&self) -> Duration {
        self.period.min(INTERVAL_MAX)
    }

    /// Between two notes.
    fn pause(&self) -> Duration {
        (self.interval() / NOTES).max(PAUSE_MIN)
    }

    fn note(&mut self, revision: i64) {
        self.revisions.push_back(revision);
        if self.revisions.len() as u128 > self.period.as_nanos() / self.pause().as_nanos() + 1 {
            self.revisions.pop_front();
        }
    }

    /// The revision to compact to, if it is time and there is something to compact.
    fn due(&self, now: Instant) -> Option<i64> {
        let oldest = *self.revisions.front()?;
        (now >= self.not_before && oldest != self.last).then_some(oldest)
    }

    fn compacted(&mut self, revision: i64, now: Instant) {
        self.last = revision;
        self.not_before = now + self.interval();
    }
}

async fn by_revision(store: &impl Store, kept: i64) {
    let mut last = 0;
    loop {
        tokio::time::sleep(REVISION_INTERVAL).await;
        let revision = store.revision().saturating_sub(kept);
        if !store.leads() || revision <= 0 || revision == last {
            continue;
        }
        let retention = kept;
        tracing::info!(
            revision,
            "revision-compaction-retention" = retention,
            "starting auto revision compaction"
        );
        match store.compact(revision).await {
            Ok(()) => {
                last = revision;
                tracing::info!(
                    revision,
                    "revision-compaction-retention" = retention,
                    "completed auto revision compaction"
                );
            }
            Err(error) => tracing::warn!(
                revision,
                "revision-compaction-retention" = retention,
                "retry-interval" = ?REVISION_INTERVAL,
                error,
                "failed auto revision compaction"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
