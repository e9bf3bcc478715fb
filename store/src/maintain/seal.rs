//! Sealing: records leave the tail and become blocks.

use std::sync::Arc;

use super::Maintainer;
use crate::Record;
use crate::blocks::format::Built;
use crate::blocks::writer::WriteError;
use crate::blocks::{Block, Slots};
use crate::records::{Core, TailRecord};

/// How many blocks a step writes at most.
const BLOCKS_MAX: usize = 16;

/// The records that make the next block.
struct Picked {
    records: Vec<Record>,
    /// How many leave the tail: the records, and dead ones between them.
    count: usize,
    epoch: u64,
}

/// When a block is worth writing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Once there are enough records for it.
    Full,
    /// Now: a manifest needs it.
    All,
}

impl Maintainer {
    /// Writes out full blocks of what the log has flushed.
    pub(super) fn seal_some(&mut self, flushed: u64) -> Result<bool, WriteError> {
        // What applied without being flushed must not become durable before its entry does.
        let limit = match self.disk.options.plants.skip_flushed_comparison {
            true => u64::MAX,
            false => flushed,
        };
        let mut worked = false;
        for _ in 0..BLOCKS_MAX {
            if !self.seal_one(limit, Wanted::Full)? {
                break;
            }
            worked = true;
        }
        Ok(worked)
    }

    /// Writes out everything that belongs to entries up to `index`.
    pub(super) fn seal_all(&mut self, index: u64) -> Result<(), WriteError> {
        while self.seal_one(index, Wanted::All)? {}
        Ok(())
    }

    fn seal_one(&mut self, index: u64, wanted: Wanted) -> Result<bool, WriteError> {
        let block_bytes = self.disk.options.block_bytes;
        let picked = pick(&self.disk.records.shared.read(), index, wanted, block_bytes);
        let Some(picked) = picked else { return Ok(false) };
        if picked.records.is_empty() {
            self.swap(&picked, None);
            return Ok(true);
        }
        let block = self.write_block(&picked.records)?;
        self.swap(&picked, Some(block));
        Ok(true)
    }

    /// Writes a block of these records, and puts its body into the cache.
    pub(super) fn write_block(&mut self, records: &[Record]) -> Result<Arc<Block>, WriteError> {
        let built = Built::pack(records.iter());
        let shared = &self.disk.records.shared;
        let unnamed = &mut self.unnamed;
        // A received file may have taken the place of a damaged one; blocks that were appended to
        // the old one would be nowhere after a restart.
        self.writer.leave_unless(|current| {
            let registry = shared.registry();
            registry.get(&current.id).is_some_and(|known| Arc::ptr_eq(known, current))
        });
        let place = self.writer.write(&built, &mut |file| {
            *unnamed = true;
            shared.registry().insert(file.id, file.clone());
        })?;
        shared.cache.insert(place.id(), built.body.clone());
        Ok(Arc::new(Block::new(place, built.slots, &[])))
    }

    /// Readers find the records in the block from here on.
    fn swap(&mut self, picked: &Picked, block: Option<Arc<Block>>) {
        let mut core = self.disk.records.shared.write();
        if core.epoch != picked.epoch {
            // A checkpoint has replaced everything meanwhile; the block is garbage in its file.
            return;
        }
        if let Some(block) = block {
            let gone = core.tail.front(picked.count).filter(|tail| tail.dead);
            for tail in gone {
                if let Some(slot) = block.slots.find(tail.record.revision) {
                    block.mark_dead(slot);
                }
            }
            block.place.keep();
            core.blocks.insert(block.first(), block);
        }
        core.tail.remove_front(picked.count);
    }
}

/// Chooses the next records to seal: about a block's worth, or one that is larger than a block.
fn pick(core: &Core, index: u64, wanted: Wanted, block_bytes: usize) -> Option<Picked> {
    let eligible = core.tail.count_up_to(index);
    let mut picked = Picked { records: Vec::new(), count: 0, epoch: core.epoch };
    let mut bytes = 0;
    for tail in core.tail.front(eligible) {
        if !tail.dead {
            if !fits(&picked.records, bytes, tail, block_bytes) {
                return Some(picked);
            }
            bytes += tail.record.bytes.len();
            picked.records.push(tail.record.clone());
        }
        picked.count += 1;
        if bytes >= block_bytes {
            return Some(picked);
        }
    }
    if wanted == Wanted::All {
        return (picked.count > 0).then_some(picked);
    }
    // Too little for a block; but what is dead at the front need not wait for it.
    let dead = core.tail.front(picked.count).take_while(|tail| tail.dead).count();
    (dead > 0).then(|| Picked { records: Vec::new(), count: dead, epoch: core.epoch })
}

fn fits(records: &[Record], bytes: usize, next: &TailRecord, block_bytes: usize) -> bool {
    let Some(first) = records.first() else { return true };
    let large = bytes + next.record.bytes.len() > 2 * block_bytes;
    !large && Slots::reaches(first.revision, next.record.revision)
}
