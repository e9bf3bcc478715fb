//! Leaving the cluster: a member that has been removed says so, and never starts again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_store::Fatal;
use holdfast_store::files::Files;

use crate::error::OpenError;
use crate::shared::Shared;

/// What a removed member may still do: answer who removed it, and hand over if it leads.
const DELAY: Duration = Duration::from_secs(1);
/// The file that stands for "removed".
const MARKER: &str = "removed";

/// Stops this member once it has been removed; until then, runs until the node stops and drops it.
pub(crate) async fn leave(shared: Arc<Shared>, files: Arc<dyn Files>, directory: PathBuf) {
    let mut dismissed = shared.dismissed();
    if dismissed.wait_for(|dismissed| *dismissed).await.is_err() {
        return;
    }
    tracing::warn!("this member has been removed from the cluster; it stops");
    tokio::time::sleep(DELAY).await;
    // Without the mark, its peers refuse it at its next start.
    if let Err(error) = mark(&directory, &*files) {
        tracing::warn!(%error, "cannot mark the data directory as that of a removed member");
    }
    shared.fail(Fatal::new(OpenError::Removed(shared.identity.member_id)));
}

fn mark(directory: &Path, files: &dyn Files) -> io::Result<()> {
    let path = directory.join(MARKER);
    if files.exists(&path)? {
        return Ok(());
    }
    files.create(&path)?.sync_data()?;
    files.sync_directory(directory)
}

/// Whether the directory is marked as that of a removed member.
pub(crate) fn is_marked(directory: &Path, files: &dyn Files) -> io::Result<bool> {
    files.exists(&directory.join(MARKER))
}

#[cfg(test)]
mod tests {
    use holdfast_store::files::MemoryFiles;

    use super::*;

    #[test]
    fn a_mark_is_found_again() {
        let files = MemoryFiles::default();
        let directory = Path::new("/data");
        files.create_directory(directory).expect("made");
        assert!(!is_marked(directory, &files).expect("readable"));
        mark(directory, &files).expect("marked");
        mark(directory, &files).expect("marked again");
        assert!(is_marked(directory, &files).expect("readable"));
    }
}
