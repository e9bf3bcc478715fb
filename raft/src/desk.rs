//! Where the membership is changed: any member takes the request, the leader decides.
//!
//! A change is appended only while the membership is still the one that was decided about, and only
//! once that one is applied, so that two changes cannot interleave: the second waits, and is decided
//! anew. Whoever loses the leader's answer knows nothing and says so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::peer;
use openraft::ChangeMembers;
use openraft::async_runtime::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::entry::RaftPayload;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::{ClientWriteResponse, Precondition};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::{Code, Request, Status};

use crate::error::{MemberError, MemberRefusal};
use crate::handover;
use crate::members::{MemberChange, View};
use crate::node::Member;
use crate::peer::{Lane, Peers};
use crate::propose::Raft;
use crate::shared::Shared;
use crate::types::{LogId, Membership, PeerNode, StoredMembership, TypeConfig};

mod wire;

/// Between two looks at a membership that is being changed, or at who leads.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two looks at members that wait to vote.
const ADMISSION: Duration = Duration::from_millis(100);
/// How often a removed member is told so; it asks by itself, too.
const FAREWELLS: usize = 3;
/// Changes that wait for each other at the leader.
const WAITING_MAX: usize = 16;

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Applied at this index, and the members after it.
    Done(u64, Vec<Member>),
    /// Certainly not appended.
    NotLeader,
    Refused(MemberRefusal),
    Unknown,
}

/// Changes the membership, here or where the leader is.
#[derive(Clone)]
pub(crate) struct MemberDesk {
    shared: Arc<Shared>,
    raft: Raft,
    peers: Arc<Peers>,
    waiting: Arc<Semaphore>,
    /// Whoever changes who votes, or hands over to one who does: one at a time.
    turn: Arc<Semaphore>,
}

impl MemberDesk {
    pub(crate) fn new(shared: Arc<Shared>, raft: Raft, peers: Arc<Peers>) -> Self {
        let (waiting, turn) = (Semaphore::new(WAITING_MAX), Semaphore::new(1));
        Self { shared, raft, peers, waiting: Arc::new(waiting), turn: Arc::new(turn) }
    }

