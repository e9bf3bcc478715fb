//! Catching up: a bounded step reads stored changes for watchers that are behind.
//!
//! ```text
//!  lock    pick up to 512 watchers within 1000 revisions of the furthest (or least) behind
//!  unlock  read headers once, match, encode each event once, collect whole revisions
//!  lock    queue; whoever has reached the current revision is synced, the rest stay behind
//! ```
//!
//! Compaction races with the reading. It raises the compacted revision before it removes anything,
//! so a look at it after the reading tells whether what was read is complete.

mod read;

use std::sync::Arc;

use super::batch::{Batch, Part, Share};
use super::event::Found;
use super::limits::Limits;
use super::queue::{Item, Wakes};
use super::registry::{Class, Place, Registry};
use super::slab::SlabKey;
use super::{Delivery, EventSource, Shared, Worked};
use crate::{Fatal, Revision};
use read::Reading;

/// What one step reads.
struct Job {
    readings: Vec<Reading>,
    /// The last revision to read.
    limit: i64,
    /// The revision at which the last of them goes on.
    latest: i64,
    epoch: u64,
    limits: Limits,
}

pub(super) fn step(shared: &Shared) -> Result<Worked, Fatal> {
    let source = shared.source.as_ref();
    let mut wakes = Wakes::default();
    let picked = {
        let mut registry = shared.lock();
        let picked = pick(&mut registry, source, &mut wakes);
        // Handing over may have encoded much.
        let limits = registry.limits;
        registry.recent.trim(&limits);
        picked
    };
    wakes.fire();
    let (mut job, looked_at) = picked?;
    if job.readings.is_empty() {
        return Ok(if looked_at == 0 { Worked::Nothing } else { Worked::Something });
    }
    let read = read::read(source, &mut job.readings, job.limit, &job.limits);
    let mut wakes = Wakes::default();
    let delivered = match read {
        Ok(limit) => {
            job.limit = limit;
            deliver(&mut shared.lock(), source, job, &mut wakes);
            Ok(Worked::Something)
        }
        Err(fatal) => give_up(&mut shared.lock(), source, job, &mut wakes, fatal),
    };
    wakes.fire();
    delivered
}

/// What handing over has done under this hold of the lock.
#[derive(Default)]
struct Used {
    changes: usize,
    bytes: usize,
}

/// How far a watcher was served from the recent revisions.
enum HandedOver {
    /// It is synced.
    Whole,
    /// It has been given some revisions and is behind again.
    Part,
    /// What it needs next is not in memory.
    Nothing,
}

impl Job {
    /// Whether one who goes on at `next` can be served together with the others: whatever is
    /// picked, every one of them gets ahead.
    fn takes(&self, next: Revision) -> bool {
        next.main <= self.limit && next.main + self.limits.step_revisions > self.latest
    }

    fn add(&mut self, reading: Reading) {
        let next = reading.next.main;
        self.limit = self.limit.min(next + self.limits.step_revisions - 1);
        self.latest = self.latest.max(next);
        self.readings.push(reading);
    }
}

/// Takes those at one end of those behind out of their set. Also serves, here and now, whoever needs nothing
/// from disk. The number says how many were looked at.
fn pick(
    registry: &mut Registry,
    source: &dyn EventSource,
    wakes: &mut Wakes,
) -> Result<(Job, usize), Fatal> {
    let compacted = source.compacted();
    let mut job = Job {
        readings: Vec::new(),
        limit: registry.current,
        latest: 0,
        epoch: registry.epoch,
        limits: registry.limits,
    };
    let mut used = Used::default();
    let limits = job.limits;
    registry.change_ends();
    for looked_at in 0..limits.step_watchers {
        let Some((next, key)) = registry.next_behind().filter(|(next, _)| job.takes(*next)) else {
            return Ok((job, looked_at));
        };
        assert!(next.main <= registry.current, "who is behind has something to catch up with");
        if used.changes > limits.hand_over_changes || used.bytes >= limits.live_bytes {
            return Ok((job, looked_at));
        }
        if next.main < compacted {
            end_compacted(registry, key, compacted, wakes);
            continue;
        }
        registry.leave(key);
        let watcher = registry.watchers.at(key);
        if watcher.stream.park_if_full(watcher.id) {
            registry.park(key, next);
            continue;
        }
        match hand_over(registry, source, key, next, &mut used, wakes)? {
            HandedOver::Whole => continue,
            // It may be whose turn it is again.
            HandedOver::Part => return Ok((job, looked_at + 1)),
            HandedOver::Nothing => {}
        }
        job.add(Reading::new(key, registry.watchers.at(key), next));
        registry.begin_reading(key, next);
    }
    Ok((job, limits.step_watchers))
}

fn end_compacted(registry: &mut Registry, key: SlabKey, compacted: i64, wakes: &mut Wakes) {
    let id = registry.watchers.at(key).id;
    let last = Delivery::Compacted { id, compact_revision: compacted };
    wakes.append(registry.end(key, last));
}

