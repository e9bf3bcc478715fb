//! A member's disk as one boot of it sees it.
//!
//! When the member crashes its boot loses the disk at once: whatever of it still runs gets errors,
//! and can neither read nor write what the next boot works on.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_store::files::{File, Files, MemoryFiles, Space};

/// The disk of one boot.
#[derive(Clone)]
pub struct BootDisk {
    inner: MemoryFiles,
    alive: Arc<AtomicBool>,
    /// A planted fault: syncing the log does nothing.
    skip_log_sync: bool,
}

struct BootFile {
    inner: Arc<dyn File>,
    skip_sync: bool,
}

impl BootDisk {
    /// The disk for a new boot.
    pub fn new(inner: MemoryFiles, skip_log_sync: bool) -> Self {
        Self { inner, alive: Arc::new(AtomicBool::new(true)), skip_log_sync }
    }

    /// Takes the disk away from this boot.
    pub fn detach(&self) {
        self.alive.store(false, Ordering::Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        match self.alive.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(io::Error::other("this boot has crashed")),
        }
    }

    fn wrap(&self, path: &Path, inner: Arc<dyn File>) -> Arc<dyn File> {
        let in_log = path.components().any(|part| part.as_os_str() == "wal");
        Arc::new(BootFile { inner, skip_sync: self.skip_log_sync && in_log })
    }
}

impl File for BootFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_exact_at(buffer, offset)
    }

    fn read_exact_at_uncached(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_exact_at_uncached(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.skip_sync { Ok(()) } else { self.inner.sync_data() }
    }

    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.inner.set_length(length)
    }
}

impl Files for BootDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.check()?;
        Ok(self.wrap(path, self.inner.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.check()?;
        Ok(self.wrap(path, self.inner.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check()?;
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check()?;
        self.inner.remove(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.check()?;
        self.inner.remove_directory(path)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.check()?;
        self.inner.create_directory(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.check()?;
        self.inner.sync_directory(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.check()?;
        self.inner.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.check()?;
        self.inner.exists(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.check()?;
        self.inner.space(path)
    }
}
