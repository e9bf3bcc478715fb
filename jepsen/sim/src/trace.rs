//! The fingerprint of a run: everything that was observed, in order.

use std::cell::Cell;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Takes what happens, and hashes it. `DefaultHasher::new` has fixed keys, so hashes compare
/// between processes of one build.
#[derive(Default)]
pub struct Trace {
    hash: Cell<u64>,
    verbose: bool,
}

impl Trace {
    /// An empty trace that also prints, if `verbose`.
    pub fn new(verbose: bool) -> Self {
        Self { hash: Cell::new(0), verbose }
    }

    /// Takes one happening.
    pub fn note(&self, what: fmt::Arguments<'_>) {
        let mut hasher = DefaultHasher::new();
        self.hash.get().hash(&mut hasher);
        let text = what.to_string();
        text.hash(&mut hasher);
        self.hash.set(hasher.finish());
        if self.verbose {
            println!("{text}");
        }
    }

    /// The fingerprint of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash.get()
    }
}
