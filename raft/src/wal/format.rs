//! Bytes on disk: frames, and the messages inside them. The tables are in `docs/formats.md`.
//!
//! ```text
//! segment  = header frame, zeros to 512 | group | group | ... | anything
//! group    = header frame, record frame, record frame, ..., zeros to a multiple of 512
//! frame    = magic, body length, back link, checksum (four little-endian u32), body
//! ```
//!
//! A frame's checksum is CRC32C over (segment number, offset of the frame, magic, length, back
//! link, body), so a frame verifies only where it was written; the back link is the checksum of
//! the frame before, through groups and segments, so a frame also names its predecessor. Index and
//! term are in the body. The layout of a frame and the format number that opens a segment header's
//! body stay as they are in every format; what the messages hold may grow by field tags.

use bytes::Bytes;
use prost::Message;

use super::limits::{RECORD_BYTES_MAX, SECTOR};
use super::record::{Entry, EntryKind, LogId, Record, Vote};
use super::state::State;

/// The format written here.
pub(super) const FORMAT: u32 = 1;
/// The oldest format read here: the one before, once there is one.
pub(super) const FORMAT_OLDEST: u32 = 1;

/// Bytes before a body.
pub(super) const FRAME: usize = 16;
/// Bytes of a group header's body: every field is fixed in width and always present, so that the
/// header can be filled in after the records behind it.
pub(super) const GROUP_HEADER: usize = 2 * 5 + 9 + 5;
/// Where the first group of a segment begins.
pub(super) const FIRST_GROUP: u64 = SECTOR;

/// What a frame is, as its first four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Magic {
    Segment = u32::from_le_bytes(*b"HFWS"),
    Group = u32::from_le_bytes(*b"HFWG"),
    Record = u32::from_le_bytes(*b"HFWR"),
}

/// A frame that verified.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) body_length: usize,
    pub(super) back_link: u32,
    pub(super) checksum: u32,
}

/// Where a frame lies; bound into its checksum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// The first multiple of the sector that is not below.
pub(super) fn sector_end(offset: u64) -> u64 {
    offset.next_multiple_of(SECTOR)
}

/// Fills in the frame in front of a body that is already in place: `bytes` is frame and body.
pub(super) fn seal(bytes: &mut [u8], magic: Magic, place: Place, back_link: u32) -> u32 {
    let length = u32::try_from(bytes.len() - FRAME).expect("bodies are below RECORD_BYTES_MAX");
    bytes[0..4].copy_from_slice(&(magic as u32).to_le_bytes());
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8..12].copy_from_slice(&back_link.to_le_bytes());
    let checksum = checksum(bytes, place);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    checksum
}

/// The length that a frame claims for its body; not verified.
pub(super) fn claimed_length(bytes: &[u8], magic: Magic) -> Result<usize, String> {
    if bytes.len() < FRAME {
        return Err("it ends before its frame".to_owned());
    }
    let found = word(bytes, 0);
    if found != magic as u32 {
        return Err(format!("no {magic:?} frame begins here, but {found:#010x}"));
    }
    let length = word(bytes, 4) as usize;
    if length as u64 > RECORD_BYTES_MAX {
        return Err(format!("its length {length} is above every limit"));
    }
    Ok(length)
}

/// Verifies the frame at the start of `bytes`, which may go on behind its body.
pub(super) fn open(bytes: &[u8], magic: Magic, place: Place) -> Result<Frame, String> {
    let body_length = claimed_length(bytes, magic)?;
    let Some(whole) = bytes.get(..FRAME + body_length) else {
        return Err(format!("its length {body_length} is beyond what holds it"));
    };
    let frame = Frame { body_length, back_link: word(bytes, 8), checksum: word(bytes, 12) };
    let computed = checksum(whole, place);
    if computed != frame.checksum {
        return Err(format!("checksum {computed:#010x} instead of {:#010x}", frame.checksum));
    }
    Ok(frame)
}

