//! A stream of keep-alives: answers in the order of the requests, several under way at a time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, Stream};
use holdfast_proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use holdfast_store::auth::Access;

use crate::auth::Caller;
use crate::leader::Raised;
use crate::rpc::{self, Outgoing, Receiver, Step};
use crate::services::Services;
use crate::status::Error;

/// Renewals of one stream that are under way at a time.
const UNDER_WAY: usize = 64;

/// One client's stream.
pub struct KeepAlive {
    services: Arc<Services>,
    caller: Caller,
    requests: Receiver,
    /// The client has sent its last request.
    ended: bool,
    renewals: FuturesOrdered<BoxFuture<'static, Result<Bytes, Error>>>,
    leader_lost: Option<Raised>,
    stopping: Raised,
}

impl KeepAlive {
    /// Serves the requests of a call.
    pub fn new(
        services: Arc<Services>,
        caller: Caller,
        requests: Receiver,
        leader_lost: Option<Raised>,
    ) -> Self {
        let stopping = services.stopping();
        let renewals = FuturesOrdered::new();
        Self { services, caller, requests, ended: false, renewals, leader_lost, stopping }
    }

    /// Starts renewals for the requests that have come.
    fn poll_requests(&mut self, context: &mut Context<'_>) -> Result<(), Error> {
        while !self.ended && self.renewals.len() < UNDER_WAY {
            let Poll::Ready(request) = self.requests.poll_next(context) else { break };
            match request? {
                Some(bytes) => {
                    let request: LeaseKeepAliveRequest = rpc::decode(bytes)?;
                    self.renewals.push_back(Box::pin(renew(
                        self.services.clone(),
                        self.caller.clone(),
                        request.id,
                    )));
                }
                None => self.ended = true,
            }
        }
        Ok(())
    }
}

/// The header is made before the renewal: a client must not see a renewal at a later revision than
/// that of the lease's end.
async fn renew(services: Arc<Services>, caller: Caller, id: i64) -> Result<Bytes, Error> {
    let _pass = services.may_on_pool(&caller, Access::LeaseKeepAlive(id)).await?;
    let header = Some(services.headers.at(services.reader.visible()));
    let ttl = services.port.keep_alive(id).await?;
    Ok(rpc::framed(&LeaseKeepAliveResponse { header, id, ttl }))
}

impl Outgoing for KeepAlive {
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        if self.leader_lost.as_mut().is_some_and(|lost| lost.poll(context).is_ready()) {
            return Poll::Ready(Step::End(Err(Error::NoLeader)));
        }
        if self.stopping.poll(context).is_ready() {
            return Poll::Ready(Step::End(Err(Error::Stopped)));
        }
        if let Err(error) = self.poll_requests(context) {
            return Poll::Ready(Step::End(Err(error)));
        }
        match Pin::new(&mut self.renewals).poll_next(context) {
            Poll::Ready(Some(Ok(message))) => Poll::Ready(Step::Data(message)),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Step::End(Err(error))),
            Poll::Ready(None) if self.ended => Poll::Ready(Step::End(Ok(()))),
            // When a renewal ends, this is polled again and takes in further requests.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
