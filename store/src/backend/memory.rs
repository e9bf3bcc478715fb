//! A backend that forgets everything at the end of the process.

use std::collections::BTreeMap;

use super::{Backend, BackendError, Each};

/// An ordered map in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryBackend {
    map: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Backend for MemoryBackend {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        Ok(self.map.get(key).cloned())
    }

    fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<(), BackendError> {
        self.map.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), BackendError> {
        self.map.remove(key);
        Ok(())
    }

    fn scan(&self, prefix: &[u8], each: Each<'_>) -> Result<(), BackendError> {
        let from = self.map.range(prefix.to_vec()..);
        from.take_while(|(key, _)| key.starts_with(prefix))
            .try_for_each(|(key, value)| each(key, value))
    }

    fn flush(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}
