//! How far etcd's own write-ahead log is ahead of its database.
//!
//! ```text
//! file:   SEQUENCE-INDEX.wal, frames of records
//! Record { type: 1 metadata, 2 entry, 3 state, 4 crc, 5 snapshot; crc; data }
//! ```
//!
//! Every record's checksum continues the one before, across files. An entry that is in the log may
//! have been acknowledged, whatever index the log last called committed: etcd does not sync that
//! before it answers. So nothing is left out of account but entries that change nothing.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};

mod frames;

use frames::{End, Frame, Frames, Wrong};

const METADATA: i64 = 1;
const ENTRY: i64 = 2;
const STATE: i64 = 3;
const CHECKSUM: i64 = 4;
const SNAPSHOT: i64 = 5;
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

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Snapshot {
    #[prost(uint64, tag = "1")]
    index: u64,
}

/// Why the log does not vouch for the database.
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
    /// A file is damaged.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// There is no log.
    #[error("{} holds no log of etcd: if etcd had a --wal-dir, name it by --wal-dir", .0.display())]
    Absent(PathBuf),
    /// The database lacks entries that the log has, and that may have been acknowledged.
    #[error(
        "its database ends at entry {after}, and its log has changes from entry {first} on: start \
         etcd on it once more and stop it with SIGTERM, or use `etcdctl snapshot save` and \
         `holdfast util snapshot restore`"
    )]
    Ahead {
        /// The last entry of the database.
        after: u64,
        /// The first that it lacks.
        first: u64,
    },
    /// The member was sent a newer database than the one it has in place.
    #[error(
        "its database ends at entry {after}, and {what} is of entry {index}: start etcd on it once \
         more and stop it with SIGTERM"
    )]
    Replaced {
        /// The last entry of the database.
        after: u64,
        /// What is newer.
        what: &'static str,
        /// The last entry of that.
        index: u64,
    },
    /// Entries between database and log are nowhere.
    #[error("its database ends at entry {after}, and its log begins with entry {first}")]
    Gap {
        /// The last entry of the database.
        after: u64,
        /// The first of the log.
        first: u64,
    },
}

/// Refuses a log in `folder` that has anything to add to a database that ends with the entry
/// `after`, or that does not reach back to it.
pub(super) fn check(folder: &Path, after: u64) -> Result<(), LogError> {
    let files = files(folder)?;
    let (_, begin) = files.first().ok_or_else(|| LogError::Absent(folder.to_owned()))?;
    let mut log = Log { after, ..Log::default() };
    for (number, (path, _)) in files.iter().enumerate() {
        let end = log.file(path).map_err(|wrong| wrong.of(path))?;
        if end == End::Torn && number + 1 < files.len() {
            return Err(Wrong::Damage("it ends within a record, and is not the last").of(path));
        }
    }
    let first = log.first.unwrap_or(*begin);
    if first > after.saturating_add(1) {
        return Err(LogError::Gap { after, first });
    }
    if log.snapshot > after {
        let what = "a snapshot in its log";
        return Err(LogError::Replaced { after, what, index: log.snapshot });
    }
    match log.change {
        Some(first) => Err(LogError::Ahead { after, first }),
        None => Ok(()),
    }
}

/// The files in order, each with the index of the first entry that it may hold.
fn files(folder: &Path) -> Result<Vec<(PathBuf, u64)>, LogError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => LogError::Absent(folder.to_owned()),
        _ => LogError::Io { path: folder.to_owned(), error },
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(name) = name.strip_suffix(".wal") else { continue };
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let numbers = name.split_once('-').and_then(|(a, b)| Some((number(a)?, number(b)?)));
        let what = "its name is not one that etcd gives";
        let (sequence, index) =
            numbers.ok_or_else(|| LogError::Damaged { path: path.clone(), what })?;
        files.push((sequence, path, index));
    }
    files.sort();
    if let Some(pair) = files.windows(2).find(|pair| pair[0].0 + 1 != pair[1].0) {
        let what = "the file before it is missing";
        return Err(LogError::Damaged { path: pair[1].1.clone(), what });
    }
    Ok(files.into_iter().map(|(_, path, index)| (path, index)).collect())
}

/// What a log says beyond an index.
#[derive(Default)]
struct Log {
    after: u64,
    /// The oldest entry there is.
    first: Option<u64>,
    last: u64,
    /// The first entry beyond that changes the store.
    change: Option<u64>,
    /// The newest snapshot.
    snapshot: u64,
    checksum: u32,
}

impl Log {
    fn file(&mut self, path: &Path) -> Result<End, Wrong> {
        let mut frames = Frames::of(File::open(path)?)?;
        loop {
            let frame = match frames.next()? {
                Ok(frame) => frame,
                Err(end) => return Ok(end),
            };
            match self.frame(&frame) {
                Ok(()) => {}
                Err(_) if frame.may_be_torn => return frames.torn(),
                Err(what) => return Err(Wrong::Damage(what)),
            }
        }
    }

    fn frame(&mut self, frame: &Frame) -> Result<(), &'static str> {
        let record =
            Record::decode(frame.record.clone()).map_err(|_| "a record does not decode")?;
        if record.kind == CHECKSUM {
            if self.checksum != 0 && self.checksum != record.checksum {
                return Err("it does not continue the file before it");
            }
            self.checksum = record.checksum;
            return Ok(());
        }
        let checksum = crc32c::crc32c_append(self.checksum, &record.data);
        if checksum != record.checksum {
            return Err("a record's checksum is wrong");
        }
        self.checksum = checksum;
        // The checksum does not cover what kind of record it is.
        match record.kind {
            METADATA => Ok(()),
            ENTRY => self.entry(&decoded(record.data)?),
            STATE if decoded::<Entry>(record.data.clone())?.data.is_empty() => Ok(()),
            SNAPSHOT => {
                self.snapshot = self.snapshot.max(decoded::<Snapshot>(record.data)?.index);
                Ok(())
            }
            _ => Err("a record is not what it says"),
        }
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), &'static str> {
        if self.first.is_some() && entry.index > self.last.saturating_add(1) {
            return Err("entries are missing");
        }
        self.first = Some(self.first.map_or(entry.index, |first| first.min(entry.index)));
        self.last = entry.index;
        // A later leader's entry takes the place of this one and of all after it.
        self.change = self.change.filter(|change| *change < entry.index);
        let changes = entry.kind == 0 && !entry.data.is_empty() && !is_harmless(&entry.data);
        if entry.index > self.after && changes {
            self.change.get_or_insert(entry.index);
        }
        Ok(())
    }
}

impl Wrong {
    fn of(self, path: &Path) -> LogError {
        let path = path.to_owned();
        match self {
            Self::Io(error) => LogError::Io { path, error },
            Self::Damage(what) => LogError::Damaged { path, what },
        }
    }
}

fn decoded<T: Message + Default>(data: Bytes) -> Result<T, &'static str> {
    T::decode(data).map_err(|_| "a record does not decode")
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
mod tests;
