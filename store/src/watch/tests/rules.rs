//! The rules of watching, one by one.

use super::super::WatchSpec;
use super::world::{World, delete, put, spec};

#[test]
fn the_planted_fault_drops_a_revision() {
    let world = World::new();
    world.hub.plant_dropped_events();
    let client = world.stream();
    client.watch("a", "");
    let mut lines = client.take();
    for _ in 0..60 {
        world.put("a", "v");
        lines.extend(client.take());
    }
    assert_eq!(lines.len(), 60);
    assert!(!lines.contains(&"events 0 at 50: a=v@50".to_string()));
}

#[test]
fn ids_begin_at_zero_and_skip_those_in_use() {
    let world = World::new();
    let client = world.stream();
    client.stream.create(WatchSpec { id: 1, ..spec("a", "") });
    client.watch("a", "");
    client.watch("a", "");
    client.stream.create(WatchSpec { id: 2, ..spec("a", "") });
    client.stream.create(WatchSpec { id: -7, ..spec("a", "") });
    client.stream.cancel(1);
    client.stream.create(WatchSpec { id: 1, ..spec("a", "") });
    client.watch("a", "");
    let expected = [
        "created 1 at 1",
        "created 0 at 1",
        "created 2 at 1",
        "refused DuplicateId",
        "created -7 at 1",
        "canceled 1",
        "created 1 at 1",
        "created 3 at 1",
    ];
    assert_eq!(client.take(), expected);
}

#[test]
fn refusals_stand_in_the_order_of_requests() {
    let world = World::new();
    let client = world.stream();
    client.watch("b", "a");
    client.watch("a", "b");
    client.stream.create(WatchSpec { start_revision: -1, ..spec("b", "a") });
    client.watch("b", "b");
    client.watch("", "\0");
    let expected = [
        "refused EmptyRange",
        "created 0 at 1",
        "refused StartCompacted",
        "refused EmptyRange",
        "created 1 at 1",
    ];
    assert_eq!(client.take(), expected);
}

#[test]
fn ranges_get_what_they_hold() {
    let world = World::new();
    let client = world.stream();
    for (key, end) in [("b", ""), ("b", "c"), ("b", "\0"), ("", "\0"), ("", "")] {
        client.watch(key, end);
    }
    client.take();
    world.put("a", "1");
    assert_eq!(client.take(), ["events 3 at 2: a=1@2"]);
    world.put("b", "1");
    let mut all = client.take();
    all.sort();
    let b = |id: i64| format!("events {id} at 3: b=1@3");
    assert_eq!(all, [b(0), b(1), b(2), b(3)]);
    world.put("c", "1");
    let mut all = client.take();
    all.sort();
    assert_eq!(all, ["events 2 at 4: c=1@4", "events 3 at 4: c=1@4"]);
}

#[test]
fn a_start_in_the_past_replays_then_goes_on_live() {
    let world = World::new();
    for value in ["1", "2", "3"] {
        world.put("a", value);
    }
    let client = world.stream();
    client.stream.create(WatchSpec { start_revision: 3, ..spec("a", "") });
    world.put("b", "x");
    world.catch_up();
    world.put("a", "4");
    let expected = ["created 0 at 4", "events 0 at 6: a=2@3, a=3@4, a=4@6"];
    assert_eq!(client.take(), expected);
}

#[test]
fn replay_says_how_far_it_reaches() {
    let world = World::new();
    world.put("a", "1");
    world.put("b", "1");
    let client = world.stream();
    client.stream.create(WatchSpec { start_revision: 1, ..spec("a", "") });
    world.catch_up();
    assert_eq!(client.take(), ["created 0 at 3", "events 0 at 3: a=1@2"]);
}

#[test]
fn a_start_in_the_future_is_silent_until_then() {
    let world = World::new();
    let client = world.stream();
    let future = WatchSpec { start_revision: 4, progress_notify: true, ..spec("a", "") };
    client.stream.create(future);
    assert_eq!(client.take(), ["created 0 at 1"]);
    for value in ["1", "2"] {
        world.put("a", value);
        world.catch_up();
        client.stream.request_progress();
        world.hub.tick_progress();
    }
    assert_eq!(client.take(), Vec::<String>::new());
    world.put("a", "3");
    client.stream.request_progress();
    assert_eq!(client.take(), ["events 0 at 4: a=3@4", "progress -1 at 4"]);
}

