//! A member whose disk has stalled: a leader hands over, and any member refuses proposals in the end.
//!
//! Its log still grows in memory and its followers still answer, so nobody else would notice; but
//! each of its own acknowledgements waits for a disk that may never come back. The log itself stops
//! taking entries at a bound in bytes ([`crate::wal::limits::UNFLUSHED_BYTES_MAX`]).

use std::sync::Arc;
use std::time::Duration;

use crate::desk::MemberDesk;
use crate::limits::DISK_STALLED;
use crate::log::Log;
use crate::shared::Shared;
use crate::wal::Unflushed;

/// Looks at the disk every so often, until the node stops and drops it.
pub(crate) async fn watch_disk(
    shared: Arc<Shared>,
    members: MemberDesk,
    log: Log,
    patience: Duration,
) {
    loop {
        tokio::time::sleep(patience / 2).await;
        let unflushed = log.unflushed();
        shared.status.set_disk_stalled(lags(unflushed, DISK_STALLED));
        if !lags(unflushed, patience) {
            continue;
        }
        let (bytes, age) = (unflushed.bytes, unflushed.age);
        if !shared.status.snapshot().is_leader {
            tracing::warn!(bytes, ?age, "the log's disk has stalled");
            continue;
        }
        tracing::warn!(bytes, ?age, "handing over: the disk stalls");
        members.hand_over(None, patience).await;
    }
}

/// Whether the oldest unflushed byte has waited for so long.
fn lags(unflushed: Unflushed, patience: Duration) -> bool {
    unflushed.bytes > 0 && unflushed.age >= patience
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_lags_while_its_oldest_byte_is_old() {
        let after = |bytes, seconds| {
            lags(Unflushed { bytes, age: Duration::from_secs(seconds) }, DISK_STALLED)
        };
        assert!(!after(1, 9));
        assert!(after(1, 10));
        assert!(!after(0, 10), "nothing waits");
    }
}
