//! The Lock service.

use std::sync::Arc;

use holdfast_proto::etcdserverpb::DeleteRangeRequest;
use holdfast_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use prost::Message as _;

use super::queue::{self, Waiting};
use super::{read, unless_stopped};
use crate::kv;
use crate::services::Services;
use crate::status::Error;

/// Waits until the lock is held by the given lease; answers with the key that holds it.
pub async fn lock(services: &Arc<Services>, request: LockRequest) -> Result<LockResponse, Error> {
    let lease = queue::session(services, request.lease).await?;
    let entered = queue::enter(services, &request.name, lease, bytes::Bytes::new()).await?;
    let place = entered.place;
    let waiting = Waiting::new(services, &place);
    let mut header = entered.header;
    if !entered.is_first {
        let prefix = queue::prefix(&request.name);
        unless_stopped(services, queue::wait_turn(services, &prefix, &place)).await?;
        let (found_header, found) = read::range(services, read::key(&place.key)).await?;
        if found.is_empty() {
            return Err(Error::unknown("mutex: session is expired"));
        }
        header = found_header;
    }
    waiting.done();
    Ok(LockResponse { header: Some(header), key: place.key })
}

/// Gives a lock up: deletes its key, whoever's it is.
pub async fn unlock(services: &Services, request: UnlockRequest) -> Result<UnlockResponse, Error> {
    let delete = DeleteRangeRequest { key: request.key, ..DeleteRangeRequest::default() };
    let length = delete.encoded_len();
    let answer = kv::delete_range(services, delete, length).await?;
    Ok(UnlockResponse { header: answer.header })
}
