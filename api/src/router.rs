//! From a path to what answers it.
//!
//! The calls of the hot path stand in the future itself; the rest is boxed, to keep that future
//! small. Whatever takes a request makes a receiver of it before its future begins: futures keep the
//! room for all that they were given, and a request's headers are large.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use holdfast_proto::etcdserverpb::{
    DefragmentRequest, HashRequest, LeaseLeasesRequest, RangeRequest, SnapshotRequest,
    StatusRequest,
};
use holdfast_store::auth::Access;
use http::{Request, Response, Version};

use crate::auth::{Caller, matrix};
use crate::metrics::tally::Call;
use crate::recipes::{self, as_from_a_client, election, lock};
use crate::reflection::Reflection;
use crate::rpc::{self, Body, Incoming, Receiver, unary};
use crate::services::Services;
use crate::status::Error;
use crate::{
    access, alarm, auth, cluster, downgrade, grpc_health, kv, lease, maintenance, snapshot, watch,
};

/// Answers any request on the client port.
pub fn serve(
    services: Arc<Services>,
    request: Request<hyper::body::Incoming>,
) -> BoxFuture<'static, Response<Body>> {
    if is_call(&request) {
        Box::pin(call(services, request.map(Incoming::Network)))
    } else {
        Box::pin(access::serve(services, request))
    }
}

/// Whether a request is a gRPC call.
pub fn is_call<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_2 && rpc::is_grpc(request.headers())
}

/// Answers a gRPC call.
pub async fn call(services: Arc<Services>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let call = Call::start(&services.tally, path);
    let call = call.traced(services.shared.traces.as_ref(), path, request.headers());
    let limit = services.shared.limits.receive_bytes();
    let caller = &services.caller(&request);
    // Learners serve some ranges; whether this one is known only after it is decoded.
    let served_by_learners = matches!(path, RANGE | SNAPSHOT);
    let response = match services.check_call(request.headers(), served_by_learners) {
        Err(error) => Box::pin(check_failed(&services, caller, path, error)).await,
        Ok(()) => match path {
            RANGE => range(&services, caller, request, limit).await,
            "/etcdserverpb.KV/Put" => {
                unary(request, limit, |put, length| kv::put(&services, caller, put, length)).await
            }
            "/etcdserverpb.KV/Txn" => {
                unary(request, limit, |txn, length| kv::txn(&services, caller, txn, length)).await
            }
            _ => less_frequent(services, caller, request, limit).await,
        },
    };
    call.answered(response)
}

const RANGE: &str = "/etcdserverpb.KV/Range";
const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";

fn range(
    services: &Arc<Services>,
    caller: &Caller,
    request: Request<Incoming>,
    limit: usize,
) -> impl Future<Output = Response<Body>> + Send {
    let received = rpc::receive_one(request, limit);
    async move {
        match answer_range(services, caller, received.await).await {
            Ok(kv::Answer::Whole(message)) => rpc::unary_response(Ok(message)),
            Ok(kv::Answer::Large(large)) => rpc::stream_response(*large),
            Err(error) => rpc::error_response(&error),
        }
    }
}

async fn answer_range(
    services: &Arc<Services>,
    caller: &Caller,
    received: Result<Bytes, Error>,
) -> Result<kv::Answer, Error> {
    let message: RangeRequest = rpc::decode(received?)?;
    if !message.serializable && services.is_learner() {
        return Err(Error::NotSupportedForLearner);
    }
    kv::range(services, caller, message).await
}

/// A learner serves its status too, which is known by the path alone.
async fn check_failed(
    services: &Services,
    caller: &Caller,
    path: &str,
    error: Error,
) -> Response<Body> {
    if error == Error::NotSupportedForLearner && path == STATUS {
        let may = services.require(caller, &Access::Authenticated).await;
        return rpc::unary_response(may.map(|()| rpc::framed(&maintenance::status(services))));
    }
    rpc::error_response(&error)
}

const STATUS: &str = "/etcdserverpb.Maintenance/Status";

