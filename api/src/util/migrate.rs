//! From etcd's data directory to one of ours.
//!
//! etcd's database is what its members agree on, up to an index that stands in it. What its log has
//! beyond that index would be lost, so such a directory is refused: a graceful stop of etcd brings
//! the database up to date.

use std::fs::File;
use std::path::Path;

use rustix::fs::FlockOperation;

use super::{Restore, UtilError, etcd_log, restore};
use crate::snapshot::file::SnapshotFile;
use crate::snapshot::schema;

const DATABASE: &str = "member/snap/db";
const LOG: &str = "member/wal";

/// Imports the directory `from`.
pub(super) fn migrate(from: &Path, to: &Restore) -> Result<String, UtilError> {
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
    if let Some((first, last)) = etcd_log::first_missing(&from.join(LOG), index)? {
        return Err(wrong(format!(
            "its database ends at entry {index}, and its log has committed changes from entry \
             {first} to {last}: start etcd on it once more and stop it with SIGTERM, or use \
             `etcdctl snapshot save` and `holdfast util snapshot restore`"
        )));
    }
    Ok(format!("migrated {}: {}", from.display(), restore::restore(&file, to)?))
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
