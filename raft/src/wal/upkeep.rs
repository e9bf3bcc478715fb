//! Files that come and go beside the writer: purged segments are recycled or removed, spares are
//! filled with zeros. In bounded steps, driven from outside.

use std::sync::Arc;

use super::error::{Failure, WalError};
use super::handle::{Shared, Upkeep};
use super::segment;

/// A spare being filled.
struct Filling {
    number: u64,
    file: Arc<dyn holdfast_store::files::File>,
    filled: u64,
}

/// The keeper of segment files.
pub struct Maintenance {
    pub(super) shared: Arc<Shared>,
    filling: Option<Filling>,
    next_spare: u64,
    /// Making spares failed, for want of space perhaps; not tried again before the next request.
    paused: bool,
}

impl Maintenance {
    pub(super) fn new(shared: Arc<Shared>, next_spare: u64) -> Self {
        Self { shared, filling: None, next_spare, paused: false }
    }

    /// Does one bounded piece of work: at most one file removed, or a mebibyte of zeros written.
    /// Returns whether there may be more. A failed sync ends the log; a failed write only pauses.
    pub fn step(&mut self) -> bool {
        if std::mem::take(&mut self.shared.upkeep().requested) {
            self.paused = false;
        }
        match self.remove_segment().and_then(|removed| Ok(removed || self.fill_spare()?)) {
            Ok(more) => more,
            Err(error) => {
                self.handle(&error);
                false
            }
        }
    }

    fn handle(&mut self, error: &WalError) {
        if matches!(error, WalError::Io { operation: "sync", .. }) {
            tracing::error!(%error, "the write-ahead log failed");
            let failure = Failure(error.to_string().into());
            for waiting in self.shared.fail(&failure) {
                waiting(Err(failure.clone()));
            }
            return;
        }
        tracing::warn!(%error, "upkeep of WAL segments pauses");
        self.paused = true;
        if let Some(filling) = self.filling.take() {
            let path = segment::spare_temporary_path(&self.shared.directory, filling.number);
            if let Err(error) = self.shared.files.remove(&path) {
                tracing::warn!(%error, path = %path.display(), "cannot remove a half-made spare");
            }
        }
    }

    fn remove_segment(&mut self) -> Result<bool, WalError> {
        let first = {
            let Upkeep { removable_below, purged_next, .. } = &*self.shared.upkeep();
            *purged_next.min(removable_below)
        };
        let mut places = self.shared.places_mut();
        let Some(number) = places.removable(first) else { return Ok(false) };
        let file = places.remove_segment(number);
        drop(places);
        self.retire(number, file)?;
        Ok(true)
    }

    /// Recycles a segment that nobody reads, else removes it. The folder is synced either way
    /// before anything else happens, so that segments vanish in order, and so that a recycled
    /// file cannot come back under its old name.
    fn retire(
        &mut self,
        number: u64,
        file: Arc<dyn holdfast_store::files::File>,
    ) -> Result<(), WalError> {
        let Shared { files, directory, options, .. } = &*self.shared;
        let path = segment::path(directory, number);
        let wanted = self.shared.upkeep().spares.len() < options.spare_segments_max;
        let length = file.length().map_err(WalError::io("measure", &path))?;
        let unread = Arc::strong_count(&file) == 1;
        let spare = segment::spare_path(directory, self.next_spare);
        let recycles = wanted && unread && length == options.segment_bytes;
        if recycles {
            files.rename(&path, &spare).map_err(WalError::io("rename", &path))?;
            self.next_spare += 1;
        } else {
            files.remove(&path).map_err(WalError::io("remove", &path))?;
        }
        self.sync_directory()?;
        if recycles {
            self.shared.upkeep().spares.push_back(spare);
        }
        Ok(())
    }

    fn fill_spare(&mut self) -> Result<bool, WalError> {
        let Shared { files, directory, options, .. } = &*self.shared;
        let wanted = self.shared.upkeep().spares.len() < options.spare_segments;
        let Some(filling) = &mut self.filling else {
            if !wanted || self.paused {
                return Ok(false);
            }
            let number = self.next_spare;
            self.next_spare += 1;
            let path = segment::spare_temporary_path(directory, number);
            let file = files.create(&path).map_err(WalError::io("create", &path))?;
            self.filling = Some(Filling { number, file, filled: 0 });
            return Ok(true);
        };
        let path = segment::spare_temporary_path(directory, filling.number);
        if filling.filled < options.segment_bytes {
            filling.filled +=
                segment::write_zeros(&*filling.file, &path, filling.filled, options.segment_bytes)?;
            return Ok(true);
        }
        if !options.unsafe_no_fsync {
            filling.file.sync_data().map_err(WalError::io("sync", &path))?;
        }
        let spare = segment::spare_path(directory, filling.number);
        files.rename(&path, &spare).map_err(WalError::io("rename", &path))?;
        self.sync_directory()?;
        self.filling = None;
        self.shared.upkeep().spares.push_back(spare);
        Ok(true)
    }

    fn sync_directory(&self) -> Result<(), WalError> {
        let Shared { files, directory, options, .. } = &*self.shared;
        if options.unsafe_no_fsync {
            return Ok(());
        }
        files.sync_directory(directory).map_err(WalError::io("sync", directory))
    }
}
