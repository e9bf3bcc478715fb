//! Replacing a member as an operator does: a learner is added, started and promoted, and then the old
//! member is removed and has to end by itself. What the cluster refuses for now is asked again.

use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;
use tonic::Status;

use crate::args::Args;
use crate::client::Client;
use crate::cluster::{Cluster, MEMBERS, RECOVERY_LIMIT};

/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(100);
/// Refusals that pass: a member that has just come counts as disconnected, or is not in sync yet.
const PASSING: [&str; 4] = [
    "etcdserver: unhealthy cluster",
    "etcdserver: can only promote a learner member which is in sync with leader",
    "etcdserver: re-configuration failed due to not enough started members",
    "etcdserver: too many requests",
];

/// Replaces the member in `place` by one that is called `name`.
pub async fn replace(
    cluster: &mut Cluster,
    args: &Args,
    place: usize,
    name: &str,
) -> anyhow::Result<()> {
    let mut old = Client::new(cluster.address(place))?;
    let gone = old.status().await?.member;
    let mut admin = Client::new(cluster.address((place + 1) % MEMBERS))?;
    let addresses = Cluster::free_addresses()?;
    let peer_url = format!("http://{}", addresses.1);
    let added = insist("add", async || admin.add_learner(&peer_url).await).await?;
    cluster.start_joining(args, name, addresses)?;
    insist("promote", async || admin.promote(added).await).await?;
    insist("remove", async || admin.remove(gone).await).await?;
    cluster.put_in_place(place, RECOVERY_LIMIT).await?;
    cluster.wait_for_all(RECOVERY_LIMIT).await
}

async fn insist<T>(
    what: &str,
    mut change: impl AsyncFnMut() -> Result<T, Status>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + RECOVERY_LIMIT;
    loop {
        match change().await {
            Ok(done) => return Ok(done),
            Err(status) if Instant::now() < deadline && PASSING.contains(&status.message()) => {
                tokio::time::sleep(AGAIN).await;
            }
            Err(status) => bail!("cannot {what}: {:?} {}", status.code(), status.message()),
        }
    }
}
