//! Carrying out compactions on the index, a bounded part at a time.
//!
//! A compaction is swept as far as the oldest registered reader allows, and once more, to its end,
//! when the readers below it are gone. A reader that pins too much is made to go.

use std::sync::Arc;

use crate::index::Cursor;
use crate::{Revision, Sweep, Swept};

use super::shared::Shared;

/// How many parts in which nothing is dead one step may go through.
const IDLE_PARTS_MAX: usize = 16;

/// Finds what compactions make superfluous; driven by the maintainer.
pub(crate) struct IndexSweeper {
    shared: Arc<Shared>,
    pin_garbage_bytes: u64,
    epoch: u64,
    /// The newest compaction swept to its end.
    done: i64,
    /// The newest compaction swept as far as readers allowed.
    begun: i64,
    pass: Option<Pass>,
}

/// One walk over the index.
struct Pass {
    target: i64,
    compacted: i64,
    next: Option<Cursor>,
    pinned_bytes: u64,
}

impl IndexSweeper {
    pub(crate) fn new(shared: Arc<Shared>, pin_garbage_bytes: u64) -> Self {
        let epoch = shared.epoch();
        Self { shared, pin_garbage_bytes, epoch, done: -1, begun: -1, pass: None }
    }

    fn begin(&mut self) -> Option<Pass> {
        let compacted = self.shared.compacted();
        if compacted <= self.done {
            return None;
        }
        if compacted == self.begun && self.shared.registry.is_held_below(compacted) {
            return None;
        }
        self.begun = compacted;
        let target = self.shared.registry.sweep_target(compacted);
        Some(Pass { target, compacted, next: None, pinned_bytes: 0 })
    }

    /// The revisions that one lock section gives up, and whether the pass is over.
    fn part(&self, pass: &mut Pass, max: usize) -> (Vec<Revision>, bool) {
        let mut index = self.shared.index_mut();
        if self.shared.epoch() != self.epoch {
            return (Vec::new(), true);
        }
        let part = index.sweep(pass.next.as_deref(), pass.target, pass.compacted, max);
        drop(index);
        pass.pinned_bytes += part.pinned_bytes;
        pass.next = part.next;
        (part.dead, pass.next.is_none())
    }

    fn end(&mut self, pass: &Pass) -> Option<i64> {
        if pass.target < pass.compacted {
            if pass.pinned_bytes > self.pin_garbage_bytes {
                self.shared.registry.end_below(pass.compacted);
            }
            return None;
        }
        self.done = pass.compacted;
        Some(pass.compacted)
    }

    fn start_over(&mut self) {
        self.epoch = self.shared.epoch();
        (self.done, self.begun, self.pass) = (-1, -1, None);
    }
}

impl Sweep for IndexSweeper {
    fn step(&mut self, max: usize) -> Swept {
        if self.shared.epoch() != self.epoch {
            self.start_over();
        }
        let Some(mut pass) = self.pass.take().or_else(|| self.begin()) else {
            return Swept { compacted: self.done, ..Swept::default() };
        };
        let mut idle = 0;
        loop {
            let (dead, over) = self.part(&mut pass, max);
            let finished =
                if over && self.shared.epoch() == self.epoch { self.end(&pass) } else { None };
            let compacted = pass.compacted;
            if !over && dead.is_empty() && idle < IDLE_PARTS_MAX {
                idle += 1;
                continue;
            }
            if !over {
                self.pass = Some(pass);
            }
            return Swept { compacted, dead, finished, goes_on: !over };
        }
    }

    fn forgotten(&mut self, compacted: i64) {
        self.shared.note_swept(compacted);
    }
}
