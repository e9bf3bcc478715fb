//! A connection to the registry, and the three things that are asked over it.
//!
//! A session ends with its first failure; whoever wants to go on opens another. Whether a failure is
//! final is decided here, by what the registry answered; no answer never is.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use holdfast_proto::etcdserverpb::auth_client::AuthClient;
use holdfast_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use holdfast_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use holdfast_proto::etcdserverpb::request_op::Request as Operation;
use holdfast_proto::etcdserverpb::watch_client::WatchClient;
use holdfast_proto::etcdserverpb::watch_request::RequestUnion;
use holdfast_proto::etcdserverpb::{
    AuthenticateRequest, Compare, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchCreateRequest, WatchRequest,
};
use holdfast_proto::mvccpb::KeyValue;
use http::Uri;
use hyper_util::rt::TokioIo;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint as Address};
use tonic::{Code, Request, Response, Status};
use tower::service_fn;

use super::registry::{Keys, Line, Registry, SIZE_MAX};
use super::{DiscoveryError, Endpoint, Failure, Login, Settings};
use crate::net::{Stream, Target};
use crate::status::Error;
use crate::tls::TlsClient;

/// etcd's client pings no more often, whatever it is told, and etcd's server hangs up on those who do.
const PING_INTERVAL_MIN: Duration = Duration::from_secs(10);
/// How a token travels.
const TOKEN: &str = "token";

pub(super) struct Session<'a> {
    endpoint: &'a Endpoint,
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
    request_timeout: Duration,
}

impl<'a> Session<'a> {
    /// Connects, and says who this member is.
    pub(super) async fn open(
        settings: &Settings,
        tls: Option<&Arc<TlsClient>>,
        endpoint: &'a Endpoint,
    ) -> Result<Self, Failure> {
        let connecting = connect(settings, tls, &endpoint.target);
        let connected = match settings.dial_timeout {
            Duration::ZERO => Ok(connecting.await),
            limit => tokio::time::timeout(limit, connecting).await,
        };
        let channel = match connected {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(Failure::Passing(innermost(&error))),
            Err(_) => return Err(Failure::Passing("no connection in time".to_owned())),
        };
        let request_timeout = settings.request_timeout;
        let mut session = Self { endpoint, channel, token: None, request_timeout };
        if let Some(login) = &settings.login {
            session.token = session.log_in(login).await?;
        }
        Ok(session)
    }

    /// A token; none where nobody needs one.
    async fn log_in(&self, login: &Login) -> Result<Option<MetadataValue<Ascii>>, Failure> {
        let Login { user, password } = login.clone();
        let request = self.request(AuthenticateRequest { name: user, password });
        let mut client = AuthClient::new(self.channel.clone());
        let answer = match self.timely(client.authenticate(request)).await {
            Ok(answer) => answer,
            Err(status) if status.message() == Error::AuthNotEnabled.text() => return Ok(None),
            Err(status) => return Err(self.failure(&status)),
        };
        let token = answer.into_inner().token.parse();
        Ok(Some(token.map_err(|_| Failure::Passing("the token cannot be sent".to_owned()))?))
    }

    /// What the registry holds, and a revision that this is at least as new as.
    pub(super) async fn read(&self, keys: &Keys) -> Result<(Registry, i64), Failure> {
        let key = keys.size.clone().into();
        let (size, _) = self.range(RangeRequest { key, ..RangeRequest::default() }).await?;
        let (members, revision) = self
            .range(RangeRequest {
                key: keys.members.clone().into(),
                range_end: end_of(&keys.members).into(),
                sort_order: SortOrder::Ascend.into(),
                sort_target: SortTarget::Create.into(),
                limit: SIZE_MAX as i64,
                ..RangeRequest::default()
            })
            .await?;
        let size = size.first().map(|pair| &*pair.value);
        Ok((Registry::read(keys, size, &members)?, revision))
    }

    async fn range(&self, request: RangeRequest) -> Result<(Vec<KeyValue>, i64), Failure> {
        let mut client = KvClient::new(self.channel.clone());
        let answer = self.timely(client.range(self.request(request))).await;
        let answer = answer.map_err(|status| self.failure(&status))?.into_inner();
        let revision = answer.header.map(|header| header.revision).unwrap_or_default();
        let pairs: Result<Vec<_>, _> = answer.kvs.iter().map(|kv| kv.decode_message()).collect();
        let pairs = pairs.map_err(|error| Failure::Passing(format!("no key versions: {error}")))?;
        Ok((pairs, revision))
    }

