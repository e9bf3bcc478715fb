//! What a watcher looks at: one key, or a span of keys.
//!
//! Built from a request's key and range end by the field's rules; an empty span cannot be built.

use bytes::Bytes;

/// A set of keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WatchedRange {
    /// One key.
    Key(Bytes),
    /// Every key from `start` to before `end`; without an end, to the last.
    Span { start: Bytes, end: Option<Bytes> },
}

impl WatchedRange {
    /// The range that a request names, or `None` if it is empty.
    pub(super) fn new(key: &Bytes, range_end: &Bytes) -> Option<Self> {
        let start = if key.is_empty() { Bytes::from_static(b"\0") } else { key.clone() };
        match range_end.as_ref() {
            b"" => Some(Self::Key(start)),
            b"\0" => Some(Self::Span { start, end: None }),
            end if start.as_ref() < end => Some(Self::Span { start, end: Some(range_end.clone()) }),
            _ => None,
        }
    }

    /// Whether `key` is one of them.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(own) => own == key,
            Self::Span { start, end } => {
                start.as_ref() <= key && end.as_ref().is_none_or(|end| key < end.as_ref())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &'static str, end: &'static str) -> Option<WatchedRange> {
        WatchedRange::new(&Bytes::from_static(key.as_bytes()), &Bytes::from_static(end.as_bytes()))
    }

    #[test]
    fn ranges_follow_the_rules_of_requests() {
        // key, end, then: is it a range at all, and does it hold "a", "b", "bb", "c"?
        let table = [
            ("b", "", Some("b")),
            ("", "", Some("")),
            ("b", "c", Some("b bb")),
            ("b", "\0", Some("b bb c")),
            ("", "\0", Some("a b bb c")),
            ("b", "b", None),
            ("c", "b", None),
        ];
        for (key, end, expected) in table {
            let held = range(key, end).map(|range| {
                let keys = ["a", "b", "bb", "c"];
                let held: Vec<_> =
                    keys.into_iter().filter(|key| range.contains(key.as_bytes())).collect();
                held.join(" ")
            });
            assert_eq!(held.as_deref(), expected, "{key:?} to {end:?}");
        }
    }
}
