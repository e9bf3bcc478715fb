//! How much room the member's file system has, and what is done about it.
//!
//! ```text
//! free, in reserves      > 4      ample
//!                    2 to 4      what is a quarter garbage is rewritten; a checkpoint is due once it gives a segment's
//!                                worth back, and the log keeps a fraction of what is free for slow followers
//!                    1 to 2      likewise, but an eighth garbage is enough, and any worth; an alarm that this member
//!                                has raised stays, and the log gives its spare segments back
//!                  1/2 to 1      NOSPACE is raised: what needs room is refused everywhere; the log keeps an eighth of the
//!                                reserve, and no checkpoint is received that would need any of it
//!                1/4 to 1/2      new blocks wait in memory: the rest is for the log, for checkpoints, and for
//!                                rewriting blocks, which gives more than it takes
//!                1/8 to 1/4      nor are blocks rewritten; those that are wholly dead go
//!                     < 1/8      deletes are refused too: the rest is for alarms, compaction, revokes and membership
//! ```
//!
//! The file system is looked at every tenth of a second, by the keeper between its steps, which
//! write a mebibyte at most, and by the log before each segment. With a directory of its own for the
//! log there may be two: what comes in needs room on both, and each is kept clear by what lies on it.
//!
//! What is on its way into the log when the reserve begins still goes there: an entry of a mebibyte,
//! or of one request, once for each member. Where that is more than the reserve, the log
//! waits for room.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use holdfast_store::files::{Files, Space};
use tokio::sync::watch;

use crate::config::Workers;
use crate::intake::Needs;
use crate::wal::Wal;
use crate::work::block;

/// The reserve, at most; also a twentieth of the file system.
const RESERVE_BYTES_MAX: u64 = 256 << 20;
/// How often the file system is looked at, whatever else looks at it.
const GLANCE: Duration = Duration::from_millis(100);

/// How much room there is, in terms of the reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Room {
    /// Less than an eighth of the reserve.
    Dregs,
    /// Less than a quarter of the reserve.
    Least,
    /// Less than half of the reserve.
    Last,
    /// Less than the reserve.
    Short,
    /// Less than twice the reserve.
    Little,
    /// Less than four times the reserve.
    Enough,
    /// More than that.
    Ample,
}

impl Room {
    const ALL: [Self; 7] = [
        Self::Dregs,
        Self::Least,
        Self::Last,
        Self::Short,
        Self::Little,
        Self::Enough,
        Self::Ample,
    ];

    fn of(space: Space) -> Self {
        let reserve = reserve_bytes(space.total);
        match space.free {
            free if free < reserve / 8 => Self::Dregs,
            free if free < reserve / 4 => Self::Least,
            free if free < reserve / 2 => Self::Last,
            free if free < reserve => Self::Short,
            free if free < 2 * reserve => Self::Little,
            free if free < 4 * reserve => Self::Enough,
            _ => Self::Ample,
        }
    }

    /// Whether what is no longer needed should go soon.
    pub(crate) fn is_pressed(self) -> bool {
        self < Self::Ample
    }
}

/// The reserve of a file system of so many bytes, in bytes.
pub fn reserve_bytes(total: u64) -> u64 {
    RESERVE_BYTES_MAX.min(total / 20)
}

/// What is known of the room; clones share it.
#[derive(Clone)]
pub(crate) struct Gauge(Arc<Known>);

struct Known {
    files: Arc<dyn Files>,
    data: Volume,
    /// Of the log, if that lies apart.
    log: Option<Volume>,
    /// The lesser one of both, as a number: asked for every write.
    room: AtomicU8,
    /// Told of its changes.
    changes: watch::Sender<Room>,
    /// Another checkpoint would give something back, once there is something to take it of.
    wants_entry: AtomicBool,
}

/// A file system, and what it last said of its space, in bytes.
struct Volume {
    directory: PathBuf,
    free: AtomicU64,
    total: AtomicU64,
}

impl Volume {
    fn of(directory: &Path) -> Self {
        let unknown = || AtomicU64::new(u64::MAX);
        Self { directory: directory.to_owned(), free: unknown(), total: unknown() }
    }

    /// Asks it. Where it does not answer, the last answer stands.
    fn look(&self, files: &dyn Files) -> Room {
        match files.space(&self.directory) {
            Ok(space) => {
                self.free.store(space.free, Ordering::Relaxed);
                self.total.store(space.total, Ordering::Relaxed);
            }
            Err(error) => tracing::warn!(%error, "the file system does not tell its free space"),
        }
        Room::of(self.known())
    }

