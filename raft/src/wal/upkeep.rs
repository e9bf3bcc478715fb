//! Files that come and go beside the writer: purged segments are recycled or removed, spares are
//! filled with zeros, the newest segment is noted. In bounded steps, driven from outside.
//!
//! What the operating system refuses here is tried again with the next request. Segments vanish in
//! order whatever it refuses: the next one goes only when the one before is gone.

use std::path::Path;
use std::sync::Arc;

use holdfast_store::files::{File, Files};

use super::error::{Failure, WalError};
use super::handle::{Shared, Upkeep};
use super::{newest, segment};

/// A segment that is no part of the log any more, and whose file is still there.
struct Retiring {
    number: u64,
    file: Arc<dyn File>,
}

/// A spare being filled.
struct Filling {
    number: u64,
    file: Arc<dyn File>,
    filled: u64,
}

/// The keeper of segment files.
pub struct Maintenance {
    pub(super) shared: Arc<Shared>,
    retiring: Option<Retiring>,
    filling: Option<Filling>,
    next_spare: u64,
    /// The segment that the note on disk names.
    noted: u64,
    /// Something failed, for want of space perhaps; not tried again before the next request.
    paused: bool,
}

impl Maintenance {
    pub(super) fn new(shared: Arc<Shared>, next_spare: u64) -> Self {
        Self { shared, retiring: None, filling: None, next_spare, noted: 0, paused: false }
    }

    /// Does one bounded piece of work: at most one file removed, or a mebibyte of zeros written.
    /// Returns whether there may be more. A failed sync ends the log; a failed write only pauses.
    pub fn step(&mut self) -> bool {
        if std::mem::take(&mut self.shared.upkeep().requested) {
            self.paused = false;
        }
        match self.work() {
            Ok(more) => more,
            Err(error) => {
                self.handle(&error);
                false
            }
        }
    }

    fn work(&mut self) -> Result<bool, WalError> {
        Ok(self.remove_segment()?
            || self.note_newest()?
            || self.remove_spare()?
            || self.fill_spare()?)
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
        self.leave_spare();
    }

    /// Gives up the spare that is being filled, until something is asked for; there is no more to
    /// do until then.
    fn leave_spare(&mut self) -> bool {
        self.paused = true;
        if let Some(filling) = self.filling.take() {
            let path = segment::spare_temporary_path(&self.shared.directory, filling.number);
            segment::discard(&*self.shared.files, &path);
        }
        false
    }

    fn remove_segment(&mut self) -> Result<bool, WalError> {
        if self.paused {
            return Ok(false);
        }
        let Some(retiring) = self.retiring.take().or_else(|| self.take_removable()) else {
            return Ok(false);
        };
        let spare = segment::spare_path(&self.shared.directory, self.next_spare);
        match self.retire(&retiring, &spare) {
            Ok(true) => {
                self.next_spare += 1;
                self.shared.upkeep().spares.push_back(spare);
                Ok(true)
            }
            Ok(false) => Ok(true),
            Err(error) => {
                self.retiring = Some(retiring);
                Err(error)
            }
        }
    }

    /// Takes the oldest segment out of the log, if nobody needs it.
    fn take_removable(&self) -> Option<Retiring> {
        let first = {
            let Upkeep { removable_below, purged_next, .. } = &*self.shared.upkeep();
            *purged_next.min(removable_below)
        };
        let mut places = self.shared.places_mut();
        let number = places.removable(first)?;
        Some(Retiring { number, file: places.remove_segment(number) })
    }

    /// Recycles a segment that nobody reads, else removes it. The folder is synced either way
    /// before anything else happens, so that segments vanish in order, and so that a recycled
    /// file cannot come back under its old name. Returns whether it has become the spare.
    fn retire(&self, retiring: &Retiring, spare: &Path) -> Result<bool, WalError> {
        let Shared { files, directory, options, .. } = &*self.shared;
        let Retiring { number, file } = retiring;
        let path = segment::path(directory, *number);
        let mut recycled = false;
        // An attempt that failed may have had its effect all the same.
        if files.exists(&path).map_err(WalError::io("look for", &path))? {
            let spares_max = self.spares_max();
            let wanted = self.shared.upkeep().spares.len() < spares_max;
            let unread = Arc::strong_count(file) == 1;
            let length = file.length().map_err(WalError::io("measure", &path))?;
            recycled = wanted
                && unread
                && length == options.segment_bytes
                && rename(&**files, &path, spare);
            if !recycled {
                files.remove(&path).map_err(WalError::io("remove", &path))?;
            }
        }
        self.sync_directory()?;
        Ok(recycled)
    }

    /// How many spares there may be: none where there is little room, for a checkpoint needs theirs. It
    /// is what gives room back; the log takes little at a time for itself.
    fn spares_max(&self) -> usize {
        let Shared { options, hooks, .. } = &*self.shared;
        if (hooks.has_room_for)(0) { options.spare_segments_max } else { 0 }
    }

    /// Gives back a spare that there is no room for.
    fn remove_spare(&mut self) -> Result<bool, WalError> {
        if self.paused || self.shared.upkeep().spares.is_empty() || self.spares_max() > 0 {
            return Ok(false);
        }
        let Some(spare) = self.shared.upkeep().spares.pop_back() else { return Ok(false) };
        self.shared.files.remove(&spare).map_err(WalError::io("remove", &spare))?;
        self.sync_directory()?;
        Ok(true)
    }

    /// Notes the newest segment, whose name has been durable since before anyone was told of it.
    fn note_newest(&mut self) -> Result<bool, WalError> {
        let Shared { files, directory, options, .. } = &*self.shared;
        let newest = self.shared.places().newest_segment();
        if self.paused || self.noted == newest {
            return Ok(false);
        }
        newest::write(&**files, directory, newest, !options.unsafe_no_fsync)?;
        self.noted = newest;
        Ok(true)
    }

    fn fill_spare(&mut self) -> Result<bool, WalError> {
        let Shared { files, directory, options, hooks, .. } = &*self.shared;
        let wanted = self.shared.upkeep().spares.len() < options.spare_segments;
        let Some(filling) = &mut self.filling else {
            if !wanted || self.paused || !(hooks.has_room_for)(options.segment_bytes) {
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
            if !(hooks.has_room_for)(options.segment_bytes - filling.filled) {
                return Ok(self.leave_spare());
            }
            filling.filled +=
                segment::write_zeros(&*filling.file, &path, filling.filled, options.segment_bytes)?;
            // Piece by piece: the log's own fsyncs would have to wait for the whole file.
            if !options.unsafe_no_fsync {
                filling.file.sync_data().map_err(WalError::io("sync", &path))?;
            }
            return Ok(true);
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

/// Makes a spare of a segment, unless that is refused: a new name may need space that there is not.
fn rename(files: &dyn Files, segment: &Path, spare: &Path) -> bool {
    let renamed = files.rename(segment, spare);
    if let Err(error) = &renamed {
        tracing::warn!(%error, path = %segment.display(), "cannot recycle a WAL segment");
    }
    renamed.is_ok()
}