    /// Makes the entry unless there is one; then it is left, whatever it holds. Harmless to repeat.
    pub(super) async fn register(&self, line: &Line) -> Result<(), Failure> {
        let (key, value) = (bytes::Bytes::from(line.key.clone()), line.value.clone().into());
        let is_absent = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Create.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::CreateRevision(0)),
            ..Compare::default()
        };
        let put = Operation::RequestPut(PutRequest { key, value, ..PutRequest::default() });
        let success = vec![RequestOp { request: Some(put) }];
        let txn = TxnRequest { compare: vec![is_absent], success, failure: Vec::new() };
        let mut client = KvClient::new(self.channel.clone());
        let answer = self.timely(client.txn(self.request(txn))).await;
        answer.map(drop).map_err(|status| self.failure(&status))
    }

    /// Waits until an entry changes, from this revision on, or for so long.
    pub(super) async fn wait_for_change(
        &self,
        keys: &Keys,
        revision: i64,
        limit: Duration,
    ) -> Result<(), Failure> {
        let create = WatchCreateRequest {
            key: keys.members.clone().into(),
            range_end: end_of(&keys.members).into(),
            start_revision: revision,
            ..WatchCreateRequest::default()
        };
        match tokio::time::timeout(limit, self.watch(create)).await {
            Ok(result) => result,
            Err(_) => Ok(()),
        }
    }

    async fn watch(&self, create: WatchCreateRequest) -> Result<(), Failure> {
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The stream of requests stays open: its end would be the watch's.
        let requests = stream::iter([create]).chain(stream::pending());
        let mut client = WatchClient::new(self.channel.clone());
        let answers = client.watch(self.request(requests)).await;
        let mut answers = answers.map_err(|status| self.failure(&status))?.into_inner();
        loop {
            let answer = answers.message().await.map_err(|status| self.failure(&status))?;
            let answer = answer.ok_or_else(|| Failure::Passing("the watch ended".to_owned()))?;
            // What has been compacted can be read all the same.
            if !answer.events.is_empty() || answer.compact_revision > 0 {
                return Ok(());
            }
            if answer.canceled {
                return Err(Failure::Passing(answer.cancel_reason));
            }
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert(TOKEN, token.clone());
        }
        request
    }

    async fn timely<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Response<T>, Status> {
        let answered = tokio::time::timeout(self.request_timeout, call).await;
        answered.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
    }

    /// A registry that refuses this member goes on doing so, unless its rules were just changing.
    fn failure(&self, status: &Status) -> Failure {
        let is_refusal = matches!(status.code(), Code::InvalidArgument | Code::PermissionDenied)
            && status.message() != Error::AuthOldRevision.text();
        let reason = status.message().to_owned();
        match is_refusal {
            true => {
                let endpoint = self.endpoint.to_string();
                DiscoveryError::Refused { endpoint, reason }.into()
            }
            false => Failure::Passing(format!("{:?}: {reason}", status.code())),
        }
    }
}

/// The end of the range of keys that begin with `prefix`, which ends with a slash.
fn end_of(prefix: &str) -> String {
    let start = prefix.strip_suffix('/').expect("keys of members stand in a folder");
    // The character after the slash.
    format!("{start}0")
}

async fn connect(
    settings: &Settings,
    tls: Option<&Arc<TlsClient>>,
    target: &Target,
) -> Result<Channel, tonic::transport::Error> {
    let scheme = if target.is_secure { "https" } else { "http" };
    let origin = format!("{scheme}://{}", target.authority());
    let mut address = Address::from_shared(origin)?;
    if !settings.keepalive_time.is_zero() {
        address = address
            .http2_keep_alive_interval(settings.keepalive_time.max(PING_INTERVAL_MIN))
            .keep_alive_timeout(settings.keepalive_timeout);
    }
    let (tls, target) = (tls.cloned(), target.clone());
    let connector = service_fn(move |_: Uri| {
        let (tls, target) = (tls.clone(), target.clone());
        async move {
            let socket = target.connect().await?;
            let stream = match tls.filter(|_| target.is_secure) {
                Some(tls) => tls.connect(socket, &target.host).await?,
                None => Stream::Plain(socket),
            };
            io::Result::Ok(TokioIo::new(stream))
        }
    });
    address.connect_with_connector(connector).await
}

/// What lies under what tonic says.
fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}
