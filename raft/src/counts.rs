//! What a node counts and times for its operator. Nothing here decides anything.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_store::measure::{Bounds, Counter, Histogram};

/// etcd's buckets of what a disk does: 1 ms to 8 s.
const DISK: Bounds = Bounds::Doubling { first_micros: 1000, count: 14 };
/// etcd's buckets of round trips: 0.1 ms to 3 s.
const ROUND_TRIPS: Bounds = Bounds::Doubling { first_micros: 100, count: 16 };

/// What a node counts and times.
#[derive(Debug)]
pub struct NodeCounts {
    /// How long the log's syncs took.
    pub wal_fsync: Histogram,
    /// How long steps took that wrote blocks, their directory, or a checkpoint.
    pub commit: Histogram,
    /// How often a leader appeared.
    pub leader_changes: Counter,
    /// Heartbeats that were not answered in time.
    pub heartbeat_failures: Counter,
    /// Proposals of this member whose fate it does not know, or that nobody took.
    pub proposals_failed: Counter,
    /// Entries that took longer to apply than is expected.
    pub slow_applies: Counter,
    /// Read barriers that had to ask again.
    pub slow_read_indexes: Counter,
    /// Read barriers that failed.
    pub read_indexes_failed: Counter,
    /// Leases kept alive by this member as the leader.
    pub leases_renewed: Counter,
    peers: Mutex<BTreeMap<u64, Arc<PeerCounts>>>,
}

/// What a node counts and times of one peer.
#[derive(Debug)]
pub struct PeerCounts {
    /// Bytes sent to it.
    pub sent_bytes: Counter,
    /// Bytes received from it.
    pub received_bytes: Counter,
    /// Calls to it that failed.
    pub sent_failures: Counter,
    /// Round trips to it: of heartbeats, and of questions to the leader.
    pub round_trip: Histogram,
}

impl Default for PeerCounts {
    fn default() -> Self {
        Self {
            sent_bytes: Counter::default(),
            received_bytes: Counter::default(),
            sent_failures: Counter::default(),
            round_trip: Histogram::new(ROUND_TRIPS),
        }
    }
}

impl Default for NodeCounts {
    fn default() -> Self {
        Self {
            wal_fsync: Histogram::new(DISK),
            commit: Histogram::new(DISK),
            leader_changes: Counter::default(),
            heartbeat_failures: Counter::default(),
            proposals_failed: Counter::default(),
            slow_applies: Counter::default(),
            slow_read_indexes: Counter::default(),
            read_indexes_failed: Counter::default(),
            leases_renewed: Counter::default(),
            peers: Mutex::default(),
        }
    }
}

impl NodeCounts {
    /// What was counted of one peer.
    pub fn peer(&self, member: u64) -> Arc<PeerCounts> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.entry(member).or_default().clone()
    }

    /// Every peer there was, by id.
    pub fn peers(&self) -> Vec<(u64, Arc<PeerCounts>)> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.iter().map(|(member, counts)| (*member, counts.clone())).collect()
    }
}

/// What a node is measured by at one moment, beside what it has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSize {
    /// Segments of the log that hold something.
    pub segments: usize,
    /// Bytes made durable since the log was opened.
    pub written_bytes: u64,
    /// Bytes that wait for the disk.
    pub unflushed_bytes: u64,
    /// For how long the oldest of them has waited.
    pub unflushed_age: Duration,
}
