//! Random histories and schedules against a naive history.
//!
//! Whatever the schedule, each watcher must see exactly the changes that the history holds for it:
//! in order, once, whole, with the right version before; progress must never run ahead of them. A
//! watcher may end early only by cancellation or compaction.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;

use super::super::limits::{Limits, NORMAL};
use super::super::{Delivery, RevisionEvents, WatchSpec, Worked};
use super::world::{Client, Op, Seen, World, decode, delete, put};
use crate::Revision;
use crate::record::Fields;

const KEYS: [&str; 6] = ["a", "b", "ba", "c", "d", "e"];
const STREAMS: usize = 3;

/// What may happen to the store; some of it also while the hub reads.
#[derive(Clone, Debug)]
enum Event {
    /// Transactions, published as one batch.
    Commit(Vec<Vec<Op>>),
    /// One transaction that is published without its changes.
    CommitUntold(Vec<Op>),
    /// Transactions that the hub learns of by a reset.
    Jump(Vec<Vec<Op>>),
    /// Compaction of the newest revisions but so many; then removal, perhaps.
    Compact(i64, bool),
    /// Only so many of the newest revisions stay in memory.
    Evict(i64),
}

#[derive(Clone, Debug)]
enum Step {
    Store(Event),
    Create(usize, WatchSpec, Start),
    Cancel(usize, usize),
    Take(usize, usize, usize),
    CatchUp(Option<Event>),
    RequestProgress(usize),
    Tick,
}

#[derive(Clone, Copy, Debug)]
enum Start {
    Now,
    Past(i64),
    Future(i64),
}

/// The history: every change ever, as an event.
#[derive(Clone)]
struct History {
    world: World,
    events: Arc<Mutex<BTreeMap<i64, Vec<Seen>>>>,
}

impl History {
    fn apply(&self, ops: &[Op]) -> Option<RevisionEvents> {
        let applied = self.world.apply(ops)?;
        let record = |at| {
            let bytes = self.world.hub.shared.source.record(at).expect("it was just applied");
            Fields::parse(&bytes).expect("a record")
        };
        let seen = applied.changes.iter().map(|change| Seen {
            deleted: matches!(change.kind, crate::RecordKind::Tombstone),
            kv: record(Revision::new(applied.revision, change.sub)),
            prev: change.prev.map(record),
        });
        let seen = seen.collect();
        self.events.lock().unwrap().insert(applied.revision, seen);
        Some(applied)
    }

    fn apply_all(&self, transactions: &[Vec<Op>]) -> Vec<RevisionEvents> {
        transactions.iter().filter_map(|ops| self.apply(ops)).collect()
    }

    fn run(&self, event: Event) {
        let newest = self.world.hub.shared.source.published();
        match event {
            Event::Commit(transactions) => self.world.publish(self.apply_all(&transactions)),
            Event::CommitUntold(ops) => {
                let untold = self.apply(&ops).map(|applied| RevisionEvents {
                    changes: Vec::new(),
                    complete: false,
                    ..applied
                });
                self.world.publish(untold.into_iter().collect());
            }
            Event::Jump(transactions) => {
                self.apply_all(&transactions);
                self.world.raise_published();
                self.world.hub.reset_to_catch_up();
            }
            Event::Compact(back, sweep) => {
                let to = newest - back;
                if to > self.world.hub.shared.source.compacted().max(0) {
                    self.world.compact(to);
                }
                if sweep {
                    self.world.sweep();
                }
            }
            Event::Evict(back) => self.world.evict_below(newest - back),
        }
    }
}

/// A watcher as the client sees it.
struct Watched {
    spec: WatchSpec,
    id: i64,
    alive: bool,
    canceled: bool,
    start: i64,
    /// The first change not seen: a revision, and a place among its matching events.
    next: (i64, usize),
    progress: i64,
}

impl Watched {
    fn matching<'a>(&self, seen: &'a [Seen]) -> Vec<&'a Seen> {
        let (key, end) = (&self.spec.key, &self.spec.range_end);
        let within = |k: &Bytes| match end.as_ref() {
            b"" => k == key,
            b"\0" => k >= key,
            _ => k >= key && k < end,
        };
        let wanted = |s: &&Seen| {
            within(&s.kv.key) && !(if s.deleted { self.spec.no_delete } else { self.spec.no_put })
        };
        seen.iter().filter(wanted).collect()
    }

    /// Asserts that every matching event up to `revision` has been seen.
    fn assert_seen_up_to(&self, revision: i64, history: &BTreeMap<i64, Vec<Seen>>) {
        if self.next.0 > revision {
            return;
        }
        for (at, seen) in history.range(self.next.0..=revision) {
            let done = if *at == self.next.0 { self.next.1 } else { 0 };
            assert_eq!(self.matching(seen).len(), done, "revision {at} not seen by {}", self.id);
        }
    }

    fn see(&mut self, event: &Bytes, history: &BTreeMap<i64, Vec<Seen>>, compacted: i64) {
        let (revision, expected) = history
            .range(self.next.0..)
            .find_map(|(at, seen)| {
                let done = if *at == self.next.0 { self.next.1 } else { 0 };
                Some((*at, (*self.matching(seen).get(done)?).clone()))
            })
            .expect("no event beyond the history");
        let done = if revision == self.next.0 { self.next.1 } else { 0 };
        self.next = (revision, done + 1);
        let seen = decode(event);
        assert_eq!((seen.deleted, &seen.kv), (expected.deleted, &expected.kv), "{}", self.id);
        if !self.spec.prev_kv {
            assert_eq!(seen.prev, None);
        } else if seen.prev != expected.prev {
            assert!(seen.prev.is_none() && compacted >= revision, "{seen:?} is not {expected:?}");
        }
    }
}

