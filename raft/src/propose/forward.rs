//! Proposals on their way to the leader, over one stream.
//!
//! The stream is up before a proposal is put on it. What was not yet on it when it failed is
//! refused, and can be sent again; what was on it is unknown, and never is.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use holdfast_proto::peer;
use holdfast_proto::peer::peer_client::PeerClient;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::intake::Lacks;
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

/// How long answers are waited for. A leader may hang rather than die, and then its connection says
/// nothing of it; what it holds would fill the pipeline for as long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// With an answer while the stream is in use: nobody waits for longer.
    pub(crate) answer: Duration,
    /// With all answers once the stream is not used any more.
    pub(crate) farewell: Duration,
}

/// The stream to one leader.
pub(crate) struct Forwarder {
    leader: u64,
    parcels: mpsc::Sender<peer::ForwardRequest>,
}

type Fates = mpsc::Sender<(u64, Fate)>;

impl Forwarder {
    /// Opens the stream. It is used until the forwarder is dropped.
    pub(crate) fn start(
        leader: u64,
        client: PeerClient<Channel>,
        gate: Gate,
        fates: Fates,
        patience: Patience,
    ) -> Self {
        let (parcels, queue) = mpsc::channel(PIPELINE_ENTRIES_MAX);
        tokio::spawn(async move {
            let mut exchange = Exchange { queue, fates, patience, sent: BTreeMap::new() };
            exchange.run(leader, client, gate).await;
            exchange.settle().await;
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

struct Exchange {
    queue: mpsc::Receiver<peer::ForwardRequest>,
    fates: Fates,
    patience: Patience,
    /// On the stream, and not answered; since when.
    sent: BTreeMap<u64, Instant>,
}

impl Exchange {
    async fn run(&mut self, leader: u64, mut client: PeerClient<Channel>, gate: Gate) {
        let (outgoing, requests) = mpsc::channel(PIPELINE_ENTRIES_MAX);
        let mut request = Request::new(ReceiverStream::new(requests));
        gate.sign(&mut request, leader);
        // The leader answers the call as soon as it arrives, before any parcel.
        let opening = client.forward(request);
        let answers = match tokio::time::timeout(self.patience.answer / 4, opening).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => {
                tracing::debug!(%leader, %status, "no stream for proposals");
                return;
            }
            Err(_) => return,
        };
        self.talk(outgoing, answers).await;
    }

    /// Sends and receives until nothing more is to be sent, or nothing more can be; then waits for
    /// the last answers.
    async fn talk(
        &mut self,
        outgoing: mpsc::Sender<peer::ForwardRequest>,
        mut answers: impl Stream<Item = Result<peer::ForwardResponse, Status>> + Unpin,
    ) {
        let mut outgoing = Some(outgoing);
        let mut until = None;
        while outgoing.is_some() || !self.sent.is_empty() {
            // Numbers ascend with time, so the first is the oldest.
            let oldest = self.sent.first_key_value().map(|(_, since)| *since);
            let late = until.or(oldest.map(|since| since + self.patience.answer));
            tokio::select! {
                biased;
                answer = answers.next() => match answer {
                    Some(Ok(answer)) => self.answered(&answer).await,
                    Some(Err(_)) | None => return,
                },
                () = sleep_until(late) => return,
                parcel = self.queue.recv(), if outgoing.is_some() => {
                    let Some(parcel) = parcel else {
                        outgoing = None;
                        until = Some(Instant::now() + self.patience.farewell);
                        continue;
                    };
                    self.sent.insert(parcel.batch, Instant::now());
                    let sending = outgoing.as_ref().expect("just looked at").send(parcel);
                    if sending.await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn answered(&mut self, answer: &peer::ForwardResponse) {
        if self.sent.remove(&answer.batch).is_none() {
            return;
        }
        use peer::forward_response::Lacks as Wire;
        let fate = match &answer.log_id {
            _ if answer.refused => match answer.lacks() {
                Wire::Room => Fate::NoRoom(Lacks::Room),
                Wire::Log => Fate::NoRoom(Lacks::Log),
                Wire::Nothing => Fate::Refused,
            },
            Some(log_id) => Fate::Committed(log_id_from_wire(log_id)),
            None => Fate::Unknown,
        };
        self.tell(answer.batch, fate).await;
    }

    /// Tells the fate of everything that is left.
    async fn settle(&mut self) {
        self.queue.close();
        for batch in std::mem::take(&mut self.sent).into_keys() {
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

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { answer: Duration::from_secs(7), farewell: Duration::from_secs(1) };

    /// A stream with a leader that takes two parcels and answers nothing: what becomes of them, and
    /// after how long.
    async fn hanging(drop_after: Duration) -> (Vec<(u64, Fate)>, Duration) {
        let since = Instant::now();
        let (fates, mut told) = mpsc::channel(PIPELINE_ENTRIES_MAX);
        let (parcels, queue) = mpsc::channel(PIPELINE_ENTRIES_MAX);
        let (outgoing, _taken) = mpsc::channel(PIPELINE_ENTRIES_MAX);
        for batch in 1..=2 {
            let parcel = peer::ForwardRequest { batch, proposals: Vec::new() };
            parcels.send(parcel).await.expect("open");
        }
        tokio::spawn(async move {
            tokio::time::sleep(drop_after).await;
            drop(parcels);
        });
        let mut exchange = Exchange { queue, fates, patience: PATIENCE, sent: BTreeMap::new() };
        exchange.talk(outgoing, futures_util::stream::pending()).await;
        exchange.settle().await;
        drop(exchange);
        let mut fates = Vec::new();
        while let Some(fate) = told.recv().await {
            fates.push(fate);
        }
        (fates, since.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_hanging_leader_took_is_unknown_soon_after_another_leads() {
        let (fates, took) = hanging(Duration::from_secs(2)).await;
        assert_eq!(fates, [(1, Fate::Unknown), (2, Fate::Unknown)]);
        assert_eq!(took.as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_hanging_leader_took_is_unknown_once_nobody_waits_for_it() {
        let (fates, took) = hanging(Duration::from_secs(3600)).await;
        assert_eq!(fates, [(1, Fate::Unknown), (2, Fate::Unknown)]);
        assert_eq!(took.as_secs(), 7);
    }
}
