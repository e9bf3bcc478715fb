//! Which segment was the newest, noted beside the segments: a log whose last segment has vanished
//! would else look like one that ends earlier.
//!
//! ```text
//! magic "HFWN" | format (u32) | segment (u64) | crc32c of those 16 bytes (u32)
//! ```
//!
//! Written behind the writer's back, after the segment's name is durable, so that it costs no sync
//! that anybody waits for. It never names a segment that a crash could take back, and lags behind
//! for a moment at most. It is no part of the log: one that is absent or does not verify says
//! nothing.

use std::path::{Path, PathBuf};

use holdfast_store::files::Files;

use super::error::WalError;

/// The name of the file.
pub(super) const NAME: &str = "newest";
const TEMPORARY: &str = "newest.tmp";
const MAGIC: &[u8; 4] = b"HFWN";
const FORMAT: u32 = 1;
const BODY: usize = 16;
const LENGTH: usize = BODY + 4;

/// Where the note of a log lies.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

fn encode(segment: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..4].copy_from_slice(MAGIC);
    bytes[4..8].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[8..BODY].copy_from_slice(&segment.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..BODY]);
    bytes[BODY..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; LENGTH]) -> Option<u64> {
    let segment = bytes[8..BODY].try_into().expect("eight bytes");
    let segment = u64::from_le_bytes(segment);
    (*bytes == encode(segment)).then_some(segment)
}

/// Replaces the note.
pub(super) fn write(
    files: &dyn Files,
    directory: &Path,
    segment: u64,
    syncs: bool,
) -> Result<(), WalError> {
    let temporary = directory.join(TEMPORARY);
    if files.exists(&temporary).map_err(WalError::io("look for", &temporary))? {
        files.remove(&temporary).map_err(WalError::io("remove", &temporary))?;
    }
    let file = files.create(&temporary).map_err(WalError::io("create", &temporary))?;
    file.write_all_at(&encode(segment), 0).map_err(WalError::io("write", &temporary))?;
    if syncs {
        file.sync_data().map_err(WalError::io("sync", &temporary))?;
    }
    files.rename(&temporary, &path(directory)).map_err(WalError::io("rename", &temporary))?;
    if syncs {
        files.sync_directory(directory).map_err(WalError::io("sync", directory))?;
    }
    Ok(())
}

/// Reads the note; none if it says nothing.
pub(super) fn read(files: &dyn Files, directory: &Path) -> Result<Option<u64>, WalError> {
    let path = path(directory);
    let file = files.open(&path).map_err(WalError::io("open", &path))?;
    let length = file.length().map_err(WalError::io("measure", &path))?;
    let mut bytes = [0; LENGTH];
    let mut noted = None;
    if length == LENGTH as u64 {
        file.read_exact_at(&mut bytes, 0).map_err(WalError::io("read", &path))?;
        noted = decode(&bytes);
    }
    if noted.is_none() {
        tracing::warn!(path = %path.display(), "the note of the newest WAL segment is damaged");
    }
    Ok(noted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_that_is_not_as_written_says_nothing() {
        let bytes = encode(7);
        assert_eq!(decode(&bytes), Some(7));
        for bit in 0..LENGTH * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
    }
}
