//! Where entries lie on disk, sparsely: a point for every 64 KiB, and one wherever the order of
//! indexes breaks. From a point on, entries follow one another up to the next point's index.
//!
//! ```text
//! points    (1, segment 1, offset 512)   (90, segment 1, offset 66048)   (6, ...)
//!            owns entries 1 to 5 after a truncation after 5, whatever follows on disk
//! ```
//!
//! Takes in what was written, so it lags behind the queue; readers ask it only for entries that
//! are no longer in memory, and those were written.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use holdfast_store::files::File;

use super::format::Place;
use super::limits::POINT_DISTANCE;
use super::record::Record;

/// A group that begins with, or soon holds, the entry.
#[derive(Clone, Copy, Debug)]
struct Point {
    index: u64,
    place: Place,
}

/// What is known of a segment that still exists.
struct SegmentPlaces {
    file: Arc<dyn File>,
    /// Everything before it was written.
    end: u64,
    /// The highest index that it ever held.
    last: Option<u64>,
}

/// Consecutive entries in one segment.
pub(super) struct Run {
    pub(super) file: Arc<dyn File>,
    /// The group to start at.
    pub(super) place: Place,
    /// The end of what was written to the segment.
    pub(super) segment_end: u64,
    /// `from <= index < until` are to be read.
    pub(super) from: u64,
    pub(super) until: u64,
}

/// The places of all entries that were written and not purged.
#[derive(Default)]
pub(super) struct Places {
    points: VecDeque<Point>,
    segments: BTreeMap<u64, SegmentPlaces>,
    /// The next entry does not follow the last point's run.
    broken: bool,
}

impl Places {
    /// A segment that is written to from now on, or was found at opening.
    pub(super) fn add_segment(&mut self, segment: u64, file: Arc<dyn File>, end: u64) {
        let places = SegmentPlaces { file, end, last: None };
        assert!(self.segments.insert(segment, places).is_none(), "segments are not reused");
    }

    /// Takes in a group that was written.
    pub(super) fn add_group(&mut self, place: Place, end: u64, records: &[Record]) {
        for record in records {
            match record {
                Record::Entry(entry) => self.add_entry(entry.id.index, place),
                Record::Truncate(after) => self.truncate(after.map(|after| after.index)),
                Record::Purge(upto) => self.purge(upto.index),
                Record::Vote(_) | Record::Committed(_) => {}
            }
        }
        let segment = self.segments.get_mut(&place.segment).expect("added before its groups");
        assert!(segment.end <= end, "groups are written in order");
        segment.end = end;
    }

    fn add_entry(&mut self, index: u64, place: Place) {
        let follows = self.points.back().is_some_and(|point| {
            point.place.segment == place.segment
                && place.offset - point.place.offset < POINT_DISTANCE
        });
        if self.broken || !follows {
            assert!(self.points.back().is_none_or(|point| point.index < index));
            self.points.push_back(Point { index, place });
            self.broken = false;
        }
        let segment = self.segments.get_mut(&place.segment).expect("added before its groups");
        segment.last = segment.last.max(Some(index));
    }

    fn truncate(&mut self, after: Option<u64>) {
        while self.points.back().is_some_and(|point| Some(point.index) > after) {
            self.points.pop_back();
        }
        self.broken = true;
    }

    fn purge(&mut self, upto: u64) {
        // A point goes when the next one owns all that is left of its run.
        while self.points.get(1).is_some_and(|next| next.index <= upto + 1) {
            self.points.pop_front();
        }
    }

    /// The runs that hold `start <= index < end`, in order.
    pub(super) fn runs(&self, start: u64, end: u64) -> Vec<Run> {
        let after = self.points.partition_point(|point| point.index <= start);
        let mut runs = Vec::new();
        for number in after.saturating_sub(1)..self.points.len() {
            let point = self.points[number];
            if point.index >= end {
                break;
            }
            let next = self.points.get(number + 1).map_or(u64::MAX, |next| next.index);
            let segment = &self.segments[&point.place.segment];
            runs.push(Run {
                file: segment.file.clone(),
                place: point.place,
                segment_end: segment.end,
                from: point.index.max(start),
                until: next.min(end),
            });
        }
        runs
    }

