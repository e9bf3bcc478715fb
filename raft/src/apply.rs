//! Applying committed entries: in order, in batches, published before anyone is answered.
//!
//! The applier owns the store's only writer. Its outcomes go to the ports that wait for them, found
//! by the number each proposal carries; nobody else is told, and nobody else builds a response.
//!
//! A delete of very many keys takes long. If it ends its entry, everything before it is published
//! first, and then keys can be read as of after the entry while it is being carried out.

use std::sync::Arc;
use std::time::Duration;

use holdfast_store::command::{Change, LEVEL_CURRENT};
use holdfast_store::{Context, Fatal, Frozen, Position, ReceivedCheckpoint, State};
use openraft::EntryPayload;
use tokio::time::Instant;

use crate::checkpoint::{membership_bytes, membership_from_bytes};
use crate::config::Plants;
use crate::entry::{Batch, LogEntry};
use crate::intake::Ticket;
use crate::port::{Applied, Mail};
use crate::shared::Shared;
use crate::types::{Entry, StoredMembership, position};

mod slow;

/// The owner of the state.
pub(crate) struct Applier {
    state: State,
    shared: Arc<Shared>,
    answers: Vec<(Ticket, Mail)>,
    /// Decided by an entry that is not published yet.
    unpublished_membership: Option<StoredMembership>,
    /// A proposal that takes longer is told of in the log.
    expected: Duration,
    /// A planted fault, until it has struck.
    apply_twice: bool,
    /// Another one, which never ends.
    alter_values: bool,
}

impl Applier {
    pub(crate) fn new(
        state: State,
        shared: Arc<Shared>,
        expected: Duration,
        plants: Plants,
    ) -> Self {
        // Bytes that are no membership are told of when openraft asks for it.
        let unpublished_membership = membership_from_bytes(&state.membership().1).ok();
        let Plants { apply_twice, alter_values, .. } = plants;
        let answers = Vec::new();
        let mut applier = Self {
            state,
            shared,
            answers,
            unpublished_membership,
            expected,
            apply_twice,
            alter_values,
        };
        applier.publish_membership();
        applier.shared.status.set_applied(applier.state.applied().index);
        applier
    }

    /// Where the state stands, and the membership in force there.
    pub(crate) fn stand(&self) -> (Position, bytes::Bytes) {
        (self.state.applied(), self.state.membership().1)
    }

    pub(crate) fn freeze(&self) -> Frozen {
        self.state.freeze()
    }

    /// Applies entries that are committed, in the order of the log.
    pub(crate) fn apply(&mut self, entries: &[Entry]) -> Result<(), Fatal> {
        let Some(last) = entries.last() else { return Ok(()) };
        let mut unpublished = None;
        for entry in entries {
            if let Some(index) = unpublished.filter(|_| may_take_long(entry)) {
                self.publish(index)?;
            }
            self.apply_entry(entry)?;
            unpublished = Some(entry.log_id.index);
        }
        self.publish(last.log_id.index)
    }

    /// Shows everything up to `index`, and answers who waits for it.
    fn publish(&mut self, index: u64) -> Result<(), Fatal> {
        self.state.publish()?;
        self.publish_membership();
        self.shared.status.set_applied(index);
        self.shared.post(std::mem::take(&mut self.answers));
        Ok(())
    }

    fn publish_membership(&mut self) {
        let Some(membership) = self.unpublished_membership.take() else { return };
        self.shared.set_applied_membership(membership);
        if self.shared.is_removed(self.shared.identity.member_id) {
            self.shared.dismiss();
        }
    }

    /// Members that are gone with a membership are gone for ever.
    fn apply_membership(
        &mut self,
        position: Position,
        stored: StoredMembership,
    ) -> Result<(), Fatal> {
        let before = membership_from_bytes(&self.state.membership().1).map_err(Fatal::new)?;
        let removed = before.nodes().map(|(member, _)| *member);
        let removed = removed.filter(|member| stored.get_node(member).is_none());
        let removed: Vec<u64> = removed.collect();
        self.state.apply_membership(position, membership_bytes(&stored), &removed);
        self.unpublished_membership = Some(stored);
        Ok(())
    }

