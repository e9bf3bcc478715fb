//! The receiving side of a checkpoint's transfer.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::FileInfo;
use crate::blocks::writer::WriteError;
use crate::blocks::{BlockFile, CHECK_BYTES, Extent, FileId};
use crate::disk::{Claim, Disk, KeptManifest, PARTIAL};
use crate::files::File;
use crate::frame::FrameError;
use crate::load::{Blocks, OpenFiles, Restore, load_blocks};
use crate::manifest::{Manifest, ManifestInfo};
use crate::records::Tail;
use crate::{Fatal, RecordHeader, Records};

/// A checkpoint of which files are still missing. Dropping it keeps what has arrived for the next
/// attempt within this process.
pub struct Receiving {
    disk: Arc<Disk>,
    manifest: Manifest,
    files: BTreeMap<FileId, Incoming>,
}

/// A file of the checkpoint.
struct Incoming {
    extent: Extent,
    source: Source,
}

enum Source {
    /// It was here already, whole.
    Present(Arc<BlockFile>),
    /// It is arriving.
    Partial { file: Arc<dyn File>, path: PathBuf, written: u64 },
}

/// Why a checkpoint was not received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The sender is newer than this member.
    #[error("the manifest has format {found}, and this version knows formats up to {known}")]
    Newer {
        /// The sender's format.
        found: u32,
        /// The newest that this version reads.
        known: u32,
    },
    /// The manifest was damaged on the way.
    #[error("the manifest is damaged: {0}")]
    Manifest(FrameError),
    /// A file is not what the manifest says; it has been dropped, and must be sent anew.
    #[error("file {name} arrived damaged")]
    Damaged {
        /// Which file.
        name: String,
    },
    /// Bytes came that were not asked for.
    #[error("file {name}: expected bytes from {expected}, got {offset}")]
    OutOfOrder {
        /// Which file.
        name: String,
        /// Where it goes on.
        expected: u64,
        /// What came.
        offset: u64,
    },
    /// The checkpoint has no such file, or it is not complete yet.
    #[error("file {name} is not complete or not part of the checkpoint")]
    Incomplete {
        /// Which file.
        name: String,
    },
    /// It is the newest one here, or older, or the same one has arrived and waits to be installed.
    #[error("checkpoint {name} is here already, or a newer one")]
    Superfluous {
        /// Which checkpoint.
        name: String,
    },
    /// The disk is full: free some, and go on where it stopped.
    #[error("no space left for a checkpoint")]
    NoSpace,
    /// The disk cannot be relied on, or the checkpoint contradicts itself.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

impl From<WriteError> for ReceiveError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NoSpace => Self::NoSpace,
            WriteError::Fatal(fatal) => Self::Fatal(fatal),
        }
    }
}

impl Receiving {
    pub(super) fn begin(disk: Arc<Disk>, bytes: Bytes) -> Result<Self, ReceiveError> {
        let manifest = Manifest::decode(&bytes).map_err(|error| match error {
            FrameError::Newer { found, known } => ReceiveError::Newer { found, known },
            error => ReceiveError::Manifest(error),
        })?;
        let wanted: Vec<_> = manifest.files.iter().map(|(id, _)| partial_name(*id)).collect();
        remove_partial_files(&disk, &wanted)?;
        let mut files = BTreeMap::new();
        for (id, extent) in &manifest.files {
            let source = find(&disk, *id, *extent)?;
            files.insert(*id, Incoming { extent: *extent, source });
        }
        Ok(Self { disk, manifest, files })
    }

    /// Which checkpoint this is.
    pub fn info(&self) -> &ManifestInfo {
        &self.manifest.info
    }

    /// The files that are not complete, and from where on they are needed.
    pub fn missing(&self) -> Vec<FileInfo> {
        let info = |(id, incoming): (&FileId, &Incoming)| {
            let offset = incoming.written();
            let Extent { length, checksum } = incoming.extent;
            (offset < length).then(|| FileInfo { name: id.name(), length, checksum, offset })
        };
        self.files.iter().filter_map(info).collect()
    }

    /// Gives up, and gives back the room that was taken.
    pub fn abandon(self) -> Result<(), ReceiveError> {
        remove_partial_files(&self.disk, &[])
    }

