//! The log against everything a disk may do to it. What the tests share is here: small segments,
//! a naive model of what the log should hold, and a harness that drives the writer by hand.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::testing::MemoryFiles;
use super::*;

mod crash;
mod damage;
mod failure;
mod fixture;
mod model;
mod threads;

pub(super) const DIRECTORY: &str = "/data/wal";

/// Small segments, and so little memory that most reads go to the segments.
pub(super) fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 4096,
        unflushed_bytes_max: 64 << 10,
        tail_bytes_max: 600,
        tail_entries_max: 3,
        spare_segments: 1,
        spare_segments_max: 2,
        unsafe_no_fsync: false,
    }
}

pub(super) fn open_on(files: &MemoryFiles) -> Result<Opened, WalError> {
    open(Arc::new(files.clone()), Path::new(DIRECTORY), options(), Hooks::default())
}

pub(super) fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

/// An entry whose payload nobody else would write.
pub(super) fn entry(term: u64, index: u64, length: usize) -> Entry {
    let text = format!("{term}.{index}.{length};");
    let payload: Vec<u8> = text.bytes().cycle().take(length).collect();
    let kind = match length % 7 {
        0 => EntryKind::Blank,
        1 => EntryKind::Membership,
        _ => EntryKind::Normal,
    };
    Entry::new(id(term, index), kind, Bytes::from(payload))
}

/// What the log should hold, by the most obvious means.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) entries: Vec<Entry>,
}

impl Model {
    pub(super) fn last(&self) -> Option<LogId> {
        self.entries.last().map(|entry| entry.id).or(self.purged)
    }

    pub(super) fn truncate(&mut self, after: Option<LogId>) {
        self.entries.retain(|entry| after.is_some_and(|after| entry.id.index <= after.index));
    }

    pub(super) fn purge(&mut self, upto: LogId) {
        if self.purged.is_none_or(|purged| purged.index < upto.index) {
            self.purged = Some(upto);
            self.entries.retain(|entry| entry.id.index > upto.index);
        }
    }

    pub(super) fn range(&self, range: Range<u64>) -> Vec<Entry> {
        self.entries.iter().filter(|entry| range.contains(&entry.id.index)).cloned().collect()
    }

    /// What an open log holds, read in full.
    pub(super) fn of(wal: &Wal) -> Self {
        let State { vote, purged, last, first, .. } = wal.state();
        let entries = wal.entries(0, u64::MAX).expect("what was opened can be read");
        let found = Self { vote, purged, entries };
        assert_eq!(found.last(), last);
        assert_eq!(found.entries.first().map(|entry| entry.id.index), first);
        found
    }
}

/// An open log, driven by hand.
pub(super) struct Harness {
    pub(super) files: MemoryFiles,
    pub(super) wal: Wal,
    pub(super) core: WalCore,
    pub(super) maintenance: Maintenance,
    /// Completions that succeeded and that failed.
    pub(super) succeeded: Arc<AtomicUsize>,
    pub(super) failed: Arc<Mutex<Vec<String>>>,
}

impl Harness {
    pub(super) fn open(files: &MemoryFiles) -> Result<Self, WalError> {
        let Opened { wal, core, maintenance, .. } = open_on(files)?;
        let (succeeded, failed) = Default::default();
        Ok(Self { files: files.clone(), wal, core, maintenance, succeeded, failed })
    }

    /// A completion that counts.
    pub(super) fn completion(&self) -> Completion {
        let (succeeded, failed) = (self.succeeded.clone(), self.failed.clone());
        Box::new(move |result| match result {
            Ok(()) => {
                succeeded.fetch_add(1, Ordering::Relaxed);
            }
            Err(failure) => failed.lock().unwrap().push(failure.to_string()),
        })
    }

    pub(super) fn append(&self, entries: impl IntoIterator<Item = Entry>) {
        self.wal.append(entries, self.completion()).unwrap();
    }

    pub(super) fn vote(&self, term: u64) {
        let vote = Vote { term, node: Some(term % 3), committed: term.is_multiple_of(2) };
        self.wal.save_vote(vote, self.completion()).unwrap();
    }

    pub(super) fn step(&mut self) {
        self.core.step().fire();
    }

    pub(super) fn idle(&mut self) {
        self.core.idle().fire();
    }

    pub(super) fn succeeded(&self) -> usize {
        self.succeeded.load(Ordering::Relaxed)
    }
}
