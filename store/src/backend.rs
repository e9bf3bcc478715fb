//! The home of the block directory: a small ordered map from bytes to bytes that may lose anything.
//!
//! What it holds can be rebuilt from manifests and block files, and is rebuilt on any doubt, so an
//! implementation promises little: what [`Backend::flush`] returned for is there after a restart,
//! or the map is damaged, and both are noticed by whoever uses it.

pub(crate) mod directory;
mod memory;
mod sled;

pub use memory::MemoryBackend;
pub use sled::is_guarded;

/// An ordered map from bytes to bytes, on disk or not.
pub trait Backend: Send {
    /// The value of `key`.
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError>;
    /// Sets the value of `key`. Not durable.
    fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<(), BackendError>;
    /// Removes `key`; nothing happens if it is absent. Not durable.
    fn remove(&mut self, key: &[u8]) -> Result<(), BackendError>;
    /// Calls `each` with every key that starts with `prefix`, in order, and its value.
    fn scan(&self, prefix: &[u8], each: Each<'_>) -> Result<(), BackendError>;
    /// Makes everything so far durable.
    fn flush(&mut self) -> Result<(), BackendError>;
}

/// What [`Backend::scan`] calls.
pub type Each<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), BackendError>;

/// Why a backend cannot serve. Never fatal: the directory is rebuilt.
#[derive(Clone, Debug, thiserror::Error)]
#[error("block directory: {what}")]
pub struct BackendError {
    /// What was found.
    pub what: String,
}

impl BackendError {
    /// An error described by `what`.
    pub fn new(what: impl std::fmt::Display) -> Self {
        Self { what: what.to_string() }
    }
}

#[cfg(test)]
mod tests;
