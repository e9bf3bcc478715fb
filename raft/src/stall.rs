//! A leader whose disk has stalled hands over.
//!
//! Its log still grows in memory and its followers still answer, so nobody else would notice; but
//! each of its own acknowledgements waits for a disk that may never come back.

use std::sync::Arc;
use std::time::Duration;

use crate::log::Log;
use crate::node::furthest;
use crate::propose::Raft;
use crate::shared::Shared;

/// Looks at the disk every so often, until the node stops and drops it.
pub(crate) async fn watch_disk(shared: Arc<Shared>, raft: Raft, log: Log, patience: Duration) {
    loop {
        tokio::time::sleep(patience / 2).await;
        let unflushed = log.unflushed();
        if unflushed.bytes == 0 || unflushed.age < patience {
            continue;
        }
        let (bytes, age) = (unflushed.bytes, unflushed.age);
        if !shared.status.snapshot().is_leader {
            tracing::warn!(bytes, ?age, "the log's disk has stalled");
            continue;
        }
        let Some(to) = furthest(&shared, &raft) else { continue };
        tracing::warn!(bytes, ?age, to = format_args!("{to:x}"), "handing over: the disk stalls");
        if raft.trigger().transfer_leader(to).await.is_err() {
            return;
        }
    }
}
