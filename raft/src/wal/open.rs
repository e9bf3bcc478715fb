//! Opening: find the segments, replay them, and go on in a fresh one.
//!
//! What lies above the newest mark may be in the page cache only, or, after a failed fsync, may
//! never reach the disk from where it is. So those records are written again, into the fresh
//! segment, and synced with its name, before anything is told to anyone. The old place is no part
//! of the log from then on: the fresh segment's header says where its predecessor ends.

use std::path::Path;
use std::sync::Arc;

use holdfast_store::files::Files;

use super::core::{Active, WalCore};
use super::error::{Damage, FrameName, WalError};
use super::format::{FIRST_GROUP, Mark};
use super::group::{Group, GroupBuilder};
use super::handle::Shared;
use super::limits::{SECTOR, SHORT_SEGMENT_BYTES};
use super::places::Places;
use super::record::Entry;
use super::replay::{self, Found, Replay};
use super::segment::{self, Draft, Name, Origin};
use super::state::State;
use super::upkeep::Maintenance;
use super::{Hooks, Wal, WalOptions, newest};

/// An open log.
pub struct Opened {
    /// The handle.
    pub wal: Wal,
    /// The writer, to be driven.
    pub core: WalCore,
    /// The keeper of files, to be driven.
    pub maintenance: Maintenance,
    /// What lies behind the end of the log, if anything does: a torn tail that was cut, or what a
    /// recycled file held before. Never anything that was known to be durable.
    pub torn: Option<Damage>,
}

/// What lies in the log's folder.
#[derive(Default)]
struct Listing {
    segments: Vec<u64>,
    spares: Vec<u64>,
    /// The newest segment that was ever noted.
    newest: Option<u64>,
}

/// Whether a log was begun in a folder.
pub fn exists(files: &dyn Files, directory: &Path) -> Result<bool, WalError> {
    if !files.exists(directory).map_err(WalError::io("look for", directory))? {
        return Ok(false);
    }
    let names = files.list(directory).map_err(WalError::io("list", directory))?;
    Ok(names.iter().any(|name| matches!(segment::classify(name), Name::Segment(_))))
}

/// Reads a log to its end and changes nothing; what is true there. An error says what is damaged.
pub fn check(files: &dyn Files, directory: &Path) -> Result<State, WalError> {
    let mut listing = Listing::default();
    for name in files.list(directory).map_err(WalError::io("list", directory))? {
        match segment::classify(&name) {
            Name::Segment(number) => listing.segments.push(number),
            Name::Newest => listing.newest = newest::read(files, directory)?,
            _ => {}
        }
    }
    listing.segments.sort_unstable();
    let found = find_segments(files, directory, &listing)?;
    if found.is_empty() {
        return Err(missing(directory, 1, "a data directory has a log").into());
    }
    Ok(replay::replay(directory, &found)?.ahead)
}

/// Opens the log in a folder, or begins one there.
///
/// When this returns, everything in [`Wal::state`] is on disk.
pub fn open(
    files: Arc<dyn Files>,
    directory: &Path,
    options: WalOptions,
    hooks: Hooks,
) -> Result<Opened, WalError> {
    assert!(options.segment_bytes.is_multiple_of(SECTOR), "segments are whole sectors");
    assert!(options.segment_bytes >= SECTOR * 2, "a segment holds a group");
    let mut listing = list(&*files, directory, options)?;
    let next_spare = listing.spares.iter().max().map_or(0, |number| number + 1);
    let found = find_segments(&*files, directory, &listing)?;
    let (mut replay, origin) = match found.last() {
        Some(_) => continue_from(directory, &found)?,
        None => (begin_empty(), None),
    };
    let active = match found.last() {
        Some(last) if replay.unused => go_on_in(&*files, directory, options, last)?,
        _ => {
            let spares = &mut listing.spares;
            write_fresh(&*files, directory, options, &mut replay, origin, spares)?
        }
    };
    let torn = replay.torn.take();
    let state = replay.state;
    let (directory, log) = (directory.to_owned(), (shown(state), replay.places));
    let shared = Shared::new(files, directory, options, hooks, log);
    for number in &listing.spares {
        let spare = segment::spare_path(&shared.directory, *number);
        shared.upkeep().spares.push_back(spare);
    }
    let shared = Arc::new(shared);
    let core = WalCore::new(shared.clone(), active, state);
    let wal = core.wal();
    fill_tail(&wal)?;
    Ok(Opened { wal, core, maintenance: Maintenance::new(shared, next_spare), torn })
}

