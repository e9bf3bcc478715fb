//! Turns for the streams of one connection runtime that have much to send.
//!
//! Each asks for a turn before its next piece. Between two turns the runtime looks for new requests
//! and serves everything else that is ready, so a short request waits for one piece, however many
//! streams there are. A turn that its stream does not use is over all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The turns of one runtime.
#[derive(Default)]
pub struct Turns {
    waiting: AtomicUsize,
    /// Rung when somebody waits after nobody did.
    wanted: Notify,
    /// Who waits, in order.
    next: Notify,
}

impl Turns {
    /// Returns when it is the caller's turn.
    pub async fn take(self: Arc<Self>) {
        let _waiting = Waiting::of(&self);
        self.wanted.notify_one();
        self.next.notified().await;
    }

    /// Gives turns for as long as it is polled, on the runtime of those who take them.
    pub async fn deal(&self) {
        loop {
            if self.waiting.load(Ordering::Relaxed) == 0 {
                self.wanted.notified().await;
                continue;
            }
            self.next.notify_one();
            // Comes back when the runtime has looked for new events.
            tokio::task::yield_now().await;
        }
    }
}

/// Counts who waits, until it has its turn or is gone.
struct Waiting<'a>(&'a Turns);

impl<'a> Waiting<'a> {
    fn of(turns: &'a Turns) -> Self {
        turns.waiting.fetch_add(1, Ordering::Relaxed);
        Self(turns)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test]
    async fn everyone_has_a_turn_and_others_run_in_between() {
        let (turns, order) = (Arc::new(Turns::default()), Rc::new(RefCell::new(Vec::new())));
        let local = LocalSet::new();
        for stream in 0..3 {
            let (turns, order) = (turns.clone(), order.clone());
            local.spawn_local(async move {
                for _ in 0..4 {
                    turns.clone().take().await;
                    order.borrow_mut().push(stream);
                }
            });
        }
        // One that takes a place in the queue and leaves it.
        let mut gone = Box::pin(turns.clone().take());
        assert!(futures_util::poll!(&mut gone).is_pending());
        let dealing = turns.clone();
        let dealer = local.spawn_local(async move { dealing.deal().await });
        drop(gone);
        local
            .run_until(async {
                while order.borrow().len() < 12 {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        dealer.abort();
        let order = order.borrow();
        for round in order.chunks(3) {
            assert_eq!(round.iter().sum::<i32>(), 3, "{order:?}");
        }
        assert_eq!(turns.waiting.load(Ordering::Relaxed), 0);
    }
}
