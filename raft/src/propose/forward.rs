//! Proposals on their way to the leader, over one stream.
//!
//! The stream is up before a proposal is put on it. What was not yet on it when it failed is
//! refused, and can be sent again; what was on it is unknown, and never is.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::peer;
use holdfast_proto::peer::peer_client::PeerClient;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use crate::limits::{ENTRY_BYTES_MAX, ENTRY_PROPOSALS_MAX, PIPELINE_ENTRIES_MAX};
use crate::peer::Gate;
use crate::propose::Fate;
use crate::types::log_id_from_wire;

/// One entry's worth of proposals.
#[derive(Debug, Default)]
pub(crate) struct Parcel {
    proposals: Vec<Bytes>,
    bytes: usize,
}

impl Parcel {
    pub(crate) fn has_room(&self, proposal: &Bytes) -> bool {
        self.proposals.is_empty()
            || (self.proposals.len() < ENTRY_PROPOSALS_MAX
                && self.bytes + proposal.len() <= ENTRY_BYTES_MAX)
    }

    pub(crate) fn push(&mut self, proposal: Bytes) {
        self.bytes += proposal.len();
        self.proposals.push(proposal);
    }

    pub(crate) fn finish(self, batch: u64) -> peer::ForwardRequest {
        peer::ForwardRequest { batch, proposals: self.proposals }
    }
}

/// The stream to one leader.
pub(crate) struct Forwarder {
    leader: u64,
    parcels: mpsc::Sender<peer::ForwardRequest>,
}

type Fates = mpsc::Sender<(u64, Fate)>;

impl Forwarder {
    /// Opens the stream. Once the forwarder is dropped, answers are awaited for `patience`.
    pub(crate) fn start(
        leader: u64,
        client: PeerClient<Channel>,
        gate: Gate,
        fates: Fates,
        patience: Duration,
    ) -> Self {
        let (parcels, queue) = mpsc::channel(PIPELINE_ENTRIES_MAX);
        tokio::spawn(async move {
            let mut stream = Stream { queue, fates, sent: BTreeSet::new() };
            stream.run(leader, client, gate, patience).await;
            stream.settle().await;
        });
        Self { leader, parcels }
    }

    pub(crate) fn leader(&self) -> u64 {
        self.leader
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.parcels.is_closed()
    }

    /// Room for one parcel, if there is some.
    pub(crate) fn reserve(&self) -> Option<mpsc::Permit<'_, peer::ForwardRequest>> {
        self.parcels.try_reserve().ok()
    }
}

struct Stream {
    queue: mpsc::Receiver<peer::ForwardRequest>,
    fates: Fates,
    /// On the stream, and not answered.
    sent: BTreeSet<u64>,
}

impl Stream {
    async fn run(
        &mut self,
        leader: u64,
        mut client: PeerClient<Channel>,
        gate: Gate,
        patience: Duration,
    ) {
        let (outgoing, requests) = mpsc::channel(PIPELINE_ENTRIES_MAX);
        let mut request = Request::new(ReceiverStream::new(requests));
        gate.sign(&mut request, leader);
        // The leader answers the call as soon as it arrives, before any parcel.
        let opened = tokio::time::timeout(patience / 4, client.forward(request)).await;
        let mut answers = match opened {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => {
                tracing::debug!(%leader, %status, "no stream for proposals");
                return;
            }
            Err(_) => return,
        };
        self.exchange(outgoing, &mut answers).await;
        let until = Instant::now() + patience;
        while !self.sent.is_empty() {
            match tokio::time::timeout_at(until, answers.message()).await {
                Ok(Ok(Some(answer))) => self.answered(&answer).await,
                _ => return,
            }
        }
    }

    /// Sends and receives until nothing more is to be sent, or nothing more can be.
    async fn exchange(
        &mut self,
        outgoing: mpsc::Sender<peer::ForwardRequest>,
        answers: &mut Streaming<peer::ForwardResponse>,
    ) {
        loop {
            tokio::select! {
                biased;
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => self.answered(&answer).await,
                    Ok(None) | Err(_) => return,
                },
                parcel = self.queue.recv() => {
                    let Some(parcel) = parcel else { return };
                    self.sent.insert(parcel.batch);
                    if outgoing.send(parcel).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn answered(&mut self, answer: &peer::ForwardResponse) {
        if !self.sent.remove(&answer.batch) {
            return;
        }
        let fate = match &answer.log_id {
            _ if answer.refused => Fate::Refused,
            Some(log_id) => Fate::Committed(log_id_from_wire(log_id)),
            None => Fate::Unknown,
        };
        self.tell(answer.batch, fate).await;
    }

    /// Tells the fate of everything that is left.
    async fn settle(&mut self) {
        self.queue.close();
        for batch in std::mem::take(&mut self.sent) {
            self.tell(batch, Fate::Unknown).await;
        }
        while let Some(parcel) = self.queue.recv().await {
            self.tell(parcel.batch, Fate::Refused).await;
        }
    }

    async fn tell(&self, batch: u64, fate: Fate) {
        // The proposer is gone only when the node has stopped.
        let _ = self.fates.send((batch, fate)).await;
    }
}
