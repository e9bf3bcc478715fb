//! Taking in a checkpoint that a leader sends, piece by piece.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use holdfast_proto::peer;
use holdfast_store::{ReceiveError, Receiving};
use tonic::Status;

use crate::checkpoint::Checkpoint;
use crate::config::Workers;
use crate::keeper::Keeper;
use crate::machine::Snapshot;
use crate::room::{Gauge, Room};
use crate::types::{SnapshotMeta, log_id_from_wire, stored_membership_from_wire};
use crate::work::block;

/// The one checkpoint that is being received; a newer offer replaces it. What has been written
/// stays, so that the next attempt goes on from there.
pub(crate) struct Receiver {
    keeper: Keeper,
    workers: Workers,
    gauge: Gauge,
    current: Arc<Mutex<Current>>,
}

#[derive(Default)]
struct Current {
    transfer: u64,
    receiving: Option<Receiving>,
}

impl Receiver {
    pub(crate) fn new(keeper: Keeper, workers: Workers, gauge: Gauge) -> Self {
        Self { keeper, workers, gauge, current: Arc::default() }
    }

    /// Starts to receive; says which bytes are missing. The reserve is not for them: below it, this
    /// member would keep everybody from writing.
    pub(crate) async fn offer(&self, manifest: Bytes) -> Result<peer::CheckpointNeeds, Status> {
        let receiving = self.keeper.receive(manifest).await;
        let receiving =
            receiving.map_err(|error| Status::failed_precondition(error.to_string()))?;
        let missing = receiving.missing();
        let bytes = missing.iter().map(|file| file.length - file.offset).sum();
        self.gauge.look();
        if !self.gauge.leaves_blocks_reserve(bytes) {
            tracing::warn!(bytes, "no room for a checkpoint");
            let abandoned = block(self.workers, move || abandon(receiving));
            abandoned.await.map_err(|gone| Status::aborted(gone.to_string()))?;
            return Err(no_room());
        }
        let files = missing
            .into_iter()
            .map(|file| peer::checkpoint_needs::File {
                name: file.name,
                offset: file.offset,
                length: file.length,
            })
            .collect();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.transfer += 1;
        current.receiving = Some(receiving);
        Ok(peer::CheckpointNeeds { files, transfer: current.transfer })
    }

    /// Writes a piece.
    pub(crate) async fn write(&self, chunk: peer::CheckpointChunk) -> Result<(), Status> {
        if crc32c::crc32c(&chunk.bytes) != chunk.crc32c {
            return Err(Status::data_loss("a piece of a checkpoint was damaged on the way"));
        }
        let current = self.current.clone();
        let gauge = self.gauge.clone();
        let written = block(self.workers, move || {
            let room = gauge.look();
            let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
            if room <= Room::Last {
                // Others have used up the room meanwhile; what has arrived must not keep the rest.
                if let Some(receiving) = current.take(chunk.transfer) {
                    abandon(receiving);
                }
                return Err(no_room());
            }
            let Some(receiving) = current.of(chunk.transfer) else { return Err(superseded()) };
            receiving
                .write(&chunk.file, chunk.offset, &chunk.bytes)
                .map_err(|error| Status::aborted(error.to_string()))
        });
        written.await.unwrap_or_else(|gone| Err(Status::aborted(gone.to_string())))
    }

    /// Verifies what was received and makes it durable. When everything up to it has been applied
    /// here, as after an earlier attempt whose answer was lost, there is nothing to do.
    pub(crate) async fn finish(
        &self,
        wire: peer::CheckpointInstall,
        applied: u64,
    ) -> Result<Snapshot, Status> {
        let membership = wire.membership.unwrap_or_default();
        let meta = SnapshotMeta {
            last_log_id: wire.last.as_ref().map(log_id_from_wire),
            last_membership: stored_membership_from_wire(&membership)
                .map_err(|error| Status::invalid_argument(error.to_string()))?,
        };
        if wire.last.as_ref().is_some_and(|last| last.index <= applied) {
            return Ok(Snapshot { meta, snapshot: Checkpoint::Superfluous });
        }
        let current = self.current.clone();
        let finished = block(self.workers, move || {
            // Reading everything back takes long, and the Raft runtime takes the same lock.
            let receiving = {
                let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
                current.take(wire.transfer).ok_or_else(superseded)?
            };
            receiving.finish().map_err(|error| match error {
                // On the way each piece was whole, so the sender may have a look at its own.
                ReceiveError::Damaged { .. } => Status::data_loss(error.to_string()),
                _ => Status::aborted(error.to_string()),
            })
        });
        let received =
            finished.await.unwrap_or_else(|gone| Err(Status::aborted(gone.to_string())))?;
        Ok(Snapshot { meta, snapshot: Checkpoint::Received(Box::new(received)) })
    }
}

impl Current {
    fn of(&mut self, transfer: u64) -> Option<&mut Receiving> {
        self.receiving.as_mut().filter(|_| self.transfer == transfer)
    }

    fn take(&mut self, transfer: u64) -> Option<Receiving> {
        self.receiving.take_if(|_| self.transfer == transfer)
    }
}

fn abandon(receiving: Receiving) {
    if let Err(error) = receiving.abandon() {
        tracing::warn!(%error, "what has arrived of a checkpoint cannot be removed");
    }
}

fn no_room() -> Status {
    Status::aborted("there is no room for a checkpoint")
}

fn superseded() -> Status {
    Status::aborted("a newer checkpoint has been offered since")
}
