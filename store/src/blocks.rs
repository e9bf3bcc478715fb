//! Revision blocks: consecutive records, packed in order, compressed and checksummed; immutable.
//!
//! A block is the unit of storage, caching, compaction and transfer. Its place and its slots are in
//! memory, its key directory and body on disk (`format.rs` draws the bytes). What compaction gives
//! up is marked here, record by record; [`crate::manifest`] makes the marks durable. A block may
//! have more records on disk than slots: those that came after the manifest it was restored from.

use std::sync::Mutex;

use bytes::Bytes;

use crate::{Fatal, RecordHeader, Revision};

mod file;
pub(crate) mod format;
mod slots;
pub(crate) mod writer;

pub(crate) use file::{
    BLOCK_BYTES_MIN, BlockFile, CHECK_BYTES, Extent, FileId, Place, StoredDirectory,
};
pub(crate) use slots::Slots;

/// A block that is on disk.
pub(crate) struct Block {
    pub(crate) place: Place,
    pub(crate) slots: Slots,
    /// How many records it has on disk, cut off ones included.
    on_disk: usize,
    marks: Mutex<Marks>,
}

/// Which records of a block are still wanted.
#[derive(Clone, Default)]
pub(crate) struct Marks {
    /// One bit for each slot; empty while nothing is dead.
    dead: Box<[u8]>,
    dead_count: usize,
    dead_bytes: u64,
}

impl Block {
    /// A block all of whose records are alive, save those marked in `dead` (one bit for each slot).
    pub(crate) fn new(place: Place, slots: Slots, dead: &[u8]) -> Self {
        let on_disk = slots.count();
        let block = Self { place, slots, on_disk, marks: Mutex::new(Marks::default()) };
        for slot in 0..block.slots.count() {
            if bit(dead, slot) {
                block.mark_dead(slot);
            }
        }
        block
    }

    /// A block of which only the records in its slots are wanted, of `on_disk`.
    pub(crate) fn cut_from(mut self, on_disk: usize) -> Self {
        assert!(on_disk >= self.slots.count(), "a cut leaves less");
        self.on_disk = on_disk;
        self
    }

    /// One bit for each record on disk that is not wanted any more; empty when all are. What was
    /// cut off counts as dead: it is, or will be, in a later block.
    pub(crate) fn dead_bits(&self) -> Box<[u8]> {
        let mut bits = self.marks().dead;
        if self.on_disk > self.slots.count() {
            let mut all = bits.into_vec();
            all.resize(self.on_disk.div_ceil(8), 0);
            (self.slots.count()..self.on_disk).for_each(|slot| all[slot / 8] |= 1 << (slot % 8));
            bits = all.into();
        }
        bits
    }

    /// The oldest revision.
    pub(crate) fn first(&self) -> Revision {
        self.slots.first()
    }

    /// Gives a record up; false if it was before.
    pub(crate) fn mark_dead(&self, slot: usize) -> bool {
        let mut marks = self.marks.lock().expect("no panic under it");
        if bit(&marks.dead, slot) {
            return false;
        }
        if marks.dead.is_empty() {
            marks.dead = vec![0; self.slots.count().div_ceil(8)].into();
        }
        marks.dead[slot / 8] |= 1 << (slot % 8);
        marks.dead_count += 1;
        marks.dead_bytes += self.slots.range(slot).len() as u64;
        assert!(marks.dead_count <= self.slots.count(), "a record dies once");
        true
    }

    /// The marks as they are now.
    pub(crate) fn marks(&self) -> Marks {
        self.marks.lock().expect("no panic under it").clone()
    }

    /// How many records are still wanted.
    pub(crate) fn live_count(&self) -> usize {
        self.slots.count() - self.marks.lock().expect("no panic under it").dead_count
    }

    /// Bytes of records that are still wanted.
    pub(crate) fn live_bytes(&self) -> u64 {
        let dead = self.marks.lock().expect("no panic under it").dead_bytes;
        u64::from(self.slots.body_length()) - dead
    }

    /// The headers of the records that are still wanted, from `from` on.
    pub(crate) fn live_headers(&self, from: Revision) -> Result<Vec<RecordHeader>, Fatal> {
        let start = self.slots.first_at_or_after(from);
        if start == self.slots.count() {
            return Ok(Vec::new());
        }
        let headers = self.place.read_directory()?;
        let marks = self.marks();
        let live = headers.into_iter().enumerate().take(self.slots.count()).skip(start);
        Ok(live.filter(|(slot, _)| !marks.is_dead(*slot)).map(|(_, header)| header).collect())
    }

    /// One record's bytes out of the body.
    pub(crate) fn cut(&self, slot: usize, body: &Bytes) -> Bytes {
        body.slice(self.slots.range(slot))
    }
}

impl Marks {
    /// Whether a record has been given up.
    pub(crate) fn is_dead(&self, slot: usize) -> bool {
        bit(&self.dead, slot)
    }
}

fn bit(bits: &[u8], slot: usize) -> bool {
    bits.get(slot / 8).is_some_and(|byte| byte >> (slot % 8) & 1 == 1)
}
