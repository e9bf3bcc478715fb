//! The settings after flags and environment: text by flag name, with typed access.

use std::time::Duration;

use super::table::{self, Flag};
use super::{Values, value};

/// Where a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag on the command line.
    CommandLine,
    /// An `ETCD_*` variable.
    Environment,
    /// The file that `--config-file` names.
    File,
    /// Nobody gave it.
    Default,
}

/// Every setting of one flag table. Texts were checked when they were read, so typed access cannot
/// fail; asking for a flag the table does not have is a mistake in the program and panics.
#[derive(Debug)]
pub struct Settings {
    flags: &'static [Flag],
    values: Values,
    warnings: Vec<String>,
}

impl Settings {
    pub(super) fn new(flags: &'static [Flag], values: Values) -> Self {
        Self { flags, values, warnings: Vec::new() }
    }

    pub(super) fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }

    /// What the operator should know about the flags given, one line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where the setting comes from.
    pub fn source(&self, name: &str) -> Source {
        self.values.get(name).map_or(Source::Default, |given| given.source)
    }

    /// Whether somebody gave the setting.
    pub fn is_set(&self, name: &str) -> bool {
        self.source(name) != Source::Default
    }

    /// The text as given, or the default.
    pub fn text(&self, name: &str) -> &str {
        let flag = table::find(self.flags, name).expect("the caller names a flag of the table");
        self.values.get(name).map_or(flag.default, |given| &given.text)
    }

    /// A boolean.
    pub fn boolean(&self, name: &str) -> bool {
        value::parse_bool(self.text(name)).expect("checked when it was read")
    }

    /// A whole number that may be negative.
    pub fn signed(&self, name: &str) -> i64 {
        value::parse_int(self.text(name)).expect("checked when it was read")
    }

    /// A whole number.
    pub fn unsigned(&self, name: &str) -> u64 {
        value::parse_uint(self.text(name), u64::MAX).expect("checked when it was read")
    }

    /// A whole number below 2^32.
    pub fn unsigned32(&self, name: &str) -> u32 {
        u32::try_from(self.unsigned(name)).expect("checked when it was read")
    }

    /// A duration in Go's notation.
    pub fn duration(&self, name: &str) -> Duration {
        value::parse_duration(self.text(name)).expect("checked when it was read")
    }

    /// A number of milliseconds.
    pub fn milliseconds(&self, name: &str) -> Duration {
        Duration::from_millis(self.unsigned(name))
    }

    /// A comma-separated list; empty for an empty text.
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.text(name).split(',').map(str::trim).filter(|item| !item.is_empty()).collect()
    }
}
