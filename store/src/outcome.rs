//! What applying a command, or reading, gives back.
//!
//! A [`Rejected`] is an answer: every member reaches it, the entry counts as applied, and a client
//! can be told. A [`Fatal`] is not: this member cannot go on as a replica, and the caller must stop.

use std::fmt;

use bytes::Bytes;

use crate::auth::AuthRefusal;

/// The encoding of one `mvccpb.KeyValue`, exactly as clients receive it.
pub type RecordBytes = Bytes;

/// The result of one command.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The store revision after the command: its own if it changed anything.
    pub revision: i64,
    /// The answer. Where nobody waits for it, reads and previous versions are left out.
    pub result: Result<Response, Rejected>,
}

/// The answer to one command or to one operation of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// Of a put: the version before it, if it was asked for and existed.
    Put {
        /// The version before.
        prev: Option<RecordBytes>,
    },
    /// Of a delete.
    DeleteRange {
        /// How many keys went.
        deleted: i64,
        /// What they held, in key order, if it was asked for.
        prevs: Vec<RecordBytes>,
    },
    /// Of a read.
    Range(RangeResult),
    /// Of a transaction.
    Txn {
        /// Whether the guards held.
        succeeded: bool,
        /// One answer for each operation of the branch that ran, with the revision in force then.
        responses: Vec<TxnPart>,
    },
    /// Of a lease grant.
    LeaseGrant {
        /// The lease.
        id: i64,
        /// Seconds granted.
        ttl: i64,
    },
    /// Of a command about an alarm.
    Alarm {
        /// Whether there was an alarm to raise or to clear.
        changed: bool,
    },
    /// Of every command that answers with nothing more.
    Done,
}

/// The answer to one operation of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct TxnPart {
    /// The revision for the operation's own header.
    pub revision: i64,
    /// The answer.
    pub response: Response,
}

/// What a range holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeResult {
    /// The records, in the order asked for.
    pub records: Vec<RecordBytes>,
    /// Whether a limit left some out.
    pub more: bool,
    /// How many keys the range has at that revision, whatever the limit and the revision filters.
    pub count: i64,
}

/// A refusal that every member reaches alike. The texts are for logs; `api` owns the wire texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The revision asked for lies below the compacted one.
    #[error("revision has been compacted")]
    Compacted,
    /// The revision asked for has not happened yet.
    #[error("revision is in the future")]
    FutureRevision,
    /// No such lease.
    #[error("lease not found")]
    LeaseNotFound,
    /// The lease id is taken.
    #[error("lease already exists")]
    LeaseExists,
    /// `ignore_value` or `ignore_lease` on a key that is absent.
    #[error("key not found")]
    KeyNotFound,
    /// An expiry that was decided in another term than its entry's.
    #[error("expiry decided in an earlier term")]
    ExpiryOutdated,
    /// There is no room for what the command would add.
    #[error("no space")]
    NoSpace,
    /// A downgrade is noted already.
    #[error("a downgrade is in progress")]
    DowngradeInProcess,
    /// Members disagree about what is stored.
    #[error("the cluster is corrupt")]
    Corrupt,
    /// Who asks may not, or the rules cannot be changed so.
    #[error(transparent)]
    Auth(#[from] AuthRefusal),
}

/// Something this member cannot survive as a replica: unreadable or damaged files, or a broken
/// invariant. The process must stop (or, later, rebuild itself); it must not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}")]
pub struct Fatal {
    /// What was found, naming the file where there is one.
    pub what: String,
}

impl Fatal {
    /// A fatal condition described by `what`.
    pub fn new(what: impl fmt::Display) -> Self {
        Self { what: what.to_string() }
    }
}
