//! What publishing costs; printed, and bounded only where a bound would show a wrong algorithm.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::super::Delivery;
use super::world::{Client, World, put};

const WATCHERS: usize = 1000;
const PUTS: usize = 200;

/// Publishes `PUTS` puts, lets every client take them, and prints what an event costs.
fn measure(name: &str, world: &World, clients: &[Client], events_each: usize) {
    let batch: Vec<_> = (0..PUTS)
        .map(|at| world.apply(&[put(&format!("k{:04}", at % WATCHERS), "value")]).unwrap())
        .collect();
    world.raise_published();
    let start = Instant::now();
    for events in batch {
        world.hub.publish(vec![events]).unwrap();
    }
    let published = start.elapsed();
    let mut taken = 0;
    for client in clients {
        while let Some(delivery) = client.stream.next(1 << 20) {
            if let Delivery::Events { events, .. } = delivery {
                taken += events.len();
            }
        }
    }
    let all = start.elapsed();
    assert_eq!(taken, PUTS * events_each);
    println!(
        "{name}: {} ns to publish a put, {} ns an event to publish, {} ns to take",
        published.as_nanos() / PUTS as u128,
        published.as_nanos() / taken as u128,
        (all - published).as_nanos() / taken as u128,
    );
}

#[test]
fn a_thousand_streams_on_distinct_keys() {
    let world = World::new();
    let clients: Vec<_> = (0..WATCHERS)
        .map(|at| {
            let client = world.stream();
            client.watch(&format!("k{at:04}"), "");
            client
        })
        .collect();
    measure("1,000 keys", &world, &clients, 1);
    assert_eq!(world.source.memory_reads.load(Ordering::Relaxed), PUTS);
}

#[test]
fn a_thousand_streams_on_distinct_prefixes() {
    let world = World::new();
    let clients: Vec<_> = (0..WATCHERS)
        .map(|at| {
            let client = world.stream();
            client.watch(&format!("k{at:04}"), &format!("k{at:04}~"));
            client
        })
        .collect();
    measure("1,000 prefixes", &world, &clients, 1);
}

#[test]
fn a_thousand_streams_on_one_range_share_matching_and_bytes() {
    let world = World::new();
    let clients: Vec<_> = (0..WATCHERS)
        .map(|_| {
            let client = world.stream();
            client.watch("k", "l");
            client
        })
        .collect();
    measure("1,000 on one range", &world, &clients, WATCHERS);
    assert_eq!(world.source.memory_reads.load(Ordering::Relaxed), PUTS);
    world.put("k", "shared");
    let bytes = |client: &Client| match client.stream.next(1 << 20) {
        Some(Delivery::Events { events, .. }) => events[0].as_ptr(),
        other => panic!("{other:?}"),
    };
    assert_eq!(bytes(&clients[0]), bytes(&clients[WATCHERS - 1]));
}

#[test]
fn a_thousand_watchers_of_one_stream() {
    let world = World::new();
    let client = world.stream_with(1 << 20, 1 << 30);
    (0..WATCHERS).for_each(|_| client.watch("k", "l"));
    measure("1,000 of one stream", &world, &[client], WATCHERS);
}
