//! Whose passwords are being looked at.
//!
//! A user has so many threads' worth of work in the queue of passwords and no more; further attempts
//! wait here, for their own kind. So a client that tries one user's password over and over, or a
//! fleet of clients that all begin at once, keeps nobody else out. All users that do not exist count
//! as one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::status::Error;

/// Attempts at one user that are in the queue of one connection runtime.
const OF_USER_MAX: usize = 8;
/// Attempts at all users that may wait.
const WAITING_MAX: usize = 1024;
/// How long an attempt waits.
const PATIENCE: Duration = Duration::from_secs(5);

type Turns = BTreeMap<String, Arc<Semaphore>>;

/// The attempts of one connection runtime.
pub struct Attempts {
    places: Semaphore,
    /// Of users with attempts under way.
    users: Mutex<Turns>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { places: Semaphore::new(WAITING_MAX), users: Mutex::default() }
    }
}

impl Attempts {
    /// Does `work`, an attempt at `user`, when it is its turn.
    pub(super) async fn take_turn<T>(
        &self,
        user: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let _place = self.places.try_acquire().map_err(|_| Error::TooManyRequests)?;
        let attempt = Attempt::begin(self, user);
        let turn = tokio::time::timeout(PATIENCE, attempt.turns.acquire());
        let _turn = turn.await.map_err(|_| Error::TooManyRequests)?;
        work.await
    }

    fn users(&self) -> MutexGuard<'_, Turns> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a user after the last attempt.
struct Attempt<'a> {
    attempts: &'a Attempts,
    user: &'a str,
    turns: Arc<Semaphore>,
}

impl<'a> Attempt<'a> {
    fn begin(attempts: &'a Attempts, user: &'a str) -> Self {
        let mut users = attempts.users();
        let turns = match users.get(user) {
            Some(turns) => turns.clone(),
            None => {
                let turns = Arc::new(Semaphore::new(OF_USER_MAX));
                users.insert(user.to_owned(), turns.clone());
                turns
            }
        };
        drop(users);
        Self { attempts, user, turns }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut users = self.attempts.users();
        // The map's and this one's: they are cloned only under the lock.
        if Arc::strong_count(&self.turns) == 2 {
            users.remove(self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    async fn never() -> Result<(), Error> {
        std::future::pending().await
    }

    #[tokio::test(start_paused = true)]
    async fn one_user_does_not_keep_others_out() {
        let attempts = Attempts::default();
        let mut anns: Vec<_> =
            (0..OF_USER_MAX).map(|_| Box::pin(attempts.take_turn("ann", never()))).collect();
        for ann in &mut anns {
            assert!(poll!(ann).is_pending());
        }
        assert_eq!(attempts.take_turn("bob", async { Ok(7) }).await, Ok(7));
        let refused = attempts.take_turn("ann", async { Ok(7) }).await;
        assert_eq!(refused, Err(Error::TooManyRequests), "none of the others ended");
        let mut waiting = Box::pin(attempts.take_turn("ann", async { Ok(8) }));
        assert!(poll!(&mut waiting).is_pending());
        anns.pop();
        assert_eq!(waiting.await, Ok(8));
        anns.clear();
        assert!(attempts.users().is_empty(), "nobody is kept in mind");
    }

    #[tokio::test]
    async fn only_so_many_wait() {
        let attempts = Attempts::default();
        let mut waiting = Vec::new();
        for number in 0..WAITING_MAX {
            let name: &str = if number % 2 == 0 { "ann" } else { "bob" };
            let mut attempt = Box::pin(attempts.take_turn(name, never()));
            assert!(poll!(&mut attempt).is_pending());
            waiting.push(attempt);
        }
        let refused = attempts.take_turn("eve", async { Ok(()) }).await;
        assert_eq!(refused, Err(Error::TooManyRequests));
    }
}