    fn known(&self) -> Space {
        let load = |bytes: &AtomicU64| bytes.load(Ordering::Relaxed);
        Space { free: load(&self.free), total: load(&self.total) }
    }
}

impl Gauge {
    pub(crate) fn new(files: Arc<dyn Files>, data: &Path, log: Option<&Path>) -> Self {
        Self(Arc::new(Known {
            files,
            data: Volume::of(data),
            log: log.map(Volume::of),
            room: AtomicU8::new(Room::Ample as u8),
            changes: watch::Sender::new(Room::Ample),
            wants_entry: AtomicBool::new(false),
        }))
    }

    /// Asks the file systems, and tells of the one that blocks are written to: where only the log's
    /// lacks room they go on, so that the log can be purged.
    pub(crate) fn look(&self) -> Room {
        let files = &*self.0.files;
        let of_data = self.0.data.look(files);
        let of_log = self.0.log.as_ref().map_or(of_data, |log| log.look(files));
        let room = of_data.min(of_log);
        self.0.changes.send_if_modified(|known| {
            // Under the same lock, so that the two never say different things for long.
            self.0.room.store(room as u8, Ordering::Relaxed);
            std::mem::replace(known, room) != room
        });
        of_data
    }

    fn of_log(&self) -> Space {
        self.0.log.as_ref().unwrap_or(&self.0.data).known()
    }

    /// The last answer, the lesser one of both.
    pub(crate) fn room(&self) -> Room {
        Room::ALL[usize::from(self.0.room.load(Ordering::Relaxed))]
    }

    /// Told of every change.
    pub(crate) fn changes(&self) -> watch::Receiver<Room> {
        self.0.changes.subscribe()
    }

    /// Bytes that were free beside the log when it was last looked.
    pub(crate) fn free(&self) -> u64 {
        self.of_log().free
    }

    /// The size of the log's file system.
    pub(crate) fn total(&self) -> u64 {
        self.of_log().total
    }

    /// Whether the log may take so much more that it can do without: not what a checkpoint from a
    /// leader would need.
    pub(crate) fn has_spare_room(&self, bytes: u64) -> bool {
        let Space { free, total } = self.of_log();
        free.saturating_sub(bytes) >= 2 * reserve_bytes(total)
    }

    /// Whether the reserve stays whole when blocks take so much more.
    pub(crate) fn leaves_blocks_reserve(&self, bytes: u64) -> bool {
        let Space { free, total } = self.0.data.known();
        free.saturating_sub(bytes) >= reserve_bytes(total)
    }

    /// The room beside the log alone.
    pub(crate) fn log_room(&self) -> Room {
        Room::of(self.of_log())
    }

    /// Whether something of these needs may still come into the log.
    pub(crate) fn lets_in(&self, needs: Needs) -> bool {
        match needs {
            Needs::Room => !self.is_short(),
            Needs::Log => self.log_room() > Room::Dregs,
            Needs::Reserve => true,
        }
    }

    /// How much of what is free may be used to give back more later: a quarter, and of the reserve
    /// nothing before it is needed anyway.
    pub(crate) fn moved_max(&self) -> u64 {
        let Space { free, total } = self.0.data.known();
        match free.checked_sub(reserve_bytes(total)) {
            Some(beside) => beside.min(free / 4),
            None => free / 4,
        }
    }

    /// Whether something has to be committed so that a checkpoint can be taken.
    pub(crate) fn set_wants_entry(&self, wants: bool) {
        self.0.wants_entry.store(wants, Ordering::Relaxed);
    }

    pub(crate) fn wants_entry(&self) -> bool {
        self.0.wants_entry.load(Ordering::Relaxed)
    }

    /// Whether there is so little room that it may soon be short.
    pub(crate) fn is_pressed(&self) -> bool {
        self.room().is_pressed()
    }

    /// Whether this member lets in nothing more that needs room.
    pub(crate) fn is_short(&self) -> bool {
        self.room() <= Room::Short
    }
}

/// Looks at the file system every so often, until the node stops and drops it. Apart from those who
/// work with it: they may wait for it.
pub(crate) async fn watch_room(gauge: Gauge, workers: Workers) {
    loop {
        let looking = gauge.clone();
        // No answer is like a file system's that does not answer.
        let _ = block(workers, move || looking.look()).await;
        tokio::time::sleep(GLANCE).await;
    }
}