/// What readers see of the state at opening: nothing is committed that does not exist. One ordered
/// stream makes that a no-op unless the disk lied.
fn shown(state: State) -> State {
    let committed = state.committed.map(|committed| match state.last {
        Some(last) if last.index < committed.index => Some(last),
        Some(_) => Some(committed),
        None => None,
    });
    State { committed: committed.flatten(), ..state }
}

/// Lists the folder, made if need be, and removes what was left half-made.
fn list(files: &dyn Files, directory: &Path, options: WalOptions) -> Result<Listing, WalError> {
    files.create_directory(directory).map_err(WalError::io("create", directory))?;
    if let Some(parent) = directory.parent()
        && !options.unsafe_no_fsync
    {
        files.sync_directory(parent).map_err(WalError::io("sync", parent))?;
    }
    let mut listing = Listing::default();
    for name in files.list(directory).map_err(WalError::io("list", directory))? {
        let path = directory.join(&name);
        match segment::classify(&name) {
            Name::Segment(number) => listing.segments.push(number),
            Name::Spare(number) => {
                let file = files.open(&path).map_err(WalError::io("open", &path))?;
                let length = file.length().map_err(WalError::io("measure", &path))?;
                if length == options.segment_bytes {
                    listing.spares.push(number);
                } else {
                    files.remove(&path).map_err(WalError::io("remove", &path))?;
                }
            }
            Name::Newest => listing.newest = newest::read(files, directory)?,
            Name::Temporary => files.remove(&path).map_err(WalError::io("remove", &path))?,
            Name::Foreign => tracing::warn!(path = %path.display(), "not a file of the WAL"),
        }
    }
    listing.segments.sort_unstable();
    Ok(listing)
}

fn find_segments(
    files: &dyn Files,
    directory: &Path,
    listing: &Listing,
) -> Result<Vec<Found>, WalError> {
    let mut found: Vec<Found> = Vec::with_capacity(listing.segments.len());
    for number in &listing.segments {
        let expected = found.last().map_or(*number, |last| last.segment + 1);
        if *number != expected {
            return Err(missing(directory, expected, "later ones exist").into());
        }
        let path = segment::path(directory, *number);
        let file = files.open(&path).map_err(WalError::io("open", &path))?;
        found.push(replay::read_header(directory, *number, file)?);
    }
    let last = found.last().map_or(0, |last| last.segment);
    match listing.newest {
        Some(newest) if newest > last => {
            Err(missing(directory, newest, "it was noted as the newest one").into())
        }
        _ => Ok(found),
    }
}

fn missing(directory: &Path, segment: u64, evidence: &str) -> Damage {
    Damage {
        file: segment::path(directory, segment),
        offset: 0,
        record: FrameName::SegmentHeader,
        reason: format!("the segment is missing, and {evidence}"),
    }
}

fn continue_from(directory: &Path, found: &[Found]) -> Result<(Replay, Option<Origin>), WalError> {
    let replay = replay::replay(directory, found)?;
    let origin = Origin {
        segment: replay.mark.segment + 1,
        previous_end: replay.mark.offset,
        back_link: replay.mark.link,
        state: replay.state,
    };
    Ok((replay, Some(origin)))
}

