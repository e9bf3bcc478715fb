//! `Observe`: a stream of who leads an election, and with what value.

use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _};
use holdfast_proto::EncodedKeyValue;
use holdfast_proto::etcdserverpb::ResponseHeader;
use holdfast_proto::mvccpb::{EventType, KeyValue};
use holdfast_proto::v3electionpb::{LeaderRequest, LeaderResponse};

use super::follow::Follow;
use super::{Client, queue, read};
use crate::leader::Raised;
use crate::rpc::{self, Outgoing, Step};
use crate::status::Error;

/// Starts to answer an observer.
pub fn observe(services: Client, request: &LeaderRequest, leader_lost: Option<Raised>) -> Observe {
    let stopping = services.stopping();
    let prefix = queue::prefix(&request.name);
    let state = State { services, prefix, of: None, pending: Vec::new() };
    let values = futures_util::stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        match state.next().await {
            Ok(message) => Some((Ok(message), Some(state))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Observe { values: values.boxed(), leader_lost, stopping }
}

/// One observer's stream.
pub struct Observe {
    values: BoxStream<'static, Result<Bytes, Error>>,
    leader_lost: Option<Raised>,
    stopping: Raised,
}

impl Outgoing for Observe {
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        if self.leader_lost.as_mut().is_some_and(|lost| lost.poll(context).is_ready()) {
            return Poll::Ready(Step::End(Err(Error::NoLeader)));
        }
        if self.stopping.poll(context).is_ready() {
            return Poll::Ready(Step::End(Err(Error::Stopped)));
        }
        self.values.poll_next_unpin(context).map(|value| match value {
            Some(Ok(message)) => Step::Data(message),
            Some(Err(error)) => Step::End(Err(error)),
            None => Step::End(Ok(())),
        })
    }
}

struct State {
    services: Client,
    prefix: Bytes,
    /// Follows the key of the present leader.
    of: Option<Follow>,
    /// Values already known, the next one last.
    pending: Vec<(ResponseHeader, KeyValue)>,
}

impl State {
    async fn next(&mut self) -> Result<Bytes, Error> {
        loop {
            if let Some((header, kv)) = self.pending.pop() {
                let kv = Some(EncodedKeyValue::from(&kv));
                return Ok(rpc::framed(&LeaderResponse { header: Some(header), kv }));
            }
            match &mut self.of {
                Some(follow) => {
                    let (header, events) = match follow.next().await {
                        Err(Error::Compacted) => {
                            self.of = None;
                            continue;
                        }
                        next => next?,
                    };
                    for event in events {
                        if event.r#type() == EventType::Delete {
                            self.of = None;
                            break;
                        }
                        self.pending.extend(event.kv.map(|kv| (header, kv)));
                    }
                    self.pending.reverse();
                }
                None => {
                    let (header, kv) = self.elected().await?;
                    let from = header.revision + 1;
                    self.of = Some(Follow::new(&self.services, kv.key.clone(), Bytes::new(), from));
                    self.pending.push((header, kv));
                }
            }
        }
    }

    /// The present leader, or the next one.
    async fn elected(&self) -> Result<(ResponseHeader, KeyValue), Error> {
        let first = read::first_created(&self.prefix);
        let (header, keys) = read::range(&self.services, first).await?;
        if let Some(first) = keys.into_iter().next() {
            return Ok((header, first));
        }
        let end = read::end_of(&self.prefix);
        let mut follow = Follow::new(&self.services, self.prefix.clone(), end, header.revision);
        loop {
            let (mut header, events) = follow.next().await?;
            let put = events.into_iter().find(|event| event.r#type() == EventType::Put);
            if let Some(kv) = put.and_then(|event| event.kv) {
                // Later events of the same batch are still to be followed.
                header.revision = kv.mod_revision;
                return Ok((header, kv));
            }
        }
    }
}
