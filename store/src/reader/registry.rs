//! Who reads at which revision, so that compaction leaves it alone.
//!
//! A registration protects what is visible at its revision from [`Registry::sweep_target`] on. It
//! ends when it is dropped, or by force: when it is too old, or pins too much. Its holder must ask
//! [`Registration::holds`] under the index lock before it trusts what the index says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::Rejected;

/// After so long a registration ends.
const AGE_MILLISECONDS_MAX: u64 = 60_000;

/// All registrations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    readers: Arc<Mutex<Readers>>,
}

#[derive(Debug)]
struct Readers {
    /// By revision and number.
    registered: BTreeMap<(i64, u64), Entry>,
    next: u64,
    now_milliseconds: u64,
    /// Nothing below it may be registered: it may be swept already.
    floor: i64,
}

#[derive(Debug)]
struct Entry {
    since_milliseconds: u64,
    ended: Arc<AtomicBool>,
}

impl Default for Readers {
    fn default() -> Self {
        Self { registered: BTreeMap::new(), next: 0, now_milliseconds: 0, floor: -1 }
    }
}

/// One reader's hold on a revision.
#[derive(Debug)]
pub(crate) struct Registration {
    registry: Registry,
    id: (i64, u64),
    ended: Arc<AtomicBool>,
}

impl Registry {
    /// Protects what is visible at `revision`, unless it may be gone already.
    pub(crate) fn register(&self, revision: i64) -> Result<Registration, Rejected> {
        let ended = Arc::new(AtomicBool::new(false));
        let mut readers = self.lock();
        if revision < readers.floor {
            return Err(Rejected::Compacted);
        }
        let id = (revision, readers.next);
        readers.next += 1;
        let since_milliseconds = readers.now_milliseconds;
        readers.registered.insert(id, Entry { since_milliseconds, ended: ended.clone() });
        drop(readers);
        Ok(Registration { registry: self.clone(), id, ended })
    }

    /// How far a sweep of the compaction to `compacted` may go; from now on nothing below that can
    /// be registered.
    pub(crate) fn sweep_target(&self, compacted: i64) -> i64 {
        let mut readers = self.lock();
        let smallest = readers.registered.first_key_value().map(|((revision, _), _)| *revision);
        let target = smallest.map_or(compacted, |smallest| smallest.min(compacted));
        readers.floor = readers.floor.max(target);
        target
    }

    /// Whether anyone is registered below `revision`.
    pub(crate) fn is_held_below(&self, revision: i64) -> bool {
        let readers = self.lock();
        readers.registered.first_key_value().is_some_and(|((held, _), _)| *held < revision)
    }

    /// Ends every registration below `revision`.
    pub(crate) fn end_below(&self, revision: i64) {
        self.lock().registered.retain(|(held, _), entry| {
            let stays = *held >= revision;
            entry.ended.store(!stays, Ordering::Release);
            stays
        });
    }

    /// Says what time it is, and ends what is too old.
    pub(crate) fn tick(&self, now_milliseconds: u64) {
        let mut readers = self.lock();
        readers.now_milliseconds = now_milliseconds;
        readers.registered.retain(|_, entry| {
            let age = now_milliseconds.saturating_sub(entry.since_milliseconds);
            let stays = age <= AGE_MILLISECONDS_MAX;
            entry.ended.store(!stays, Ordering::Release);
            stays
        });
    }

    fn lock(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().expect("a panic under a store lock ends the process")
    }
}

impl Registration {
    /// Fails once the registration has ended by force.
    pub(crate) fn holds(&self) -> Result<(), Rejected> {
        if self.ended.load(Ordering::Acquire) { Err(Rejected::Compacted) } else { Ok(()) }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.lock().registered.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_registration_bounds_the_sweep() {
        let registry = Registry::default();
        let five = registry.register(5).unwrap();
        let nine = registry.register(9).unwrap();
        assert_eq!(registry.sweep_target(7), 5);
        assert!(registry.register(4).is_err());
        assert!(registry.is_held_below(7));
        drop(five);
        assert_eq!(registry.sweep_target(7), 7);
        assert_eq!(registry.sweep_target(20), 9);
        registry.end_below(20);
        assert_eq!(nine.holds(), Err(Rejected::Compacted));
        assert_eq!(registry.sweep_target(20), 20);
    }

    #[test]
    fn old_registrations_end() {
        let registry = Registry::default();
        registry.tick(1_000);
        let old = registry.register(5).unwrap();
        registry.tick(60_000);
        let young = registry.register(5).unwrap();
        assert!(old.holds().is_ok());
        registry.tick(61_001);
        assert!(old.holds().is_err());
        assert!(young.holds().is_ok());
    }
}
