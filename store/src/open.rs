//! Opening a data directory: the newest checkpoint that is whole, and nothing besides it.
//!
//! What is not part of a kept manifest is removed: block files that none names, and bytes that
//! were written after the manifest was taken (the log brings them again). A manifest that cannot
//! be used is reported, and the one before it is used. Nothing is removed before the directory has
//! been found to be ours and of a format that is known.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::backend::directory::BlockDirectory;
use crate::blocks::writer::BlockWriter;
use crate::blocks::{BlockFile, FileId};
use crate::disk::{BLOCKS, Disk, KeptManifest, MANIFESTS_KEPT, PARTIAL, SLED, SNAP};
use crate::frame::FrameError;
use crate::load::{OpenFiles, Restore, load_blocks};
use crate::maintain::{Maintainer, Sweep};
use crate::manifest::Manifest;
use crate::manifest::folder::{ManifestFolder, Unusable};
use crate::state::{Restored, Restorer};
use crate::{Fatal, Options, Reader, Records, State, WatchHub};

pub(crate) mod format_file;

/// Why a data directory was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system refused.
    #[error("cannot use {}: {error}", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// Another program's directory.
    #[error("{} was not made by holdfast: {what}", path.display())]
    Foreign {
        /// What was found.
        path: PathBuf,
        /// Why it is not ours.
        what: &'static str,
    },
    /// A newer version has been here.
    #[error("{} has format {found}, and this version knows formats up to {known}", path.display())]
    Newer {
        /// Which file says so.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that this version reads.
        known: u32,
    },
    /// There are manifests, and none can be used.
    #[error("no usable checkpoint: {what}")]
    NoCheckpoint {
        /// What is wrong with each of them.
        what: String,
    },
    /// A file that the checkpoint needs is damaged, or its contents are refused.
    #[error(transparent)]
    Damaged(#[from] Fatal),
}

/// An open store.
pub struct Opened {
    /// The only writer.
    pub state: State,
    /// The housekeeping, to be driven.
    pub maintainer: Maintainer,
    /// Reads.
    pub reader: Reader,
    /// Watches.
    pub hub: WatchHub,
    /// What an operator may want to know: damage that was survived.
    pub notes: Vec<String>,
}

/// Opens a data directory, or makes it.
pub fn open(options: Options) -> Result<Opened, OpenError> {
    let opening = Opening::begin(options.clone())?;
    let mut restorer = match opening.tables() {
        Some(tables) => Restorer::new(tables)?,
        None => Restorer::fresh(),
    };
    let mut loaded = opening.load(&mut restorer)?;
    let notes = std::mem::take(&mut loaded.notes);
    let restored = restorer.finish(loaded.records.clone(), &options)?;
    let Restored { state, reader, hub, sweeper } = restored;
    Ok(Opened { state, maintainer: loaded.into_maintainer(sweeper), reader, hub, notes })
}

/// A data directory whose checkpoint has been chosen and not loaded yet.
pub(crate) struct Opening {
    options: Options,
    folder: ManifestFolder,
    chosen: Option<(Manifest, OpenFiles)>,
    kept: VecDeque<KeptManifest>,
    records: Records,
    next_sequence: u64,
    notes: Vec<String>,
}

/// A loaded data directory; a [`Maintainer`] once it has a sweeper.
pub(crate) struct Loaded {
    pub(crate) records: Records,
    /// What an operator may want to know: damage that was survived.
    pub(crate) notes: Vec<String>,
    /// Whether the key directories were read from the blocks.
    #[cfg(test)]
    pub(crate) rebuilt: bool,
    disk: Arc<Disk>,
    writer: BlockWriter,
    directory: BlockDirectory,
}

impl Opening {
    /// Looks at the directory and chooses the checkpoint.
    pub(crate) fn begin(options: Options) -> Result<Self, OpenError> {
        let files = options.files.clone();
        format_file::check(&*files, &options.directory)?;
        for name in [BLOCKS, SNAP] {
            let path = options.directory.join(name);
            files.create_directory(&path).map_err(io_error(&path))?;
        }
        format_file::write(&*files, &options.directory)?;
        let folder = ManifestFolder::new(files, options.directory.join(SNAP));
        let records = Records::new(options.block_cache_bytes);
        let (kept, notes) = (VecDeque::new(), Vec::new());
        let mut opening =
            Self { options, folder, chosen: None, kept, records, next_sequence: 0, notes };
        opening.choose()?;
        opening.remove_leftovers()?;
        Ok(opening)
    }

    /// The small tables of the checkpoint, if there is one.
    pub(crate) fn tables(&self) -> Option<&Bytes> {
        self.chosen.as_ref().map(|(manifest, _)| &manifest.tables)
    }

