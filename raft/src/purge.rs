//! Which entries the log may forget.
//!
//! Two verified checkpoints are kept, and the log reaches back to the older one. Above that, the
//! last `--snapshot-catchup-entries` stay for slow followers, and whatever a follower needs that has
//! just been sent a checkpoint. Both are bounded by a part of the file system, with little room by a
//! part of what is free, and with less than a quarter of the reserve nothing is kept.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_store::ManifestInfo;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::log_facts::LogFacts;
use crate::propose::Raft;
use crate::room::{Gauge, Room, reserve_bytes};
use crate::wal::Wal;

/// A follower this close needs nothing held back any more, as long as so much stays for it anyway.
const NEAR: u64 = 1000;
/// A log of this size is held back for nobody.
const HELD_BYTES_MAX: u64 = 4 << 30;
/// The log keeps at most this part of the file system, with little room of what is free, for all
/// followers,
const CATCHUP_SHARE: u64 = 8;
/// and this part for those that have been sent a checkpoint.
const HELD_SHARE: u64 = 4;
/// How long openraft may take to look at a new checkpoint.
const LOOK: Duration = Duration::from_secs(10);

/// Entries held back for followers: after these indices nothing is purged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holds(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    members: Mutex<BTreeMap<u64, Hold>>,
    /// Streams of appends to members that have not come this far must end.
    streams_end: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    index: u64,
    bytes: u64,
}

impl Holds {
    /// `member` is being sent a checkpoint that ends at `index`.
    pub(crate) fn hold(&self, member: u64, index: u64, bytes: u64) {
        let mut holds = self.0.members.lock().unwrap_or_else(PoisonError::into_inner);
        holds.insert(member, Hold { index, bytes });
    }

    /// Whether a stream of appends to a member that holds everything up to `matching` has held up a
    /// purge for too long. Once it ends, openraft purges, and sends the member a checkpoint.
    pub(crate) fn must_end(&self, matching: u64) -> bool {
        matching < self.0.streams_end.load(Ordering::Acquire)
    }

    /// The lowest index that a lagging member still needs. `matching` tells how far a member has
    /// come, and nothing once it is near. `bytes` is the length of the log so far, and `most` what
    /// may be written before a hold ends.
    fn lowest(&self, matching: impl Fn(u64) -> Option<u64>, bytes: u64, most: u64) -> Option<u64> {
        let mut holds = self.0.members.lock().unwrap_or_else(PoisonError::into_inner);
        holds.retain(|member, hold| {
            let Some(index) = matching(*member) else { return false };
            hold.index = hold.index.max(index);
            bytes.saturating_sub(hold.bytes) < most
        });
        holds.values().map(|hold| hold.index).min()
    }
}

/// A purge that openraft puts off, as it does while a stream to a slow member may need the entries.
#[derive(Debug, Default)]
struct Delay {
    purged: u64,
    /// The length of the log when the purge became due.
    since_bytes: u64,
}

impl Delay {
    /// Up to which index members must have come to keep their streams, once `most` was written
    /// meanwhile.
    fn look(&mut self, purged: u64, upto: u64, bytes: u64, most: u64) -> u64 {
        if purged >= upto || purged != self.purged {
            *self = Self { purged, since_bytes: bytes };
        }
        let is_long = bytes.saturating_sub(self.since_bytes) >= most;
        if is_long && purged < upto { upto } else { 0 }
    }
}

/// The task that purges.
pub(crate) struct Purger {
    pub(crate) raft: Raft,
    pub(crate) taken: watch::Receiver<Vec<ManifestInfo>>,
    pub(crate) holds: Holds,
    pub(crate) log: LogFacts,
    pub(crate) wal: Wal,
    pub(crate) catchup_entries: u64,
    pub(crate) gauge: Gauge,
}

/// How often holds are looked at again.
const TICK: Duration = Duration::from_secs(5);

