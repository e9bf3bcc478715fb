//! How openraft tells what became of a proposed entry.

use openraft::OptionalSend;
use openraft::raft::responder::Responder;

use crate::types::{LogId, TypeConfig};

type OnCommit = Box<dyn FnOnce(LogId) + Send>;
type OnComplete<T> = Box<dyn FnOnce(Result<T, Dropped>) + Send>;

/// openraft gave up the entry without a word, as it does when it stops: its fate is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped;

/// Calls back once when the entry is committed and once when it is over.
pub struct WriteResponder<T> {
    commit: Option<OnCommit>,
    complete: Option<OnComplete<T>>,
}

impl<T> WriteResponder<T> {
    /// `complete` is called exactly once; `commit` at most once, before it.
    pub fn new(
        commit: impl FnOnce(LogId) + Send + 'static,
        complete: impl FnOnce(Result<T, Dropped>) + Send + 'static,
    ) -> Self {
        Self { commit: Some(Box::new(commit)), complete: Some(Box::new(complete)) }
    }
}

impl<T: OptionalSend + 'static> Responder<TypeConfig, T> for WriteResponder<T> {
    fn on_commit(&mut self, log_id: LogId) {
        if let Some(commit) = self.commit.take() {
            commit(log_id);
        }
    }

    fn on_complete(mut self, result: T) {
        if let Some(complete) = self.complete.take() {
            complete(Ok(result));
        }
    }
}

impl<T> Drop for WriteResponder<T> {
    fn drop(&mut self) {
        if let Some(complete) = self.complete.take() {
            complete(Err(Dropped));
        }
    }
}