fn checksum(frame_and_body: &[u8], place: Place) -> u32 {
    let mut bound = [0; 28];
    bound[0..8].copy_from_slice(&place.segment.to_le_bytes());
    bound[8..16].copy_from_slice(&place.offset.to_le_bytes());
    bound[16..28].copy_from_slice(&frame_and_body[0..12]);
    crc32c::crc32c_append(crc32c::crc32c(&bound), &frame_and_body[FRAME..])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The end of what is known to be flushed: a place, and the checksum of the last frame before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) link: u32,
}

impl Mark {
    /// Whether what begins at the place is above the mark, and so may be torn.
    pub(super) fn is_at_or_below(self, place: Place) -> bool {
        (self.segment, self.offset) <= (place.segment, place.offset)
    }
}

#[derive(Clone, Copy, PartialEq, Message)]
struct GroupHeaderMessage {
    #[prost(fixed32, optional, tag = "1")]
    records: Option<u32>,
    #[prost(fixed32, optional, tag = "2")]
    records_length: Option<u32>,
    #[prost(fixed64, optional, tag = "3")]
    mark: Option<u64>,
    #[prost(fixed32, optional, tag = "4")]
    mark_link: Option<u32>,
}

/// The head of a group. Its mark lies in the same segment: a new segment begins only when all
/// before it is flushed, which its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupHeader {
    pub(super) records: u32,
    pub(super) records_length: u32,
    pub(super) mark_offset: u64,
    pub(super) mark_link: u32,
}

