//! openraft's state machine: a thin face of the applier and of the keeper of checkpoints.

use std::fmt::Display;
use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};

use crate::apply::Applier;
use crate::checkpoint::{Checkpoint, membership_from_bytes, meta_of};
use crate::keeper::Keeper;
use crate::shared::Shared;
use crate::types::{
    CommittedLeaderId, LogId, PeerNode, SnapshotMeta, StoredMembership, TypeConfig, log_id_of,
};
use crate::work::Actor;

/// Entries applied and published together.
const APPLY_BATCH: usize = 256;

pub(crate) type Snapshot = openraft::Snapshot<CommittedLeaderId, u64, PeerNode, Checkpoint>;

#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) shared: Arc<Shared>,
    pub(crate) applier: Actor<Applier>,
    pub(crate) keeper: Keeper,
}

impl Machine {
    /// A store that fails takes the member with it.
    fn fail(&self, error: impl Display) -> io::Error {
        let text = error.to_string();
        self.shared.fail(holdfast_store::Fatal::new(&text));
        io::Error::other(text)
    }

    async fn newest(&self) -> io::Result<Option<Snapshot>> {
        let export = self.keeper.export().await.map_err(|error| self.fail(error))?;
        let Some(export) = export else { return Ok(None) };
        let meta = meta_of(export.info()).map_err(|error| self.fail(error))?;
        Ok(Some(Snapshot { meta, snapshot: Checkpoint::Local(Arc::new(export)) }))
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Checkpoint;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let stand = self.applier.call(|applier| applier.stand()).await;
        let (position, membership) = stand.map_err(|gone| self.fail(gone))?;
        let membership = membership_from_bytes(&membership).map_err(|error| self.fail(error))?;
        Ok((log_id_of(position), membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        loop {
            let mut batch = Vec::new();
            let mut responders = Vec::new();
            while batch.len() < APPLY_BATCH
                && let Some(item) = entries.next().await
            {
                let (entry, responder) = item?;
                batch.push(entry);
                responders.extend(responder);
            }
            if batch.is_empty() {
                return Ok(());
            }
            let applied = self.applier.call(move |applier| applier.apply(&batch)).await;
            applied.map_err(|gone| self.fail(gone))?.map_err(|fatal| self.fail(fatal))?;
            for responder in responders {
                responder.send(());
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, _: &SnapshotMeta, snapshot: Checkpoint) -> io::Result<()> {
        let Checkpoint::Received(received) = snapshot else {
            // The store opens at its newest checkpoint or above, so openraft never needs one of
            // ours to restore it.
            return Err(self.fail("a checkpoint of this member's own was to be installed"));
        };
        self.shared.sole.lost();
        let installed = self.applier.call(move |applier| applier.install(*received)).await;
        installed.map_err(|gone| self.fail(gone))?.map_err(|fatal| self.fail(fatal))?;
        self.keeper.installed().await.map_err(|error| self.fail(error))
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.newest().await
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = Checkpoint;

    /// openraft is only told of the newest checkpoint; the keeper decides when to take one.
    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        if let Some(newest) = self.newest().await? {
            return Ok(newest);
        }
        self.keeper.take().await.map_err(|error| self.fail(error))?;
        let newest = self.newest().await?;
        newest.ok_or_else(|| self.fail("a checkpoint that was just taken is not there"))
    }
}
