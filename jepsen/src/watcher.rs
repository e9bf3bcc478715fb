//! Watches every key through one member at a time, resuming elsewhere when a stream breaks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::Instant;

use crate::client::{Client, changes};
use crate::cluster::MEMBERS;
use crate::workload::Addresses;
use holdfast_jepsen::history::Change;

/// A stream that says nothing for so long is given up for another.
const SILENCE_LIMIT: Duration = Duration::from_secs(3);

/// Follows all changes until `stop` is set; returns them in the order they came.
pub async fn follow(addresses: Addresses, first: usize, stop: &AtomicBool) -> Vec<Change> {
    let mut received: Vec<Change> = Vec::new();
    for turn in first.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let address = addresses.borrow()[turn % MEMBERS].clone();
        let next = received.last().map_or(1, |change| change.revision + 1);
        // A broken stream is what faults are for; the next turn resumes.
        let _ = follow_one(&address, next, &mut received, stop).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    received
}

async fn follow_one(
    address: &str,
    start: i64,
    received: &mut Vec<Change>,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let mut stream =
        tokio::time::timeout(SILENCE_LIMIT, Client::new(address)?.watch(start)).await??;
    while !stop.load(Ordering::Relaxed) {
        let answer = tokio::time::timeout(SILENCE_LIMIT, stream.message()).await??;
        let answer = answer.context("the stream ended")?;
        received.extend(changes(&answer)?);
    }
    Ok(())
}

/// Reads back every change up to `revision` from one member.
pub async fn all_changes(address: &str, revision: i64) -> anyhow::Result<Vec<Change>> {
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut stream = Client::new(address)?.watch(1).await?;
    let mut received: Vec<Change> = Vec::new();
    while received.last().map_or(1, |change| change.revision) < revision {
        let answer = tokio::time::timeout_at(deadline, stream.message())
            .await
            .with_context(|| format!("{address} did not replay its history in time"))??
            .context("the watch ended before the history did")?;
        if answer.canceled {
            bail!("{address} cancelled the watch: {}", answer.cancel_reason);
        }
        received.extend(changes(&answer)?);
    }
    Ok(received)
}
