//! Counts the bytes of a connection for the peer at its other end, as soon as that is known.

use std::sync::{Arc, OnceLock};

use holdfast_store::measure::Counter;

use crate::counts::PeerCounts;

/// The meter of one connection; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    peer: OnceLock<Arc<PeerCounts>>,
    /// Before the peer was known.
    sent: Counter,
    received: Counter,
}

impl Meter {
    /// The meter of a connection to a peer that is known.
    pub(crate) fn of(peer: Arc<PeerCounts>) -> Self {
        let meter = Self::default();
        meter.assign(|| peer);
        meter
    }

    /// The peer is known now; only the first one counts.
    pub(crate) fn assign(&self, peer: impl FnOnce() -> Arc<PeerCounts>) {
        let Inner { peer: known, sent, received } = &*self.0;
        if known.get().is_some() {
            return;
        }
        let peer = known.get_or_init(peer);
        peer.sent_bytes.add(sent.get());
        peer.received_bytes.add(received.get());
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.0.peer.get().map_or(&self.0.sent, |peer| &peer.sent_bytes).add(bytes as u64);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.0.peer.get().map_or(&self.0.received, |peer| &peer.received_bytes).add(bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_the_peer_is_known_is_counted_as_the_peers() {
        let (meter, peer) = (Meter::default(), Arc::new(PeerCounts::default()));
        meter.received(10);
        meter.sent(1);
        meter.assign(|| peer.clone());
        meter.assign(|| unreachable!("it is known"));
        meter.received(5);
        assert_eq!((peer.received_bytes.get(), peer.sent_bytes.get()), (15, 1));
    }
}
