//! One version of a key, and the versions of one key, as small as they can be.
//!
//! A version takes 40 bytes; a key with a single one has it in place, without an allocation.
//! Generations are not marked: a tombstone ends one, and every version carries its create revision
//! and version number.

use std::num::NonZeroU32;

use crate::record::{RecordHeader, RecordKind};
use crate::{Revision, record};

/// One version of a key: what a record says, without the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    main: i64,
    /// 0 for a tombstone.
    version: i64,
    /// The main revision that began the generation: 0 < create_revision <= main, but 0 for a
    /// tombstone.
    create_revision: i64,
    lease: i64,
    sub: u32,
    /// Of the record; a record has a key, so it is never empty.
    length: NonZeroU32,
}

impl Version {
    /// The version that a put makes of `previous`; its length is set later.
    pub(super) fn put(revision: Revision, previous: Option<&Version>, lease: i64) -> Self {
        let (create_revision, version) = match previous {
            Some(previous) => (previous.create_revision, previous.version + 1),
            None => (revision.main, 1),
        };
        let sub = sub_of(revision);
        let length = NonZeroU32::MIN;
        Self { main: revision.main, version, create_revision, lease, sub, length }
    }

    /// A deletion of a key of `key_length` bytes.
    pub(super) fn tombstone(revision: Revision, key_length: usize) -> Self {
        let (main, sub) = (revision.main, sub_of(revision));
        let length = NonZeroU32::MIN;
        let mut it = Self { main, version: 0, create_revision: 0, lease: 0, sub, length };
        it.set_length(record::put_length(key_length, 0, 0, main, 0, 0));
        it
    }

    pub(crate) fn of_header(header: &RecordHeader) -> Self {
        let (create_revision, version, lease) = match header.kind {
            RecordKind::Put { create_revision, version, lease } => {
                assert!(version > 0 && create_revision > 0, "a stored put has a version");
                (create_revision, version, lease)
            }
            RecordKind::Tombstone => (0, 0, 0),
        };
        let length = NonZeroU32::new(header.length).expect("a record has a key");
        let main = header.revision.main;
        Self { main, version, create_revision, lease, sub: sub_of(header.revision), length }
    }

    pub(super) fn set_length(&mut self, length: usize) {
        let length = u32::try_from(length).expect("a record is bounded by a request");
        self.length = NonZeroU32::new(length).expect("a record has a key");
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision::new(self.main, i64::from(self.sub))
    }

    pub(crate) fn mod_revision(&self) -> i64 {
        self.main
    }

    pub(crate) fn create_revision(&self) -> i64 {
        self.create_revision
    }

    /// The version number within its generation, from 1; 0 for a tombstone.
    pub(crate) fn version(&self) -> i64 {
        self.version
    }

    pub(crate) fn lease(&self) -> i64 {
        self.lease
    }

    /// The length of the record.
    pub(crate) fn length(&self) -> u32 {
        self.length.get()
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    pub(crate) fn kind(&self) -> RecordKind {
        if self.is_tombstone() {
            return RecordKind::Tombstone;
        }
        let Self { create_revision, version, lease, .. } = *self;
        RecordKind::Put { create_revision, version, lease }
    }
}

fn sub_of(revision: Revision) -> u32 {
    u32::try_from(revision.sub).expect("a transaction changes fewer than 2^32 keys")
}

/// The versions of one key, oldest first; never empty outside a sweep.
#[derive(Debug)]
pub(crate) enum Versions {
    One(Version),
    Many(Vec<Version>),
}

impl Versions {
    pub(crate) fn as_slice(&self) -> &[Version] {
        match self {
            Self::One(version) => std::slice::from_ref(version),
            Self::Many(versions) => versions,
        }
    }

    pub(crate) fn latest(&self) -> &Version {
        match self {
            Self::One(version) => version,
            Self::Many(versions) => versions.last().expect("a key has a version"),
        }
    }

    /// The version in force at main revision `at`, unless the key is absent there.
    pub(crate) fn live(&self, at: i64) -> Option<&Version> {
        let latest = self.latest();
        let version = if latest.main <= at {
            latest
        } else {
            let slice = self.as_slice();
            let past = slice.partition_point(|version| version.main <= at);
            slice[..past].last()?
        };
        (!version.is_tombstone()).then_some(version)
    }

    /// How many of the oldest versions a compaction to `at` removes: all that something at or
    /// below `at` supersedes, and a tombstone below `at`. A tombstone exactly at `at` stays.
    pub(crate) fn dead_at(&self, at: i64) -> usize {
        let slice = self.as_slice();
        let past = slice.partition_point(|version| version.main <= at);
        match slice[..past].last() {
            Some(last) if last.is_tombstone() && last.main < at => past,
            Some(_) => past - 1,
            None => 0,
        }
    }

    pub(super) fn push(&mut self, version: Version) {
        let latest = self.latest().revision();
        assert!(version.revision() > latest, "{} follows {latest}", version.revision());
        match self {
            Self::One(first) => *self = Self::Many(vec![*first, version]),
            Self::Many(versions) => versions.push(version),
        }
    }

    /// Removes the `count` oldest; false if none is left, and then nothing was changed.
    pub(super) fn remove_oldest(&mut self, count: usize) -> bool {
        let length = self.as_slice().len();
        if count == length {
            return false;
        }
        if let Self::Many(versions) = self {
            versions.drain(..count);
            if let [only] = versions[..] {
                *self = Self::One(only);
            } else if versions.capacity() > 4 * versions.len() {
                versions.shrink_to_fit();
            }
        }
        true
    }
}
