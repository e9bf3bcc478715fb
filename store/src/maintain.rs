//! The store's housekeeping, in bounded steps: blocks out of the tail, manifests, compaction.
//!
//! Nothing here runs by itself; a thread in production, and the simulator otherwise, calls
//! [`Maintainer::step`] as long as there is something to do. One step does at most 1 MiB of block
//! writing, 1,000 revisions of compaction, one file's fsync, one rewritten run of blocks and one
//! file's removal.
//! Nothing becomes durable that the log has not flushed. A full disk pauses; any other error of
//! the disk ends the process.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::backend::directory::BlockDirectory;
use crate::blocks::BlockFile;
use crate::blocks::writer::{BlockWriter, WriteError};
use crate::disk::Disk;
use crate::{Fatal, ManifestInfo, Position, Revision};

mod checkpoint;
mod rewrite;
mod seal;

pub use checkpoint::Taken;

/// How many revisions of compaction one step does at most.
pub const SWEEP_MAX: usize = 1000;

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worked {
    /// Something; there may be more to do.
    Something,
    /// Nothing: call again when something has changed.
    Nothing,
    /// Nothing, since the disk is full: call again later.
    Paused,
}

/// Finds, in bounded steps, the records that compaction makes superfluous.
pub trait Sweep: Send {
    /// Looks at no more than `max` revisions.
    fn step(&mut self, max: usize) -> Swept;
    /// All records of the compaction that [`Swept::finished`] named have been given up.
    fn forgotten(&mut self, _compacted: i64) {}
}

/// What [`Sweep::step`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// The compacted revision that this is the work of.
    pub compacted: i64,
    /// Records that nobody will ask for again.
    pub dead: Vec<Revision>,
    /// The compacted revision, when this was the last of its records.
    pub finished: Option<i64>,
    /// Whether the walk goes on with the next step, though this one may have found nothing.
    pub goes_on: bool,
}

/// What a maintainer leaves undone, and does more of, while the disk has little room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// Nothing; but blocks and files are rewritten of which a quarter is garbage, not only half.
    Quarters,
    /// Nothing; but an eighth of garbage is enough.
    Eighths,
    /// Likewise, and new revisions wait in memory. Rewriting goes on: it gives more than it takes.
    Seals,
    /// Rewriting takes no room either: only blocks without live records are given up.
    Writes,
}

impl Held {
    /// One in how many bytes must be garbage for the rest to be worth moving.
    fn garbage_share(self) -> u64 {
        match self {
            Self::Nothing => 2,
            Self::Quarters => 4,
            Self::Eighths | Self::Seals | Self::Writes => 8,
        }
    }
}

/// Does the housekeeping; owned by one thread.
pub struct Maintainer {
    disk: Arc<Disk>,
    writer: BlockWriter,
    directory: BlockDirectory,
    sweeper: Box<dyn Sweep>,
    /// The newest compaction of which records have been given up.
    swept: i64,
    /// Block files begun since their folder was fsynced last.
    unnamed: bool,
    rewrite: rewrite::Search,
    held: Held,
    /// See [`Self::hold_back`].
    moved_max: u64,
    /// Bytes of rewritten blocks since the newest manifest, and between that and the one before:
    /// the files that they have come from are still there.
    moved: [u64; 2],
    given_up: u64,
}

impl Maintainer {
    pub(crate) fn new(
        disk: Arc<Disk>,
        writer: BlockWriter,
        directory: BlockDirectory,
        sweeper: Box<dyn Sweep>,
    ) -> Self {
        let rewrite = rewrite::Search::default();
        Self {
            disk,
            writer,
            directory,
            sweeper,
            swept: i64::MIN,
            unnamed: true,
            rewrite,
            held: Held::Nothing,
            moved_max: u64::MAX,
            moved: [0; 2],
            given_up: 0,
        }
    }

    /// Says what not to write from now on, but for a manifest: what room is left is for others.
    /// Rewriting takes `moved_max` bytes at most before manifests give back what it has left, unless
    /// nothing is held.
    pub fn hold_back(&mut self, held: Held, moved_max: u64) {
        let before = (self.held.garbage_share(), self.may_move());
        (self.held, self.moved_max) = (held, moved_max);
        if before != (held.garbage_share(), self.may_move()) {
            // What was passed over may be worth it now.
            self.rewrite.begin();
        }
    }