    /// The first index such that it and all above it take about `bytes` on disk.
    pub(super) fn start_within(&self, bytes: u64) -> Option<u64> {
        let mut left = bytes;
        let mut start = None;
        for (number, point) in self.points.iter().enumerate().rev() {
            let end = match self.points.get(number + 1) {
                Some(next) if next.place.segment == point.place.segment => next.place.offset,
                _ => self.segments[&point.place.segment].end,
            };
            let run = end - point.place.offset;
            if run > left {
                break;
            }
            left -= run;
            start = Some(point.index);
        }
        start
    }

    /// The first entry that has a place.
    pub(super) fn first_index(&self) -> Option<u64> {
        self.points.front().map(|point| point.index)
    }

    pub(super) fn oldest_segment(&self) -> Option<u64> {
        self.segments.first_key_value().map(|(number, _)| *number)
    }

    /// The segment being written.
    pub(super) fn newest_segment(&self) -> u64 {
        *self.segments.last_key_value().expect("a log has a segment").0
    }

    /// The oldest segment, if nothing in it is needed by a log that begins at `first`, and it is
    /// not the one being written.
    pub(super) fn removable(&self, first: u64) -> Option<u64> {
        let (number, oldest) = self.segments.first_key_value()?;
        let is_last = self.segments.len() == 1;
        let needed = oldest.last.is_some_and(|last| last >= first);
        (!is_last && !needed).then_some(*number)
    }

    /// Forgets a segment that [`Self::removable`] named. Returns its file.
    pub(super) fn remove_segment(&mut self, segment: u64) -> Arc<dyn File> {
        while self.points.front().is_some_and(|point| point.place.segment <= segment) {
            self.points.pop_front();
        }
        let places = self.segments.remove(&segment).expect("it was named a moment ago");
        places.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::record::{Entry, EntryKind, LogId};
    use crate::wal::testing::MemoryFiles;
    use holdfast_store::files::Files;
    use std::path::Path;

    fn entries(range: std::ops::Range<u64>) -> Vec<Record> {
        range
            .map(|index| {
                let id = LogId { term: 1, index };
                Record::Entry(Entry::new(id, EntryKind::Blank, Default::default()))
            })
            .collect()
    }

    fn owned(places: &Places, start: u64, end: u64) -> Vec<(u64, u64, u64)> {
        let runs = places.runs(start, end);
        runs.iter().map(|run| (run.place.offset, run.from, run.until)).collect()
    }

    #[test]
    fn runs_avoid_what_was_truncated() {
        let files = MemoryFiles::new(1);
        let file = files.create(Path::new("/segment")).unwrap();
        let mut places = Places::default();
        places.add_segment(1, file, 512);
        let at = |offset| Place { segment: 1, offset };
        places.add_group(at(512), 1024, &entries(1..11));
        assert_eq!(owned(&places, 3, 8), [(512, 3, 8)]);
        places.add_group(at(1024), 1536, &[Record::Truncate(Some(LogId { term: 1, index: 5 }))]);
        places.add_group(at(1536), 2048, &entries(6..9));
        assert_eq!(owned(&places, 3, 8), [(512, 3, 6), (1536, 6, 8)]);
        assert_eq!(owned(&places, 6, 7), [(1536, 6, 7)]);
        places.add_group(at(2048), 2560, &[Record::Purge(LogId { term: 1, index: 5 })]);
        assert_eq!(owned(&places, 6, 9), [(1536, 6, 9)]);
        assert_eq!(places.start_within(512), None);
        assert_eq!(places.start_within(2048), Some(6));
        assert_eq!(places.removable(100), None, "the segment being written stays");
    }
}
