//! The consumer's end of a stream.

use std::sync::Arc;

use super::queue::StreamCore;
use super::{Delivery, RefusedReason, Shared, StreamLimits, Wake, WatchSpec};

/// One client connection's watchers. Requests are answered through [`WatchStream::next`], in the
/// order in which they were made. Dropping it cancels everything.
pub struct WatchStream {
    shared: Arc<Shared>,
    pub(super) core: Arc<StreamCore>,
}

pub(super) fn open(shared: Arc<Shared>, wake: Arc<dyn Wake>, limits: StreamLimits) -> WatchStream {
    let limits = StreamLimits { queue_bytes: limits.queue_bytes.max(1), ..limits };
    let make = |number| Arc::new(StreamCore::new(number, limits, wake));
    let core = shared.lock().add_stream(make);
    WatchStream { shared, core }
}

impl WatchStream {
    /// Creates a watcher; the answer is `Created` or `Refused`.
    pub fn create(&self, spec: WatchSpec) {
        let compacted = self.shared.source.compacted();
        let wakes = self.shared.lock().create(self.core.number, spec, compacted);
        wakes.fire();
    }

    /// Answers a creation that is refused for a reason outside the hub, in its turn.
    pub fn refuse(&self, reason: RefusedReason) {
        let wakes = self.shared.lock().refuse(self.core.number, reason);
        wakes.fire();
    }

    /// Ends a watcher; the answer is `Canceled`, or none at all if there is no such watcher.
    pub fn cancel(&self, id: i64) {
        let wakes = self.shared.lock().cancel(self.core.number, id);
        wakes.fire();
    }

    /// Asks how far the stream is; the answer is `Progress` with id -1, or none at all unless
    /// there is a watcher and all of them have been given everything.
    pub fn request_progress(&self) {
        let wakes = self.shared.lock().request_progress(self.core.number);
        wakes.fire();
    }

    /// The next message, if there is one: events of whole revisions, ending soon after `max_bytes`.
    /// After `None` the stream's `Wake` is called when there is something again.
    pub fn next(&self, max_bytes: usize) -> Option<Delivery> {
        let low_weight = self.core.limits.queue_bytes / 2;
        let (delivery, room) = self.core.queue().next(max_bytes, low_weight);
        if room {
            let wakes = self.shared.lock().unpark(self.core.number);
            wakes.fire();
        }
        delivery
    }

    /// Whether more requests may be made now. Answers are queued without a bound of their own, so
    /// a consumer reads no request while this is false.
    pub fn has_room(&self) -> bool {
        self.core.queue().weight() < self.core.limits.queue_bytes
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.shared.lock().remove_stream(self.core.number);
    }
}
