//! What is read while a delete of many keys is carried out: at its revision the state after it, at
//! older ones what it always was, and everything that is not a read of keys waits for its end.

// It knows more than this suite asks for.
#[allow(dead_code)]
mod naive;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_store::command::*;
use holdfast_store::files::{Files, MemoryFiles};
use holdfast_store::*;
use naive::Naive;
use proptest::collection::vec;
use proptest::prelude::*;

const KEYS: u16 = 2400;

struct Pair {
    opened: Opened,
    naive: Naive,
    index: u64,
}

impl Pair {
    fn new() -> Self {
        let files = MemoryFiles::new();
        files.create_directory(Path::new("/data")).unwrap();
        let backend = BackendKind::Memory;
        let options = Options { files: Arc::new(files), backend, ..Options::new("/data") };
        Self { opened: open(options).unwrap(), naive: Naive::new(), index: 0 }
    }

    fn apply(&mut self, change: Change) {
        self.apply_last(change, &mut |_, _| panic!("not long"));
    }

    /// Applies a change as the last of its entry; `meanwhile` sees the model after it.
    fn apply_last(&mut self, change: Change, meanwhile: &mut dyn FnMut(&Reader, &Naive)) {
        self.index += 1;
        let position = Position { term: 7, index: self.index };
        let context = Context { position, level: LEVEL_CURRENT, respond: true };
        let command = Command::from(change);
        let expected = self.naive.apply(7, &command);
        let (naive, reader) = (&self.naive, &self.opened.reader);
        let mut meanwhile = || meanwhile(reader, naive);
        let outcome = self.opened.state.apply_last(&context, &command, &mut meanwhile).unwrap();
        assert_eq!(outcome.result, expected);
        assert_eq!(outcome.revision, naive.revision());
        self.opened.state.finish_entry(position);
        self.opened.state.publish().unwrap();
        assert_eq!(reader.visible(), reader.revision());
        assert_eq!(reader.revision(), naive.revision());
    }

    fn fill(&mut self, start: u16, step: u16) {
        let put = |number| {
            let put = Put { key: key(number), value: value(number), ..Put::default() };
            Operation { kind: Some(OperationKind::Put(put)) }
        };
        let success = (start..KEYS).step_by(step.into()).map(put).collect();
        self.apply(Change::Txn(Txn { success, ..Txn::default() }));
    }
}

fn key(number: u16) -> Bytes {
    format!("{number:04}").into()
}

fn value(number: u16) -> Bytes {
    vec![b'v'; usize::from(number % 7)].into()
}

fn delete(from: u16, range_end: Bytes) -> Change {
    Change::DeleteRange(DeleteRange { key: key(from), range_end, prev_kv: true })
}

fn check_range(reader: &Reader, naive: &Naive, range: &Range) {
    let expected = naive.range(range);
    for effort in [Effort::Blocking, Effort::Inline] {
        match (reader.range(range, effort), &expected) {
            (Ok((revision, result)), Ok(expected)) => {
                assert_eq!(revision, naive.revision());
                assert_eq!(&result, expected, "{range:?}");
            }
            (Err(ReadError::Rejected(rejected)), Err(expected)) => assert_eq!(&rejected, expected),
            (Err(ReadError::WouldBlock), _) if effort == Effort::Inline => {}
            (other, expected) => panic!("{range:?}: {other:?} instead of {expected:?}"),
        }
    }
    if let Ok(expected) = &expected {
        check_stream(reader.stream(range).unwrap(), expected, naive.revision());
    }
}

fn check_stream(mut stream: RangeStream, expected: &RangeResult, revision: i64) {
    assert_eq!((stream.count(), stream.more()), (expected.count, expected.more));
    assert_eq!(stream.revision(), revision);
    let mut records = Vec::new();
    while let Some(chunk) = stream.next_chunk(1 << 14, 200, Effort::Blocking).unwrap() {
        records.extend(chunk);
    }
    assert_eq!(records, expected.records);
}

fn check_get(reader: &Reader, naive: &Naive, key: Bytes) {
    let (revision, found) = reader.get(&key, Effort::Inline).unwrap();
    assert_eq!(revision, naive.revision());
    let expected = naive.range(&Range { key, ..Range::default() }).unwrap();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected.records);
}

