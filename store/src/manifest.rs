//! Manifests: what a checkpoint consists of.
//!
//! ```text
//! frame "HFMF" { position, membership, revision, tables, files: [id, length, crc32c],
//!                blocks: in revision order, [file, offset, length, first revision], dead records }
//! ```
//!
//! A manifest is the only authority on which blocks exist and which of their records are dead: a
//! record that compaction gave up stays given up, even if what superseded it is physically gone.
//! It holds about ten bytes a block and one bit for each record of a block that has dead ones.
//! Where manifests lie, and what makes them durable, is in `folder.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::blocks::{BLOCK_BYTES_MIN, Extent, FileId};
use crate::frame::{FrameError, Kind};
use crate::{Position, Revision};

pub(crate) mod folder;

/// The frame of a manifest.
pub(crate) const MANIFEST: Kind = Kind { magic: *b"HFMF", format: 1, length_max: 1 << 30 };

/// The replicated state at the end of one entry, without its records: what a manifest is taken of.
#[derive(Clone, Debug, Default)]
pub struct Frozen {
    /// The last entry it contains.
    pub position: Position,
    /// Where the membership in force was decided.
    pub membership_position: Position,
    /// That membership; its bytes mean nothing here.
    pub membership: Bytes,
    /// The store revision.
    pub revision: i64,
    /// The compacted revision; -1 for none.
    pub compacted: i64,
    /// The small tables, encoded; their bytes mean nothing here.
    pub tables: Bytes,
}

/// A verified manifest, by what others need to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestInfo {
    /// The last entry it contains.
    pub position: Position,
    /// Where the membership in force was decided.
    pub membership_position: Position,
    /// That membership.
    pub membership: Bytes,
    /// The store revision.
    pub revision: i64,
    /// Its file's name within `snap/`.
    pub name: String,
    /// The incarnation of the data directory it was taken in; 0 when it was received from a peer.
    pub taken_in: u64,
}

/// A manifest, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) info: ManifestInfo,
    pub(crate) tables: Bytes,
    /// No file of this member's incarnation with this sequence number or a higher one has existed.
    pub(crate) next_sequence: u64,
    pub(crate) files: Vec<(FileId, Extent)>,
    pub(crate) blocks: Vec<ManifestBlock>,
}

/// One block of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestBlock {
    pub(crate) file: FileId,
    pub(crate) offset: u64,
    pub(crate) length: u32,
    pub(crate) first: Revision,
    /// One bit for each slot; empty when nothing is dead.
    pub(crate) dead: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
    #[prost(uint64, tag = "3")]
    membership_term: u64,
    #[prost(uint64, tag = "4")]
    membership_index: u64,
    #[prost(bytes = "bytes", tag = "5")]
    membership: Bytes,
    #[prost(int64, tag = "6")]
    revision: i64,
    #[prost(bytes = "bytes", tag = "7")]
    tables: Bytes,
    #[prost(uint64, tag = "8")]
    next_sequence: u64,
    #[prost(message, repeated, tag = "9")]
    files: Vec<FileMessage>,
    #[prost(message, required, tag = "10")]
    blocks: BlockColumns,
    #[prost(fixed32, tag = "11")]
    digest: u32,
    #[prost(fixed64, tag = "12")]
    taken_in: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FileMessage {
    #[prost(fixed64, tag = "1")]
    incarnation: u64,
    #[prost(uint64, tag = "2")]
    sequence: u64,
    #[prost(uint64, tag = "3")]
    length: u64,
    #[prost(fixed32, tag = "4")]
    checksum: u32,
}

/// A column for each fact; `dead_blocks` and `dead_bits` name only blocks that have dead records.
#[derive(Clone, PartialEq, prost::Message)]
struct BlockColumns {
    /// Index into the files.
    #[prost(uint32, repeated, tag = "1")]
    files: Vec<u32>,
    #[prost(uint64, repeated, tag = "2")]
    offsets: Vec<u64>,
    #[prost(uint32, repeated, tag = "3")]
    lengths: Vec<u32>,
    /// First main revision, less that of the block before.
    #[prost(uint64, repeated, tag = "4")]
    mains: Vec<u64>,
    #[prost(uint32, repeated, tag = "5")]
    subs: Vec<u32>,
    #[prost(uint32, repeated, tag = "6")]
    dead_blocks: Vec<u32>,
    #[prost(bytes = "bytes", repeated, tag = "7")]
    dead_bits: Vec<Bytes>,
}

impl ManifestInfo {
    /// The name of a manifest at a position: names sort as positions do.
    pub(crate) fn name_at(position: Position) -> String {
        format!("{:016x}-{:016x}.manifest", position.index, position.term)
    }

    /// The position that a name stands for.
    pub(crate) fn position_of(name: &str) -> Option<Position> {
        let (index, term) = name.strip_suffix(".manifest")?.split_once('-')?;
        let index = u64::from_str_radix(index, 16).ok()?;
        let term = u64::from_str_radix(term, 16).ok()?;
        let position = Position { term, index };
        (Self::name_at(position) == name).then_some(position)
    }
}