#[test]
fn a_batch_across_the_start_gives_its_later_part() {
    let world = World::new();
    let client = world.stream();
    client.stream.create(WatchSpec { start_revision: 3, ..spec("a", "") });
    client.watch("a", "");
    let batch = ["1", "2", "3"].map(|value| world.apply(&[put("a", value)]).unwrap());
    world.publish(batch.to_vec());
    let mut all = client.take();
    all.sort();
    let expected = [
        "created 0 at 1",
        "created 1 at 1",
        "events 0 at 4: a=2@3, a=3@4",
        "events 1 at 4: a=1@2, a=2@3, a=3@4",
    ];
    assert_eq!(all, expected);
}

#[test]
fn a_compacted_start_is_created_and_then_compacted() {
    let world = World::new();
    for value in ["1", "2", "3"] {
        world.put("a", value);
    }
    world.compact(3);
    world.sweep();
    let client = world.stream();
    client.stream.create(WatchSpec { start_revision: 2, ..spec("a", "") });
    client.stream.create(WatchSpec { start_revision: 3, ..spec("a", "") });
    client.stream.cancel(0);
    world.catch_up();
    let expected =
        ["created 0 at 4", "compacted 0 to 3", "created 1 at 4", "events 1 at 4: a=2@3, a=3@4"];
    assert_eq!(client.take(), expected);
}

#[test]
fn a_transaction_arrives_whole_and_in_its_own_order() {
    let world = World::new();
    let client = world.stream();
    client.watch("a", "z");
    world.commit(&[put("c", "1"), put("a", "1"), put("zz", "1"), put("b", "1")]);
    assert_eq!(client.take(), ["created 0 at 1", "events 0 at 2: c=1@2, a=1@2, b=1@2"]);
    world.commit(&[delete("b"), delete("nothing"), put("a", "2")]);
    assert_eq!(client.take_by(1), ["events 0 at 3: b=-@3, a=2@3"]);
}

#[test]
fn filters_leave_out_but_progress_goes_on() {
    let world = World::new();
    let client = world.stream();
    let spec = |no_put, no_delete| WatchSpec {
        no_put,
        no_delete,
        progress_notify: true,
        ..spec("a", "z")
    };
    client.stream.create(spec(true, false));
    client.stream.create(spec(false, true));
    client.stream.create(spec(true, true));
    client.take();
    world.put("a", "1");
    assert_eq!(client.take(), ["events 1 at 2: a=1@2"]);
    world.hub.tick_progress();
    assert_eq!(client.take(), ["progress 0 at 2", "progress 2 at 2"]);
    world.delete("a");
    assert_eq!(client.take(), ["events 0 at 3: a=-@3"]);
    client.stream.request_progress();
    assert_eq!(client.take(), ["progress -1 at 3"]);
}

#[test]
fn the_version_before_comes_with_all_but_creations() {
    let world = World::new();
    let client = world.stream();
    client.stream.create(WatchSpec { prev_kv: true, ..spec("a", "") });
    client.watch("a", "");
    let ops = [put("a", "1"), put("a", "2"), delete("a"), put("a", "3")];
    ops.iter().for_each(|op| world.commit(std::slice::from_ref(op)));
    let late = world.stream();
    late.stream.create(WatchSpec { prev_kv: true, start_revision: 2, ..spec("a", "") });
    world.catch_up();
    let with = "a=1@2, a=2@3 was 1@2, a=-@4 was 2@3, a=3@5";
    assert_eq!(late.take(), ["created 0 at 5".into(), format!("events 0 at 5: {with}")]);
    let mut live = client.take();
    let mut expected = vec!["created 0 at 1".to_string(), "created 1 at 1".into()];
    for (id, list) in [(0, with), (1, "a=1@2, a=2@3, a=-@4, a=3@5")] {
        let events = list.split(", ").enumerate();
        expected.extend(events.map(|(at, event)| format!("events {id} at {}: {event}", at + 2)));
    }
    live.sort();
    expected.sort();
    assert_eq!(live, expected);
}

