//! Who watches what: the state under the hub's lock.
//!
//! A watcher is in exactly one place: a member of its range's group (synced), in the ordered set of
//! those behind, parked at its stream (behind, and the stream is full), or out being read for. Every
//! move between places goes through `leave` and one of the methods that enter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::limits::Limits;
use super::matcher::Matcher;
use super::queue::{Item, StreamCore, Wakes};
use super::range::WatchedRange;
use super::recent::Recent;
use super::slab::{Slab, SlabKey};
use super::{Delivery, RefusedReason, Wake, WatchCounts, WatchSpec};
use crate::Revision;

/// What decides how an event looks to a watcher, beside its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    pub(super) prev_kv: bool,
    pub(super) no_put: bool,
    pub(super) no_delete: bool,
}

/// One watcher.
pub(super) struct Watcher {
    pub(super) stream: Arc<StreamCore>,
    pub(super) id: i64,
    pub(super) range: WatchedRange,
    pub(super) class: Class,
    pub(super) fragment: bool,
    progress_notify: bool,
    /// The start revision asked for; 0 for none.
    start: i64,
    /// Events were queued since the last progress tick.
    pub(super) had_events: bool,
    pub(super) place: Place,
}

impl Watcher {
    /// The first revision that a synced watcher is to see.
    pub(super) fn synced_from(&self) -> i64 {
        match self.place {
            Place::Synced { from, .. } => from,
            other => panic!("a group's member is synced, not {other:?}"),
        }
    }

    /// Where this watcher's revisions are split, if they may be.
    pub(super) fn fragment_bytes(&self) -> Option<usize> {
        self.fragment.then_some(self.stream.limits.fragment_bytes)
    }
}

/// Where a watcher is. `next` is the first change it has not been given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: between two places.
    Moving,
    /// In its group; it gets revisions from `from` on.
    Synced { group: SlabKey, member: usize, from: i64 },
    /// In the set of those behind.
    Behind { next: Revision },
    /// At its stream, which is full or in the middle of another watcher's revision.
    Parked { next: Revision },
    /// Out with a step of catching up.
    Reading { next: Revision },
}

/// The synced watchers of one range.
pub(super) struct Group {
    pub(super) range: WatchedRange,
    pub(super) classes: BTreeMap<Class, Vec<SlabKey>>,
}

/// One stream.
pub(super) struct Stream {
    pub(super) core: Arc<StreamCore>,
    ids: BTreeMap<i64, SlabKey>,
    next_id: i64,
    parked: BTreeSet<SlabKey>,
}

/// Everything under the hub's lock.
pub(super) struct Registry {
    pub(super) limits: Limits,
    /// The last revision published to the hub.
    pub(super) current: i64,
    /// Counts resets; what was read in an earlier epoch is thrown away.
    pub(super) epoch: u64,
    pub(super) watchers: Slab<Watcher>,
    /// A planted fault.
    pub(super) drop_events: bool,
    pub(super) groups: Slab<Group>,
    pub(super) matcher: Matcher<SlabKey>,
    pub(super) recent: Recent,
    streams: BTreeMap<u64, Stream>,
    streams_made: u64,
    behind: BTreeSet<(Revision, SlabKey)>,
    /// Whether the last step began with those least behind.
    nearest_first: bool,
    reading: usize,
    parked: usize,
    catch_up_wake: Option<Arc<dyn Wake>>,
}

impl Registry {
    pub(super) fn new(current: i64, limits: Limits) -> Self {
        Self {
            limits,
            current,
            epoch: 0,
            drop_events: false,
            watchers: Slab::new(),
            groups: Slab::new(),
            matcher: Matcher::new(),
            recent: Recent::default(),
            streams: BTreeMap::new(),
            streams_made: 0,
            behind: BTreeSet::new(),
            nearest_first: true,
            reading: 0,
            parked: 0,
            catch_up_wake: None,
        }
    }

    pub(super) fn on_catch_up_needed(&mut self, wake: Arc<dyn Wake>) {
        self.catch_up_wake = Some(wake);
    }

    pub(super) fn has_work(&self) -> bool {
        !self.behind.is_empty()
    }

