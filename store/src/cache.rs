//! The block cache: decompressed bodies within a byte budget, in shards, replaced by CLOCK.
//!
//! A body that was read once and never again goes before one that was read twice, so a long scan
//! does not sweep out what is in use. Bodies that are lent out are counted until they leave the
//! cache, not until the borrower lets go; borrowers are bounded by the responses in flight.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use bytes::Bytes;

use crate::blocks::FileId;

/// Where a block lies.
pub(crate) type BlockId = (FileId, u64);

const SHARDS_MAX: u64 = 8;
const SHARD_BYTES_MIN: u64 = 4 << 20;

/// Bodies of blocks by place.
pub(crate) struct BlockCache {
    shards: Box<[Mutex<Shard>]>,
}

/// How a cache fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheFacts {
    /// Bodies that were looked for and found.
    pub hits: u64,
    /// Bodies that were looked for and not there.
    pub misses: u64,
    /// Bytes kept.
    pub bytes: u64,
}

#[derive(Default)]
struct Shard {
    bodies: HashMap<BlockId, Entry>,
    /// Every key of `bodies` once, the next to go first; also keys that have been removed.
    clock: VecDeque<BlockId>,
    bytes: u64,
    budget: u64,
    hits: u64,
    misses: u64,
}

/// How many ids of removed bodies a shard keeps besides as many as it has bodies.
const CLOCK_SLACK: usize = 64;

struct Entry {
    body: Bytes,
    used: bool,
}

impl BlockCache {
    /// A cache of at most `budget` bytes.
    pub(crate) fn new(budget: u64) -> Self {
        let count = (budget / SHARD_BYTES_MIN).clamp(1, SHARDS_MAX);
        let shard = || Mutex::new(Shard { budget: budget / count, ..Shard::default() });
        Self { shards: (0..count).map(|_| shard()).collect() }
    }

    /// The body of a block, if it is here.
    pub(crate) fn find(&self, id: BlockId) -> Option<Bytes> {
        let mut shard = self.shard(id);
        let Some(entry) = shard.bodies.get_mut(&id) else {
            shard.misses += 1;
            return None;
        };
        entry.used = true;
        let body = entry.body.clone();
        shard.hits += 1;
        Some(body)
    }

    /// Keeps a body; others leave to make room. A body larger than a shard is not kept.
    pub(crate) fn insert(&self, id: BlockId, body: Bytes) {
        self.shard(id).insert(id, body);
    }

    /// Lets a body go.
    pub(crate) fn remove(&self, id: BlockId) {
        self.shard(id).remove(id);
    }

    /// How it fares.
    pub(crate) fn facts(&self) -> CacheFacts {
        let mut facts = CacheFacts::default();
        for shard in &self.shards {
            let shard = shard.lock().expect("no panic under it");
            facts.hits += shard.hits;
            facts.misses += shard.misses;
            facts.bytes += shard.bytes;
        }
        facts
    }

    fn shard(&self, (file, offset): BlockId) -> std::sync::MutexGuard<'_, Shard> {
        let mixed = (file.sequence.wrapping_mul(31) ^ (offset >> 12)).wrapping_mul(0x9e37_79b9);
        let at = (mixed >> 16) as usize % self.shards.len();
        self.shards[at].lock().expect("no panic under it")
    }
}

impl Shard {
    fn insert(&mut self, id: BlockId, body: Bytes) {
        let length = body.len() as u64;
        if length > self.budget || self.bodies.contains_key(&id) {
            return;
        }
        while self.bytes + length > self.budget {
            self.evict();
        }
        self.bytes += length;
        self.bodies.insert(id, Entry { body, used: false });
        self.clock.push_back(id);
    }

    fn evict(&mut self) {
        let id = self.clock.pop_front().expect("bytes are held by something in the clock");
        match self.bodies.get_mut(&id) {
            Some(entry) if entry.used => {
                entry.used = false;
                self.clock.push_back(id);
            }
            _ => self.remove(id),
        }
    }

    fn remove(&mut self, id: BlockId) {
        if let Some(entry) = self.bodies.remove(&id) {
            self.bytes -= entry.body.len() as u64;
        }
        // What was removed is still in the clock, which otherwise only eviction empties.
        if self.clock.len() > 2 * self.bodies.len() + CLOCK_SLACK {
            self.clock.retain(|id| self.bodies.contains_key(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(offset: u64) -> BlockId {
        (FileId { incarnation: 1, sequence: 1 }, offset)
    }

    #[test]
    fn what_is_removed_leaves_nothing_behind() {
        let cache = BlockCache::new(10_000);
        for offset in 0..1000 {
            cache.insert(id(offset), Bytes::from(vec![0; 100]));
            cache.remove(id(offset));
        }
        let clock: usize = cache.shards.iter().map(|shard| shard.lock().unwrap().clock.len()).sum();
        assert!(clock <= CLOCK_SLACK * cache.shards.len(), "{clock} ids are kept");
    }

    #[test]
    fn the_budget_holds_and_what_is_used_twice_stays() {
        let cache = BlockCache::new(10_000);
        cache.insert(id(0), Bytes::from(vec![7; 1000]));
        for offset in 1..1000 {
            assert_eq!(cache.find(id(0)).unwrap(), vec![7; 1000]);
            cache.insert(id(offset), Bytes::from(vec![0; 900]));
            assert!(cache.facts().bytes <= 10_000);
        }
        assert!(cache.find(id(1)).is_none());
        assert!(cache.find(id(999)).is_some());
        cache.insert(id(5000), Bytes::from(vec![0; 10_001]));
        assert!(cache.find(id(5000)).is_none());
        (0..1000).for_each(|offset| cache.remove(id(offset)));
        assert_eq!(cache.facts().bytes, 0);
        assert_eq!(cache.facts().hits, 1000);
        assert_eq!(cache.facts().misses, 2);
    }
}
