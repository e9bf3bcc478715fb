//! Tokens that tell of something that this member has not applied yet.
//!
//! Another member may have given one out a moment ago; anybody can make one up. So this member asks
//! once what there is to apply, together with everyone else who asks, and what is still ahead of it
//! then is made up. Only so many calls wait: who shows a good token is not held up by those who do
//! not.

use tokio::sync::Semaphore;

use crate::services::Services;
use crate::status::Error;

/// Calls of one connection runtime that wait.
const WAITING_MAX: usize = 256;

/// The places of those who wait.
pub struct Behind(Semaphore);

impl Default for Behind {
    fn default() -> Self {
        Self(Semaphore::new(WAITING_MAX))
    }
}

/// Returns once `is_known` holds; an error if it is not so even after everything has been applied
/// that there was at the call.
pub(super) async fn catch_up(
    services: &Services,
    is_known: impl Fn(&Services) -> bool,
) -> Result<(), Error> {
    if is_known(services) {
        return Ok(());
    }
    let _place = services.waiting.behind.0.try_acquire().map_err(|_| Error::TooManyRequests)?;
    services.port.read_barrier().await?;
    if is_known(services) { Ok(()) } else { Err(Error::InvalidAuthToken) }
}
