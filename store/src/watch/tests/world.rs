//! A naive store that publishes to a hub, and deliveries as text.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::super::*;
use crate::record::{Fields, Record};

/// One write or deletion of a transaction.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Put(String, String),
    Delete(String),
}

pub(super) fn put(key: &str, value: &str) -> Op {
    Op::Put(key.into(), value.into())
}

pub(super) fn delete(key: &str) -> Op {
    Op::Delete(key.into())
}

/// What a test may have happen while headers are read, outside the hub's lock.
type Interruption = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Stored {
    records: BTreeMap<Revision, Record>,
    published: i64,
    compacted: i64,
    /// Records of earlier revisions are on disk only.
    in_memory_from: i64,
    on_headers: Option<Interruption>,
    on_record: Option<Interruption>,
}

/// The source.
pub(super) struct Naive {
    stored: Mutex<Stored>,
    pub(super) memory_reads: AtomicUsize,
}

impl EventSource for Naive {
    fn record(&self, revision: Revision) -> Result<Bytes, Fatal> {
        let interruption = self.stored.lock().unwrap().on_record.take();
        if let Some(interruption) = interruption {
            interruption();
        }
        let stored = self.stored.lock().unwrap();
        let record = stored.records.get(&revision);
        record.map(|record| record.bytes.clone()).ok_or_else(|| Fatal::new("no such record"))
    }

    fn try_record(&self, revision: Revision) -> Result<Option<Bytes>, Fatal> {
        self.memory_reads.fetch_add(1, Ordering::Relaxed);
        if revision.main < self.stored.lock().unwrap().in_memory_from {
            return Ok(None);
        }
        self.record(revision).map(Some)
    }

    fn headers(&self, from: Revision, max: usize) -> Result<Vec<RecordHeader>, Fatal> {
        let interruption = self.stored.lock().unwrap().on_headers.take();
        if let Some(interruption) = interruption {
            interruption();
        }
        let stored = self.stored.lock().unwrap();
        Ok(stored.records.range(from..).take(max).map(|(_, record)| record.header()).collect())
    }

    fn previous(&self, key: &[u8], before: Revision) -> Option<Revision> {
        let stored = self.stored.lock().unwrap();
        let (at, record) = stored.records.range(..before).rev().find(|(_, r)| r.key == key)?;
        matches!(record.kind, RecordKind::Put { .. }).then_some(*at)
    }

    fn compacted(&self) -> i64 {
        self.stored.lock().unwrap().compacted
    }

    fn published(&self) -> i64 {
        self.stored.lock().unwrap().published
    }
}

/// The store and its hub. Clones share them.
#[derive(Clone)]
pub(super) struct World {
    pub(super) source: Arc<Naive>,
    pub(super) hub: WatchHub,
}

impl World {
    /// A fresh store, at revision 1.
    pub(super) fn new() -> Self {
        Self::with_limits(super::super::limits::NORMAL)
    }

    pub(super) fn with_limits(limits: Limits) -> Self {
        let stored = Stored { published: 1, compacted: -1, ..Stored::default() };
        let source =
            Arc::new(Naive { stored: Mutex::new(stored), memory_reads: AtomicUsize::new(0) });
        Self { hub: WatchHub::with_limits(source.clone(), limits), source }
    }

    /// Applies one transaction, without publishing it; `None` if it changes nothing.
    pub(super) fn apply(&self, ops: &[Op]) -> Option<RevisionEvents> {
        let mut changes = Vec::new();
        let main = self.newest() + 1;
        for op in ops {
            let at = Revision::new(main, changes.len() as i64);
            let (Op::Put(key, _) | Op::Delete(key)) = op;
            let key = Bytes::copy_from_slice(key.as_bytes());
            let prev = self.source.previous(&key, at);
            let record = match op {
                Op::Put(_, value) => {
                    let (create, version) = prev.map_or((main, 1), |prev| self.life(prev));
                    Record::put(at, key.clone(), value.as_bytes(), create, version, 0)
                }
                Op::Delete(_) if prev.is_none() => continue,
                Op::Delete(_) => Record::tombstone(at, key.clone()),
            };
            changes.push(Change { sub: at.sub, key, kind: record.kind, prev });
            self.source.stored.lock().unwrap().records.insert(at, record);
        }
        (!changes.is_empty()).then_some(RevisionEvents { revision: main, changes, complete: true })
    }

    fn newest(&self) -> i64 {
        let stored = self.source.stored.lock().unwrap();
        stored.records.keys().last().map_or(1, |at| at.main).max(stored.published)
    }

    fn life(&self, prev: Revision) -> (i64, i64) {
        let record = self.source.stored.lock().unwrap().records[&prev].clone();
        match record.kind {
            RecordKind::Put { create_revision, version, .. } => (create_revision, version + 1),
            RecordKind::Tombstone => panic!("a tombstone is nobody's version before"),
        }
    }

    /// Makes everything applied visible, and gives it to the hub as one batch.
    pub(super) fn publish(&self, batch: Vec<RevisionEvents>) {
        self.raise_published();
        self.hub.publish(batch).expect("the source works");
    }

    pub(super) fn raise_published(&self) {
        let newest = self.newest();
        self.source.stored.lock().unwrap().published = newest;
    }

    /// Applies and publishes one transaction.
    pub(super) fn commit(&self, ops: &[Op]) {
        let events = self.apply(ops);
        self.publish(events.into_iter().collect());
    }

