//! Verifying a data directory offline: identity, log, blocks and manifests, and that they fit.
//!
//! Nothing is written. What a start would repair by itself, a torn tail above all, is no problem.

use std::path::Path;

use holdfast_store::files::ReadOnlyFiles;

use crate::apart;
use crate::directory;
use crate::error::OpenError;
use crate::node::reach;
use crate::wal;

/// What was found.
#[derive(Debug, Default)]
pub struct Checked {
    /// What is there, a line each.
    pub facts: Vec<String>,
    /// What is wrong, each with the file's name.
    pub problems: Vec<String>,
}

/// Verifies the data directory of a member that is not running, whose log lies in `log_directory`
/// if not in there.
pub fn check(path: &Path, log_directory: Option<&Path>) -> Checked {
    let mut checked = Checked::default();
    let directories = [Some(path), log_directory];
    let locks = directories.into_iter().flatten().map(directory::lock_for_reading);
    let _locks: Vec<_> = match locks.collect() {
        Ok(locks) => locks,
        Err(error) => {
            checked.problems.push(OpenError::to_string(&error));
            return checked;
        }
    };
    let imported = directory::check_imported(path, &ReadOnlyFiles);
    checked.problems.extend(imported.err().map(|problem| problem.to_string()));
    let identity = directory::inspect(path, &ReadOnlyFiles);
    let identity = identity.map_err(|error| checked.problems.push(error.to_string())).ok();
    if let Some(identity) = identity {
        checked
            .facts
            .push(format!("member {:x} of cluster {:x}", identity.member_id, identity.cluster_id));
        let met = apart::inspect(path, log_directory, Some(identity), &ReadOnlyFiles);
        checked.problems.extend(met.err().map(|problem| problem.to_string()));
    }
    let home = log_directory.unwrap_or(path);
    let log = wal::check(&ReadOnlyFiles, &wal::directory(home));
    let log = log.map_err(|error| checked.problems.push(error.to_string())).ok();
    if let Some(state) = log {
        let index = |id: Option<wal::LogId>| id.map_or(0, |id| id.index);
        checked.facts.push(format!(
            "log: entries after {} up to {}",
            index(state.purged),
            index(state.last)
        ));
    }
    let store = match holdfast_store::check(path) {
        Ok(store) => store,
        Err(error) => {
            checked.problems.push(error.to_string());
            return checked;
        }
    };
    for info in &store.manifests {
        let (name, index, revision) = (&info.name, info.position.index, info.revision);
        checked.facts.push(format!("checkpoint {name}: entry {index}, revision {revision}"));
    }
    checked.facts.push(format!("{} block files, {} blocks", store.files, store.blocks));
    checked.problems.extend(store.problems);
    if let (Some(identity), Some(state)) = (identity, log) {
        let ends = (state.purged.map(|id| id.index), state.last.map(|id| id.index));
        let met = reach::check(store.manifests.first(), ends, identity.incarnation);
        checked.problems.extend(met.err().map(|problem| problem.to_string()));
    }
    checked
}
