//! Events on their way to a stream: built once per group, shared by its watchers, cut into
//! deliveries where whole revisions end.

use std::sync::Arc;

use bytes::Bytes;

use super::Delivery;

/// The events of one revision, or of a part of it.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) revision: i64,
    pub(super) events: Vec<Bytes>,
    /// The sum of the events' lengths.
    pub(super) bytes: usize,
}

impl Part {
    pub(super) fn new(revision: i64) -> Self {
        Self { revision, events: Vec::new(), bytes: 0 }
    }

    pub(super) fn push(&mut self, event: Bytes) {
        self.bytes += event.len();
        self.events.push(event);
    }
}

/// Consecutive parts, ascending by revision, none empty.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) parts: Vec<Part>,
    /// How far the watcher is once all of it is delivered.
    pub(super) reaches: i64,
    /// The last part is not the whole of what its revision still has for the watcher.
    pub(super) unfinished: bool,
}

/// One watcher's share of a batch, and how much of it has been taken.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) id: i64,
    batch: Arc<Batch>,
    /// Where a revision is split; `None` if it must not be.
    fragment_bytes: Option<usize>,
    part: usize,
    event: usize,
    /// The sum of the lengths of the events not taken yet.
    bytes: usize,
}

impl Share {
    /// The share that begins with part `from`.
    pub(super) fn new(
        id: i64,
        batch: Arc<Batch>,
        from: usize,
        fragment_bytes: Option<usize>,
    ) -> Self {
        assert!(from < batch.parts.len(), "a share holds events");
        let bytes = batch.parts[from..].iter().map(|part| part.bytes).sum();
        Self { id, batch, fragment_bytes, part: from, event: 0, bytes }
    }

    /// The bytes of the events not taken yet.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_taken(&self) -> bool {
        self.part == self.batch.parts.len()
    }

    /// Whether the watcher's next delivery must continue the revision that this share ends in.
    pub(super) fn is_unfinished(&self) -> bool {
        self.batch.unfinished
    }

    /// Whether revisions of this share may be split.
    pub(super) fn may_split(&self) -> bool {
        self.fragment_bytes.is_some()
    }

    /// The next delivery: whole revisions until `max_bytes` is passed, at least one; or a fragment.
    pub(super) fn take(&mut self, max_bytes: usize) -> Delivery {
        assert!(!self.is_taken(), "a taken share has left the queue");
        if let Some(fragment_bytes) = self.fragment_bytes
            && self.event_sizes().sum::<usize>() >= fragment_bytes
        {
            return self.take_fragment(fragment_bytes);
        }
        self.take_revisions(max_bytes.min(self.fragment_bytes.unwrap_or(usize::MAX)))
    }

    /// Whole revisions, or the rest of one, until the next would reach the bound; at least one.
    fn take_revisions(&mut self, bound: usize) -> Delivery {
        let (mut events, mut bytes) = (Vec::new(), 0);
        let mut revision = 0;
        while let Some(part) = self.batch.parts.get(self.part) {
            let rest = &part.events[self.event..];
            bytes += rest.iter().map(on_the_wire).sum::<usize>();
            if !events.is_empty() && bytes >= bound {
                break;
            }
            events.extend_from_slice(rest);
            revision = part.revision;
            (self.part, self.event) = (self.part + 1, 0);
        }
        self.delivery(revision, events, false)
    }

    fn delivery(&mut self, revision: i64, events: Vec<Bytes>, inside: bool) -> Delivery {
        self.bytes -= events.iter().map(Bytes::len).sum::<usize>();
        let more_fragments = inside || (self.is_taken() && self.batch.unfinished);
        let finished = self.is_taken() && !more_fragments;
        let revision = if finished { self.batch.reaches } else { revision };
        Delivery::Events { id: self.id, revision, events, more_fragments }
    }

    fn event_sizes(&self) -> impl Iterator<Item = usize> {
        self.batch.parts[self.part].events[self.event..].iter().map(on_the_wire)
    }

    /// Events of the current revision until the next would reach the bound; at least one.
    fn take_fragment(&mut self, fragment_bytes: usize) -> Delivery {
        let mut bytes = 0;
        let fitting = self.event_sizes().take_while(|size| {
            bytes += size;
            bytes < fragment_bytes
        });
        let count = fitting.count().max(1);
        let part = &self.batch.parts[self.part];
        let events = part.events[self.event..self.event + count].to_vec();
        let revision = part.revision;
        self.event += count;
        let inside = self.event < part.events.len();
        if !inside {
            (self.part, self.event) = (self.part + 1, 0);
        }
        self.delivery(revision, events, inside)
    }
}

/// What an event takes in a response: its tag, its length, itself.
fn on_the_wire(event: &Bytes) -> usize {
    1 + prost::encoding::encoded_len_varint(event.len() as u64) + event.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(parts: &[(i64, &[usize])], fragment_bytes: Option<usize>, unfinished: bool) -> Share {
        let parts = parts.iter().map(|(revision, sizes)| {
            let mut part = Part::new(*revision);
            sizes.iter().for_each(|size| part.push(Bytes::from(vec![0; *size])));
            part
        });
        let batch = Batch { parts: parts.collect(), reaches: 99, unfinished };
        Share::new(1, Arc::new(batch), 0, fragment_bytes)
    }

    /// Each delivery as (revision, number of events, whether fragments follow).
    fn takes(mut share: Share, max_bytes: usize) -> Vec<(i64, usize, bool)> {
        let mut all = Vec::new();
        while !share.is_taken() {
            let before = share.bytes();
            let Delivery::Events { revision, events, more_fragments, .. } = share.take(max_bytes)
            else {
                panic!("a share gives events")
            };
            let bytes: usize = events.iter().map(Bytes::len).sum();
            assert_eq!(share.bytes(), before - bytes);
            all.push((revision, events.len(), more_fragments));
        }
        all
    }

    #[test]
    fn deliveries_end_where_revisions_end() {
        let parts: &[(i64, &[usize])] = &[(5, &[10, 10]), (6, &[10]), (8, &[50])];
        assert_eq!(takes(share(parts, None, false), 1000), [(99, 4, false)]);
        assert_eq!(takes(share(parts, None, false), 40), [(6, 3, false), (99, 1, false)]);
        assert_eq!(
            takes(share(parts, None, false), 1),
            [(5, 2, false), (6, 1, false), (99, 1, false)]
        );
    }

    #[test]
    fn only_a_revision_above_the_bound_is_split() {
        let parts: &[(i64, &[usize])] = &[(5, &[10]), (6, &[30, 30, 30]), (8, &[10])];
        let expected = [(5, 1, false), (6, 2, true), (99, 2, false)];
        assert_eq!(takes(share(parts, Some(70), false), 1000), expected);
        let one: &[(i64, &[usize])] = &[(5, &[500])];
        assert_eq!(takes(share(one, Some(70), false), 1000), [(99, 1, false)]);
    }

    #[test]
    fn an_unfinished_batch_ends_with_more_to_come() {
        let parts: &[(i64, &[usize])] = &[(5, &[10]), (6, &[30, 30])];
        assert_eq!(takes(share(parts, Some(70), true), 1000), [(5, 1, false), (6, 2, true)]);
        assert_eq!(
            takes(share(parts, Some(40), true), 1000),
            [(5, 1, false), (6, 1, true), (6, 1, true)]
        );
    }
}
