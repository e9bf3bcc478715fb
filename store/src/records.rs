//! All records: the newest in an in-memory tail, the rest in blocks, found by revision.
//!
//! The apply thread appends; readers read at the same time and ask only for revisions that were
//! published to them, or that the index names. A record is in the tail until a block that holds it
//! has been written, and found in one of the two at every moment between.
//!
//! Locks, in the order in which they may nest: `core`, then a block's marks, then a file's extents
//! or the registry, then a cache shard. None is held during IO, except that the registry is held
//! while a file is renamed or removed, so that names and registry agree.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use crate::blocks::{Block, BlockFile, FileId};
use crate::cache::{BlockCache, CacheFacts};
use crate::{Fatal, Position, Record, RecordHeader, Revision};

mod queue;
mod tail;

pub(crate) use tail::{Tail, TailRecord};

/// A shared handle on all records; cheap to clone.
#[derive(Clone)]
pub struct Records {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    core: RwLock<Core>,
    pub(crate) cache: BlockCache,
    registry: Mutex<BTreeMap<FileId, Arc<BlockFile>>>,
}

/// What readers search.
#[derive(Default)]
pub(crate) struct Core {
    pub(crate) tail: Tail,
    /// By first revision. Blocks do not overlap where they are alive.
    pub(crate) blocks: BTreeMap<Revision, Arc<Block>>,
    /// Rises when a checkpoint replaces everything.
    pub(crate) epoch: u64,
}

/// Where a record was found.
enum Found {
    Bytes(Bytes),
    Block(Arc<Block>, usize),
    Nowhere,
}

impl Records {
    /// An empty store's records.
    pub(crate) fn new(cache_bytes: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                core: RwLock::default(),
                cache: BlockCache::new(cache_bytes),
                registry: Mutex::default(),
            }),
        }
    }

    /// How the block cache fares.
    pub(crate) fn cache(&self) -> CacheFacts {
        self.shared.cache.facts()
    }

    /// Adds the newest records, in order. Only the apply thread calls this.
    pub fn append(&self, records: impl IntoIterator<Item = Record>) {
        let mut core = self.shared.write();
        records.into_iter().for_each(|record| core.tail.push(record));
    }

    /// Everything appended so far belongs to entries up to `position`.
    pub fn end_entry(&self, position: Position) {
        self.shared.write().tail.end_entry(position);
    }

    /// The bytes of a record if they are in memory; `None` if they would have to be read.
    pub fn try_read(&self, revision: Revision) -> Result<Option<Bytes>, Fatal> {
        match self.shared.find(revision) {
            Found::Bytes(bytes) => Ok(Some(bytes)),
            Found::Block(block, slot) => {
                let body = self.shared.cache.find(block.place.id());
                Ok(body.map(|body| block.cut(slot, &body)))
            }
            Found::Nowhere => Err(missing(revision)),
        }
    }

    /// The bytes of a record, from disk if need be, with every checksum checked. A record that is
    /// not stored is fatal: the index and the blocks disagree.
    pub fn read(&self, revision: Revision) -> Result<Bytes, Fatal> {
        self.read_if_present(revision)?.ok_or_else(|| missing(revision))
    }

    /// As [`Records::read`], for readers that a checkpoint's installation may overtake: `None` if
    /// there is no such record (any more).
    pub fn read_if_present(&self, revision: Revision) -> Result<Option<Bytes>, Fatal> {
        match self.shared.find(revision) {
            Found::Bytes(bytes) => Ok(Some(bytes)),
            Found::Block(block, slot) => {
                let body = self.shared.body(&block)?;
                Ok(Some(block.cut(slot, &body)))
            }
            Found::Nowhere => Ok(None),
        }
    }

    /// The headers of at most `max` records from `from` on, in revision order. May read key
    /// directories from disk. Records that compaction has given up are left out.
    pub fn headers(&self, from: Revision, max: usize) -> Result<Vec<RecordHeader>, Fatal> {
        let mut headers = Vec::new();
        let mut from = from;
        while headers.len() < max {
            let Some(block) = self.shared.block_reaching(from) else {
                let core = self.shared.read();
                // A block may have been written between the two looks.
                if core.block_reaching(from).is_some() {
                    continue;
                }
                let room = max - headers.len();
                headers.extend(core.tail.since(from).take(room).map(Record::header));
                break;
            };
            let last = block.slots.last();
            headers.extend(block.live_headers(from)?.into_iter().take(max - headers.len()));
            from = Revision::new(last.main, last.sub + 1);
        }
        Ok(headers)
    }

    /// Gives records up: nothing will ask for them again, and their space may be reclaimed.
    /// Giving a record up twice, or one that is gone, changes nothing.
    pub fn forget(&self, revisions: &[Revision]) {
        for slice in revisions.chunks(256) {
            let mut core = self.shared.write();
            for revision in slice {
                if core.tail.forget(*revision) {
                    continue;
                }
                if let Some((block, slot)) = core.locate(*revision) {
                    block.mark_dead(slot);
                }
            }
        }
    }

    /// Bytes of block files and of the tail.
    pub fn total_bytes(&self) -> u64 {
        let files: u64 = self.shared.registry().values().map(|file| file.written().length).sum();
        files + self.shared.read().tail.bytes()
    }
}

impl Shared {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Core> {
        self.core.read().expect("no panic under it")
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Core> {
        self.core.write().expect("no panic under it")
    }

    /// Every block file that exists, in use or not.
    pub(crate) fn registry(&self) -> std::sync::MutexGuard<'_, BTreeMap<FileId, Arc<BlockFile>>> {
        self.registry.lock().expect("no panic under it")
    }

    /// A block's body, from the cache or from disk.
    pub(crate) fn body(&self, block: &Block) -> Result<Bytes, Fatal> {
        let id = block.place.id();
        if let Some(body) = self.cache.find(id) {
            return Ok(body);
        }
        let body = block.place.read_body()?;
        self.cache.insert(id, body.clone());
        Ok(body)
    }

    fn find(&self, revision: Revision) -> Found {
        let core = self.read();
        if let Some(record) = core.tail.read(revision) {
            return Found::Bytes(record.bytes.clone());
        }
        match core.locate(revision) {
            Some((block, slot)) => Found::Block(block.clone(), slot),
            None => Found::Nowhere,
        }
    }

    fn block_reaching(&self, from: Revision) -> Option<Arc<Block>> {
        self.read().block_reaching(from).cloned()
    }
}

impl Core {
    fn locate(&self, revision: Revision) -> Option<(&Arc<Block>, usize)> {
        let (_, block) = self.blocks.range(..=revision).next_back()?;
        Some((block, block.slots.find(revision)?))
    }

    /// The first block with a record at or after `from`.
    fn block_reaching(&self, from: Revision) -> Option<&Arc<Block>> {
        let before = self.blocks.range(..=from).next_back().map(|(_, block)| block);
        before
            .filter(|block| block.slots.last() >= from)
            .or_else(|| self.blocks.range(from..).next().map(|(_, block)| block))
    }
}

fn missing(revision: Revision) -> Fatal {
    Fatal::new(format_args!("revision {revision} is in the index, and no block holds it"))
}
