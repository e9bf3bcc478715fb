//! From a path to what answers it.
//!
//! The calls of the hot path stand in the future itself; the rest is boxed, to keep that future
//! small.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use holdfast_proto::etcdserverpb::{
    DefragmentRequest, HashRequest, LeaseLeasesRequest, RangeRequest, StatusRequest,
};
use http::{Request, Response, Version};
use hyper::body::Incoming;

use crate::recipes::{self, as_from_a_client, election, lock};
use crate::rpc::{self, Body, Receiver, unary};
use crate::services::Services;
use crate::status::Error;
use crate::{cluster, grpc_health, http as endpoints, kv, lease, maintenance, watch};

/// Answers any request on the client port.
pub async fn serve(services: Arc<Services>, request: Request<Incoming>) -> Response<Body> {
    if request.version() != Version::HTTP_2 || !rpc::is_grpc(request.headers()) {
        return Box::pin(endpoints::serve(services, request)).await;
    }
    let limit = services.shared.limits.receive_bytes();
    // Learners serve some ranges; whether this one is known only after it is decoded.
    let is_range = request.uri().path() == RANGE;
    if let Err(error) = services.check_call(request.headers(), is_range) {
        return check_failed(&services, request.uri().path(), error);
    }
    match request.uri().path() {
        RANGE => range(&services, request, limit).await,
        "/etcdserverpb.KV/Put" => {
            unary(request, limit, |put, length| kv::put(&services, put, length)).await
        }
        "/etcdserverpb.KV/Txn" => {
            unary(request, limit, |txn, length| kv::txn(&services, txn, length)).await
        }
        _ => less_frequent(services, request, limit).await,
    }
}

const RANGE: &str = "/etcdserverpb.KV/Range";

async fn range(
    services: &Arc<Services>,
    request: Request<Incoming>,
    limit: usize,
) -> Response<Body> {
    let answer = async {
        let message: RangeRequest = rpc::decode(rpc::receive_one(request, limit).await?)?;
        if !message.serializable && services.is_learner() {
            return Err(Error::NotSupportedForLearner);
        }
        kv::range(services, message).await
    };
    match answer.await {
        Ok(kv::Answer::Whole(message)) => rpc::unary_response(Ok(message)),
        Ok(kv::Answer::Large(large)) => rpc::stream_response(*large),
        Err(error) => rpc::error_response(&error),
    }
}

/// A learner serves its status too, which is known by the path alone.
fn check_failed(services: &Services, path: &str, error: Error) -> Response<Body> {
    if error == Error::NotSupportedForLearner && path == "/etcdserverpb.Maintenance/Status" {
        return rpc::unary_response(Ok(rpc::framed(&maintenance::status(services))));
    }
    rpc::error_response(&error)
}

fn less_frequent(
    services: Arc<Services>,
    request: Request<Incoming>,
    limit: usize,
) -> BoxFuture<'static, Response<Body>> {
    Box::pin(async move {
        let path = request.uri().path().to_owned();
        let s = &services;
        match path.as_str() {
            "/etcdserverpb.KV/DeleteRange" => {
                unary(request, limit, |r, length| kv::delete_range(s, r, length)).await
            }
            "/etcdserverpb.KV/Compact" => unary(request, limit, |r, _| kv::compact(s, r)).await,
            "/etcdserverpb.KV/RangeStream" => range_stream(services, request, limit).await,
            "/etcdserverpb.Watch/Watch" => stream(services, request, limit, watch::Watch::new),
            "/etcdserverpb.Lease/LeaseKeepAlive" => {
                stream(services, request, limit, lease::KeepAlive::new)
            }
            "/etcdserverpb.Lease/LeaseGrant" => {
                unary(request, limit, |r, _| lease::grant(s, r)).await
            }
            "/etcdserverpb.Lease/LeaseRevoke" => {
                unary(request, limit, |r, _| lease::revoke(s, r)).await
            }
            "/etcdserverpb.Lease/LeaseTimeToLive" => {
                unary(request, limit, |r, _| lease::time_to_live(s, r)).await
            }
            "/etcdserverpb.Lease/LeaseLeases" => {
                unary(request, limit, |LeaseLeasesRequest {}, _| lease::leases(s)).await
            }
            _ => rarest(services, request, limit, &path).await,
        }
    })
}

async fn rarest(
    services: Arc<Services>,
    request: Request<Incoming>,
    limit: usize,
    path: &str,
) -> Response<Body> {
    let s = &services;
    match path {
        "/etcdserverpb.Cluster/MemberList" => {
            unary(request, limit, |r, _| cluster::member_list(s, r)).await
        }
        "/etcdserverpb.Cluster/MemberAdd" => {
            unary(request, limit, |r, _| cluster::member_add(s, r)).await
        }
        "/etcdserverpb.Cluster/MemberRemove" => {
            unary(request, limit, |r, _| cluster::member_remove(s, r)).await
        }
        "/etcdserverpb.Cluster/MemberUpdate" => {
            unary(request, limit, |r, _| cluster::member_update(s, r)).await
        }
        "/etcdserverpb.Cluster/MemberPromote" => {
            unary(request, limit, |r, _| cluster::member_promote(s, r)).await
        }
        "/etcdserverpb.Maintenance/Status" => {
            let status = |StatusRequest {}, _| async { Ok(maintenance::status(s)) };
            unary(request, limit, status).await
        }
        "/etcdserverpb.Maintenance/Hash" => {
            unary(request, limit, |HashRequest {}, _| maintenance::hash(s)).await
        }
        "/etcdserverpb.Maintenance/HashKV" => {
            unary(request, limit, |r, _| maintenance::hash_kv(s, r)).await
        }
        "/etcdserverpb.Maintenance/Defragment" => {
            let defragment = |DefragmentRequest {}, _| async { Ok(maintenance::defragment()) };
            unary(request, limit, defragment).await
        }
        "/etcdserverpb.Maintenance/Alarm" => {
            unary(request, limit, |r, _| async move { maintenance::alarm(s, r) }).await
        }
        "/etcdserverpb.Maintenance/MoveLeader" => {
            unary(request, limit, |r, _| maintenance::move_leader(s, r)).await
        }
        _ => added(services, request, limit, path).await,
    }
}

