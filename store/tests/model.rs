//! The store against a naive history, over random commands.
//!
//! After every command: the same outcome; every so often: the same ranges (whole, streamed and
//! inline), leases and hashes at every readable revision, whatever has been physically removed;
//! then a manifest, a restart from it, and everything once more.

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

const DIRECTORY: &str = "/data";

fn options(files: &MemoryFiles) -> Options {
    Options {
        files: Arc::new(files.clone()),
        backend: BackendKind::Memory,
        block_bytes: 300,
        block_file_bytes: 4000,
        block_cache_bytes: 1500,
        ..Options::new(DIRECTORY)
    }
}

struct Store {
    files: MemoryFiles,
    opened: Opened,
    index: u64,
}

impl Store {
    fn new() -> Self {
        let files = MemoryFiles::new();
        files.create_directory(Path::new(DIRECTORY)).unwrap();
        Self { opened: open(options(&files)).unwrap(), files, index: 0 }
    }

    fn apply(&mut self, command: &Command, respond: bool) -> Outcome {
        self.index += 1;
        let position = Position { term: 7, index: self.index };
        let context = Context { position, level: LEVEL_CURRENT, respond };
        let outcome = self.opened.state.apply(&context, command).unwrap();
        self.opened.state.finish_entry(position);
        self.opened.state.publish().unwrap();
        outcome
    }

    fn settle(&mut self) {
        while self.opened.maintainer.step(self.index).unwrap() == Worked::Something {}
    }

    fn restart(&mut self) {
        let frozen = self.opened.state.freeze();
        match self.opened.maintainer.take_manifest(frozen, self.index).unwrap() {
            Taken::Manifest(info) => assert_eq!(info.position.index, self.index),
            Taken::Stale => {
                // There is one for this very position.
                let newest = self.opened.maintainer.manifests().pop().unwrap();
                assert_eq!(newest.position.index, self.index);
            }
            other => panic!("{other:?}"),
        }
        self.opened = open(options(&self.files)).unwrap();
        assert_eq!(self.opened.state.applied().index, self.index);
    }

    fn check(&self, naive: &Naive) {
        let reader = &self.opened.reader;
        assert_eq!(reader.revision(), naive.revision());
        assert_eq!(reader.compacted(), naive.compacted);
        let leases: Vec<_> =
            reader.leases().iter().map(|l| (l.id, (l.ttl, l.remaining_ttl))).collect();
        assert_eq!(leases, naive.leases.clone().into_iter().collect::<Vec<_>>());
        assert_eq!(reader.sizes().in_use_bytes, naive.in_use());
        let alarms: Vec<_> = reader.alarms().iter().map(|a| (a.kind as i32, a.member)).collect();
        assert_eq!(alarms, naive.alarms());
        for id in naive.leases.keys() {
            assert_eq!(reader.lease_keys(*id), naive.lease_keys(*id));
        }
        let everything =
            Range { key: key(0), range_end: Bytes::from_static(b"\0"), ..Range::default() };
        for revision in naive.compacted.max(1)..=naive.revision() {
            let range = Range { revision, ..everything.clone() };
            self.check_range(naive, &range);
            let hash = reader.hash_kv(revision).unwrap();
            assert_eq!(hash.hash, naive.hash_kv(revision), "at {revision}");
            assert_eq!(hash.compact_revision, naive.compacted);
        }
    }

    fn check_range(&self, naive: &Naive, range: &Range) {
        let reader = &self.opened.reader;
        let expected = naive.range(range);
        match (reader.range(range, Effort::Blocking), &expected) {
            (Ok((current, result)), Ok(expected)) => {
                assert_eq!(current, naive.revision());
                assert_eq!(&result, expected, "{range:?}");
            }
            (Err(ReadError::Rejected(rejected)), Err(expected)) => assert_eq!(&rejected, expected),
            (other, expected) => panic!("{range:?}: {other:?} instead of {expected:?}"),
        }
        match reader.range(range, Effort::Inline) {
            Ok((_, result)) => assert_eq!(Ok(&result), expected.as_ref()),
            Err(ReadError::WouldBlock) => {}
            Err(ReadError::Rejected(rejected)) => assert_eq!(Err(&rejected), expected.as_ref()),
            Err(error) => panic!("{error}"),
        }
        if let Ok(expected) = &expected {
            check_stream(reader.stream(range).unwrap(), expected);
        }
    }
}

