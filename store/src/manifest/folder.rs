//! The folder `snap/`: how a manifest becomes durable, and how the newest good one is found.
//!
//! A manifest is written under a temporary name, fsynced, renamed, and its folder fsynced; it
//! counts once it has been read back past every cache. Damage is told from absence: a manifest
//! that cannot be used is reported by name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{MANIFEST, Manifest, ManifestInfo};
use crate::Fatal;
use crate::blocks::writer::WriteError;
use crate::files::Files;
use crate::frame::{FrameError, PREFIX};

const TEMPORARY: &str = ".tmp";

/// Where manifests lie.
#[derive(Clone)]
pub(crate) struct ManifestFolder {
    files: Arc<dyn Files>,
    path: PathBuf,
}

/// Why a manifest cannot be used.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// Its bytes are wrong, or a newer version wrote them.
    Frame(FrameError),
    /// It is another manifest under this name.
    Misnamed,
    /// It cannot be read.
    Io(io::Error),
}

impl ManifestFolder {
    /// The folder at `path`, which exists.
    pub(crate) fn new(files: Arc<dyn Files>, path: PathBuf) -> Self {
        Self { files, path }
    }

    /// Where a manifest lies.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The names of manifests, newest first. Leftovers of interrupted writes are removed.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = self.files.list(&self.path)?;
        for name in names.iter().filter(|name| name.ends_with(TEMPORARY)) {
            self.files.remove(&self.path.join(name))?;
        }
        names.retain(|name| ManifestInfo::position_of(name).is_some());
        names.reverse();
        Ok(names)
    }

    /// Reads and checks a manifest; also gives its bytes.
    pub(crate) fn load(&self, name: &str) -> Result<(Manifest, Vec<u8>), Unusable> {
        let bytes = self.read(name).map_err(Unusable::Io)?;
        let manifest = Manifest::decode(&bytes).map_err(Unusable::Frame)?;
        if manifest.info.name != name {
            return Err(Unusable::Misnamed);
        }
        Ok((manifest, bytes))
    }

    /// Writes a manifest, makes it durable, and reads it back from the device.
    pub(crate) fn save(&self, name: &str, bytes: &[u8]) -> Result<(), WriteError> {
        let path = self.path.join(name);
        // What is read back is compared with these bytes, so they must be worth comparing with.
        let sound = Manifest::decode(bytes).is_ok_and(|manifest| manifest.info.name == name);
        if !sound {
            let path = path.display();
            let what = format_args!("manifest {path} would contradict itself, and is not written");
            return Err(Fatal::new(what).into());
        }
        let temporary = self.path.join(format!("{name}{TEMPORARY}"));
        let failed = |error| WriteError::of(&path, error);
        if let Err(error) = self.write(&temporary, bytes) {
            // Only what has been written can be in the way of the next attempt.
            let _ = self.files.remove(&temporary);
            return Err(failed(error));
        }
        self.files.rename(&temporary, &path).map_err(failed)?;
        self.files.sync_directory(&self.path).map_err(failed)?;
        self.verify(&path, bytes)
    }

    /// Removes a manifest; nothing happens if it is gone.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Fatal> {
        let path = self.path.join(name);
        match self.files.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Fatal::new(format_args!("cannot remove {}: {error}", path.display())))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.files.exists(temporary)? {
            self.files.remove(temporary)?;
        }
        let file = self.files.create(temporary)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()
    }

    fn verify(&self, path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
        let read = self.files.open(path).and_then(|file| {
            let mut found = vec![0; file.length()? as usize];
            file.read_exact_at_uncached(&mut found, 0)?;
            Ok(found)
        });
        match read {
            Ok(found) if found == bytes => Ok(()),
            Ok(_) => Err(WriteError::Fatal(Fatal::new(format_args!(
                "manifest {} reads back differently after an fsync",
                path.display()
            )))),
            Err(error) => Err(WriteError::of(path, error)),
        }
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let file = self.files.open(&self.path.join(name))?;
        let length = file.length()?;
        let length_max = u64::from(MANIFEST.length_max) + PREFIX as u64;
        let mut bytes = vec![0; length.min(length_max) as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Frame(error) => error.fmt(f),
            Self::Misnamed => f.write_str("it is another manifest under this name"),
            Self::Io(error) => error.fmt(f),
        }
    }
}
