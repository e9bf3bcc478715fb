//! Permits for connections that are not served yet: a bounded number, and who gives way when none is
//! left.
//!
//! A stranger opens connections for nothing, so one that does nothing keeps nobody out: when no permit
//! is left, a new connection gets that of the oldest which has not said hello, or else that of the
//! oldest of all once it has had `PATIENCE`. Only when there is neither is the new one refused. Thus
//! silence locks nobody out, and a rush of honest clients is served in order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::throttle::Throttle;

/// Permits of one kind: enough for a failover's clients, and few enough for their memory.
pub const PERMITS_MAX: usize = 4096;
/// How long one that has said hello keeps its permit when new ones come.
const PATIENCE: Duration = Duration::from_secs(4);

/// The permits. Clones share them.
#[derive(Clone)]
pub struct Permits(Arc<Shared>);

struct Shared {
    /// Whose connections they are for, in the log.
    name: &'static str,
    max: usize,
    taken: Mutex<Taken>,
    too_many: Throttle,
}

#[derive(Default)]
struct Taken {
    /// All that exist, with those that were lost and whose holders have yet to notice:
    /// `silent + greeting <= held <= 2 * max`.
    held: usize,
    next: u64,
    /// Those that have not said hello, oldest first.
    silent: BTreeMap<u64, Waiting>,
    /// Those that have.
    greeting: BTreeMap<u64, Waiting>,
}

struct Waiting {
    since: Instant,
    lost: Arc<Notify>,
}

/// A permit, until it is dropped.
pub struct Permit {
    permits: Permits,
    number: u64,
    lost: Arc<Notify>,
}

/// Says that the connection of a permit has begun as it should.
pub struct Hello(Permits, u64);

impl Permits {
    /// `max` permits for connections of the kind `name`.
    pub fn new(name: &'static str, max: usize) -> Self {
        let too_many = Throttle::every(Duration::from_secs(1));
        Self(Arc::new(Shared { name, max, taken: Mutex::default(), too_many }))
    }

    /// How many holders there can be at one time, with those that have lost their permit.
    pub fn holders_max(&self) -> usize {
        2 * self.0.max
    }

    /// A permit for a new connection; none if it is to be closed. Whoever has to go is logged, at
    /// most once a second.
    pub fn take(&self) -> Option<Permit> {
        let (permit, is_crowded) = self.with(|taken| {
            let is_crowded = taken.silent.len() + taken.greeting.len() >= self.0.max;
            let has_room = taken.held < self.holders_max() && (!is_crowded || taken.give_way());
            (has_room.then(|| taken.add()), is_crowded)
        });
        if is_crowded && let Some(more) = self.0.too_many.pass(std::time::Instant::now()) {
            tracing::warn!(
                kind = self.0.name,
                more,
                "a connection was closed before its handshake: too many are under way"
            );
        }
        permit.map(|(number, lost)| Permit { permits: self.clone(), number, lost })
    }

    fn with<T>(&self, change: impl FnOnce(&mut Taken) -> T) -> T {
        change(&mut self.0.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Taken {
    /// Takes the permit of one that has to go, if there is one.
    fn give_way(&mut self) -> bool {
        let oldest = self.silent.pop_first().or_else(|| {
            let first = self.greeting.first_entry()?;
            (first.get().since.elapsed() >= PATIENCE).then(|| first.remove_entry())
        });
        if let Some((_, waiting)) = &oldest {
            waiting.lost.notify_one();
        }
        oldest.is_some()
    }

    fn add(&mut self) -> (u64, Arc<Notify>) {
        let (number, lost) = (self.next, Arc::new(Notify::new()));
        self.next += 1;
        self.held += 1;
        self.silent.insert(number, Waiting { since: Instant::now(), lost: lost.clone() });
        (number, lost)
    }
}

impl Permit {
    /// Runs `job` to its end, or until the permit is lost: then it is dropped, and there is no result.
    pub async fn hold<F: Future>(self, job: impl FnOnce(Hello) -> F) -> Option<F::Output> {
        let job = job(Hello(self.permits.clone(), self.number));
        tokio::select! {
            result = job => Some(result),
            () = self.lost.notified() => None,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.with(|taken| {
            taken.held -= 1;
            taken.silent.remove(&self.number);
            taken.greeting.remove(&self.number);
        });
    }
}

impl Hello {
    /// From now on silent connections go first.
    pub fn said(self) {
        self.0.with(|taken| {
            // One that has lost its permit meanwhile stays lost.
            if let Some(waiting) = taken.silent.remove(&self.1) {
                taken.greeting.insert(self.1, waiting);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn hello(permit: &Permit) {
        Hello(permit.permits.clone(), permit.number).said();
    }

    fn is_lost(permit: Permit) -> bool {
        let mut held = Box::pin(permit.hold(|_| std::future::pending::<()>()));
        held.as_mut().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_silent_one_gives_way_then_the_oldest_that_had_its_time() {
        let permits = Permits::new("test", 3);
        let [greeting, first, second] = [(); 3].map(|()| permits.take().expect("there is room"));
        hello(&greeting);
        let third = permits.take().expect("with the permit of the first");
        assert!(is_lost(first));
        hello(&second);
        hello(&third);
        assert!(permits.take().is_none(), "all have said hello a moment ago");
        tokio::time::advance(PATIENCE).await;
        let fourth = permits.take().expect("with the permit of one that had its time");
        assert!(is_lost(greeting));
        let fifth = permits.take().expect("with the permit of the fourth, which is silent");
        assert!(is_lost(fourth));
        assert!(!is_lost(second) && !is_lost(third) && !is_lost(fifth));
    }

    #[tokio::test]
    async fn holders_that_do_not_notice_are_bounded_and_all_places_come_back() {
        let permits = Permits::new("test", 2);
        let held: Vec<Permit> = std::iter::from_fn(|| permits.take()).take(100).collect();
        assert_eq!(held.len(), permits.holders_max());
        drop(held);
        let [first, second] = [(); 2].map(|()| permits.take().expect("there is room"));
        assert!(!is_lost(first) && !is_lost(second));
        assert_eq!(permits.with(|taken| (taken.held, taken.silent.len())), (0, 0));
    }
}