fn check_stream(mut stream: RangeStream, expected: &RangeResult) {
    assert_eq!((stream.count(), stream.more()), (expected.count, expected.more));
    let length: usize = expected.records.iter().map(Bytes::len).sum();
    assert_eq!(stream.record_bytes(), length as u64);
    let mut records = Vec::new();
    while let Some(chunk) = stream.next_chunk(60, 3, Effort::Blocking).unwrap() {
        assert!(!chunk.is_empty() && chunk.len() <= 3);
        records.extend(chunk);
    }
    assert_eq!(records, expected.records);
}

fn key(number: u8) -> Bytes {
    Bytes::from(vec![b'a' + number])
}

fn any_key() -> impl Strategy<Value = Bytes> {
    (0u8..8).prop_map(key)
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        3 => Just(Bytes::new()),
        1 => Just(Bytes::from_static(b"\0")),
        3 => any_key(),
    ]
}

fn lease() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0i64), 2 => 1i64..4]
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just(Bytes::new()),
        Just(Bytes::from_static(b"one")),
        Just(Bytes::from_static(b"two")),
        (1usize..200).prop_map(|length| Bytes::from(vec![b'v'; length])),
    ]
}

prop_compose! {
    fn put()(key in any_key(), value in value(), lease in lease(), prev_kv: bool, flags in 0..8) -> Put {
        let (ignore_value, ignore_lease) = (flags == 1 || flags == 3, flags == 2 || flags == 3);
        let value = if ignore_value { Bytes::new() } else { value };
        let lease = if ignore_lease { 0 } else { lease };
        Put { key, value, lease, prev_kv, ignore_value, ignore_lease }
    }
}

prop_compose! {
    fn delete()(key in any_key(), range_end in range_end(), prev_kv: bool) -> DeleteRange {
        DeleteRange { key, range_end, prev_kv }
    }
}

fn bound() -> impl Strategy<Value = i64> {
    prop_oneof![8 => Just(0i64), 1 => 1i64..40]
}

prop_compose! {
    fn range(revisions: BoxedStrategy<i64>)(
        key in any_key(), range_end in range_end(), limit in -1i64..5, revision in revisions,
        sort_order in 0..3, sort_target in 0..5, keys_only: bool, count in 0..6,
        bounds in proptest::array::uniform4(bound()),
    ) -> Range {
        let [min_mod_revision, max_mod_revision, min_create_revision, max_create_revision] = bounds;
        Range {
            key, range_end, limit, revision, sort_order, sort_target, keys_only,
            count_only: count == 0, min_mod_revision, max_mod_revision, min_create_revision,
            max_create_revision,
        }
    }
}

prop_compose! {
    fn compare()(
        result in 0..5, key in any_key(), range_end in range_end(), target in 0..5,
        number in prop_oneof![0i64..4, 0i64..40], value in value(),
    ) -> Compare {
        let target = Some(match target {
            0 => CompareTarget::Version(number),
            1 => CompareTarget::CreateRevision(number),
            2 => CompareTarget::ModRevision(number),
            3 => CompareTarget::Value(value),
            _ => CompareTarget::Lease(number),
        });
        Compare { result, key, range_end, target }
    }
}

fn operation(kind: OperationKind) -> Operation {
    Operation { kind: Some(kind) }
}

fn simple_operation() -> BoxedStrategy<Operation> {
    let revisions = prop_oneof![6 => Just(0i64), 1 => -1i64..30].boxed();
    prop_oneof![
        put().prop_map(|put| operation(OperationKind::Put(put))),
        delete().prop_map(|delete| operation(OperationKind::DeleteRange(delete))),
        range(revisions).prop_map(|range| operation(OperationKind::Range(range))),
    ]
    .boxed()
}

