//! The MVCC engine: what etcd calls the key-value store, its leases and its watches.

pub mod command;
pub mod files;
#[allow(dead_code)]
mod lease;
mod outcome;
mod reader;
pub mod record;
mod revision;
mod state;

pub use lease::{LeaseEvent, LeaseInfo};
pub use outcome::{Fatal, Outcome, RangeResult, RecordBytes, Rejected, Response, TxnPart};
pub use reader::{Effort, HashKv, RangeStream, ReadError, Reader, Sizes};
pub use record::{Record, RecordHeader, RecordKind};
pub use revision::{Position, Revision};
pub use state::{Context, State};
