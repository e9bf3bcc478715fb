//! Catching up: a bounded step reads stored changes for watchers that are behind.
//!
//! ```text
//!  lock    pick up to 512 watchers within 1000 revisions of the furthest behind
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
    epoch: u64,
    limits: Limits,
}

pub(super) fn step(shared: &Shared) -> Result<Worked, Fatal> {
    let source = shared.source.as_ref();
    let mut wakes = Wakes::default();
    let picked = pick(&mut shared.lock(), source, &mut wakes);
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

/// Takes those furthest behind out of their set. Also serves, here and now, whoever needs nothing
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
        epoch: registry.epoch,
        limits: registry.limits,
    };
    let mut changes = 0;
    let limits = job.limits;
    for looked_at in 0..limits.step_watchers {
        let first = registry.furthest_behind();
        let Some((next, key)) = first.filter(|(next, _)| next.main <= job.limit) else {
            return Ok((job, looked_at));
        };
        assert!(next.main <= registry.current, "who is behind has something to catch up with");
        if changes > limits.hand_over_changes {
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
        if hand_over(registry, source, key, next, &mut changes, wakes)? {
            continue;
        }
        job.limit = job.limit.min(next.main + limits.step_revisions - 1);
        job.readings.push(Reading::new(key, registry.watchers.at(key), next));
        registry.begin_reading(key, next);
    }
    Ok((job, limits.step_watchers))
}

fn end_compacted(registry: &mut Registry, key: SlabKey, compacted: i64, wakes: &mut Wakes) {
    let id = registry.watchers.at(key).id;
    let last = Delivery::Compacted { id, compact_revision: compacted };
    wakes.append(registry.end(key, last));
}

/// Gives a watcher that is nowhere the rest from the recent revisions, and makes it synced. False
/// if something it needs is not in memory. Adds the changes it looked at to `looked_at`.
fn hand_over(
    registry: &mut Registry,
    source: &dyn EventSource,
    key: SlabKey,
    next: Revision,
    looked_at: &mut usize,
    wakes: &mut Wakes,
) -> Result<bool, Fatal> {
    if next.sub != 0 || !registry.recent.reaches_back_to(next.main) {
        return Ok(false);
    }
    let (range, class) = {
        let watcher = registry.watchers.at(key);
        (watcher.range.clone(), watcher.class)
    };
    let mut parts: Vec<Part> = Vec::new();
    for revision in next.main..=registry.current {
        let mut part = Part::new(revision);
        *looked_at += registry.recent.slots(revision).len();
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
                Found::WouldBlock => return Ok(false),
            }
        }
        if !part.events.is_empty() {
            parts.push(part);
        }
    }
    give(registry, key, parts, registry.current, false, wakes);
    registry.sync(key, registry.current + 1);
    Ok(true)
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
