//! The Lock service.

use holdfast_proto::etcdserverpb::DeleteRangeRequest;
use holdfast_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use prost::Message as _;

use super::{Client, queue, unless_stopped};
use crate::kv;
use crate::status::Error;

/// Waits until the lock is held by the given lease; answers with the key that holds it.
pub async fn lock(services: &Client, request: LockRequest) -> Result<LockResponse, Error> {
    let lease = queue::session(services, request.lease).await?;
    let name = request.name.clone();
    let queue::Entered { place, mut header, is_first, mut waiting, .. } =
        queue::enter(services, name, lease, bytes::Bytes::new()).await?;
    if !is_first {
        waiting.begins(&place);
        let prefix = queue::prefix(&request.name);
        unless_stopped(services, queue::wait_turn(services, &prefix, &place)).await?;
        let (found, held) = queue::is_held(services, &place).await?;
        if !held {
            return Err(Error::unknown("mutex: session is expired"));
        }
        header = found;
    }
    waiting.done();
    Ok(LockResponse { header: Some(header), key: place.key })
}

/// Gives a lock up: deletes its key, whoever's it is.
pub async fn unlock(services: &Client, request: UnlockRequest) -> Result<UnlockResponse, Error> {
    let delete = DeleteRangeRequest { key: request.key, ..DeleteRangeRequest::default() };
    let length = delete.encoded_len();
    let answer = kv::delete_range(services, &services.caller, delete, length).await?;
    Ok(UnlockResponse { header: answer.header })
}
