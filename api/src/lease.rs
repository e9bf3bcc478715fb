//! The Lease service. Grants and revokes go through the log; keep-alives and remaining times are
//! the leader's to answer, from whichever member a client asks.

mod keep_alive;

use holdfast_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseLeasesResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use holdfast_store::Response;
use holdfast_store::auth::Access;

use crate::auth::Caller;
use crate::kv::propose_change;
use crate::services::Services;
use crate::status::Error;
use crate::{admit, convert};

pub use keep_alive::KeepAlive;

/// How often another id is drawn when the drawn one is taken.
const DRAWS: usize = 16;

/// Makes a lease; chooses its id if the client leaves that open.
pub async fn grant(
    services: &Services,
    caller: &Caller,
    request: LeaseGrantRequest,
) -> Result<LeaseGrantResponse, Error> {
    admit::lease_ttl(request.ttl)?;
    if request.id != 0 {
        return grant_as(services, caller, request.id, request.ttl).await;
    }
    for _ in 0..DRAWS {
        let id = rand::random::<i64>() & i64::MAX;
        if id == 0 {
            continue;
        }
        match grant_as(services, caller, id, request.ttl).await {
            Err(Error::LeaseExists) => {}
            answer => return answer,
        }
    }
    Err(Error::LeaseExists)
}

async fn grant_as(
    services: &Services,
    caller: &Caller,
    id: i64,
    ttl: i64,
) -> Result<LeaseGrantResponse, Error> {
    let ttl = ttl.max(services.shared.lease_ttl_min);
    match propose_change(services, caller, convert::lease_grant(id, ttl)).await? {
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
    caller: &Caller,
    request: LeaseRevokeRequest,
) -> Result<LeaseRevokeResponse, Error> {
    let command = convert::lease_revoke(request.id);
    let (revision, _) = propose_change(services, caller, command).await?;
    Ok(LeaseRevokeResponse { header: Some(services.headers.at(revision)) })
}

/// How long a lease has left, and with which keys.
pub async fn time_to_live(
    services: &Services,
    caller: &Caller,
    request: LeaseTimeToLiveRequest,
) -> Result<LeaseTimeToLiveResponse, Error> {
    let pass = services.may(caller, &Access::Authenticated).await?;
    let left = services.port.time_to_live(request.id).await?;
    let mut response = LeaseTimeToLiveResponse { id: request.id, ttl: -1, ..Default::default() };
    if let Some(left) = left {
        response.ttl = left.remaining;
        response.granted_ttl = left.granted;
        if request.keys {
            response.keys = keys(services, caller, request.id).await?;
        }
    }
    services.still(pass)?;
    response.header = Some(services.headers.at(services.reader.visible()));
    Ok(response)
}

/// The keys of a lease, not older than the call, if the caller may read all of them.
async fn keys(services: &Services, caller: &Caller, id: i64) -> Result<Vec<bytes::Bytes>, Error> {
    services.port.read_barrier().await?;
    // Those that are judged are those that are shown, whatever the lease is given meanwhile.
    services
        .judged_on_pool(caller, move |reader, judge| {
            let keys = reader.lease_keys(id);
            judge(&Access::Keys(&keys))?;
            Ok(keys)
        })
        .await
}

/// All leases, as this member knows them.
pub async fn leases(services: &Services, caller: &Caller) -> Result<LeaseLeasesResponse, Error> {
    let leases = services
        .judged_on_pool(caller, |reader, judge| {
            // First, so that their keys are judged as they are then or later.
            let leases = reader.leases();
            judge(&Access::LeaseList)?;
            Ok(leases)
        })
        .await?;
    let leases = leases.into_iter().map(|lease| LeaseStatus { id: lease.id }).collect();
    let header = Some(services.headers.at(services.reader.visible()));
    Ok(LeaseLeasesResponse { header, leases })
}
