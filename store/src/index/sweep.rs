//! Compaction of the index, a bounded part at a time.

use std::ops::Bound::{Excluded, Included, Unbounded};

use crate::Revision;

use super::{Cursor, Index, chunk_mut};

/// How many chunks one part may pass over.
const CHUNKS_MAX: usize = 4096;
/// How many of them may have garbage: those are looked at key by key, under the index lock.
const DIRTY_CHUNKS_MAX: usize = 32;

/// What one part of a sweep did.
#[derive(Debug, Default)]
pub(crate) struct SweepPart {
    /// The revisions removed.
    pub dead: Vec<Revision>,
    /// Lengths of records that are dead at the compacted revision, but not at the one swept to.
    pub pinned_bytes: u64,
    /// Where to go on; none at the end.
    pub next: Option<Cursor>,
}

impl Index {
    /// Removes, from `cursor` on, what nobody at or above `target` can see, and sums what only
    /// `compacted` would remove (`target <= compacted`). Stops when `max` revisions were removed,
    /// give or take a chunk, or after a bounded number of chunks.
    pub(crate) fn sweep(
        &mut self,
        cursor: Option<&[u8]>,
        target: i64,
        compacted: i64,
        max: usize,
    ) -> SweepPart {
        assert!(target <= compacted, "a sweep goes no further than the compaction");
        let mut part = SweepPart::default();
        let mut from: Cursor = Box::from(cursor.unwrap_or_default());
        let mut dirty = 0;
        for _ in 0..CHUNKS_MAX {
            let (chunk, next) = self.chunk_mut_and_next(&from);
            if chunk.garbage() > 0 {
                dirty += 1;
                chunk.sweep(target, |version| part.dead.push(version.revision()));
                if target < compacted {
                    part.pinned_bytes += chunk.dead_bytes(compacted);
                }
                if !self.remove_if_empty(&from) {
                    self.merge_after(&from);
                }
            }
            let Some(next) = next else { return part };
            from = next;
            if part.dead.len() >= max || dirty == DIRTY_CHUNKS_MAX {
                break;
            }
        }
        part.next = Some(from);
        part
    }

    /// Removes the chunk that covers `key` if it has no keys; the one before it covers its range
    /// from then on. The very first stays.
    fn remove_if_empty(&mut self, key: &[u8]) -> bool {
        let floor = self.chunks.range::<[u8], _>((Unbounded, Included(key))).next_back();
        let (bound, chunk) = floor.expect("the empty bound is always there");
        if chunk.len() > 0 || bound.is_empty() {
            return false;
        }
        let bound = bound.clone();
        self.chunks.remove(&bound);
        true
    }

    /// Puts the chunk that covers `key` together with the next ones while they are small. The
    /// cursor of a sweep may thereby point into a chunk; that chunk is only swept once more.
    fn merge_after(&mut self, key: &[u8]) {
        loop {
            let mut after = self.chunks.range::<[u8], _>((Excluded(key), Unbounded));
            let Some((bound, next)) = after.next() else { return };
            if !self.chunk(key).fits(next) {
                return;
            }
            let bound = bound.clone();
            let next = self.chunks.remove(&bound).expect("it was just found");
            chunk_mut(&mut self.chunks, key).append(next);
        }
    }
}
