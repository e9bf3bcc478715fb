//! Consumers that do not keep up, revisions that are too large, fragments.

use super::super::limits::{Limits, NORMAL};
use super::super::{RevisionEvents, WatchSpec, Worked};
use super::world::{Op, World, put, spec};

/// 100 bytes.
fn long(letter: char) -> String {
    letter.to_string().repeat(100)
}

#[test]
fn a_slow_stream_is_bounded_and_loses_nothing() {
    let world = World::new();
    let (slow, other) = (world.stream_with(1 << 20, 2000), world.stream());
    slow.watch("a", "");
    slow.watch("b", "");
    other.watch("a", "");
    for at in 0..100 {
        world.put("a", &long('x'));
        world.put("b", &at.to_string());
        assert!(slow.stream.core.queue().weight() < 4000);
        world.catch_up();
    }
    assert_eq!(other.take_by(1).len(), 101);
    assert!(world.hub.counts().behind == 2 && !slow.stream.has_room());
    slow.stream.request_progress();
    let mut lines = Vec::new();
    while world.hub.counts().behind > 0 || !slow.stream.has_room() {
        lines.extend(slow.take_by(1));
        world.catch_up();
    }
    lines.extend(slow.take_by(1));
    let of = |id: i64| lines.iter().filter(|l| l.starts_with(&format!("events {id}"))).count();
    assert_eq!((of(0), of(1), lines.len()), (100, 100, 202));
    slow.stream.request_progress();
    assert_eq!(slow.take(), ["progress -1 at 201"]);
}

#[test]
fn who_is_almost_there_does_not_wait_for_who_is_far_behind() {
    let world = World::with_limits(Limits { step_revisions: 10, ..NORMAL });
    for at in 0..200 {
        world.put("a", &at.to_string());
    }
    let client = world.stream();
    client.stream.create(WatchSpec { start_revision: 2, ..spec("rare", "") });
    client.stream.create(WatchSpec { start_revision: 201, ..spec("a", "") });
    for _ in 0..2 {
        assert_eq!(world.hub.catch_up_step().unwrap(), Worked::Something);
    }
    assert_eq!(client.take().last().unwrap(), "events 1 at 201: a=199@201");
    assert_eq!(world.hub.counts().behind, 1);
    world.catch_up();
    assert_eq!(world.hub.counts().behind, 0);
}

#[test]
fn handing_over_ends_when_it_has_been_much() {
    let world = World::with_limits(Limits { live_bytes: 400, ..NORMAL });
    let other = world.stream();
    other.watch("b", "");
    for at in 0..20 {
        world.put("a", &at.to_string().repeat(50));
    }
    let client = world.stream();
    client.stream.create(WatchSpec { start_revision: 2, ..spec("a", "") });
    assert_eq!(client.take().len(), 1);
    let mut counts = Vec::new();
    while world.hub.catch_up_step().unwrap() == Worked::Something {
        counts.push(client.take().iter().map(|line| line.matches('=').count()).sum::<usize>());
    }
    assert!(counts.iter().all(|count| *count < 10), "{counts:?}");
    assert_eq!(counts.iter().sum::<usize>(), 20, "{counts:?}");
}

#[test]
fn compaction_ends_a_watcher_that_is_too_far_behind() {
    let world = World::new();
    let slow = world.stream_with(1 << 20, 1000);
    slow.watch("a", "");
    for _ in 0..20 {
        world.put("a", &long('x'));
    }
    world.compact(21);
    world.sweep();
    world.catch_up();
    let mut lines = slow.take();
    world.catch_up();
    lines.extend(slow.take());
    assert_eq!(lines.first().map(String::as_str), Some("created 0 at 1"));
    assert_eq!(lines.last().map(String::as_str), Some("compacted 0 to 21"));
    world.put("a", "1");
    slow.stream.cancel(0);
    assert_eq!(slow.take(), Vec::<String>::new());
}

#[test]
fn a_revision_with_very_many_changes_comes_by_catching_up() {
    let world = World::new();
    let client = world.stream();
    client.watch("k", "l");
    client.watch("other", "");
    world.put("k", "first");
    let ops: Vec<Op> = (0..5000).map(|at| put(&format!("k{at:04}"), "v")).collect();
    world.commit(&ops);
    assert_eq!(client.take().len(), 3);
    world.catch_up();
    let line = client.take().pop().expect("the events");
    assert_eq!((line.matches('=').count(), world.hub.counts().behind), (5000, 0));
    let events = world.apply(&[put("k", "last")]).unwrap();
    let stub = RevisionEvents { changes: Vec::new(), complete: false, ..events };
    world.publish(vec![stub]);
    world.put("other", "1");
    world.catch_up();
    assert_eq!(client.take(), ["events 0 at 5: k=last@4", "events 1 at 5: other=1@5"]);
}

