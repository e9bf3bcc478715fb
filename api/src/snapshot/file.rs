//! Snapshot files: a database, and behind it the SHA-256 of it, where `etcdctl snapshot save` wrote
//! the file.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use holdfast_store::Revision;
use holdfast_store::record::Fields;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::schema;
use crate::bolt::{BoltError, Reader};

const HASH_BYTES: u64 = 32;
/// A database is whole pages, and no page is smaller.
const SECTOR: u64 = 512;
const READ_BYTES: usize = 256 << 10;

/// Why a snapshot file is not used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is no hash behind the database.
    #[error(
        "snapshot missing hash but --skip-hash-check=false: {} was copied from a data directory, \
         or is cut short",
        .0.display()
    )]
    NoHash(PathBuf),
    /// The hash is that of other bytes.
    #[error("{}: expected sha256 {expected}, got {found}: the file is damaged", path.display())]
    WrongHash {
        /// The file.
        path: PathBuf,
        /// What stands behind the database.
        expected: String,
        /// What the bytes make.
        found: String,
    },
    /// The database is damaged.
    #[error("{} {error}", path.display())]
    Bolt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: BoltError,
    },
    /// The database is whole, and not one that etcd leaves.
    #[error("{}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// A snapshot file, open.
pub struct SnapshotFile {
    path: PathBuf,
    length: u64,
    reader: Reader<File>,
}

/// What a snapshot file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Over every bucket's name and pairs, as etcdutl computes it.
    pub hash: u32,
    /// The newest revision.
    pub revision: i64,
    /// Keys that are not deleted at that revision, as etcdutl counts since 3.7.
    pub total_keys: u64,
    /// Bytes of the database.
    pub total_bytes: u64,
    /// The version of etcd that made it.
    pub version: String,
}

impl SnapshotFile {
    /// Opens a file; its hash is not looked at.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let failed = |error| FileError::Io { path: path.to_owned(), error };
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let reader =
            Reader::open(file).map_err(|error| FileError::Bolt { path: path.to_owned(), error })?;
        Ok(Self { path: path.to_owned(), length, reader })
    }

    /// Compares the hash behind the database.
    pub fn check_hash(&self) -> Result<(), FileError> {
        if self.length % SECTOR != HASH_BYTES {
            return Err(FileError::NoHash(self.path.clone()));
        }
        let failed = |error| FileError::Io { path: self.path.clone(), error };
        let file = File::open(&self.path).map_err(failed)?;
        let mut database = file.take(self.length - HASH_BYTES);
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; READ_BYTES]);
        loop {
            match database.read(&mut buffer).map_err(failed)? {
                0 => break,
                read => hash.update(&buffer[..read]),
            }
        }
        let mut expected = Vec::new();
        database.into_inner().read_to_end(&mut expected).map_err(failed)?;
        let found = hash.finalize().to_vec();
        if found == expected {
            return Ok(());
        }
        let (expected, found) = (hex(&expected), hex(&found));
        Err(FileError::WrongHash { path: self.path.clone(), expected, found })
    }

    /// Reads everything.
    pub fn status(&self) -> Result<Status, FileError> {
        let (mut hash, mut revision, mut keys) = (0, Revision::default(), HashSet::new());
        for name in self.buckets()? {
            hash = crc32c::crc32c_append(hash, &name);
            self.each(&name, |key, value| {
                hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, key), value);
                if name == schema::KEY {
                    let parsed = schema::parse_revision(key);
                    let (found, is_tombstone) = parsed
                        .ok_or_else(|| format!("a key of bucket key is no revision: {key:02x?}"))?;
                    let fields = Fields::parse(value).map_err(|error| error.to_string())?;
                    revision = found;
                    match is_tombstone {
                        true => keys.remove(&fields.key),
                        false => keys.insert(Bytes::copy_from_slice(&fields.key)),
                    };
                }
                Ok(())
            })?;
        }
        let version = self.value(schema::META, schema::STORAGE_VERSION)?.unwrap_or_default();
        Ok(Status {
            hash,
            revision: revision.main,
            total_keys: keys.len() as u64,
            total_bytes: self.reader.bytes(),
            version: String::from_utf8_lossy(&version).into_owned(),
        })
    }

    /// The names of the buckets.
    pub fn buckets(&self) -> Result<Vec<Vec<u8>>, FileError> {
        self.reader.buckets().map_err(|error| self.bolt(error))
    }

    /// Shows `each` every pair of a bucket, in order; nothing if there is no such bucket.
    pub fn each(
        &self,
        bucket: &[u8],
        mut each: impl FnMut(&Bytes, &Bytes) -> Result<(), String>,
    ) -> Result<(), FileError> {
        let pairs = self.reader.bucket(bucket).map_err(|error| self.bolt(error))?;
        for pair in pairs.into_iter().flatten() {
            let pair = pair.map_err(|error| self.bolt(error))?;
            each(&pair.key, &pair.value).map_err(|what| self.content(what))?;
        }
        Ok(())
    }

    /// One value.
    pub fn value(&self, bucket: &[u8], key: &[u8]) -> Result<Option<Bytes>, FileError> {
        let mut found = None;
        self.each(bucket, |name, value| {
            if name == key {
                found = Some(value.clone());
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// An error about the contents.
    pub fn content(&self, what: impl Into<String>) -> FileError {
        FileError::Content { path: self.path.clone(), what: what.into() }
    }

    fn bolt(&self, error: BoltError) -> FileError {
        FileError::Bolt { path: self.path.clone(), error }
    }
}

impl Status {
    /// As `etcdutl snapshot status -w json` prints it.
    pub fn json(&self) -> String {
        json!({
            "hash": self.hash,
            "revision": self.revision,
            "totalKey": self.total_keys,
            "totalSize": self.total_bytes,
            "version": self.version,
        })
        .to_string()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
