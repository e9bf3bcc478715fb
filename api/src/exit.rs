//! Why the server ends, known once.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use holdfast_store::Fatal;

/// Why the server ended.
#[derive(Clone, Debug)]
pub enum Exit {
    /// It was asked to.
    Stopped,
    /// This member cannot go on as a replica.
    Fatal(Fatal),
}

/// Where the reason is put, by whoever is first.
#[derive(Default)]
pub struct ExitCell {
    reason: Mutex<Option<Exit>>,
    changed: Condvar,
}

impl ExitCell {
    fn lock(&self) -> MutexGuard<'_, Option<Exit>> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a reason; a fatal one outranks a request to stop, and the first of a kind stands.
    pub fn set(&self, exit: Exit) {
        let mut reason = self.lock();
        if matches!((&*reason, &exit), (None, _) | (Some(Exit::Stopped), Exit::Fatal(_))) {
            *reason = Some(exit);
        }
        self.changed.notify_all();
    }

    /// Blocks until there is a reason.
    pub fn wait(&self) -> Exit {
        let mut reason = self.lock();
        loop {
            if let Some(exit) = &*reason {
                return exit.clone();
            }
            reason = self.changed.wait(reason).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fatal_reason_outranks_a_request() {
        let cell = ExitCell::default();
        cell.set(Exit::Stopped);
        cell.set(Exit::Fatal(Fatal::new("first")));
        cell.set(Exit::Fatal(Fatal::new("second")));
        cell.set(Exit::Stopped);
        assert!(matches!(cell.wait(), Exit::Fatal(fatal) if fatal.what == "first"));
    }
}