    pub(super) fn counts(&self) -> WatchCounts {
        WatchCounts {
            streams: self.streams.len(),
            watchers: self.watchers.len(),
            behind: self.behind.len() + self.parked + self.reading,
        }
    }

    pub(super) fn add_stream(
        &mut self,
        make: impl FnOnce(u64) -> Arc<StreamCore>,
    ) -> Arc<StreamCore> {
        let number = self.streams_made;
        self.streams_made += 1;
        let core = make(number);
        let stream = Stream {
            core: core.clone(),
            ids: BTreeMap::new(),
            next_id: 0,
            parked: BTreeSet::new(),
        };
        self.streams.insert(number, stream);
        core
    }

    pub(super) fn remove_stream(&mut self, number: u64) {
        let keys: Vec<_> = self.stream(number).ids.values().copied().collect();
        for key in keys {
            self.leave(key);
            self.watchers.remove(key);
        }
        self.streams.remove(&number);
    }

    fn stream(&mut self, number: u64) -> &mut Stream {
        self.streams.get_mut(&number).expect("a stream is removed only when its owner drops it")
    }

    /// Creates a watcher and queues the answer.
    pub(super) fn create(&mut self, number: u64, spec: WatchSpec, compacted: i64) -> Wakes {
        let mut wakes = Wakes::default();
        let core = self.stream(number).core.clone();
        let (id, range) = match self.admit(number, &spec) {
            Ok(admitted) => admitted,
            Err(reason) => return self.refuse(number, reason),
        };
        let created = Delivery::Created { id, revision: self.current };
        queue(&core, Item::Plain(created), &mut wakes);
        let start = spec.start_revision;
        if start != 0 && start < compacted {
            let gone = Delivery::Compacted { id, compact_revision: compacted };
            queue(&core, Item::Plain(gone), &mut wakes);
            return wakes;
        }
        let key = self.watchers.insert(watcher(core, id, range, &spec));
        self.stream(number).ids.insert(id, key);
        if start == 0 || start > self.current {
            self.sync(key, start.max(self.current + 1));
        } else {
            self.fall_behind(key, Revision::new(start, 0), &mut wakes);
        }
        wakes
    }

    /// Queues the answer to a creation that is refused.
    pub(super) fn refuse(&mut self, number: u64, reason: RefusedReason) -> Wakes {
        let mut wakes = Wakes::default();
        let core = self.stream(number).core.clone();
        queue(&core, Item::Plain(Delivery::Refused { reason }), &mut wakes);
        wakes
    }

    /// The id and range of a new watcher, or why there can be none.
    fn admit(
        &mut self,
        number: u64,
        spec: &WatchSpec,
    ) -> Result<(i64, WatchedRange), RefusedReason> {
        if spec.start_revision < 0 {
            return Err(RefusedReason::StartCompacted);
        }
        let range =
            WatchedRange::new(&spec.key, &spec.range_end).ok_or(RefusedReason::EmptyRange)?;
        let stream = self.stream(number);
        if spec.id != 0 {
            let taken = stream.ids.contains_key(&spec.id);
            return if taken { Err(RefusedReason::DuplicateId) } else { Ok((spec.id, range)) };
        }
        while stream.ids.contains_key(&stream.next_id) {
            stream.next_id += 1;
        }
        stream.next_id += 1;
        Ok((stream.next_id - 1, range))
    }

    /// Ends a watcher and queues the answer, if there is one of that id.
    pub(super) fn cancel(&mut self, number: u64, id: i64) -> Wakes {
        match self.stream(number).ids.get(&id).copied() {
            Some(key) => self.end(key, Delivery::Canceled { id }),
            None => Wakes::default(),
        }
    }

    /// Removes a watcher, with this as its last delivery.
    pub(super) fn end(&mut self, key: SlabKey, last: Delivery) -> Wakes {
        let mut wakes = Wakes::default();
        self.leave(key);
        let watcher = self.watchers.remove(key).expect("the caller found it");
        self.stream(watcher.stream.number).ids.remove(&watcher.id);
        self.queue_for(&watcher.stream, Item::Plain(last), &mut wakes);
        wakes
    }

