//! Taking in a checkpoint that a leader sends, piece by piece.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
use crate::wal::Wal;
use crate::work::block;

/// The one checkpoint that is being received; a newer offer replaces it. What has been written
/// stays, so that the next attempt goes on from there.
pub(crate) struct Receiver {
    keeper: Keeper,
    workers: Workers,
    gauge: Gauge,
    wal: Wal,
    current: Arc<Mutex<Current>>,
}

#[derive(Default)]
struct Current {
    transfer: u64,
    receiving: Option<Receiving>,
    /// Transfers that are being read back. Their callers may have given up since.
    finishing: usize,
}

/// Held while a transfer is read back.
struct Finishing(Arc<Mutex<Current>>);

impl Finishing {
    /// Takes a transfer to read it back.
    fn begin(current: &Arc<Mutex<Current>>, transfer: u64) -> Option<(Receiving, Self)> {
        let mut locked = lock(current);
        let receiving = locked.take(transfer)?;
        locked.finishing += 1;
        Some((receiving, Self(current.clone())))
    }
}

impl Drop for Finishing {
    fn drop(&mut self) {
        lock(&self.0).finishing -= 1;
    }
}

fn lock(current: &Mutex<Current>) -> MutexGuard<'_, Current> {
    current.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Receiver {
    pub(crate) fn new(keeper: Keeper, workers: Workers, gauge: Gauge, wal: Wal) -> Self {
        Self { keeper, workers, gauge, wal, current: Arc::default() }
    }

    /// Starts to receive; says which bytes are missing. The reserve is not for them: below it, this
    /// member would keep everybody from writing. What is here already is welcome however little room
    /// there is: installed, it lets go of what was there before.
    pub(crate) async fn offer(&self, manifest: Bytes) -> Result<peer::CheckpointNeeds, Status> {
        let receiving = self.keeper.receive(manifest).await;
        let receiving =
            receiving.map_err(|error| Status::failed_precondition(error.to_string()))?;
        let missing = receiving.missing();
        let bytes = missing.iter().map(|file| file.length - file.offset).sum();
        self.gauge.look();
        if bytes > 0 && !self.gauge.leaves_blocks_reserve(bytes) {
            tracing::warn!(bytes, "no room for a checkpoint");
            let current = self.current.clone();
            let abandoned = block(self.workers, move || lock(&current).give_up(receiving));
            abandoned.await.map_err(|gone| Status::aborted(gone.to_string()))?;
            // The log may hold what it can do without; it will be offered again.
            self.wal.request_upkeep();
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
        let transfer = lock(&self.current).begin(receiving);
        Ok(peer::CheckpointNeeds { files, transfer })
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
            let mut current = lock(&current);
            if room <= Room::Last {
                // Others have used up the room meanwhile; what has arrived must not keep the rest.
                if let Some(receiving) = current.take(chunk.transfer) {
                    current.give_up(receiving);
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
            let begun = Finishing::begin(&current, wire.transfer);
            let (receiving, _finishing) = begun.ok_or_else(superseded)?;
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
    /// Takes the place of whatever was on its way before; gives the transfer's number.
    fn begin(&mut self, receiving: Receiving) -> u64 {
        self.transfer += 1;
        self.receiving = Some(receiving);
        self.transfer
    }

    /// Gives up a transfer, and whatever was on its way before it. What has arrived is removed by
    /// name, so it stays while it may be what another transfer is about to use: the next offer removes
    /// it, or goes on with it.
    fn give_up(&mut self, receiving: Receiving) {
        self.receiving = None;
        if self.finishing == 0 {
            abandon(receiving);
        }
    }

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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use holdfast_store::command::{Change, Command, LEVEL_CURRENT, Put};
    use holdfast_store::files::{Files, MemoryFiles};
    use holdfast_store::{BackendKind, Context, Opened, Options, Position, Taken, open};

    use super::*;

    fn store(files: &MemoryFiles, incarnation: u64) -> Opened {
        files.create_directory(Path::new("/data")).expect("memory");
        let files = Arc::new(files.clone());
        let backend = BackendKind::Memory;
        open(Options { files, backend, incarnation, ..Options::new("/data") }).expect("empty")
    }

    /// The manifest of a checkpoint that has a file.
    fn manifest() -> Bytes {
        let Opened { mut state, mut maintainer, .. } = store(&MemoryFiles::new(), 1);
        let position = Position { term: 1, index: 1 };
        let context = Context { position, level: LEVEL_CURRENT, respond: false };
        let put = Put { key: Bytes::from_static(b"k"), ..Put::default() };
        state.apply(&context, &Command::from(Change::Put(put))).expect("applied");
        state.finish_entry(position);
        state.publish().expect("published");
        let taken = maintainer.take_manifest(state.freeze(), 1).expect("there is room");
        assert!(matches!(taken, Taken::Manifest(_)));
        maintainer.export().expect("it reads back").manifest().clone()
    }

    #[test]
    fn what_another_transfer_uses_is_not_removed() {
        let (files, manifest) = (MemoryFiles::new(), manifest());
        let receiver = store(&files, 2);
        let checkpoints = receiver.maintainer.checkpoints();
        let offer = || checkpoints.receive(manifest.clone()).expect("it is whole");
        let arrived = || {
            files.paths().iter().filter(|path| path.to_string_lossy().ends_with(".part")).count()
        };
        let current = Arc::new(Mutex::new(Current::default()));
        let transfer = lock(&current).begin(offer());
        let read_back = Finishing::begin(&current, transfer).expect("it is the current one");
        lock(&current).give_up(offer());
        assert_eq!(arrived(), 1, "it is still being read back");
        drop(read_back);

        let transfer = lock(&current).begin(offer());
        lock(&current).give_up(offer());
        assert_eq!(arrived(), 0);
        assert!(lock(&current).of(transfer).is_none(), "its files are gone");
    }
}
