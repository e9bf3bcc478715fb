//! From a manifest to readable records: opening the data directory, and installing a checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backend::directory::BlockDirectory;
use crate::blocks::{Block, BlockFile, Extent, FileId, Place, Slots};
use crate::manifest::{Manifest, ManifestBlock};
use crate::{Fatal, RecordHeader, Revision};

/// What a start, or a checkpoint's installation, tells of every record there is.
pub trait Restore {
    /// One record, in revision order.
    fn record(&mut self, header: RecordHeader) -> Result<(), Fatal>;
}

/// The open files of a manifest.
pub(crate) type OpenFiles = BTreeMap<FileId, (Arc<BlockFile>, Extent)>;

/// The blocks of a manifest, by first revision.
pub(crate) type Blocks = BTreeMap<Revision, Arc<Block>>;

/// Makes the blocks of a manifest, and tells `restore` of every live record, in order. Key
/// directories come out of `directory` where it has them, otherwise from the blocks themselves;
/// those are added to it.
pub(crate) fn load_blocks(
    manifest: &Manifest,
    files: &OpenFiles,
    mut directory: Option<&mut BlockDirectory>,
    restore: &mut dyn Restore,
) -> Result<Blocks, Fatal> {
    let mut blocks = BTreeMap::new();
    for entry in &manifest.blocks {
        let (file, _) = files.get(&entry.file).expect("all files of the manifest are open");
        let place = Place { file: file.clone(), offset: entry.offset, length: entry.length };
        let headers = key_directory(entry, &place, directory.as_deref_mut())?;
        if let Some(block) = load_block(manifest, entry, place, headers, restore)? {
            blocks.insert(block.first(), Arc::new(block));
        }
    }
    Ok(blocks)
}

fn key_directory(
    entry: &ManifestBlock,
    place: &Place,
    directory: Option<&mut BlockDirectory>,
) -> Result<Vec<RecordHeader>, Fatal> {
    let known = directory.as_ref().and_then(|directory| directory.find(entry));
    // What it has and cannot be read is its own damage, not the block's.
    if let Some(headers) = known.and_then(|stored| stored.decode().ok()) {
        return Ok(headers);
    }
    let stored = place.read_stored_directory()?;
    let headers = stored.decode().map_err(|error| place.file.damaged(entry.offset, error))?;
    if let Some(directory) = directory {
        directory.add(entry, &stored);
    }
    Ok(headers)
}

/// Records after the manifest's revision are cut off: the log brings them again.
fn load_block(
    manifest: &Manifest,
    entry: &ManifestBlock,
    place: Place,
    mut headers: Vec<RecordHeader>,
    restore: &mut dyn Restore,
) -> Result<Option<Block>, Fatal> {
    if headers.first().map(|header| header.revision) != Some(entry.first) {
        return Err(place
            .file
            .damaged(entry.offset, "it is not the block that the manifest names"));
    }
    let on_disk = headers.len();
    headers.truncate(headers.partition_point(|h| h.revision.main <= manifest.info.revision));
    let Some(slots) = Slots::of(&headers) else { return Ok(None) };
    let block = Block::new(place, slots, &entry.dead).cut_from(on_disk);
    let marks = block.marks();
    for (slot, header) in headers.into_iter().enumerate() {
        if !marks.is_dead(slot) {
            restore.record(header)?;
        }
    }
    Ok(Some(block))
}
