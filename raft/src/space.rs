//! Alarms about space: who raises and clears them.
//!
//! The watchman raises NOSPACE for this member when its file system falls below its reserve
//! (`room.rs`), and clears what members have raised for themselves once there has been room for ten
//! seconds, or once they have been lost for a minute: a full disk stops the others only while its
//! member is there. It also sets the byte quota: what exceeds it is decided by the state.

use std::sync::Arc;
use std::time::Duration;

use holdfast_store::command::{Change, ClearAlarm, Command, RaiseAlarm, SetQuota};
use holdfast_store::{Alarm, AlarmCause, AlarmKind};
use tokio::time::Instant;

use crate::peer::Peers;
use crate::port::Port;
use crate::room::Room;
use crate::shared::Shared;

/// How often the watchman looks, unless there is news.
const LOOK: Duration = Duration::from_secs(1);
/// How soon a leader tries again to set the quota, at first.
const RETRY: Duration = Duration::from_millis(50);
/// How long there must have been room before an alarm that a member raised for itself is cleared.
const CALM: Duration = Duration::from_secs(10);
/// After how long without an answer a member's own alarm does not count any more. It raises it again
/// when it is back and still has no room.
const LOST: Duration = Duration::from_secs(60);
/// How often a member without room has something committed: a second checkpoint, which lets go of
/// what the first one gave up, needs a later entry.
const NUDGE: Duration = Duration::from_secs(3);

/// How long an alarm waits to be proposed again after it may have been raised, at first; at most it is
/// [`UNSEEN_MAX`].
const UNSEEN: Duration = Duration::from_secs(5);
const UNSEEN_MAX: Duration = Duration::from_secs(320);

/// When to propose again what may have taken effect. A member that lags does not see it before it has
/// caught up, however long that takes, and every attempt is one more entry in everybody's log.
#[derive(Default)]
struct Backoff {
    not_before: Option<Instant>,
    pause: Duration,
}

impl Backoff {
    fn is_over(&self) -> bool {
        self.not_before.is_none_or(|moment| Instant::now() >= moment)
    }

    /// The outcome of one more attempt is not known.
    fn lengthen(&mut self) {
        self.pause = (2 * self.pause).clamp(UNSEEN, UNSEEN_MAX);
        self.not_before = Some(Instant::now() + self.pause);
    }
}

/// Since when something has been so, without a break.
#[derive(Default)]
struct Since(Option<Instant>);

impl Since {
    /// Whether it has been so for [`CALM`].
    fn is_long(&mut self, is_so: bool) -> bool {
        if !is_so {
            self.0 = None;
            return false;
        }
        self.0.get_or_insert_with(Instant::now).elapsed() >= CALM
    }
}

/// Logs those that are not among the others; what raised them is not asked.
fn tell_of(alarms: &[Alarm], others: &[Alarm], news: &'static str) {
    let is_among_others = |alarm: &&Alarm| {
        others.iter().any(|other| (other.kind, other.member) == (alarm.kind, alarm.member))
    };
    for alarm in alarms.iter().filter(|alarm| !is_among_others(alarm)) {
        let from = format_args!("{:x}", alarm.member);
        tracing::warn!(alarm = alarm.kind.name(), from, "{news}");
    }
}

/// Raises and clears alarms about space, in the name of this member and, if it leads, of all.
pub(crate) struct Watchman {
    shared: Arc<Shared>,
    port: Port,
    peers: Arc<Peers>,
    /// `--quota-backend-bytes`; 0 for no limit.
    quota_bytes: u64,
    known: Vec<Alarm>,
    roomy: Since,
    below_quota: Since,
    /// Since when this member leads; whom it did not lead it did not call.
    led: Option<Instant>,
    raising: Backoff,
    nudged: Instant,
    /// The pause after an attempt to set the quota.
    retry: Duration,
}

impl Watchman {
    pub(crate) fn new(
        shared: Arc<Shared>,
        port: Port,
        peers: Arc<Peers>,
        quota: Option<u64>,
    ) -> Self {
        Self {
            known: shared.reader.alarms(),
            shared,
            port,
            peers,
            quota_bytes: quota.unwrap_or(0),
            roomy: Since::default(),
            below_quota: Since::default(),
            led: None,
            raising: Backoff::default(),
            nudged: Instant::now(),
            retry: RETRY,
        }
    }

