//! Verifying a data directory of ours.

use std::path::Path;

use super::UtilError;

/// Prints what is wrong, if anything is; gives what is there.
pub(super) fn check(directory: &Path, log: Option<&Path>) -> Result<String, UtilError> {
    let io = |error| UtilError::Io { path: directory.to_owned(), error };
    std::fs::read_dir(directory).map_err(io)?;
    let checked = holdfast_raft::check(directory, log);
    for problem in &checked.problems {
        eprintln!("{problem}");
    }
    match checked.problems.len() {
        0 => {
            let facts: String = checked.facts.iter().map(|fact| format!("{fact}\n")).collect();
            Ok(format!("{facts}{} is whole\n", directory.display()))
        }
        count => Err(UtilError::Damaged { path: directory.to_owned(), count }),
    }
}