    /// Has the leader carry out a change; gives the members after it.
    pub(crate) async fn change(
        &self,
        change: MemberChange,
        strict: bool,
    ) -> Result<Vec<Member>, MemberError> {
        let deadline = Instant::now() + self.shared.request_timeout;
        loop {
            if self.shared.has_stopped() {
                return Err(MemberError::Stopped);
            }
            match self.ask(&change, strict, deadline).await {
                Decision::Done(index, members) => {
                    self.wait_applied(index, deadline).await;
                    return Ok(members);
                }
                Decision::Refused(refusal) => return Err(refusal.into()),
                Decision::Unknown => return Err(MemberError::TimedOut),
                Decision::NotLeader if Instant::now() >= deadline => {
                    return Err(MemberError::TimedOut);
                }
                Decision::NotLeader => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Who asked here next is to see the change. A member that has removed itself never may.
    async fn wait_applied(&self, index: u64, deadline: Instant) {
        let mut dismissed = self.shared.dismissed();
        tokio::select! {
            () = self.shared.status.wait_applied(index) => {}
            _ = dismissed.wait_for(|dismissed| *dismissed) => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
    }

    async fn ask(&self, change: &MemberChange, strict: bool, deadline: Instant) -> Decision {
        let leader = self.shared.status.leadership().borrow().leader;
        let Some(leader) = leader else { return Decision::NotLeader };
        if leader == self.shared.identity.member_id {
            return self.lead(change, strict, deadline).await;
        }
        let Some(urls) = self.shared.peer_urls(leader) else { return Decision::NotLeader };
        let mut request = Request::new(wire::request(change, strict));
        self.peers.gate().sign(&mut request, leader);
        let mut client = self.peers.client(leader, &urls, Lane::Pulse);
        match tokio::time::timeout_at(deadline, client.reconfigure(request)).await {
            Ok(Ok(answer)) => wire::decision(answer.into_inner()),
            Ok(Err(status)) if is_turned_away(&status) => Decision::NotLeader,
            Ok(Err(_)) | Err(_) => Decision::Unknown,
        }
    }

    /// Answers a member that asks this one as the leader.
    pub(crate) async fn answer(
        &self,
        asked: peer::ReconfigureRequest,
    ) -> peer::ReconfigureResponse {
        let strict = asked.strict;
        let Some(change) = wire::change(asked) else { return Default::default() };
        let deadline = Instant::now() + self.shared.request_timeout;
        wire::response(self.lead(&change, strict, deadline).await)
    }

    async fn lead(&self, change: &MemberChange, strict: bool, deadline: Instant) -> Decision {
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return Decision::Refused(MemberRefusal::TooManyRequests);
        };
        let turn = tokio::time::timeout_at(deadline, self.turn.acquire()).await;
        let Ok(Ok(turn)) = turn else { return Decision::NotLeader };
        while Instant::now() < deadline {
            if !self.leads() {
                return Decision::NotLeader;
            }
            match self.try_once(change, strict, deadline).await {
                Step::Decided(decision) => return decision,
                Step::HandOver => {
                    drop(turn);
                    self.hand_over(None, self.shared.status.election_timeout()).await;
                    return Decision::NotLeader;
                }
                Step::Wait => tokio::time::sleep(PAUSE).await,
            }
        }
        // Certainly not appended, but there is no time left to try elsewhere.
        Decision::NotLeader
    }

    fn leads(&self) -> bool {
        let leader = self.shared.status.leadership().borrow().leader;
        leader == Some(self.shared.identity.member_id)
    }

    async fn try_once(&self, change: &MemberChange, strict: bool, deadline: Instant) -> Step {
        let parent = self.raft.server_metrics().borrow_watched().membership_config.clone();
        if parent.log_id() != self.shared.applied_membership().log_id() {
            return Step::Wait;
        }
        let proposed = match self.view(&parent).decide(change, strict) {
            Ok(proposed) => proposed,
            Err(refusal) => return Step::Decided(Decision::Refused(refusal)),
        };
        if *change == MemberChange::Remove(self.shared.identity.member_id) {
            return Step::HandOver;
        }
        let appended = self.append(change, proposed, *parent.log_id());
        match tokio::time::timeout_at(deadline, appended).await {
            Ok(Appended::At(log_id)) => Step::Decided(self.done(change, &parent, log_id)),
            Ok(Appended::Refused) => Step::Decided(Decision::NotLeader),
            Ok(Appended::NotYet) => Step::Wait,
            Ok(Appended::Unknown) | Err(_) => Step::Decided(Decision::Unknown),
        }
    }

    /// Hands leadership to `to`, or to the voter that is furthest on. True once another member
    /// leads, within `patience`. No change of the membership goes on meanwhile: it could take the vote
    /// from whom is handed to.
    pub(crate) async fn hand_over(&self, to: Option<u64>, patience: Duration) -> bool {
        match tokio::time::timeout(patience, self.turn.acquire()).await {
            Ok(Ok(_turn)) => handover::hand_over(&self.shared, &self.raft, to, patience).await,
            _ => false,
        }
    }

    /// Whether a member is a voter of openraft's, in the newest membership of the log.
    pub(crate) fn votes(&self, member: u64) -> bool {
        handover::votes(&self.raft, member)
    }

    /// Has those vote that were added as voters and are in sync by now, whenever this member leads;
    /// runs until the node stops and drops it.
    pub(crate) async fn admit(self) {
        loop {
            tokio::time::sleep(ADMISSION).await;
            if !self.shared.status.snapshot().is_leader {
                continue;
            }
            let parent = self.raft.server_metrics().borrow_watched().membership_config.clone();
            if parent.log_id() != self.shared.applied_membership().log_id() {
                continue;
            }
            let Ok(_turn) = self.turn.acquire().await else { return };
            let Some((member, admitted)) = self.view(&parent).admissible() else { continue };
            let condition =
                Precondition::LastMembershipLogId { last_membership_log_id: *parent.log_id() };
            let blank = <TypeConfig as openraft::RaftTypeConfig>::Payload::blank();
            let appended = self.raft.append_membership(admitted, blank, [condition]);
            let appended = tokio::time::timeout(self.shared.request_timeout, appended).await;
            if matches!(appended, Ok(Ok(_))) {
                tracing::info!(member = format_args!("{member:x}"), "a new member votes now");
            }
        }
    }

    fn view(&self, parent: &StoredMembership) -> View {
        let published = self.shared.reader.members();
        let data = self.raft.data_metrics().borrow_watched().clone();
        let lately = self.shared.status.election_timeout();
        let heard = data.heartbeat.unwrap_or_default();
        let matching = data.replication.unwrap_or_default();
        let index = |log_id: Option<LogId>| log_id.map_or(0, |log_id| log_id.index);
        let started = published.iter().filter(|attributes| !attributes.name.is_empty());
        let connected = heard.iter().filter(|(_, at)| at.is_some_and(|at| at.elapsed() < lately));
        View {
            leader: self.shared.identity.member_id,
            membership: parent.membership().clone(),
            removed: self.shared.reader.removed_members().into_iter().collect(),
            started: started.map(|attributes| attributes.member).collect(),
            connected: connected.map(|(member, _)| *member).collect(),
            matching: matching.into_iter().map(|(id, log_id)| (id, index(log_id))).collect(),
            last_index: index(data.last_log),
        }
    }

    async fn append(
        &self,
        change: &MemberChange,
        proposed: Membership,
        parent: Option<LogId>,
    ) -> Appended {
        let condition = [Precondition::LastMembershipLogId { last_membership_log_id: parent }];
        // openraft lets a member's address be changed in this way only. Without a change of voters
        // it is one entry, too.
        let result = match change {
            MemberChange::Update { member, .. } => {
                let node = proposed.get_node(member).cloned().unwrap_or_default();
                let nodes = ChangeMembers::SetNodes([(*member, node)].into());
                self.raft.change_membership_if(nodes, true, condition).await
            }
            _ => {
                let blank = <TypeConfig as openraft::RaftTypeConfig>::Payload::blank();
                self.raft.append_membership(proposed, blank, condition).await
            }
        };
        Appended::of(result)
    }

    fn done(&self, change: &MemberChange, parent: &StoredMembership, log_id: LogId) -> Decision {
        if let MemberChange::Remove(member) = change
            && let Some(node) = parent.get_node(member).cloned()
        {
            tokio::spawn(tell_removed(self.peers.clone(), *member, node));
        }
        tracing::info!(?change, index = log_id.index, "the membership has changed");
        Decision::Done(log_id.index, members(&self.shared))
    }
}

/// What one attempt at a change has come to.
enum Step {
    Decided(Decision),
    /// The leader is to be removed. The next one does that and tells it so, since nobody listens to a
    /// removed member, not even when it hands over.
    HandOver,
    /// Something else has to happen first.
    Wait,
}

/// Whether a call was turned away before anybody looked at what it asks for.
fn is_turned_away(status: &Status) -> bool {
    matches!(status.code(), Code::PermissionDenied | Code::FailedPrecondition | Code::Unimplemented)
}

/// What openraft said to a change.
enum Appended {
    At(LogId),
    /// Not appended, because another leads or may lead.
    Refused,
    /// Not appended, because something has to happen first.
    NotYet,
    Unknown,
}

impl Appended {
    fn of(
        result: Result<
            ClientWriteResponse<TypeConfig>,
            RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
        >,
    ) -> Self {
        match result {
            Ok(response) => Self::At(response.log_id),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Self::Refused,
            Err(RaftError::APIError(ClientWriteError::PreconditionFailed(_)))
            | Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(_))) => Self::NotYet,
            Err(_) => Self::Unknown,
        }
    }
}

/// The members by the membership that is applied, or by the one in force before there is one.
pub(crate) fn members(shared: &Shared) -> Vec<Member> {
    let published = shared.reader.members();
    let applied = shared.applied_membership();
    let is_founded = applied.nodes().next().is_some();
    let membership = if is_founded { applied } else { shared.membership() };
    let learners: BTreeSet<u64> = membership.membership().learner_ids().collect();
    let member = |(id, node): (&u64, &PeerNode)| {
        let attributes = published.iter().find(|attributes| attributes.member == *id);
        Member {
            id: *id,
            name: attributes.map(|a| a.name.clone()).unwrap_or_default(),
            peer_urls: node.peer_urls.clone(),
            client_urls: attributes.map(|a| a.client_urls.clone()).unwrap_or_default(),
            is_learner: learners.contains(id) && !node.joins_as_voter,
        }
    };
    membership.nodes().map(member).collect()
}

/// Tells a member that it has been removed: nobody sends it entries any more.
async fn tell_removed(peers: Arc<Peers>, member: u64, node: PeerNode) {
    for _ in 0..FAREWELLS {
        let mut request = Request::new(peer::DismissRequest {});
        peers.gate().sign(&mut request, member);
        let mut client = peers.client(member, &node.peer_urls, Lane::Pulse);
        let told = tokio::time::timeout(Duration::from_secs(1), client.dismiss(request)).await;
        if matches!(told, Ok(Ok(_))) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    tracing::info!(member = format_args!("{member:x}"), "the removed member was not reached");
}
