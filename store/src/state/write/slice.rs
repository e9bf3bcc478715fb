//! What one slice of a delete takes away.
//!
//! The tombstones of all its keys are written into one piece of memory, which the records then
//! share. They leave it together, when they are sealed.

use bytes::{Bytes, BytesMut};

use super::DELETE_SLICE;
use crate::Revision;
use crate::index::Version;
use crate::record::{self, Record, RecordKind};

/// About as long as a tombstone is.
const TOMBSTONE_BYTES: usize = 64;

/// The keys deleted, in order, with the versions they had.
pub(super) struct Slice {
    /// Of the first tombstone; the others have the subs that follow.
    first: Revision,
    encoded: BytesMut,
    victims: Vec<Victim>,
}

struct Victim {
    previous: Version,
    /// Where its tombstone ends.
    end: usize,
    key_length: usize,
}

impl Slice {
    /// Most deletes are small; `is_next` says that this one is not.
    pub(super) fn new(first: Revision, is_next: bool) -> Self {
        let keys = if is_next { DELETE_SLICE } else { 1 };
        let encoded = BytesMut::with_capacity(keys * TOMBSTONE_BYTES);
        Self { first, encoded, victims: Vec::with_capacity(keys) }
    }

    pub(super) fn add(&mut self, key: &[u8], previous: Version) {
        record::write_tombstone(&mut self.encoded, key, self.first.main);
        let end = self.encoded.len();
        self.victims.push(Victim { previous, end, key_length: key.len() });
    }

    pub(super) fn len(&self) -> usize {
        self.victims.len()
    }

    /// The tombstones, with the versions they end.
    pub(super) fn records(self) -> impl Iterator<Item = (Record, Version)> {
        let Self { first, encoded, victims } = self;
        let encoded: Bytes = encoded.freeze();
        let mut start = 0;
        victims.into_iter().zip(first.sub..).map(move |(victim, sub)| {
            let bytes = encoded.slice(start..victim.end);
            start = victim.end;
            let key = record::key_within(&bytes, victim.key_length);
            let revision = Revision::new(first.main, sub);
            (Record { revision, key, kind: RecordKind::Tombstone, bytes }, victim.previous)
        })
    }
}
