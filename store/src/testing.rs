//! A small store without an index, for tests of everything below one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::files::MemoryFiles;
use crate::maintain::{Maintainer, Sweep, Swept, Taken, Worked};
use crate::manifest::Frozen;
use crate::open::{OpenError, Opening};
use crate::options::BackendKind;
use crate::{Fatal, Options, Position, Record, RecordHeader, Records, Restore, Revision};

/// The data directory in memory.
pub(crate) const DIRECTORY: &str = "/data";

/// Options for a store in memory, with blocks so small that little makes many.
pub(crate) fn options(files: &MemoryFiles) -> Options {
    Options {
        files: Arc::new(files.clone()),
        backend: BackendKind::Memory,
        block_bytes: 1000,
        block_file_bytes: 8000,
        block_cache_bytes: 1 << 20,
        incarnation: 7,
        ..Options::new(DIRECTORY)
    }
}

/// A folder for it.
pub(crate) fn files() -> MemoryFiles {
    use crate::files::Files;
    let files = MemoryFiles::new();
    files.create_directory(Path::new(DIRECTORY)).unwrap();
    files
}

/// What a start tells of, remembered.
#[derive(Default)]
pub(crate) struct Headers(pub(crate) Vec<RecordHeader>);

impl Restore for Headers {
    fn record(&mut self, header: RecordHeader) -> Result<(), Fatal> {
        if let Some(last) = self.0.last() {
            assert!(last.revision < header.revision, "records come in order, once");
        }
        self.0.push(header);
        Ok(())
    }
}

/// Hands out what the test told it to.
#[derive(Clone, Default)]
pub(crate) struct Script(Arc<std::sync::Mutex<Vec<Swept>>>);

impl Sweep for Script {
    fn step(&mut self, _max: usize) -> Swept {
        self.0.lock().unwrap().pop().unwrap_or_default()
    }
}

/// A store that writes one record for each entry: entry `n` makes revision `n + 1`.
pub(crate) struct Small {
    pub(crate) records: Records,
    pub(crate) maintainer: Maintainer,
    pub(crate) restored: Vec<RecordHeader>,
    pub(crate) notes: Vec<String>,
    pub(crate) rebuilt: bool,
    pub(crate) applied: u64,
    /// What is alive.
    pub(crate) expected: BTreeMap<Revision, Bytes>,
    pub(crate) compacted: i64,
    script: Script,
}

impl Small {
    pub(crate) fn open(options: Options) -> Result<Self, OpenError> {
        let opening = Opening::begin(options)?;
        let applied = opening
            .tables()
            .map_or(0, |tables| std::str::from_utf8(tables).unwrap().parse().unwrap());
        let mut headers = Headers::default();
        let loaded = opening.load(&mut headers)?;
        let records = loaded.records.clone();
        let (notes, rebuilt) = (loaded.notes.clone(), loaded.rebuilt);
        let script = Script::default();
        let maintainer = loaded.into_maintainer(Box::new(script.clone()));
        let mut expected = BTreeMap::new();
        for header in &headers.0 {
            expected.insert(header.revision, records.read(header.revision)?);
        }
        let restored = headers.0;
        let compacted = -1;
        Ok(Self {
            records,
            maintainer,
            restored,
            notes,
            rebuilt,
            applied,
            expected,
            compacted,
            script,
        })
    }

    /// Applies entries up to `index`, each with a value of `bytes` bytes.
    pub(crate) fn apply(&mut self, index: u64, bytes: usize) {
        while self.applied < index {
            self.applied += 1;
            let record = record(self.applied, bytes);
            self.expected.insert(record.revision, record.bytes.clone());
            self.records.append([record]);
            self.records.end_entry(position(self.applied));
        }
    }

    /// Gives up records for which `choose` says so, as a compaction at the present revision.
    pub(crate) fn compact(&mut self, choose: impl Fn(i64) -> bool) {
        let dead: Vec<_> = self.expected.keys().copied().filter(|r| choose(r.main)).collect();
        self.expected.retain(|revision, _| !choose(revision.main));
        self.compacted = self.applied as i64 + 1;
        let swept = Swept {
            compacted: self.compacted,
            dead,
            finished: Some(self.compacted),
            goes_on: false,
        };
        self.script.0.lock().unwrap().push(swept);
    }

    pub(crate) fn frozen(&self) -> Frozen {
        Frozen {
            position: position(self.applied),
            membership_position: position(1),
            membership: Bytes::from_static(b"members"),
            revision: self.applied as i64 + 1,
            compacted: self.compacted,
            tables: Bytes::from(self.applied.to_string()),
        }
    }

    pub(crate) fn take(&mut self) -> Result<Taken, Fatal> {
        self.maintainer.take_manifest(self.frozen(), self.applied)
    }

    /// Steps until there is nothing to do.
    pub(crate) fn settle(&mut self) -> Result<(), Fatal> {
        for _ in 0..10_000 {
            if self.maintainer.step(self.applied)? != Worked::Something {
                return Ok(());
            }
        }
        panic!("housekeeping does not end");
    }

    /// Everything that should be there reads back right, both ways.
    pub(crate) fn check(&self) {
        for (revision, bytes) in &self.expected {
            assert_eq!(&self.records.read(*revision).unwrap(), bytes, "revision {revision}");
        }
        let headers = self.records.headers(Revision::default(), usize::MAX).unwrap();
        let revisions: Vec<_> = headers.iter().map(|header| header.revision).collect();
        assert_eq!(revisions, self.expected.keys().copied().collect::<Vec<_>>());
    }
}

pub(crate) fn position(index: u64) -> Position {
    Position { term: 1, index }
}

/// The record of entry `index`: its key and value follow from the index.
pub(crate) fn record(index: u64, bytes: usize) -> Record {
    let revision = Revision::new(index as i64 + 1, 0);
    let key = Bytes::from(format!("key-{index:06}"));
    if index.is_multiple_of(11) {
        return Record::tombstone(revision, key);
    }
    // Hardly compressible, so that blocks on disk have a size to speak of.
    let mut state = index;
    let value: Vec<u8> = (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as u8
        })
        .collect();
    Record::put(revision, key, &value, revision.main, 1, 0)
}