impl Purger {
    /// Runs until the node stops and drops it, or openraft stops.
    pub(crate) async fn run(mut self) {
        let mut told = 0;
        let mut delay = Delay::default();
        let mut room = self.gauge.changes();
        loop {
            let manifests = self.taken.borrow_and_update().clone();
            if let Some(newest) = manifests.last() {
                let newest = newest.position.index;
                if newest > told {
                    if !self.tell(newest).await {
                        return;
                    }
                    told = newest;
                }
                if !self.purge(&manifests, &mut delay).await {
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                Ok(()) = self.taken.changed() => {}
                Ok(()) = room.changed() => {}
            }
        }
    }

    /// Shows openraft the newest checkpoint; it purges only what it knows to be in one.
    async fn tell(&self, index: u64) -> bool {
        if self.raft.trigger().snapshot().await.is_err() {
            return false;
        }
        let until = Instant::now() + LOOK;
        let mut metrics = self.raft.data_metrics();
        loop {
            let seen = metrics.borrow_watched().snapshot.map_or(0, |log_id| log_id.index);
            if seen >= index {
                return true;
            }
            match tokio::time::timeout_at(until, metrics.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return false,
                Err(_) => return true,
            }
        }
    }

    async fn purge(&self, manifests: &[ManifestInfo], delay: &mut Delay) -> bool {
        let [older, newest] = manifests else { return true };
        let catchup = self.catchup(newest.position.index);
        let mut upto = older.position.index.min(newest.position.index - catchup);
        let (bytes, most) = (self.log.bytes(), self.held_bytes_max());
        let lagging = |member| self.lagging(member, catchup);
        if let Some(held) = self.holds.lowest(lagging, bytes, most) {
            upto = upto.min(held);
        }
        let purged = self.raft.data_metrics().borrow_watched().purged;
        let purged = purged.map_or(0, |log_id| log_id.index);
        let streams_end = delay.look(purged, upto, bytes, most);
        self.holds.0.streams_end.store(streams_end, Ordering::Release);
        if purged >= upto {
            return true;
        }
        tracing::debug!(upto, "purging the log");
        self.raft.trigger().purge_log(upto).await.is_ok()
    }

    /// How many entries up to `newest` are kept for slow followers.
    fn catchup(&self, newest: u64) -> u64 {
        let entries = self.catchup_entries.min(newest);
        let within = |bytes| self.wal.start_within(bytes).map_or(0, |at| newest.saturating_sub(at));
        match self.gauge.log_room() {
            Room::Ample => entries.min(within(self.gauge.total() / CATCHUP_SHARE)),
            Room::Enough | Room::Little => entries.min(within(self.gauge.free() / CATCHUP_SHARE)),
            Room::Short | Room::Last => entries.min(within(self.last_bytes())),
            Room::Least | Room::Dregs => 0,
        }
    }

    /// How much may be written while entries are held back for somebody.
    fn held_bytes_max(&self) -> u64 {
        match self.gauge.log_room() {
            Room::Ample => HELD_BYTES_MAX.min(self.gauge.total() / HELD_SHARE),
            Room::Enough | Room::Little => HELD_BYTES_MAX.min(self.gauge.free() / HELD_SHARE),
            Room::Short | Room::Last => self.last_bytes(),
            Room::Least | Room::Dregs => 0,
        }
    }

    /// What is kept of the log within the reserve: where only deletes come in it lasts long, and who
    /// restarts meanwhile would need a checkpoint, for which there is no room.
    fn last_bytes(&self) -> u64 {
        reserve_bytes(self.gauge.total()) / CATCHUP_SHARE
    }

    /// How far `member` has come, if this member leads and `member` is not near its end.
    fn lagging(&self, member: u64, catchup: u64) -> Option<u64> {
        // What is kept for everybody must cover what is no longer held for this one.
        let near = NEAR.min(catchup / 2);
        let metrics = self.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        let matching = metrics.replication.as_ref()?.get(&member)?;
        let matching = matching.map_or(0, |log_id| log_id.index);
        let behind = metrics.last_log?.index.saturating_sub(matching);
        (behind > near).then_some(matching)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_that_is_put_off_ends_the_streams_in_its_way_at_last() {
        let mut delay = Delay::default();
        assert_eq!(delay.look(0, 0, 1000, HELD_BYTES_MAX), 0);
        assert_eq!(delay.look(0, 100, 1000, HELD_BYTES_MAX), 0);
        assert_eq!(delay.look(0, 200, 1000 + HELD_BYTES_MAX - 1, HELD_BYTES_MAX), 0);
        assert_eq!(delay.look(0, 300, 1000 + HELD_BYTES_MAX, HELD_BYTES_MAX), 300);
        let holds = Holds::default();
        holds.0.streams_end.store(300, Ordering::Release);
        assert!(holds.must_end(299) && !holds.must_end(300));
        assert_eq!(delay.look(150, 300, 1000 + HELD_BYTES_MAX, HELD_BYTES_MAX), 0, "it goes on");
        assert_eq!(
            delay.look(300, 300, 1000 + 3 * HELD_BYTES_MAX, HELD_BYTES_MAX),
            0,
            "nothing is due"
        );
        assert_eq!(delay.look(300, 400, 1000 + 3 * HELD_BYTES_MAX, 0), 400, "at once without room");
        assert_eq!(delay.look(400, 400, 1000 + 3 * HELD_BYTES_MAX, 0), 0, "nothing is due");
    }

    #[test]
    fn a_hold_follows_its_member_and_ends_with_its_lag() {
        let holds = Holds::default();
        holds.hold(1, 100, 0);
        holds.hold(2, 200, 0);
        assert_eq!(holds.lowest(|_| Some(0), 0, HELD_BYTES_MAX), Some(100));
        assert_eq!(holds.lowest(|member| Some(member * 150), 0, HELD_BYTES_MAX), Some(150));
        assert_eq!(holds.lowest(|member| (member == 2).then_some(0), 0, HELD_BYTES_MAX), Some(300));
        assert_eq!(holds.lowest(|_| Some(0), HELD_BYTES_MAX, HELD_BYTES_MAX), None);
        assert_eq!(
            holds.lowest(|_| Some(0), 0, HELD_BYTES_MAX),
            None,
            "a hold that ended stays ended"
        );
        holds.hold(1, 100, 0);
        assert_eq!(holds.lowest(|_| Some(0), 0, 0), None, "nothing is held without room");
    }
}