fn begin_empty() -> Replay {
    Replay {
        state: State::default(),
        ahead: State::default(),
        places: Places::default(),
        mark: Mark { segment: 0, offset: 0, link: 0 },
        pending: Vec::new(),
        torn: None,
        unused: false,
    }
}

/// Goes on in a segment in which nothing was ever written, so that starts that come to nothing do
/// not leave a segment each. What it holds was synced before it had its name; the name, perhaps
/// not.
fn go_on_in(
    files: &dyn Files,
    directory: &Path,
    options: WalOptions,
    found: &Found,
) -> Result<Active, WalError> {
    if !options.unsafe_no_fsync {
        let path = segment::path(directory, found.segment);
        found.file.sync_data().map_err(WalError::io("sync", &path))?;
        files.sync_directory(directory).map_err(WalError::io("sync", directory))?;
    }
    Ok(Active {
        segment: found.segment,
        file: found.file.clone(),
        length: found.header.length,
        end: FIRST_GROUP,
        link: found.link,
    })
}

/// Makes the segment to go on in, with the records that were above the mark. Of a spare if there is
/// one, since nothing else may be left of a full disk.
fn write_fresh(
    files: &dyn Files,
    directory: &Path,
    options: WalOptions,
    replay: &mut Replay,
    origin: Option<Origin>,
    spares: &mut Vec<u64>,
) -> Result<Active, WalError> {
    let first = Origin { segment: 1, previous_end: 0, back_link: 0, state: State::default() };
    let origin = origin.unwrap_or(first);
    let pending = std::mem::take(&mut replay.pending);
    let copied: u64 = pending.iter().map(|group| group.end - group.place.offset).sum();
    let (full, needed) = (options.segment_bytes, FIRST_GROUP + copied);
    let draft = match spares.pop() {
        Some(spare) if needed <= full => {
            Draft::from_spare(files, segment::spare_path(directory, spare), origin, full)?
        }
        unused => {
            spares.extend(unused);
            let length = full.min(SHORT_SEGMENT_BYTES).max(needed);
            Draft::create(files, directory, origin, length, needed)?
        }
    };
    let mut active = Active::new(origin.segment, &draft);
    replay.places.add_segment(origin.segment, draft.file.clone(), FIRST_GROUP);
    copy_groups(directory, &mut active, replay, &pending)?;
    draft.publish(files, directory, !options.unsafe_no_fsync)?;
    assert_eq!(replay.state, replay.ahead, "everything that was read was copied");
    Ok(active)
}

fn copy_groups(
    directory: &Path,
    active: &mut Active,
    replay: &mut Replay,
    pending: &[Group],
) -> Result<(), WalError> {
    let path = segment::temporary_path(directory, active.segment);
    let mut builder = GroupBuilder::default();
    // Nothing here is flushed before the whole file is, so the mark stays at the header.
    let mark = active.mark();
    for group in pending.iter().filter(|group| !group.records.is_empty()) {
        builder.clear();
        for record in &group.records {
            builder.push(record);
            replay.state.apply(record).expect("it was applied ahead");
        }
        let place = active.write(&mut builder, mark).map_err(WalError::io("write", &path))?;
        replay.places.add_group(place, active.end, &group.records);
    }
    Ok(())
}

/// Reads the newest entries into memory.
fn fill_tail(wal: &Wal) -> Result<(), WalError> {
    let options = wal.shared.options;
    let state = wal.state();
    let by_bytes = wal.shared.places().start_within(options.tail_bytes_max);
    let next = state.next_index();
    let by_count = next.saturating_sub(options.tail_entries_max as u64);
    let start = by_bytes.unwrap_or(next).max(by_count);
    let entries = wal.entries(start, next)?;
    let mut log = wal.shared.log_mut();
    for entry in entries {
        // A copy, for a slice would keep the whole window alive that it was read in.
        let payload = bytes::Bytes::copy_from_slice(&entry.payload);
        log.tail.push(Entry { payload, ..entry });
    }
    Ok(())
}
