//! Faults built into the product on purpose: the judge must notice each of them.

use clap::ValueEnum;

use crate::simulation::Scenario;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Plant {
    /// The log's fdatasync does nothing.
    SkippedFsync,
    /// A leader acknowledges what only it has.
    EarlyAcknowledgement,
    /// Now and then an event does not reach watchers.
    DroppedEvent,
    /// After a restart the last entry before the checkpoint is applied again.
    DoubleApply,
    /// State is persisted without asking how far the log has been flushed.
    MissingComparison,
}

impl Plant {
    /// Within how many seeds it must be noticed.
    pub fn seeds(self) -> u64 {
        40
    }

    /// The faults that bring it out.
    pub fn scenario(self) -> Scenario {
        match self {
            Self::SkippedFsync | Self::MissingComparison | Self::DoubleApply => Scenario::Power,
            Self::EarlyAcknowledgement | Self::DroppedEvent => Scenario::Chaos,
        }
    }
}
