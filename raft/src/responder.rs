//! How openraft tells what became of a proposed entry.

use openraft::OptionalSend;
use openraft::raft::responder::Responder;

use crate::types::{LogId, TypeConfig};

/// openraft gave up the entry without a word, as it does when it stops: its fate is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped;

/// Whoever wants to know what became of an entry.
pub trait Follow<T>: Send {
    /// A quorum has the entry, at this place. Called at most once, before `complete`.
    fn committed(&mut self, log_id: LogId);
    /// It is over. Called exactly once.
    fn complete(self: Box<Self>, result: Result<T, Dropped>);
}

/// Passes openraft's calls on, and notices when there will be none.
pub struct WriteResponder<T> {
    follower: Option<Box<dyn Follow<T>>>,
}

impl<T> WriteResponder<T> {
    /// Tells `follower`.
    pub fn new(follower: impl Follow<T> + 'static) -> Self {
        Self { follower: Some(Box::new(follower)) }
    }
}

impl<T: OptionalSend + 'static> Responder<TypeConfig, T> for WriteResponder<T> {
    fn on_commit(&mut self, log_id: LogId) {
        if let Some(follower) = &mut self.follower {
            follower.committed(log_id);
        }
    }

    fn on_complete(mut self, result: T) {
        if let Some(follower) = self.follower.take() {
            follower.complete(Ok(result));
        }
    }
}

impl<T> Drop for WriteResponder<T> {
    fn drop(&mut self) {
        if let Some(follower) = self.follower.take() {
            follower.complete(Err(Dropped));
        }
    }
}
