//! Where things stand in time: store revisions and log positions.

use std::fmt;

/// One change: the store revision of its transaction, and its place within that transaction.
///
/// Ordered first by `main`, then by `sub`. A fresh store is at main revision 1 and holds no
/// records; the first write makes revision 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The store revision; one per transaction that changed something.
    pub main: i64,
    /// The index of the change within its transaction, from 0.
    pub sub: i64,
}

impl Revision {
    /// The revision of change `sub` of transaction `main`.
    pub const fn new(main: i64, sub: i64) -> Self {
        Self { main, sub }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.main, self.sub)
    }
}

/// A place in the replicated log. The store keeps it, and reads nothing into it but its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The term in which the entry was proposed.
    pub term: u64,
    /// The entry's index.
    pub index: u64,
}
