//! Sets of keys, as disjoint intervals in order.
//!
//! Neighbours that touch are one interval: who may read `[a, b)` and `[b, c)` may read `[a, c)`.

use bytes::Bytes;

/// Where an interval ends: before a key, or never.
type End = Option<Bytes>;

/// Intervals that neither overlap nor touch, in order; none is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Intervals(Vec<(Bytes, End)>);

impl Intervals {
    /// The union of ranges in etcd's notation: `range_end` empty for one key, `\0` for all from the
    /// key on.
    pub(super) fn of(ranges: Vec<(&Bytes, &Bytes)>) -> Self {
        let mut sorted: Vec<_> =
            ranges.into_iter().map(|(key, range_end)| (key.clone(), end(key, range_end))).collect();
        sorted.retain(|(start, end)| is_before(start, end));
        sorted.sort();
        let mut union: Vec<(Bytes, End)> = Vec::new();
        for (start, end) in sorted {
            match union.last_mut() {
                Some((_, last)) if last.as_ref().is_none_or(|last| *last >= start) => {
                    if last.is_some() && (end.is_none() || *last < end) {
                        *last = end;
                    }
                }
                _ => union.push((start, end)),
            }
        }
        Self(union)
    }

    /// Whether every key of a range, in the same notation, is in the set. A range that ends before
    /// it begins holds no key; as in etcd it must lie within one interval, end first.
    pub(super) fn covers(&self, key: &[u8], range_end: &[u8]) -> bool {
        let upside_down = !range_end.is_empty() && range_end != [0] && range_end <= key;
        let start = if upside_down { range_end } else { key };
        let after = self.0.partition_point(|(begin, _)| begin.as_ref() <= start);
        let Some((_, end)) = after.checked_sub(1).map(|at| &self.0[at]) else { return false };
        let Some(end) = end else { return true };
        match range_end {
            [] => key < end.as_ref(),
            [0] => false,
            _ if upside_down => key < end.as_ref(),
            _ => range_end <= end.as_ref(),
        }
    }
}

fn end(key: &Bytes, range_end: &Bytes) -> End {
    match range_end.as_ref() {
        [] => Some([key.as_ref(), &[0]].concat().into()),
        [0] => None,
        _ => Some(range_end.clone()),
    }
}

fn is_before(start: &Bytes, end: &End) -> bool {
    end.as_ref().is_none_or(|end| start < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(ranges: &[(&'static str, &'static str)]) -> Intervals {
        let ranges: Vec<(Bytes, Bytes)> =
            ranges.iter().map(|(key, end)| (Bytes::from(*key), Bytes::from(*end))).collect();
        Intervals::of(ranges.iter().map(|(key, end)| (key, end)).collect())
    }

    #[test]
    fn what_touches_is_one() {
        let set = intervals(&[("c", "d"), ("a", "b"), ("b", "c"), ("x", ""), ("x\0", "y")]);
        assert_eq!(set.0.len(), 2, "{set:?}");
        assert!(set.covers(b"a", b"d") && set.covers(b"b", b"") && set.covers(b"x", b"xx"));
        assert!(!set.covers(b"a", b"d\0") && !set.covers(b"d", b"") && !set.covers(b"a", b"\0"));
    }

    #[test]
    fn a_longer_range_swallows_shorter_ones_and_an_open_one_everything_after_it() {
        let set = intervals(&[("a", "z"), ("b", "c"), ("m", "\0"), ("n", "o")]);
        assert_eq!(set.0, [(Bytes::from("a"), None)]);
        assert!(set.covers(b"a", b"\0") && set.covers(b"zz", b"") && !set.covers(b"A", b""));
    }

    #[test]
    fn one_key_is_not_the_range_from_it_on() {
        let set = intervals(&[("k", "")]);
        assert!(set.covers(b"k", b"") && set.covers(b"k", b"k\0"));
        for range_end in ["\0", "k\0\0", "l", "z"] {
            assert!(!set.covers(b"k", range_end.as_bytes()), "{range_end:?}");
        }
    }

    #[test]
    fn a_permission_without_keys_allows_nothing() {
        assert_eq!(intervals(&[("b", "a"), ("c", "c")]), Intervals::default());
    }
}