fn less_frequent<'a>(
    services: Arc<Services>,
    caller: &'a Caller,
    request: Request<Incoming>,
    limit: usize,
) -> BoxFuture<'a, Response<Body>> {
    Box::pin(async move {
        let path = request.uri().path().to_owned();
        let s = &services;
        if let Some(access) = matrix::required(&path)
            && let Err(error) = s.require(caller, &access).await
        {
            return rpc::error_response(&error);
        }
        match path.as_str() {
            "/etcdserverpb.KV/DeleteRange" => {
                unary(request, limit, |r, length| kv::delete_range(s, caller, r, length)).await
            }
            "/etcdserverpb.KV/Compact" => {
                unary(request, limit, |r, _| kv::compact(s, caller, r)).await
            }
            "/etcdserverpb.KV/RangeStream" => range_stream(services, caller, request, limit).await,
            "/etcdserverpb.Watch/Watch" => stream(services, request, limit, watch::Watch::new),
            "/etcdserverpb.Lease/LeaseKeepAlive" => {
                stream(services, request, limit, lease::KeepAlive::new)
            }
            "/etcdserverpb.Lease/LeaseGrant" => {
                unary(request, limit, |r, _| lease::grant(s, caller, r)).await
            }
            "/etcdserverpb.Lease/LeaseRevoke" => {
                unary(request, limit, |r, _| lease::revoke(s, caller, r)).await
            }
            "/etcdserverpb.Lease/LeaseTimeToLive" => {
                unary(request, limit, |r, _| lease::time_to_live(s, caller, r)).await
            }
            "/etcdserverpb.Lease/LeaseLeases" => {
                unary(request, limit, |LeaseLeasesRequest {}, _| lease::leases(s, caller)).await
            }
            _ => match path.strip_prefix(AUTH) {
                Some(method) => authorization(s, caller, request, limit, method).await,
                None => rarest(services, caller, request, limit, &path).await,
            },
        }
    })
}

const AUTH: &str = "/etcdserverpb.Auth/";

async fn authorization(
    s: &Services,
    caller: &Caller,
    request: Request<Incoming>,
    limit: usize,
    method: &str,
) -> Response<Body> {
    match method {
        "AuthEnable" => unary(request, limit, |r, _| auth::enable(s, caller, r)).await,
        "AuthDisable" => unary(request, limit, |r, _| auth::disable(s, caller, r)).await,
        "AuthStatus" => unary(request, limit, |r, _| auth::status(s, caller, r)).await,
        "Authenticate" => unary(request, limit, |r, _| auth::authenticate(s, r)).await,
        "UserAdd" => unary(request, limit, |r, _| auth::user_add(s, caller, r)).await,
        "UserGet" => unary(request, limit, |r, _| auth::user_get(s, caller, r)).await,
        "UserList" => unary(request, limit, |r, _| auth::user_list(s, caller, r)).await,
        "UserDelete" => unary(request, limit, |r, _| auth::user_delete(s, caller, r)).await,
        "UserChangePassword" => {
            unary(request, limit, |r, _| auth::user_change_password(s, caller, r)).await
        }
        "UserGrantRole" => unary(request, limit, |r, _| auth::user_grant_role(s, caller, r)).await,
        "UserRevokeRole" => {
            unary(request, limit, |r, _| auth::user_revoke_role(s, caller, r)).await
        }
        "RoleAdd" => unary(request, limit, |r, _| auth::role_add(s, caller, r)).await,
        "RoleGet" => unary(request, limit, |r, _| auth::role_get(s, caller, r)).await,
        "RoleList" => unary(request, limit, |r, _| auth::role_list(s, caller, r)).await,
        "RoleDelete" => unary(request, limit, |r, _| auth::role_delete(s, caller, r)).await,
        "RoleGrantPermission" => {
            unary(request, limit, |r, _| auth::role_grant_permission(s, caller, r)).await
        }
        "RoleRevokePermission" => {
            unary(request, limit, |r, _| auth::role_revoke_permission(s, caller, r)).await
        }
        _ => rpc::error_response(&unknown(request.uri().path())),
    }
}

