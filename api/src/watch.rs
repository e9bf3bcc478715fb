//! The Watch service: one stream of requests and responses over one stream of the store's hub.
//!
//! There is no task and no queue of its own: the response body reads requests, hands them to the
//! hub, and takes deliveries out, each time the connection has room. What a client does not take
//! stays with the hub, which bounds it. A client that closes its half keeps its watchers.

mod response;

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use holdfast_proto::etcdserverpb::{
    WatchCreateRequest, WatchRequest, watch_create_request::FilterType, watch_request::RequestUnion,
};
use holdfast_store::WatchStream;
use holdfast_store::auth::{Access, AuthRefusal};
use holdfast_store::watch::{Delivery, RefusedReason, StreamLimits, WatchSpec};

use crate::auth::Caller;
use crate::bell::Bell;
use crate::leader::Raised;
use crate::rpc::{self, Outgoing, Receiver, Step};
use crate::services::Services;
use crate::status::Error;

/// Requests taken in before deliveries have their turn.
const REQUESTS_A_TURN: usize = 64;
/// Deliveries are gathered up to about so many bytes before they are sent.
const GATHERED_BYTES: usize = 32 << 10;
/// Bytes of events asked of the hub at a time; a single revision can be more.
const DELIVERY_BYTES: usize = 256 << 10;
/// Bytes that the hub may hold for one stream before it sets its watchers aside.
const QUEUE_BYTES: usize = 1 << 20;

type Verdict = Result<(), RefusedReason>;

/// A creation on its way past the rules.
type Judging = BoxFuture<'static, (WatchSpec, Verdict)>;

/// One client's stream.
pub struct Watch {
    services: Arc<Services>,
    caller: Caller,
    requests: Receiver,
    /// A creation that is being judged; nothing is taken in before that is done.
    judging: Option<Judging>,
    /// The client has sent its last request.
    ended: bool,
    stream: WatchStream,
    bell: Arc<Bell>,
    leader_lost: Option<Raised>,
    stopping: Raised,
}

impl Watch {
    /// Serves the requests of a call.
    pub fn new(
        services: Arc<Services>,
        caller: Caller,
        requests: Receiver,
        leader_lost: Option<Raised>,
    ) -> Self {
        let bell = services.bells.bell();
        let limits = StreamLimits {
            fragment_bytes: services.shared.limits.receive_bytes(),
            queue_bytes: QUEUE_BYTES,
        };
        let stream = services.hub.open_stream(bell.clone(), limits);
        let stopping = services.stopping();
        Self {
            services,
            caller,
            requests,
            judging: None,
            ended: false,
            stream,
            bell,
            leader_lost,
            stopping,
        }
    }

    /// Hands requests to the hub; true if there may be more of them already.
    fn poll_requests(&mut self, context: &mut Context<'_>) -> Result<bool, Error> {
        for _ in 0..REQUESTS_A_TURN {
            if !self.poll_judging(context) {
                return Ok(false);
            }
            if self.ended || !self.stream.has_room() {
                return Ok(false);
            }
            let Poll::Ready(request) = self.requests.poll_next(context) else { return Ok(false) };
            match request? {
                Some(bytes) => self.request(rpc::decode(bytes)?),
                None => self.ended = true,
            }
        }
        Ok(true)
    }

    /// Carries out a creation that has been judged; false while one is being judged.
    fn poll_judging(&mut self, context: &mut Context<'_>) -> bool {
        let Some(judging) = &mut self.judging else { return true };
        let Poll::Ready((spec, verdict)) = judging.as_mut().poll(context) else { return false };
        self.judging = None;
        match verdict {
            Ok(()) => self.create(spec),
            Err(reason) => self.stream.refuse(reason),
        }
        true
    }

    fn create(&self, mut spec: WatchSpec) {
        let reader = &self.services.reader;
        let visible = reader.visible();
        if spec.start_revision == 0 && visible > reader.revision() {
            // From now on: what this client may have read already is not news.
            spec.start_revision = visible + 1;
        }
        self.stream.create(spec);
    }

    fn request(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => {
                let spec = spec(&request);
                // A revision below zero is refused by the hub, whoever asks.
                if self.services.reader.auth_enabled() && spec.start_revision >= 0 {
                    let (services, caller) = (self.services.clone(), self.caller.clone());
                    self.judging = Some(Box::pin(judge(services, caller, spec)));
                } else {
                    self.create(spec);
                }
            }
            Some(RequestUnion::CancelRequest(request)) => self.stream.cancel(request.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => self.stream.request_progress(),
            // A request of a later version: the stream goes on without it.
            None => {}
        }
    }

    /// Encodes what the hub has, up to a bound.
    fn gather(&mut self) -> BytesMut {
        let mut gathered = BytesMut::new();
        while gathered.len() < GATHERED_BYTES {
            let Some(delivery) = self.stream.next(DELIVERY_BYTES) else { break };
            if let Delivery::Events { events, .. } = &delivery {
                self.services.tally.events.add_alone(events.len() as u64);
            }
            let revision = self.services.reader.revision();
            let response = response::of(delivery, &self.services.headers, revision);
            rpc::put_message(&mut gathered, &response);
        }
        gathered
    }

    fn poll_ending(&mut self, context: &mut Context<'_>) -> Option<Error> {
        if self.leader_lost.as_mut().is_some_and(|lost| lost.poll(context).is_ready()) {
            return Some(Error::NoLeader);
        }
        self.stopping.poll(context).is_ready().then_some(Error::Stopped)
    }
}

impl Outgoing for Watch {
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        if let Some(error) = self.poll_ending(context) {
            return Poll::Ready(Step::End(Err(error)));
        }
        let more = match self.poll_requests(context) {
            Ok(more) => more,
            Err(error) => return Poll::Ready(Step::End(Err(error))),
        };
        self.bell.register(context.waker());
        let gathered = self.gather();
        if !gathered.is_empty() {
            return Poll::Ready(Step::Data(gathered.freeze()));
        }
        if more {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// Whether the caller may watch this. It is asked once: who has a watcher keeps it.
async fn judge(services: Arc<Services>, caller: Caller, spec: WatchSpec) -> (WatchSpec, Verdict) {
    // Without a key the range begins with the first one.
    let key: &[u8] = if spec.key.is_empty() { b"\0" } else { &spec.key };
    let access = Access::Watch { key, range_end: &spec.range_end };
    let verdict = match services.require(&caller, &access).await {
        Ok(()) => Ok(()),
        Err(Error::InvalidAuthToken) => Err(RefusedReason::InvalidToken),
        Err(Error::AuthOldRevision) => Err(AuthRefusal::OldRevision.into()),
        Err(Error::UserEmpty) => Err(AuthRefusal::UserEmpty.into()),
        Err(_) => Err(AuthRefusal::PermissionDenied.into()),
    };
    (spec, verdict)
}

/// What the hub is asked for. The keys are copied: they outlive the buffer they were received in.
fn spec(request: &WatchCreateRequest) -> WatchSpec {
    let without = |filter: FilterType| request.filters.contains(&(filter as i32));
    WatchSpec {
        id: request.watch_id,
        key: Bytes::copy_from_slice(&request.key),
        range_end: Bytes::copy_from_slice(&request.range_end),
        start_revision: request.start_revision,
        prev_kv: request.prev_kv,
        progress_notify: request.progress_notify,
        no_put: without(FilterType::Noput),
        no_delete: without(FilterType::Nodelete),
        fragment: request.fragment,
    }
}