/// Has the log look again at what it can do without, whenever there is more room or less, until the
/// node stops and drops it. An idle log would keep it.
pub(crate) async fn tell_log(gauge: Gauge, wal: Wal) {
    let mut changes = gauge.changes();
    while changes.changed().await.is_ok() {
        wal.request_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use holdfast_store::files::MemoryFiles;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn room_is_known_by_its_number() {
        for (number, room) in Room::ALL.into_iter().enumerate() {
            assert_eq!(room as usize, number);
        }
    }

    #[test]
    fn room_is_measured_in_reserves() {
        let room = |free, total| Room::of(Space { free: free * MIB, total: total * MIB });
        assert_eq!(room(200, 1 << 20), Room::Short);
        assert_eq!(room(127, 1 << 20), Room::Last);
        assert_eq!(room(511, 1 << 20), Room::Little);
        assert_eq!(room(1023, 1 << 20), Room::Enough);
        assert_eq!(room(1024, 1 << 20), Room::Ample);
        assert_eq!(room(24, 500), Room::Short, "a twentieth of a small one");
        assert_eq!(room(12, 500), Room::Last);
        assert_eq!(room(6, 500), Room::Least);
        assert_eq!(room(3, 500), Room::Dregs);
        assert_eq!(room(100, 500), Room::Ample);
    }

    /// A gauge of volumes with so many mebibytes free and in all.
    fn gauge(data: (u64, u64), log: Option<(u64, u64)>) -> Gauge {
        let of = |(free, total)| {
            let volume = Volume::of(Path::new("/"));
            volume.free.store(free * MIB, Ordering::Relaxed);
            volume.total.store(total * MIB, Ordering::Relaxed);
            volume
        };
        let known = Gauge::new(Arc::new(MemoryFiles::new()), Path::new("/"), None).0;
        let mut known = Arc::into_inner(known).expect("nobody else holds it");
        let room = |(free, total)| Room::of(Space { free: free * MIB, total: total * MIB });
        let lesser = room(data).min(room(log.unwrap_or(data)));
        (known.data, known.log) = (of(data), log.map(of));
        known.room = AtomicU8::new(lesser as u8);
        Gauge(Arc::new(known))
    }

    #[test]
    fn the_less_room_there_is_the_less_comes_into_the_log() {
        let all = [Needs::Room, Needs::Log, Needs::Reserve];
        let let_in = |data, log| all.map(|needs| gauge(data, log).lets_in(needs));
        assert_eq!(let_in((50, 500), None), [true, true, true]);
        assert_eq!(let_in((24, 500), None), [false, true, true]);
        assert_eq!(let_in((6, 500), None), [false, true, true]);
        assert_eq!(let_in((3, 500), None), [false, false, true]);
        assert_eq!(let_in((3, 500), Some((50, 500))), [false, true, true], "the log has room");
        assert_eq!(let_in((50, 500), Some((3, 500))), [false, false, true]);
    }

    #[test]
    fn the_gauge_follows_the_file_system() {
        let files = MemoryFiles::new();
        let directory = PathBuf::from("/data");
        files.create_directory(&directory).unwrap();
        files.set_capacity(Some(1000));
        let gauge = Gauge::new(Arc::new(files.clone()), &directory, None);
        assert_eq!(gauge.look(), Room::Ample);
        let file = files.create(&directory.join("file")).unwrap();
        file.write_all_at(&[0; 960], 0).unwrap();
        assert!(!gauge.is_short(), "nobody has looked");
        assert_eq!(gauge.look(), Room::Short);
        assert!(gauge.is_short() && gauge.room().is_pressed());
        assert!(!gauge.leaves_blocks_reserve(0));
        assert_eq!(gauge.moved_max(), 10, "of what is left of the reserve");
        files.set_capacity(Some(1020));
        gauge.look();
        assert_eq!(gauge.moved_max(), 9, "what is beside it");
    }

    #[test]
    fn the_log_spares_nothing_of_two_reserves() {
        let gauge = gauge((101, 1000), None);
        assert!(gauge.has_spare_room(MIB) && !gauge.has_spare_room(2 * MIB));
    }

    #[test]
    fn the_log_may_lie_on_another_file_system() {
        let gauge = gauge((100, 500), Some((30, 1000)));
        assert_eq!((gauge.free(), gauge.total()), (30 * MIB, 1000 * MIB));
        assert!(!gauge.has_spare_room(0), "the log has 30 of 100");
        assert!(gauge.leaves_blocks_reserve(75 * MIB) && !gauge.leaves_blocks_reserve(76 * MIB));
    }
}
