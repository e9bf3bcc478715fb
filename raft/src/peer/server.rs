//! What this member answers to its peers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use holdfast_proto::peer;
use holdfast_proto::peer::peer_server;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, VoteRequest, VoteResponse,
};
use prost::Message;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::desk::MemberDesk;
use crate::divergence::Hasher;
use crate::entry::{BatchBuilder, Proposal};
use crate::intake::{Lacks, Needs};
use crate::lease::LeaseDesk;
use crate::limits::PIPELINE_ENTRIES_MAX;
use crate::peer::handshake::Gate;
use crate::peer::meter::Meter;
use crate::propose::{Fate, Raft, Teller};
use crate::read_index::ReadIndexDesk;
use crate::receive::Receiver;
use crate::responder::WriteResponder;
use crate::shared::Shared;
use crate::types::{
    ConvertError, TypeConfig, entry_from_wire, log_id_from_wire, log_id_to_wire, required_vote,
    stored_membership_to_wire, vote_to_wire,
};

/// What the server needs of the node.
#[derive(Clone)]
pub(crate) struct ServerParts {
    pub(crate) gate: Gate,
    pub(crate) raft: Raft,
    pub(crate) shared: Arc<Shared>,
    pub(crate) leases: LeaseDesk,
    pub(crate) read_index: Arc<ReadIndexDesk>,
    pub(crate) receiver: Arc<Receiver>,
    pub(crate) members: MemberDesk,
    pub(crate) hasher: Arc<Hasher>,
}

/// The gRPC service.
#[derive(Clone)]
pub(crate) struct PeerServer {
    parts: ServerParts,
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

impl PeerServer {
    pub(crate) fn new(parts: ServerParts) -> Self {
        Self { parts }
    }

    fn admit<T>(&self, request: Request<T>) -> Result<T, Status> {
        self.check(&request)?;
        Ok(request.into_inner())
    }

    /// Who calls. From now on its connection is counted as the member's.
    fn check<T>(&self, request: &Request<T>) -> Result<u64, Status> {
        let member = self.parts.gate.check(request.metadata())?;
        if let Some(meter) = request.extensions().get::<Meter>() {
            meter.assign(|| self.parts.shared.counts.peer(member));
        }
        Ok(member)
    }
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("this member has stopped: {error}"))
}

