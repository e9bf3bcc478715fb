//! From etcd's data directory to one of ours.
//!
//! etcd's database is what its members agree on, up to an index that stands in it. What its log, or
//! a database that it was sent by another member, has beyond that index would be lost, so such a
//! directory is refused: a graceful stop of etcd brings the database up to date.

use std::fs::File;
use std::path::Path;

use rustix::fs::FlockOperation;

use super::etcd_log::{self, LogError};
use super::{Restore, UtilError, restore};
use crate::snapshot::file::SnapshotFile;
use crate::snapshot::schema;

const DATABASE: &str = "member/snap/db";
const LOG: &str = "member/wal";
const SNAPSHOTS: &str = "member/snap";
/// Databases that were sent by a leader: the index, 16 digits, and this.
const SENT: &str = ".snap.db";

/// Imports the directory `from`, whose log lies in `log` if not where etcd puts it.
pub(super) fn migrate(from: &Path, log: Option<&Path>, to: &Restore) -> Result<String, UtilError> {
    let database = from.join(DATABASE);
    let wrong = |what: String| UtilError::Source { path: from.to_owned(), what };
    if !database.exists() {
        return Err(wrong(format!("it is not a data directory of etcd: there is no {DATABASE}")));
    }
    let _lock = lock(&database)?;
    let file = SnapshotFile::open(&database)?;
    let index = file.value(schema::META, schema::CONSISTENT_INDEX)?;
    let index = index.and_then(|bytes| bytes[..].try_into().ok()).map(u64::from_be_bytes);
    let index = index.ok_or_else(|| wrong(format!("{DATABASE} does not say its last entry")))?;
    let log = log.map_or_else(|| from.join(LOG), Path::to_owned);
    let vouched = etcd_log::check(&log, index).and_then(|()| check_sent(from, index));
    vouched.map_err(|error| match error {
        LogError::Io { .. } | LogError::Damaged { .. } | LogError::Absent(_) => error.into(),
        refusal => wrong(refusal.to_string()),
    })?;
    Ok(format!("migrated {}: {}", from.display(), restore::restore(&file, to)?))
}

/// Refuses a directory with a database from a leader that is newer than the one in place.
fn check_sent(from: &Path, after: u64) -> Result<(), LogError> {
    let folder = from.join(SNAPSHOTS);
    let failed = |error| LogError::Io { path: folder.clone(), error };
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let index = name.to_str().and_then(|name| name.strip_suffix(SENT));
        let index = index.and_then(|index| u64::from_str_radix(index, 16).ok());
        if let Some(index) = index.filter(|index| *index > after) {
            return Err(LogError::Replaced { after, what: "a database from its leader", index });
        }
    }
    Ok(())
}

/// Keeps etcd away; it locks its database in the same way.
fn lock(database: &Path) -> Result<File, UtilError> {
    let failed = |error| UtilError::Io { path: database.to_owned(), error };
    let file = File::open(database).map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(UtilError::Source {
            path: database.to_owned(),
            what: "etcd is running on it: stop it first".to_owned(),
        }),
        Err(error) => Err(failed(error.into())),
    }
}