/// Gives a watcher that is nowhere the rest from the recent revisions, and makes it synced; or a
/// part of the rest, if all would be too much or is not in memory.
fn hand_over(
    registry: &mut Registry,
    source: &dyn EventSource,
    key: SlabKey,
    next: Revision,
    used: &mut Used,
    wakes: &mut Wakes,
) -> Result<HandedOver, Fatal> {
    if next.sub != 0 || !registry.recent.reaches_back_to(next.main) {
        return Ok(HandedOver::Nothing);
    }
    let (parts, stopped_at) = recent_parts(registry, source, key, next.main, used)?;
    let Some(stopped_at) = stopped_at else {
        give(registry, key, parts, registry.current, false, wakes);
        registry.sync(key, registry.current + 1);
        return Ok(HandedOver::Whole);
    };
    let Some(reaches) = parts.last().map(|part| part.revision) else {
        return Ok(HandedOver::Nothing);
    };
    give(registry, key, parts, reaches, false, wakes);
    registry.fall_behind(key, Revision::new(stopped_at, 0), wakes);
    Ok(HandedOver::Part)
}

/// What a watcher is to see of the recent revisions from `first` on, and the revision at which that
/// ends early, if it does.
fn recent_parts(
    registry: &mut Registry,
    source: &dyn EventSource,
    key: SlabKey,
    first: i64,
    used: &mut Used,
) -> Result<(Vec<Part>, Option<i64>), Fatal> {
    let watcher = registry.watchers.at(key);
    let (range, class) = (watcher.range.clone(), watcher.class);
    let mut parts: Vec<Part> = Vec::new();
    for revision in first..=registry.current {
        if used.bytes >= registry.limits.live_bytes {
            return Ok((parts, Some(revision)));
        }
        let mut part = Part::new(revision);
        used.changes += registry.recent.slots(revision).len();
        for place in 0..registry.recent.slots(revision).len() {
            let slot = &registry.recent.slots(revision)[place];
            if !slot.passes(class) || !range.contains(&slot.change.key) {
                continue;
            }
            // As in a read from disk: what a compaction has passed has no version before it.
            let bare = source.compacted() >= revision;
            let seen_as = Class { prev_kv: class.prev_kv && !bare, ..class };
            match registry.recent.event(source, revision, place, seen_as)? {
                Found::Ready(event) => part.push(event),
                Found::WouldBlock => return Ok((parts, Some(revision))),
            }
        }
        if !part.events.is_empty() {
            used.bytes += part.bytes;
            parts.push(part);
        }
    }
    Ok((parts, None))
}

/// Queues what was collected for a watcher, if it is anything.
fn give(
    registry: &mut Registry,
    key: SlabKey,
    parts: Vec<Part>,
    reaches: i64,
    unfinished: bool,
    wakes: &mut Wakes,
) {
    if parts.is_empty() {
        return;
    }
    let watcher = registry.watchers.at_mut(key);
    watcher.had_events = true;
    let (core, id) = (watcher.stream.clone(), watcher.id);
    let batch = Arc::new(Batch { parts, reaches, unfinished });
    let share = Share::new(id, batch, 0, watcher.fragment_bytes());
    registry.queue_for(&core, Item::Events(share), wakes);
}

/// Queues what was read up to `job.limit`, and puts every watcher where it now belongs.
fn deliver(registry: &mut Registry, source: &dyn EventSource, job: Job, wakes: &mut Wakes) {
    let compacted = source.compacted();
    for reading in job.readings {
        let Some(next) = come_back(registry, &reading) else { continue };
        let key = reading.key;
        if job.epoch != registry.epoch {
            registry.fall_behind(key, next, wakes);
        } else if next.main < compacted {
            end_compacted(registry, key, compacted, wakes);
        } else if reading.stopped_at.is_some() && is_another_fragmenting(registry, key) {
            registry.park(key, next);
        } else {
            settle(registry, reading, job.limit, wakes);
        }
    }
}

/// Takes a watcher back from reading; `None` if it has ended meanwhile.
fn come_back(registry: &mut Registry, reading: &Reading) -> Option<Revision> {
    let place = registry.watchers.find(reading.key)?.place;
    assert_eq!(place, Place::Reading { next: reading.next }, "a step has its watchers to itself");
    registry.leave(reading.key);
    Some(reading.next)
}

/// Whether the stream is in the middle of another watcher's revision, so that this one must not
/// begin to split one too.
fn is_another_fragmenting(registry: &Registry, key: SlabKey) -> bool {
    let watcher = registry.watchers.at(key);
    watcher.stream.queue().fragmenting().is_some_and(|id| id != watcher.id)
}

fn settle(registry: &mut Registry, reading: Reading, limit: i64, wakes: &mut Wakes) {
    let Reading { key, next, parts, stopped_at, .. } = reading;
    let last = parts.last().map_or(0, |part| part.revision);
    let reaches = if limit == registry.current { limit } else { last };
    give(registry, key, parts, reaches, stopped_at.is_some(), wakes);
    match stopped_at {
        Some(next) => registry.fall_behind(key, next, wakes),
        None if limit == registry.current => registry.sync(key, limit + 1),
        // The step may have ended before it came to where this watcher is.
        None => registry.fall_behind(key, next.max(Revision::new(limit + 1, 0)), wakes),
    }
}

/// Reading failed. That is fatal, unless the records were compacted or replaced under it.
fn give_up(
    registry: &mut Registry,
    source: &dyn EventSource,
    job: Job,
    wakes: &mut Wakes,
    fatal: Fatal,
) -> Result<Worked, Fatal> {
    let compacted = source.compacted();
    let explained = job.epoch != registry.epoch
        || job.readings.iter().any(|reading| reading.next.main < compacted);
    for reading in job.readings {
        if let Some(next) = come_back(registry, &reading) {
            registry.fall_behind(reading.key, next, wakes);
        }
    }
    if explained { Ok(Worked::Something) } else { Err(fatal) }
}
