//! openraft's network: its requests as calls to a peer.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use holdfast_proto::peer;
use holdfast_proto::peer::peer_client::PeerClient;
use openraft::OptionalSend;
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RPCTypes, RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::checkpoint::Checkpoint;
use crate::config::Workers;
use crate::counts::PeerCounts;
use crate::log_facts::LogFacts;
use crate::machine::Snapshot;
use crate::peer::channel::{Lane, Peers};
use crate::peer::transfer::Sender;
use crate::purge::Holds;
use crate::types::{
    ConvertError, LogId, PeerNode, TypeConfig, Vote, entry_to_wire, log_id_from_wire,
    log_id_to_wire, required_vote, vote_from_wire, vote_to_wire,
};

/// Room for the answers that a planted fault makes up.
const PLANTED_ANSWERS: usize = 64;

/// Makes clients for openraft.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) peers: Arc<Peers>,
    /// Where a member is reached now.
    pub(crate) peer_urls: Arc<dyn Fn(u64) -> Option<Vec<String>> + Send + Sync>,
    /// How long an append may stay unanswered.
    pub(crate) append_timeout: Duration,
    pub(crate) workers: Workers,
    pub(crate) holds: Holds,
    pub(crate) log: LogFacts,
    /// Told when a checkpoint of this member's own cannot be sent whole.
    pub(crate) rotten: Arc<Notify>,
    /// A planted fault: what is sent counts as held.
    pub(crate) acknowledge_early: bool,
}

/// openraft's client for one peer.
pub(crate) struct Client {
    network: Network,
    target: u64,
    node: PeerNode,
    counts: Arc<PeerCounts>,
    /// Whether every append is a heartbeat, and is sent by itself.
    pulse: bool,
}

impl Network {
    fn client(&self, target: u64, node: &PeerNode, pulse: bool) -> Client {
        let counts = self.peers.counts().peer(target);
        Client { network: self.clone(), target, node: node.clone(), counts, pulse }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> Client {
        self.client(target, node, false)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &PeerNode) -> Client {
        self.client(target, node, true)
    }
}

impl Client {
    fn lane(&self, lane: Lane) -> PeerClient<Channel> {
        // An update of the member may have come since openraft made this client.
        let urls = (self.network.peer_urls)(self.target);
        let urls = urls.as_ref().unwrap_or(&self.node.peer_urls);
        self.network.peers.client(self.target, urls, lane)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        self.network.peers.gate().sign(&mut request, self.target);
        request
    }

    /// Makes one call within its time.
    async fn call<T>(
        &self,
        action: RPCTypes,
        limit: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, RPCError<TypeConfig>> {
        let called = tokio::time::timeout(limit, call).await;
        if !matches!(called, Ok(Ok(_))) {
            self.counts.sent_failures.add(1);
        }
        let answer = match called {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(from_status(&status)),
            Err(_) => Err(RPCError::Timeout(Timeout {
                action,
                id: self.network.peers.gate().identity().member_id,
                target: self.target,
                timeout: limit,
            })),
        };
        let contacts = self.network.peers.contacts();
        match &answer {
            Ok(_) => contacts.heard(self.target, &self.node.peer_urls),
            Err(error) => contacts.missed(self.target, &self.node.peer_urls, error),
        }
        answer
    }

    async fn heartbeat(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
        limit: Duration,
    ) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.lane(Lane::Pulse);
        let call = client.heartbeat(self.request(append_to_wire(request)));
        let asked = Instant::now();
        match self.call(RPCTypes::AppendEntries, limit, call).await {
            Ok(answer) => {
                self.counts.round_trip.observe(asked.elapsed());
                append_result(&answer)
            }
            Err(error) => {
                self.network.peers.counts().heartbeat_failures.add(1);
                Err(error)
            }
        }
    }

