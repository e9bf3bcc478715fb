//! Watches: events, filters, the past, progress, and going on after a member was killed.

use std::time::Duration;

use etcd_client::{
    Client, CompactionOptions, Event, EventType, WatchFilterType, WatchOptions, WatchResponse,
    WatchStream,
};

use crate::access::{Access, Login};
use crate::check::{Failure, Outcome, equal, holds, key, restart, revision};

async fn message(stream: &mut WatchStream) -> Result<WatchResponse, Failure> {
    Ok(stream.message().await?.ok_or("the stream has ended")?)
}

async fn watch(
    client: &mut Client,
    name: &str,
    options: WatchOptions,
) -> Result<WatchStream, Failure> {
    let mut stream = client.watch(key(name), Some(options)).await?;
    let created = message(&mut stream).await?;
    holds(
        &format!("created, {}", created.cancel_reason()),
        created.created() && !created.canceled(),
    )?;
    Ok(stream)
}

/// The next events, from as many messages as it takes.
async fn next_events(stream: &mut WatchStream, count: usize) -> Result<Vec<Event>, Failure> {
    let mut events = Vec::new();
    while events.len() < count {
        events.extend_from_slice(message(stream).await?.events());
    }
    Ok(events)
}

fn texts(events: &[Event]) -> Vec<&str> {
    let text = |event: &Event| {
        event.kv().and_then(|kv| kv.value_str().ok().map(|s| String::leak(s.to_owned()) as &str))
    };
    events.iter().filter_map(text).collect()
}

pub async fn events(access: &Access) -> Outcome {
    let mut client = access.client().await?;
    let all = WatchOptions::new().with_prefix().with_prev_key();
    let mut stream = watch(&mut client, "w/", all).await?;
    let deletes = WatchOptions::new().with_prefix().with_filters([WatchFilterType::NoPut]);
    let mut deletes_only = watch(&mut client, "w/", deletes).await?;
    client.put(key("w/1"), "a", None).await?;
    client.put(key("w/1"), "b", None).await?;
    client.delete(key("w/1"), None).await?;
    let seen = next_events(&mut stream, 3).await?;
    equal(
        seen.iter().map(Event::event_type).collect::<Vec<_>>(),
        vec![EventType::Put, EventType::Put, EventType::Delete],
    )?;
    equal(texts(&seen), vec!["a", "b", ""])?;
    equal(seen[0].prev_kv().is_none(), true)?;
    equal(seen[2].prev_kv().map(|kv| kv.value().to_vec()), Some(b"b".to_vec()))?;
    let only = next_events(&mut deletes_only, 1).await?;
    equal(only[0].event_type(), EventType::Delete)?;
    // A second watch on the stream gets an id of its own, and each is cancelled by its own.
    stream.watch(key("other"), Some(WatchOptions::new().with_watch_id(7))).await?;
    equal(message(&mut stream).await?.watch_id(), 7)?;
    stream.cancel(7).await?;
    let cancelled = message(&mut stream).await?;
    equal((cancelled.watch_id(), cancelled.canceled()), (7, true))
}

pub async fn of_the_past(access: &Access) -> Outcome {
    let mut client = access.client().await?;
    let first = revision(client.put(key("past"), "1", None).await?.header());
    client.put(key("past"), "2", None).await?;
    let options = WatchOptions::new().with_start_revision(first);
    let mut stream = watch(&mut client, "past", options.clone()).await?;
    equal(texts(&next_events(&mut stream, 2).await?), vec!["1", "2"])?;
    let last = revision(client.put(key("past"), "3", None).await?.header());
    let physical = CompactionOptions::new().with_physical();
    access.root().await?.compact(last, Some(physical)).await?;
    let mut late = watch(&mut client, "past", options).await?;
    let cancelled = message(&mut late).await?;
    equal((cancelled.canceled(), cancelled.compact_revision()), (true, last))
}

/// On request, and by itself.
pub async fn progress(access: &Access) -> Outcome {
    let mut client = access.client().await?;
    let written = revision(client.put(key("elsewhere"), "", None).await?.header());
    let mut asking = watch(&mut client, "quiet", WatchOptions::new()).await?;
    // A member that lags may not answer the first.
    let answer = loop {
        asking.request_progress().await?;
        if let Ok(answer) =
            tokio::time::timeout(Duration::from_millis(500), message(&mut asking)).await
        {
            break answer?;
        }
    };
    equal((answer.watch_id(), answer.events().len()), (-1, 0))?;
    let mut told = watch(&mut client, "quiet", WatchOptions::new().with_progress_notify()).await?;
    let progress = message(&mut told).await?;
    equal((progress.watch_id() >= 0, progress.events().len()), (true, 0))?;
    holds("progress is not behind", revision(progress.header()) >= written)
}

pub async fn resumes(access: &Access) -> Outcome {
    let mut client = access.connect_first(Login::User).await?;
    let mut stream = watch(&mut client, "resume/", WatchOptions::new().with_prefix()).await?;
    let before = revision(client.put(key("resume/1"), "1", None).await?.header());
    equal(texts(&next_events(&mut stream, 1).await?), vec!["1"])?;
    restart()?;
    // The stream is gone; the client connects again, and logs in again where its token has gone.
    equal(next_events(&mut stream, 1).await.is_err(), true)?;
    while let Err(error) = client.put(key("resume/2"), "2", None).await {
        eprintln!("after the restart: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let options = WatchOptions::new().with_prefix().with_start_revision(before + 1);
    let mut stream = watch(&mut client, "resume/", options).await?;
    equal(texts(&next_events(&mut stream, 1).await?), vec!["2"])
}
