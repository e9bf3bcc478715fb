//! One member of a cluster, as the API sees it.

use std::future::Future;
use std::sync::Arc;

use holdfast_store::Fatal;
use tokio::sync::watch;

use crate::config::{NodeConfig, Seams};
use crate::error::OpenError;
use crate::identity::Identity;
use crate::port::Port;
use crate::shared::Shared;
use crate::status::Status;

/// A member of the cluster, by the membership in force and what it has published of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its name; empty until it has started.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; none until it has started.
    pub client_urls: Vec<String>,
    /// Whether it only learns.
    pub is_learner: bool,
}

/// A running member. Clones are the same member.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

impl Node {
    /// Opens the data directory and starts the member on the calling runtime, which must be a
    /// current-thread runtime of its own. Returns once the member's own log is applied.
    pub async fn open(config: NodeConfig, seams: Seams) -> Result<Self, OpenError> {
        let _ = seams;
        Err(OpenError::Misconfigured(format!("{}: no state machine yet", config.name)))
    }

    /// Returns once a leader's first entry is applied and this member's attributes are published.
    pub async fn wait_ready(&self) {}

    /// A way to this node for the calling runtime; its clones must stay there.
    pub fn port(&self) -> Port {
        self.shared.open_port()
    }

    /// Who this member is.
    pub fn identity(&self) -> Identity {
        self.shared.identity
    }

    /// What this member believes about its cluster.
    pub fn status(&self) -> Status {
        self.shared.status.snapshot()
    }

    /// The members, by id.
    pub fn members(&self) -> Vec<Member> {
        Vec::new()
    }

    /// True while there has been no leader for three election timeouts.
    pub fn no_leader(&self) -> watch::Receiver<bool> {
        self.shared.status.leaderless()
    }

    /// Resolves when this member cannot go on; the process must exit.
    pub fn fatal(&self) -> impl Future<Output = Fatal> + Send + 'static {
        let shared = self.shared.clone();
        async move { shared.failure().await }
    }

    /// Hands leadership to `to`, or to the member that is furthest on; gives up after an election
    /// timeout.
    pub async fn transfer_leadership(&self, to: Option<u64>) -> bool {
        let _ = to;
        false
    }

    /// Hands over leadership and stops. Everything waiting is answered "stopped".
    pub async fn shutdown(&self) {
        self.shared.intake.close();
        self.shared.wake_ports();
    }
}
