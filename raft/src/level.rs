//! Raising the semantics level, once every member can apply what it allows.
//!
//! Each member publishes the highest level it knows, and the leader alone proposes: the level rises
//! by a committed entry, so that every member changes its ways at the same place in the log.

use std::sync::Arc;
use std::time::Duration;

use holdfast_store::command::{Change, Command, LEVEL_CURRENT, MemberAttributes, RaiseLevel};

use crate::port::Port;
use crate::shared::Shared;

/// How often the leader looks.
const LOOK: Duration = Duration::from_secs(10);

/// Proposes a higher level when there is one, until the node stops and drops it.
pub(crate) async fn raise_level(shared: Arc<Shared>, port: Port) {
    loop {
        tokio::time::sleep(LOOK).await;
        if !shared.status.snapshot().is_leader {
            continue;
        }
        let membership = shared.membership();
        let members = membership.nodes().map(|(member, _)| *member);
        let Some(level) = common_level(members, &shared.reader.members()) else { continue };
        if level <= shared.level() {
            continue;
        }
        tracing::info!(level, "every member knows a higher semantics level; raising it");
        let change = Change::RaiseLevel(RaiseLevel { level });
        if let Err(error) = port.propose(Command::from(change)).await {
            tracing::warn!(level, %error, "the semantics level is not raised yet");
        }
    }
}

/// The highest level that this program and all `members` know; none while one has not said.
fn common_level(members: impl Iterator<Item = u64>, published: &[MemberAttributes]) -> Option<u32> {
    let mut common = LEVEL_CURRENT;
    for member in members {
        let attributes = published.iter().find(|attributes| attributes.member == member)?;
        common = common.min(attributes.level_max);
    }
    Some(common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_what_every_member_of_now_has_published() {
        let published = |member, level_max| MemberAttributes {
            member,
            level_max,
            ..MemberAttributes::default()
        };
        let all = [published(1, LEVEL_CURRENT + 1), published(2, LEVEL_CURRENT), published(3, 0)];
        assert_eq!(common_level([1].into_iter(), &all), Some(LEVEL_CURRENT), "what this one knows");
        assert_eq!(common_level([1, 2].into_iter(), &all), Some(LEVEL_CURRENT));
        assert_eq!(common_level([1, 3].into_iter(), &all), Some(0), "the lowest");
        assert_eq!(common_level([1, 4].into_iter(), &all), None, "one has not published");
    }
}
