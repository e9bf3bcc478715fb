//! Entries between being sent and being applied.

use std::collections::{BTreeMap, VecDeque};

use crate::intake::{Submission, Ticket};

/// Knows which proposals are where.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    next: u64,
    under_way: BTreeMap<u64, Vec<Submission>>,
    /// Committed and, when last looked at, not applied; by index, and mostly ascending.
    committed: VecDeque<(u64, Vec<Ticket>)>,
    /// Entries at or below it may have been skipped by a checkpoint.
    checkpoint: u64,
}

impl Tracker {
    /// How many entries have no known fate.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// An entry of these proposals is sent; gives its number.
    pub(crate) fn start(&mut self, submissions: Vec<Submission>) -> u64 {
        self.next += 1;
        self.under_way.insert(self.next, submissions);
        self.next
    }

    /// The entry's fate is known; gives its proposals back.
    pub(crate) fn finish(&mut self, number: u64) -> Vec<Submission> {
        self.under_way.remove(&number).expect("every entry has one fate")
    }

    /// An entry is committed at `index`. Gives the tickets that will have no answer from apply.
    pub(crate) fn committed(
        &mut self,
        index: u64,
        tickets: Vec<Ticket>,
        applied: u64,
    ) -> Vec<Ticket> {
        if index <= self.checkpoint {
            return tickets;
        }
        while self.committed.front().is_some_and(|(first, _)| *first <= applied) {
            self.committed.pop_front();
        }
        if index > applied {
            self.committed.push_back((index, tickets));
        }
        Vec::new()
    }

    /// A checkpoint up to `index` was installed. Gives the tickets that will have no answer from
    /// apply; some of them may have had it before.
    pub(crate) fn checkpoint(&mut self, index: u64) -> Vec<Ticket> {
        self.checkpoint = self.checkpoint.max(index);
        let mut skipped = Vec::new();
        self.committed.retain_mut(|(at, tickets)| {
            let keep = *at > index;
            if !keep {
                skipped.append(tickets);
            }
            keep
        });
        skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(count: u64) -> Ticket {
        Ticket::new(0, count)
    }

    #[test]
    fn a_checkpoint_skips_what_is_at_or_below_it_and_nothing_else() {
        let mut tracker = Tracker::default();
        assert!(tracker.committed(5, vec![ticket(5)], 3).is_empty());
        assert!(tracker.committed(6, vec![ticket(6)], 3).is_empty());
        assert_eq!(tracker.checkpoint(5), [ticket(5)]);
        assert_eq!(tracker.checkpoint(6), [ticket(6)]);
        assert!(tracker.checkpoint(6).is_empty());
    }

    #[test]
    fn an_answer_that_comes_after_the_checkpoint_is_told_at_once() {
        let mut tracker = Tracker::default();
        assert!(tracker.checkpoint(9).is_empty());
        assert_eq!(tracker.committed(9, vec![ticket(1)], 9), [ticket(1)]);
        assert!(tracker.committed(10, vec![ticket(2)], 10).is_empty());
        assert!(tracker.checkpoint(10).is_empty(), "applied entries are answered already");
    }
}
