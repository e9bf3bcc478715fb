//! Publishing: changes that have just become visible go to the synced watchers.
//!
//! Runs on the apply thread, so it never reads from disk: a group that would need it is set aside
//! and catches up. A revision with very many changes sets everyone aside unmatched.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::batch::{Batch, Part, Share};
use super::event::Found;
use super::queue::{Item, Wakes};
use super::registry::{Class, Registry};
use super::slab::SlabKey;
use super::{EventSource, RevisionEvents, Shared};
use crate::Fatal;

/// Which changes touch a group: (revision, place within it), ascending.
type Hits = Vec<(i64, usize)>;

/// What a class of a group's watchers is given of one lock section.
struct Given {
    batch: Arc<Batch>,
    /// From this revision on they must catch up instead.
    stopped_at: Option<i64>,
}

pub(super) fn publish(shared: &Shared, batch: Vec<RevisionEvents>) -> Result<(), Fatal> {
    let mut wakes = Wakes::default();
    let mut batch = batch.into_iter().peekable();
    while batch.peek().is_some() {
        let mut registry = shared.lock();
        wakes.append(publish_section(&mut registry, shared.source.as_ref(), &mut batch)?);
    }
    wakes.fire();
    Ok(())
}

/// What one lock section publishes: some small revisions, or a single large one.
fn publish_section(
    registry: &mut Registry,
    source: &dyn EventSource,
    batch: &mut std::iter::Peekable<std::vec::IntoIter<RevisionEvents>>,
) -> Result<Wakes, Fatal> {
    let (before, limits) = (registry.current, registry.limits);
    if let Some(large) = batch.next_if(|events| !events.is_live(&limits)) {
        advance(registry, &large);
        return Ok(registry.set_everyone_aside(large.revision));
    }
    let idle = registry.watchers.len() == 0;
    for _ in 0..limits.publish_revisions {
        let Some(events) = batch.next_if(|events| events.is_live(&limits)) else {
            break;
        };
        advance(registry, &events);
        if !idle {
            registry.recent.push(events);
        }
    }
    if idle {
        registry.recent.clear();
        return Ok(Wakes::default());
    }
    let wakes = deliver(registry, source, before + 1);
    registry.recent.trim(&limits);
    wakes
}

fn advance(registry: &mut Registry, events: &RevisionEvents) {
    assert_eq!(events.revision, registry.current + 1, "revisions are published without a gap");
    assert!(!events.complete || !events.changes.is_empty(), "a revision changes something");
    registry.current = events.revision;
}

/// Matches the revisions from `first` to the current one, and queues their events.
fn deliver(registry: &mut Registry, source: &dyn EventSource, first: i64) -> Result<Wakes, Fatal> {
    let mut wakes = Wakes::default();
    for (group, hits) in matches(registry, first) {
        // A group may end while another's watchers are set aside, never while it is iterated.
        let classes: Vec<Class> = registry.groups.at(group).classes.keys().copied().collect();
        for class in classes {
            let given = gather(registry, source, class, &hits)?;
            fan_out(registry, group, class, &given, &mut wakes);
        }
    }
    Ok(wakes)
}

fn matches(registry: &Registry, first: i64) -> BTreeMap<SlabKey, Hits> {
    let mut touched: BTreeMap<SlabKey, Hits> = BTreeMap::new();
    for revision in first..=registry.current {
        if registry.drop_events && revision % 50 == 0 {
            continue;
        }
        for (place, slot) in registry.recent.slots(revision).iter().enumerate() {
            registry.matcher.holding(&slot.change.key, &mut |group| {
                touched.entry(group).or_default().push((revision, place));
            });
        }
    }
    touched
}

/// The events of `hits` as a class sees them, as far as memory has them.
fn gather(
    registry: &mut Registry,
    source: &dyn EventSource,
    class: Class,
    hits: &Hits,
) -> Result<Given, Fatal> {
    let mut parts: Vec<Part> = Vec::new();
    let mut bytes = 0;
    let mut stopped_at = None;
    for &(revision, place) in hits {
        if !registry.recent.slots(revision)[place].passes(class) {
            continue;
        }
        let found = registry.recent.event(source, revision, place, class)?;
        let Found::Ready(event) = found else {
            stopped_at = Some(revision);
            break;
        };
        bytes += event.len();
        if bytes > registry.limits.live_bytes
            && parts.last().is_some_and(|part| part.revision < revision)
        {
            stopped_at = Some(revision);
            break;
        }
        if parts.last().is_none_or(|part| part.revision < revision) {
            parts.push(Part::new(revision));
        }
        parts.last_mut().expect("one was just pushed").push(event);
    }
    // Whole revisions only.
    if parts.last().is_some_and(|part| Some(part.revision) == stopped_at) {
        parts.pop();
    }
    let reaches = parts.last().map_or(0, |part| part.revision);
    Ok(Given { batch: Arc::new(Batch { parts, reaches, unfinished: false }), stopped_at })
}

/// Queues a group's share for each of its watchers of one class.
fn fan_out(
    registry: &mut Registry,
    group: SlabKey,
    class: Class,
    given: &Given,
    wakes: &mut Wakes,
) {
    let mut aside = Vec::new();
    let Registry { groups, watchers, current, .. } = registry;
    for key in &groups.at(group).classes[&class] {
        let watcher = watchers.at_mut(*key);
        let from = watcher.synced_from();
        let first = given.batch.parts.partition_point(|part| part.revision < from);
        if let Some(part) = given.batch.parts.get(first) {
            let mut queue = watcher.stream.queue();
            if queue.weight() >= watcher.stream.limits.queue_bytes {
                aside.push((*key, part.revision));
                continue;
            }
            let (batch, fragment) = (given.batch.clone(), watcher.fragment_bytes());
            if queue.push(Item::Events(Share::new(watcher.id, batch, first, fragment))) {
                wakes.stream(&watcher.stream);
            }
            watcher.had_events = true;
        }
        if let Some(stopped_at) = given.stopped_at
            && from <= *current
        {
            aside.push((*key, stopped_at.max(from)));
        }
    }
    for (key, next) in aside {
        registry.set_aside(key, next, wakes);
    }
}
