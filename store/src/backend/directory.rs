//! The block directory: every block's place and key directory, so that a start reads no values.
//!
//! It lies in a [`Backend`] and is written at manifests only:
//!
//! ```text
//! "s"                          the state: dirty, or clean with a manifest's name and digest
//! "t"                          the small tables of that manifest
//! "b" main (8) sub (8)         one block, by its first revision (big-endian)
//! ```
//!
//! A dirty mark is flushed before anything changes and the clean state after everything has. At a
//! start it is used only if it is clean, and of the very manifest that is restored; each entry has
//! its own checksum besides. On any doubt it is wiped and rebuilt from the block files. Values are
//! a format number and a bincode encoding, read with a limit.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::memory::MemoryBackend;
use super::sled::{OpenFailure, SledBackend, VALUE_BYTES_MAX};
use super::{Backend, BackendError};
use crate::blocks::format::{BlockHeader, Part};
use crate::blocks::{Block, FileId, StoredDirectory};
use crate::manifest::{Manifest, ManifestBlock};
use crate::options::BackendKind;
use crate::{Fatal, Revision};

const FORMAT: u8 = 1;
const STATE: &[u8] = b"s";
const TABLES: &[u8] = b"t";
const BLOCK: u8 = b'b';

#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
enum State {
    Dirty,
    Clean { manifest: String, digest: u32, tables: u32 },
}

#[derive(Serialize, Deserialize)]
struct Entry {
    incarnation: u64,
    sequence: u64,
    offset: u64,
    count: u32,
    plain: u32,
    checksum: u32,
    body_plain: u32,
    directory: Vec<u8>,
}

/// The block directory.
pub(crate) struct BlockDirectory {
    kind: BackendKind,
    folder: PathBuf,
    /// `None` once it has failed; it is wiped and begun anew at the next manifest.
    backend: Option<Box<dyn Backend>>,
    /// What it holds.
    stored: BTreeMap<Revision, (FileId, u64)>,
    trouble: Vec<String>,
}

/// How many errors are remembered.
const TROUBLE_MAX: usize = 8;

impl BlockDirectory {
    /// Opens the directory that goes with `manifest`, or an empty one.
    pub(crate) fn open(
        kind: BackendKind,
        folder: PathBuf,
        manifest: Option<&Manifest>,
    ) -> Result<Self, Fatal> {
        let mut directory =
            Self { kind, folder, backend: None, stored: BTreeMap::new(), trouble: Vec::new() };
        match directory.make() {
            Ok(backend) => directory.backend = Some(backend),
            Err(OpenFailure::InUse) => {
                return Err(Fatal::new(format_args!(
                    "{} is in use by another process",
                    directory.folder.display()
                )));
            }
            Err(OpenFailure::Doubtful(error)) => directory.give_up(error),
        }
        match directory.check(manifest) {
            Ok(true) => {}
            Ok(false) => directory.begin_anew(),
            Err(error) => {
                directory.give_up(error);
                directory.begin_anew();
            }
        }
        Ok(directory)
    }

    /// Whether it holds the blocks of the manifest it was opened for.
    pub(crate) fn is_filled(&self) -> bool {
        !self.stored.is_empty()
    }

    /// What went wrong since the last call. None of it matters to anyone but a curious operator.
    pub(crate) fn take_trouble(&mut self) -> Vec<String> {
        std::mem::take(&mut self.trouble)
    }

    /// The key directory of a block, if it is here and whole.
    pub(crate) fn find(&self, block: &ManifestBlock) -> Option<StoredDirectory> {
        if self.stored.get(&block.first) != Some(&(block.file, block.offset)) {
            return None;
        }
        let value = self.backend.as_ref()?.read(&key(block.first)).ok()??;
        let entry: Entry = decode(&value).ok()?;
        let found = FileId { incarnation: entry.incarnation, sequence: entry.sequence };
        let matches = found == block.file && entry.offset == block.offset;
        (matches && crc32c::crc32c(&entry.directory) == entry.checksum)
            .then(|| entry.into_directory(block))
    }

    /// Begins to fill an empty directory at a start: [`BlockDirectory::add`], then
    /// [`BlockDirectory::commit`].
    pub(crate) fn begin(&mut self) {
        self.attempt(|backend, _| {
            backend.insert(STATE, &encode(&State::Dirty))?;
            backend.flush()
        });
    }

    /// Adds a block.
    pub(crate) fn add(&mut self, block: &ManifestBlock, directory: &StoredDirectory) {
        let value = encode(&Entry::of(directory));
        if value.len() > VALUE_BYTES_MAX {
            // It is read from its block instead.
            return;
        }
        self.attempt(|backend, stored| {
            backend.insert(&key(block.first), &value)?;
            stored.insert(block.first, (block.file, block.offset));
            Ok(())
        });
    }

    /// Makes the directory that of `manifest`, as far as can be before the manifest is durable.
    pub(crate) fn update(&mut self, manifest: &Manifest, blocks: &[Arc<Block>]) {
        if self.backend.is_none() {
            self.begin_anew();
        }
        self.begin();
        let wanted: BTreeMap<_, _> =
            manifest.blocks.iter().map(|block| (block.first, (block.file, block.offset))).collect();
        let gone = self.stored.iter().filter(|(first, place)| wanted.get(first) != Some(place));
        let gone: Vec<_> = gone.map(|(first, _)| *first).collect();
        self.attempt(|backend, stored| {
            for first in gone {
                backend.remove(&key(first))?;
                stored.remove(&first);
            }
            Ok(())
        });
        for (entry, block) in manifest.blocks.iter().zip(blocks) {
            if self.backend.is_none() {
                return;
            }
            if self.stored.contains_key(&entry.first) {
                continue;
            }
            match block.place.read_stored_directory() {
                Ok(directory) => self.add(entry, &directory),
                Err(error) => self.give_up(BackendError::new(error)),
            }
        }
    }