fn txn_of(operations: BoxedStrategy<Operation>) -> BoxedStrategy<Txn> {
    let branch = || vec(operations.clone(), 0..4);
    (vec(compare(), 0..3), branch(), branch())
        .prop_map(|(compare, success, failure)| Txn { compare, success, failure })
        .boxed()
}

fn txn() -> BoxedStrategy<Txn> {
    let nested = txn_of(simple_operation()).prop_map(|txn| operation(OperationKind::Txn(txn)));
    txn_of(prop_oneof![4 => simple_operation(), 1 => nested].boxed())
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Change),
    /// Physical removal and block writing, on the store that is in focus.
    Settle,
    Read(Range),
    Restart,
}

/// Alarms are cleared more often than raised, so that something is written in between.
fn limit() -> impl Strategy<Value = Change> {
    prop_oneof![
        2 => prop_oneof![2 => 300u64..3000, 1 => Just(0)]
            .prop_map(|bytes| Change::SetQuota(SetQuota { bytes, member: 1 })),
        1 => (0..3, 1u64..3, 0..4).prop_map(|(kind, member, cause)| {
            Change::RaiseAlarm(RaiseAlarm { kind, member, cause })
        }),
        4 => (1..3, 1u64..3, 0..4).prop_map(|(kind, member, cause)| {
            Change::ClearAlarm(ClearAlarm { kind, member, cause })
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let revisions = prop_oneof![2 => Just(0i64), 3 => -2i64..50].boxed();
    prop_oneof![
        8 => put().prop_map(|put| Step::Apply(Change::Put(put))),
        4 => delete().prop_map(|delete| Step::Apply(Change::DeleteRange(delete))),
        6 => txn().prop_map(|txn| Step::Apply(Change::Txn(txn))),
        2 => (-1i64..50).prop_map(|revision| Step::Apply(Change::Compact(Compact { revision, ..Compact::default() }))),
        2 => (1i64..4, 1i64..9).prop_map(|(id, ttl)| {
            Step::Apply(Change::LeaseGrant(LeaseGrant { id, ttl }))
        }),
        1 => (1i64..4, 6u64..9).prop_map(|(id, term)| {
            let decided_in_term = if term == 6 { 0 } else { term };
            Step::Apply(Change::LeaseRevoke(LeaseRevoke { id, decided_in_term }))
        }),
        1 => (1i64..4, 0i64..9, 6u64..9).prop_map(|(id, remaining_ttl, term)| {
            let remainders = vec![LeaseRemainder { id, remaining_ttl }];
            let decided_in_term = if term == 6 { 0 } else { term };
            Step::Apply(Change::LeaseCheckpoint(LeaseCheckpoint { remainders, decided_in_term }))
        }),
        1 => limit().prop_map(Step::Apply),
        2 => Just(Step::Settle),
        6 => range(revisions).prop_map(Step::Read),
        1 => Just(Step::Restart),
    ]
}

fn run(steps: Vec<Step>) {
    let (mut naive, mut store, mut silent) = (Naive::new(), Store::new(), Store::new());
    for step in steps {
        match step {
            Step::Apply(change) => {
                let command = Command::from(change);
                let expected = naive.apply(7, &command);
                let outcome = store.apply(&command, true);
                assert_eq!(outcome.result, expected, "{command:?}");
                assert_eq!(outcome.revision, naive.revision());
                assert_eq!(store.opened.reader.sizes().in_use_bytes, naive.in_use());
                let unheard = silent.apply(&command, false);
                assert_eq!(unheard.revision, outcome.revision);
                assert_eq!(unheard.result.err(), outcome.result.err());
            }
            Step::Settle => store.settle(),
            Step::Read(range) => store.check_range(&naive, &range),
            Step::Restart => {
                store.restart();
                store.check(&naive);
            }
        }
    }
    store.settle();
    store.check(&naive);
    silent.check(&naive);
    silent.settle();
    silent.restart();
    silent.check(&naive);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_a_history_would(steps in vec(step(), 1..60)) {
        run(steps);
    }
}
