//! Reading a log back from its segments, and the verdict on whatever is wrong in it.
//!
//! Groups verify one after the other. The first that does not ends the log: if any mark, in any
//! group header that verifies by itself, lies beyond it, then it had been flushed, and it is
//! *damaged*; otherwise it is the *torn tail* of a write that no fsync had finished. Segments
//! before the last were flushed whole, so there only damage is possible.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_store::files::File;

use super::error::{Damage, FrameName, WalError};
use super::format::{self, FIRST_GROUP, FORMAT, FORMAT_OLDEST, Mark, Place, SegmentHeader};
use super::group::{self, Group, Wrong};
use super::limits::SECTOR;
use super::places::Places;
use super::read::damage;
use super::record::Record;
use super::segment;
use super::state::State;

/// A segment whose header verified.
pub(super) struct Found {
    pub(super) segment: u64,
    pub(super) file: Arc<dyn File>,
    pub(super) header: SegmentHeader,
    /// The header's own checksum, and the link to the frame before.
    pub(super) link: u32,
    pub(super) back_link: u32,
}

/// What the segments hold.
pub(super) struct Replay {
    /// What is true at the mark.
    pub(super) state: State,
    /// What is true at the end of what could be read.
    pub(super) ahead: State,
    pub(super) places: Places,
    /// The end of what is known to be flushed.
    pub(super) mark: Mark,
    /// Groups that verified above the mark.
    pub(super) pending: Vec<Group>,
    /// Why the log ends where it does, if there are bytes behind its end.
    pub(super) torn: Option<Damage>,
    /// Nothing was ever written behind the header of the last segment.
    pub(super) unused: bool,
}

/// Reads the header of a segment.
pub(super) fn read_header(
    directory: &Path,
    number: u64,
    file: Arc<dyn File>,
) -> Result<Found, WalError> {
    let path = segment::path(directory, number);
    let wrong = |reason: String| Damage {
        file: path.clone(),
        offset: 0,
        record: FrameName::SegmentHeader,
        reason,
    };
    let length = file.length().map_err(WalError::io("measure", &path))?;
    if length < SECTOR {
        return Err(wrong(format!("the file has only {length} bytes")).into());
    }
    let mut sector = [0; SECTOR as usize];
    file.read_exact_at(&mut sector, 0).map_err(WalError::io("read", &path))?;
    let (header, frame) = match format::decode_segment_header(&sector, number) {
        Ok(decoded) => decoded,
        Err(format::HeaderProblem::Wrong(reason)) => return Err(wrong(reason).into()),
        Err(format::HeaderProblem::Format(found)) => {
            let (file, oldest, newest) = (path, FORMAT_OLDEST, FORMAT);
            return Err(WalError::NewerFormat { file, found, oldest, newest });
        }
    };
    if length < header.length {
        let reason = format!(
            "the file was cut to {length} of {} bytes; no crash does that, for all of them were \
             on disk before the segment was used",
            header.length
        );
        let damage = Damage { offset: length, record: FrameName::GroupHeader, ..wrong(reason) };
        return Err(damage.into());
    }
    Ok(Found { segment: number, file, header, link: frame.checksum, back_link: frame.back_link })
}

/// Reads segments that follow one another, oldest first.
pub(super) fn replay(directory: &Path, segments: &[Found]) -> Result<Replay, WalError> {
    let first = segments.first().expect("there is a segment to replay");
    let mut replay = Replay {
        state: first.header.state,
        ahead: first.header.state,
        places: Places::default(),
        mark: mark_of(first),
        pending: Vec::new(),
        torn: None,
        unused: false,
    };
    for (number, found) in segments.iter().enumerate() {
        let path = segment::path(directory, found.segment);
        replay.enter(found).map_err(|wrong| damage(&path, wrong))?;
        let next = segments.get(number + 1);
        let end = next.map_or(found.header.length, |next| next.header.previous_end);
        let bytes = load(found, end).map_err(WalError::io("read", &path))?;
        replay.unused = next.is_none() && format::all_zeros(&bytes[FIRST_GROUP as usize..]).is_ok();
        let Err(wrong) = replay.read_groups(found, &bytes) else {
            replay.leave(found, next).map_err(|wrong| damage(&path, wrong))?;
            continue;
        };
        let beyond = newest_mark(&bytes, wrong.place);
        if next.is_some() || !beyond.is_none_or(|mark| mark.is_at_or_below(wrong.place)) {
            return Err(damage(&path, wrong).into());
        }
        replay.torn = is_torn(&bytes, wrong.place).then(|| damage(&path, wrong));
    }
    replay.check_complete(directory)?;
    Ok(replay)
}

fn mark_of(found: &Found) -> Mark {
    Mark { segment: found.segment, offset: FIRST_GROUP, link: found.link }
}

fn load(found: &Found, end: u64) -> std::io::Result<Bytes> {
    let mut bytes = vec![0; end as usize];
    found.file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes.into())
}

