//! Checkpoints on their way between members: a manifest, and then only the files that are missing.
//!
//! Block files are append-only and their names unique among all members, so a file that the
//! receiver has, in the same length and with the same checksum, is the same file; of one that it
//! has in part only the rest is sent. A checkpoint counts at the receiver once every file has been
//! read back past the cache, every block's header and key directory has been looked at, and the
//! manifest is durable.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{Disk, KeptManifest};
use crate::maintain::Maintainer;
use crate::manifest::ManifestInfo;
use crate::{Fatal, Records};

mod receive;

pub use receive::{ReceiveError, ReceivedCheckpoint, Receiving};

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Its name within `blocks/`.
    pub name: String,
    /// How many bytes of it belong to the checkpoint.
    pub length: u64,
    /// The crc32c of those bytes.
    pub checksum: u32,
    /// From where on the receiver needs it; 0 at the sender.
    pub offset: u64,
}

/// The way to checkpoints from any thread; cheap to clone.
#[derive(Clone)]
pub struct Checkpoints {
    disk: Arc<Disk>,
}

/// A checkpoint to be sent. Its files stay as long as it lives.
pub struct Export {
    kept: KeptManifest,
    manifest: Bytes,
    files: Vec<FileInfo>,
}

impl Maintainer {
    /// The way to checkpoints from other threads.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints { disk: self.disk().clone() }
    }

    /// As [`Checkpoints::export`], where the caller knows that there is a checkpoint.
    pub fn export(&self) -> Result<Export, Fatal> {
        let export = self.checkpoints().export()?;
        export.ok_or_else(|| Fatal::new("no manifest can be read back any more"))
    }

    /// As [`Checkpoints::receive`].
    pub fn receive(&mut self, manifest: Bytes) -> Result<Receiving, ReceiveError> {
        self.checkpoints().receive(manifest)
    }
}

impl Checkpoints {
    /// The verified manifests, oldest first.
    pub fn manifests(&self) -> Vec<ManifestInfo> {
        self.disk.manifests().iter().map(|kept| kept.info.clone()).collect()
    }

    /// The newest checkpoint whose manifest reads back right; `None` if there is none.
    pub fn export(&self) -> Result<Option<Export>, Fatal> {
        let kept: Vec<_> = self.disk.manifests().iter().rev().cloned().collect();
        for kept in kept {
            if let Ok((_, bytes)) = self.disk.folder.load(&kept.info.name) {
                return Ok(Some(Export::new(kept, Bytes::from(bytes))));
            }
        }
        Ok(None)
    }

    /// Begins to receive the checkpoint with this manifest. Reads the files that are here already.
    pub fn receive(&self, manifest: Bytes) -> Result<Receiving, ReceiveError> {
        Receiving::begin(self.disk.clone(), manifest)
    }
}

impl Export {
    fn new(kept: KeptManifest, manifest: Bytes) -> Self {
        let file = |(file, extent): &(Arc<crate::blocks::BlockFile>, crate::blocks::Extent)| {
            let (length, checksum) = (extent.length, extent.checksum);
            FileInfo { name: file.id.name(), length, checksum, offset: 0 }
        };
        let files = kept.files.iter().map(file).collect();
        Self { kept, manifest, files }
    }

    /// The manifest, as it goes to the receiver.
    pub fn manifest(&self) -> &Bytes {
        &self.manifest
    }

    /// The files of the checkpoint.
    pub fn files(&self) -> &[FileInfo] {
        &self.files
    }

    /// Which checkpoint this is.
    pub fn info(&self) -> &ManifestInfo {
        &self.kept.info
    }

    /// Reads from one of its files, at most to the end of what belongs to the checkpoint. The
    /// receiver checks the bytes.
    pub fn read(&self, file: &str, offset: u64, length: usize) -> io::Result<Bytes> {
        let found = self.kept.files.iter().find(|(found, _)| found.id.name() == file);
        let (found, extent) = found.ok_or(io::ErrorKind::NotFound)?;
        let left = extent.length.saturating_sub(offset);
        let mut bytes = vec![0; length.min(usize::try_from(left).unwrap_or(usize::MAX))];
        found.file.read_exact_at(&mut bytes, offset)?;
        Ok(Bytes::from(bytes))
    }
}

impl Records {
    /// Replaces everything by a received checkpoint. Records of before may be gone for readers
    /// that ask for them afterwards.
    pub fn install(&self, checkpoint: ReceivedCheckpoint) -> Result<(), Fatal> {
        checkpoint.install(self)
    }
}

#[cfg(test)]
mod tests;
