//! A run of neighbouring keys, with counts that spare looking at each.

use super::Cursor;
use super::version::{Version, Versions};

/// The most keys in one chunk.
const KEYS_MAX: usize = 64;
/// Chunks grow by so many places at a time; doubling would leave a quarter of the memory unused.
const KEYS_STEP: usize = 8;

#[derive(Debug)]
struct Entry {
    key: Box<[u8]>,
    versions: Versions,
}

const _: () = assert!(size_of::<Entry>() <= 56, "a million keys must stay small");

/// A run of keys in order.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    entries: Vec<Entry>,
    /// Keys whose latest version is not a tombstone: live <= entries.
    live: usize,
    /// Versions that are not the latest of a live key.
    garbage: usize,
    /// The newest main revision among the versions, ever.
    newest: i64,
}

impl Chunk {
    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn garbage(&self) -> usize {
        self.garbage
    }

    pub(super) fn newest(&self) -> i64 {
        self.newest
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Where `key` is, or where it would go.
    pub(super) fn position(&self, key: &[u8]) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.key.as_ref().cmp(key))
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<&Versions> {
        self.position(key).ok().map(|at| &self.entries[at].versions)
    }

    pub(super) fn key(&self, at: usize) -> Option<&[u8]> {
        self.entries.get(at).map(|entry| entry.key.as_ref())
    }

    pub(super) fn last_key(&self) -> Option<&[u8]> {
        self.entries.last().map(|entry| entry.key.as_ref())
    }

    pub(super) fn latest_live(&self, at: usize) -> Option<Version> {
        let latest = *self.entries[at].versions.latest();
        (!latest.is_tombstone()).then_some(latest)
    }

    /// The keys from `from` on.
    pub(super) fn entries_from(&self, from: &[u8]) -> impl Iterator<Item = (&[u8], &Versions)> {
        let at = match self.key(0) {
            Some(first) if first >= from => 0,
            _ => self.position(from).unwrap_or_else(|at| at),
        };
        self.entries[at..].iter().map(|entry| (entry.key.as_ref(), &entry.versions))
    }

    /// Adds a version of the key at its [`Chunk::position`]. Gives the upper part, and its bound,
    /// when the chunk is over-full after that.
    pub(super) fn add(
        &mut self,
        at: Result<usize, usize>,
        key: &[u8],
        version: Version,
    ) -> Option<(Cursor, Chunk)> {
        let at = match at {
            Ok(at) => {
                self.push(at, version);
                return None;
            }
            Err(at) => at,
        };
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(KEYS_STEP);
        }
        self.entries.insert(at, Entry { key: Box::from(key), versions: Versions::One(version) });
        self.newest = self.newest.max(version.mod_revision());
        self.live += usize::from(!version.is_tombstone());
        self.garbage += usize::from(version.is_tombstone());
        (self.entries.len() > KEYS_MAX).then(|| self.split(at))
    }

    /// Adds a version of the key at `at`.
    pub(super) fn push(&mut self, at: usize, version: Version) {
        let versions = &mut self.entries[at].versions;
        let was_live = !versions.latest().is_tombstone();
        versions.push(version);
        self.newest = self.newest.max(version.mod_revision());
        self.live = self.live + usize::from(!version.is_tombstone()) - usize::from(was_live);
        self.garbage += usize::from(was_live) + usize::from(version.is_tombstone());
    }

    /// Splits in the middle; but behind a key that was added at the end, so that keys arriving in
    /// order leave full chunks behind.
    fn split(&mut self, added: usize) -> (Cursor, Chunk) {
        let last = self.entries.len() - 1;
        let at = if added == last { last } else { self.entries.len() / 2 };
        let entries = self.entries.split_off(at);
        self.entries.shrink_to_fit();
        let mut upper = Chunk { entries, newest: self.newest, ..Chunk::default() };
        self.recount();
        upper.recount();
        (upper.entries[0].key.clone(), upper)
    }

    /// Takes in the keys of the chunk that follows, if both are small.
    pub(super) fn fits(&self, next: &Chunk) -> bool {
        self.len() + next.len() <= KEYS_MAX / 2
    }

    pub(super) fn append(&mut self, mut next: Chunk) {
        assert!(self.last_key() < next.key(0) || next.len() == 0, "chunks are in order");
        self.entries.append(&mut next.entries);
        self.live += next.live;
        self.garbage += next.garbage;
        self.newest = self.newest.max(next.newest);
    }

    /// Removes the versions that nobody at or above `at` can see, and the keys left with none.
    /// Gives each removed one to `dead`.
    pub(super) fn sweep(&mut self, at: i64, mut dead: impl FnMut(&Version)) {
        self.entries.retain_mut(|entry| {
            let count = entry.versions.dead_at(at);
            entry.versions.as_slice()[..count].iter().for_each(&mut dead);
            count == 0 || entry.versions.remove_oldest(count)
        });
        if self.entries.capacity() > self.entries.len() + 2 * KEYS_STEP {
            self.entries.shrink_to_fit();
        }
        self.recount();
    }

    /// The lengths of what a sweep at `at` would remove.
    pub(super) fn dead_bytes(&self, at: i64) -> u64 {
        let of_key = |entry: &Entry| {
            let dead = &entry.versions.as_slice()[..entry.versions.dead_at(at)];
            dead.iter().map(|version| u64::from(version.length())).sum::<u64>()
        };
        self.entries.iter().map(of_key).sum()
    }

    fn recount(&mut self) {
        let latest = self.entries.iter().map(|entry| entry.versions.latest());
        self.live = latest.filter(|version| !version.is_tombstone()).count();
        let all: usize = self.entries.iter().map(|entry| entry.versions.as_slice().len()).sum();
        self.garbage = all - self.live;
    }

    /// Counts anew and checks the order.
    #[cfg(test)]
    pub(super) fn check(&mut self) {
        let before = (self.live, self.garbage);
        self.recount();
        assert_eq!(before, (self.live, self.garbage));
        assert!(self.entries.is_sorted_by(|a, b| a.key < b.key));
        for entry in &self.entries {
            assert!(entry.versions.as_slice().is_sorted_by(|a, b| a.revision() < b.revision()));
            assert!(entry.versions.latest().mod_revision() <= self.newest);
        }
    }
}
