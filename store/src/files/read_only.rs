//! Real files that cannot be changed by way of this.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::real::RealFile;
use super::{File, Files, RealFiles, Space};

/// The file system of the machine, for reading: every change is refused, and files are opened so
/// that the system refuses it too.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnlyFiles;

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "nothing may be changed here"))
}

impl Files for ReadOnlyFiles {
    fn create(&self, _: &Path) -> io::Result<Arc<dyn File>> {
        refused()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile(fs::File::open(path)?)))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove_directory(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn create_directory(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealFiles.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealFiles.exists(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        RealFiles.space(path)
    }
}
