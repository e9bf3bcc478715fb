//! What the log records: entries, votes, and what happened to the log itself. Knows nothing of
//! bytes on disk; `format.rs` does.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::limits::ENTRY_OVERHEAD;

/// The name of an entry: one leader per term, so the term says who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogId {
    /// The term of the leader that appended it.
    pub term: u64,
    /// Its place in the log.
    pub index: u64,
}

/// For whom this member voted last, and whether that one won.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// The term of the vote.
    pub term: u64,
    /// The candidate; none if the term was only heard of.
    pub node: Option<u64>,
    /// Whether a quorum granted it.
    pub committed: bool,
}

/// What an entry's payload means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Nothing; a leader begins its term with one.
    Blank,
    /// A command for the state machine, opaque here.
    Normal,
    /// A membership, opaque here.
    Membership,
}

/// An entry of the Raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub id: LogId,
    /// What the payload means.
    pub kind: EntryKind,
    /// Opaque bytes; cheap to clone.
    pub payload: Bytes,
    /// What the payload was made from, if that is still in memory.
    pub memo: Memo,
}

/// The decoded form of a payload, opaque here, carried along so that a reader of recent entries
/// need not decode them again. Not part of the entry: any two are equal.
#[derive(Clone, Default)]
pub struct Memo(pub Option<Arc<dyn Any + Send + Sync>>);

impl PartialEq for Memo {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Memo {}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Memo(..)" } else { "Memo" })
    }
}

impl Entry {
    /// An entry without a memo.
    pub fn new(id: LogId, kind: EntryKind, payload: Bytes) -> Self {
        Self { id, kind, payload, memo: Memo::default() }
    }

    /// What it costs to keep or to queue.
    pub(super) fn cost(&self) -> u64 {
        self.payload.len() as u64 + ENTRY_OVERHEAD
    }
}

/// One step of the log's history, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An entry was appended.
    Entry(Entry),
    /// A vote was cast or heard of.
    Vote(Vote),
    /// Entries up to this one are committed.
    Committed(LogId),
    /// Entries after this one were removed; with none, every entry above the purged ones.
    Truncate(Option<LogId>),
    /// Entries up to this one were removed, and live on in a checkpoint.
    Purge(LogId),
}

impl Record {
    /// What it costs to queue.
    pub(super) fn cost(&self) -> u64 {
        match self {
            Self::Entry(entry) => entry.cost(),
            _ => ENTRY_OVERHEAD,
        }
    }
}
