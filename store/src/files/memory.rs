//! Files in memory that can lose power: for tests of everything that writes to disk.
//!
//! Promises exactly what [`Files`] promises and, at [`MemoryFiles::crash`], nothing more: bytes are
//! safe after `sync_data`, names after `sync_directory` on their folder, and of everything else
//! any part may be gone. Deterministic: the only choices are those of the numbers given to `crash`.
//! Handles opened before a crash answer every call with an error afterwards.
//!
//! Leaves out: permissions, links, and folders' own durability (a folder is durable once made).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{File, Files, Space};

mod node;

use node::Node;

/// The unit in which a disk keeps or loses what was written.
pub const SECTOR_BYTES: usize = 512;

/// A file system in memory. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryFiles {
    state: Arc<Mutex<State>>,
}

/// What becomes, at a crash, of bytes and names that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// They are lost.
    Lost,
    /// They are kept, as after `kill -9`.
    Kept,
    /// Writes are kept up to a point in time, and the one at that point in part: every byte of it
    /// up to some sector. Names likewise, up to that point.
    Prefix,
    /// Of every file, any set of sectors; of every folder, any set of changes.
    Torn,
}

/// The operations that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Reading bytes.
    Read,
    /// Writing bytes, or setting a length.
    Write,
    /// `sync_data`.
    Sync,
    /// `sync_directory`.
    SyncDirectory,
    /// Making, renaming or removing a name.
    Name,
}

/// Chooses a number below the one given; what `crash` draws its choices from.
pub type Choose<'a> = &'a mut dyn FnMut(u64) -> u64;

#[derive(Default)]
struct State {
    /// What is visible, and what would be left after losing everything unsynced.
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    name_changes: Vec<NameChange>,
    folders: BTreeSet<PathBuf>,
    nodes: BTreeMap<u64, Node>,
    next_node: u64,
    /// Rises at a crash: older handles are dead.
    boot: u64,
    /// Counts changes, so that a prefix of them can be kept.
    clock: u64,
    capacity: Option<u64>,
    faults: Vec<Fault>,
    operations: u64,
    power_off_after: Option<u64>,
}

/// One change of one folder.
#[derive(Clone)]
struct NameChange {
    time: u64,
    folder: PathBuf,
    /// Applied together: a rename is one change.
    set: Vec<(PathBuf, Option<u64>)>,
}

struct Fault {
    operation: Operation,
    path_contains: String,
    /// How many matching operations succeed first.
    after: u64,
    kind: io::ErrorKind,
    lasting: bool,
}

struct MemoryFile {
    state: Arc<Mutex<State>>,
    path: PathBuf,
    node: u64,
    boot: u64,
}

impl MemoryFiles {
    /// An empty file system without bounds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts the power: open handles die, and of what was not synced `unsynced` says what is left.
    pub fn crash(&self, unsynced: Unsynced, choose: Choose<'_>) {
        self.lock().crash(unsynced, choose);
    }

    /// Makes every operation fail from the one after the next `count` operations that change
    /// something (writes, syncs, names), as if the power had gone; [`MemoryFiles::crash`] ends it.
    pub fn power_off_after(&self, count: u64) {
        let mut state = self.lock();
        state.power_off_after = Some(state.operations + count);
    }

    /// How many operations that change something there have been.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Makes one `operation` on a path that contains `path_contains` fail, after `after` successes.
    pub fn fail(&self, operation: Operation, path_contains: &str, after: u64, kind: io::ErrorKind) {
        self.add_fault(operation, path_contains, after, kind, false);
    }

    /// As [`MemoryFiles::fail`], and every one after it until [`MemoryFiles::heal`].
    pub fn fail_from(
        &self,
        operation: Operation,
        path_contains: &str,
        after: u64,
        kind: io::ErrorKind,
    ) {
        self.add_fault(operation, path_contains, after, kind, true);
    }

