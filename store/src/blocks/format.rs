//! The bytes of a block.
//!
//! ```text
//! frame "HFBK" { BlockHeader } | key directory | body
//! ```
//!
//! The header says which file and offset the block belongs to, so that a block which the disk put
//! elsewhere is noticed, and holds the lengths and checksums of the two parts that follow. The key
//! directory is a column for each fact of the records' headers; the body is their encodings, one
//! after the other. Both parts are lz4 blocks, unless that would make them longer.

use bytes::Bytes;
use prost::Message;

use super::FileId;
use super::slots::Slots;
use crate::frame::{FrameError, Kind};
use crate::{Record, RecordHeader, RecordKind, Revision};

/// The frame of a block's header.
pub(crate) const BLOCK: Kind = Kind { magic: *b"HFBK", format: 1, length_max: 1 << 10 };

/// The frame at the head of a block file.
pub(crate) const FILE: Kind = Kind { magic: *b"HFBF", format: 1, length_max: 1 << 10 };

/// No part of a block is longer, compressed or not: records are bounded by requests.
pub(crate) const PART_BYTES_MAX: u32 = 1 << 30;

/// The head of a block file.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FileHeader {
    #[prost(fixed64, tag = "1")]
    pub(crate) incarnation: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) sequence: u64,
}

/// The head of a block.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlockHeader {
    #[prost(fixed64, tag = "1")]
    pub(crate) incarnation: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) sequence: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) offset: u64,
    #[prost(int64, tag = "4")]
    pub(crate) first_main: i64,
    #[prost(int64, tag = "5")]
    pub(crate) first_sub: i64,
    #[prost(uint32, tag = "6")]
    pub(crate) count: u32,
    #[prost(message, required, tag = "7")]
    pub(crate) directory: Part,
    #[prost(message, required, tag = "8")]
    pub(crate) body: Part,
}

/// One of the two parts after the header.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Part {
    /// Bytes in the file.
    #[prost(uint32, tag = "1")]
    pub(crate) stored: u32,
    /// Bytes once decompressed; equal to `stored` when it was not worth it.
    #[prost(uint32, tag = "2")]
    pub(crate) plain: u32,
    /// crc32c of the bytes in the file.
    #[prost(fixed32, tag = "3")]
    pub(crate) checksum: u32,
}

/// The headers of a block's records, in columns. A column of zeros is left out.
#[derive(Clone, PartialEq, prost::Message)]
struct Columns {
    /// Main revision, less that of the record before (of the block, for the first).
    #[prost(uint64, repeated, tag = "1")]
    mains: Vec<u64>,
    #[prost(uint32, repeated, tag = "2")]
    subs: Vec<u32>,
    /// Main revision less create revision.
    #[prost(uint64, repeated, tag = "3")]
    ages: Vec<u64>,
    /// 0 says tombstone.
    #[prost(int64, repeated, tag = "4")]
    versions: Vec<i64>,
    #[prost(int64, repeated, tag = "5")]
    leases: Vec<i64>,
    #[prost(uint32, repeated, tag = "6")]
    key_lengths: Vec<u32>,
    #[prost(bytes = "bytes", tag = "7")]
    keys: Bytes,
    /// Lengths of the encodings in the body.
    #[prost(uint32, repeated, tag = "8")]
    lengths: Vec<u32>,
}

/// A block, ready to be written anywhere.
pub(crate) struct Built {
    pub(crate) slots: Slots,
    /// The key directory as it is stored.
    pub(crate) directory: Vec<u8>,
    /// The body before compression: what the cache keeps.
    pub(crate) body: Bytes,
    directory_part: Part,
    body_part: Part,
    stored_body: Vec<u8>,
}

