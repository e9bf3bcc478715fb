//! Groups: the unit of writing. One is built in a single buffer and written at once; reading one
//! verifies every frame of it, the chain between them, and the padding behind.

use bytes::Bytes;

use super::error::FrameName;
use super::format::{self, FRAME, Frame, GROUP_HEADER, GroupHeader, Magic, Mark, Place};
use super::record::Record;

/// Encodes records into one buffer, each once, and seals them when place and mark are known.
#[derive(Default)]
pub(super) struct GroupBuilder {
    buffer: Vec<u8>,
    /// Where each record's frame begins in the buffer.
    starts: Vec<usize>,
}

impl GroupBuilder {
    /// Drops what is in it and keeps the memory, unless one huge group made it huge.
    pub(super) fn clear(&mut self) {
        self.starts.clear();
        self.buffer.clear();
        self.buffer.shrink_to(2 * super::limits::GROUP_BYTES_MAX as usize);
        self.buffer.resize(FRAME + GROUP_HEADER, 0);
    }

    /// Appends a record. Call [`Self::clear`] before the first one of a group.
    pub(super) fn push(&mut self, record: &Record) {
        assert!(self.buffer.len() >= FRAME + GROUP_HEADER, "cleared before the first record");
        self.starts.push(self.buffer.len());
        self.buffer.resize(self.buffer.len() + FRAME, 0);
        format::encode_record(record, &mut self.buffer);
    }

    /// The bytes that the group takes on disk.
    pub(super) fn length(&self) -> u64 {
        format::sector_end(self.buffer.len() as u64)
    }

    /// Fills in all frames for this place. Returns the bytes to write and the last checksum.
    pub(super) fn seal(&mut self, place: Place, back_link: u32, mark: Mark) -> (&[u8], u32) {
        assert_eq!(mark.segment, place.segment, "a mark lies in the segment that carries it");
        let records_end = self.buffer.len();
        let header = GroupHeader {
            records: self.starts.len() as u32,
            records_length: (records_end - FRAME - GROUP_HEADER) as u32,
            mark_offset: mark.offset,
            mark_link: mark.link,
        };
        header.encode(&mut self.buffer[FRAME..FRAME + GROUP_HEADER]);
        let head = &mut self.buffer[..FRAME + GROUP_HEADER];
        let mut link = format::seal(head, Magic::Group, place, back_link);
        for (number, start) in self.starts.iter().enumerate() {
            let end = self.starts.get(number + 1).copied().unwrap_or(records_end);
            let place = Place { offset: place.offset + *start as u64, ..place };
            link = format::seal(&mut self.buffer[*start..end], Magic::Record, place, link);
        }
        let length = self.length() as usize;
        self.buffer.resize(length, 0);
        (&self.buffer, link)
    }
}

/// A group that verified.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) place: Place,
    /// Where the next one begins.
    pub(super) end: u64,
    /// The checksum of its last frame.
    pub(super) link: u32,
    pub(super) mark: Mark,
    pub(super) records: Vec<Record>,
}

/// The first thing in a group, or in a segment, that is not as it was written.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) place: Place,
    pub(super) frame: FrameName,
    pub(super) reason: String,
}

/// Verifies the header at the start of `bytes`, without what follows it: its mark can be trusted
/// even where the records behind it are torn.
pub(super) fn read_header(bytes: &[u8], place: Place) -> Result<(GroupHeader, Frame), Wrong> {
    let wrong = |reason| Wrong { place, frame: FrameName::GroupHeader, reason };
    let frame = format::open(bytes, Magic::Group, place).map_err(wrong)?;
    let header = GroupHeader::decode(&bytes[FRAME..FRAME + frame.body_length]).map_err(wrong)?;
    if header.mark_offset > place.offset {
        return Err(wrong("its mark is behind it".to_owned()));
    }
    Ok((header, frame))
}

/// The bytes that a group with this header takes on disk.
pub(super) fn length(header: &GroupHeader, frame: &Frame) -> u64 {
    let records = u64::from(header.records_length);
    format::sector_end((FRAME + frame.body_length) as u64 + records)
}