    /// Runs until the node stops and drops it.
    pub(crate) async fn run(mut self) {
        let mut room = self.shared.gauge.changes();
        let mut leadership = self.shared.status.leadership();
        loop {
            let pause = self.pause();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Ok(()) = room.changed() => {}
                Ok(()) = leadership.changed() => {}
            }
            self.tell();
            self.look_at_disk().await;
            let status = self.shared.status.snapshot();
            // Until an entry of its own term is applied, a leader does not know what is in force.
            if status.is_leader && self.shared.reader.applied().term == status.term {
                self.led.get_or_insert_with(Instant::now);
                self.look_at_quota().await;
                self.forget_the_gone().await;
            } else {
                self.below_quota = Since::default();
                self.led = None;
            }
        }
    }

    /// Until the next look. Only a leader can do something about a quota that is not set.
    fn pause(&mut self) -> Duration {
        let is_set = self.shared.reader.quota().bytes == self.quota_bytes;
        if is_set || !self.shared.status.snapshot().is_leader {
            self.retry = RETRY;
            return LOOK;
        }
        let pause = self.retry;
        self.retry = LOOK.min(2 * self.retry);
        pause
    }

    /// Says in the log which alarms have come and gone.
    fn tell(&mut self) {
        let alarms = self.shared.reader.alarms();
        tell_of(&alarms, &self.known, "alarm raised");
        tell_of(&self.known, &alarms, "alarm disarmed");
        self.known = alarms;
    }

    async fn look_at_disk(&mut self) {
        let me = self.shared.identity.member_id;
        let is_raised = self.is_raised(me, AlarmCause::Disk);
        let room = self.shared.gauge.room();
        let is_calm = self.roomy.is_long(is_raised && room >= Room::Enough);
        if is_raised {
            self.raising = Backoff::default();
        }
        match is_raised {
            false if room <= Room::Short && self.raising.is_over() => {
                tracing::warn!("the file system is below its reserve; refusing writes");
                if !self.raise(me, AlarmCause::Disk).await {
                    self.raising.lengthen();
                }
            }
            true if is_calm => self.clear(me, AlarmCause::Disk).await,
            true if self.shared.gauge.wants_entry() && self.nudged.elapsed() >= NUDGE => {
                self.nudged = Instant::now();
                self.propose(None).await;
            }
            _ => {}
        }
    }

    async fn look_at_quota(&mut self) {
        let me = self.shared.identity.member_id;
        let quota = self.shared.reader.quota();
        let is_known = self.is_member(quota.member) || self.quota_bytes == 0;
        if quota.bytes != self.quota_bytes || !is_known {
            let set = SetQuota { bytes: self.quota_bytes, member: me };
            self.propose(Some(Change::SetQuota(set))).await;
            return;
        }
        let raised = self.raised_for(AlarmCause::Quota);
        if self.below_quota.is_long(!raised.is_empty() && self.shared.reader.has_room()) {
            for alarm in raised {
                self.clear(alarm.member, AlarmCause::Quota).await;
            }
        }
    }

    /// A member that is gone cannot tell that it has room again.
    async fn forget_the_gone(&self) {
        for alarm in self.raised_for(AlarmCause::Disk) {
            if !self.is_member(alarm.member) || self.is_lost(alarm.member) {
                self.clear(alarm.member, AlarmCause::Disk).await;
            }
        }
    }

    fn is_lost(&self, member: u64) -> bool {
        let led = self.led.map_or(Duration::ZERO, |since| since.elapsed());
        led.min(self.peers.contacts().silence_of(member)) >= LOST
    }

    fn is_member(&self, member: u64) -> bool {
        self.shared.membership().get_node(&member).is_some()
    }

    fn raised_for(&self, cause: AlarmCause) -> Vec<Alarm> {
        let alarms = self.shared.reader.alarms().into_iter();
        alarms.filter(|alarm| alarm.kind == AlarmKind::NoSpace && alarm.has_cause(cause)).collect()
    }

    fn is_raised(&self, member: u64, cause: AlarmCause) -> bool {
        self.raised_for(cause).iter().any(|alarm| alarm.member == member)
    }

    /// Whether the outcome is known.
    async fn raise(&self, member: u64, cause: AlarmCause) -> bool {
        let (kind, cause) = (AlarmKind::NoSpace as i32, cause as i32);
        self.propose(Some(Change::RaiseAlarm(RaiseAlarm { kind, member, cause }))).await
    }

    async fn clear(&self, member: u64, cause: AlarmCause) {
        let (kind, cause) = (AlarmKind::NoSpace as i32, cause as i32);
        self.propose(Some(Change::ClearAlarm(ClearAlarm { kind, member, cause }))).await;
    }

    /// What fails is tried again at the next look, if it is still needed. Whether the outcome is
    /// known.
    async fn propose(&self, change: Option<Change>) -> bool {
        let proposed = self.port.propose(Command { change, credentials: None }).await;
        let Err(error) = proposed else { return true };
        tracing::warn!(%error, "alarms and quota are not up to date");
        !error.may_take_effect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_may_have_been_raised_is_proposed_again_ever_later() {
        let mut backoff = Backoff::default();
        let begun = Instant::now();
        let mut attempts = Vec::new();
        for _ in 0..1000 {
            if backoff.is_over() {
                attempts.push(begun.elapsed().as_secs());
                backoff.lengthen();
            }
            tokio::time::advance(LOOK).await;
        }
        assert_eq!(attempts, [0, 5, 15, 35, 75, 155, 315, 635, 955]);
    }

    #[tokio::test(start_paused = true)]
    async fn calm_begins_anew_with_every_break() {
        let mut since = Since::default();
        assert!(!since.is_long(true));
        tokio::time::advance(CALM / 2).await;
        assert!(!since.is_long(false));
        tokio::time::advance(CALM).await;
        assert!(!since.is_long(true));
        tokio::time::advance(CALM).await;
        assert!(since.is_long(true));
    }
}
