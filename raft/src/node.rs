//! One member of a cluster, as the API sees it.

mod alone;
mod found;
mod join;
mod open;
pub(crate) mod plan;
pub(crate) mod reach;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_store::{Fatal, History, ReadError, Reader, WatchHub};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::apply::Applier;
use crate::config::{NodeConfig, Seams};
use crate::counts::{LogSize, NodeCounts};
use crate::desk::{self, MemberDesk};
use crate::directory::Lock;
use crate::divergence::Inspector;
use crate::error::{MemberError, OpenError};
use crate::identity::Identity;
use crate::keeper::Keeper;
use crate::members::MemberChange;
use crate::port::Port;
use crate::propose::Raft;
use crate::shared::Shared;
use crate::status::Status;
use crate::types::PeerNode;
use crate::wal::Wal;
use crate::work::Actor;

pub(crate) use plan::Plan;

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
    inner: Arc<Inner>,
}

type Tasks = (JoinSet<()>, oneshot::Sender<()>);

struct Inner {
    identity: Identity,
    shared: Arc<Shared>,
    raft: Raft,
    keeper: Keeper,
    applier: Actor<Applier>,
    hub: WatchHub,
    members: MemberDesk,
    strict_reconfig_check: bool,
    learners_max: u64,
    /// For its size: it does not keep the log's writer going.
    wal: Wal,
    ready: watch::Sender<bool>,
    election_timeout: Duration,
    /// None once the node has stopped.
    tasks: Mutex<Option<Tasks>>,
    inspector: Inspector,
    _locks: Vec<Lock>,
}

impl Node {
    /// Opens the data directory and starts the member on the calling runtime, which must be a
    /// current-thread runtime of its own. Returns once the member's own log is applied.
    pub async fn open(config: NodeConfig, seams: Seams) -> Result<Self, OpenError> {
        open::open(config, seams).await
    }

    /// Returns once a leader's first entry is applied and this member's attributes are published.
    pub async fn wait_ready(&self) {
        let mut ready = self.inner.ready.subscribe();
        ready.wait_for(|ready| *ready).await.expect("the sender is in self");
    }

    /// A way to this node for the calling runtime; its clones must stay there.
    pub fn port(&self) -> Port {
        self.inner.shared.open_port()
    }

    /// Reads of this member's state.
    pub fn reader(&self) -> &Reader {
        &self.inner.shared.reader
    }

    /// Watches on this member's state.
    pub fn hub(&self) -> &WatchHub {
        &self.inner.hub
    }

    /// The whole history of this member's state as it is now, everything that was published in it.
    pub async fn history(&self) -> Result<History, ReadError> {
        let frozen = self.inner.applier.call(|applier| applier.freeze()).await;
        self.reader().history(&frozen.map_err(Fatal::new)?)
    }

    /// Who this member is.
    pub fn identity(&self) -> Identity {
        self.inner.identity
    }

    /// What this member believes about its cluster.
    pub fn status(&self) -> Status {
        self.inner.shared.status.snapshot()
    }

    /// The term of [`Node::status`], for those who ask with every request.
    pub fn term(&self) -> u64 {
        self.inner.shared.status.term()
    }

    /// Whether this member is a learner, for the same.
    pub fn is_learner(&self) -> bool {
        self.inner.shared.status.is_learner()
    }

    /// Whether this member's file system is below its reserve: what needs room is to be refused,
    /// also before all members have agreed on the alarm.
    pub fn is_short_of_space(&self) -> bool {
        self.inner.shared.gauge.is_short()
    }

    /// Whether this member's history is its peers', as far as they can be asked: false if one of
    /// them holds another, and no majority holds this one.
    pub async fn agrees_with_peers(&self) -> bool {
        self.inner.inspector.agrees_with_peers().await
    }

    /// What this member has counted and timed since it started.
    pub fn counts(&self) -> &Arc<NodeCounts> {
        &self.inner.shared.counts
    }