    fn apply_entry(&mut self, entry: &Entry) -> Result<(), Fatal> {
        let position = position(&entry.log_id);
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(batch) => self.apply_batch(position, batch)?,
            EntryPayload::Membership(membership) => {
                let stored = StoredMembership::new(Some(entry.log_id), membership.clone());
                self.apply_membership(position, stored)?;
            }
        }
        self.state.finish_entry(position);
        Ok(())
    }

    fn apply_batch(&mut self, position: Position, batch: &Batch) -> Result<(), Fatal> {
        let entry = batch.decoded().map_err(|error| {
            Fatal::new(format_args!("entry {} does not decode: {error}", position.index))
        })?;
        check_level(position, entry)?;
        if std::mem::take(&mut self.apply_twice) {
            self.apply_proposals(position, entry)?;
        }
        if self.alter_values {
            return self.apply_proposals(position, &with_altered_values(entry));
        }
        self.apply_proposals(position, entry)
    }

    fn apply_proposals(&mut self, position: Position, entry: &LogEntry) -> Result<(), Fatal> {
        let Self { shared, state, expected, .. } = self;
        let identity = shared.identity;
        let mut left = entry.proposals.len();
        let mut started = Instant::now();
        for proposal in &entry.proposals {
            left -= 1;
            let ours = proposal.origin == identity.member_id && proposal.nonce == shared.nonce;
            let context = Context { position, level: entry.level, respond: ours };
            let outcome = if left == 0 {
                let mut visible = || {
                    shared.status.set_visible(position.index);
                    // Whoever waits for this core is about to read.
                    std::thread::yield_now();
                };
                state.apply_last(&context, &proposal.command, &mut visible)?
            } else {
                state.apply(&context, &proposal.command)?
            };
            let ended = Instant::now();
            if ended - started > *expected {
                shared.counts.slow_applies.add(1);
                slow::warn(ended - started, *expected, position, proposal, &outcome);
            }
            started = ended;
            if ours {
                let applied = Applied { outcome, term: position.term, index: position.index };
                let ticket = Ticket(proposal.sequence);
                self.answers.push((ticket, Mail::Proposal(ticket, Ok(applied))));
            }
        }
        Ok(())
    }

    /// Replaces the state by a checkpoint. Whoever waits for an entry at or below it gets no
    /// answer from it, and is told so.
    pub(crate) fn install(&mut self, checkpoint: ReceivedCheckpoint) -> Result<(), Fatal> {
        self.state.install(checkpoint)?;
        self.state.publish()?;
        let membership = membership_from_bytes(&self.state.membership().1).map_err(Fatal::new)?;
        self.unpublished_membership = Some(membership);
        self.publish_membership();
        let index = self.state.applied().index;
        // In this order: whoever sees the index applied sees that no entry was.
        self.shared.checkpoint_installed(index);
        self.shared.status.set_applied(index);
        Ok(())
    }
}

fn with_altered_values(entry: &LogEntry) -> LogEntry {
    let mut entry = entry.clone();
    for proposal in &mut entry.proposals {
        if let Some(Change::Put(put)) = &mut proposal.command.change {
            put.value = put.value.iter().map(|byte| byte ^ 1).collect();
        }
    }
    entry
}

/// Whether the entry ends with a delete of a range.
fn may_take_long(entry: &Entry) -> bool {
    let EntryPayload::Normal(batch) = &entry.payload else { return false };
    let last = batch.decoded().ok().and_then(|entry| entry.proposals.last());
    let change = last.and_then(|proposal| proposal.command.change.as_ref());
    matches!(change, Some(Change::DeleteRange(delete)) if !delete.range_end.is_empty())
}

fn check_level(position: Position, entry: &LogEntry) -> Result<(), Fatal> {
    if entry.level <= LEVEL_CURRENT {
        return Ok(());
    }
    Err(Fatal::new(format_args!(
        "entry {} has semantics level {}, and this program knows none above {LEVEL_CURRENT}",
        position.index, entry.level
    )))
}