    /// The manifest is durable: the directory is good for it.
    pub(crate) fn commit(&mut self, manifest: &Manifest) {
        let state = State::Clean {
            manifest: manifest.info.name.clone(),
            digest: manifest.digest(),
            tables: crc32c::crc32c(&manifest.tables),
        };
        self.attempt(|backend, _| {
            if manifest.tables.len() <= VALUE_BYTES_MAX {
                backend.insert(TABLES, &manifest.tables)?;
            }
            backend.flush()?;
            backend.insert(STATE, &encode(&state))?;
            backend.flush()
        });
    }

    /// Whether what is there belongs to the manifest; if so, takes note of every block.
    fn check(&mut self, manifest: Option<&Manifest>) -> Result<bool, BackendError> {
        let (Some(backend), Some(manifest)) = (&self.backend, manifest) else { return Ok(false) };
        let Some(state) = backend.read(STATE)? else { return Ok(false) };
        let expected = State::Clean {
            manifest: manifest.info.name.clone(),
            digest: manifest.digest(),
            tables: crc32c::crc32c(&manifest.tables),
        };
        if decode::<State>(&state)? != expected {
            return Ok(false);
        }
        let blocks = manifest.blocks.iter();
        self.stored = blocks.map(|block| (block.first, (block.file, block.offset))).collect();
        Ok(true)
    }

    fn make(&self) -> Result<Box<dyn Backend>, OpenFailure> {
        match &self.kind {
            BackendKind::Sled => Ok(Box::new(SledBackend::open(&self.folder)?)),
            BackendKind::Memory => Ok(Box::new(MemoryBackend::default())),
            BackendKind::Custom(make) => Ok(make(&self.folder)?),
        }
    }

    /// Wipes it. What it was made of is elsewhere.
    fn begin_anew(&mut self) {
        self.stored.clear();
        let wiped = match (&self.kind, self.backend.take()) {
            (BackendKind::Sled, backend) => {
                drop(backend);
                super::sled::wipe(&self.folder).and_then(|()| self.make().map_err(doubt))
            }
            (BackendKind::Memory, _) => self.make().map_err(doubt),
            (BackendKind::Custom(_), Some(backend)) => empty(backend),
            (BackendKind::Custom(_), None) => self.make().map_err(doubt).and_then(empty),
        };
        match wiped {
            Ok(backend) => self.backend = Some(backend),
            Err(error) => self.give_up(error),
        }
    }

    fn attempt(
        &mut self,
        act: impl FnOnce(
            &mut dyn Backend,
            &mut BTreeMap<Revision, (FileId, u64)>,
        ) -> Result<(), BackendError>,
    ) {
        let Some(backend) = &mut self.backend else { return };
        if let Err(error) = act(&mut **backend, &mut self.stored) {
            self.give_up(error);
        }
    }

    fn give_up(&mut self, error: BackendError) {
        self.backend = None;
        self.stored.clear();
        // Nobody may ask for it for a long time.
        if self.trouble.len() < TROUBLE_MAX {
            self.trouble.push(error.to_string());
        }
    }
}

impl Entry {
    fn of(directory: &StoredDirectory) -> Self {
        let header = &directory.header;
        Self {
            incarnation: header.incarnation,
            sequence: header.sequence,
            offset: header.offset,
            count: header.count,
            plain: header.directory.plain,
            checksum: header.directory.checksum,
            body_plain: header.body.plain,
            directory: directory.bytes.clone(),
        }
    }

    fn into_directory(self, block: &ManifestBlock) -> StoredDirectory {
        let stored = self.directory.len() as u32;
        let header = BlockHeader {
            incarnation: self.incarnation,
            sequence: self.sequence,
            offset: self.offset,
            first_main: block.first.main,
            first_sub: block.first.sub,
            count: self.count,
            directory: Part { stored, plain: self.plain, checksum: self.checksum },
            body: Part { stored: 0, plain: self.body_plain, checksum: 0 },
        };
        StoredDirectory { header, bytes: self.directory }
    }
}

fn key(first: Revision) -> [u8; 17] {
    let mut key = [BLOCK; 17];
    key[1..9].copy_from_slice(&first.main.to_be_bytes());
    key[9..].copy_from_slice(&first.sub.to_be_bytes());
    key
}

fn empty(mut backend: Box<dyn Backend>) -> Result<Box<dyn Backend>, BackendError> {
    let mut keys = Vec::new();
    backend.scan(&[], &mut |key, _| {
        keys.push(key.to_vec());
        Ok(())
    })?;
    keys.iter().try_for_each(|key| backend.remove(key))?;
    Ok(backend)
}

fn doubt(failure: OpenFailure) -> BackendError {
    match failure {
        OpenFailure::InUse => BackendError::new("it is in use"),
        OpenFailure::Doubtful(error) => error,
    }
}

fn options() -> impl bincode::Options {
    use bincode::Options as _;
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(VALUE_BYTES_MAX as u64)
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    use bincode::Options as _;
    let mut out = vec![FORMAT];
    // Over the limit is the one way to fail; the caller sees a value of the limit's length.
    match options().serialize(value) {
        Ok(encoded) => out.extend(encoded),
        Err(_) => out.resize(VALUE_BYTES_MAX + 1, 0),
    }
    out
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BackendError> {
    use bincode::Options as _;
    match bytes.split_first() {
        Some((&FORMAT, value)) => options().deserialize(value).map_err(BackendError::new),
        Some((format, _)) => Err(BackendError::new(format_args!(
            "it has format {format}, and this version knows format {FORMAT}"
        ))),
        None => Err(BackendError::new("an empty value")),
    }
}
