//! What clients asked, when, and what they were told.
//!
//! A definite failure is kept apart from an unknown outcome: only the former may be relied on not
//! to have happened.

use serde::Serialize;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Write `value`, which no other operation writes, to `key`.
    Put {
        /// Which key.
        key: u64,
        /// A value of its own.
        value: u64,
    },
    /// Write `value` if the key's mod revision is `expected`.
    CompareAndSet {
        /// Which key.
        key: u64,
        /// The mod revision that must still hold; 0 for an absent key.
        expected: i64,
        /// A value of its own.
        value: u64,
    },
    /// A linearizable read.
    Get {
        /// Which key.
        key: u64,
    },
}

/// A version of a key as a client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// What was written.
    pub value: u64,
    /// The revision that wrote it.
    pub mod_revision: i64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Written, at this revision.
    Written {
        /// The revision in the answer's header.
        revision: i64,
    },
    /// The guard did not hold; nothing was written.
    Conflict {
        /// The revision in the answer's header.
        revision: i64,
    },
    /// What a read found.
    Read {
        /// The revision in the answer's header.
        revision: i64,
        /// The version, if the key was there.
        seen: Option<Seen>,
    },
    /// Refused: certainly not done.
    Failed,
    /// Done or not done, now or later.
    Unknown,
}

impl Outcome {
    /// The revision that the answer vouches for, if there was an answer.
    pub fn revision(self) -> Option<i64> {
        match self {
            Self::Written { revision }
            | Self::Conflict { revision }
            | Self::Read { revision, .. } => Some(revision),
            Self::Failed | Self::Unknown => None,
        }
    }
}

/// A request with its outcome. Times are nanoseconds since the run began, from one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Which client asked; a client has one request under way.
    pub client: usize,
    /// What it asked.
    pub operation: Operation,
    /// When the request was sent.
    pub invoked: u64,
    /// When the answer, or the error, came.
    pub completed: u64,
    /// What it was told.
    pub outcome: Outcome,
}

/// One change as the store itself reports it: the judge's ground truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its revision; every operation here writes at most one key.
    pub revision: i64,
    /// Which key.
    pub key: u64,
    /// What was written.
    pub value: u64,
}

/// Everything that the judge needs.
#[derive(Debug, Default)]
pub struct History {
    /// Every request that was sent.
    pub records: Vec<Record>,
    /// Every change in revision order, read back when the run was over.
    pub changes: Vec<Change>,
    /// What each watcher received, in the order it came.
    pub watched: Vec<Vec<Change>>,
}