#[test]
fn what_is_not_in_memory_comes_by_catching_up() {
    let world = World::new();
    world.put("a", "1");
    let client = world.stream();
    client.stream.create(WatchSpec { prev_kv: true, ..spec("a", "") });
    client.watch("a", "");
    world.evict_below(3);
    world.put("a", "2");
    let all = ["created 0 at 2", "created 1 at 2", "events 1 at 3: a=2@3"];
    assert_eq!(client.take(), all);
    world.catch_up();
    assert_eq!(client.take(), ["events 0 at 3: a=2@3 was 1@2"]);
    world.put("a", "3");
    assert_eq!(client.take().len(), 2);
}

#[test]
fn fragments_are_marked_and_follow_each_other() {
    let world = World::new();
    let client = world.stream_with(250, 1 << 20);
    client.stream.create(WatchSpec { fragment: true, ..spec("a", "z") });
    client.watch("a", "z");
    let five = ["a", "b", "c", "d", "e"].map(|key| put(key, &long('x')));
    world.commit(&five);
    world.put("f", "1");
    let mut lines = client.take();
    lines.sort();
    let expected = [
        "created 0 at 1",
        "created 1 at 1",
        "events 0 at 2: a=<100>@2, b=<100>@2, more",
        "events 0 at 2: c=<100>@2, d=<100>@2, more",
        "events 0 at 2: e=<100>@2",
        "events 0 at 3: f=1@3",
        "events 1 at 2: a=<100>@2, b=<100>@2, c=<100>@2, d=<100>@2, e=<100>@2",
        "events 1 at 3: f=1@3",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_revision_caught_up_in_parts_is_not_interrupted() {
    let world = World::new();
    let ops: Vec<Op> = (0..50).map(|at| put(&format!("k{at:02}"), &long('x'))).collect();
    world.commit(&ops);
    let client = world.stream_with(1000, 1 << 20);
    client.watch("other", "");
    let parts = WatchSpec { fragment: true, start_revision: 1, ..spec("k", "l") };
    client.stream.create(parts.clone());
    client.stream.create(parts);
    assert_eq!(world.hub.catch_up_step().unwrap(), Worked::Something);
    world.put("other", "1");
    client.watch("third", "");
    client.stream.cancel(3);
    world.catch_up();
    let lines = client.take();
    let place = |text: &str| lines.iter().position(|line| line.starts_with(text)).expect(text);
    let of = |id: i64| {
        let head = format!("events {id} ");
        let mine: Vec<usize> = (0..lines.len()).filter(|l| lines[*l].starts_with(&head)).collect();
        assert_eq!(mine.last().unwrap() - mine[0] + 1, mine.len(), "nothing between fragments");
        let more = |line: &usize| lines[*line].ends_with(", more");
        assert!(mine[..mine.len() - 1].iter().all(more) && !more(mine.last().unwrap()));
        mine.iter().map(|line| lines[*line].matches('=').count()).sum::<usize>()
    };
    assert_eq!((of(1), of(2)), (50, 50));
    assert!(
        place("events 0 at 3") < place("created 3") && place("created 3") < place("canceled 3")
    );
}

#[test]
fn a_watcher_canceled_within_a_revision_lets_the_others_go_on() {
    let world = World::new();
    let ops: Vec<Op> = (0..50).map(|at| put(&format!("k{at:02}"), &long('x'))).collect();
    world.commit(&ops);
    let client = world.stream_with(1000, 1 << 20);
    client.stream.create(WatchSpec { fragment: true, start_revision: 1, ..spec("k", "l") });
    client.watch("other", "");
    assert_eq!(world.hub.catch_up_step().unwrap(), Worked::Something);
    world.put("other", "1");
    client.stream.cancel(0);
    world.catch_up();
    let lines = client.take();
    let last: Vec<_> = lines[lines.len() - 2..].iter().map(String::as_str).collect();
    assert_eq!(last, ["canceled 0", "events 1 at 3: other=1@3"]);
}
