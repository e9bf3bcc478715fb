//! How much the store holds, as a function of replicated state alone.
//!
//! ```text
//! revision       2          3           4           5
//! change       put a      put b       put a       del b
//! counts        10         10          11           4 (until a compaction to 5)
//! until     compact 4   compact 5     for now
//! ```
//!
//! Counted are the encoded records of the history that is readable, that is of every put until a
//! compaction reaches the revision which superseded it, and of every tombstone until one reaches
//! its own; and something for each lease. What a sweep has removed, how blocks are packed and what
//! the file system takes make no difference, so all members have the same count at the same entry,
//! and a member that starts from a checkpoint has it too.

use std::collections::VecDeque;

use crate::index::{Index, Versions};

/// What a lease counts for, as in etcd's quota.
pub(super) const LEASE_BYTES: u64 = 64;

/// How many entries of `superseded` are kept room for, whatever happens.
const SUPERSEDED_MIN: usize = 1 << 10;

/// The count, and what compaction will take off it.
#[derive(Debug, Default)]
pub(super) struct Usage {
    records: u64,
    leases: u64,
    /// Of every main revision above the compacted one that superseded something: how many bytes were
    /// superseded until then, itself included, counted from any beginning. A sum for each, so that a
    /// compaction is one subtraction, however much it reaches over.
    superseded: VecDeque<(i64, u64)>,
    /// The sum that compaction has reached.
    ended: u64,
}

/// What one revision adds to the count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Growth {
    /// Bytes of its own records.
    pub added: u64,
    /// Of those and of earlier ones, bytes that a compaction to this revision takes off.
    pub superseded: u64,
}

impl Usage {
    /// The count of what an index holds that was compacted to `compacted`, swept or not.
    pub(super) fn of(index: &Index, compacted: i64, leases: u64) -> Self {
        let mut usage = Self { leases, ..Self::default() };
        let mut superseded = Vec::new();
        index.each(|versions| usage.count(versions, compacted, &mut superseded));
        superseded.sort_unstable_by_key(|(revision, _)| *revision);
        superseded.dedup_by(|later, kept| {
            let is_same = later.0 == kept.0;
            kept.1 += if is_same { later.1 } else { 0 };
            is_same
        });
        superseded.iter().for_each(|(revision, bytes)| usage.supersede(*revision, *bytes));
        usage
    }

    fn supersede(&mut self, revision: i64, bytes: u64) {
        let (last, sum) = self.superseded.back().copied().unwrap_or((i64::MIN, self.ended));
        assert!(last < revision, "revision {revision} comes after {last}");
        self.superseded.push_back((revision, sum + bytes));
    }

    fn count(&mut self, versions: &Versions, compacted: i64, superseded: &mut Vec<(i64, u64)>) {
        let versions = versions.as_slice();
        for (at, version) in versions.iter().enumerate() {
            let end = match versions.get(at + 1) {
                _ if version.is_tombstone() => Some(version.mod_revision()),
                next => next.map(|next| next.mod_revision()),
            };
            if end.is_some_and(|end| end <= compacted) {
                continue;
            }
            let length = u64::from(version.length());
            self.records += length;
            if let Some(end) = end {
                superseded.push((end, length));
            }
        }
    }

    /// Bytes in all.
    pub(super) fn bytes(&self) -> u64 {
        self.records + self.leases * LEASE_BYTES
    }

    /// Takes in what `revision`, the newest, has changed.
    pub(super) fn grow(&mut self, revision: i64, growth: Growth) {
        self.records += growth.added;
        if growth.superseded > 0 {
            self.supersede(revision, growth.superseded);
        }
    }

    pub(super) fn compact(&mut self, compacted: i64) {
        let past = self.superseded.partition_point(|(at, _)| *at <= compacted);
        let Some((_, ended)) = self.superseded.drain(..past).next_back() else { return };
        let freed = ended - self.ended;
        self.records = self.records.checked_sub(freed).expect("what ends was counted");
        self.ended = ended;
        let room = SUPERSEDED_MIN.max(2 * self.superseded.len());
        if self.superseded.capacity() > 2 * room {
            self.superseded.shrink_to(room);
        }
    }

    pub(super) fn grant(&mut self) {
        self.leases += 1;
    }

    pub(super) fn revoke(&mut self) {
        self.leases = self.leases.checked_sub(1).expect("a lease that ends was granted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A usage after `revisions` overwrites of ten bytes each.
    fn overwritten(revisions: i64) -> Usage {
        let mut usage = Usage::default();
        for revision in 1..=revisions {
            let superseded = if revision == 1 { 0 } else { 10 };
            usage.grow(revision, Growth { added: 10, superseded });
        }
        usage
    }

    #[test]
    fn each_compaction_takes_off_what_it_reaches_over() {
        let mut usage = overwritten(10);
        for (compacted, left) in [(1, 100), (2, 90), (2, 90), (7, 40), (10, 10), (11, 10)] {
            usage.compact(compacted);
            assert_eq!(usage.bytes(), left, "compacted at {compacted}");
        }
        usage.grow(12, Growth { added: 10, superseded: 10 });
        usage.compact(12);
        assert_eq!(usage.bytes(), 10);
    }

    #[test]
    fn what_compaction_has_reached_takes_no_memory() {
        let mut usage = overwritten(1 << 20);
        usage.compact((1 << 20) - 10);
        assert!(usage.superseded.capacity() <= 2 * SUPERSEDED_MIN);
        assert_eq!(usage.bytes(), 110);
    }
}
