//! The Election service, but for `Observe`.

use bytes::Bytes;
use holdfast_proto::EncodedKeyValue;
use holdfast_proto::etcdserverpb::{PutRequest, ResponseHeader, request_op};
use holdfast_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};

use super::queue::{self, Place};
use super::{Client, read, unless_stopped};
use crate::status::Error;

/// Waits until the lease leads the election of a name, with a value for all to see.
pub async fn campaign(
    services: &Client,
    request: CampaignRequest,
) -> Result<CampaignResponse, Error> {
    let CampaignRequest { name, lease, value } = request;
    let lease = queue::session(services, lease).await?;
    let queue::Entered { place, header, before, is_first, mut waiting } =
        queue::enter(services, name.clone(), lease, value.clone()).await?;
    if before.is_some_and(|kv| kv.value != value) {
        change(services, &place, lease, value).await?;
    }
    if !is_first {
        waiting.begins(&place);
        let prefix = queue::prefix(&name);
        unless_stopped(services, queue::wait_turn(services, &prefix, &place)).await?;
        // Its lease may have ended meanwhile: then another one leads.
        if !queue::is_held(services, &place).await?.1 {
            return Err(not_leader());
        }
    }
    waiting.done();
    let leader = LeaderKey { name, key: place.key, rev: place.revision, lease };
    Ok(CampaignResponse { header: Some(header), leader: Some(leader) })
}

/// Changes the value of a leader.
pub async fn proclaim(
    services: &Client,
    request: ProclaimRequest,
) -> Result<ProclaimResponse, Error> {
    let leader = request.leader.ok_or_else(missing)?;
    let lease = queue::session(services, leader.lease).await?;
    let header = change(services, &place_of(leader), lease, request.value).await?;
    Ok(ProclaimResponse { header: Some(header) })
}

async fn change(
    services: &Client,
    place: &Place,
    lease: i64,
    value: Bytes,
) -> Result<ResponseHeader, Error> {
    let put = PutRequest { key: place.key.clone(), value, lease, ..PutRequest::default() };
    let put = request_op::Request::RequestPut(put);
    let (header, held) = queue::if_held(services, place, put).await?;
    if held { Ok(header) } else { Err(not_leader()) }
}

/// Gives leadership up; nothing happens if it is lost already.
pub async fn resign(services: &Client, request: ResignRequest) -> Result<ResignResponse, Error> {
    let leader = request.leader.ok_or_else(missing)?;
    queue::session(services, leader.lease).await?;
    let header = queue::leave(services, &place_of(leader)).await?;
    Ok(ResignResponse { header: Some(header) })
}

/// Who leads.
pub async fn leader(services: &Client, request: LeaderRequest) -> Result<LeaderResponse, Error> {
    let first = read::first_created(&queue::prefix(&request.name));
    let (header, keys) = read::range(services, first).await?;
    let first = keys.first().ok_or_else(|| Error::unknown("election: no leader"))?;
    Ok(LeaderResponse { header: Some(header), kv: Some(EncodedKeyValue::from(first)) })
}

fn not_leader() -> Error {
    Error::unknown("election: not leader")
}

fn missing() -> Error {
    Error::unknown("\"leader\" field must be provided")
}

fn place_of(leader: LeaderKey) -> Place {
    Place { key: leader.key, revision: leader.rev }
}