/// One stream as the client sees it.
struct Viewer {
    client: Client,
    /// Creations not answered yet.
    asked: VecDeque<(WatchSpec, i64)>,
    watched: Vec<Watched>,
}

impl Viewer {
    fn alive(&mut self, id: i64) -> &mut Watched {
        let found = self.watched.iter_mut().find(|watched| watched.alive && watched.id == id);
        found.expect("deliveries are of watchers that were created and have not ended")
    }

    /// Takes one delivery and holds it against the history. False if there was none.
    fn take(&mut self, max_bytes: usize, history: &History) -> bool {
        let Some(delivery) = self.client.stream.next(max_bytes) else { return false };
        let compacted = history.world.hub.shared.source.compacted();
        let history = history.events.lock().unwrap();
        match delivery {
            Delivery::Created { id, revision } => self.created(id, revision),
            Delivery::Refused { reason } => panic!("refused: {reason}"),
            Delivery::Events { id, revision, events, more_fragments } => {
                assert!(!events.is_empty(), "no delivery without events");
                let watched = self.alive(id);
                events.iter().for_each(|event| watched.see(event, &history, compacted));
                assert!(watched.next.0 <= revision && (watched.spec.fragment || !more_fragments));
                if !more_fragments {
                    watched.assert_seen_up_to(revision, &history);
                    watched.next = (revision + 1, 0);
                }
            }
            Delivery::Progress { id, revision } => {
                let of_it =
                    |watched: &&mut Watched| watched.alive && [-1, watched.id].contains(&id);
                let told: Vec<_> = self.watched.iter_mut().filter(of_it).collect();
                assert!(!told.is_empty() && (id == -1 || told[0].spec.progress_notify));
                for watched in told {
                    watched.assert_seen_up_to(revision, &history);
                    assert!(revision >= watched.start && revision >= watched.progress);
                    watched.progress = revision;
                }
            }
            Delivery::Compacted { id, compact_revision } => {
                let watched = self.alive(id);
                assert!(watched.next.0 < compact_revision && compact_revision <= compacted);
                watched.alive = false;
            }
            Delivery::Canceled { id } => {
                let watched = self.alive(id);
                assert!(watched.canceled);
                watched.alive = false;
            }
        }
        true
    }

    fn created(&mut self, id: i64, revision: i64) {
        let (spec, asked_at) = self.asked.pop_front().expect("an answer to a request");
        assert_eq!(revision, asked_at);
        assert!(self.watched.iter().all(|watched| !watched.alive || watched.id != id));
        let start = spec.start_revision;
        let next = (if start == 0 { revision + 1 } else { start }, 0);
        let watched = Watched { spec, id, alive: true, canceled: false, start, next, progress: 0 };
        self.watched.push(watched);
    }
}

struct Run {
    history: History,
    viewers: Vec<Viewer>,
}

impl Run {
    fn new(bounds: &[(usize, usize)], limits: Limits) -> Self {
        let world = World::with_limits(limits);
        let viewers = bounds.iter().map(|(fragment, queue)| Viewer {
            client: world.stream_with(*fragment, *queue),
            asked: VecDeque::new(),
            watched: Vec::new(),
        });
        let viewers = viewers.collect();
        Self { history: History { world, events: Arc::default() }, viewers }
    }

    fn step(&mut self, step: Step) {
        let hub = self.history.world.hub.clone();
        match step {
            Step::Store(event) => self.history.run(event),
            Step::Create(stream, spec, start) => self.create(stream, spec, start),
            Step::Cancel(stream, which) => {
                let viewer = &mut self.viewers[stream];
                let mut alive: Vec<_> =
                    viewer.watched.iter_mut().filter(|w| w.alive && !w.canceled).collect();
                if !alive.is_empty() {
                    let which = which % alive.len();
                    alive[which].canceled = true;
                    let id = alive[which].id;
                    viewer.client.stream.cancel(id);
                }
            }
            Step::Take(stream, count, max_bytes) => {
                for _ in 0..count {
                    self.viewers[stream].take(max_bytes, &self.history);
                }
            }
            Step::CatchUp(meanwhile) => {
                if let Some(event) = meanwhile {
                    let history = self.history.clone();
                    self.history.world.when_reading(move || history.run(event));
                }
                hub.catch_up_step().expect("the source works");
            }
            Step::RequestProgress(stream) => self.viewers[stream].client.stream.request_progress(),
            Step::Tick => hub.tick_progress(),
        }
    }

