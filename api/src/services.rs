//! What the services of one connection runtime stand on.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use holdfast_raft::{Node, Port};
use holdfast_store::{Fatal, ReadError, Reader, WatchHub};
use tokio::sync::watch;

use crate::access::Rules;
use crate::admit::Limits;
use crate::auth;
use crate::bell::Bells;
use crate::exit::{Exit, ExitCell};
use crate::header::Headers;
use crate::leader::{self, Raised};
use crate::metrics::tally::{Tallies, Tally};
use crate::pool::Pool;
use crate::snapshot::Desk;
use crate::status::Error;
use crate::traces::Traces;
use crate::turns::Turns;

/// What all runtimes share.
#[derive(Clone)]
pub struct Shared {
    /// The member.
    pub node: Node,
    /// From the flags.
    pub limits: Limits,
    /// For work that is too long for a connection runtime.
    pub pool: Pool,
    /// Where snapshots are asked for.
    pub snapshots: Arc<Desk>,
    /// Set once clients are let in, for good.
    pub serves_clients: Arc<AtomicBool>,
    /// Raised when the server stops: streams end.
    pub stopping: watch::Receiver<bool>,
    /// Where a reason to exit goes.
    pub exit: Arc<ExitCell>,
    /// What the runtimes count.
    pub(crate) tallies: Tallies,
    /// Where calls are traced, if they are.
    pub traces: Option<Traces>,
    /// The version of etcd that clients are told.
    pub etcd_version: &'static str,
    /// The shortest lease that is granted, in seconds.
    pub lease_ttl_min: i64,
    /// For requests that are not gRPC.
    pub http: Arc<Rules>,
    /// How clients authenticate.
    pub auth: Arc<auth::Settings>,
    /// This member's `--quota-backend-bytes`; -1 without a limit.
    pub quota_bytes: i64,
}

/// What the services of one runtime stand on.
pub struct Services {
    /// What all runtimes share.
    pub shared: Shared,
    /// This runtime's way to the node.
    pub port: Port,
    /// The store.
    pub reader: Reader,
    /// The watch hub.
    pub hub: WatchHub,
    /// Makes response headers.
    pub headers: Headers,
    /// Wakes this runtime's watch streams.
    pub bells: Bells,
    /// Has this runtime's big answers take turns.
    pub turns: Arc<Turns>,
    /// What this runtime counts.
    pub(crate) tally: Arc<Tally>,
    /// For calls that wait to be authenticated.
    pub(crate) waiting: auth::Waiting,
}

impl Services {
    /// Services on the calling runtime.
    pub fn new(shared: Shared) -> Self {
        let node = &shared.node;
        Self {
            port: node.port(),
            reader: node.reader().clone(),
            hub: node.hub().clone(),
            headers: Headers::new(node.clone()),
            bells: Bells::default(),
            turns: Arc::default(),
            tally: shared.tallies.open(),
            waiting: auth::Waiting::default(),
            shared,
        }
    }

    /// The member.
    pub fn node(&self) -> &Node {
        &self.shared.node
    }

    /// Whether this member only learns, and so serves next to nothing.
    pub fn is_learner(&self) -> bool {
        self.node().is_learner()
    }

    /// Refuses a call by its metadata, or because this member is a learner and the call is not one
    /// that learners serve.
    pub fn check_call(
        &self,
        headers: &http::HeaderMap,
        served_by_learners: bool,
    ) -> Result<(), Error> {
        if !served_by_learners && self.is_learner() {
            return Err(Error::NotSupportedForLearner);
        }
        leader::check_client_version(headers)?;
        if leader::is_required(headers) && self.node().status().leader.is_none() {
            return Err(Error::NoLeader);
        }
        Ok(())
    }

    /// For a stream: waits until there has been no leader for long, if the call requires one.
    pub fn leader_lost(&self, headers: &http::HeaderMap) -> Option<Raised> {
        leader::is_required(headers).then(|| Raised::new(self.node().no_leader()))
    }

    /// For a stream: waits until the server stops.
    pub fn stopping(&self) -> Raised {
        Raised::new(self.shared.stopping.clone())
    }

    /// The error for a client whose read failed.
    pub fn read_error(&self, error: ReadError) -> Error {
        match error {
            ReadError::Rejected(rejected) => rejected.into(),
            ReadError::Fatal(fatal) => self.fail(fatal),
            ReadError::WouldBlock => unreachable!("only an inline read would block"),
        }
    }

    /// This member cannot go on: the process is to exit, and the client learns nothing.
    pub fn fail(&self, fatal: Fatal) -> Error {
        self.shared.exit.set(Exit::Fatal(fatal));
        Error::Stopped
    }
}
