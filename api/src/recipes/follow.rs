//! A watch whose events are used here.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_proto::etcdserverpb::ResponseHeader;
use holdfast_proto::mvccpb::Event;
use holdfast_store::WatchStream;
use holdfast_store::auth::{Access, AuthRules};
use holdfast_store::watch::{Delivery, StreamLimits, WatchSpec};
use prost::Message as _;

use super::Client;
use crate::bell::Bell;
use crate::status::Error;

/// Bytes of events taken at a time.
const DELIVERY_BYTES: usize = 64 << 10;
/// Bytes that the hub may hold for a watch before it sets it aside.
const QUEUE_BYTES: usize = 256 << 10;

/// One watch; it ends when this is dropped.
pub(super) struct Follow {
    services: Client,
    key: Bytes,
    range_end: Bytes,
    /// By which whoever called may read what is followed; none before the first events.
    rules: Option<AuthRules>,
    stream: WatchStream,
    bell: Arc<Bell>,
}

impl Follow {
    /// Watches one key, or the range up to `range_end`, from a revision on.
    pub(super) fn new(
        services: &Client,
        key: Bytes,
        range_end: Bytes,
        start_revision: i64,
    ) -> Self {
        let bell = services.bells.bell();
        let limits = StreamLimits { fragment_bytes: usize::MAX, queue_bytes: QUEUE_BYTES };
        let stream = services.hub.open_stream(bell.clone(), limits);
        let (start, end) = (key.clone(), range_end.clone());
        let spec = WatchSpec { key: start, range_end: end, start_revision, ..WatchSpec::default() };
        stream.create(spec);
        Self { services: services.clone(), key, range_end, rules: None, stream, bell }
    }

    /// The next events, and the header that a watcher would have got with them.
    pub(super) async fn next(&mut self) -> Result<(ResponseHeader, Vec<Event>), Error> {
        loop {
            match std::future::poll_fn(|context| self.poll_delivery(context)).await {
                Delivery::Events { revision, events, .. } => {
                    self.judge().await?;
                    let events = events.into_iter().map(Event::decode);
                    let events = events
                        .collect::<Result<_, _>>()
                        .map_err(|error| Error::internal(error.to_string()))?;
                    return Ok((self.services.headers.at(revision), events));
                }
                Delivery::Compacted { .. } => return Err(Error::Compacted),
                Delivery::Refused { .. } | Delivery::Canceled { .. } => {
                    return Err(Error::WatchCanceled);
                }
                Delivery::Created { .. } | Delivery::Progress { .. } => {}
            }
        }
    }

    /// Whether what was followed may be shown, by rules that are not older.
    async fn judge(&mut self) -> Result<(), Error> {
        let rules = self.services.reader.auth_rules();
        if self.rules != Some(rules) {
            let access = Access::Watch { key: &self.key, range_end: &self.range_end };
            self.services.require(&self.services.caller, &access).await?;
            self.rules = Some(rules);
        }
        Ok(())
    }

    fn poll_delivery(&self, context: &mut std::task::Context<'_>) -> std::task::Poll<Delivery> {
        self.bell.register(context.waker());
        match self.stream.next(DELIVERY_BYTES) {
            Some(delivery) => std::task::Poll::Ready(delivery),
            None => std::task::Poll::Pending,
        }
    }
}