    /// Takes all injected faults back.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// Bounds the bytes of all files; writes beyond fail with `StorageFull`.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.lock().capacity = capacity;
    }

    /// Flips bits of a byte, in memory and on disk, as rot does. The bits are those set in `mask`.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let mut state = self.lock();
        let node = state.node_at(path)?;
        state.nodes.get_mut(&node).ok_or(io::ErrorKind::NotFound)?.flip(offset, mask)
    }

    /// The bytes of a file, as a reader would see them now.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.lock();
        let node = state.node_at(path)?;
        Ok(state.nodes[&node].visible().to_vec())
    }

    /// Paths of all files, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().names.keys().cloned().collect()
    }

    /// A copy that shares nothing with this one; handles stay with this one.
    pub fn duplicate(&self) -> Self {
        let state = self.lock();
        let copy = State {
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            name_changes: state.name_changes.clone(),
            folders: state.folders.clone(),
            nodes: state.nodes.clone(),
            next_node: state.next_node,
            boot: state.boot,
            clock: state.clock,
            capacity: state.capacity,
            operations: state.operations,
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(copy)) }
    }

    fn add_fault(
        &self,
        operation: Operation,
        path_contains: &str,
        after: u64,
        kind: io::ErrorKind,
        lasting: bool,
    ) {
        let path_contains = path_contains.to_owned();
        self.lock().faults.push(Fault { operation, path_contains, after, kind, lasting });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn file(&self, state: &State, path: &Path, node: u64) -> Arc<dyn File> {
        let (path, boot) = (path.to_owned(), state.boot);
        Arc::new(MemoryFile { state: self.state.clone(), path, node, boot })
    }
}

impl State {
    /// Called before every operation: counts it, and fails it if a fault says so.
    fn begin(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        if self.power_off_after.is_some_and(|limit| self.operations >= limit) {
            return Err(io::Error::other("the power is off"));
        }
        if operation != Operation::Read {
            self.operations += 1;
        }
        let path = path.to_string_lossy();
        let matching = |fault: &&mut Fault| {
            fault.operation == operation && path.contains(&fault.path_contains)
        };
        let mut failed = None;
        for fault in self.faults.iter_mut().filter(matching) {
            match fault.after {
                0 => failed = Some((fault.kind, fault.lasting)),
                _ => fault.after -= 1,
            }
        }
        let Some((kind, lasting)) = failed else { return Ok(()) };
        if !lasting {
            let spent = self.faults.iter().position(|fault| {
                fault.operation == operation
                    && fault.after == 0
                    && path.contains(&fault.path_contains)
            });
            self.faults.remove(spent.expect("it was found a moment ago"));
        }
        Err(io::Error::new(kind, format!("injected: {operation:?} of {path}")))
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn node_at(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| not_found(path))
    }

    fn used(&self) -> u64 {
        let mut nodes: Vec<u64> = self.names.values().copied().collect();
        nodes.dedup();
        nodes.iter().map(|node| self.nodes[node].visible().len() as u64).sum()
    }

    fn check_space(&self, more: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if self.used() + more > capacity => {
                Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device"))
            }
            _ => Ok(()),
        }
    }

    fn set_names(&mut self, set: Vec<(PathBuf, Option<u64>)>) {
        let folder = parent(&set[0].0);
        apply_names(&mut self.names, &set);
        let time = self.tick();
        self.name_changes.push(NameChange { time, folder, set });
    }

    fn sync_names(&mut self, folder: &Path) {
        let changes = std::mem::take(&mut self.name_changes);
        for change in changes {
            if change.folder == folder {
                apply_names(&mut self.durable_names, &change.set);
            } else {
                self.name_changes.push(change);
            }
        }
    }

    fn crash(&mut self, unsynced: Unsynced, choose: Choose<'_>) {
        let until = match unsynced {
            Unsynced::Prefix => choose(self.clock + 2),
            _ => 0,
        };
        for change in std::mem::take(&mut self.name_changes) {
            let kept = match unsynced {
                Unsynced::Lost => false,
                Unsynced::Kept => true,
                Unsynced::Prefix => change.time < until,
                Unsynced::Torn => choose(2) == 1,
            };
            if kept {
                apply_names(&mut self.durable_names, &change.set);
            }
        }
        self.names = self.durable_names.clone();
        let alive: BTreeSet<u64> = self.names.values().copied().collect();
        self.nodes.retain(|node, _| alive.contains(node));
        for node in self.nodes.values_mut() {
            node.crash(unsynced, until, choose);
        }
        self.boot += 1;
        self.power_off_after = None;
        self.faults.clear();
    }
}

