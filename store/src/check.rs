//! Verifying a store's files without a store: every manifest, every block file, every block.
//!
//! Nothing is written, whatever is found: files are opened for reading alone.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blocks::{BlockFile, CHECK_BYTES, Extent, FileId, Place};
use crate::disk::{BLOCKS, SNAP};
use crate::files::{Files, ReadOnlyFiles};
use crate::manifest::folder::ManifestFolder;
use crate::manifest::{Manifest, ManifestInfo};
use crate::open::format_file;
use crate::{Fatal, OpenError};

/// What was found.
#[derive(Debug, Default)]
pub struct Checked {
    /// The manifests that are whole and whose files are, newest first.
    pub manifests: Vec<ManifestInfo>,
    /// Block files looked at.
    pub files: usize,
    /// Blocks looked at.
    pub blocks: usize,
    /// What is wrong, each with the file's name.
    pub problems: Vec<String>,
}

/// Verifies the store in a data directory.
pub fn check(directory: &Path) -> Result<Checked, OpenError> {
    let files: Arc<dyn Files> = Arc::new(ReadOnlyFiles);
    format_file::check(&*files, directory)?;
    let snap = directory.join(SNAP);
    let failed = |error| OpenError::Io { path: snap.clone(), error };
    let names = match files.exists(&snap).map_err(failed)? {
        true => files.list(&snap).map_err(failed)?,
        false => Vec::new(),
    };
    let folder = ManifestFolder::new(files.clone(), snap.clone());
    let blocks = directory.join(BLOCKS);
    let mut run = Run { files, blocks, checked: Checked::default(), seen: BTreeSet::new() };
    let names = names.iter().rev().filter(|name| ManifestInfo::position_of(name).is_some());
    for name in names {
        match folder.load(name) {
            Ok((manifest, _)) => run.manifest(manifest),
            Err(error) => {
                run.problem(format_args!("manifest {}: {error}", folder.path_of(name).display()));
            }
        }
    }
    Ok(run.checked)
}

struct Run {
    files: Arc<dyn Files>,
    blocks: PathBuf,
    checked: Checked,
    /// Blocks and extents that were looked at for another manifest.
    seen: BTreeSet<(FileId, u64)>,
}

impl Run {
    fn manifest(&mut self, manifest: Manifest) {
        let before = self.checked.problems.len();
        for (id, extent) in &manifest.files {
            let Some(file) = self.file(*id, *extent) else { continue };
            for block in manifest.blocks.iter().filter(|block| block.file == *id) {
                if self.seen.insert((*id, block.offset)) {
                    self.checked.blocks += 1;
                    let (offset, length) = (block.offset, block.length);
                    self.block(&Place { file: file.clone(), offset, length });
                }
            }
        }
        if self.checked.problems.len() == before {
            self.checked.manifests.push(manifest.info);
        }
    }

    /// The file, if its bytes are those that the manifest names.
    fn file(&mut self, id: FileId, extent: Extent) -> Option<Arc<BlockFile>> {
        let path = self.blocks.join(id.name());
        let opened = self.files.open(&path);
        let opened = opened.map_err(|error| {
            Fatal::new(format_args!("block file {} cannot be opened: {error}", path.display()))
        });
        let checked = opened.and_then(|file| {
            let file = BlockFile::new(id, path, file, extent);
            file.check_head()?;
            check_extent(&file, extent)?;
            Ok(Arc::new(file))
        });
        self.checked.files += 1;
        checked.map_err(|problem| self.problem(problem)).ok()
    }

    fn block(&mut self, place: &Place) {
        for found in [place.read_directory().map(|_| ()), place.read_body().map(|_| ())] {
            if let Err(problem) = found {
                self.problem(problem);
            }
        }
    }

    fn problem(&mut self, problem: impl fmt::Display) {
        self.checked.problems.push(problem.to_string());
    }
}

fn check_extent(file: &BlockFile, extent: Extent) -> Result<(), Fatal> {
    let (mut checksum, mut at, mut buffer) = (0, 0, vec![0; CHECK_BYTES]);
    while at < extent.length {
        let length = (extent.length - at).min(CHECK_BYTES as u64) as usize;
        let read = file.file.read_exact_at_uncached(&mut buffer[..length], at);
        read.map_err(|error| file.damaged(at, error))?;
        checksum = crc32c::crc32c_append(checksum, &buffer[..length]);
        at += length as u64;
    }
    match checksum == extent.checksum {
        true => Ok(()),
        false => Err(file.damaged(0, "its checksum is not the one that a manifest names")),
    }
}