    /// Opens a stream of appends. openraft waits out its backoff where it makes the first request,
    /// so the stream is not opened before there is one.
    async fn append<S>(
        &self,
        mut input: S,
    ) -> Result<
        BoxStream<'static, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
        RPCError<TypeConfig>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let Some(first) = input.next().await else {
            return Ok(futures_util::stream::empty().boxed());
        };
        let input = futures_util::stream::iter([first]).chain(input);
        let limit = self.network.append_timeout;
        let sent = Arc::new(AtomicU64::new(0));
        let counted = sent.clone();
        let (planted, early) = tokio::sync::mpsc::channel(PLANTED_ANSWERS);
        let planted = self.network.acknowledge_early.then_some(planted);
        let requests = input.map(move |request| {
            counted.fetch_add(1, Ordering::Relaxed);
            if let (Some(planted), Some(last)) = (&planted, request.entries.last()) {
                let _ = planted.try_send(Ok(Ok(Some(last.log_id))));
            }
            append_to_wire(request)
        });
        let mut client = self.lane(Lane::Append);
        let call = client.append(self.request(requests));
        let answers = self.call(RPCTypes::AppendEntries, limit, call).await?;
        let late = RPCError::Timeout(Timeout {
            action: RPCTypes::AppendEntries,
            id: self.network.peers.gate().identity().member_id,
            target: self.target,
            timeout: limit,
        });
        let holds = self.network.holds.clone();
        let answers = Answers { answers, sent, answered: 0, limit, holds, late }.into_stream();
        if !self.network.acknowledge_early {
            return Ok(answers);
        }
        let early = tokio_stream::wrappers::ReceiverStream::new(early);
        Ok(futures_util::stream::select(early, answers).boxed())
    }

    async fn ask_vote(
        &self,
        request: VoteRequest<TypeConfig>,
        pre_vote: bool,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = self.request(peer::VoteRequest {
            vote: Some(vote_to_wire(&request.vote)),
            last: request.last_log_id.as_ref().map(log_id_to_wire),
            leadership_transfer: request.leadership_transfer,
        });
        let mut client = self.lane(Lane::Pulse);
        // All there is: a voter answers once its disk has the vote, and that may be slow.
        let limit = option.hard_ttl();
        let answer = if pre_vote {
            self.call(RPCTypes::Vote, limit, client.request_pre_vote(message)).await?
        } else {
            self.call(RPCTypes::Vote, limit, client.request_vote(message)).await?
        };
        Ok(VoteResponse {
            vote: required_vote(answer.vote.as_ref()).map_err(garbled)?,
            vote_granted: answer.granted,
            last_log_id: answer.last.as_ref().map(log_id_from_wire),
        })
    }
}

/// The answers to appends, none of which may be late.
struct Answers {
    answers: tonic::Streaming<peer::AppendResponse>,
    sent: Arc<AtomicU64>,
    answered: u64,
    limit: Duration,
    holds: Holds,
    late: RPCError<TypeConfig>,
}

type Answer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

impl Answers {
    fn into_stream(self) -> BoxStream<'static, Answer> {
        let stream = futures_util::stream::unfold(Some(self), |state| async move {
            let mut state = state?;
            let answer = state.next().await?;
            // Nothing follows an error or a refusal.
            let state = matches!(answer, Ok(Ok(_))).then_some(state);
            Some((answer, state))
        });
        stream.boxed()
    }

    async fn next(&mut self) -> Option<Answer> {
        loop {
            let before = self.sent.load(Ordering::Relaxed);
            match tokio::time::timeout(self.limit, self.answers.message()).await {
                Ok(Ok(Some(answer))) => {
                    self.answered += 1;
                    let result = append_result(&answer);
                    if let Ok(Ok(Some(matching))) = &result
                        && self.holds.must_end(matching.index)
                    {
                        let text = "the peer is too far behind for entries";
                        return Some(Err(RPCError::Network(NetworkError::from_string(text))));
                    }
                    return Some(result);
                }
                Ok(Ok(None)) => return None,
                Ok(Err(status)) => return Some(Err(from_status(&status))),
                // An idle stream is no late one.
                Err(_) if before == self.answered => {}
                Err(_) => return Some(Err(self.late.clone())),
            }
        }
    }
}

fn append_to_wire(request: AppendEntriesRequest<TypeConfig>) -> peer::AppendRequest {
    peer::AppendRequest {
        vote: Some(vote_to_wire(&request.vote)),
        previous: request.prev_log_id.as_ref().map(log_id_to_wire),
        entries: request.entries.iter().map(entry_to_wire).collect(),
        committed: request.leader_commit.as_ref().map(log_id_to_wire),
    }
}

