//! Spans of keys, and which of them hold a given key.
//!
//! A treap ordered by (start, end); every node knows the greatest end beneath it, so that a search
//! leaves out whole subtrees. Priorities come from a counter through a mixing function: the shape
//! depends on the history of calls alone. n spans of which k hold the key: O(log n + k) expected
//! for spans that overlap little, O(k log n) at worst.

use std::cmp::Ordering;

use bytes::Bytes;

/// Where a span ends: before a key, or (`None`) never.
pub(super) type SpanEnd = Option<Bytes>;

/// Values by span.
pub(super) struct Intervals<T> {
    root: Link<T>,
    made: u64,
}

type Link<T> = Option<Box<Node<T>>>;

struct Node<T> {
    start: Bytes,
    end: SpanEnd,
    value: T,
    priority: u64,
    /// The greatest `end` of this node and all beneath it.
    greatest: SpanEnd,
    left: Link<T>,
    right: Link<T>,
}

impl<T: Copy> Intervals<T> {
    pub(super) fn new() -> Self {
        Self { root: None, made: 0 }
    }

    pub(super) fn find(&self, start: &Bytes, end: &SpanEnd) -> Option<T> {
        let mut link = &self.root;
        while let Some(node) = link {
            link = match order(start, end, node) {
                Ordering::Equal => return Some(node.value),
                Ordering::Less => &node.left,
                Ordering::Greater => &node.right,
            };
        }
        None
    }

    /// Adds a span that is not there.
    pub(super) fn insert(&mut self, start: Bytes, end: SpanEnd, value: T) {
        self.made += 1;
        let (greatest, priority) = (end.clone(), mix(self.made));
        let node =
            Box::new(Node { start, end, value, priority, greatest, left: None, right: None });
        self.root = Some(insert(self.root.take(), node));
    }

    /// Removes a span.
    pub(super) fn remove(&mut self, start: &Bytes, end: &SpanEnd) -> Option<T> {
        let (rest, removed) = remove(self.root.take(), start, end);
        self.root = rest;
        removed
    }

    /// Calls `found` with every span that holds `key`, by ascending (start, end).
    pub(super) fn holding(&self, key: &[u8], found: &mut dyn FnMut(T)) {
        visit(&self.root, key, found);
    }
}

fn visit<T: Copy>(link: &Link<T>, key: &[u8], found: &mut dyn FnMut(T)) {
    let Some(node) = link else { return };
    if !is_before(key, &node.greatest) {
        return;
    }
    visit(&node.left, key, found);
    if node.start.as_ref() <= key {
        if is_before(key, &node.end) {
            found(node.value);
        }
        visit(&node.right, key, found);
    }
}

fn insert<T>(link: Link<T>, new: Box<Node<T>>) -> Box<Node<T>> {
    let Some(mut node) = link else { return new };
    if new.priority > node.priority {
        let mut new = new;
        (new.left, new.right) = split(Some(node), &new.start, &new.end);
        return new.refreshed();
    }
    match order(&new.start, &new.end, &node) {
        Ordering::Less => node.left = Some(insert(node.left.take(), new)),
        Ordering::Greater => node.right = Some(insert(node.right.take(), new)),
        Ordering::Equal => panic!("a span is inserted once"),
    }
    node.refreshed()
}

/// Everything before the span, and everything after it.
fn split<T>(link: Link<T>, start: &Bytes, end: &SpanEnd) -> (Link<T>, Link<T>) {
    let Some(mut node) = link else { return (None, None) };
    if order(start, end, &node) == Ordering::Less {
        let (before, after) = split(node.left.take(), start, end);
        node.left = after;
        (before, Some(node.refreshed()))
    } else {
        let (before, after) = split(node.right.take(), start, end);
        node.right = before;
        (Some(node.refreshed()), after)
    }
}

fn remove<T>(link: Link<T>, start: &Bytes, end: &SpanEnd) -> (Link<T>, Option<T>) {
    let Some(mut node) = link else { return (None, None) };
    let removed;
    match order(start, end, &node) {
        Ordering::Equal => return (merge(node.left, node.right), Some(node.value)),
        Ordering::Less => (node.left, removed) = remove(node.left.take(), start, end),
        Ordering::Greater => (node.right, removed) = remove(node.right.take(), start, end),
    }
    (Some(node.refreshed()), removed)
}

fn merge<T>(before: Link<T>, after: Link<T>) -> Link<T> {
    match (before, after) {
        (None, other) | (other, None) => other,
        (Some(mut a), Some(b)) if a.priority > b.priority => {
            a.right = merge(a.right.take(), Some(b));
            Some(a.refreshed())
        }
        (Some(a), Some(mut b)) => {
            b.left = merge(Some(a), b.left.take());
            Some(b.refreshed())
        }
    }
}

impl<T> Node<T> {
    fn refreshed(mut self: Box<Self>) -> Box<Self> {
        let beneath = [&self.left, &self.right].into_iter().flatten().map(|node| &node.greatest);
        let greatest =
            beneath.fold(&self.end, |a, b| if compare_ends(a, b).is_lt() { b } else { a });
        self.greatest = greatest.clone();
        self
    }
}

fn order<T>(start: &Bytes, end: &SpanEnd, node: &Node<T>) -> Ordering {
    start.cmp(&node.start).then_with(|| compare_ends(end, &node.end))
}

/// "Never" is after every key.
fn compare_ends(a: &SpanEnd, b: &SpanEnd) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.cmp(b),
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
    }
}

fn is_before(key: &[u8], end: &SpanEnd) -> bool {
    end.as_ref().is_none_or(|end| key < end.as_ref())
}

/// Spreads a counter over 64 bits (the finalizer of splitmix64).
fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn key(byte: u8) -> Bytes {
        Bytes::copy_from_slice(&[byte])
    }

    proptest::proptest! {
        /// Random inserts, removals and look-ups agree with a list of spans.
        #[test]
        fn agrees_with_a_list(
            steps in proptest::collection::vec((0u8..20, proptest::option::of(0u8..20), 0u8..3), 1..200),
        ) {
            let mut tree = Intervals::new();
            let mut list: BTreeMap<(u8, Option<u8>), usize> = BTreeMap::new();
            for (at, (start, end, action)) in steps.into_iter().enumerate() {
                let span_end = end.map(key);
                if action == 0 {
                    assert_eq!(tree.remove(&key(start), &span_end), list.remove(&(start, end)));
                } else {
                    list.entry((start, end)).or_insert_with(|| {
                        tree.insert(key(start), span_end.clone(), at);
                        at
                    });
                }
                assert_eq!(tree.find(&key(start), &span_end), list.get(&(start, end)).copied());
                for probe in 0..20 {
                    let mut found = Vec::new();
                    tree.holding(&[probe], &mut |value| found.push(value));
                    found.sort_unstable();
                    let mut expected: Vec<_> = list
                        .iter()
                        .filter(|((s, e), _)| *s <= probe && e.is_none_or(|e| probe < e))
                        .map(|(_, at)| *at)
                        .collect();
                    expected.sort_unstable();
                    assert_eq!(found, expected);
                }
            }
        }
    }

    #[test]
    fn ascending_spans_do_not_make_a_list_of_it() {
        let mut tree = Intervals::new();
        for at in 0..100_000u32 {
            tree.insert(
                Bytes::copy_from_slice(&at.to_be_bytes()),
                Some(Bytes::from_static(b"\xff")),
                at,
            );
        }
        fn depth<T>(link: &Link<T>) -> usize {
            link.as_ref().map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
        }
        assert!(depth(&tree.root) < 60, "depth {}", depth(&tree.root));
    }
}