    /// Takes the next bytes of a file.
    pub fn write(&mut self, file: &str, offset: u64, bytes: &[u8]) -> Result<(), ReceiveError> {
        let id = FileId::of_name(file);
        let incoming = id.and_then(|id| self.files.get_mut(&id));
        let name = file.to_owned();
        let Some(Incoming { extent, source: Source::Partial { file, path, written } }) = incoming
        else {
            return Err(ReceiveError::Incomplete { name });
        };
        if offset != *written || offset + bytes.len() as u64 > extent.length {
            return Err(ReceiveError::OutOfOrder { name, expected: *written, offset });
        }
        file.write_all_at(bytes, offset).map_err(|error| WriteError::of(path, error))?;
        *written += bytes.len() as u64;
        Ok(())
    }

    /// Checks every file, makes everything durable, and gives the checkpoint to be installed.
    pub fn finish(self) -> Result<ReceivedCheckpoint, ReceiveError> {
        if let Some(missing) = self.missing().into_iter().next() {
            return Err(ReceiveError::Incomplete { name: missing.name });
        }
        let Self { disk, mut manifest, files } = self;
        let name = manifest.info.name.clone();
        let claim = disk.claim(&manifest.info).ok_or(ReceiveError::Superfluous { name })?;
        let mut open = OpenFiles::new();
        for (id, incoming) in files {
            let extent = incoming.extent;
            open.insert(id, (incoming.settle(&disk, id)?, extent));
        }
        let folder = disk.blocks();
        let synced = disk.options.files.sync_directory(&folder);
        synced.map_err(|error| WriteError::of(&folder, error))?;
        let blocks = load_blocks(&manifest, &open, None, &mut Nobody)?;
        // The sender's numbers say nothing about the names that have been used here.
        manifest.next_sequence = disk.next_sequence.load(Ordering::Relaxed);
        // Whoever took it: not the member in whose directory it lies.
        manifest.info.taken_in = 0;
        disk.folder.save(&manifest.info.name, &manifest.encode())?;
        let kept = KeptManifest { info: manifest.info, files: open.into_values().collect() };
        let tables = manifest.tables;
        Ok(ReceivedCheckpoint { disk, _claim: claim, kept: Some(kept), tables, blocks })
    }
}

impl Incoming {
    fn written(&self) -> u64 {
        match &self.source {
            Source::Present(_) => self.extent.length,
            Source::Partial { written, .. } => *written,
        }
    }

    /// Checks a file that has arrived and gives it its name.
    fn settle(self, disk: &Disk, id: FileId) -> Result<Arc<BlockFile>, ReceiveError> {
        let (file, path) = match self.source {
            Source::Present(file) => return Ok(file),
            Source::Partial { file, path, .. } => (file, path),
        };
        let files = &disk.options.files;
        let failed = |error: io::Error| WriteError::of(&path, error);
        if file.length().map_err(failed)? > self.extent.length {
            file.set_length(self.extent.length).map_err(failed)?;
        }
        file.sync_data().map_err(failed)?;
        if checksum(&*file, self.extent.length).map_err(failed)? != self.extent.checksum {
            files.remove(&path).map_err(failed)?;
            return Err(ReceiveError::Damaged { name: id.name() });
        }
        let name = disk.block_path(id);
        let mut registry = disk.records.shared.registry();
        files.rename(&path, &name).map_err(failed)?;
        let settled = Arc::new(BlockFile::new(id, name, file, self.extent));
        registry.insert(id, settled.clone());
        Ok(settled)
    }
}

/// Removes what attempts have received, but for the files that are still wanted.
fn remove_partial_files(disk: &Disk, wanted: &[String]) -> Result<(), ReceiveError> {
    let folder = disk.blocks();
    let failed = |error| ReceiveError::from(WriteError::of(&folder, error));
    for name in disk.options.files.list(&folder).map_err(failed)? {
        if name.ends_with(PARTIAL) && !wanted.contains(&name) {
            disk.options.files.remove(&folder.join(name)).map_err(failed)?;
        }
    }
    Ok(())
}

fn partial_name(id: FileId) -> String {
    format!("{}{PARTIAL}", id.name())
}