    pub(super) fn put(&self, key: &str, value: &str) {
        self.commit(&[put(key, value)]);
    }

    pub(super) fn delete(&self, key: &str) {
        self.commit(&[delete(key)]);
    }

    /// Compacts, logically.
    pub(super) fn compact(&self, revision: i64) {
        let mut stored = self.source.stored.lock().unwrap();
        assert!(revision <= stored.published && revision > stored.compacted);
        stored.compacted = revision;
    }

    /// Removes what the compaction allows to remove.
    pub(super) fn sweep(&self) {
        let mut stored = self.source.stored.lock().unwrap();
        let compacted = stored.compacted;
        let mut newest: BTreeMap<Bytes, Revision> = BTreeMap::new();
        for (at, record) in stored.records.range(..Revision::new(compacted + 1, 0)) {
            newest.insert(record.key.clone(), *at);
        }
        stored.records.retain(|at, record| {
            let superseded = newest.get(&record.key) != Some(at);
            let tombstone = matches!(record.kind, RecordKind::Tombstone);
            at.main > compacted || !(superseded || tombstone && at.main < compacted)
        });
    }

    /// From now on only records of revisions from `main` on are in memory.
    pub(super) fn evict_below(&self, main: i64) {
        self.source.stored.lock().unwrap().in_memory_from = main;
    }

    /// Runs `interruption` when headers are next read.
    pub(super) fn when_reading(&self, interruption: impl FnOnce() + Send + 'static) {
        self.source.stored.lock().unwrap().on_headers = Some(Box::new(interruption));
    }

    /// Runs `interruption` when a record is next read.
    pub(super) fn when_reading_a_record(&self, interruption: impl FnOnce() + Send + 'static) {
        self.source.stored.lock().unwrap().on_record = Some(Box::new(interruption));
    }

    pub(super) fn catch_up(&self) {
        while self.hub.catch_up_step().expect("the source works") == Worked::Something {}
    }

    pub(super) fn stream(&self) -> Client {
        self.stream_with(1 << 20, 1 << 20)
    }

    pub(super) fn stream_with(&self, fragment_bytes: usize, queue_bytes: usize) -> Client {
        let wakes = Arc::new(Wakeups::default());
        let limits = StreamLimits { fragment_bytes, queue_bytes };
        Client { stream: self.hub.open_stream(wakes.clone(), limits), wakes }
    }
}

#[derive(Default)]
pub(super) struct Wakeups(pub(super) AtomicUsize);

impl Wake for Wakeups {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A stream, and how often it was woken.
pub(super) struct Client {
    pub(super) stream: WatchStream,
    wakes: Arc<Wakeups>,
}

impl Client {
    /// Watches from now on.
    pub(super) fn watch(&self, key: &str, range_end: &str) {
        self.stream.create(spec(key, range_end));
    }

    pub(super) fn wakeups(&self) -> usize {
        self.wakes.0.load(Ordering::Relaxed)
    }

    /// Everything queued, as text, one line each.
    pub(super) fn take(&self) -> Vec<String> {
        self.take_by(usize::MAX)
    }

    pub(super) fn take_by(&self, max_bytes: usize) -> Vec<String> {
        std::iter::from_fn(|| self.stream.next(max_bytes)).map(|d| describe(&d)).collect()
    }
}

pub(super) fn spec(key: &str, range_end: &str) -> WatchSpec {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    WatchSpec { key: bytes(key), range_end: bytes(range_end), ..WatchSpec::default() }
}

/// One event, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) deleted: bool,
    pub(super) kv: Fields,
    pub(super) prev: Option<Fields>,
}

pub(super) fn decode(event: &Bytes) -> Seen {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Event {
        #[prost(int32, tag = "1")]
        kind: i32,
        #[prost(bytes = "bytes", tag = "2")]
        kv: Bytes,
        #[prost(bytes = "bytes", optional, tag = "3")]
        prev_kv: Option<Bytes>,
    }
    let event = <Event as prost::Message>::decode(event.clone()).expect("an event");
    let fields = |bytes: &Bytes| Fields::parse(bytes).expect("a record");
    Seen {
        deleted: event.kind == 1,
        kv: fields(&event.kv),
        prev: event.prev_kv.as_ref().map(fields),
    }
}

fn describe(delivery: &Delivery) -> String {
    match delivery {
        Delivery::Created { id, revision } => format!("created {id} at {revision}"),
        Delivery::Refused { reason } => format!("refused {reason:?}"),
        Delivery::Progress { id, revision } => format!("progress {id} at {revision}"),
        Delivery::Compacted { id, compact_revision } => {
            format!("compacted {id} to {compact_revision}")
        }
        Delivery::Canceled { id } => format!("canceled {id}"),
        Delivery::Events { id, revision, events, more_fragments } => {
            let events: Vec<_> =
                events.iter().map(|event| describe_event(&decode(event))).collect();
            let more = if *more_fragments { ", more" } else { "" };
            format!("events {id} at {revision}: {}{more}", events.join(", "))
        }
    }
}

fn describe_event(seen: &Seen) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let (key, at) = (text(&seen.kv.key), seen.kv.mod_revision);
    let value = if seen.deleted { "-".into() } else { text(&seen.kv.value) };
    let value = if value.len() > 8 { format!("<{}>", value.len()) } else { value };
    let prev =
        seen.prev.as_ref().map(|prev| format!(" was {}@{}", text(&prev.value), prev.mod_revision));
    format!("{key}={value}@{at}{}", prev.unwrap_or_default())
}