impl Built {
    /// Packs records, which are in revision order.
    pub(crate) fn pack<'a>(records: impl Iterator<Item = &'a Record> + Clone) -> Self {
        let headers: Vec<_> = records.clone().map(Record::header).collect();
        assert!(!headers.is_empty(), "a block holds at least one record");
        let length = headers.iter().map(|header| header.length as usize).sum();
        let mut body = Vec::with_capacity(length);
        records.for_each(|record| body.extend_from_slice(&record.bytes));
        let columns = Columns::of(&headers).encode_to_vec();
        let (directory_part, directory) = compress(&columns);
        let (body_part, stored_body) = compress(&body);
        let slots = Slots::of(&headers).expect("the caller cuts blocks where slots would overflow");
        let body = Bytes::from(body);
        Self { slots, directory, body, directory_part, body_part, stored_body }
    }

    /// The bytes to write at `offset` of `file`, and how many of them come before the body.
    pub(crate) fn encode(&self, file: FileId, offset: u64) -> (Vec<u8>, u32) {
        let first = self.slots.first();
        let mut out = BLOCK.wrap(&BlockHeader {
            incarnation: file.incarnation,
            sequence: file.sequence,
            offset,
            first_main: first.main,
            first_sub: first.sub,
            count: self.slots.count() as u32,
            directory: self.directory_part,
            body: self.body_part,
        });
        out.extend_from_slice(&self.directory);
        let before_body = out.len() as u32;
        out.extend_from_slice(&self.stored_body);
        (out, before_body)
    }
}

impl Columns {
    fn of(headers: &[RecordHeader]) -> Self {
        let mut columns = Self::default();
        let mut before = headers[0].revision.main;
        let mut keys = Vec::new();
        for header in headers {
            let main = header.revision.main;
            columns.mains.push((main - before) as u64);
            before = main;
            columns.subs.push(u32::try_from(header.revision.sub).expect("bounded by a request"));
            let (age, version, lease) = match header.kind {
                RecordKind::Put { create_revision, version, lease } => {
                    ((main - create_revision) as u64, version, lease)
                }
                RecordKind::Tombstone => (0, 0, 0),
            };
            columns.ages.push(age);
            columns.versions.push(version);
            columns.leases.push(lease);
            columns.key_lengths.push(header.key.len() as u32);
            keys.extend_from_slice(&header.key);
            columns.lengths.push(header.length);
        }
        columns.keys = Bytes::from(keys);
        columns.leave_out_zeros();
        columns
    }

    fn leave_out_zeros(&mut self) {
        fn clear<T: Default + PartialEq>(column: &mut Vec<T>) {
            if column.iter().all(|value| *value == T::default()) {
                column.clear();
            }
        }
        clear(&mut self.subs);
        clear(&mut self.ages);
        clear(&mut self.leases);
    }

    fn into_headers(self, first: Revision, count: usize) -> Option<Vec<RecordHeader>> {
        let full = [self.mains.len(), self.versions.len(), self.lengths.len()];
        let sparse = [self.subs.len(), self.ages.len(), self.leases.len()];
        if full.iter().any(|length| *length != count)
            || sparse.iter().any(|length| *length != count && *length != 0)
            || self.key_lengths.len() != count
        {
            return None;
        }
        let mut headers = Vec::with_capacity(count);
        let (mut main, mut keys) = (first.main, self.keys);
        for at in 0..count {
            main = main.checked_add_unsigned(self.mains[at])?;
            let key_length = self.key_lengths[at] as usize;
            if key_length > keys.len() {
                return None;
            }
            let sub = i64::from(self.subs.get(at).copied().unwrap_or(0));
            let age = self.ages.get(at).copied().unwrap_or(0);
            let lease = self.leases.get(at).copied().unwrap_or(0);
            let kind = match self.versions[at] {
                0 => RecordKind::Tombstone,
                version => {
                    let create_revision = main.checked_sub_unsigned(age)?;
                    RecordKind::Put { create_revision, version, lease }
                }
            };
            let revision = Revision::new(main, sub);
            let key = keys.split_to(key_length);
            headers.push(RecordHeader { revision, key, kind, length: self.lengths[at] });
        }
        let ordered = headers.windows(2).all(|pair| pair[0].revision < pair[1].revision);
        (keys.is_empty() && ordered && headers.first()?.revision == first).then_some(headers)
    }
}