    /// Adds to a stream's queue; if that ends a split revision, those who waited for it go on.
    pub(super) fn queue_for(&mut self, core: &Arc<StreamCore>, item: Item, wakes: &mut Wakes) {
        let (before, after) = queue(core, item, wakes);
        if before.is_some() && after.is_none() {
            wakes.append(self.unpark(core.number));
        }
    }

    /// Queues progress for the whole stream, or nothing if any watcher has more to come before it.
    pub(super) fn request_progress(&mut self, number: u64) -> Wakes {
        let mut wakes = Wakes::default();
        let stream = &self.streams[&number];
        let ready = |key: &SlabKey| self.is_told_of_progress(self.watchers.at(*key));
        if !stream.ids.is_empty()
            && stream.ids.values().all(ready)
            && stream.core.queue().weight() < stream.core.limits.queue_bytes
        {
            let progress = Delivery::Progress { id: -1, revision: self.current };
            queue(&stream.core, Item::Plain(progress), &mut wakes);
        }
        wakes
    }

    /// Whether everything up to the current revision is queued, and the watcher has begun.
    fn is_told_of_progress(&self, watcher: &Watcher) -> bool {
        matches!(watcher.place, Place::Synced { .. }) && watcher.start <= self.current
    }

    pub(super) fn tick_progress(&mut self) -> Wakes {
        let mut wakes = Wakes::default();
        for stream in self.streams.values() {
            for key in stream.ids.values() {
                let watcher = self.watchers.at(*key);
                let had_events = watcher.had_events;
                let told = watcher.progress_notify && self.is_told_of_progress(watcher);
                if told && !had_events && !stream.core.is_full_for(watcher.id) {
                    let progress = Delivery::Progress { id: watcher.id, revision: self.current };
                    queue(&stream.core, Item::Plain(progress), &mut wakes);
                }
                self.watchers.at_mut(*key).had_events = false;
            }
        }
        wakes
    }

    /// Takes a watcher out of wherever it is.
    pub(super) fn leave(&mut self, key: SlabKey) {
        let watcher = self.watchers.at_mut(key);
        let number = watcher.stream.number;
        match std::mem::replace(&mut watcher.place, Place::Moving) {
            Place::Moving => {}
            Place::Synced { group, member, .. } => self.leave_group(key, group, member),
            Place::Behind { next } => assert!(self.behind.remove(&(next, key)), "it was behind"),
            Place::Parked { .. } => {
                assert!(self.stream(number).parked.remove(&key), "it was parked");
                self.parked -= 1;
            }
            Place::Reading { .. } => self.reading -= 1,
        }
    }

    fn leave_group(&mut self, key: SlabKey, group_key: SlabKey, member: usize) {
        let class = self.watchers.at(key).class;
        let group = self.groups.at_mut(group_key);
        let members = group.classes.get_mut(&class).expect("a member's class is there");
        assert_eq!(members.swap_remove(member), key, "a watcher knows its place");
        if let Some(moved) = members.get(member) {
            let Place::Synced { member: place, .. } = &mut self.watchers.at_mut(*moved).place
            else {
                panic!("members are synced")
            };
            *place = member;
        } else if members.is_empty() {
            group.classes.remove(&class);
        }
        if group.classes.is_empty() {
            self.matcher.remove(&group.range);
            self.groups.remove(group_key);
        }
    }

    /// A watcher that is nowhere, and has been given everything up to `current`, is synced.
    pub(super) fn sync(&mut self, key: SlabKey, from: i64) {
        assert!(from > self.current, "a synced watcher has nothing to catch up with");
        let watcher = self.watchers.at_mut(key);
        assert_eq!(watcher.place, Place::Moving);
        let group_key = self.matcher.find(&watcher.range).unwrap_or_else(|| {
            let range = watcher.range.clone();
            let group = Group { range: range.clone(), classes: BTreeMap::new() };
            let group_key = self.groups.insert(group);
            self.matcher.insert(range, group_key);
            group_key
        });
        let members = self.groups.at_mut(group_key).classes.entry(watcher.class).or_default();
        watcher.place = Place::Synced { group: group_key, member: members.len(), from };
        members.push(key);
    }