/// What is here of a file: all of it, what an earlier attempt received, or a shorter version.
fn find(disk: &Disk, id: FileId, extent: Extent) -> Result<Source, ReceiveError> {
    let path = disk.blocks().join(partial_name(id));
    let failed = |error: io::Error| ReceiveError::from(WriteError::of(&path, error));
    let here = disk.records.shared.registry().get(&id).cloned();
    if let Some(here) = &here
        && here.written().length >= extent.length
        && checksum(&*here.file, extent.length).ok() == Some(extent.checksum)
    {
        here.sync_and_verify().map_err(failed)??;
        return Ok(Source::Present(here.clone()));
    }
    let files = &disk.options.files;
    if files.exists(&path).map_err(failed)? {
        let file = files.open(&path).map_err(failed)?;
        let written = file.length().map_err(failed)?.min(extent.length);
        return Ok(Source::Partial { file, path, written });
    }
    let file = files.create(&path).map_err(failed)?;
    // A copy, since the shorter version is in use under its name.
    let written = match here.filter(|here| here.verified().length < extent.length) {
        Some(here) => copy(&here, &*file).map_err(failed)?,
        None => 0,
    };
    Ok(Source::Partial { file, path, written })
}

fn copy(from: &BlockFile, to: &dyn File) -> io::Result<u64> {
    let length = from.verified().length;
    in_pieces(&*from.file, length, &mut |piece, at| to.write_all_at(piece, at))?;
    Ok(length)
}

fn checksum(file: &dyn File, length: u64) -> io::Result<u32> {
    let mut checksum = 0;
    in_pieces(file, length, &mut |piece, _| {
        checksum = crc32c::crc32c_append(checksum, piece);
        Ok(())
    })?;
    Ok(checksum)
}

fn in_pieces(
    file: &dyn File,
    length: u64,
    each: &mut dyn FnMut(&[u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHECK_BYTES];
    let mut at = 0;
    while at < length {
        let piece = &mut buffer[..(length - at).min(CHECK_BYTES as u64) as usize];
        file.read_exact_at_uncached(piece, at)?;
        each(piece, at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// Hears of records and does nothing: the look at them was the point.
struct Nobody;

impl Restore for Nobody {
    fn record(&mut self, _header: RecordHeader) -> Result<(), Fatal> {
        Ok(())
    }
}

/// A checkpoint that is whole and durable here, and not in force yet. Dropped without having been
/// installed, it counts no more.
pub struct ReceivedCheckpoint {
    disk: Arc<Disk>,
    /// As long as it is held nobody else writes, removes or counts a manifest of this name.
    _claim: Claim,
    /// `None` once it is in force.
    kept: Option<KeptManifest>,
    tables: Bytes,
    blocks: Blocks,
}

impl ReceivedCheckpoint {
    /// The small tables, encoded.
    pub fn tables(&self) -> &Bytes {
        &self.tables
    }

    /// Which checkpoint this is.
    pub fn info(&self) -> &ManifestInfo {
        &self.kept.as_ref().expect("it is consumed when it comes into force").info
    }

    /// Tells `restore` of every record, in revision order. Reads key directories.
    pub fn headers(&self, restore: &mut dyn Restore) -> Result<(), Fatal> {
        for block in self.blocks.values() {
            for header in block.live_headers(block.first())? {
                restore.record(header)?;
            }
        }
        Ok(())
    }

    pub(super) fn install(mut self, records: &Records) -> Result<(), Fatal> {
        let kept = self.kept.take().expect("it is installed once");
        let blocks = std::mem::take(&mut self.blocks);
        blocks.values().for_each(|block| block.place.keep());
        let old = {
            let mut core = records.shared.write();
            core.epoch += 1;
            core.tail = Tail::default();
            std::mem::replace(&mut core.blocks, blocks)
        };
        old.values().for_each(|block| block.place.let_go());
        let gone = self.disk.replace_manifests(kept);
        self.disk.remove_manifests(&gone)
    }
}

impl Drop for ReceivedCheckpoint {
    fn drop(&mut self) {
        if let Some(kept) = self.kept.take() {
            // If this fails, the next start finds a checkpoint that is whole: no harm done.
            let _ = self.disk.folder.remove(&kept.info.name);
        }
    }
}
