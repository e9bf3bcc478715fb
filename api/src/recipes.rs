//! Locks and elections for clients without a library: the services `v3lockpb.Lock` and
//! `v3electionpb.Election`.
//!
//! They do nothing that a client could not do with leases, keys and watches, and they keep nothing in
//! memory: keys and errors are those of etcd's `concurrency` package, so that a library on one
//! client and this service on another queue up together. Whoever waits here and goes away leaves the
//! queue.

pub mod election;
mod follow;
pub mod lock;
mod observe;
mod queue;
mod read;

pub use observe::observe;

use std::ops::Deref;
use std::sync::Arc;

use crate::auth::Caller;
use crate::leader::Raised;
use crate::services::Services;
use crate::status::Error;

/// A client of this member's other services, in the name of whoever called. Watches are not judged
/// by themselves: what is watched here has just been read in that name.
#[derive(Clone)]
pub struct Client {
    services: Arc<Services>,
    caller: Caller,
}

impl Client {
    /// In the name of `caller`.
    pub fn new(services: Arc<Services>, caller: Caller) -> Self {
        Self { services, caller }
    }
}

impl Deref for Client {
    type Target = Arc<Services>;

    fn deref(&self) -> &Arc<Services> {
        &self.services
    }
}

/// What a client is told of an error: etcd's recipes are clients of its other services, and what a
/// client is refused with has a text but no code any more.
pub async fn as_from_a_client<T>(
    outcome: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    outcome.await.map_err(|error| match error {
        Error::Stopped | Error::Other(..) => error,
        error => Error::unknown(error.text().to_owned()),
    })
}

/// The outcome of a wait, unless the server stops first.
async fn unless_stopped<T>(
    services: &Services,
    wait: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let mut stopping: Raised = services.stopping();
    tokio::select! {
        outcome = wait => outcome,
        () = std::future::poll_fn(|context| stopping.poll(context)) => Err(Error::Stopped),
    }
}