    /// Tells `restore` of every record of the checkpoint.
    pub(crate) fn load(self, restore: &mut dyn Restore) -> Result<Loaded, OpenError> {
        let Self { options, folder, chosen, kept, records, next_sequence, mut notes } = self;
        let manifest = chosen.as_ref().map(|(manifest, _)| manifest);
        let sled = options.directory.join(SLED);
        let mut directory = BlockDirectory::open(options.backend.clone(), sled, manifest)?;
        let rebuilt = chosen.is_some() && !directory.is_filled();
        if let Some((manifest, files)) = &chosen {
            if rebuilt {
                directory.begin();
            }
            let blocks = load_blocks(manifest, files, Some(&mut directory), restore)?;
            if rebuilt {
                directory.commit(manifest);
            }
            blocks.values().for_each(|block| block.place.keep());
            records.shared.write().blocks = blocks;
        }
        notes.extend(directory.take_trouble());
        let disk = Arc::new(Disk::new(options, records.clone(), folder, next_sequence, kept));
        let writer = BlockWriter::new(
            disk.options.files.clone(),
            disk.blocks(),
            disk.options.incarnation,
            disk.next_sequence.clone(),
            disk.options.block_file_bytes_here(),
        );
        Ok(Loaded {
            records,
            notes,
            #[cfg(test)]
            rebuilt,
            disk,
            writer,
            directory,
        })
    }

    /// Takes the newest manifest that is whole, and keeps the one before it.
    fn choose(&mut self) -> Result<(), OpenError> {
        let names = self.folder.names().map_err(io_error(&self.options.directory))?;
        for name in &names {
            match self.try_manifest(name)? {
                Ok(manifest) if self.kept.len() < MANIFESTS_KEPT => match self.keep(manifest) {
                    // The one before it is a spare: damage to that keeps nobody from starting.
                    Err(error) if self.chosen.is_some() => {
                        let path = self.folder.path_of(name);
                        self.notes.push(format!("manifest {}: {error}", path.display()));
                    }
                    kept => kept?,
                },
                Ok(_) => {}
                Err(what) => self.notes.push(what),
            }
        }
        if self.chosen.is_none() && !names.is_empty() {
            return Err(OpenError::NoCheckpoint { what: self.notes.join("; ") });
        }
        let kept: Vec<_> = self.kept.iter().map(|kept| kept.info.name.clone()).collect();
        for name in names.iter().filter(|name| !kept.contains(name)) {
            self.folder.remove(name)?;
        }
        Ok(())
    }

    /// Reads a manifest and looks whether its files are there and long enough; changes nothing.
    fn try_manifest(&self, name: &str) -> Result<Result<Manifest, String>, OpenError> {
        let path = self.folder.path_of(name);
        let manifest = match self.folder.load(name) {
            Ok((manifest, _)) => manifest,
            Err(Unusable::Frame(FrameError::Newer { found, known })) => {
                return Err(OpenError::Newer { path, found, known });
            }
            Err(error) => return Ok(Err(format!("manifest {}: {error}", path.display()))),
        };
        for (id, extent) in &manifest.files {
            let file = self.blocks().join(id.name());
            let length = self.options.files.open(&file).and_then(|file| file.length());
            let what = match length {
                Ok(length) if length >= extent.length => continue,
                Ok(length) => format!("has {length} of {} bytes", extent.length),
                Err(error) => error.to_string(),
            };
            let path = path.display();
            return Ok(Err(format!("manifest {path}: its file {} {what}", file.display())));
        }
        Ok(Ok(manifest))
    }

    fn keep(&mut self, manifest: Manifest) -> Result<(), OpenError> {
        let mut files = OpenFiles::new();
        for (id, extent) in &manifest.files {
            let opened = self.records.shared.registry().get(id).cloned();
            let file = match opened {
                Some(file) => file,
                None => {
                    let file = BlockFile::open(&*self.options.files, &self.blocks(), *id, *extent)?;
                    let file = Arc::new(file);
                    self.records.shared.registry().insert(*id, file.clone());
                    file
                }
            };
            files.insert(*id, (file, *extent));
        }
        self.next_sequence = self.next_sequence.max(manifest.next_sequence);
        let kept = files.values().cloned().collect();
        self.kept.push_front(KeptManifest { info: manifest.info.clone(), files: kept });
        self.chosen.get_or_insert((manifest, files));
        Ok(())
    }

    /// Removes block files that no kept manifest names; their names are not used again.
    fn remove_leftovers(&mut self) -> Result<(), OpenError> {
        let folder = self.blocks();
        let names = self.options.files.list(&folder).map_err(io_error(&folder))?;
        for name in names {
            let id = FileId::of_name(&name);
            if let Some(id) = id.filter(|id| id.incarnation == self.options.incarnation) {
                self.next_sequence = self.next_sequence.max(id.sequence + 1);
            }
            if id.is_some_and(|id| self.records.shared.registry().contains_key(&id)) {
                continue;
            }
            if id.is_none() && !name.ends_with(PARTIAL) {
                continue;
            }
            let path = folder.join(&name);
            self.options.files.remove(&path).map_err(io_error(&path))?;
        }
        Ok(())
    }

    fn blocks(&self) -> PathBuf {
        self.options.directory.join(BLOCKS)
    }
}

impl Loaded {
    /// The housekeeping, with what finds superfluous records.
    pub(crate) fn into_maintainer(self, sweeper: Box<dyn Sweep>) -> Maintainer {
        Maintainer::new(self.disk, self.writer, self.directory, sweeper)
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> OpenError {
    let path = path.to_owned();
    move |error| OpenError::Io { path: path.clone(), error }
}

#[cfg(test)]
mod tests;
