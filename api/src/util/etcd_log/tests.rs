//! Logs as etcd writes them, cut, overwritten and rotten.

use super::*;

/// The last entry of the database.
const AFTER: u64 = 7;

struct Log {
    bytes: Vec<u8>,
    checksum: u32,
}

impl Log {
    fn new(checksum: u32) -> Self {
        Self { bytes: Vec::new(), checksum: 0 }.put(CHECKSUM, checksum, Vec::new())
    }

    fn record(self, kind: i64, data: Vec<u8>) -> Self {
        let checksum = crc32c::crc32c_append(self.checksum, &data);
        self.put(kind, checksum, data)
    }

    fn put(mut self, kind: i64, checksum: u32, data: Vec<u8>) -> Self {
        self.checksum = checksum;
        let bytes = Record { kind, checksum, data: data.into() }.encode_to_vec();
        let padding = (8 - bytes.len() % 8) % 8;
        let mark = if padding > 0 { (0x80 | padding as u64) << 56 } else { 0 };
        self.bytes.extend_from_slice(&(bytes.len() as u64 | mark).to_le_bytes());
        self.bytes.extend_from_slice(&bytes);
        self.bytes.resize(self.bytes.len() + padding, 0);
        self
    }

    fn entry(self, index: u64, data: &[u8]) -> Self {
        let data = Bytes::copy_from_slice(data);
        self.record(ENTRY, Entry { kind: 0, index, data }.encode_to_vec())
    }

    fn snapshot(self, index: u64) -> Self {
        self.record(SNAPSHOT, Snapshot { index }.encode_to_vec())
    }

    /// As etcd makes its files before it writes into them.
    fn with_zeros(mut self) -> Self {
        self.bytes.resize(self.bytes.len() + 4096, 0);
        self
    }
}

const PUT: &[u8] = &[0x22, 0];
const SET_VERSION: &[u8] = &[0xa2, 0x51, 0];

fn checked(files: &[(&str, &[u8])]) -> Result<(), LogError> {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).expect("written");
    }
    check(folder.path(), AFTER)
}

fn alone(log: &Log) -> Result<(), LogError> {
    checked(&[("0-0.wal", &log.bytes)])
}

/// A log that ends with the database.
fn even() -> Log {
    Log::new(0).snapshot(0).entry(6, PUT).entry(AFTER, PUT)
}

#[test]
fn what_changes_nothing_is_not_missed() {
    alone(&even().with_zeros()).expect("the database has all of it");
    alone(&even().entry(8, b"").entry(9, SET_VERSION)).expect("a leader's entry and a version");
}

#[test]
fn an_entry_that_nothing_calls_committed_may_have_been_acknowledged() {
    let refused = alone(&even().entry(8, b"").entry(9, PUT).with_zeros()).expect_err("ahead");
    assert!(matches!(refused, LogError::Ahead { after: 7, first: 9 }), "{refused}");
    let replaced = even().entry(8, PUT).entry(9, PUT).entry(8, b"");
    alone(&replaced).expect("a later leader's entry took their places");
}

#[test]
fn a_log_that_does_not_belong_to_the_database_is_refused() {
    let gap = Log::new(5).entry(9, b"");
    assert!(matches!(alone(&gap), Err(LogError::Gap { after: 7, first: 9 })));
    let empty = Log::new(5);
    let named = [("2-9.wal", &empty.bytes[..])];
    assert!(matches!(checked(&named), Err(LogError::Gap { after: 7, first: 9 })));
    let snapshot = even().snapshot(12);
    assert!(matches!(alone(&snapshot), Err(LogError::Replaced { index: 12, .. })));
    assert!(matches!(checked(&[]), Err(LogError::Absent(_))));
    let hole = even().entry(10, b"");
    assert!(matches!(alone(&hole), Err(LogError::Damaged { .. })));
}

#[test]
fn files_continue_each_other() {
    let first = even();
    let second = Log::new(first.checksum).entry(8, b"");
    let third = Log::new(second.checksum).entry(9, PUT);
    let all = [&first, &second, &third].map(|log| &log.bytes[..]);
    let named = |names: [&'static str; 3]| {
        checked(
            &names.into_iter().zip(all).filter(|(name, _)| !name.is_empty()).collect::<Vec<_>>(),
        )
    };
    let ahead = named(["0-0.wal", "1-8.wal", "2-9.wal"]);
    assert!(matches!(ahead, Err(LogError::Ahead { first: 9, .. })), "{ahead:?}");
    for names in [["0-0.wal", "", "2-9.wal"], ["0-0.wal", "", "1-8.wal"]] {
        assert!(matches!(named(names), Err(LogError::Damaged { .. })), "{names:?}");
    }
    let cut = &first.bytes[..first.bytes.len() - 1];
    let early = checked(&[("0-0.wal", cut), ("1-8.wal", &second.bytes)]);
    assert!(matches!(early, Err(LogError::Damaged { .. })), "{early:?}");
}

#[test]
fn a_torn_tail_ends_the_log() {
    let whole = even().entry(8, &[PUT, &[1; 3000]].concat());
    let before = even().bytes.len();
    for length in before..whole.bytes.len() {
        let cut = Log { bytes: whole.bytes[..length].to_vec(), checksum: 0 };
        alone(&cut).expect("the file ends within the record");
    }
    // Sectors of the last record that were never written.
    for sector in [1, 3, 5] {
        let mut torn = Log { bytes: whole.bytes.clone(), checksum: 0 }.with_zeros();
        torn.bytes[512 * sector..512 * (sector + 1)].fill(0);
        alone(&torn).expect("a sector is missing");
        let more = Log { bytes: torn.bytes, checksum: 0 }.entry(9, PUT);
        let refused = alone(&more).expect_err("something comes after it");
        assert!(matches!(refused, LogError::Damaged { .. }), "{refused}");
    }
}

/// Every record of these is needed, so no flipped bit may pass for an end.
#[test]
fn rot_is_not_a_torn_tail() {
    let whole = even().entry(8, b"").entry(9, PUT).with_zeros();
    let used = whole.bytes.len() - 4096;
    for at in 0..used {
        for bit in 0..8 {
            let mut rotten = Log { bytes: whole.bytes.clone(), checksum: 0 };
            rotten.bytes[at] ^= 1 << bit;
            let result = alone(&rotten);
            assert!(result.is_err(), "byte {at}, bit {bit}");
        }
    }
    let mut zeroed = Log { bytes: whole.bytes.clone(), checksum: 0 };
    zeroed.bytes[..16].fill(0);
    assert!(matches!(alone(&zeroed), Err(LogError::Damaged { .. })));
}
