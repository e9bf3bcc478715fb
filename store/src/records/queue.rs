//! A queue that never moves what is in it.
//!
//! A `VecDeque` that grows copies all it holds: for a million records that takes 50 ms, under a
//! lock that readers wait for. Here a push costs one small allocation at worst, and what leaves at
//! the front gives its room back.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

/// Elements of one chunk.
const CHUNK: usize = 128;

/// Elements in order of their arrival, in chunks that are as long as they will be from the start.
pub(super) struct Queue<T> {
    /// Of [`CHUNK`] elements each, but for those `skipped` in the first and those to come in the
    /// last.
    chunks: VecDeque<VecDeque<T>>,
    /// How many elements have left the first chunk: less than [`CHUNK`].
    skipped: usize,
    len: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), skipped: 0, len: 0 }
    }
}

impl<T> Queue<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push_back(&mut self, element: T) {
        if (self.skipped + self.len).is_multiple_of(CHUNK) {
            self.chunks.push_back(VecDeque::with_capacity(CHUNK));
        }
        self.chunks.back_mut().expect("there is one with room").push_back(element);
        self.len += 1;
    }

    pub(super) fn back(&self) -> Option<&T> {
        self.chunks.back()?.back()
    }

    /// The elements from the one at `start <= len` on.
    pub(super) fn iter_from(&self, start: usize) -> impl Iterator<Item = &T> {
        assert!(start <= self.len, "{start} of {}", self.len);
        let (chunk, within) = self.place(start);
        let first = self.chunks.get(chunk).map(|elements| elements.range(within..));
        first.into_iter().flatten().chain(self.chunks.iter().skip(chunk + 1).flatten())
    }

    /// Of elements that are parted by `is_before`, the index of the first that is not.
    pub(super) fn partition_point(&self, is_before: impl Fn(&T) -> bool) -> usize {
        let chunk = self.chunks.partition_point(|chunk| chunk.back().is_none_or(&is_before));
        match self.chunks.get(chunk) {
            Some(elements) => {
                let skipped = if chunk == 0 { 0 } else { self.skipped };
                chunk * CHUNK - skipped + elements.partition_point(is_before)
            }
            None => self.len,
        }
    }

    /// Takes the first `count <= len` elements out, and gives them to `take`.
    pub(super) fn remove_front(&mut self, count: usize, mut take: impl FnMut(T)) {
        assert!(count <= self.len, "{count} of {}", self.len);
        let mut left = count;
        while left > 0 {
            let chunk = self.chunks.front_mut().expect("there is one with elements");
            let here = left.min(chunk.len());
            chunk.drain(..here).for_each(&mut take);
            left -= here;
            self.len -= here;
            self.skipped += here;
            if self.skipped == CHUNK {
                self.chunks.pop_front();
                self.skipped = 0;
            }
        }
    }

    /// In which chunk an element is, and where in it.
    fn place(&self, index: usize) -> (usize, usize) {
        let place = self.skipped + index;
        let gone = if place < CHUNK { self.skipped } else { 0 };
        (place / CHUNK, place % CHUNK - gone)
    }
}

impl<T> Index<usize> for Queue<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        let (chunk, within) = self.place(index);
        &self.chunks[chunk][within]
    }
}

impl<T> IndexMut<usize> for Queue<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        let (chunk, within) = self.place(index);
        &mut self.chunks[chunk][within]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(queue: &Queue<u64>, naive: &VecDeque<u64>) {
        assert_eq!(queue.len(), naive.len());
        assert_eq!(queue.back(), naive.back());
        let first = naive.front().copied().unwrap_or_default();
        for at in [0, 1, 254, 255, 256, 257, naive.len() / 2, naive.len().saturating_sub(1)] {
            if at < naive.len() {
                assert_eq!(queue[at], naive[at]);
            }
            if at <= naive.len() {
                assert!(queue.iter_from(at).eq(naive.range(at..)));
            }
            let bound = first + at as u64;
            let expected = naive.partition_point(|element| *element < bound);
            assert_eq!(queue.partition_point(|element| *element < bound), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_is_as_a_deque(steps in prop::collection::vec((0_u64..700, 0_usize..700), 1..12)) {
            let (mut queue, mut naive) = (Queue::default(), VecDeque::new());
            let mut next = 0;
            for (pushed, removed) in steps {
                for element in next..next + pushed {
                    queue.push_back(element);
                    naive.push_back(element);
                }
                next += pushed;
                check(&queue, &naive);
                let removed = removed.min(naive.len());
                let mut gone = Vec::new();
                queue.remove_front(removed, |element| gone.push(element));
                prop_assert!(gone.into_iter().eq(naive.drain(..removed)));
                check(&queue, &naive);
            }
        }
    }

    #[test]
    fn nothing_is_moved_by_what_follows() {
        let mut queue = Queue::default();
        queue.push_back(0);
        let place = &raw const queue[0];
        (1..100 * CHUNK).for_each(|element| queue.push_back(element));
        assert_eq!(place, &raw const queue[0]);
    }

    #[test]
    fn an_emptied_queue_holds_at_most_a_chunk() {
        let mut queue = Queue::default();
        (0..10 * CHUNK + 3).for_each(|element| queue.push_back(element));
        queue.remove_front(queue.len(), drop);
        assert!(queue.chunks.len() <= 1, "{} chunks", queue.chunks.len());
    }
}
