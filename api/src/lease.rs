//! The Lease service. Grants and revokes go through the log; keep-alives and remaining times are
//! the leader's to answer, from whichever member a client asks.

mod keep_alive;

use holdfast_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseLeasesResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use holdfast_store::Response;

use crate::kv::propose;
use crate::services::Services;
use crate::status::Error;
use crate::{admit, convert};

pub use keep_alive::KeepAlive;

/// How often another id is drawn when the drawn one is taken.
const DRAWS: usize = 16;

/// Makes a lease; chooses its id if the client leaves that open.
pub async fn grant(
    services: &Services,
    request: LeaseGrantRequest,
) -> Result<LeaseGrantResponse, Error> {
    admit::lease_ttl(request.ttl)?;
    if request.id != 0 {
        return grant_as(services, request.id, request.ttl).await;
    }
    for _ in 0..DRAWS {
        let id = rand::random::<i64>() & i64::MAX;
        if id == 0 {
            continue;
        }
        match grant_as(services, id, request.ttl).await {
            Err(Error::LeaseExists) => {}
            answer => return answer,
        }
    }
    Err(Error::LeaseExists)
}

async fn grant_as(services: &Services, id: i64, ttl: i64) -> Result<LeaseGrantResponse, Error> {
    let ttl = ttl.max(services.shared.lease_ttl_min);
    match propose(services, convert::lease_grant(id, ttl)).await? {
        (revision, Response::LeaseGrant { id, ttl }) => {
            let header = Some(services.headers.at(revision));
            Ok(LeaseGrantResponse { header, id, ttl, error: String::new() })
        }
        (_, other) => unreachable!("a grant was answered by {other:?}"),
    }
}

/// Ends a lease and deletes its keys.
pub async fn revoke(
    services: &Services,
    request: LeaseRevokeRequest,
) -> Result<LeaseRevokeResponse, Error> {
    let (revision, _) = propose(services, convert::lease_revoke(request.id)).await?;
    Ok(LeaseRevokeResponse { header: Some(services.headers.at(revision)) })
}

/// How long a lease has left, and with which keys.
pub async fn time_to_live(
    services: &Services,
    request: LeaseTimeToLiveRequest,
) -> Result<LeaseTimeToLiveResponse, Error> {
    let left = services.port.time_to_live(request.id).await?;
    let mut response = LeaseTimeToLiveResponse { id: request.id, ttl: -1, ..Default::default() };
    if let Some(left) = left {
        response.ttl = left.remaining;
        response.granted_ttl = left.granted;
        if request.keys {
            response.keys = keys(services, request.id).await?;
        }
    }
    response.header = Some(services.headers.at(services.reader.visible()));
    Ok(response)
}

/// The keys of a lease, not older than the call.
async fn keys(services: &Services, id: i64) -> Result<Vec<bytes::Bytes>, Error> {
    services.port.read_barrier().await?;
    let reader = services.reader.clone();
    services.shared.pool.run(move || reader.lease_keys(id)).await
}

/// All leases, as this member knows them.
pub async fn leases(services: &Services) -> Result<LeaseLeasesResponse, Error> {
    let reader = services.reader.clone();
    let leases = services.shared.pool.run(move || reader.leases()).await?;
    let leases = leases.into_iter().map(|lease| LeaseStatus { id: lease.id }).collect();
    let header = Some(services.headers.at(services.reader.visible()));
    Ok(LeaseLeasesResponse { header, leases })
}
