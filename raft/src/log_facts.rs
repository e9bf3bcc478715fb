//! What the rest of a node needs to know of its log, beyond openraft's interface.

use tokio::sync::watch;

/// How far the log is on disk, and how much was ever written to it.
#[derive(Clone, Debug)]
pub(crate) struct LogFacts {
    facts: watch::Receiver<Flushed>,
}

/// The state of the log's file system side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flushed {
    /// Everything up to this index is on disk.
    pub(crate) index: u64,
    /// Bytes written since the member started.
    pub(crate) bytes: u64,
}

impl LogFacts {
    pub(crate) fn new(facts: watch::Receiver<Flushed>) -> Self {
        Self { facts }
    }

    pub(crate) fn flushed(&self) -> u64 {
        self.facts.borrow().index
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.facts.borrow().bytes
    }

    /// Returns once everything up to `index` is on disk, or the log has stopped.
    pub(crate) async fn wait_flushed(&self, index: u64) {
        let mut facts = self.facts.clone();
        // A log that stops has failed, and so has the member.
        let _ = facts.wait_for(|facts| facts.index >= index).await;
    }
}