    /// How many proposals of this member wait for their outcome.
    pub fn proposals_waiting(&self) -> usize {
        self.inner.shared.proposals_waiting()
    }

    /// How much there is of the log, and how far its disk is behind.
    pub fn log_size(&self) -> LogSize {
        let unflushed = self.inner.wal.unflushed();
        LogSize {
            segments: self.inner.wal.segments(),
            written_bytes: self.inner.keeper.log_bytes(),
            unflushed_bytes: unflushed.bytes,
            unflushed_age: unflushed.age,
        }
    }

    /// The members, by id.
    pub fn members(&self) -> Vec<Member> {
        desk::members(&self.inner.shared)
    }

    /// Adds a member that is reached at `peer_urls`, at `seconds` since 1970, of which its id is made
    /// up; gives that member and all of them. The member has to be started then.
    pub async fn add_member(
        &self,
        peer_urls: Vec<String>,
        is_learner: bool,
        seconds: u64,
    ) -> Result<(Member, Vec<Member>), MemberError> {
        let learners_max = self.inner.learners_max;
        let sorted = PeerNode::new(&peer_urls).peer_urls;
        let change = MemberChange::Add { seconds, peer_urls, is_learner, learners_max };
        let members = self.change_members(change).await?;
        // No two members are reached at one URL. Only one that is gone again is not there.
        let added = members.iter().find(|member| member.peer_urls == sorted).cloned();
        Ok((added.ok_or(MemberError::TimedOut)?, members))
    }

    /// Removes a member, for ever; gives those that are left.
    pub async fn remove_member(&self, member: u64) -> Result<Vec<Member>, MemberError> {
        self.change_members(MemberChange::Remove(member)).await
    }

    /// Makes a voter of a learner that is in sync; gives all members.
    pub async fn promote_member(&self, member: u64) -> Result<Vec<Member>, MemberError> {
        self.change_members(MemberChange::Promote(member)).await
    }

    /// Has a member reached at `peer_urls` from now on; gives all members.
    pub async fn update_member(
        &self,
        member: u64,
        peer_urls: Vec<String>,
    ) -> Result<Vec<Member>, MemberError> {
        self.change_members(MemberChange::Update { member, peer_urls }).await
    }

    async fn change_members(&self, change: MemberChange) -> Result<Vec<Member>, MemberError> {
        self.inner.members.change(change, self.inner.strict_reconfig_check).await
    }

    /// True while there has been no leader for three election timeouts.
    pub fn no_leader(&self) -> watch::Receiver<bool> {
        self.inner.shared.status.leaderless()
    }

    /// Resolves when this member cannot go on; the process must exit.
    pub fn fatal(&self) -> impl Future<Output = Fatal> + Send + 'static {
        let shared = self.inner.shared.clone();
        async move { shared.failure().await }
    }

    /// Whether a member votes by now, as a leader counts.
    pub fn votes(&self, member: u64) -> bool {
        self.inner.members.votes(member)
    }

    /// Hands leadership to `to`, or to the voter that is furthest on. True once another member
    /// leads; false if this one does not lead, if `to` is no voter or has not answered lately, or if
    /// nobody has taken over within an election timeout.
    pub async fn transfer_leadership(&self, to: Option<u64>) -> bool {
        self.inner.members.hand_over(to, self.inner.election_timeout).await
    }

    /// Hands over leadership and stops. Everything waiting is answered "stopped".
    pub async fn shutdown(&self) {
        self.transfer_leadership(None).await;
        self.stop().await;
    }

    /// Stops without a word to anyone.
    pub async fn stop(&self) {
        let shared = &self.inner.shared;
        shared.stop();
        shared.wake_ports();
        let tasks = self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((mut tasks, stop_server)) = tasks else { return };
        let _ = stop_server.send(());
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "openraft did not stop cleanly");
        }
        tasks.shutdown().await;
        // The next to open the directory may come at once.
        self.inner.keeper.stop().await;
    }
}
