//! What happens while a step reads without the hub's lock.

use super::super::{WatchSpec, Worked};
use super::world::{World, delete, put, spec};

/// A world at revision 11 with one watcher on "a" from revision 2, which has to read.
fn behind() -> (World, super::world::Client) {
    let world = World::new();
    for at in 0..10 {
        world.put("a", &at.to_string());
    }
    let client = world.stream();
    client.stream.create(WatchSpec { start_revision: 2, ..spec("a", "") });
    (world, client)
}

#[test]
fn what_is_published_during_a_read_comes_once_and_after() {
    let (world, client) = behind();
    let during = world.clone();
    world.when_reading(move || {
        during.put("a", "new");
        during.put("b", "new");
    });
    assert_eq!(world.hub.catch_up_step().unwrap(), Worked::Something);
    assert_eq!(world.hub.counts().behind, 1);
    world.put("a", "newer");
    world.catch_up();
    world.put("a", "newest");
    let lines = client.take();
    let values: Vec<_> =
        lines[1..].iter().flat_map(|line| line.split(['=', '@']).skip(1).step_by(2)).collect();
    let expected = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "new", "newer", "newest"];
    assert_eq!(values, expected, "{lines:?}");
}

#[test]
fn a_writer_that_never_pauses_does_not_keep_a_watcher_behind() {
    let (world, client) = behind();
    let mut steps = 0;
    while world.hub.counts().behind > 0 {
        let during = world.clone();
        world.when_reading(move || during.put("a", "again"));
        assert_eq!(world.hub.catch_up_step().unwrap(), Worked::Something);
        steps += 1;
        assert!(steps < 5, "the recent revisions close the last gap");
    }
    assert_eq!(client.take()[1].matches('=').count(), 11);
}

#[test]
fn compaction_during_a_read_is_noticed() {
    let (world, client) = behind();
    let during = world.clone();
    world.when_reading(move || {
        during.compact(8);
        during.sweep();
    });
    world.catch_up();
    assert_eq!(client.take(), ["created 0 at 11", "compacted 0 to 8"]);
    assert_eq!(world.hub.counts().watchers, 0);
}

/// One transaction may write a key and delete it; of these, compaction to its revision leaves only
/// the deletion.
#[test]
fn what_a_compaction_to_this_revision_takes_during_a_read_is_left_out() {
    let world = World::new();
    world.commit(&[put("a", "1"), delete("a")]);
    let client = world.stream();
    client.stream.create(WatchSpec { start_revision: 2, ..spec("a", "") });
    let during = world.clone();
    world.when_reading_a_record(move || {
        during.compact(2);
        during.sweep();
    });
    world.catch_up();
    let lines = client.take();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].starts_with("events 0 at 2: a"), "{lines:?}");
}

#[test]
fn what_is_compacted_before_it_is_published_is_no_error() {
    let world = World::new();
    let client = world.stream();
    client.watch("a", "");
    let batch = ["1", "2", "3"].map(|value| world.apply(&[put("a", value)]).unwrap());
    world.raise_published();
    world.compact(3);
    world.sweep();
    world.publish(batch.to_vec());
    world.catch_up();
    assert_eq!(client.take(), ["created 0 at 1", "compacted 0 to 3"]);
}

#[test]
fn cancellation_and_its_id_may_come_during_a_read() {
    let (world, client) = behind();
    let client = std::sync::Arc::new(client);
    let (during, same) = (world.clone(), client.clone());
    world.when_reading(move || {
        same.stream.cancel(0);
        same.stream.create(WatchSpec { id: 0, ..spec("a", "") });
        during.put("a", "new");
    });
    world.catch_up();
    let expected = ["created 0 at 11", "canceled 0", "created 1 at 11", "events 1 at 12: a=new@12"];
    assert_eq!(client.take(), expected);
}

#[test]
fn a_jump_of_the_store_is_caught_up_with() {
    let world = World::new();
    let client = world.stream();
    client.watch("a", "");
    client.stream.create(WatchSpec { start_revision: 4, ..spec("a", "") });
    client.stream.create(WatchSpec { start_revision: 9, ..spec("a", "") });
    world.put("a", "1");
    for value in ["2", "3", "4"] {
        world.apply(&[put("a", value)]);
    }
    world.raise_published();
    world.hub.reset_to_catch_up();
    assert_eq!(world.hub.counts().behind, 2);
    client.stream.request_progress();
    world.catch_up();
    client.stream.request_progress();
    world.put("a", "5");
    let lines = client.take();
    let of =
        |id: i64| lines.iter().filter(move |l| l.starts_with(&format!("events {id} "))).cloned();
    let expected = ["events 0 at 5: a=1@2, a=2@3, a=3@4, a=4@5", "events 0 at 6: a=5@6"];
    assert_eq!(of(0).collect::<Vec<_>>(), expected);
    assert_eq!(of(1).collect::<Vec<_>>(), ["events 1 at 5: a=3@4, a=4@5", "events 1 at 6: a=5@6"]);
    assert_eq!(of(2).count(), 0);
    assert!(!lines.iter().any(|line| line.starts_with("progress")), "a watcher is in the future");
}

#[test]
fn a_jump_during_a_read_throws_the_read_away() {
    let (world, client) = behind();
    let during = world.clone();
    world.when_reading(move || {
        during.apply(&[put("a", "new")]);
        during.raise_published();
        during.hub.reset_to_catch_up();
    });
    assert_eq!(world.hub.catch_up_step().unwrap(), Worked::Something);
    assert_eq!(client.take(), ["created 0 at 11"]);
    world.catch_up();
    assert_eq!(client.take()[0].matches('=').count(), 11);
}
