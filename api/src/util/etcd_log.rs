//! How far etcd's own write-ahead log is ahead of its database.
//!
//! ```text
//! file:   frame*            frame:  length, 8 bytes (56 bits, then padding) | Record | padding
//! Record { type: 1 metadata, 2 entry, 3 state, 4 crc, 5 snapshot; crc; data }
//! ```
//!
//! Every record's checksum continues the one before. Where the last file stops making sense, the
//! log ends; before that, it is damaged. Nothing is kept but the indexes of entries that change the
//! store.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};

const ENTRY: i64 = 2;
const STATE: i64 = 3;
const CHECKSUM: i64 = 4;
/// No record of etcd's is longer.
const RECORD_BYTES_MAX: u64 = 512 << 20;
/// More indexes than these are not worth keeping.
const INDEXES_MAX: usize = 1 << 16;
/// Entries made of these fields alone leave the store as it is: a header, the cluster's version, a
/// member's attributes, a downgrade.
const HARMLESS: [u32; 4] = [100, 1300, 1301, 1302];

#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(uint32, tag = "2")]
    checksum: u32,
    #[prost(bytes = "bytes", tag = "3")]
    data: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint64, tag = "3")]
    index: u64,
    #[prost(bytes = "bytes", tag = "4")]
    data: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HardState {
    #[prost(uint64, tag = "3")]
    commit: u64,
}

/// Why the log is not understood.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file that is not the last is damaged.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

/// What a log says beyond an index.
#[derive(Default)]
struct Beyond {
    after: u64,
    /// Entries that change the store, the oldest of them.
    changes: BTreeSet<u64>,
    commit: u64,
    checksum: u32,
}

/// The first committed entry after `after` that changes the store, and the last committed entry;
/// none if there is no such entry.
pub(super) fn first_missing(folder: &Path, after: u64) -> Result<Option<(u64, u64)>, LogError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| LogError::Io { path, error }
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "wal") {
            files.push(path);
        }
    }
    files.sort();
    let mut beyond = Beyond { after, ..Beyond::default() };
    for (number, path) in files.iter().enumerate() {
        let file = File::open(path).map_err(failed(path))?;
        let is_last = number + 1 == files.len();
        match beyond.read(&mut BufReader::new(file)).map_err(failed(path))? {
            Some(what) if !is_last => {
                return Err(LogError::Damaged { path: path.clone(), what });
            }
            _ => {}
        }
    }
    let first = beyond.changes.first().copied().filter(|first| *first <= beyond.commit);
    Ok(first.map(|first| (first, beyond.commit)))
}

impl Beyond {
    /// Reads one file; says what is wrong with what follows its last good record.
    fn read(&mut self, file: &mut impl Read) -> io::Result<Option<&'static str>> {
        loop {
            let mut frame = [0; 8];
            if let Err(error) = file.read_exact(&mut frame) {
                return end_of(error, None);
            }
            let field = u64::from_le_bytes(frame);
            if field == 0 {
                return Ok(None);
            }
            let padding = if field >> 63 == 1 { field >> 56 & 7 } else { 0 };
            let length = field & !(0xff << 56);
            if length > RECORD_BYTES_MAX {
                return Ok(Some("a record is too long"));
            }
            let mut bytes = vec![0; (length + padding) as usize];
            if let Err(error) = file.read_exact(&mut bytes) {
                return end_of(error, Some("it ends within a record"));
            }
            bytes.truncate(length as usize);
            let Ok(record) = Record::decode(Bytes::from(bytes)) else {
                return Ok(Some("a record does not decode"));
            };
            if !self.take(record) {
                return Ok(Some("a record's checksum is wrong"));
            }
        }
    }

    fn take(&mut self, record: Record) -> bool {
        if record.kind == CHECKSUM {
            let continues = self.checksum == 0 || self.checksum == record.checksum;
            self.checksum = record.checksum;
            return continues;
        }
        self.checksum = crc32c::crc32c_append(self.checksum, &record.data);
        if self.checksum != record.checksum {
            return false;
        }
        match record.kind {
            ENTRY => Entry::decode(record.data).map(|entry| self.entry(&entry)).is_ok(),
            STATE => {
                let state = HardState::decode(record.data);
                state.map(|state| self.commit = state.commit).is_ok()
            }
            _ => true,
        }
    }

    fn entry(&mut self, entry: &Entry) {
        // A later leader's entry takes the place of this one and of all after it.
        self.changes.split_off(&entry.index);
        let changes = entry.kind == 0 && !entry.data.is_empty() && !is_harmless(&entry.data);
        if entry.index > self.after && changes && self.changes.len() < INDEXES_MAX {
            self.changes.insert(entry.index);
        }
    }
}

fn end_of(error: io::Error, what: Option<&'static str>) -> io::Result<Option<&'static str>> {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Ok(what),
        _ => Err(error),
    }
}

fn is_harmless(request: &Bytes) -> bool {
    let mut rest = request.clone();
    while !rest.is_empty() {
        let Ok((field, wire)) = decode_key(&mut rest) else { return false };
        let skipped = skip_field(wire, field, &mut rest, DecodeContext::default());
        if !HARMLESS.contains(&field) || skipped.is_err() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(records: &[(i64, Vec<u8>)]) -> Vec<u8> {
        let mut checksum = 0;
        let mut file = Vec::new();
        for (kind, data) in records {
            checksum = crc32c::crc32c_append(checksum, data);
            let record = Record { kind: *kind, checksum, data: data.clone().into() };
            let bytes = record.encode_to_vec();
            let padding = (8 - bytes.len() % 8) % 8;
            let mark = if padding > 0 { (0x80 | padding as u64) << 56 } else { 0 };
            file.extend_from_slice(&(bytes.len() as u64 | mark).to_le_bytes());
            file.extend_from_slice(&bytes);
            file.resize(file.len() + padding, 0);
        }
        file
    }

    fn entry(index: u64, data: &'static [u8]) -> (i64, Vec<u8>) {
        (ENTRY, Entry { kind: 0, index, data: Bytes::from_static(data) }.encode_to_vec())
    }

    fn log() -> Vec<u8> {
        // 7 is a put; 8 is a leader's empty one; 9 sets the cluster's version.
        let state = HardState { commit: 9 }.encode_to_vec();
        let set_version = &[0xa2, 0x51, 0][..];
        file(&[entry(7, &[0x1a, 0]), entry(8, b""), entry(9, set_version), (STATE, state)])
    }

    fn missing(bytes: Vec<u8>, after: u64) -> Result<Option<(u64, u64)>, LogError> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("0-0.wal"), bytes).expect("written");
        first_missing(folder.path(), after)
    }

    #[test]
    fn only_what_changes_the_store_is_missed() {
        assert_eq!(missing(log(), 6).expect("sound"), Some((7, 9)));
        assert_eq!(missing(log(), 7).expect("sound"), None);
    }

    #[test]
    fn a_torn_tail_ends_the_log() {
        let whole = log();
        for length in 0..whole.len() {
            missing(whole[..length].to_vec(), 0).expect("nothing was confirmed after it");
        }
    }
}
