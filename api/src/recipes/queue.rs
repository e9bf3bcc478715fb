//! The queue under a name: one key for each lease that wants something, the oldest in front.
//!
//! ```text
//! <name>/<lease in hexadecimal>     create revision: the place in the queue
//! ```

use bytes::Bytes;
use holdfast_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RequestOp, ResponseHeader,
    TxnRequest, compare, request_op,
};
use holdfast_proto::mvccpb::{EventType, KeyValue};
use holdfast_store::auth::Access;
use tokio::sync::oneshot;

use super::follow::Follow;
use super::{Client, read};
use crate::lease;
use crate::status::Error;

/// The lease of whoever brings none, in seconds; nobody renews it.
const LEASE_SECONDS: i64 = 60;

/// The prefix of the keys under a name.
pub(super) fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The lease to queue with: the given one, renewed, or a new one if that is 0.
pub(super) async fn session(services: &Client, lease: i64) -> Result<i64, Error> {
    if lease == 0 {
        let request = LeaseGrantRequest { ttl: LEASE_SECONDS, id: 0 };
        return Ok(lease::grant(services, &services.caller, request).await?.id);
    }
    // A lease that is gone, or another's, is found out where it is used.
    let renewal = Access::LeaseKeepAlive(lease);
    if services.may_on_pool(&services.caller, renewal).await.is_ok() {
        let _ = services.port.keep_alive(lease).await;
    }
    Ok(lease)
}

/// A place in a queue.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The key that holds it.
    pub(super) key: Bytes,
    /// The key's create revision.
    pub(super) revision: i64,
}

/// What came of queueing up.
pub(super) struct Entered {
    pub(super) place: Place,
    pub(super) header: ResponseHeader,
    /// The key as it was, if the lease had a place already.
    pub(super) before: Option<KeyValue>,
    /// Nobody is in front.
    pub(super) is_first: bool,
    /// Gives a place up that was taken just now.
    pub(super) waiting: Waiting,
}

/// Takes a place in the queue of `name`, or finds the one that the lease has.
///
/// Whoever goes away while the place is being taken would leave it behind; so it is taken by a task
/// that always ends, and what that brings is given up where nobody receives it.
pub(super) async fn enter(
    services: &Client,
    name: Bytes,
    lease: i64,
    value: Bytes,
) -> Result<Entered, Error> {
    let (tell, told) = oneshot::channel();
    let services = services.clone();
    tokio::spawn(async move {
        let entered = take_place(&services, &name, lease, value).await;
        // Unheard, it is dropped, and so is the place in it.
        let _ = tell.send(entered);
    });
    told.await.unwrap_or(Err(Error::Stopped))
}

async fn take_place(
    services: &Client,
    name: &[u8],
    lease: i64,
    value: Bytes,
) -> Result<Entered, Error> {
    let prefix = prefix(name);
    let key: Bytes = [&prefix[..], hexadecimal(lease).as_bytes()].concat().into();
    let first = request_op::Request::RequestRange(read::first_created(&prefix));
    let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
    let put = request_op::Request::RequestPut(put);
    let get = request_op::Request::RequestRange(read::key(&key));
    let answer = read::txn(
        services,
        TxnRequest {
            compare: vec![created_at(&key, 0)],
            success: operations([put, first.clone()]),
            failure: operations([get, first]),
        },
    );
    let answer = answer.await?;
    let header = answer.header.unwrap_or_default();
    let mut before = None;
    let mut revision = header.revision;
    if !answer.succeeded {
        before = read::keys_of(&answer, 0)?.into_iter().next();
        revision = before.as_ref().map_or(0, |kv| kv.create_revision);
    }
    let first = read::keys_of(&answer, 1)?.into_iter().next();
    let is_first = first.is_none_or(|kv| kv.create_revision == revision);
    let place = Place { key, revision };
    let waiting =
        Waiting { services: services.clone(), place: before.is_none().then(|| place.clone()) };
    Ok(Entered { place, header, before, is_first, waiting })
}

/// A lease as it stands in a key.
fn hexadecimal(lease: i64) -> String {
    let sign = if lease < 0 { "-" } else { "" };
    format!("{sign}{:x}", lease.unsigned_abs())
}

fn operations<const N: usize>(requests: [request_op::Request; N]) -> Vec<RequestOp> {
    requests.map(|request| RequestOp { request: Some(request) }).into()
}

/// That a key has a create revision; 0 is that it does not exist.
fn created_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: compare::CompareResult::Equal as i32,
        target: compare::CompareTarget::Create as i32,
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(compare::TargetUnion::CreateRevision(revision)),
    }
}

/// Returns once nobody is in front of `place` any more.
pub(super) async fn wait_turn(
    services: &Client,
    prefix: &Bytes,
    place: &Place,
) -> Result<(), Error> {
    loop {
        let in_front = read::last_created(prefix, place.revision - 1);
        let (header, keys) = read::range(services, in_front).await?;
        let Some(last) = keys.into_iter().next() else { return Ok(()) };
        match wait_deleted(services, last.key, header.revision).await {
            // What happened in between is gone, but what is there now can be seen.
            Ok(()) | Err(Error::Compacted) => {}
            Err(error) => return Err(error),
        }
    }
}

async fn wait_deleted(services: &Client, key: Bytes, from: i64) -> Result<(), Error> {
    let mut follow = Follow::new(services, key, Bytes::new(), from);
    loop {
        let (_, events) = follow.next().await?;
        if events.iter().any(|event| event.r#type() == EventType::Delete) {
            return Ok(());
        }
    }
}

/// Does something to the key of a place, if it is still that place; says whether it was.
pub(super) async fn if_held(
    services: &Client,
    place: &Place,
    request: request_op::Request,
) -> Result<(ResponseHeader, bool), Error> {
    let compare = vec![created_at(&place.key, place.revision)];
    let success = operations([request]);
    let answer = read::txn(services, TxnRequest { compare, success, failure: Vec::new() }).await?;
    Ok((answer.header.unwrap_or_default(), answer.succeeded))
}

/// Whether a place is still there.
pub(super) async fn is_held(
    services: &Client,
    place: &Place,
) -> Result<(ResponseHeader, bool), Error> {
    let (header, keys) = read::range(services, read::key(&place.key)).await?;
    Ok((header, keys.first().is_some_and(|kv| kv.create_revision == place.revision)))
}

/// Gives a place up.
pub(super) async fn leave(services: &Client, place: &Place) -> Result<ResponseHeader, Error> {
    let delete = DeleteRangeRequest { key: place.key.clone(), ..DeleteRangeRequest::default() };
    let delete = request_op::Request::RequestDeleteRange(delete);
    if_held(services, place, delete).await.map(|(header, _)| header)
}

/// Gives a place up when its owner goes away before it has what it waits for.
pub(super) struct Waiting {
    services: Client,
    place: Option<Place>,
}

impl Waiting {
    /// Somebody waits at a place, which another call of the same lease may have taken.
    pub(super) fn begins(&mut self, place: &Place) {
        self.place = Some(place.clone());
    }

    /// The place is kept.
    pub(super) fn done(mut self) {
        self.place = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        let services = self.services.clone();
        tokio::spawn(async move {
            if let Err(error) = leave(&services, &place).await {
                // The lease takes the key with it, later.
                tracing::warn!(%error, "a place in a queue could not be given up");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_stand_in_keys_as_go_prints_them() {
        let rows = [(0x694d_0f1a, "694d0f1a"), (-255, "-ff"), (i64::MIN, "-8000000000000000")];
        for (lease, text) in rows {
            assert_eq!(hexadecimal(lease), text);
        }
    }
}
