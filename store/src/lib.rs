//! The MVCC engine: what etcd calls the key-value store, its leases and its watches.

pub mod auth;
mod backend;
mod blocks;
mod cache;
pub mod command;
mod disk;
pub mod files;
mod frame;
mod hash;
mod index;
mod lease;
mod load;
mod maintain;
mod manifest;
mod open;
mod options;
mod outcome;
mod range;
mod reader;
pub mod record;
mod records;
mod revision;
mod state;
#[cfg(test)]
mod testing;
mod transfer;
mod txn;
mod view;
pub mod watch;

pub use backend::{Backend, BackendError, Each, MemoryBackend, is_guarded};
pub use lease::{LeaseEvent, LeaseInfo};
pub use load::Restore;
pub use maintain::{Maintainer, SWEEP_MAX, Sweep, Swept, Taken, Worked};
pub use manifest::{Frozen, ManifestInfo};
pub use open::{OpenError, Opened, open};
pub use options::{BackendKind, BackendMaker, Options, Plants};
pub use outcome::{Fatal, Outcome, RangeResult, RecordBytes, Rejected, Response, TxnPart};
pub use reader::{Effort, HashKv, RangeStream, ReadError, Reader, Sizes};
pub use record::{Record, RecordHeader, RecordKind};
pub use records::Records;
pub use revision::{Position, Revision};
pub use state::{Context, State};
pub use transfer::{Checkpoints, Export, FileInfo, ReceiveError, ReceivedCheckpoint, Receiving};
pub use watch::{WatchHub, WatchStream};
