//! A connection that HTTP lets go of, and who goes on with it.
//!
//! Whoever answers a request with a switch of protocols leaves here what is to be done afterwards. It
//! is done in the place of the connection: it counts as one, and ends with its runtime.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;

/// What follows a connection; clones share it. Empty unless a request asked for a switch.
#[derive(Clone, Default)]
pub struct Takeover(Arc<Mutex<Option<BoxFuture<'static, ()>>>>);

impl Takeover {
    /// Leaves what is to be done once HTTP has let go of the connection.
    pub fn put(&self, work: impl Future<Output = ()> + Send + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::pin(work));
    }

    /// What is to be done, if anything was left.
    pub fn take(&self) -> Option<BoxFuture<'static, ()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
