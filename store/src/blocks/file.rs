//! Block files: append-only, named uniquely among all members, read with every checksum checked.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::format::{self, BLOCK, BlockError, BlockHeader, FILE, FileHeader};
use crate::files::{File, Files};
use crate::frame::PREFIX;
use crate::{Fatal, RecordHeader};

/// What the names of block files end with.
pub(crate) const SUFFIX: &str = ".blocks";

/// How much is read at a time when whole files are checked.
pub(crate) const CHECK_BYTES: usize = 1 << 20;

/// A block file's identity: who began it, and the how manieth it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId {
    pub(crate) incarnation: u64,
    pub(crate) sequence: u64,
}

impl FileId {
    /// The file's name within `blocks/`.
    pub(crate) fn name(self) -> String {
        format!("{self}{SUFFIX}")
    }

    /// The identity that a name stands for.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let (incarnation, sequence) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        let incarnation = u64::from_str_radix(incarnation, 16).ok()?;
        let sequence = u64::from_str_radix(sequence, 16).ok()?;
        let id = Self { incarnation, sequence };
        (id.name() == name).then_some(id)
    }

    /// The head of the file.
    pub(crate) fn header(self) -> Vec<u8> {
        FILE.wrap(&FileHeader { incarnation: self.incarnation, sequence: self.sequence })
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.incarnation, self.sequence)
    }
}

/// A length of a block file, and the crc32c of all bytes up to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) length: u64,
    pub(crate) checksum: u32,
}

/// An open block file. Every user holds an `Arc`; a file that only the registry holds is garbage.
pub(crate) struct BlockFile {
    pub(crate) id: FileId,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    extents: Mutex<Extents>,
    /// Bytes of blocks that the directory still names.
    kept: AtomicU64,
}

#[derive(Clone, Copy)]
struct Extents {
    written: Extent,
    /// Read back past every cache after an fsync, and found right.
    verified: Extent,
}

/// A block's place on disk.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) file: Arc<BlockFile>,
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

impl BlockFile {
    /// A file of which `extent` is known to be durable.
    pub(crate) fn new(id: FileId, path: PathBuf, file: Arc<dyn File>, extent: Extent) -> Self {
        let extents = Mutex::new(Extents { written: extent, verified: extent });
        Self { id, path, file, extents, kept: AtomicU64::new(0) }
    }

    /// Opens a file that a manifest names with this extent, and cuts what was written after it.
    pub(crate) fn open(
        files: &dyn Files,
        folder: &Path,
        id: FileId,
        extent: Extent,
    ) -> Result<Self, Fatal> {
        let path = folder.join(id.name());
        let failed = |error| unreadable(&path, error);
        let file = files.open(&path).map_err(failed)?;
        let length = file.length().map_err(failed)?;
        if length < extent.length {
            return Err(Fatal::new(format_args!(
                "block file {} is damaged: it has {length} bytes, and a manifest names {} of them",
                path.display(),
                extent.length
            )));
        }
        if length > extent.length {
            file.set_length(extent.length).map_err(failed)?;
        }
        let opened = Self::new(id, path, file, extent);
        opened.check_head()?;
        Ok(opened)
    }

    /// The bytes written so far.
    pub(crate) fn written(&self) -> Extent {
        self.extents().written
    }

    /// The bytes that are known to be on disk.
    pub(crate) fn verified(&self) -> Extent {
        self.extents().verified
    }

    /// Adds bytes at the end. Nothing changes when it fails: the next attempt writes over it.
    pub(crate) fn append(&self, bytes: &[u8]) -> io::Result<u64> {
        let before = self.written();
        self.file.write_all_at(bytes, before.length)?;
        let checksum = crc32c::crc32c_append(before.checksum, bytes);
        let length = before.length + bytes.len() as u64;
        self.extents.lock().expect("no panic under it").written = Extent { length, checksum };
        Ok(before.length)
    }

    /// Makes everything written durable and reads it back from the device.
    pub(crate) fn sync_and_verify(&self) -> io::Result<Result<Extent, Fatal>> {
        let Extents { written, verified } = self.extents();
        if written == verified {
            return Ok(Ok(written));
        }
        self.file.sync_data()?;
        let mut checksum = verified.checksum;
        let mut buffer = vec![0; CHECK_BYTES];
        let mut at = verified.length;
        while at < written.length {
            let length = (written.length - at).min(CHECK_BYTES as u64) as usize;
            self.file.read_exact_at_uncached(&mut buffer[..length], at)?;
            checksum = crc32c::crc32c_append(checksum, &buffer[..length]);
            at += length as u64;
        }
        if checksum != written.checksum {
            let what = "what was written to it reads back differently after an fsync";
            return Ok(Err(self.damaged(verified.length, what)));
        }
        self.extents.lock().expect("no panic under it").verified = written;
        Ok(Ok(written))
    }

    /// Bytes of blocks in use.
    pub(crate) fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// An error about a block of this file.
    pub(crate) fn damaged(&self, offset: u64, what: impl fmt::Display) -> Fatal {
        Fatal::new(format_args!(
            "block file {} is damaged at offset {offset}: {what}",
            self.path.display()
        ))
    }

