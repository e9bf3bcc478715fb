//! When members are compared with each other, by flags and feature gates of several generations.

use std::time::Duration;

use super::{ConfigError, error};
use crate::args::{Settings, parse_gates};

/// When this member's data is compared with its peers'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comparisons {
    /// Before it serves clients.
    pub at_start: bool,
    /// Between comparisons while it leads; none for no comparisons.
    pub newest_every: Option<Duration>,
    /// Between looks for a compaction after which to compare; none for no looks.
    pub compacted_every: Option<Duration>,
}

impl Comparisons {
    pub(super) fn resolve(settings: &Settings) -> Result<Self, ConfigError> {
        let newest_every = settings.duration("corrupt-check-time");
        let compacted_every = settings.duration("compact-hash-check-time");
        let after_compactions =
            is_on(settings, "CompactHashCheck", "experimental-compact-hash-check-enabled");
        if compacted_every.is_zero() {
            return error("--compact-hash-check-time must be >0 (set to 0s)");
        }
        Ok(Self {
            at_start: is_on(settings, "InitialCorruptCheck", "experimental-initial-corrupt-check"),
            newest_every: Some(newest_every).filter(|every| !every.is_zero()),
            compacted_every: after_compactions.then_some(compacted_every),
        })
    }
}

/// Gates that need each other, of which nothing else is made here.
pub(super) fn check_gates(settings: &Settings) -> Result<(), ConfigError> {
    let persist = "experimental-enable-lease-checkpoint-persist";
    if is_on(settings, "LeaseCheckpointPersist", persist)
        && !is_on(settings, "LeaseCheckpoint", "experimental-enable-lease-checkpoint")
    {
        return error(
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
             LeaseCheckpoint",
        );
    }
    Ok(())
}

/// By the gate, or the flag that it was before.
fn is_on(settings: &Settings, gate: &str, flag: &str) -> bool {
    let gates = parse_gates(settings.text("feature-gates"));
    let of = |name: &str| gates.iter().rev().find(|(gate, _)| *gate == name).map(|(_, on)| *on);
    of(gate).or_else(|| of("AllAlpha")).unwrap_or_else(|| settings.boolean(flag))
}

/// Gates that are set and change nothing here.
pub(super) fn warnings(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    for (gate, on) in parse_gates(settings.text("feature-gates")) {
        let is_known = matches!(gate, "InitialCorruptCheck" | "CompactHashCheck" | "AllAlpha");
        if !is_known {
            warnings.push(format!("--feature-gates={gate}={on} has no effect"));
        }
    }
    for (flag, gate) in [
        ("experimental-initial-corrupt-check", "InitialCorruptCheck"),
        ("experimental-compact-hash-check-enabled", "CompactHashCheck"),
    ] {
        if settings.is_set(flag) {
            warnings
                .push(format!("--{flag} is deprecated, use --feature-gates={gate}=true instead"));
        }
    }
    warnings
}
