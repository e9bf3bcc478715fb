//! The whole history at one moment, in revision order, for those who write it elsewhere.
//!
//! Given are the records after the compacted revision and, of those up to it, the ones that the
//! compaction leaves: what etcd's database holds at that moment, whatever is physically gone here.
//! Compaction leaves them alone for as long as the reading goes on; it renews its registration with
//! every step, and ends when it pins too much or a step takes too long.

use std::sync::Arc;

use crate::auth::AuthTable;
use crate::index::Index;
use crate::reader::registry::Registration;
use crate::state::shared::Shared;
use crate::state::tables::Tables;
use crate::view::WALK_KEYS_MAX;
use crate::{Fatal, Frozen, LeaseInfo, Position, ReadError, Record, RecordHeader, Revision};

/// A reading of the history.
pub struct History {
    shared: Arc<Shared>,
    tables: Tables,
    registration: Registration,
    /// Where the reading goes on; none at the end.
    next: Option<Revision>,
}

impl History {
    pub(crate) fn open(shared: Arc<Shared>, frozen: &Frozen) -> Result<Self, ReadError> {
        let tables = Tables::decode_checked(&frozen.tables)?;
        let registration = shared.registry.register(tables.compacted)?;
        Ok(Self { shared, tables, registration, next: Some(Revision::default()) })
    }

    /// The last entry that it contains.
    pub fn position(&self) -> Position {
        self.tables.position()
    }

    /// The store revision.
    pub fn revision(&self) -> i64 {
        self.tables.revision
    }

    /// The compacted revision; -1 for none.
    pub fn compacted(&self) -> i64 {
        self.tables.compacted
    }

    /// The leases, by id.
    pub fn leases(&self) -> Vec<LeaseInfo> {
        self.tables.leases().collect()
    }

    /// The users and roles, and whether they are asked for.
    pub fn auth(&self) -> Result<AuthTable, Fatal> {
        self.tables.auth()
    }

    /// Reads the next records, about `bytes` of them; false at the end.
    pub fn step(
        &mut self,
        bytes: usize,
        each: &mut dyn FnMut(&Record) -> Result<(), Fatal>,
    ) -> Result<bool, ReadError> {
        let mut left = bytes;
        while left > 0 {
            let Some(from) = self.next else { return Ok(false) };
            self.renew()?;
            let headers = self.shared.records.headers(from, WALK_KEYS_MAX)?;
            let last = headers.last().map(|header| header.revision);
            let is_over = last.is_none_or(|last| last.main > self.tables.revision);
            self.next =
                last.filter(|_| !is_over).map(|last| Revision::new(last.main, last.sub + 1));
            for header in self.wanted(headers)? {
                let record = self.record(header)?;
                left = left.saturating_sub(record.bytes.len().max(1));
                each(&record)?;
                if left == 0 {
                    let Revision { main, sub } = record.revision;
                    self.next = Some(Revision::new(main, sub + 1));
                    return Ok(true);
                }
            }
        }
        Ok(true)
    }

    /// Holds on for longer. The new registration is made before the old one ends.
    fn renew(&mut self) -> Result<(), ReadError> {
        self.registration.holds()?;
        self.registration = self.shared.registry.register(self.tables.compacted)?;
        Ok(())
    }

    fn wanted(&self, headers: Vec<RecordHeader>) -> Result<Vec<RecordHeader>, ReadError> {
        let index = self.shared.index();
        self.registration.holds()?;
        let Tables { revision, compacted, .. } = self.tables;
        let wanted = headers.into_iter().filter(|header| {
            let main = header.revision.main;
            main <= revision && (main > compacted || survives(&index, header, compacted))
        });
        Ok(wanted.collect())
    }

    fn record(&self, header: RecordHeader) -> Result<Record, ReadError> {
        let RecordHeader { revision, key, kind, .. } = header;
        match self.shared.records.read(revision) {
            Ok(bytes) => Ok(Record { revision, key, kind, bytes }),
            Err(fatal) => {
                // The registration may have ended meanwhile.
                self.registration.holds()?;
                Err(fatal.into())
            }
        }
    }
}

/// Whether the compaction to `compacted` leaves this record.
fn survives(index: &Index, header: &RecordHeader, compacted: i64) -> bool {
    let Some(versions) = index.versions(&header.key) else { return false };
    let left = &versions.as_slice()[versions.dead_at(compacted)..];
    left.iter().any(|version| version.revision() == header.revision)
}

#[cfg(test)]
mod tests;
