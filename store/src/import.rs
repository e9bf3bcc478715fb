//! Filling an empty data directory with a history from elsewhere.
//!
//! The records come in revision order and are written to blocks as they come, in bounded memory;
//! the checkpoint at the end is what makes them count. A directory whose import was not finished
//! holds no checkpoint.

use bytes::Bytes;
use prost::Message;

use crate::load::Restore;
use crate::maintain::{Sweep, Swept};
use crate::open::Opening;
use crate::state::tables::Tables;
use crate::{
    Fatal, Frozen, LeaseInfo, Maintainer, ManifestInfo, OpenError, Options, Position, Record,
    RecordHeader, Records, Revision, Taken, Worked,
};

/// Records in memory before they are written to blocks.
const TAIL_BYTES_MAX: u64 = 4 << 20;

/// What a store holds besides its records.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// The store revision: no record is newer.
    pub revision: i64,
    /// The compacted revision; -1 for none.
    pub compacted: i64,
    /// Where the membership in force was decided.
    pub membership_position: Position,
    /// That membership; its bytes mean nothing here.
    pub membership: Bytes,
    /// The leases, each once.
    pub leases: Vec<LeaseInfo>,
}

/// Why an import cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file system is full.
    #[error("the file system is full")]
    NoSpace,
    /// The records are not what a store holds, or the disk cannot be relied on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

/// An import under way.
pub struct Import {
    maintainer: Maintainer,
    records: Records,
    position: Position,
    last: Revision,
}

impl Import {
    /// Begins in an empty directory. The state will be that after the entry at `position`.
    pub fn begin(options: Options, position: Position) -> Result<Self, OpenError> {
        let opening = Opening::begin(options)?;
        if opening.tables().is_some() {
            return Err(Fatal::new("an import begins in an empty directory").into());
        }
        let loaded = opening.load(&mut Nothing)?;
        let records = loaded.records.clone();
        let maintainer = loaded.into_maintainer(Box::new(Nothing));
        Ok(Self { maintainer, records, position, last: Revision::default() })
    }

    /// Adds the next record.
    pub fn push(&mut self, record: Record) -> Result<(), ImportError> {
        if record.revision <= self.last {
            let what = format_args!("revision {} comes after {}", record.revision, self.last);
            return Err(Fatal::new(what).into());
        }
        self.last = record.revision;
        self.records.append([record]);
        if self.records.shared.read().tail.bytes() < TAIL_BYTES_MAX {
            return Ok(());
        }
        self.records.end_entry(self.position);
        loop {
            match self.maintainer.step(self.position.index)? {
                Worked::Something => {}
                Worked::Nothing => return Ok(()),
                Worked::Paused => return Err(ImportError::NoSpace),
            }
        }
    }

    /// Takes the checkpoint of everything that was pushed.
    pub fn finish(mut self, imported: Imported) -> Result<ManifestInfo, ImportError> {
        if self.last.main > imported.revision || imported.compacted > imported.revision {
            return Err(Fatal::new("the records and the revision contradict each other").into());
        }
        self.records.end_entry(self.position);
        let frozen = self.frozen(imported);
        match self.maintainer.take_manifest(frozen, self.position.index)? {
            Taken::Manifest(info) => Ok(info),
            Taken::NoSpace => Err(ImportError::NoSpace),
            other => {
                Err(Fatal::new(format_args!("the checkpoint was not taken: {other:?}")).into())
            }
        }
    }

    fn frozen(&self, imported: Imported) -> Frozen {
        let mut tables = Tables::fresh();
        tables.revision = imported.revision;
        tables.compacted = imported.compacted;
        tables.set_position(self.position);
        tables.set_membership(imported.membership_position, imported.membership.clone());
        tables.set_leases(imported.leases.into_iter());
        Frozen {
            position: self.position,
            membership_position: imported.membership_position,
            membership: imported.membership,
            revision: imported.revision,
            compacted: imported.compacted,
            tables: tables.encode_to_vec().into(),
        }
    }
}

/// An empty directory has nothing to tell, and nothing to sweep.
struct Nothing;

impl Restore for Nothing {
    fn record(&mut self, _: RecordHeader) -> Result<(), Fatal> {
        Ok(())
    }
}

impl Sweep for Nothing {
    fn step(&mut self, _: usize) -> Swept {
        Swept { compacted: i64::MIN, ..Swept::default() }
    }
}
