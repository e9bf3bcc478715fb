//! A log written by format 1 is kept beside this file and must replay to the same content for as
//! long as format 1 is read, and be written byte for byte the same while it is written.
//!
//! `WRITE_WAL_FIXTURE=1 cargo test -p holdfast-raft wal::tests::fixture` writes it anew.

use std::fmt::Write;
use std::path::PathBuf;

use sha1::{Digest, Sha1};

use super::super::format::{self, FRAME, Magic, Place};
use super::*;

/// SHA-1 over what [`replayed`] prints.
const HASH: &str = "5947136565c5f6d07e84325392fb316e4e3eb0b3";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wal-format-1")
}

/// Every kind of record, three segments, a clean end.
fn write() -> MemoryFiles {
    let mut log = Harness::open(&MemoryFiles::new(1)).unwrap();
    log.vote(1);
    log.step();
    log.vote(2);
    log.append([entry(2, 0, 1), entry(2, 1, 0), entry(2, 2, 300)]);
    log.step();
    for index in 3..9 {
        log.append([entry(2, index, 64 * index as usize)]);
        log.wal.save_committed(id(2, index - 2)).unwrap();
        log.step();
    }
    log.vote(5);
    log.wal.truncate_after(Some(id(2, 7))).unwrap();
    log.append([entry(5, 8, 700), entry(5, 9, 900)]);
    log.step();
    log.wal.purge(id(2, 1)).unwrap();
    log.append([entry(5, 10, 1200)]);
    log.wal.save_committed(id(5, 8)).unwrap();
    log.step();
    log.idle();
    log.files.copy()
}

fn load() -> MemoryFiles {
    let files = MemoryFiles::new(1);
    for file in std::fs::read_dir(folder()).unwrap() {
        let file = file.unwrap();
        let path = Path::new(DIRECTORY).join(file.file_name());
        files.set_content(&path, std::fs::read(file.path()).unwrap());
    }
    files
}

/// All that a log says about itself, as text.
fn replayed(files: &MemoryFiles) -> String {
    let opened = open_on(files).unwrap();
    assert!(opened.torn.is_none(), "{:?}", opened.torn);
    let mut text = String::new();
    let State { vote, committed, purged, first, last } = opened.wal.state();
    writeln!(text, "{vote:?} {committed:?} {purged:?} {first:?} {last:?}").unwrap();
    for entry in opened.wal.entries(0, u64::MAX).unwrap() {
        let LogId { term, index } = entry.id;
        let payload = hash(&entry.payload);
        writeln!(text, "{term} {index} {:?} {payload}", entry.kind).unwrap();
    }
    text
}

fn hash(bytes: &[u8]) -> String {
    Sha1::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn format_1_replays_to_its_recorded_hash() {
    if std::env::var_os("WRITE_WAL_FIXTURE").is_some() {
        std::fs::create_dir_all(folder()).unwrap();
        let files = write();
        for path in files.paths() {
            std::fs::write(folder().join(path.file_name().unwrap()), files.content(&path)).unwrap();
        }
    }
    let text = replayed(&load());
    assert_eq!(hash(text.as_bytes()), HASH, "{text}");
}

#[test]
fn format_1_is_written_as_before() {
    let (written, kept) = (write(), load());
    assert_eq!(written.paths(), kept.paths());
    for path in written.paths() {
        assert!(written.content(&path) == kept.content(&path), "{}", path.display());
    }
}

#[test]
fn a_newer_format_is_refused_by_name_and_number() {
    let files = load();
    let path = files.paths().pop().unwrap();
    let segment = files.paths().len() as u64;
    let mut content = files.content(&path);
    content[FRAME] = 2;
    let length = FRAME + format::claimed_length(&content, Magic::Segment).unwrap();
    let back_link = u32::from_le_bytes(content[8..12].try_into().unwrap());
    let place = Place { segment, offset: 0 };
    format::seal(&mut content[..length], Magic::Segment, place, back_link);
    files.set_content(&path, content);
    let Err(error) = open_on(&files) else { panic!("a newer format was opened") };
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    assert!(text.contains("has WAL format 2, this release reads formats 1 to 1"), "{text}");
}
