//! The last few published revisions, with what has been encoded of them.
//!
//! Publishing matches here, and a watcher that has nearly caught up is handed over from here.
//! Contiguous, and ends at the hub's current revision.

use std::collections::VecDeque;

use bytes::Bytes;

use super::event::{self, Effort, Found};
use super::limits::Limits;
use super::registry::Class;
use super::{Change, EventSource, RevisionEvents};
use crate::record::RecordKind;
use crate::{Fatal, Revision};

/// One change, and its events once somebody needed them.
pub(super) struct Slot {
    pub(super) change: Change,
    plain: Option<Bytes>,
    with_prev: Option<Bytes>,
}

/// One revision.
pub(super) struct RecentRevision {
    revision: i64,
    slots: Vec<Slot>,
    bytes: usize,
}

impl RecentRevision {
    fn new(events: RevisionEvents) -> Self {
        let slot = |mut change: Change| {
            // It came as a part of its record, which must be free to go to disk.
            change.key = Bytes::copy_from_slice(&change.key);
            Slot { change, plain: None, with_prev: None }
        };
        let slots = events.changes.into_iter().map(slot).collect();
        Self { revision: events.revision, slots, bytes: 0 }
    }

    /// The event of one change as a class of watchers sees it.
    pub(super) fn event(
        &mut self,
        source: &dyn EventSource,
        slot: usize,
        class: Class,
    ) -> Result<Found<Bytes>, Fatal> {
        let (main, slot) = (self.revision, &mut self.slots[slot]);
        let wants_prev = class.prev_kv && slot.change.prev.is_some();
        if let Some(bytes) = if wants_prev { &slot.with_prev } else { &slot.plain } {
            return Ok(Found::Ready(bytes.clone()));
        }
        let Found::Ready(bytes) = slot.encode(source, main, wants_prev)? else {
            return Ok(Found::WouldBlock);
        };
        self.bytes += bytes.len();
        *(if wants_prev { &mut slot.with_prev } else { &mut slot.plain }) = Some(bytes.clone());
        Ok(Found::Ready(bytes))
    }
}

impl Slot {
    fn encode(
        &self,
        source: &dyn EventSource,
        main: i64,
        wants_prev: bool,
    ) -> Result<Found<Bytes>, Fatal> {
        let at = Revision::new(main, self.change.sub);
        let Found::Ready(record) = event::record(source, at, Effort::Memory)? else {
            return Ok(Found::WouldBlock);
        };
        let mut previous = None;
        if let Some(revision) = self.change.prev.filter(|_| wants_prev) {
            match event::previous_record(source, main, revision, Effort::Memory)? {
                Found::Ready(found) => previous = found,
                Found::WouldBlock => return Ok(Found::WouldBlock),
            }
        }
        Ok(Found::Ready(event::encode(&self.change.kind, &record, previous.as_deref())))
    }

    /// Whether a class of watchers is to see this change.
    pub(super) fn passes(&self, class: Class) -> bool {
        match self.change.kind {
            RecordKind::Put { .. } => !class.no_put,
            RecordKind::Tombstone => !class.no_delete,
        }
    }
}

/// The ring.
#[derive(Default)]
pub(super) struct Recent {
    revisions: VecDeque<RecentRevision>,
    /// The sums over all revisions.
    changes: usize,
    bytes: usize,
}

impl Recent {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn push(&mut self, events: RevisionEvents) {
        if let Some(last) = self.revisions.back() {
            assert_eq!(last.revision + 1, events.revision, "recent revisions are contiguous");
        }
        self.changes += events.changes.len();
        self.revisions.push_back(RecentRevision::new(events));
    }

    /// Whether every revision from `first` to the newest is here.
    pub(super) fn reaches_back_to(&self, first: i64) -> bool {
        self.revisions.front().is_some_and(|oldest| oldest.revision <= first)
    }

    /// The changes of a revision, which is here.
    pub(super) fn slots(&self, main: i64) -> &[Slot] {
        &self.revisions[self.place(main)].slots
    }

    /// The event of one change, as a class of watchers sees it.
    pub(super) fn event(
        &mut self,
        source: &dyn EventSource,
        main: i64,
        slot: usize,
        class: Class,
    ) -> Result<Found<Bytes>, Fatal> {
        let place = self.place(main);
        let recent = &mut self.revisions[place];
        let before = recent.bytes;
        let event = recent.event(source, slot, class);
        self.bytes += recent.bytes - before;
        event
    }

    fn place(&self, main: i64) -> usize {
        let oldest = self.revisions.front().expect("the ring is not empty").revision;
        usize::try_from(main - oldest).expect("the revision is in the ring")
    }

    /// Drops the oldest until the ring is within its bounds.
    pub(super) fn trim(&mut self, limits: &Limits) {
        while self.revisions.len() > limits.recent_revisions
            || self.changes > limits.recent_changes
            || self.bytes > limits.recent_bytes
        {
            let Some(oldest) = self.revisions.pop_front() else { return };
            self.changes -= oldest.slots.len();
            self.bytes -= oldest.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_does_not_keep_records_in_memory() {
        let record = Bytes::from(vec![b'k'; 1 << 20]);
        let (key, kind) = (record.slice(..10), RecordKind::Tombstone);
        let changes = vec![Change { sub: 0, key, kind, prev: None }];
        let mut ring = Recent::default();
        ring.push(RevisionEvents { revision: 2, changes, complete: true });
        assert_eq!(ring.slots(2)[0].change.key, record[..10]);
        assert!(record.is_unique(), "nothing of it is held");
    }
}