/// A block's header as it was found at `offset` of `file`, and where the header ends. `bytes`
/// begins at the block and must hold the header.
pub(crate) fn decode_header(
    bytes: &[u8],
    file: FileId,
    offset: u64,
) -> Result<(BlockHeader, usize), BlockError> {
    let (header, end) = BLOCK.unwrap::<BlockHeader>(bytes)?;
    let found = FileId { incarnation: header.incarnation, sequence: header.sequence };
    if found != file || header.offset != offset {
        return Err(BlockError::Misplaced { file: found, offset: header.offset });
    }
    let parts = [header.directory, header.body];
    if header.count == 0 || parts.iter().any(|p| p.plain > PART_BYTES_MAX || p.stored > p.plain) {
        return Err(BlockError::Frame(FrameError::Inconsistent));
    }
    Ok((header, end))
}

/// The records' headers, from a key directory as it is stored.
pub(crate) fn decode_directory(
    header: &BlockHeader,
    stored: &[u8],
) -> Result<Vec<RecordHeader>, BlockError> {
    let plain = decompress(header.directory, stored, "key directory")?;
    let columns =
        Columns::decode(plain).map_err(|_| BlockError::Frame(FrameError::Inconsistent))?;
    let first = Revision::new(header.first_main, header.first_sub);
    let headers = columns.into_headers(first, header.count as usize);
    let headers = headers.ok_or(BlockError::Frame(FrameError::Inconsistent))?;
    let length: u64 = headers.iter().map(|header| u64::from(header.length)).sum();
    if length != u64::from(header.body.plain) {
        return Err(BlockError::Frame(FrameError::Inconsistent));
    }
    Ok(headers)
}

/// The records' encodings, from a body as it is stored.
pub(crate) fn decode_body(header: &BlockHeader, stored: &[u8]) -> Result<Bytes, BlockError> {
    decompress(header.body, stored, "body")
}

fn compress(plain: &[u8]) -> (Part, Vec<u8>) {
    let length = u32::try_from(plain.len()).expect("parts are bounded");
    assert!(length <= PART_BYTES_MAX, "parts are bounded");
    let packed = lz4_flex::block::compress(plain);
    let stored = if packed.len() < plain.len() { packed } else { plain.to_vec() };
    let checksum = crc32c::crc32c(&stored);
    (Part { stored: stored.len() as u32, plain: length, checksum }, stored)
}

fn decompress(part: Part, stored: &[u8], name: &'static str) -> Result<Bytes, BlockError> {
    if stored.len() != part.stored as usize {
        return Err(BlockError::Frame(FrameError::Short));
    }
    let computed = crc32c::crc32c(stored);
    if computed != part.checksum {
        return Err(BlockError::Damaged { part: name, found: part.checksum, computed });
    }
    if part.stored == part.plain {
        return Ok(Bytes::copy_from_slice(stored));
    }
    let plain = lz4_flex::block::decompress(stored, part.plain as usize);
    let plain = plain.map_err(|_| BlockError::Frame(FrameError::Inconsistent))?;
    if plain.len() != part.plain as usize {
        return Err(BlockError::Frame(FrameError::Inconsistent));
    }
    Ok(Bytes::from(plain))
}

/// Why a block cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BlockError {
    /// Its header is not right.
    #[error("its header is wrong: {0}")]
    Frame(#[from] FrameError),
    /// It is a good block, in the wrong place.
    #[error("the block there belongs to file {file} at offset {offset}")]
    Misplaced {
        /// Whose block it is.
        file: FileId,
        /// Where it should be.
        offset: u64,
    },
    /// A part's checksum does not match.
    #[error("its {part}'s checksum is {found:08x}, and its bytes make {computed:08x}")]
    Damaged {
        /// Which part.
        part: &'static str,
        /// What the header says.
        found: u32,
        /// What the bytes make.
        computed: u32,
    },
}