/// The services that are made of the others, and gRPC's own.
async fn added(
    services: Arc<Services>,
    request: Request<Incoming>,
    limit: usize,
    path: &str,
) -> Response<Body> {
    let s = &services;
    match path {
        "/v3lockpb.Lock/Lock" => {
            unary(request, limit, |r, _| as_from_a_client(lock::lock(s, r))).await
        }
        "/v3lockpb.Lock/Unlock" => {
            unary(request, limit, |r, _| as_from_a_client(lock::unlock(s, r))).await
        }
        "/v3electionpb.Election/Campaign" => {
            unary(request, limit, |r, _| as_from_a_client(election::campaign(s, r))).await
        }
        "/v3electionpb.Election/Proclaim" => {
            unary(request, limit, |r, _| as_from_a_client(election::proclaim(s, r))).await
        }
        "/v3electionpb.Election/Resign" => {
            unary(request, limit, |r, _| as_from_a_client(election::resign(s, r))).await
        }
        "/v3electionpb.Election/Leader" => {
            unary(request, limit, |r, _| as_from_a_client(election::leader(s, r))).await
        }
        "/v3electionpb.Election/Observe" => {
            let leader_lost = services.leader_lost(request.headers());
            answer_with(request, limit, |r| recipes::observe(services, &r, leader_lost)).await
        }
        "/grpc.health.v1.Health/Check" => {
            unary(request, limit, |r, _| async move { grpc_health::check(&r) }).await
        }
        "/grpc.health.v1.Health/Watch" => {
            answer_with(request, limit, |r| grpc_health::watch(s, &r)).await
        }
        _ => rpc::error_response(&unknown(path)),
    }
}

/// Answers one request with a stream.
async fn answer_with<Q: prost::Message + Default, S: rpc::Outgoing + 'static>(
    request: Request<Incoming>,
    limit: usize,
    start: impl FnOnce(Q) -> S,
) -> Response<Body> {
    match rpc::receive_one(request, limit).await.and_then(rpc::decode) {
        Ok(request) => rpc::stream_response(start(request)),
        Err(error) => rpc::error_response(&error),
    }
}

async fn range_stream(
    services: Arc<Services>,
    request: Request<Incoming>,
    limit: usize,
) -> Response<Body> {
    let pages = async {
        let message = rpc::decode(rpc::receive_one(request, limit).await?)?;
        kv::range_stream(services, message).await
    };
    match pages.await {
        Ok(pages) => rpc::stream_response(pages),
        Err(error) => rpc::error_response(&error),
    }
}

/// Starts a stream whose requests come as long as its responses go.
fn stream<S: rpc::Outgoing + 'static>(
    services: Arc<Services>,
    request: Request<Incoming>,
    limit: usize,
    start: impl FnOnce(Arc<Services>, Receiver, Option<crate::leader::Raised>) -> S,
) -> Response<Body> {
    let leader_lost = services.leader_lost(request.headers());
    match Receiver::new(request, limit) {
        Ok(receiver) => rpc::stream_response(start(services, receiver, leader_lost)),
        Err(error) => rpc::error_response(&error),
    }
}

/// Services that clients may call and that have methods this server lacks.
const SERVICES: [&str; 9] = [
    "etcdserverpb.KV",
    "etcdserverpb.Watch",
    "etcdserverpb.Lease",
    "etcdserverpb.Cluster",
    "etcdserverpb.Maintenance",
    "etcdserverpb.Auth",
    "v3lockpb.Lock",
    "v3electionpb.Election",
    "grpc.health.v1.Health",
];

/// The refusal of a path that nothing answers, in the words of Go's gRPC server.
fn unknown(path: &str) -> Error {
    let Some((service, method)) = path.trim_start_matches('/').rsplit_once('/') else {
        return Error::unimplemented(format!("malformed method name: {path:?}"));
    };
    if SERVICES.contains(&service) {
        return Error::unimplemented(format!("unknown method {method} for service {service}"));
    }
    Error::unimplemented(format!("unknown service {service}"))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn unknown_paths_are_refused_in_the_words_of_go() {
        let rows = [
            ("/foo.Bar/Baz", "unknown service foo.Bar"),
            ("/etcdserverpb.KV/Baz", "unknown method Baz for service etcdserverpb.KV"),
            ("/Baz", "malformed method name: \"/Baz\""),
        ];
        for (path, text) in rows {
            let error = unknown(path);
            assert_eq!((error.code(), error.text()), (Code::Unimplemented, text));
        }
    }
}
