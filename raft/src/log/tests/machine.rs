//! The least that openraft takes for a state machine: it remembers how far it got.

use std::io;
use std::sync::{Arc, Mutex};

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};

use crate::types::{
    CommittedLeaderId, LogId, PeerNode, SnapshotMeta, StoredMembership, TypeConfig,
};

type Snapshot = openraft::Snapshot<CommittedLeaderId, u64, PeerNode, ()>;

#[derive(Clone, Default)]
pub(super) struct TestMachine {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Clone, Default)]
struct Inner {
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMeta>,
}

impl RaftStateMachine<TypeConfig> for TestMachine {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let inner = self.inner.lock().unwrap();
        Ok((inner.applied, inner.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let mut inner = self.inner.lock().unwrap();
            inner.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                inner.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            drop(inner);
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, _snapshot: ()) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap();
        inner.applied = meta.last_log_id;
        inner.membership = meta.last_membership.clone();
        inner.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let inner = self.inner.lock().unwrap();
        Ok(inner.snapshot.clone().map(|meta| Snapshot { meta, snapshot: () }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for TestMachine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let mut inner = self.inner.lock().unwrap();
        let meta =
            SnapshotMeta { last_log_id: inner.applied, last_membership: inner.membership.clone() };
        inner.snapshot = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: () })
    }
}
