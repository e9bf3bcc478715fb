//! Readers that are in the way of a compaction: they are waited for, and not for ever.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use holdfast_store::command::*;
use holdfast_store::files::{Files, MemoryFiles};
use holdfast_store::*;

const KEYS: i64 = 1500;

/// A store with every key written twice: first in revision 2, then in revision 3.
fn store() -> Opened {
    let files = MemoryFiles::new();
    files.create_directory(Path::new("/data")).unwrap();
    let backend = BackendKind::Memory;
    let options = Options { files: Arc::new(files), backend, ..Options::new("/data") };
    let mut opened = open(options).unwrap();
    for index in 1..=2 {
        let put = |number| {
            let key = Bytes::from(format!("{number:04}"));
            let kind = OperationKind::Put(Put { key, value: "v".into(), ..Put::default() });
            Operation { kind: Some(kind) }
        };
        let success = (0..KEYS).map(put).collect();
        apply(&mut opened, index, Change::Txn(Txn { success, ..Txn::default() }));
    }
    opened
}

fn apply(opened: &mut Opened, index: u64, change: Change) {
    let position = Position { term: 1, index };
    let context = Context { position, level: LEVEL_CURRENT, respond: false };
    let command = Command::from(change);
    opened.state.apply(&context, &command).unwrap().result.unwrap();
    opened.state.finish_entry(position);
    opened.state.publish().unwrap();
}

fn settle(opened: &mut Opened) {
    while opened.maintainer.step(3).unwrap() == Worked::Something {}
}

fn old_stream(opened: &Opened) -> RangeStream {
    let (key, range_end) = (Bytes::from_static(b"0"), Bytes::from_static(b"\0"));
    opened.reader.stream(&Range { key, range_end, revision: 2, ..Range::default() }).unwrap()
}

fn next(stream: &mut RangeStream) -> Result<usize, ReadError> {
    let chunk = stream.next_chunk(1 << 20, 100, Effort::Blocking)?;
    Ok(chunk.map_or(0, |records| records.len()))
}

#[test]
fn a_compaction_waits_for_a_stream_at_an_older_revision() {
    let mut opened = store();
    let mut stream = old_stream(&opened);
    assert_eq!(next(&mut stream).unwrap(), 100);
    let whole = opened.reader.sizes().in_use_bytes;
    apply(&mut opened, 3, Change::Compact(Compact { revision: 3, ..Compact::default() }));
    assert_eq!(opened.reader.sizes().in_use_bytes, whole / 2);
    settle(&mut opened);
    let done = Arc::new(AtomicBool::new(false));
    let told = done.clone();
    opened.reader.when_compacted(3, Box::new(move || told.store(true, Ordering::Relaxed)));

    let mut read = 100;
    loop {
        match next(&mut stream).unwrap() {
            0 => break,
            count => read += count as i64,
        }
    }
    assert_eq!(read, KEYS);
    assert!(!done.load(Ordering::Relaxed), "the stream held its revision");
    drop(stream);
    let before = opened.reader.sizes().in_use_bytes;
    settle(&mut opened);
    assert!(done.load(Ordering::Relaxed));
    let after = opened.reader.sizes().in_use_bytes;
    assert_eq!(after, before, "what a compaction gives up is not counted from then on");
}

#[test]
fn the_hash_of_all_tells_what_is_refused_apart() {
    let mut opened = store();
    let mut hashes = vec![opened.reader.hash_all().unwrap()];
    let (kind, cause) = (AlarmKind::Corrupt as i32, AlarmCause::Check as i32);
    let changes = [
        Change::RaiseAlarm(RaiseAlarm { kind, member: 7, cause }),
        Change::SetQuota(SetQuota { bytes: 1 << 30, member: 7 }),
        Change::SetDowngrade(SetDowngrade { target: "3.6".into() }),
    ];
    for (index, change) in (3..).zip(changes) {
        apply(&mut opened, index, change);
        let hash = opened.reader.hash_all().unwrap();
        assert!(!hashes.contains(&hash), "the change of entry {index} shows");
        hashes.push(hash);
    }
}

#[test]
fn a_stream_that_takes_too_long_ends_with_compacted() {
    let mut opened = store();
    opened.reader.tick(1_000);
    let mut stream = old_stream(&opened);
    assert_eq!(next(&mut stream).unwrap(), 100);
    apply(&mut opened, 3, Change::Compact(Compact { revision: 3, ..Compact::default() }));
    opened.reader.tick(61_001);
    settle(&mut opened);
    let refused = next(&mut stream).unwrap_err();
    assert!(matches!(refused, ReadError::Rejected(Rejected::Compacted)), "{refused}");
}