fn garbled(error: ConvertError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Decodes an append, and checks what openraft takes for granted: entries follow each other.
fn append_from_wire(
    wire: peer::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, ConvertError> {
    let prev_log_id = wire.previous.as_ref().map(log_id_from_wire);
    let mut entries = Vec::with_capacity(wire.entries.len());
    let first = prev_log_id.map_or(0, |previous| previous.index + 1);
    for (index, entry) in (first..).zip(wire.entries) {
        let entry = entry_from_wire(entry)?;
        if entry.log_id.index != index {
            return Err(ConvertError::Missing("an entry"));
        }
        entries.push(entry);
    }
    Ok(AppendEntriesRequest {
        vote: required_vote(wire.vote.as_ref())?,
        prev_log_id,
        entries,
        leader_commit: wire.committed.as_ref().map(log_id_from_wire),
    })
}

fn append_to_wire(result: StreamAppendResult<TypeConfig>, sequence: u64) -> peer::AppendResponse {
    use peer::append_response::Kind;
    let mut answer = peer::AppendResponse { sequence, ..Default::default() };
    match result {
        Ok(log_id) => {
            answer.set_kind(Kind::Matching);
            answer.log_id = log_id.as_ref().map(log_id_to_wire);
        }
        Err(StreamAppendError::Conflict(log_id)) => {
            answer.set_kind(Kind::Conflict);
            answer.log_id = Some(log_id_to_wire(&log_id));
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            answer.set_kind(Kind::HigherVote);
            answer.vote = Some(vote_to_wire(&vote));
        }
    }
    answer
}

fn vote_request(wire: &peer::VoteRequest) -> Result<VoteRequest<TypeConfig>, Status> {
    Ok(VoteRequest {
        vote: required_vote(wire.vote.as_ref()).map_err(garbled)?,
        last_log_id: wire.last.as_ref().map(log_id_from_wire),
        leadership_transfer: wire.leadership_transfer,
    })
}

fn vote_response(answer: &VoteResponse<TypeConfig>) -> Response<peer::VoteResponse> {
    Response::new(peer::VoteResponse {
        vote: Some(vote_to_wire(&answer.vote)),
        granted: answer.vote_granted,
        last: answer.last_log_id.as_ref().map(log_id_to_wire),
    })
}

/// The requests of a stream, up to the first that is broken.
fn appends(
    input: Streaming<peer::AppendRequest>,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static {
    futures_util::stream::unfold(input, |mut input| async move {
        let wire = input.message().await.ok()??;
        match append_from_wire(wire) {
            Ok(request) => Some((request, input)),
            Err(error) => {
                tracing::error!(%error, "a peer sent a broken append");
                None
            }
        }
    })
}

#[tonic::async_trait]
impl peer_server::Peer for PeerServer {
    type AppendStream = Answers<peer::AppendResponse>;
    type ForwardStream = Answers<peer::ForwardResponse>;

    async fn append(
        &self,
        request: Request<Streaming<peer::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let input = self.admit(request)?;
        let shared = self.parts.shared.clone();
        let mut sequence = 0;
        let answers = self.parts.raft.stream_append(appends(input)).map(move |result| {
            let result = result.map_err(stopped)?;
            if !matches!(result, Err(StreamAppendError::HigherVote(_))) {
                shared.status.heard_leader();
            }
            sequence += 1;
            Ok(append_to_wire(result, sequence))
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn heartbeat(
        &self,
        request: Request<peer::AppendRequest>,
    ) -> Result<Response<peer::AppendResponse>, Status> {
        let append = append_from_wire(self.admit(request)?).map_err(garbled)?;
        let input = futures_util::stream::once(async move { append }).boxed();
        let mut answers = std::pin::pin!(self.parts.raft.stream_append(input));
        let answer = answers.next().await.ok_or_else(|| stopped("no answer"))?;
        let result = answer.map_err(stopped)?;
        if !matches!(result, Err(StreamAppendError::HigherVote(_))) {
            self.parts.shared.status.heard_leader();
        }
        Ok(Response::new(append_to_wire(result, 1)))
    }

    async fn request_vote(
        &self,
        request: Request<peer::VoteRequest>,
    ) -> Result<Response<peer::VoteResponse>, Status> {
        let asked = vote_request(&self.admit(request)?)?;
        let answer = self.parts.raft.vote(asked).await.map_err(stopped)?;
        Ok(vote_response(&answer))
    }

    async fn request_pre_vote(
        &self,
        request: Request<peer::VoteRequest>,
    ) -> Result<Response<peer::VoteResponse>, Status> {
        let asked = vote_request(&self.admit(request)?)?;
        let answer = self.parts.raft.pre_vote(asked).await.map_err(stopped)?;
        Ok(vote_response(&answer))
    }

    async fn transfer_leader(
        &self,
        request: Request<peer::TransferRequest>,
    ) -> Result<Response<peer::TransferResponse>, Status> {
        let wire = self.admit(request)?;
        let from = required_vote(wire.from.as_ref()).map_err(garbled)?;
        let last = wire.last.as_ref().map(log_id_from_wire);
        let asked = TransferLeaderRequest::new(from, wire.to, last);
        let result = self.parts.raft.handle_transfer_leader(asked).await.map_err(stopped)?;
        let mut answer = peer::TransferResponse::default();
        match result {
            Ok(()) => answer.set_kind(peer::transfer_response::Kind::Accepted),
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                answer.set_kind(peer::transfer_response::Kind::VoteChanged);
                answer.expected_vote = Some(vote_to_wire(&expected));
                answer.actual_vote = Some(vote_to_wire(&actual));
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                answer.set_kind(peer::transfer_response::Kind::LogNotFlushed);
                answer.expected_log_id = expected.as_ref().map(log_id_to_wire);
                answer.actual_log_id = actual.as_ref().map(log_id_to_wire);
            }
        }
        Ok(Response::new(answer))
    }

    async fn forward(
        &self,
        request: Request<Streaming<peer::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let input = self.admit(request)?;
        let (answers, outgoing) = mpsc::channel(PIPELINE_ENTRIES_MAX);
        let raft = self.parts.raft.clone();
        let shared = self.parts.shared.clone();
        tokio::spawn(async move { take_forwarded(input, answers, raft, shared).await });
        Ok(Response::new(ReceiverStream::new(outgoing).map(Ok).boxed()))
    }

    async fn read_index(
        &self,
        request: Request<peer::ReadIndexRequest>,
    ) -> Result<Response<peer::ReadIndexResponse>, Status> {
        let peer = self.check(&request)?;
        let peer::ReadIndexRequest { term } = request.into_inner();
        let mut answer = peer::ReadIndexResponse::default();
        match self.parts.read_index.ask_for(peer, term).await {
            Ok(index) => {
                answer.set_kind(peer::read_index_response::Kind::Ready);
                answer.log_id = Some(peer::LogId { term: 0, index });
            }
            Err(kind) => answer.set_kind(kind),
        }
        Ok(Response::new(answer))
    }

    async fn lease(
        &self,
        request: Request<peer::LeaseRequest>,
    ) -> Result<Response<peer::LeaseResponse>, Status> {
        let asked = self.admit(request)?;
        Ok(Response::new(self.parts.leases.answer(asked).await))
    }

    async fn inquire(
        &self,
        request: Request<peer::InquireRequest>,
    ) -> Result<Response<peer::InquireResponse>, Status> {
        self.parts.gate.check_stranger(request.metadata())?;
        let member = request.into_inner().member;
        let identity = self.parts.gate.identity();
        let shared = &self.parts.shared;
        let membership = shared.membership();
        let applied = shared.applied_membership();
        Ok(Response::new(peer::InquireResponse {
            cluster_id: identity.cluster_id,
            member_id: identity.member_id,
            bootstrapped: membership.nodes().next().is_some(),
            known_incarnation: self.parts.gate.incarnation(member).unwrap_or(0),
            removed: shared.is_removed(member),
            membership: Some(stored_membership_to_wire(&applied)),
        }))
    }

    async fn reconfigure(
        &self,
        request: Request<peer::ReconfigureRequest>,
    ) -> Result<Response<peer::ReconfigureResponse>, Status> {
        let asked = self.admit(request)?;
        Ok(Response::new(self.parts.members.answer(asked).await))
    }

    async fn dismiss(
        &self,
        request: Request<peer::DismissRequest>,
    ) -> Result<Response<peer::DismissResponse>, Status> {
        self.admit(request)?;
        self.parts.shared.dismiss();
        Ok(Response::new(peer::DismissResponse {}))
    }

    async fn offer_checkpoint(
        &self,
        request: Request<peer::CheckpointOffer>,
    ) -> Result<Response<peer::CheckpointNeeds>, Status> {
        let offer = self.admit(request)?;
        Ok(Response::new(self.parts.receiver.offer(offer.manifest).await?))
    }

    async fn send_checkpoint(
        &self,
        request: Request<Streaming<peer::CheckpointChunk>>,
    ) -> Result<Response<peer::CheckpointChunkResponse>, Status> {
        let mut input = self.admit(request)?;
        while let Some(chunk) = input.message().await? {
            // A leader that sends a checkpoint is alive, whatever its heartbeats do meanwhile.
            self.parts.shared.status.heard_leader();
            self.parts.receiver.write(chunk).await?;
        }
        Ok(Response::new(peer::CheckpointChunkResponse {}))
    }

    async fn install_checkpoint(
        &self,
        request: Request<peer::CheckpointInstall>,
    ) -> Result<Response<peer::CheckpointInstalled>, Status> {
        let wire = self.admit(request)?;
        let vote = required_vote(wire.vote.as_ref()).map_err(garbled)?;
        let applied = self.parts.shared.status.applied_index();
        let snapshot = self.parts.receiver.finish(wire, applied).await?;
        let answer = self.parts.raft.install_full_snapshot(vote, snapshot).await;
        let vote = vote_to_wire(&answer.map_err(stopped)?.vote);
        Ok(Response::new(peer::CheckpointInstalled { vote: Some(vote) }))
    }

    async fn hash(
        &self,
        request: Request<peer::HashRequest>,
    ) -> Result<Response<peer::HashResponse>, Status> {
        let asked = self.admit(request)?;
        Ok(Response::new(self.parts.hasher.answer(asked).await))
    }
}

/// How long the last answers of a stream may take once nothing more comes in.
const LINGER: Duration = Duration::from_secs(10);

/// What this member has no room for, if there is such a thing in a parcel. The follower answers for
/// that, and offers the rest again.
fn lacks_room_for(shared: &Shared, parcel: &peer::ForwardRequest) -> Option<Lacks> {
    let gauge = &shared.gauge;
    if !gauge.is_short() {
        return None;
    }
    let needs = |proposal: &Bytes| {
        Proposal::decode(proposal.clone()).ok().map(|proposal| Needs::of(&proposal.command))
    };
    let is_kept_out = |needs: Needs| !gauge.lets_in(needs);
    let mut kept_out = parcel.proposals.iter().filter_map(needs).filter(|n| is_kept_out(*n));
    kept_out.next()?;
    Some(if is_kept_out(Needs::Log) { Lacks::Log } else { Lacks::Room })
}

fn refused(batch: u64, lacks: Option<Lacks>) -> peer::ForwardResponse {
    use peer::forward_response::Lacks as Wire;
    let lacks = match lacks {
        None => Wire::Nothing,
        Some(Lacks::Room) => Wire::Room,
        Some(Lacks::Log) => Wire::Log,
    };
    peer::ForwardResponse { batch, refused: true, log_id: None, lacks: lacks as i32 }
}

/// Proposes what one follower forwards, and tells it what became of it.
async fn take_forwarded(
    mut input: Streaming<peer::ForwardRequest>,
    answers: mpsc::Sender<peer::ForwardResponse>,
    raft: Raft,
    shared: Arc<Shared>,
) {
    // A permit per entry under way: there is always room for its answer.
    let permits = Arc::new(Semaphore::new(PIPELINE_ENTRIES_MAX));
    while let Ok(Some(parcel)) = input.message().await {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let Ok(slot) = answers.clone().reserve_owned().await else { return };
        let batch = parcel.batch;
        let lacks = lacks_room_for(&shared, &parcel);
        if shared.has_stopped() || lacks.is_some() {
            slot.send(refused(batch, lacks));
            continue;
        }
        let mut builder = BatchBuilder::new(shared.level());
        for proposal in &parcel.proposals {
            builder.push(proposal);
        }
        let teller = Teller::new(move |fate| {
            slot.send(match fate {
                Fate::Committed(log_id) => {
                    let log_id = Some(log_id_to_wire(&log_id));
                    peer::ForwardResponse { batch, log_id, ..Default::default() }
                }
                Fate::Unknown => peer::ForwardResponse { batch, ..Default::default() },
                Fate::Refused => refused(batch, None),
                Fate::NoRoom(lacks) => refused(batch, Some(lacks)),
            });
            drop(permit);
        });
        if raft.client_write_ff(builder.finish(), Some(WriteResponder::new(teller))).await.is_err()
        {
            return;
        }
    }
    let all = permits.acquire_many(PIPELINE_ENTRIES_MAX as u32);
    let _ = tokio::time::timeout(LINGER, all).await;
}
