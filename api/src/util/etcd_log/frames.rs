//! The frames of one file of etcd's write-ahead log, and where they end.
//!
//! ```text
//! frame*: length, 8 bytes (56 bits, then the padding) | record | padding       then zeros
//! ```
//!
//! etcd makes its files long and full of zeros, and writes into them. So the frames end at a length
//! of 0, or where the file does; nothing but zeros comes after. A crash may leave the last frame
//! in part: then the file ends within it, or a sector of it was never written and is all zeros.
//! Everything else that makes no sense is damage. So is a frame that is longer than the record in
//! it says: a length that rotted may reach into the zeros.

use std::fs::File;
use std::io::{self, BufReader, Read};

use bytes::Bytes;
use prost::encoding::{WireType, decode_key, decode_varint};

/// What a disk writes whole or not at all.
const SECTOR: u64 = 512;

/// What is wrong with a file: an error in reading it, or with its contents.
pub(super) enum Wrong {
    Io(io::Error),
    Damage(&'static str),
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// How a file's frames end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With a whole frame.
    Whole,
    /// With a frame that was being written.
    Torn,
}

/// The frames of one file.
pub(super) struct Frames<R> {
    file: R,
    length: u64,
    at: u64,
}

/// One frame, read.
pub(super) struct Frame {
    pub(super) record: Bytes,
    /// It may not have been written as a whole: a sector of it is all zeros.
    pub(super) may_be_torn: bool,
}

impl Frames<BufReader<File>> {
    pub(super) fn of(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self::new(BufReader::new(file), length))
    }
}

impl<R: Read> Frames<R> {
    pub(super) fn new(file: R, length: u64) -> Self {
        Self { file, length, at: 0 }
    }

    /// The next frame, or how they end.
    pub(super) fn next(&mut self) -> Result<Result<Frame, End>, Wrong> {
        let left = self.length - self.at;
        if left < 8 {
            let rest = self.read(left)?;
            let is_over = rest.iter().all(|byte| *byte == 0);
            return Ok(Err(if is_over { End::Whole } else { End::Torn }));
        }
        let head = self.read(8)?;
        let field = u64::from_le_bytes(head[..].try_into().expect("eight bytes"));
        if field == 0 {
            return self.only_zeros("there is more behind its end").map(|()| Err(End::Whole));
        }
        let padding = if field >> 63 == 1 { field >> 56 & 7 } else { 0 };
        let (length, start) = (field & !(0xff << 56), self.at);
        if length + padding > self.length - start {
            return self.beyond_the_end();
        }
        let mut record = self.read(length + padding)?;
        record.truncate(length as usize);
        let may_be_torn = has_zero_sector(&record, start) && is_as_long_as_it_says(&record, start);
        Ok(Ok(Frame { record: record.into(), may_be_torn }))
    }

    /// After a frame with a sector of zeros that makes no sense: it was the last to be written.
    pub(super) fn torn(&mut self) -> Result<End, Wrong> {
        self.only_zeros("there is more behind a record that makes no sense")?;
        Ok(End::Torn)
    }

    /// A file that was made long beforehand ends in zeros, and no frame crosses them.
    fn beyond_the_end(&mut self) -> Result<Result<Frame, End>, Wrong> {
        let mut last_zeros = 0;
        while self.at < self.length {
            let piece = self.read((self.length - self.at).min(1 << 20))?;
            let zeros = piece.iter().rev().take_while(|byte| **byte == 0).count() as u64;
            last_zeros = if zeros < piece.len() as u64 { zeros } else { last_zeros + zeros };
        }
        match last_zeros < SECTOR {
            true => Ok(Err(End::Torn)),
            false => Err(Wrong::Damage("a record is longer than the file")),
        }
    }

    fn only_zeros(&mut self, otherwise: &'static str) -> Result<(), Wrong> {
        while self.at < self.length {
            let piece = self.read((self.length - self.at).min(1 << 20))?;
            if piece.iter().any(|byte| *byte != 0) {
                return Err(Wrong::Damage(otherwise));
            }
        }
        Ok(())
    }

    fn read(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        self.file.read_exact(&mut bytes)?;
        self.at += length;
        Ok(bytes)
    }
}

/// Whether the part of `bytes` in some sector is all zeros; they begin at `start` of the file.
fn has_zero_sector(bytes: &[u8], start: u64) -> bool {
    let (first, rest) = bytes.split_at(in_first_sector(bytes, start));
    is_zero(first) || rest.chunks(SECTOR as usize).any(is_zero)
}

fn in_first_sector(bytes: &[u8], start: u64) -> usize {
    ((SECTOR - start % SECTOR) as usize).min(bytes.len())
}

fn is_zero(part: &[u8]) -> bool {
    !part.is_empty() && part.iter().all(|byte| *byte == 0)
}

/// Whether the record's own account of its length is that of its frame, or was never written.
fn is_as_long_as_it_says(record: &[u8], start: u64) -> bool {
    let mut rest = record;
    if is_zero(&record[..in_first_sector(record, start)]) {
        return true;
    }
    while let Ok((_, wire)) = decode_key(&mut rest) {
        let Ok(number) = decode_varint(&mut rest) else { return false };
        match wire {
            WireType::Varint => {}
            WireType::LengthDelimited => return rest.len() as u64 == number,
            _ => return false,
        }
    }
    false
}