impl GroupHeader {
    pub(super) fn encode(self, into: &mut [u8]) {
        let message = GroupHeaderMessage {
            records: Some(self.records),
            records_length: Some(self.records_length),
            mark: Some(self.mark_offset),
            mark_link: Some(self.mark_link),
        };
        let mut rest = into;
        message.encode(&mut rest).expect("a group header has a fixed length");
        assert!(rest.is_empty(), "a group header has a fixed length");
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, String> {
        let message = GroupHeaderMessage::decode(body).map_err(|error| error.to_string())?;
        let missing = || "a field is missing".to_owned();
        Ok(Self {
            records: message.records.ok_or_else(missing)?,
            records_length: message.records_length.ok_or_else(missing)?,
            mark_offset: message.mark.ok_or_else(missing)?,
            mark_link: message.mark_link.ok_or_else(missing)?,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Message)]
struct LogIdMessage {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct VoteMessage {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, optional, tag = "2")]
    node: Option<u64>,
    #[prost(bool, tag = "3")]
    committed: bool,
}

#[derive(Clone, PartialEq, Message)]
struct EntryMessage {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
    #[prost(uint32, tag = "3")]
    kind: u32,
    #[prost(bytes = "bytes", tag = "4")]
    payload: Bytes,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct TruncateMessage {
    #[prost(message, optional, tag = "1")]
    after: Option<LogIdMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct RecordMessage {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Entry(EntryMessage),
    #[prost(message, tag = "2")]
    Vote(VoteMessage),
    #[prost(message, tag = "3")]
    Committed(LogIdMessage),
    #[prost(message, tag = "4")]
    Truncate(TruncateMessage),
    #[prost(message, tag = "5")]
    Purge(LogIdMessage),
}

/// Appends the record's body to the buffer: the one copy of its payload.
pub(super) fn encode_record(record: &Record, buffer: &mut Vec<u8>) {
    let kind = match record {
        Record::Entry(entry) => Kind::Entry(EntryMessage {
            term: entry.id.term,
            index: entry.id.index,
            kind: match entry.kind {
                EntryKind::Blank => 1,
                EntryKind::Normal => 2,
                EntryKind::Membership => 3,
            },
            payload: entry.payload.clone(),
        }),
        Record::Vote(vote) => Kind::Vote((*vote).into()),
        Record::Committed(id) => Kind::Committed((*id).into()),
        Record::Truncate(after) => Kind::Truncate(TruncateMessage { after: after.map(Into::into) }),
        Record::Purge(upto) => Kind::Purge((*upto).into()),
    };
    let message = RecordMessage { kind: Some(kind) };
    message.encode(buffer).expect("a vector grows as needed");
}

/// The record in a body. Payloads share the body's memory.
pub(super) fn decode_record(body: Bytes) -> Result<Record, String> {
    let message = RecordMessage::decode(body).map_err(|error| error.to_string())?;
    Ok(match message.kind.ok_or("it holds no record known to this format")? {
        Kind::Entry(EntryMessage { term, index, kind, payload }) => {
            let kind = match kind {
                1 => EntryKind::Blank,
                2 => EntryKind::Normal,
                3 => EntryKind::Membership,
                other => return Err(format!("{other} is no kind of entry in this format")),
            };
            Record::Entry(Entry::new(LogId { term, index }, kind, payload))
        }
        Kind::Vote(vote) => Record::Vote(vote.into()),
        Kind::Committed(id) => Record::Committed(id.into()),
        Kind::Truncate(truncate) => Record::Truncate(truncate.after.map(Into::into)),
        Kind::Purge(upto) => Record::Purge(upto.into()),
    })
}

impl From<LogId> for LogIdMessage {
    fn from(id: LogId) -> Self {
        Self { term: id.term, index: id.index }
    }
}

impl From<LogIdMessage> for LogId {
    fn from(id: LogIdMessage) -> Self {
        Self { term: id.term, index: id.index }
    }
}

impl From<Vote> for VoteMessage {
    fn from(vote: Vote) -> Self {
        Self { term: vote.term, node: vote.node, committed: vote.committed }
    }
}

impl From<VoteMessage> for Vote {
    fn from(vote: VoteMessage) -> Self {
        Self { term: vote.term, node: vote.node, committed: vote.committed }
    }
}

#[derive(Clone, Copy, PartialEq, Message)]
struct SegmentHeaderMessage {
    #[prost(uint64, tag = "1")]
    previous_end: u64,
    #[prost(uint64, tag = "2")]
    length: u64,
    #[prost(message, optional, tag = "3")]
    vote: Option<VoteMessage>,
    #[prost(message, optional, tag = "4")]
    committed: Option<LogIdMessage>,
    #[prost(message, optional, tag = "5")]
    purged: Option<LogIdMessage>,
    #[prost(uint64, optional, tag = "6")]
    first: Option<u64>,
    #[prost(message, optional, tag = "7")]
    last: Option<LogIdMessage>,
}

/// The first sector of a segment: durable before the segment has its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Where the segment before ends; what lies behind that is no part of the log. 0 in the first.
    pub(super) previous_end: u64,
    /// The file's length; it was this long, and all of it written, before it had its name.
    pub(super) length: u64,
    /// What is true where the segment begins, so that older segments can go.
    pub(super) state: State,
}

/// A segment header's sector.
pub(super) fn encode_segment_header(
    header: &SegmentHeader,
    segment: u64,
    back_link: u32,
) -> ([u8; SECTOR as usize], u32) {
    let state = header.state;
    let message = SegmentHeaderMessage {
        previous_end: header.previous_end,
        length: header.length,
        vote: state.vote.map(Into::into),
        committed: state.committed.map(Into::into),
        purged: state.purged.map(Into::into),
        first: state.first,
        last: state.last.map(Into::into),
    };
    let mut body = FORMAT.to_le_bytes().to_vec();
    message.encode(&mut body).expect("a vector grows as needed");
    let mut sector = [0; SECTOR as usize];
    let end = FRAME + body.len();
    assert!(end <= sector.len(), "a segment header fits a sector");
    sector[FRAME..end].copy_from_slice(&body);
    let place = Place { segment, offset: 0 };
    let checksum = seal(&mut sector[..end], Magic::Segment, place, back_link);
    (sector, checksum)
}

/// Why a segment header cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderProblem {
    /// It is not what was written.
    Wrong(String),
    /// It is intact, in a format that this release does not read.
    Format(u32),
}

impl From<String> for HeaderProblem {
    fn from(reason: String) -> Self {
        Self::Wrong(reason)
    }
}

/// The header in a segment's first sector, with its frame.
pub(super) fn decode_segment_header(
    sector: &[u8],
    segment: u64,
) -> Result<(SegmentHeader, Frame), HeaderProblem> {
    let frame = open(sector, Magic::Segment, Place { segment, offset: 0 })?;
    let body = &sector[FRAME..FRAME + frame.body_length];
    let format = body.get(..4).ok_or("it holds no format number".to_owned())?;
    let format = word(format, 0);
    if !(FORMAT_OLDEST..=FORMAT).contains(&format) {
        return Err(HeaderProblem::Format(format));
    }
    all_zeros(&sector[FRAME + frame.body_length..])?;
    let message = SegmentHeaderMessage::decode(&body[4..]).map_err(|error| error.to_string())?;
    let state = State {
        vote: message.vote.map(Into::into),
        committed: message.committed.map(Into::into),
        purged: message.purged.map(Into::into),
        first: message.first,
        last: message.last.map(Into::into),
    };
    let header =
        SegmentHeader { previous_end: message.previous_end, length: message.length, state };
    Ok((header, frame))
}

/// Padding is zeros, and other bytes in it are as wrong as anywhere.
pub(super) fn all_zeros(padding: &[u8]) -> Result<(), String> {
    match padding.iter().position(|byte| *byte != 0) {
        Some(at) => Err(format!("a byte of its padding ({at}) is not zero")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(record: Record) {
        let mut body = Vec::new();
        encode_record(&record, &mut body);
        assert_eq!(decode_record(body.into()), Ok(record));
    }

    #[test]
    fn records_survive_their_encoding() {
        let id = LogId { term: 3, index: u64::MAX };
        for kind in [EntryKind::Blank, EntryKind::Normal, EntryKind::Membership] {
            round_trip(Record::Entry(Entry::new(id, kind, Bytes::from_static(b"x"))));
        }
        round_trip(Record::Vote(Vote { term: 0, node: None, committed: false }));
        round_trip(Record::Vote(Vote { term: 7, node: Some(0), committed: true }));
        round_trip(Record::Committed(LogId { term: 0, index: 0 }));
        round_trip(Record::Truncate(None));
        round_trip(Record::Truncate(Some(LogId { term: 0, index: 0 })));
        round_trip(Record::Purge(id));
    }

    #[test]
    fn group_header_has_its_length_whatever_it_holds() {
        for number in [0, 1, u32::MAX] {
            let header = GroupHeader {
                records: number,
                records_length: number,
                mark_offset: number.into(),
                mark_link: number,
            };
            let mut body = [0; GROUP_HEADER];
            header.encode(&mut body);
            assert_eq!(GroupHeader::decode(&body), Ok(header));
        }
    }

    #[test]
    fn a_frame_verifies_only_where_it_was_written() {
        let place = Place { segment: 4, offset: 1024 };
        let mut bytes = vec![7; FRAME + 40];
        seal(&mut bytes, Magic::Record, place, 9);
        assert_eq!(open(&bytes, Magic::Record, place).unwrap().back_link, 9);
        assert!(open(&bytes, Magic::Group, place).is_err());
        assert!(open(&bytes, Magic::Record, Place { segment: 5, ..place }).is_err());
        assert!(open(&bytes, Magic::Record, Place { offset: 512, ..place }).is_err());
        assert!(open(&bytes[..FRAME + 39], Magic::Record, place).is_err());
        assert!(open(&bytes[..3], Magic::Record, place).is_err());
    }

    #[test]
    fn another_format_is_told_from_damage() {
        let header = SegmentHeader { previous_end: 0, length: 65536, state: State::default() };
        let (sector, _) = encode_segment_header(&header, 1, 0);
        assert_eq!(decode_segment_header(&sector, 1).unwrap().0, header);
        let mut newer = sector;
        newer[FRAME] = 2;
        let length = claimed_length(&newer, Magic::Segment).unwrap();
        seal(&mut newer[..FRAME + length], Magic::Segment, Place { segment: 1, offset: 0 }, 0);
        assert_eq!(decode_segment_header(&newer, 1).unwrap_err(), HeaderProblem::Format(2));
        let mut flipped = sector;
        flipped[FRAME] = 2;
        assert!(matches!(decode_segment_header(&flipped, 1), Err(HeaderProblem::Wrong(_))));
    }
}
