//! A checkpoint on its way to a member that has fallen behind: the manifest, then only the block
//! files it lacks, from where the last attempt ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use holdfast_proto::peer;
use holdfast_proto::peer::peer_client::PeerClient;
use holdfast_store::Export;
use tokio::sync::Notify;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::checkpoint::Checkpoint;
use crate::config::Workers;
use crate::machine::Snapshot;
use crate::peer::handshake::Gate;
use crate::rot::find_rot;
use crate::types::{Vote, log_id_to_wire, stored_membership_to_wire, vote_to_wire};
use crate::work::block;

/// Bytes of a block file in one message.
const CHUNK_BYTES: usize = 256 << 10;

/// Who sends to whom.
pub(crate) struct Sender {
    pub(crate) client: PeerClient<Channel>,
    pub(crate) gate: Gate,
    pub(crate) to: u64,
    pub(crate) workers: Workers,
    /// Told when a file of this member's own turns out to be damaged.
    pub(crate) rotten: Arc<Notify>,
    /// For each of the three calls.
    pub(crate) limit: Duration,
}

impl Sender {
    fn sign<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        self.gate.sign(&mut request, self.to);
        request
    }

    /// Sends `snapshot` in the name of the leader of `vote`.
    pub(crate) async fn send(
        mut self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<peer::CheckpointInstalled, Status> {
        let Checkpoint::Local(export) = snapshot.snapshot else {
            return Err(Status::internal("only a checkpoint of this member's own can be sent"));
        };
        let limit = self.limit;
        let offer = self.sign(peer::CheckpointOffer { manifest: export.manifest().clone() });
        let needs = within(limit, self.client.offer_checkpoint(offer)).await?;
        let transfer = needs.transfer;
        let pending = needs.files.into_iter().collect();
        let exported = export.clone();
        let (workers, rotten) = (self.workers, self.rotten.clone());
        let chunks = chunks(Reading { export, pending, transfer, workers, rotten });
        let chunks = self.sign(chunks);
        within(limit, self.client.send_checkpoint(chunks)).await?;
        let install = self.sign(peer::CheckpointInstall {
            transfer,
            vote: Some(vote_to_wire(&vote)),
            last: snapshot.meta.last_log_id.as_ref().map(log_id_to_wire),
            membership: Some(stored_membership_to_wire(&snapshot.meta.last_membership)),
        });
        let installed = within(limit, self.client.install_checkpoint(install)).await;
        if installed.as_ref().is_err_and(|status| status.code() == Code::DataLoss) {
            self.look_for_rot(exported).await;
        }
        installed
    }

    /// The receiver got a file that is not what the manifest says: is it this member's fault?
    async fn look_for_rot(&self, export: Arc<Export>) {
        if let Ok(Some(name)) = block(self.workers, move || find_rot(&export)).await {
            tracing::error!(%name, "a block file of a checkpoint is damaged");
            self.rotten.notify_one();
        }
    }
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("the peer takes too long over a checkpoint")),
    }
}

struct Reading {
    export: Arc<Export>,
    pending: VecDeque<peer::checkpoint_needs::File>,
    transfer: u64,
    workers: Workers,
    rotten: Arc<Notify>,
}

/// The missing bytes, in order. A file that cannot be read ends the stream early, and the receiver
/// finds the checkpoint incomplete.
fn chunks(reading: Reading) -> impl Stream<Item = peer::CheckpointChunk> + Send {
    futures_util::stream::unfold(reading, |mut reading| async move {
        let chunk = reading.next().await?;
        Some((chunk, reading))
    })
}

impl Reading {
    async fn next(&mut self) -> Option<peer::CheckpointChunk> {
        let file = self.pending.front_mut()?;
        let length = usize::try_from(file.length.saturating_sub(file.offset)).ok()?;
        let length = length.min(CHUNK_BYTES);
        let (name, offset) = (file.name.clone(), file.offset);
        file.offset += length as u64;
        if file.offset >= file.length {
            self.pending.pop_front();
        }
        let export = self.export.clone();
        let wanted = name.clone();
        let read = block(self.workers, move || export.read(&wanted, offset, length)).await;
        let bytes = match read {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => {
                tracing::error!(%name, offset, %error, "cannot read a block file to send it");
                self.rotten.notify_one();
                return None;
            }
            Err(_) => return None,
        };
        let crc32c = crc32c::crc32c(&bytes);
        Some(peer::CheckpointChunk { transfer: self.transfer, file: name, offset, bytes, crc32c })
    }
}