    /// A watcher that is nowhere is behind, and waits for a step.
    pub(super) fn fall_behind(&mut self, key: SlabKey, next: Revision, wakes: &mut Wakes) {
        let watcher = self.watchers.at_mut(key);
        assert_eq!(watcher.place, Place::Moving);
        watcher.place = Place::Behind { next };
        if self.behind.is_empty() {
            wakes.catch_up(self.catch_up_wake.as_ref());
        }
        self.behind.insert((next, key));
    }

    /// A synced watcher falls behind: it has been given everything before `next`.
    pub(super) fn set_aside(&mut self, key: SlabKey, next: i64, wakes: &mut Wakes) {
        self.leave(key);
        self.fall_behind(key, Revision::new(next, 0), wakes);
    }

    /// A watcher that is nowhere waits until its stream has room.
    pub(super) fn park(&mut self, key: SlabKey, next: Revision) {
        let watcher = self.watchers.at_mut(key);
        assert_eq!(watcher.place, Place::Moving);
        watcher.place = Place::Parked { next };
        let number = watcher.stream.number;
        self.stream(number).parked.insert(key);
        self.parked += 1;
    }

    /// Everyone parked at a stream waits for a step instead.
    pub(super) fn unpark(&mut self, number: u64) -> Wakes {
        let mut wakes = Wakes::default();
        for key in self.stream(number).parked.iter().copied().collect::<Vec<_>>() {
            let Place::Parked { next } = self.watchers.at(key).place else {
                panic!("what is parked is at its stream")
            };
            self.leave(key);
            self.fall_behind(key, next, &mut wakes);
        }
        wakes
    }

    /// A watcher that is nowhere goes out with a step.
    pub(super) fn begin_reading(&mut self, key: SlabKey, next: Revision) {
        let watcher = self.watchers.at_mut(key);
        assert_eq!(watcher.place, Place::Moving);
        watcher.place = Place::Reading { next };
        self.reading += 1;
    }

    /// From which end the next step takes those who wait: one after the other, so that neither
    /// those furthest behind nor those who have almost caught up wait for all others.
    pub(super) fn change_ends(&mut self) {
        self.nearest_first = !self.nearest_first;
    }

    /// The watcher whose turn it is in this step.
    pub(super) fn next_behind(&self) -> Option<(Revision, SlabKey)> {
        match self.nearest_first {
            true => self.behind.last().copied(),
            false => self.behind.first().copied(),
        }
    }

    /// Jumps to `published`; everyone who may have missed something falls behind.
    pub(super) fn reset(&mut self, published: i64) -> Wakes {
        assert!(published >= self.current, "the store does not go back");
        self.epoch += 1;
        let first_missed = self.current + 1;
        self.current = published;
        self.set_everyone_aside(first_missed)
    }

    /// Every synced watcher that is to see a revision from `first` to `current` falls behind.
    pub(super) fn set_everyone_aside(&mut self, first: i64) -> Wakes {
        let mut wakes = Wakes::default();
        self.recent.clear();
        let keys: Vec<_> =
            self.streams.values().flat_map(|stream| stream.ids.values().copied()).collect();
        for key in keys {
            if let Place::Synced { from, .. } = self.watchers.at(key).place
                && from.max(first) <= self.current
            {
                self.set_aside(key, from.max(first), &mut wakes);
            }
        }
        wakes
    }
}

fn watcher(core: Arc<StreamCore>, id: i64, range: WatchedRange, spec: &WatchSpec) -> Watcher {
    let (prev_kv, no_put, no_delete) = (spec.prev_kv, spec.no_put, spec.no_delete);
    Watcher {
        stream: core,
        id,
        range,
        class: Class { prev_kv, no_put, no_delete },
        fragment: spec.fragment,
        progress_notify: spec.progress_notify,
        start: spec.start_revision,
        had_events: false,
        place: Place::Moving,
    }
}

/// Adds to a stream's queue. Gives who was in the middle of a revision before, and who is after.
pub(super) fn queue(
    core: &Arc<StreamCore>,
    item: Item,
    wakes: &mut Wakes,
) -> (Option<i64>, Option<i64>) {
    let mut queue = core.queue();
    let before = queue.fragmenting();
    if queue.push(item) {
        wakes.stream(core);
    }
    (before, queue.fragmenting())
}