async fn rarest(
    services: Arc<Services>,
    caller: &Caller,
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
        STATUS => {
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
        SNAPSHOT => snapshot(services, request, limit).await,
        "/etcdserverpb.Maintenance/Alarm" => {
            unary(request, limit, |r, _| alarm::alarm(s, caller, r)).await
        }
        "/etcdserverpb.Maintenance/Downgrade" => {
            unary(request, limit, |r, _| downgrade::downgrade(s, caller, r)).await
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
    // These calls can take long, and may live to see authorization turned on.
    let client = &recipes::Client::new(services.clone(), Caller::of(&request));
    match path {
        "/v3lockpb.Lock/Lock" => {
            unary(request, limit, |r, _| as_from_a_client(lock::lock(client, r))).await
        }
        "/v3lockpb.Lock/Unlock" => {
            unary(request, limit, |r, _| as_from_a_client(lock::unlock(client, r))).await
        }
        "/v3electionpb.Election/Campaign" => {
            unary(request, limit, |r, _| as_from_a_client(election::campaign(client, r))).await
        }
        "/v3electionpb.Election/Proclaim" => {
            unary(request, limit, |r, _| as_from_a_client(election::proclaim(client, r))).await
        }
        "/v3electionpb.Election/Resign" => {
            unary(request, limit, |r, _| as_from_a_client(election::resign(client, r))).await
        }
        "/v3electionpb.Election/Leader" => {
            unary(request, limit, |r, _| as_from_a_client(election::leader(client, r))).await
        }
        "/v3electionpb.Election/Observe" => {
            let leader_lost = services.leader_lost(request.headers());
            answer_with(request, limit, |r| recipes::observe(client.clone(), &r, leader_lost)).await
        }
        "/grpc.health.v1.Health/Check" => {
            unary(request, limit, |r, _| async move { grpc_health::check(&r) }).await
        }
        "/grpc.health.v1.Health/Watch" => {
            answer_with(request, limit, |r| grpc_health::watch(&services, &r)).await
        }
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => {
            stream(services, request, limit, |services, _, questions, _| {
                Reflection::new(questions, services.stopping())
            })
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
    caller: &Caller,
    request: Request<Incoming>,
    limit: usize,
) -> Response<Body> {
    let pages = async {
        let message = rpc::decode(rpc::receive_one(request, limit).await?)?;
        kv::range_stream(services, caller, message).await
    };
    match pages.await {
        Ok(pages) => rpc::stream_response(pages),
        Err(error) => rpc::error_response(&error),
    }
}

async fn snapshot(
    services: Arc<Services>,
    request: Request<Incoming>,
    limit: usize,
) -> Response<Body> {
    let sending = async {
        let SnapshotRequest {} = rpc::decode(rpc::receive_one(request, limit).await?)?;
        snapshot::snapshot(services).await
    };
    match sending.await {
        Ok(sending) => rpc::stream_response(sending),
        Err(error) => rpc::error_response(&error),
    }
}

/// Starts a stream whose requests come as long as its responses go.
fn stream<S: rpc::Outgoing + 'static>(
    services: Arc<Services>,
    request: Request<Incoming>,
    limit: usize,
    start: impl FnOnce(Arc<Services>, Caller, Receiver, Option<crate::leader::Raised>) -> S,
) -> Response<Body> {
    // Even if it does not matter yet: the stream may live to see authorization turned on.
    let caller = Caller::of(&request);
    let leader_lost = services.leader_lost(request.headers());
    match Receiver::new(request, limit) {
        Ok(receiver) => rpc::stream_response(start(services, caller, receiver, leader_lost)),
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

    const FUTURE_BYTES_MAX: usize = 2560;

    fn bytes_of<S, R, F: Future>(_: impl Fn(S, R) -> F) -> usize {
        size_of::<F>()
    }

    /// Every call has this room allocated, and much of it moved; what is rare is boxed.
    #[test]
    fn the_future_of_a_call_stays_small() {
        let bytes = bytes_of(call);
        assert!(bytes <= FUTURE_BYTES_MAX, "{bytes} bytes");
    }

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
