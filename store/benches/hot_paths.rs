//! What a request costs inside the store: applying a put and a kube-apiserver update, one get, a
//! list of a hundred keys. Over 100,000 keys in memory; disk, log and network are left out.
//!
//! `cargo bench -p holdfast-store` runs it and compares with the run before.

use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use holdfast_store::command::{
    Change, Command, Compare, CompareResult, CompareTarget, Operation, OperationKind, Put, Range,
    Txn,
};
use holdfast_store::files::MemoryFiles;
use holdfast_store::{
    BackendKind, Context, Effort, Opened, Options, Position, Reader, State, Worked, open,
};

const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 256;
/// Between two looks at the maintenance, as in a member under load.
const UPKEEP_EVERY: u64 = 1000;

struct Store {
    state: State,
    maintainer: holdfast_store::Maintainer,
    reader: Reader,
    index: u64,
    /// The mod revision of every key.
    revisions: Vec<i64>,
}

impl Store {
    fn filled() -> Self {
        let mut options = Options::new("/data");
        options.files = Arc::new(MemoryFiles::default());
        options.backend = BackendKind::Memory;
        // Everything fits: what a miss costs is the disk's affair.
        options.block_cache_bytes = 1 << 30;
        let Opened { state, maintainer, reader, .. } = open(options).expect("opened");
        let mut store = Self { state, maintainer, reader, index: 0, revisions: Vec::new() };
        for number in 0..KEYS {
            let revision = store.apply(put(number));
            store.revisions.push(revision);
        }
        store
    }

    /// One entry with one command, published: what a lone client causes. Gives its revision.
    fn apply(&mut self, change: Change) -> i64 {
        self.index += 1;
        let position = Position { term: 1, index: self.index };
        let level = holdfast_store::command::LEVEL_CURRENT;
        let context = Context { position, level, respond: true };
        let command = Command::from(change);
        let outcome = self.state.apply(&context, &command).expect("applied");
        assert!(outcome.result.is_ok());
        self.state.finish_entry(position);
        self.state.publish().expect("published");
        if self.index.is_multiple_of(UPKEEP_EVERY) {
            while self.maintainer.step(self.index).expect("stepped") == Worked::Something {}
        }
        outcome.revision
    }

    fn put(&mut self, number: u64) {
        self.revisions[number as usize] = self.apply(put(number));
    }

    fn update(&mut self, number: u64) {
        let change = update(number, self.revisions[number as usize]);
        self.revisions[number as usize] = self.apply(change);
    }
}

fn key(number: u64) -> Bytes {
    format!("/registry/pods/default/pod-{number:012}").into()
}

fn put(number: u64) -> Change {
    let value = Bytes::from(vec![number as u8; VALUE_BYTES]);
    Change::Put(Put { key: key(number), value, ..Put::default() })
}

/// As kube-apiserver writes: if the key is as it was read, put, else get.
fn update(number: u64, revision: i64) -> Change {
    let compare = Compare {
        result: CompareResult::Equal.into(),
        key: key(number),
        range_end: Bytes::new(),
        target: Some(CompareTarget::ModRevision(revision)),
    };
    let Change::Put(put) = put(number) else { unreachable!("a put was made") };
    let range = Range { key: key(number), ..Range::default() };
    Change::Txn(Txn {
        compare: vec![compare],
        success: vec![Operation { kind: Some(OperationKind::Put(put)) }],
        failure: vec![Operation { kind: Some(OperationKind::Range(range)) }],
    })
}

/// Numbers that jump about, the same in every run.
fn jumps() -> impl FnMut() -> u64 {
    let mut at = 0u64;
    move || {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (at >> 33) % KEYS
    }
}

fn hot_paths(criterion: &mut Criterion) {
    let mut store = Store::filled();
    let mut next = jumps();
    criterion.bench_function("apply put", |bench| bench.iter(|| store.put(next())));
    criterion.bench_function("apply update", |bench| {
        bench.iter(|| store.update(next()));
    });
    let reader = store.reader.clone();
    criterion.bench_function("get", |bench| {
        bench.iter(|| reader.get(&key(next()), Effort::Blocking).expect("read"));
    });
    let mut group = criterion.benchmark_group("list");
    group.throughput(Throughput::Elements(100));
    group.bench_function("100 keys", |bench| {
        bench.iter(|| {
            let first = key(next().min(KEYS - 100));
            let range_end = Bytes::from_static(b"/registry/pods0");
            let range = Range { key: first, range_end, limit: 100, ..Range::default() };
            let (_, result) = reader.range(&range, Effort::Blocking).expect("read");
            assert_eq!(result.records.len(), 100);
        });
    });
    group.finish();
}

criterion_group!(benches, hot_paths);
criterion_main!(benches);