/// Reads the group at the start of `bytes`, which may go on behind it. Where the frame before is
/// known, `back_link` is its checksum.
pub(super) fn read(bytes: &Bytes, place: Place, back_link: Option<u32>) -> Result<Group, Wrong> {
    let (header, frame) = read_header(bytes, place)?;
    let wrong = |reason: String| Wrong { place, frame: FrameName::GroupHeader, reason };
    if back_link.is_some_and(|link| link != frame.back_link) {
        return Err(wrong("it does not follow the frame before it".to_owned()));
    }
    let length = length(&header, &frame) as usize;
    if bytes.len() < length {
        return Err(wrong("its records are beyond the end of the segment".to_owned()));
    }
    let records_start = FRAME + frame.body_length;
    let records_end = records_start + header.records_length as usize;
    let frames = bytes.slice(..records_end);
    let (records, link) = read_records(&frames, records_start, &header, place, frame.checksum)?;
    format::all_zeros(&bytes[records_end..length]).map_err(wrong)?;
    let mark = Mark { segment: place.segment, offset: header.mark_offset, link: header.mark_link };
    Ok(Group { place, end: place.offset + length as u64, link, mark, records })
}

fn read_records(
    group: &Bytes,
    mut at: usize,
    header: &GroupHeader,
    place: Place,
    mut link: u32,
) -> Result<(Vec<Record>, u32), Wrong> {
    // A record takes at least its frame, so a count beyond that is wrong and reserves nothing.
    let mut records = Vec::with_capacity((header.records as usize).min(group.len() / FRAME));
    for number in 0..header.records {
        let place = Place { offset: place.offset + at as u64, ..place };
        let wrong = |reason| Wrong { place, frame: FrameName::Record(number), reason };
        let frame = format::open(&group[at..], Magic::Record, place).map_err(wrong)?;
        if frame.back_link != link {
            return Err(wrong("it does not follow the frame before it".to_owned()));
        }
        let end = at + FRAME + frame.body_length;
        records.push(format::decode_record(group.slice(at + FRAME..end)).map_err(wrong)?);
        link = frame.checksum;
        at = end;
    }
    if at != group.len() {
        let reason = "its records do not fill the length in its header".to_owned();
        return Err(Wrong { place, frame: FrameName::GroupHeader, reason });
    }
    Ok((records, link))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::record::{Entry, EntryKind, LogId};

    fn record(index: u64, fill: u8) -> Record {
        let payload = vec![fill; 100].into();
        Record::Entry(Entry::new(LogId { term: 1, index }, EntryKind::Normal, payload))
    }

    fn group(records: &[Record]) -> Vec<u8> {
        let mut builder = GroupBuilder::default();
        builder.clear();
        records.iter().for_each(|record| builder.push(record));
        let mark = Mark { segment: 3, offset: 512, link: 7 };
        builder.seal(PLACE, 7, mark).0.to_vec()
    }

    const PLACE: Place = Place { segment: 3, offset: 1024 };

    #[test]
    fn a_group_survives_its_encoding() {
        let records = [record(5, 1), record(6, 2), Record::Committed(LogId { term: 1, index: 5 })];
        let bytes = Bytes::from(group(&records));
        let read = read(&bytes, PLACE, Some(7)).unwrap();
        assert_eq!(read.records, records);
        assert_eq!((read.end, read.mark.offset), (1024 + bytes.len() as u64, 512));
        assert!(super::read(&bytes, PLACE, Some(8)).is_err(), "it follows another frame");
        assert!(super::read(&bytes, Place { offset: 512, ..PLACE }, None).is_err());
    }

    #[test]
    fn a_record_of_another_group_does_not_follow() {
        let (mut ours, theirs) =
            (group(&[record(5, 1), record(6, 2)]), group(&[record(5, 9), record(6, 2)]));
        let first = FRAME + GROUP_HEADER;
        let length = FRAME + format::claimed_length(&ours[first..], Magic::Record).unwrap();
        let range = first + length..first + 2 * length;
        ours[range.clone()].copy_from_slice(&theirs[range]);
        let wrong = read(&ours.into(), PLACE, Some(7)).unwrap_err();
        assert_eq!(wrong.frame, FrameName::Record(1));
        assert!(wrong.reason.contains("does not follow"), "{}", wrong.reason);
    }
}
