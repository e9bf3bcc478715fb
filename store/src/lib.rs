//! The MVCC engine: what etcd calls the key-value store, its leases and its watches.

pub mod command;
pub mod files;
mod outcome;
pub mod record;
mod revision;

pub use outcome::{Fatal, Outcome, RangeResult, RecordBytes, Rejected, Response, TxnPart};
pub use record::{Record, RecordHeader, RecordKind};
pub use revision::{Position, Revision};