    /// Whether blocks are rewritten that have live records.
    fn may_move(&self) -> bool {
        let moved: u64 = self.moved.iter().sum();
        self.held == Held::Nothing || self.held < Held::Writes && moved < self.moved_max
    }

    /// A manifest was taken.
    fn count_manifest(&mut self) {
        let could_move = self.may_move();
        self.moved = [0, self.moved[0]];
        if self.may_move() != could_move {
            self.rewrite.begin();
        }
    }

    /// Does some of everything there is to do. `flushed` is the index up to which the log is
    /// durable.
    pub fn step(&mut self, flushed: u64) -> Result<Worked, Fatal> {
        let mut worked = self.sweep();
        // Before anything that needs space: this is what gives some.
        worked |= self.remove_one_file()?;
        let sealed = match self.held {
            Held::Nothing | Held::Quarters | Held::Eighths => self.seal_some(flushed),
            Held::Seals | Held::Writes => Ok(false),
        };
        for result in [sealed, self.sync_one_file(), self.rewrite_some()] {
            match result {
                Ok(more) => worked |= more,
                Err(WriteError::NoSpace) if worked => return Ok(Worked::Something),
                Err(WriteError::NoSpace) => return Ok(Worked::Paused),
                Err(WriteError::Fatal(fatal)) => return Err(fatal),
            }
        }
        Ok(if worked { Worked::Something } else { Worked::Nothing })
    }

    /// How many bytes of blocks have been given up since this was opened. The room comes back when
    /// all blocks of a file have been, and no manifest that is kept names it: with the second one that
    /// is taken after this.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Whether blocks are still being looked for that may be given up.
    pub fn is_searching(&self) -> bool {
        self.rewrite.is_under_way()
    }

    pub(crate) fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// The verified manifests, oldest first.
    pub fn manifests(&self) -> Vec<ManifestInfo> {
        self.disk.manifests().iter().map(|kept| kept.info.clone()).collect()
    }

    fn sweep(&mut self) -> bool {
        let swept = self.sweeper.step(SWEEP_MAX);
        if !swept.dead.is_empty() {
            self.swept = self.swept.max(swept.compacted);
            self.disk.records.forget(&swept.dead);
            self.rewrite.begin();
        }
        if let Some(compacted) = swept.finished {
            self.sweeper.forgotten(compacted);
        }
        swept.goes_on || !swept.dead.is_empty() || swept.finished.is_some()
    }

    /// Removes one file that nothing refers to: no block, no kept manifest, no export, no reader.
    fn remove_one_file(&mut self) -> Result<bool, Fatal> {
        // A received file may have taken the place of a shorter one that a manifest still means.
        let named =
            self.disk.manifests().iter().flat_map(|kept| kept.ids()).collect::<BTreeSet<_>>();
        let mut registry = self.disk.records.shared.registry();
        // Every way to a file leads through this registry or through someone who holds it, so a
        // count of one cannot rise while the registry is locked.
        let unused = |file: &&Arc<BlockFile>| {
            Arc::strong_count(file) == 1
                && !self.writer.is_current(file.id)
                && !named.contains(&file.id)
        };
        let Some(id) = registry.values().find(unused).map(|file| file.id) else {
            return Ok(false);
        };
        let file = registry.remove(&id).expect("it was found a moment ago");
        assert_eq!(file.kept(), 0, "a file in use is held by its blocks");
        match self.disk.options.files.remove(&file.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Fatal::new(format_args!("cannot remove {}: {error}", file.path.display())))
            }
            _ => Ok(true),
        }
    }

    /// Makes one file durable that will not grow any more, so that a manifest finds little to do.
    fn sync_one_file(&mut self) -> Result<bool, WriteError> {
        let waiting = |file: &&Arc<BlockFile>| {
            file.written() != file.verified() && !self.writer.is_current(file.id)
        };
        let found = self.disk.records.shared.registry().values().find(waiting).cloned();
        let Some(file) = found else { return Ok(false) };
        file.sync_and_verify().map_err(|error| WriteError::of(&file.path, error))??;
        Ok(true)
    }

    /// Whether the log is durable up to `position`, or a test asks not to know.
    fn is_flushed(&self, position: Position, flushed: u64) -> bool {
        self.disk.options.plants.skip_flushed_comparison || position.index <= flushed
    }
}

#[cfg(test)]
mod tests;
