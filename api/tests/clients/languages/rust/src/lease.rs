//! Leases, and what is built on them by the server: locks and elections.

use std::time::Duration;

use etcd_client::{
    EventType, LeaseGrantOptions, LeaseTimeToLiveOptions, LockOptions, ProclaimOptions, PutOptions,
    ResignOptions,
};

use crate::access::Access;
use crate::check::{Outcome, equal, fails, holds, key};

pub async fn lifetime(access: &Access) -> Outcome {
    let mut client = access.client().await?;
    let lease = client.lease_grant(30, Some(LeaseGrantOptions::new().with_id(4713))).await?;
    equal((lease.id(), lease.ttl()), (4713, 30))?;
    let again = LeaseGrantOptions::new().with_id(4713);
    fails(client.lease_grant(30, Some(again)).await, "etcdserver: lease already exists")?;
    let leased = PutOptions::new().with_lease(4713);
    client.put(key("leased"), "", Some(leased.clone())).await?;
    let with_keys = LeaseTimeToLiveOptions::new().with_keys();
    let left = client.lease_time_to_live(4713, Some(with_keys)).await?;
    equal((left.granted_ttl(), left.keys().len()), (30, 1))?;
    holds("time is left", left.ttl() > 0 && left.ttl() <= 30)?;
    let leases = client.leases().await?;
    holds("it is listed", leases.leases().iter().any(|each| each.id() == 4713))?;
    let (mut keeper, mut answers) = client.lease_keep_alive(4713).await?;
    keeper.keep_alive().await?;
    equal(answers.message().await?.map(|answer| answer.ttl()), Some(30))?;
    client.lease_revoke(4713).await?;
    equal(client.get(key("leased"), None).await?.count(), 0)?;
    keeper.keep_alive().await?;
    equal(answers.message().await?.map(|answer| answer.ttl()), Some(0))?;
    equal(client.lease_time_to_live(4713, None).await?.ttl(), -1)?;
    let orphan = client.put(key("leased"), "", Some(leased)).await;
    fails(orphan, "etcdserver: requested lease not found")?;
    fails(client.lease_revoke(4713).await, "etcdserver: requested lease not found")
}

pub async fn expiry(access: &Access) -> Outcome {
    let mut client = access.client().await?;
    let kept = client.lease_grant(4, None).await?.id();
    let lost = client.lease_grant(4, None).await?.id();
    let with = |lease| Some(PutOptions::new().with_lease(lease));
    client.put(key("kept"), "", with(kept)).await?;
    client.put(key("lost"), "", with(lost)).await?;
    let (mut keeper, mut answers) = client.lease_keep_alive(kept).await?;
    let mut watch = client.watch(key("lost"), None).await?;
    loop {
        match tokio::time::timeout(Duration::from_millis(300), watch.message()).await {
            Ok(message) => {
                let message = message?.ok_or("the watch has ended")?;
                if let Some(event) = message.events().first() {
                    equal(event.event_type(), EventType::Delete)?;
                    break;
                }
            }
            Err(_) => {
                keeper.keep_alive().await?;
                equal(answers.message().await?.map(|answer| answer.ttl()), Some(4))?;
            }
        }
    }
    equal(client.get(key("lost"), None).await?.count(), 0)?;
    equal(client.get(key("kept"), None).await?.count(), 1)?;
    client.lease_revoke(kept).await?;
    Ok(())
}

pub async fn locks(access: &Access) -> Outcome {
    let mut client = access.client().await?;
    let lease = client.lease_grant(20, None).await?.id();
    let held = client.lock(key("lock"), Some(LockOptions::new().with_lease(lease))).await?;
    holds("its key is the lock's", held.key().starts_with(key("lock").as_bytes()))?;
    let mut other = client.clone();
    let mut waiting = Box::pin(other.lock(key("lock"), None));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    holds("the other waits", early.is_err())?;
    client.unlock(held.key()).await?;
    let next = waiting.await?;
    client.unlock(next.key()).await?;
    // A lock that ends with its lease.
    client.lock(key("lock"), Some(LockOptions::new().with_lease(lease))).await?;
    client.lease_revoke(lease).await?;
    let last = client.lock(key("lock"), None).await?;
    client.unlock(last.key()).await?;
    Ok(())
}

pub async fn elections(access: &Access) -> Outcome {
    let mut client = access.client().await?;
    let name = key("election");
    fails(client.leader(&*name).await, "election: no leader")?;
    let (first, second) =
        (client.lease_grant(20, None).await?.id(), client.lease_grant(20, None).await?.id());
    let won = client.campaign(&*name, "first", first).await?;
    let leader = won.leader().ok_or("no leader's key")?.clone();
    equal((leader.name_str()?, leader.lease()), (&*name, first))?;
    let mut observer = client.observe(&*name).await?;
    let mut other = client.clone();
    let mut waiting = Box::pin(other.campaign(&*name, "second", second));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    holds("the other waits", early.is_err())?;
    client
        .proclaim("still first", Some(ProclaimOptions::new().with_leader(leader.clone())))
        .await?;
    let current = client.leader(&*name).await?;
    equal(current.kv().map(|kv| kv.value().to_vec()), Some(b"still first".to_vec()))?;
    client.resign(Some(ResignOptions::new().with_leader(leader))).await?;
    waiting.await?;
    // An observer may miss what was soon over, but sees the last.
    loop {
        let seen = observer.message().await?.ok_or("the observer has ended")?;
        if seen.kv().is_some_and(|kv| kv.value() == b"second") {
            break;
        }
    }
    client.lease_revoke(first).await?;
    client.lease_revoke(second).await?;
    Ok(())
}