impl Manifest {
    /// The bytes of the manifest's file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let file = |(id, extent): &(FileId, Extent)| FileMessage {
            incarnation: id.incarnation,
            sequence: id.sequence,
            length: extent.length,
            checksum: extent.checksum,
        };
        MANIFEST.wrap(&Message {
            term: self.info.position.term,
            index: self.info.position.index,
            membership_term: self.info.membership_position.term,
            membership_index: self.info.membership_position.index,
            membership: self.info.membership.clone(),
            revision: self.info.revision,
            tables: self.tables.clone(),
            next_sequence: self.next_sequence,
            files: self.files.iter().map(file).collect(),
            blocks: self.columns(),
            digest: self.digest(),
            taken_in: self.info.taken_in,
        })
    }

    /// Takes a manifest's file apart and checks that it makes sense.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let (message, length) = MANIFEST.unwrap::<Message>(bytes)?;
        if length != bytes.len() {
            return Err(FrameError::Inconsistent);
        }
        let digest = message.digest;
        let manifest = Self::of(message).ok_or(FrameError::Inconsistent)?;
        if manifest.digest() != digest {
            return Err(FrameError::Inconsistent);
        }
        Ok(manifest)
    }

    /// A checksum over which blocks there are: what the block directory is compared by.
    pub(crate) fn digest(&self) -> u32 {
        self.blocks.iter().fold(0, |digest, block| {
            let mut facts = [0; 44];
            facts[..8].copy_from_slice(&block.first.main.to_le_bytes());
            facts[8..16].copy_from_slice(&block.first.sub.to_le_bytes());
            facts[16..24].copy_from_slice(&block.file.incarnation.to_le_bytes());
            facts[24..32].copy_from_slice(&block.file.sequence.to_le_bytes());
            facts[32..40].copy_from_slice(&block.offset.to_le_bytes());
            facts[40..].copy_from_slice(&block.length.to_le_bytes());
            crc32c::crc32c_append(digest, &facts)
        })
    }

    fn columns(&self) -> BlockColumns {
        let mut columns = BlockColumns::default();
        let mut before = 0;
        let places: BTreeMap<_, _> =
            self.files.iter().enumerate().map(|(at, (id, _))| (*id, at as u32)).collect();
        for (at, block) in self.blocks.iter().enumerate() {
            let file = places.get(&block.file);
            columns.files.push(*file.expect("a block's file is in the manifest"));
            columns.offsets.push(block.offset);
            columns.lengths.push(block.length);
            columns.mains.push((block.first.main - before) as u64);
            columns.subs.push(u32::try_from(block.first.sub).expect("bounded by a request"));
            before = block.first.main;
            if !block.dead.is_empty() {
                columns.dead_blocks.push(at as u32);
                columns.dead_bits.push(block.dead.clone());
            }
        }
        columns
    }

    fn of(message: Message) -> Option<Self> {
        let position = Position { term: message.term, index: message.index };
        let membership_position =
            Position { term: message.membership_term, index: message.membership_index };
        let info = ManifestInfo {
            position,
            membership_position,
            membership: message.membership,
            revision: message.revision,
            name: ManifestInfo::name_at(position),
            taken_in: message.taken_in,
        };
        let files = message.files.iter().map(|file| {
            let id = FileId { incarnation: file.incarnation, sequence: file.sequence };
            (id, Extent { length: file.length, checksum: file.checksum })
        });
        let files: Vec<_> = files.collect();
        let blocks = blocks_of(message.blocks, &files)?;
        let (tables, next_sequence) = (message.tables, message.next_sequence);
        Some(Self { info, tables, next_sequence, files, blocks })
    }
}

fn blocks_of(columns: BlockColumns, files: &[(FileId, Extent)]) -> Option<Vec<ManifestBlock>> {
    let count = columns.files.len();
    let others = [columns.offsets.len(), columns.lengths.len(), columns.mains.len()];
    if others.iter().any(|length| *length != count) || columns.subs.len() != count {
        return None;
    }
    if columns.dead_blocks.len() != columns.dead_bits.len() {
        return None;
    }
    let mut dead = columns.dead_blocks.into_iter().zip(columns.dead_bits).peekable();
    let mut main = 0i64;
    let mut blocks: Vec<ManifestBlock> = Vec::with_capacity(count);
    for at in 0..count {
        main = main.checked_add_unsigned(columns.mains[at])?;
        let first = Revision::new(main, i64::from(columns.subs[at]));
        let (file, extent) = *files.get(columns.files[at] as usize)?;
        let (offset, length) = (columns.offsets[at], columns.lengths[at]);
        let end = offset.checked_add(u64::from(length))?;
        let ordered = blocks.last().is_none_or(|before| before.first < first);
        if end > extent.length || length < BLOCK_BYTES_MIN || !ordered {
            return None;
        }
        let marks = dead.next_if(|(block, _)| *block as usize == at);
        let dead = marks.map(|(_, bits)| bits).unwrap_or_default();
        blocks.push(ManifestBlock { file, offset, length, first, dead });
    }
    dead.peek().is_none().then_some(blocks)
}