impl MemoryFile {
    fn with<T>(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut State, u64) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = lock(&self.state);
        if state.boot != self.boot {
            return Err(io::Error::other("this file was opened before the crash"));
        }
        state.begin(operation, &self.path)?;
        act(&mut state, self.node)
    }
}

impl File for MemoryFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(Operation::Read, |state, node| state.nodes[&node].read(buffer, offset))
    }

    fn read_exact_at_uncached(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(Operation::Write, |state, node| {
            let length = state.nodes[&node].visible().len() as u64;
            state.check_space((offset + bytes.len() as u64).saturating_sub(length))?;
            let time = state.tick();
            let node = state.nodes.get_mut(&node).expect("open files keep their node");
            node.write(time, offset, bytes);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(Operation::Sync, |state, node| {
            state.nodes.get_mut(&node).expect("open files keep their node").sync();
            Ok(())
        })
    }

    fn length(&self) -> io::Result<u64> {
        self.with(Operation::Read, |state, node| Ok(state.nodes[&node].visible().len() as u64))
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.with(Operation::Write, |state, node| {
            let present = state.nodes[&node].visible().len() as u64;
            state.check_space(length.saturating_sub(present))?;
            let time = state.tick();
            let node = state.nodes.get_mut(&node).expect("open files keep their node");
            node.set_length(time, length);
            Ok(())
        })
    }
}

impl Files for MemoryFiles {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.lock();
        state.begin(Operation::Name, path)?;
        if state.names.contains_key(path) || state.folders.contains(path) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, path.display().to_string()));
        }
        if !state.folders.contains(&parent(path)) {
            return Err(not_found(path));
        }
        let node = state.next_node;
        state.next_node += 1;
        state.nodes.insert(node, Node::default());
        state.set_names(vec![(path.to_owned(), Some(node))]);
        Ok(self.file(&state, path, node))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.lock();
        state.begin(Operation::Read, path)?;
        let node = state.node_at(path)?;
        Ok(self.file(&state, path, node))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(Operation::Name, from)?;
        let node = state.node_at(from)?;
        state.set_names(vec![(from.to_owned(), None), (to.to_owned(), Some(node))]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(Operation::Name, path)?;
        state.node_at(path)?;
        state.set_names(vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(Operation::Name, path)?;
        let beneath: Vec<_> = state.names.keys().filter(|p| p.starts_with(path)).cloned().collect();
        for path in beneath {
            state.set_names(vec![(path, None)]);
        }
        state.folders.retain(|folder| !folder.starts_with(path));
        Ok(())
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(Operation::Name, path)?;
        let folders = path.ancestors().map(Path::to_owned).collect::<Vec<_>>();
        state.folders.extend(folders);
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(Operation::SyncDirectory, path)?;
        state.sync_names(path);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut state = self.lock();
        state.begin(Operation::Read, path)?;
        if !state.folders.contains(path) {
            return Err(not_found(path));
        }
        let names = state.names.keys().chain(state.folders.iter());
        let beneath = names.filter(|name| name.parent() == Some(path));
        let mut names: Vec<String> = beneath
            .filter_map(|name| Some(name.file_name()?.to_string_lossy().into_owned()))
            .collect();
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.lock();
        state.begin(Operation::Read, path)?;
        Ok(state.names.contains_key(path) || state.folders.contains(path))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let mut state = self.lock();
        state.begin(Operation::Read, path)?;
        let total = state.capacity.unwrap_or(1 << 40);
        Ok(Space { free: total.saturating_sub(state.used()), total })
    }
}

fn apply_names(names: &mut BTreeMap<PathBuf, u64>, set: &[(PathBuf, Option<u64>)]) {
    for (path, node) in set {
        match node {
            Some(node) => names.insert(path.clone(), *node),
            None => names.remove(path),
        };
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, path.display().to_string())
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no panic under it")
}

#[cfg(test)]
mod tests;