fn append_result(answer: &peer::AppendResponse) -> Answer {
    let log_id: Option<LogId> = answer.log_id.as_ref().map(log_id_from_wire);
    match answer.kind() {
        peer::append_response::Kind::Matching => Ok(Ok(log_id)),
        peer::append_response::Kind::Conflict => {
            let log_id = log_id.ok_or_else(|| garbled(ConvertError::Missing("log_id")))?;
            Ok(Err(StreamAppendError::Conflict(log_id)))
        }
        peer::append_response::Kind::HigherVote => {
            let vote: Vote = required_vote(answer.vote.as_ref()).map_err(garbled)?;
            Ok(Err(StreamAppendError::HigherVote(vote)))
        }
        peer::append_response::Kind::Unknown => Err(garbled(ConvertError::Missing("kind"))),
    }
}

/// A peer that cannot be reached is left alone for a while; anything else is tried again soon.
fn from_status(status: &Status) -> RPCError<TypeConfig> {
    let text = format!("{}: {}", status.code(), status.message());
    match status.code() {
        tonic::Code::Unavailable
        | tonic::Code::PermissionDenied
        | tonic::Code::FailedPrecondition => RPCError::Unreachable(Unreachable::from_string(text)),
        _ => RPCError::Network(NetworkError::from_string(text)),
    }
}

fn garbled(error: ConvertError) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(&error))
}

impl NetBackoff<TypeConfig> for Client {
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}

impl NetStreamAppend<TypeConfig> for Client {
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Answer>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if !self.pulse {
                return self.append(input).await;
            }
            let Some(request) = input.next().await else {
                return Ok(futures_util::stream::empty().boxed());
            };
            let answer = self.heartbeat(request, option.hard_ttl()).await;
            Ok(futures_util::stream::iter([answer]).boxed())
        })
    }
}

impl NetVote<TypeConfig> for Client {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(request, false, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(request, true, &option).await
    }
}

impl NetSnapshot<TypeConfig> for Client {
    type SnapshotData = Checkpoint;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let end = snapshot.meta.last_log_id.map_or(0, |log_id| log_id.index);
        self.network.holds.hold(self.target, end, self.network.log.bytes());
        let sender = Sender {
            client: self.lane(Lane::Bulk),
            gate: self.network.peers.gate().clone(),
            to: self.target,
            workers: self.network.workers,
            rotten: self.network.rotten.clone(),
            limit: option.hard_ttl(),
        };
        tokio::select! {
            biased;
            sent = sender.send(vote, snapshot) => match sent {
                Ok(installed) => {
                    let vote = vote_from_wire(&installed.vote.unwrap_or_default());
                    Ok(SnapshotResponse::new(vote))
                }
                Err(status) => Err(StreamingError::from(from_status(&status))),
            },
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }
}

impl NetTransferLeader<TypeConfig> for Client {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = self.request(peer::TransferRequest {
            from: Some(vote_to_wire(request.from_leader())),
            to: *request.to_node_id(),
            last: request.last_log_id().map(log_id_to_wire),
        });
        let mut client = self.lane(Lane::Pulse);
        let call = client.transfer_leader(message);
        let answer = self.call(RPCTypes::TransferLeader, option.soft_ttl(), call).await?;
        Ok(match answer.kind() {
            peer::transfer_response::Kind::Accepted => Ok(()),
            peer::transfer_response::Kind::VoteChanged => Err(TransferLeaderError::VoteChanged {
                expected: required_vote(answer.expected_vote.as_ref()).map_err(garbled)?,
                actual: required_vote(answer.actual_vote.as_ref()).map_err(garbled)?,
            }),
            peer::transfer_response::Kind::LogNotFlushed => {
                Err(TransferLeaderError::LogNotFlushed {
                    expected: answer.expected_log_id.as_ref().map(log_id_from_wire),
                    actual: answer.actual_log_id.as_ref().map(log_id_from_wire),
                })
            }
        })
    }
}