    fn create(&mut self, stream: usize, spec: WatchSpec, start: Start) {
        let current = self.history.world.hub.shared.lock().current;
        let start_revision = match start {
            Start::Now => 0,
            Start::Past(back) => (current - back).max(1),
            Start::Future(ahead) => current + ahead,
        };
        let spec = WatchSpec { start_revision, ..spec };
        let viewer = &mut self.viewers[stream];
        viewer.asked.push_back((spec.clone(), current));
        viewer.client.stream.create(spec);
    }

    /// Everybody takes everything; nobody may be left behind.
    fn settle(&mut self) {
        let hub = self.history.world.hub.clone();
        loop {
            let mut idle = hub.catch_up_step().expect("the source works") == Worked::Nothing;
            for viewer in &mut self.viewers {
                while viewer.take(300, &self.history) {
                    idle = false;
                }
            }
            if idle {
                break;
            }
        }
        assert_eq!(hub.counts().behind, 0);
        let alive = |viewer: &Viewer| viewer.watched.iter().filter(|w| w.alive).count();
        assert_eq!(hub.counts().watchers, self.viewers.iter().map(alive).sum::<usize>());
        let history = self.history.events.lock().unwrap();
        for viewer in &self.viewers {
            assert!(viewer.asked.is_empty());
            for watched in &viewer.watched {
                assert!(!(watched.alive && watched.canceled));
                if watched.alive {
                    watched.assert_seen_up_to(i64::MAX, &history);
                }
            }
        }
    }
}

fn transaction() -> impl Strategy<Value = Vec<Op>> {
    let op = (0usize..60, proptest::bool::weighted(0.25));
    proptest::collection::btree_map(0..KEYS.len(), op, 1..4).prop_map(|ops| {
        let op = |(key, (length, deleted)): (usize, (usize, bool))| match deleted {
            true => delete(KEYS[key]),
            false => put(KEYS[key], &"v".repeat(length)),
        };
        ops.into_iter().map(op).collect()
    })
}

fn event() -> impl Strategy<Value = Event> {
    let transactions = || proptest::collection::vec(transaction(), 1..5);
    prop_oneof![
        6 => transactions().prop_map(Event::Commit),
        1 => transaction().prop_map(Event::CommitUntold),
        1 => transactions().prop_map(Event::Jump),
        1 => (0i64..15, any::<bool>()).prop_map(|(back, sweep)| Event::Compact(back, sweep)),
        1 => (0i64..10).prop_map(Event::Evict),
    ]
}

fn watch_spec() -> impl Strategy<Value = WatchSpec> {
    let ranges = prop_oneof![
        (0..KEYS.len()).prop_map(|key| (KEYS[key], "")),
        Just(("b", "c")),
        Just(("a", "d")),
        Just(("b", "\0")),
    ];
    (ranges, proptest::array::uniform4(proptest::bool::weighted(0.3)), any::<bool>()).prop_map(
        |((key, end), [no_put, no_delete, fragment, progress_notify], prev_kv)| WatchSpec {
            key: Bytes::from_static(key.as_bytes()),
            range_end: Bytes::from_static(end.as_bytes()),
            no_put,
            no_delete,
            fragment,
            progress_notify,
            prev_kv,
            ..WatchSpec::default()
        },
    )
}

fn start() -> impl Strategy<Value = Start> {
    prop_oneof![
        Just(Start::Now),
        (0i64..20).prop_map(Start::Past),
        (1i64..10).prop_map(Start::Future),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let stream = || 0..STREAMS;
    prop_oneof![
        8 => event().prop_map(Step::Store),
        3 => (stream(), watch_spec(), start()).prop_map(|(s, spec, at)| Step::Create(s, spec, at)),
        1 => (stream(), 0usize..8).prop_map(|(s, which)| Step::Cancel(s, which)),
        4 => (stream(), 1usize..8, 1usize..400).prop_map(|(s, n, max)| Step::Take(s, n, max)),
        3 => proptest::option::weighted(0.4, event()).prop_map(Step::CatchUp),
        1 => stream().prop_map(Step::RequestProgress),
        1 => Just(Step::Tick),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let small = (1usize..4, 1usize..5, 20usize..400, 0usize..12, 1i64..8, 1usize..4, 1usize..500);
    let small =
        small.prop_map(|(publish, live, bytes, recent, step, watchers, step_bytes)| Limits {
            publish_revisions: publish,
            live_changes: live,
            live_bytes: bytes,
            recent_revisions: recent,
            recent_changes: recent * 2,
            recent_bytes: recent * 40,
            step_revisions: step,
            step_watchers: watchers,
            step_bytes,
            step_headers: watchers,
            hand_over_changes: recent,
        });
    prop_oneof![Just(NORMAL), small]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn every_watcher_sees_its_part_of_the_history(
        bounds in proptest::collection::vec((60usize..300, 100usize..3000), STREAMS),
        limits in limits(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut run = Run::new(&bounds, limits);
        steps.into_iter().for_each(|step| run.step(step));
        run.settle();
    }
}
