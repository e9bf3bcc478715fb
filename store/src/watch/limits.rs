//! Bounds of the hub; each is a number of things held or done at once.
//!
//! A value, not constants, so that tests can make every bound small enough to be met.

/// What one queued delivery weighs beside its events.
pub(super) const DELIVERY_WEIGHT: usize = 64;

/// The bounds of one hub.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Revisions that one lock section of publishing matches.
    pub(super) publish_revisions: usize,
    /// Changes above which a revision is not matched live: everyone catches up with it.
    pub(super) live_changes: usize,
    /// Encoded bytes above which the rest of a lock section is left to catching up, by group; and
    /// after which handing over ends one.
    pub(super) live_bytes: usize,
    /// Recent revisions kept for handing over.
    pub(super) recent_revisions: usize,
    /// Changes among them.
    pub(super) recent_changes: usize,
    /// Encoded bytes among them.
    pub(super) recent_bytes: usize,
    /// Revisions that one step of catching up reads.
    pub(super) step_revisions: i64,
    /// Watchers that one step serves.
    pub(super) step_watchers: usize,
    /// Encoded bytes after which a step reads no further revision.
    pub(super) step_bytes: usize,
    /// Record headers asked for at a time.
    pub(super) step_headers: usize,
    /// Recent changes that one lock section of handing over looks at, before it stops picking.
    pub(super) hand_over_changes: usize,
}

/// The bounds in use.
pub(super) const NORMAL: Limits = Limits {
    publish_revisions: 256,
    live_changes: 4096,
    live_bytes: 4 << 20,
    recent_revisions: 1024,
    recent_changes: 4096,
    recent_bytes: 4 << 20,
    step_revisions: 1000,
    step_watchers: 512,
    step_bytes: 4 << 20,
    step_headers: 1024,
    hand_over_changes: 8192,
};

const _: () = assert!(NORMAL.publish_revisions <= NORMAL.recent_revisions);
const _: () = assert!(NORMAL.live_changes <= NORMAL.recent_changes);
const _: () = assert!(DELIVERY_WEIGHT > 0, "every delivery counts against its stream's bound");
