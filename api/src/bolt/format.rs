//! The bytes of pages and of the two metas.

use super::reader::Source;

/// The page size of files that are written here; etcd's on most machines.
pub(super) const PAGE_BYTES: usize = 4096;
/// Page sizes that are read.
pub(super) const PAGE_BYTES_RANGE: std::ops::RangeInclusive<usize> = 1 << 10..=64 << 10;

pub(super) const PAGE_HEADER: usize = 16;
pub(super) const ELEMENT: usize = 16;
/// Root page and sequence: what a bucket's name stands for.
pub(super) const BUCKET_HEADER: usize = 16;

pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
pub(super) const META: u16 = 0x04;
pub(super) const FREE_LIST: u16 = 0x10;

/// Marks a leaf's element as a bucket.
pub(super) const BUCKET_ELEMENT: u32 = 0x01;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const META_BYTES: usize = 64;
const CHECKSUM_AT: usize = 56;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum BoltError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// Nothing in it looks like the head of a database.
    #[error("is not a bbolt database: {0}")]
    Foreign(&'static str),
    /// Another version of the format.
    #[error("has version {0} of the bbolt format, and only version {VERSION} is known")]
    Version(u32),
    /// The file ends before the database does.
    #[error("is cut short: it has {found} of at least {needed} bytes")]
    Short {
        /// The bytes there are.
        found: u64,
        /// The bytes that its head promises.
        needed: u64,
    },
    /// A page makes no sense.
    #[error("is damaged: page {page}: {reason}")]
    Page {
        /// Which page.
        page: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// The head of a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageHeader {
    pub(super) id: u64,
    pub(super) flags: u16,
    pub(super) count: u16,
    /// How many pages follow that belong to it.
    pub(super) overflow: u32,
}

impl PageHeader {
    pub(super) fn encode(&self) -> [u8; PAGE_HEADER] {
        let mut bytes = [0; PAGE_HEADER];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..].copy_from_slice(&self.overflow.to_le_bytes());
        bytes
    }

    /// `bytes` holds a header.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        Self {
            id: u64_at(bytes, 0),
            flags: u16_at(bytes, 8),
            count: u16_at(bytes, 10),
            overflow: u32_at(bytes, 12),
        }
    }
}

/// What a database says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) page_bytes: usize,
    pub(super) root: u64,
    pub(super) free_list: u64,
    /// The first page that is not part of the database.
    pub(super) end: u64,
    pub(super) txid: u64,
}

impl Meta {
    /// The page, as far as it is not zeros.
    pub(super) fn encode(&self, page: u64) -> Vec<u8> {
        let header = PageHeader { id: page, flags: META, count: 0, overflow: 0 };
        let mut meta = Vec::with_capacity(META_BYTES);
        for number in [MAGIC, VERSION, self.page_bytes as u32, 0] {
            meta.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.root, 0, self.free_list, self.end, self.txid] {
            meta.extend_from_slice(&number.to_le_bytes());
        }
        meta.extend_from_slice(&checksum(&meta).to_le_bytes());
        [&header.encode()[..], &meta].concat()
    }

    /// The newer of the two metas that is whole.
    pub(super) fn find(file: &impl Source) -> Result<Self, BoltError> {
        let first = Self::read(file, 0);
        let second = match &first {
            Ok(meta) => Self::read(file, meta.page_bytes as u64),
            Err(_) => Self::look_for_second(file),
        };
        match (first, second) {
            (Ok(first), Ok(second)) if second.txid > first.txid => Ok(second),
            (Ok(first), _) => Ok(first),
            (Err(_), Ok(second)) => Ok(second),
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// Where the second one lies is not known without the first.
    fn look_for_second(file: &impl Source) -> Result<Self, BoltError> {
        let mut offset = *PAGE_BYTES_RANGE.start();
        while PAGE_BYTES_RANGE.contains(&offset) {
            if let Ok(meta) = Self::read(file, offset as u64)
                && meta.page_bytes == offset
            {
                return Ok(meta);
            }
            offset *= 2;
        }
        Err(BoltError::Foreign("neither of its two heads is whole"))
    }

    fn read(file: &impl Source, offset: u64) -> Result<Self, BoltError> {
        let needed = offset + (PAGE_HEADER + META_BYTES) as u64;
        let found = file.length()?;
        if found < needed {
            return Err(BoltError::Short { found, needed });
        }
        let mut bytes = [0; PAGE_HEADER + META_BYTES];
        file.read_exact_at(&mut bytes, offset)?;
        Self::decode(&bytes[PAGE_HEADER..])
    }

    fn decode(meta: &[u8]) -> Result<Self, BoltError> {
        if u32_at(meta, 0) != MAGIC {
            return Err(BoltError::Foreign("it does not begin as one"));
        }
        if u32_at(meta, 4) != VERSION {
            return Err(BoltError::Version(u32_at(meta, 4)));
        }
        if checksum(&meta[..CHECKSUM_AT]) != u64_at(meta, CHECKSUM_AT) {
            return Err(BoltError::Foreign("the checksum of its head is wrong"));
        }
        let page_bytes = u32_at(meta, 8) as usize;
        if !page_bytes.is_power_of_two() || !PAGE_BYTES_RANGE.contains(&page_bytes) {
            return Err(BoltError::Foreign("its page size makes no sense"));
        }
        Ok(Self {
            page_bytes,
            root: u64_at(meta, 16),
            free_list: u64_at(meta, 32),
            end: u64_at(meta, 40),
            txid: u64_at(meta, 48),
        })
    }
}

/// FNV-1a with 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
