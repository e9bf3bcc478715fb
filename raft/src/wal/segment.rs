//! Segment files: their names, and how a new one comes to be.
//!
//! ```text
//! 0000000000000007.wal   segment 7, part of the log
//! 0000000000000008.tmp   segment 8 being made; removed at opening
//! spare-3                a full segment's worth of written bytes, waiting to be used
//! spare-4.tmp            a spare being filled; removed at opening
//! newest                 the newest segment's number: see `newest.rs`
//! ```
//!
//! A file gets a segment's name only when its whole length was written and its header synced, so
//! a segment shorter than its header says, or with a bad header, was not left so by a crash.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_store::files::{File, Files};

use super::error::WalError;
use super::format::{self, SegmentHeader};
use super::limits::ZERO_BYTES;
use super::newest;

const SUFFIX: &str = ".wal";
const TEMPORARY: &str = ".tmp";
const SPARE: &str = "spare-";

/// What a name in the log's folder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Segment(u64),
    Spare(u64),
    Newest,
    Temporary,
    Foreign,
}

pub(super) fn classify(name: &str) -> Name {
    if name.ends_with(TEMPORARY) {
        return Name::Temporary;
    }
    if name == newest::NAME {
        return Name::Newest;
    }
    let spare = name.strip_prefix(SPARE).and_then(|number| number.parse().ok());
    let segment = name
        .strip_suffix(SUFFIX)
        .filter(|number| number.len() == 16)
        .and_then(|number| u64::from_str_radix(number, 16).ok());
    spare.map(Name::Spare).or(segment.map(Name::Segment)).unwrap_or(Name::Foreign)
}

pub(super) fn path(directory: &Path, segment: u64) -> PathBuf {
    directory.join(format!("{segment:016x}{SUFFIX}"))
}

pub(super) fn temporary_path(directory: &Path, segment: u64) -> PathBuf {
    directory.join(format!("{segment:016x}{TEMPORARY}"))
}

pub(super) fn spare_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{SPARE}{number}"))
}

pub(super) fn spare_temporary_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{SPARE}{number}{TEMPORARY}"))
}

/// A new segment before it has its name: header written, nothing synced.
pub(super) struct Draft {
    pub(super) file: Arc<dyn File>,
    pub(super) length: u64,
    /// The checksum of its header.
    pub(super) link: u32,
    path: PathBuf,
    segment: u64,
}

/// What a new segment continues.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub(super) segment: u64,
    pub(super) previous_end: u64,
    pub(super) back_link: u32,
    pub(super) state: super::state::State,
}

impl Draft {
    /// Makes a file full of zeros: of `length`, or of `needed` where there is no room for that.
    pub(super) fn create(
        files: &dyn Files,
        directory: &Path,
        origin: Origin,
        length: u64,
        needed: u64,
    ) -> Result<Self, WalError> {
        assert!(needed <= length, "what is needed is a part of it");
        match Self::create_exactly(files, directory, origin, length) {
            Err(error) if error.is_want_of_room() => {
                Self::create_exactly(files, directory, origin, needed)
            }
            created => created,
        }
    }

    fn create_exactly(
        files: &dyn Files,
        directory: &Path,
        origin: Origin,
        length: u64,
    ) -> Result<Self, WalError> {
        let path = temporary_path(directory, origin.segment);
        let file = files.create(&path).map_err(WalError::io("create", &path))?;
        let filled = fill(&*file, &path, length);
        let draft = filled.and_then(|()| Self::begin(path.clone(), file, origin, length));
        draft.inspect_err(|_| discard(files, &path))
    }

    /// Takes a spare. Where even what is overwritten takes room, there may be none for its header:
    /// then the spare gives its own back.
    pub(super) fn from_spare(
        files: &dyn Files,
        spare: PathBuf,
        origin: Origin,
        length: u64,
    ) -> Result<Self, WalError> {
        let file = files.open(&spare).map_err(WalError::io("open", &spare))?;
        let draft = Self::begin(spare.clone(), file, origin, length);
        draft.inspect_err(|_| discard(files, &spare))
    }

    fn begin(
        path: PathBuf,
        file: Arc<dyn File>,
        origin: Origin,
        length: u64,
    ) -> Result<Self, WalError> {
        let header =
            SegmentHeader { previous_end: origin.previous_end, length, state: origin.state };
        let segment = origin.segment;
        let (sector, link) = format::encode_segment_header(&header, segment, origin.back_link);
        file.write_all_at(&sector, 0).map_err(WalError::io("write", &path))?;
        Ok(Self { file, length, link, path, segment })
    }

    /// Makes what was written durable, and only then gives the file its name.
    pub(super) fn publish(
        &self,
        files: &dyn Files,
        directory: &Path,
        syncs: bool,
    ) -> Result<(), WalError> {
        if syncs {
            self.file.sync_data().map_err(WalError::io("sync", &self.path))?;
        }
        let path = path(directory, self.segment);
        if let Err(error) = files.rename(&self.path, &path) {
            discard(files, &self.path);
            return Err(WalError::io("rename", &self.path)(error));
        }
        if syncs {
            files.sync_directory(directory).map_err(WalError::io("sync", directory))?;
        }
        Ok(())
    }
}

fn fill(file: &dyn File, path: &Path, length: u64) -> Result<(), WalError> {
    let mut filled = 0;
    while filled < length {
        filled += write_zeros(file, path, filled, length)?;
    }
    Ok(())
}

/// Removes a file that came to nothing, for its room, and so that its name is free.
pub(super) fn discard(files: &dyn Files, path: &Path) {
    if let Err(error) = files.remove(path) {
        tracing::warn!(%error, path = %path.display(), "cannot remove a half-made file");
    }
}

/// Writes the next zeros of a file that shall have `length`; returns how many.
pub(super) fn write_zeros(
    file: &dyn File,
    path: &Path,
    filled: u64,
    length: u64,
) -> Result<u64, WalError> {
    static ZEROS: [u8; ZERO_BYTES] = [0; ZERO_BYTES];
    let zeros = &ZEROS[..(length - filled).min(ZERO_BYTES as u64) as usize];
    file.write_all_at(zeros, filled).map_err(WalError::io("write", path))?;
    Ok(zeros.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let directory = Path::new("/d");
        let name = |path: PathBuf| classify(path.file_name().unwrap().to_str().unwrap());
        assert_eq!(name(path(directory, 26)), Name::Segment(26));
        assert_eq!(name(spare_path(directory, 26)), Name::Spare(26));
        assert_eq!(name(temporary_path(directory, 26)), Name::Temporary);
        assert_eq!(name(spare_temporary_path(directory, 26)), Name::Temporary);
        assert_eq!(name(newest::path(directory)), Name::Newest);
        assert_eq!(classify("1a.wal"), Name::Foreign);
        assert_eq!(classify("lost+found"), Name::Foreign);
    }
}
