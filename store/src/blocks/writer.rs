//! Appends blocks to the current block file and begins the next one when it is full.
//!
//! A file is only ever appended to by the process that began it: after a restart a new one is
//! begun, so that a name and a length always stand for the same bytes, on every member.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::Built;
use super::{BlockFile, Extent, FileId, Place};
use crate::Fatal;
use crate::files::Files;

/// The end of the newest block file.
pub(crate) struct BlockWriter {
    files: Arc<dyn Files>,
    folder: PathBuf,
    incarnation: u64,
    next_sequence: Arc<AtomicU64>,
    file_bytes: u64,
    current: Option<Arc<BlockFile>>,
}

/// Why something could not be written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The file system is full: try again later.
    NoSpace,
    /// The disk cannot be relied on.
    Fatal(Fatal),
}

impl WriteError {
    /// What an error while writing `path` means.
    pub(crate) fn of(path: &std::path::Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Fatal(Fatal::new(format_args!("cannot write {}: {error}", path.display()))),
        }
    }
}

impl From<Fatal> for WriteError {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

impl BlockWriter {
    /// A writer whose first file will have this sequence number, which no file had before.
    pub(crate) fn new(
        files: Arc<dyn Files>,
        folder: PathBuf,
        incarnation: u64,
        next_sequence: Arc<AtomicU64>,
        file_bytes: u64,
    ) -> Self {
        Self { files, folder, incarnation, next_sequence, file_bytes, current: None }
    }

    /// Writes a block; not durable. `begun` is told of every file begun.
    pub(crate) fn write(
        &mut self,
        built: &Built,
        begun: &mut dyn FnMut(&Arc<BlockFile>),
    ) -> Result<Place, WriteError> {
        let file = self.file(begun)?;
        let offset = file.written().length;
        let (bytes, _) = built.encode(file.id, offset);
        let written = file.append(&bytes).map_err(|error| WriteError::of(&file.path, error))?;
        assert_eq!(written, offset, "only this writer appends to its file");
        let length = u32::try_from(bytes.len()).expect("both parts are bounded");
        Ok(Place { file, offset, length })
    }

    /// Goes on in a new file if `is_known` does not know the current one any more.
    pub(crate) fn leave_unless(&mut self, is_known: impl FnOnce(&Arc<BlockFile>) -> bool) {
        if !self.current.as_ref().is_none_or(is_known) {
            self.current = None;
        }
    }

    /// Whether blocks may still be appended to this file.
    pub(crate) fn is_current(&self, id: FileId) -> bool {
        self.current.as_ref().is_some_and(|current| current.id == id)
    }

    fn file(
        &mut self,
        begun: &mut dyn FnMut(&Arc<BlockFile>),
    ) -> Result<Arc<BlockFile>, WriteError> {
        match &self.current {
            Some(file) if file.written().length < self.file_bytes => Ok(file.clone()),
            _ => {
                let file = self.begin()?;
                begun(&file);
                self.current = Some(file.clone());
                Ok(file)
            }
        }
    }

    fn begin(&mut self) -> Result<Arc<BlockFile>, WriteError> {
        // A name is used up even when the attempt fails: nobody can tell what is in it.
        let sequence = self.next_sequence.fetch_add(1, Ordering::Relaxed);
        let id = FileId { incarnation: self.incarnation, sequence };
        let path = self.folder.join(id.name());
        let failed = |error| WriteError::of(&path, error);
        let file = self.files.create(&path).map_err(failed)?;
        let begun = BlockFile::new(id, path.clone(), file, Extent { length: 0, checksum: 0 });
        if let Err(error) = begun.append(&id.header()) {
            let _ = self.files.remove(&path);
            return Err(failed(error));
        }
        Ok(Arc::new(begun))
    }
}
