//! One member of a cluster, as the API sees it.

mod found;
mod join;
mod open;
mod plan;
mod reach;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_store::{Fatal, Reader, WatchHub};
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::config::{NodeConfig, Seams};
use crate::desk::{self, MemberDesk};
use crate::directory::Lock;
use crate::error::{MemberError, MemberRefusal, OpenError};
use crate::identity::{Identity, added_member_id};
use crate::keeper::Keeper;
use crate::members::MemberChange;
use crate::port::Port;
use crate::propose::Raft;
use crate::shared::Shared;
use crate::status::Status;

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
    shared: Arc<Shared>,
    raft: Raft,
    keeper: Keeper,
    hub: WatchHub,
    members: MemberDesk,
    strict_reconfig_check: bool,
    learners_max: u64,
    ready: watch::Sender<bool>,
    election_timeout: Duration,
    /// None once the node has stopped.
    tasks: Mutex<Option<Tasks>>,
    _lock: Option<Lock>,
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

    /// Who this member is.
    pub fn identity(&self) -> Identity {
        self.inner.shared.identity
    }

    /// What this member believes about its cluster.
    pub fn status(&self) -> Status {
        self.inner.shared.status.snapshot()
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
        // As in etcd, the token is no part of an id that is given at run time.
        let member = added_member_id(&peer_urls, "", seconds);
        let learners_max = self.inner.learners_max;
        let change =
            MemberChange::Add { member, peer_urls: peer_urls.clone(), is_learner, learners_max };
        let members = self.change_members(change).await?;
        let added = Member {
            id: member,
            name: String::new(),
            peer_urls,
            client_urls: Vec::new(),
            is_learner,
        };
        Ok((added, members))
    }

    /// Removes a member, for ever; gives those that are left.
    pub async fn remove_member(&self, member: u64) -> Result<Vec<Member>, MemberError> {
        if self.inner.shared.is_removed(member) {
            return Err(MemberRefusal::NotFound.into());
        }
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

    /// Hands leadership to `to`, or to the voter that is furthest on. True once another member
    /// leads; false if this one does not lead, or nobody has taken over within an election timeout.
    pub async fn transfer_leadership(&self, to: Option<u64>) -> bool {
        let mut leadership = self.inner.shared.status.leadership();
        let me = self.identity().member_id;
        let before = *leadership.borrow_and_update();
        let Some(to) = to
            .or_else(|| furthest(&self.inner.shared, &self.inner.raft))
            .filter(|_| before.leader == Some(me))
        else {
            return false;
        };
        if self.inner.raft.trigger().transfer_leader(to).await.is_err() {
            return false;
        }
        let taken = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader != me));
        matches!(tokio::time::timeout(self.inner.election_timeout, taken).await, Ok(Ok(_)))
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

/// The other voter that has most of the log, as this leader knows; none if it does not lead.
pub(crate) fn furthest(shared: &Shared, raft: &Raft) -> Option<u64> {
    let membership = shared.membership();
    let metrics = raft.data_metrics();
    let metrics = metrics.borrow_watched();
    let replication = metrics.replication.as_ref()?;
    let me = shared.identity.member_id;
    let others = membership.voter_ids().filter(|voter| *voter != me);
    others.max_by_key(|voter| replication.get(voter).copied().flatten())
}
