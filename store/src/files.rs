//! The file system as the store and the log see it, so that a simulation can take its place.
//!
//! Promises nothing about durability beyond what each method says: a write is durable only after
//! `sync_data` on its file, a new name only after `sync_directory` on its folder. Real files are
//! in `real.rs`, crashable ones in memory in `memory.rs`.

use std::io;
use std::path::Path;
use std::sync::Arc;

pub mod memory;
mod read_only;
mod real;

pub use memory::MemoryFiles;
pub use read_only::ReadOnlyFiles;
pub use real::RealFiles;

/// An open file. Reads and writes name their offset; there is no cursor.
pub trait File: Send + Sync {
    /// Fills `buffer` from `offset`; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// As [`File::read_exact_at`], but past any cache where the system can (to verify what is
    /// really on disk).
    fn read_exact_at_uncached(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, extending the file if need be. Not durable.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything written so far durable, and the length if it changed.
    fn sync_data(&self) -> io::Result<()>;
    /// The length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Cuts or extends (with zeros) the file. Not durable.
    fn set_length(&self, length: u64) -> io::Result<()>;
}

/// The names, and the way to open what they name. Paths are absolute.
pub trait Files: Send + Sync {
    /// Makes a new file; `AlreadyExists` if there is one.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file for reading and writing; `NotFound` if there is none.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Gives a file another name, replacing what had it. Atomic; durable after `sync_directory`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder and everything in it; nothing happens if it is absent.
    fn remove_directory(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder and its parents; nothing happens if it is there.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Whether a file or folder has this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Bytes free and bytes in all on the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// How full a file system is.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// Bytes that this process may still write.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}
