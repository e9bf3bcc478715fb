//! Every bound of this crate, in one place.

use std::time::Duration;

/// Bytes of proposals in one log entry, unless a single proposal is larger.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;
/// Proposals in one log entry.
pub const ENTRY_PROPOSALS_MAX: usize = 4096;
/// Entries that a member has proposed or forwarded and whose fate it does not know yet. More would
/// only make them smaller: whatever arrives meanwhile shares the next one.
pub const PIPELINE_ENTRIES_MAX: usize = 4;
/// The same where the file system is near its reserve: these still come in when that has begun.
pub const PIPELINE_ENTRIES_MAX_PRESSED: usize = 1;
/// Bytes of proposals that wait on a member to be proposed or forwarded.
pub const PROPOSAL_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Entries that may be committed and not yet applied before proposals are turned away.
pub const BACKLOG_ENTRIES_MAX: u64 = 5000;
/// Questions to the lease clock that wait at one port.
pub const LEASE_QUESTIONS_MAX: usize = 100_000;
/// A member whose disk has not taken a byte for so long refuses proposals and is not ready.
pub const DISK_STALLED: Duration = Duration::from_secs(10);
/// The part of a request's deadline that does not depend on the election timeout.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

const _: () = assert!(ENTRY_BYTES_MAX < PROPOSAL_QUEUE_BYTES_MAX);