    /// Whether the file begins as its name says.
    pub(crate) fn check_head(&self) -> Result<(), Fatal> {
        let expected = self.id.header();
        let mut head = vec![0; expected.len().min(self.written().length as usize)];
        self.file.read_exact_at(&mut head, 0).map_err(|error| unreadable(&self.path, error))?;
        let header: FileHeader = match FILE.unwrap(&head) {
            Ok((header, _)) => header,
            Err(error) => return Err(self.damaged(0, format_args!("the file header: {error}"))),
        };
        let found = FileId { incarnation: header.incarnation, sequence: header.sequence };
        if found != self.id {
            return Err(self.damaged(0, format_args!("it is file {found} under another name")));
        }
        Ok(())
    }

    fn extents(&self) -> Extents {
        *self.extents.lock().expect("no panic under it")
    }
}

impl Place {
    /// Where it lies: what the cache knows it by.
    pub(crate) fn id(&self) -> (FileId, u64) {
        (self.file.id, self.offset)
    }

    /// The block is named by the directory now.
    pub(crate) fn keep(&self) {
        self.file.kept.fetch_add(u64::from(self.length), Ordering::Relaxed);
    }

    /// The directory names the block no more.
    pub(crate) fn let_go(&self) {
        self.file.kept.fetch_sub(u64::from(self.length), Ordering::Relaxed);
    }

    /// Reads and checks the whole block, and gives its body.
    pub(crate) fn read_body(&self) -> Result<Bytes, Fatal> {
        let bytes = self.read(self.length as usize)?;
        let (header, end) = self.checked(self.header(&bytes))?;
        let (directory, body) = self.parts(&bytes, &header, end)?;
        // The directory is not needed, but a block is either whole or not to be trusted.
        let found = crc32c::crc32c(directory);
        if found != header.directory.checksum {
            return Err(self.file.damaged(self.offset, "its key directory does not match"));
        }
        self.checked(format::decode_body(&header, body))
    }

    /// Reads and checks the header and the key directory.
    pub(crate) fn read_directory(&self) -> Result<Vec<RecordHeader>, Fatal> {
        let stored = self.read_stored_directory()?;
        self.checked(stored.decode())
    }

    /// Reads and checks the header and the key directory, and leaves the directory as it is stored.
    pub(crate) fn read_stored_directory(&self) -> Result<StoredDirectory, Fatal> {
        let guess = (self.length as usize).min(4 << 10);
        let mut bytes = self.read(guess)?;
        let (header, end) = self.checked(self.header(&bytes))?;
        let needed = end + header.directory.stored as usize;
        if needed > self.length as usize {
            return Err(self.file.damaged(self.offset, "its parts do not fit its length"));
        }
        if needed > bytes.len() {
            bytes = self.read(needed)?;
        }
        let stored = bytes[end..needed].to_vec();
        if crc32c::crc32c(&stored) != header.directory.checksum {
            return Err(self.file.damaged(self.offset, "its key directory does not match"));
        }
        Ok(StoredDirectory { header, bytes: stored })
    }

    fn header(&self, bytes: &[u8]) -> Result<(BlockHeader, usize), BlockError> {
        format::decode_header(bytes, self.file.id, self.offset)
    }

    fn parts<'a>(
        &self,
        bytes: &'a [u8],
        header: &BlockHeader,
        end: usize,
    ) -> Result<(&'a [u8], &'a [u8]), Fatal> {
        let rest = &bytes[end..];
        let (directory, body) = (header.directory.stored as usize, header.body.stored as usize);
        if rest.len() != directory + body {
            return Err(self.file.damaged(self.offset, "its parts do not fit its length"));
        }
        Ok(rest.split_at(directory))
    }

    fn read(&self, length: usize) -> Result<Vec<u8>, Fatal> {
        let mut bytes = vec![0; length];
        match self.file.file.read_exact_at(&mut bytes, self.offset) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.file.damaged(self.offset, "the file ends before the block does"))
            }
            Err(error) => Err(Fatal::new(format_args!(
                "block file {} cannot be read at offset {}: {error}",
                self.file.path.display(),
                self.offset
            ))),
        }
    }

    fn checked<T>(&self, result: Result<T, BlockError>) -> Result<T, Fatal> {
        result.map_err(|error| self.file.damaged(self.offset, error))
    }
}

/// A key directory in the bytes of its block, with the header that describes it.
pub(crate) struct StoredDirectory {
    pub(crate) header: BlockHeader,
    pub(crate) bytes: Vec<u8>,
}

impl StoredDirectory {
    /// The records' headers.
    pub(crate) fn decode(&self) -> Result<Vec<RecordHeader>, BlockError> {
        format::decode_directory(&self.header, &self.bytes)
    }
}

/// The shortest possible block; anything shorter in a manifest is nonsense.
pub(crate) const BLOCK_BYTES_MIN: u32 = PREFIX as u32;

const _: () = assert!(BLOCK.length_max < 4 << 10);

fn unreadable(path: &Path, error: io::Error) -> Fatal {
    Fatal::new(format_args!("block file {} cannot be opened: {error}", path.display()))
}