fn number() -> impl Strategy<Value = u16> {
    0..KEYS
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        1 => Just(Bytes::new()),
        2 => Just(Bytes::from_static(b"\0")),
        5 => number().prop_map(key),
    ]
}

prop_compose! {
    fn range()(
        from in number(), range_end in range_end(), limit in prop_oneof![Just(0i64), 0i64..700],
        revision in 0i64..10, sort_order in 0..3, sort_target in 0..5, keys_only: bool,
        count in 0..3, min_mod_revision in prop_oneof![3 => Just(0i64), 1 => 1i64..9],
    ) -> Range {
        Range {
            key: key(from), range_end, limit, revision, sort_order, sort_target, keys_only,
            count_only: count == 0, min_mod_revision, ..Range::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn in_the_middle_of_a_delete_its_result_is_read(
        fills in vec((0u16..300, 1u16..4), 1..4),
        holes in vec((number(), number()), 0..2),
        victims in (0u16..900, prop_oneof![Just(Bytes::from_static(b"\0")), (1500..KEYS).prop_map(key)]),
        ranges in vec(range(), 6),
        keys in vec(number(), 20),
    ) {
        let mut pair = Pair::new();
        for (start, step) in fills {
            pair.fill(start, step);
        }
        for (from, to) in holes {
            pair.apply_last(delete(from, key(to)), &mut |_, _| {});
        }
        let before = pair.naive.revision();
        pair.apply_last(delete(victims.0, victims.1), &mut |reader, naive| {
            assert_eq!((reader.revision(), reader.visible()), (before, before + 1));
            for range in &ranges {
                check_range(reader, naive, range);
            }
            for number in &keys {
                check_get(reader, naive, key(*number));
            }
        });
        for range in &ranges {
            check_range(&pair.opened.reader, &pair.naive, range);
        }
    }
}

#[test]
fn every_slice_gives_readers_a_chance_and_hashes_stay_with_what_is_published() {
    let mut pair = Pair::new();
    pair.fill(0, 1);
    let before = pair.naive.revision();
    let mut chances = 0;
    let everything = Range { key: key(0), range_end: "\0".into(), ..Range::default() };
    pair.apply_last(delete(100, key(2300)), &mut |reader, naive| {
        chances += 1;
        assert_eq!((reader.revision(), reader.visible()), (before, before + 1));
        check_range(reader, naive, &everything);
        check_range(reader, naive, &Range { revision: before, ..everything.clone() });
        check_range(reader, naive, &Range { revision: before + 1, ..everything.clone() });
        check_range(reader, naive, &Range { revision: before + 2, ..everything.clone() });
        let hash = reader.hash_kv(0).unwrap();
        assert_eq!((hash.hash_revision, hash.current_revision), (before, before));
        assert_eq!(hash.hash, naive.hash_kv(before));
        let unpublished = reader.hash_kv(before + 1).unwrap_err();
        assert!(matches!(unpublished, ReadError::Rejected(Rejected::FutureRevision)));
    });
    assert!(chances >= 2, "{chances} chances");
    assert_eq!(pair.opened.reader.hash_kv(0).unwrap().hash, pair.naive.hash_kv(before + 1));
}

#[test]
fn a_delete_that_something_follows_in_its_entry_shows_nothing_early() {
    let mut pair = Pair::new();
    pair.fill(0, 1);
    let before = pair.naive.revision();
    let context = Context {
        position: Position { term: 7, index: pair.index + 1 },
        level: LEVEL_CURRENT,
        respond: true,
    };
    let command = Command::from(delete(0, Bytes::from_static(b"\0")));
    let outcome = pair.opened.state.apply(&context, &command).unwrap();
    assert_eq!(outcome.revision, before + 1);
    let reader = &pair.opened.reader;
    assert_eq!((reader.revision(), reader.visible()), (before, before));
    let (revision, found) = reader.get(&key(5), Effort::Inline).unwrap();
    assert_eq!((revision, found.is_some()), (before, true));
}
