//! Rewriting: neighbours that are mostly dead, small or in sparse files become new blocks.
//!
//! Blocks are examined in revision order, a window at a time, after compaction gave records up. A
//! *poor* block is worth rewriting by itself: it is more than half dead, or more than half of its
//! file is; or a quarter or an eighth, while the disk has little room. A *small* one is worth it in company. A
//! block without live records is a run that is rewritten into nothing.

use std::sync::Arc;

use super::{Held, Maintainer};
use crate::blocks::writer::WriteError;
use crate::blocks::{Block, Slots};
use crate::{Fatal, Record, Revision};

/// How many blocks a step examines.
const WINDOW: usize = 256;
/// How many blocks a step rewrites at most.
const RUN_BLOCKS_MAX: usize = 64;
/// How many bytes of live records a step rewrites, one block's excess apart.
const RUN_BYTES_MAX: u64 = 1 << 20;
/// How many small blocks in a row are worth merging.
const SMALL_RUN_MIN: usize = 8;

/// How far the search for blocks to rewrite has come.
pub(super) struct Search {
    next: Option<Revision>,
    /// Something died behind the search: another pass is due.
    again: bool,
}

impl Default for Search {
    /// A store that has just been opened is looked at once.
    fn default() -> Self {
        Self { next: Some(Revision::default()), again: false }
    }
}

impl Search {
    /// Something died: look at all blocks again.
    pub(super) fn begin(&mut self) {
        match self.next {
            Some(_) => self.again = true,
            None => self.next = Some(Revision::default()),
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.next.is_some()
    }

    /// Nothing is worth looking at until something dies.
    fn end_pass(&mut self) {
        self.next = std::mem::take(&mut self.again).then_some(Revision::default());
    }
}

/// What a look at one window found.
struct Run {
    blocks: Vec<Arc<Block>>,
    epoch: u64,
}

impl Maintainer {
    /// Examines one window of blocks and rewrites the first run in it that is worth it.
    pub(super) fn rewrite_some(&mut self) -> Result<bool, WriteError> {
        let Some(from) = self.rewrite.next else { return Ok(false) };
        let (window, epoch) = {
            let core = self.disk.records.shared.read();
            let window = core.blocks.range(from..).take(WINDOW).map(|(_, block)| block.clone());
            (window.collect::<Vec<_>>(), core.epoch)
        };
        let Some(last) = window.last() else {
            self.rewrite.end_pass();
            return Ok(true);
        };
        let after = Revision::new(last.first().main, last.first().sub + 1);
        match self.find_run(&window) {
            Some(blocks) => {
                self.rewrite_run(Run { blocks, epoch })?;
                // A rewritten file may have become sparse, and its blocks worth moving.
                self.rewrite.again = true;
            }
            None => self.rewrite.next = Some(after),
        }
        Ok(true)
    }

    fn find_run(&self, window: &[Arc<Block>]) -> Option<Vec<Arc<Block>>> {
        let mut run: Vec<Arc<Block>> = Vec::new();
        let (mut poor, mut bytes) = (0, 0);
        for block in window {
            let is_poor = self.is_poor(block);
            let full = run.len() >= RUN_BLOCKS_MAX || bytes >= RUN_BYTES_MAX;
            if full || !(is_poor || self.is_small(block)) {
                if is_worth_it(&run, poor) {
                    return Some(run);
                }
                (poor, bytes) = (0, 0);
                run.clear();
            }
            if is_poor || self.is_small(block) {
                poor += usize::from(is_poor);
                bytes += block.live_bytes();
                run.push(block.clone());
            }
        }
        is_worth_it(&run, poor).then_some(run)
    }

    fn is_poor(&self, block: &Block) -> bool {
        if !self.may_move() {
            return block.live_count() == 0;
        }
        let plain = u64::from(block.slots.body_length());
        let file = &block.place.file;
        let written = file.written().length;
        let garbage = written.saturating_sub(file.kept());
        block.live_count() == 0
            || self.is_garbage(plain - block.live_bytes(), plain)
            || self.is_garbage(garbage, written) && !self.writer.is_current(file.id)
    }

    /// Whether so much of the whole is garbage that the rest is worth moving.
    fn is_garbage(&self, garbage: u64, whole: u64) -> bool {
        match self.held {
            Held::Nothing => garbage * 2 > whole,
            held => garbage * held.garbage_share() >= whole,
        }
    }

    fn is_small(&self, block: &Block) -> bool {
        let small = block.slots.body_length() as usize * 2 < self.disk.options.block_bytes;
        small && self.may_move()
    }

    fn rewrite_run(&mut self, run: Run) -> Result<(), WriteError> {
        let records = live_records(&run.blocks)?;
        let counts: Vec<_> = records.iter().map(Vec::len).collect();
        let records: Vec<_> = records.into_iter().flatten().collect();
        let mut written = Vec::new();
        for records in cut(&records, self.disk.options.block_bytes) {
            let block = self.write_block(records)?;
            self.moved[0] += u64::from(block.place.length);
            written.push(block);
        }
        self.replace(&run, &counts, written);
        Ok(())
    }

    /// Readers find the records in the new blocks from here on. If anything has changed since the
    /// old blocks were read, the new ones are garbage in their file.
    fn replace(&mut self, run: &Run, counts: &[usize], written: Vec<Arc<Block>>) {
        let shared = &self.disk.records.shared;
        let mut core = shared.write();
        let same = |(block, count): (&Arc<Block>, &usize)| {
            let found = core.blocks.get(&block.first());
            found.is_some_and(|found| Arc::ptr_eq(found, block)) && block.live_count() == *count
        };
        if core.epoch != run.epoch || !run.blocks.iter().zip(counts).all(same) {
            return;
        }
        for block in &run.blocks {
            core.blocks.remove(&block.first());
            block.place.let_go();
            self.given_up += u64::from(block.place.length);
            shared.cache.remove(block.place.id());
        }
        for block in written {
            block.place.keep();
            core.blocks.insert(block.first(), block);
        }
    }
}

fn is_worth_it(run: &[Arc<Block>], poor: usize) -> bool {
    poor > 0 || run.len() >= SMALL_RUN_MIN
}

/// The records of each block that are still wanted.
fn live_records(blocks: &[Arc<Block>]) -> Result<Vec<Vec<Record>>, Fatal> {
    let mut records = Vec::with_capacity(blocks.len());
    for block in blocks {
        if block.live_count() == 0 {
            records.push(Vec::new());
            continue;
        }
        let headers = block.live_headers(block.first())?;
        let body = block.place.read_body()?;
        let record = |header: crate::RecordHeader| {
            let slot = block.slots.find(header.revision).expect("headers match the slots");
            let bytes = block.cut(slot, &body);
            Record { revision: header.revision, key: header.key, kind: header.kind, bytes }
        };
        records.push(headers.into_iter().map(record).collect());
    }
    Ok(records)
}

/// Cuts records into blocks' worth.
fn cut(records: &[Record], block_bytes: usize) -> Vec<&[Record]> {
    let mut cuts = Vec::new();
    let mut rest = records;
    while let Some(first) = rest.first() {
        let mut bytes = first.bytes.len();
        let more = rest[1..].iter().take_while(|record| {
            let fits = bytes < block_bytes
                && bytes + record.bytes.len() <= 2 * block_bytes
                && Slots::reaches(first.revision, record.revision);
            bytes += record.bytes.len();
            fits
        });
        let (block, after) = rest.split_at(1 + more.count());
        cuts.push(block);
        rest = after;
    }
    cuts
}
