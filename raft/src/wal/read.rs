//! Reading entries back from segments, for those that are no longer in memory. Every frame is
//! verified again: an entry that rotted since it was written is an error, never an answer.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_store::files::File;

use super::error::{Damage, FrameName, WalError};
use super::format::Place;
use super::group::{self, Wrong};
use super::limits::SECTOR;
use super::places::Run;
use super::record::{Entry, Record};
use super::segment;

/// What is read at once where groups are small.
const WINDOW_BYTES: u64 = 64 << 10;

/// A part of a segment in memory.
struct Window<'a> {
    file: &'a Arc<dyn File>,
    /// Nothing is read from here on.
    end: u64,
    start: u64,
    bytes: Bytes,
}

impl Window<'_> {
    /// The bytes from `offset` on: at least `length` of them, unless the segment ends before.
    fn at(&mut self, offset: u64, length: u64) -> std::io::Result<Bytes> {
        let held = self.start..self.start + self.bytes.len() as u64;
        let wanted_end = (offset + length).min(self.end);
        if offset < held.start || wanted_end > held.end || offset > held.end {
            let read_end = (offset + length.max(WINDOW_BYTES)).min(self.end);
            let mut bytes = vec![0; read_end.saturating_sub(offset) as usize];
            self.file.read_exact_at(&mut bytes, offset)?;
            (self.start, self.bytes) = (offset, bytes.into());
        }
        Ok(self.bytes.slice((offset - self.start) as usize..))
    }
}

/// Appends the entries of a run to `entries` until their costs reach `budget`; returns whether
/// the whole run was read. At least one entry is read.
pub(super) fn read_run(
    directory: &Path,
    run: &Run,
    entries: &mut Vec<Entry>,
    budget: &mut u64,
) -> Result<bool, WalError> {
    let path = segment::path(directory, run.place.segment);
    let mut window =
        Window { file: &run.file, end: run.segment_end, start: 0, bytes: Bytes::new() };
    let mut place = run.place;
    let mut next = run.from;
    while next < run.until {
        if place.offset >= run.segment_end {
            let reason = "the segment ends before it".to_owned();
            let (file, offset, record) = (path, place.offset, FrameName::Entry(next));
            return Err(Damage { file, offset, record, reason }.into());
        }
        let group = read_group(&mut window, place)
            .map_err(WalError::io("read", &path))?
            .map_err(|wrong| damage(&path, wrong))?;
        for record in group.records {
            let Record::Entry(entry) = record else { continue };
            if entry.id.index < next {
                continue;
            }
            if next == run.until {
                break;
            }
            if entry.id.index > next {
                let reason = format!("entry {} stands where it should be", entry.id.index);
                let (file, offset, record) = (path, place.offset, FrameName::Entry(next));
                return Err(Damage { file, offset, record, reason }.into());
            }
            if !entries.is_empty() && *budget < entry.cost() {
                return Ok(false);
            }
            *budget = budget.saturating_sub(entry.cost());
            entries.push(entry);
            next += 1;
        }
        place.offset = group.end;
    }
    Ok(true)
}

fn read_group(
    window: &mut Window<'_>,
    place: Place,
) -> std::io::Result<Result<group::Group, Wrong>> {
    let head = window.at(place.offset, SECTOR)?;
    let (header, frame) = match group::read_header(&head, place) {
        Ok(read) => read,
        Err(wrong) => return Ok(Err(wrong)),
    };
    let whole = window.at(place.offset, group::length(&header, &frame))?;
    Ok(group::read(&whole, place, None))
}

/// The error for something wrong that must not be.
pub(super) fn damage(path: &Path, wrong: Wrong) -> Damage {
    let Wrong { place, frame, reason } = wrong;
    Damage { file: path.to_owned(), offset: place.offset, record: frame, reason }
}
