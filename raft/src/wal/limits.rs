//! The maxima of the log, in one place. Nothing here is tuned at run time: what an operator may
//! change stands in `WalOptions`.

use std::time::Duration;

/// The unit in which a disk writes without tearing. Groups begin and end at multiples of it, so
/// that no write ever touches a sector that was flushed before.
pub const SECTOR: u64 = 512;

/// The length of a full segment where the file system is large enough.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// The shortest full segment that is worth a file.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// The length of a segment made in a hurry: at opening, or when no spare is ready. Zeros for a
/// full one would stall the writer.
pub const SHORT_SEGMENT_BYTES: u64 = 4 << 20;

/// What purged segments may occupy until they are used again; also at most a twentieth of the
/// file system.
pub const SPARE_BYTES_MAX: u64 = 256 << 20;

/// Records drained into one group; a single larger record is a group by itself.
pub const GROUP_BYTES_MAX: u64 = 4 << 20;

/// What may wait for the disk before [`super::Wal::ready`] makes callers wait.
pub const UNFLUSHED_BYTES_MAX: u64 = 64 << 20;

/// Bytes and entries of the newest part of the log that stay in memory.
pub const TAIL_BYTES_MAX: u64 = 32 << 20;
/// See [`TAIL_BYTES_MAX`]; the smaller of the two limits rules.
pub const TAIL_ENTRIES_MAX: usize = 20_000;

/// How many of the newest entries carry their decoded form: about what waits to be applied.
pub const MEMO_ENTRIES_MAX: usize = 256;

/// The longest body of one record: what a length field may claim before it is called wrong.
pub const RECORD_BYTES_MAX: u64 = 512 << 20;

/// How far apart the known places of entries lie within a segment.
pub const POINT_DISTANCE: u64 = 64 << 10;

/// How long the log is idle before a group without records tells what was flushed.
pub const IDLE_BEFORE_MARK: Duration = Duration::from_millis(20);

/// How long the writer waits before it tries again what found no room.
pub const ROOM_PAUSE: Duration = Duration::from_millis(100);

/// Zeros written at once while a segment is prepared.
pub const ZERO_BYTES: usize = 1 << 20;

/// What an entry costs beside its payload, in memory and for the queue's accounts.
pub const ENTRY_OVERHEAD: u64 = 64;

const _: () = assert!(SHORT_SEGMENT_BYTES <= SEGMENT_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_MIN <= SHORT_SEGMENT_BYTES);
const _: () = assert!(GROUP_BYTES_MAX < SEGMENT_BYTES_MAX);
const _: () = assert!(TAIL_ENTRIES_MAX >= 5_000);
const _: () = assert!(SEGMENT_BYTES_MIN.is_multiple_of(SECTOR));
const _: () = assert!((ZERO_BYTES as u64).is_multiple_of(SECTOR));