/// The newest mark in any group header from `place` on that verifies by itself.
fn newest_mark(bytes: &Bytes, place: Place) -> Option<Mark> {
    let mut newest: Option<Mark> = None;
    let mut offset = format::sector_end(place.offset);
    while offset < bytes.len() as u64 {
        let place = Place { offset, ..place };
        if let Ok((header, _)) = group::read_header(&bytes[offset as usize..], place) {
            let mark =
                Mark { segment: place.segment, offset: header.mark_offset, link: header.mark_link };
            newest = newest.filter(|newest| newest.offset >= mark.offset).or(Some(mark));
        }
        offset += SECTOR;
    }
    newest
}

/// Whether there are bytes behind the end, rather than the untouched rest of a new segment.
fn is_torn(bytes: &Bytes, place: Place) -> bool {
    let rest = &bytes[place.offset as usize..];
    let sector = &rest[..rest.len().min(SECTOR as usize)];
    !sector.is_empty() && format::all_zeros(sector).is_err()
}

impl Replay {
    /// Begins a segment: its header agrees with what came before, all of which was flushed.
    fn enter(&mut self, found: &Found) -> Result<(), Wrong> {
        self.commit_pending(Mark { offset: u64::MAX, ..self.mark });
        if self.state != found.header.state {
            let place = Place { segment: found.segment, offset: 0 };
            let reason = "it disagrees with the segments before".to_owned();
            return Err(Wrong { place, frame: FrameName::SegmentHeader, reason });
        }
        self.mark = mark_of(found);
        self.places.add_segment(found.segment, found.file.clone(), FIRST_GROUP);
        Ok(())
    }

    /// Ends a segment: the next one's header says where it ends, and with which checksum.
    fn leave(&self, found: &Found, next: Option<&Found>) -> Result<(), Wrong> {
        let Some(next) = next else { return Ok(()) };
        let (end, link) = self.end();
        if (end, link) == (next.header.previous_end, next.back_link) {
            return Ok(());
        }
        let place = Place { segment: found.segment, offset: end };
        let reason = "the next segment does not follow it".to_owned();
        Err(Wrong { place, frame: FrameName::GroupHeader, reason })
    }

    /// Where reading stands, and the checksum of the last frame.
    fn end(&self) -> (u64, u32) {
        let pending = self.pending.last().map(|group| (group.end, group.link));
        pending.unwrap_or((self.mark.offset, self.mark.link))
    }

    /// Reads groups up to the end of `bytes`, or to the first that is wrong.
    fn read_groups(&mut self, found: &Found, bytes: &Bytes) -> Result<(), Wrong> {
        loop {
            let (end, link) = self.end();
            if end == bytes.len() as u64 {
                return Ok(());
            }
            let place = Place { segment: found.segment, offset: end };
            let group = group::read(&bytes.slice(end as usize..), place, Some(link))?;
            self.take(group)?;
        }
    }

    fn take(&mut self, group: Group) -> Result<(), Wrong> {
        let mut ahead = self.ahead;
        let wrong = |frame, reason| Wrong { place: group.place, frame, reason };
        for (number, record) in group.records.iter().enumerate() {
            let frame = FrameName::Record(number as u32);
            ahead.apply(record).map_err(|reason| wrong(frame, reason))?;
        }
        if !self.knows(group.mark) {
            let reason = "its mark is not the end of a group".to_owned();
            return Err(wrong(FrameName::GroupHeader, reason));
        }
        self.ahead = ahead;
        self.commit_pending(group.mark);
        self.pending.push(group);
        Ok(())
    }

    /// Whether the mark is the current one, or the end of a group above it.
    fn knows(&self, mark: Mark) -> bool {
        let ends = self.pending.iter().map(|group| (group.end, group.link));
        mark == self.mark || ends.into_iter().any(|end| end == (mark.offset, mark.link))
    }

    /// Takes in the groups that a mark covers.
    fn commit_pending(&mut self, mark: Mark) {
        let covered = self.pending.iter().take_while(|group| group.end <= mark.offset).count();
        for group in self.pending.drain(..covered) {
            for record in &group.records {
                self.state.apply(record).expect("it was applied ahead");
            }
            self.places.add_group(group.place, group.end, &group.records);
            let (segment, offset) = (group.place.segment, group.end);
            self.mark = Mark { segment, offset, link: group.link };
        }
    }

    /// Entries that the oldest segment presupposes, and that were not purged since, are lost with
    /// the segments that held them.
    fn check_complete(&self, directory: &Path) -> Result<(), WalError> {
        let Some(first) = self.ahead.first else { return Ok(()) };
        let pending = self.pending.iter().flat_map(|group| &group.records);
        let pending = pending.filter_map(|record| match record {
            Record::Entry(entry) => Some(entry.id.index),
            _ => None,
        });
        if pending.chain(self.places.first_index()).any(|held| held <= first) {
            return Ok(());
        }
        let oldest = self.places.oldest_segment().expect("segments were added");
        let damage = Damage {
            file: segment::path(directory, oldest.saturating_sub(1)),
            offset: 0,
            record: FrameName::Entry(first),
            reason: "the segment that held it is missing".to_owned(),
        };
        Err(damage.into())
    }
}
