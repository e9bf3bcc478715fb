//! Room for temporary files beside the data, on the same file system.
//!
//! A snapshot must not be what fills the disk: members refuse writes before they reach their
//! reserve, so a file is begun only where twice the reserve is left beside it, with room for segments
//! of the log, and is given up when others have used that up meanwhile.

use std::io;
use std::path::PathBuf;

use holdfast_raft::reserve_bytes;

/// A segment of the log, unless a thirty-second of the file system is less.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Segments that the log may begin meanwhile.
const SEGMENTS: u64 = 2;

/// The room in a directory.
#[derive(Clone, Debug)]
pub struct Room(PathBuf);

impl Room {
    /// Of this directory.
    pub fn of(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Which directory it is.
    pub fn directory(&self) -> &PathBuf {
        &self.0
    }

    /// How many bytes a file may take.
    pub fn left(&self) -> io::Result<u64> {
        let (free, reserve, segments) = self.measure()?;
        Ok(free.saturating_sub(2 * reserve + segments))
    }

    /// Whether files that are there should go.
    pub fn is_short(&self) -> io::Result<bool> {
        let (free, reserve, segments) = self.measure()?;
        Ok(free < reserve + segments)
    }

    fn measure(&self) -> io::Result<(u64, u64, u64)> {
        let stat = rustix::fs::statvfs(&self.0)?;
        let (free, total) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
        let segment = SEGMENT_BYTES_MAX.min(total / 32);
        Ok((free, reserve_bytes(total), SEGMENTS * segment))
    }
}
