//! Leases as replicated facts: who exists, what was granted, what a checkpoint says is left, and
//! which keys hang on them. No clock: when a lease runs out is the lease clock's business, which
//! follows this table through [`LeaseEvent`]s.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// One lease, without any notion of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Its id, never 0.
    pub id: i64,
    /// Seconds granted.
    pub ttl: i64,
    /// Seconds left as of the last checkpoint; 0 for "all of them".
    pub remaining_ttl: i64,
}

/// What happened to a lease, for whoever keeps the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// A lease was made.
    Granted {
        /// Which.
        id: i64,
        /// Seconds.
        ttl: i64,
    },
    /// A lease ended.
    Revoked {
        /// Which.
        id: i64,
    },
    /// What is left was recorded.
    Checkpoint {
        /// Which.
        id: i64,
        /// Seconds; 0 for "full again".
        remaining: i64,
    },
    /// Events were dropped because nobody drained them, or the whole table was replaced: read
    /// [`crate::Reader::leases`] anew. Always the first of a drain.
    Rescan,
}

/// The most events kept for a subscriber that does not drain them.
const EVENTS_MAX: usize = 65_536;

#[derive(Debug)]
struct Lease {
    ttl: i64,
    remaining_ttl: i64,
    keys: BTreeSet<Bytes>,
}

/// All leases.
#[derive(Debug, Default)]
pub(crate) struct LeaseTable {
    leases: BTreeMap<i64, Lease>,
    subscribed: bool,
    events: Vec<LeaseEvent>,
}

impl LeaseTable {
    pub(crate) fn contains(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    /// Adds a lease; false if the id is taken.
    pub(crate) fn grant(&mut self, info: LeaseInfo) -> bool {
        assert_ne!(info.id, 0, "lease 0 means no lease");
        if self.contains(info.id) {
            return false;
        }
        let LeaseInfo { id, ttl, remaining_ttl } = info;
        self.leases.insert(id, Lease { ttl, remaining_ttl, keys: BTreeSet::new() });
        self.tell(LeaseEvent::Granted { id, ttl });
        true
    }

    /// Ends a lease whose keys are gone already.
    pub(crate) fn revoke(&mut self, id: i64) {
        let lease = self.leases.remove(&id).expect("the caller has looked the lease up");
        assert!(lease.keys.is_empty(), "lease {id} ends with {} keys", lease.keys.len());
        self.tell(LeaseEvent::Revoked { id });
    }

    /// Records what is left of a lease; nothing happens to one that is gone.
    pub(crate) fn checkpoint(&mut self, id: i64, remaining: i64) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.remaining_ttl = remaining;
            self.tell(LeaseEvent::Checkpoint { id, remaining });
        }
    }

    pub(crate) fn attach(&mut self, id: i64, key: Bytes) {
        let lease = self.leases.get_mut(&id).expect("a put's lease was checked before");
        assert!(lease.keys.insert(key), "a key is attached to a lease once");
    }

    pub(crate) fn detach(&mut self, id: i64, key: &[u8]) {
        let lease = self.leases.get_mut(&id).expect("a stored key's lease exists");
        assert!(lease.keys.remove(key), "a stored key is attached to its lease");
    }

    pub(crate) fn info(&self, id: i64) -> Option<LeaseInfo> {
        let lease = self.leases.get(&id)?;
        Some(LeaseInfo { id, ttl: lease.ttl, remaining_ttl: lease.remaining_ttl })
    }

    /// The first `max` keys of a lease, in order.
    pub(crate) fn keys(&self, id: i64, max: usize) -> Vec<Bytes> {
        let lease = self.leases.get(&id);
        lease.map_or_else(Vec::new, |lease| lease.keys.iter().take(max).cloned().collect())
    }

    /// At most `max` keys of a lease, in order: the first ones, or those after `last`.
    pub(crate) fn keys_after(&self, id: i64, last: Option<&Bytes>, max: usize) -> Vec<Bytes> {
        let Some(lease) = self.leases.get(&id) else { return Vec::new() };
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        lease.keys.range::<Bytes, _>((from, Bound::Unbounded)).take(max).cloned().collect()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = LeaseInfo> + '_ {
        self.leases.iter().map(|(&id, lease)| LeaseInfo {
            id,
            ttl: lease.ttl,
            remaining_ttl: lease.remaining_ttl,
        })
    }

    /// Begins or ends keeping events.
    pub(crate) fn subscribe(&mut self, on: bool) {
        self.subscribed = on;
        self.events = Vec::new();
    }

    pub(crate) fn take_events(&mut self) -> Vec<LeaseEvent> {
        std::mem::take(&mut self.events)
    }

    /// Takes the place of `self`'s leases; a subscriber stays one and is told to look again.
    pub(crate) fn replace(&mut self, other: LeaseTable) {
        self.leases = other.leases;
        self.drop_events();
    }

    fn tell(&mut self, event: LeaseEvent) {
        if !self.subscribed {
            return;
        }
        if self.events.len() >= EVENTS_MAX {
            self.drop_events();
        }
        self.events.push(event);
    }

    fn drop_events(&mut self) {
        if self.subscribed {
            self.events = vec![LeaseEvent::Rescan];
        }
    }
}