#[test]
fn a_version_before_the_compacted_revision_is_left_out() {
    for memory in [false, true] {
        let world = World::new();
        let client = world.stream();
        client.watch("x", "");
        for value in ["1", "2", "3"] {
            world.put("a", value);
        }
        world.compact(3);
        if !memory {
            world.hub.reset_to_catch_up();
        }
        client.stream.create(WatchSpec { prev_kv: true, start_revision: 3, ..spec("a", "") });
        world.catch_up();
        let expected = ["created 0 at 1", "created 1 at 4", "events 1 at 4: a=2@3, a=3@4 was 2@3"];
        assert_eq!(client.take(), expected, "from memory: {memory}");
    }
}

#[test]
fn manual_progress_waits_for_everyone_and_overtakes_nothing() {
    let world = World::new();
    let client = world.stream();
    client.stream.request_progress();
    assert_eq!(client.take(), Vec::<String>::new());
    client.watch("a", "");
    client.stream.request_progress();
    world.put("a", "1");
    client.stream.request_progress();
    let expected =
        ["created 0 at 1", "progress -1 at 1", "events 0 at 2: a=1@2", "progress -1 at 2"];
    assert_eq!(client.take(), expected);
    client.stream.create(WatchSpec { start_revision: 1, ..spec("b", "") });
    client.stream.request_progress();
    world.catch_up();
    assert_eq!(client.take(), ["created 1 at 2"]);
    client.stream.request_progress();
    assert_eq!(client.take(), ["progress -1 at 2"]);
}

#[test]
fn periodic_progress_is_left_out_once_after_events() {
    let world = World::new();
    let client = world.stream();
    client.stream.create(WatchSpec { progress_notify: true, ..spec("a", "") });
    client.watch("a", "");
    world.put("b", "1");
    world.hub.tick_progress();
    assert_eq!(client.take(), ["created 0 at 1", "created 1 at 1", "progress 0 at 2"]);
    world.put("a", "1");
    client.take();
    world.hub.tick_progress();
    assert_eq!(client.take(), Vec::<String>::new());
    world.hub.tick_progress();
    assert_eq!(client.take(), ["progress 0 at 3"]);
    let late = WatchSpec { progress_notify: true, start_revision: 1, ..spec("c", "") };
    client.stream.create(late);
    world.hub.tick_progress();
    assert_eq!(client.take(), ["created 2 at 3", "progress 0 at 3"]);
}

#[test]
fn a_canceled_watcher_is_answered_once_and_silent_after() {
    let world = World::new();
    let client = world.stream();
    client.watch("a", "");
    client.stream.create(WatchSpec { start_revision: 1, ..spec("a", "") });
    world.put("a", "1");
    client.stream.cancel(0);
    client.stream.cancel(0);
    client.stream.cancel(9);
    client.stream.cancel(1);
    world.put("a", "2");
    world.catch_up();
    let expected =
        ["created 0 at 1", "created 1 at 1", "events 0 at 2: a=1@2", "canceled 0", "canceled 1"];
    assert_eq!(client.take(), expected);
    assert_eq!(world.hub.counts().watchers, 0);
}

#[test]
fn a_dropped_stream_leaves_nothing_behind() {
    let world = World::new();
    let (client, other) = (world.stream(), world.stream());
    client.watch("a", "");
    client.watch("a", "z");
    client.stream.create(WatchSpec { start_revision: 1, ..spec("a", "") });
    other.watch("a", "");
    drop(client);
    world.put("a", "1");
    assert!(!world.hub.has_catch_up_work());
    assert_eq!(other.take(), ["created 0 at 1", "events 0 at 2: a=1@2"]);
    let counts = world.hub.counts();
    assert_eq!((counts.streams, counts.watchers, counts.behind), (1, 1, 0));
}

#[test]
fn a_consumer_is_woken_once_until_it_has_drained() {
    let world = World::new();
    let client = world.stream();
    client.watch("a", "z");
    assert_eq!(client.wakeups(), 1);
    let batch = [put("a", "1"), put("b", "1")].map(|op| world.apply(&[op]).unwrap());
    world.publish(batch.to_vec());
    world.put("c", "1");
    assert_eq!(client.wakeups(), 1);
    client.take();
    world.put("c", "2");
    world.put("c", "3");
    assert_eq!(client.wakeups(), 2);
}
