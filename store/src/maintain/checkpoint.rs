//! Taking a manifest: everything up to one entry becomes durable, and is read back to prove it.
//!
//! The order is the promise: blocks are written and fsynced, and read back past the page cache;
//! then the manifest, likewise; only then does it count, and an older one goes. The block directory
//! is marked dirty before it is touched and clean, with the manifest's name, after the manifest is
//! durable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Maintainer;
use crate::blocks::writer::WriteError;
use crate::blocks::{Block, BlockFile, Extent, FileId};
use crate::disk::KeptManifest;
use crate::manifest::{Frozen, Manifest, ManifestBlock, ManifestInfo};
use crate::{Fatal, Revision};

/// What became of [`Maintainer::take_manifest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is verified and counts.
    Manifest(ManifestInfo),
    /// The disk is full: try again later.
    NoSpace,
    /// The log has not been flushed that far: try again later.
    NotFlushed,
    /// A newer manifest exists, or a newer compaction has begun to take effect: freeze again.
    Stale,
}

impl Maintainer {
    /// Makes a checkpoint of everything up to `frozen`. `flushed` is the index up to which the log
    /// is durable. Takes as long as it takes to write the tail.
    pub fn take_manifest(&mut self, frozen: Frozen, flushed: u64) -> Result<Taken, Fatal> {
        if !self.is_flushed(frozen.position, flushed) {
            return Ok(Taken::NotFlushed);
        }
        if self.is_stale(&frozen) {
            return Ok(Taken::Stale);
        }
        match self.checkpoint(frozen) {
            Ok(taken) => {
                if matches!(taken, Taken::Manifest(_)) {
                    self.count_manifest();
                }
                Ok(taken)
            }
            Err(WriteError::NoSpace) => Ok(Taken::NoSpace),
            Err(WriteError::Fatal(fatal)) => Err(fatal),
        }
    }

    fn is_stale(&self, frozen: &Frozen) -> bool {
        let newest = self.disk.manifests().back().map(|newest| newest.info.position.index);
        // Records that a later compaction gave up must not be missing from an earlier state.
        newest >= Some(frozen.position.index) || self.swept > frozen.compacted
    }

    fn checkpoint(&mut self, frozen: Frozen) -> Result<Taken, WriteError> {
        self.seal_all(frozen.position.index)?;
        let (blocks, epoch) = self.blocks_up_to(frozen.revision);
        let files = self.sync_files(&blocks)?;
        let manifest = self.describe(frozen, &blocks, &files);
        let Some(_claim) = self.disk.claim(&manifest.info) else { return Ok(Taken::Stale) };
        self.directory.update(&manifest, &blocks);
        self.disk.folder.save(&manifest.info.name, &manifest.encode())?;
        if self.disk.records.shared.read().epoch != epoch {
            self.disk.folder.remove(&manifest.info.name)?;
            return Ok(Taken::Stale);
        }
        self.directory.commit(&manifest);
        let files = files.into_values().collect();
        let kept = KeptManifest { info: manifest.info.clone(), files };
        let (counts, gone) = self.disk.add_manifest(kept);
        self.disk.remove_manifests(&gone)?;
        Ok(if counts { Taken::Manifest(manifest.info) } else { Taken::Stale })
    }

    fn blocks_up_to(&self, revision: i64) -> (Vec<Arc<Block>>, u64) {
        let core = self.disk.records.shared.read();
        let end = Revision::new(revision + 1, 0);
        (core.blocks.range(..end).map(|(_, block)| block.clone()).collect(), core.epoch)
    }

    /// Makes the files of these blocks durable, and checks that they are.
    fn sync_files(
        &mut self,
        blocks: &[Arc<Block>],
    ) -> Result<BTreeMap<FileId, (Arc<BlockFile>, Extent)>, WriteError> {
        let mut files = BTreeMap::new();
        for block in blocks {
            let file = &block.place.file;
            if files.contains_key(&file.id) {
                continue;
            }
            let synced =
                file.sync_and_verify().map_err(|error| WriteError::of(&file.path, error))?;
            files.insert(file.id, (file.clone(), synced?));
        }
        if self.unnamed {
            let folder = self.disk.blocks();
            let synced = self.disk.options.files.sync_directory(&folder);
            synced.map_err(|error| WriteError::of(&folder, error))?;
            self.unnamed = false;
        }
        Ok(files)
    }

    fn describe(
        &self,
        frozen: Frozen,
        blocks: &[Arc<Block>],
        files: &BTreeMap<FileId, (Arc<BlockFile>, Extent)>,
    ) -> Manifest {
        let block = |block: &Arc<Block>| ManifestBlock {
            file: block.place.file.id,
            offset: block.place.offset,
            length: block.place.length,
            first: block.first(),
            dead: block.dead_bits().into(),
        };
        Manifest {
            info: ManifestInfo {
                position: frozen.position,
                membership_position: frozen.membership_position,
                membership: frozen.membership,
                revision: frozen.revision,
                name: ManifestInfo::name_at(frozen.position),
                taken_in: self.disk.options.incarnation,
            },
            tables: frozen.tables,
            next_sequence: self.disk.next_sequence.load(Ordering::Relaxed),
            files: files.iter().map(|(id, (_, extent))| (*id, *extent)).collect(),
            blocks: blocks.iter().map(block).collect(),
        }
    }
}
