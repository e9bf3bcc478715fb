//! A file system in memory that forgets like a disk.
//!
//! Writes are seen at once, as through a page cache, and become durable by a sync. A power cut
//! keeps any subset of the unsynced sectors, each whole, and a prefix of the unsynced changes of
//! names. A failed sync forgets some unsynced sectors for ever while reads go on showing them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use holdfast_store::files::{File, Files, Space};

use super::limits::SECTOR;

const SECTOR_BYTES: usize = SECTOR as usize;

/// The file system. Clones share it.
#[derive(Clone)]
pub struct MemoryFiles {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct Disk {
    names: BTreeMap<PathBuf, Inode>,
    folders: BTreeSet<PathBuf>,
    /// Names as after the last sync, and what happened to them since.
    durable_names: BTreeMap<PathBuf, Inode>,
    unsynced_names: Vec<NameChange>,
    random: u64,
    syncs: u64,
    fail_sync_at: Option<u64>,
    writable: Option<u64>,
    refuses_renames: bool,
    refuses_removals: bool,
    /// Whoever reads takes this first.
    reading: Arc<Mutex<()>>,
}

#[derive(Clone)]
struct Inode(Arc<Mutex<Content>>);

#[derive(Clone, Default)]
struct Content {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors as written since the last sync, in order.
    unsynced: Vec<(usize, Vec<u8>)>,
}

enum NameChange {
    Set(PathBuf, Inode),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

struct MemoryFile {
    inode: Inode,
    disk: Arc<Mutex<Disk>>,
}

const LOCK: &str = "a test that panicked has failed already";

impl Disk {
    fn random(&mut self) -> u64 {
        // SplitMix64: small, and the same everywhere.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        match self.fail_sync_at {
            Some(at) if at <= self.syncs => Err(io::Error::other("simulated failure of a sync")),
            _ => Ok(()),
        }
    }

    fn change(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.unsynced_names.push(change);
    }
}

fn apply(names: &mut BTreeMap<PathBuf, Inode>, change: &NameChange) {
    match change {
        NameChange::Set(path, inode) => {
            names.insert(path.clone(), inode.clone());
        }
        NameChange::Remove(path) => {
            names.remove(path);
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

impl Content {
    fn write(&mut self, bytes: &[u8], offset: u64) {
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        self.seen[start..end].copy_from_slice(bytes);
        for sector in start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let from = sector * SECTOR_BYTES;
            let to = (from + SECTOR_BYTES).min(self.seen.len());
            self.unsynced.push((sector, self.seen[from..to].to_vec()));
        }
    }

    /// Makes some unsynced sectors durable and forgets the others.
    fn settle(&mut self, mut survives: impl FnMut() -> bool) {
        for (sector, bytes) in std::mem::take(&mut self.unsynced) {
            if survives() {
                let start = sector * SECTOR_BYTES;
                if self.durable.len() < start + bytes.len() {
                    self.durable.resize(start + bytes.len(), 0);
                }
                self.durable[start..start + bytes.len()].copy_from_slice(&bytes);
            }
        }
    }
}

impl Inode {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().expect(LOCK)
    }
}

impl MemoryFiles {
    /// An empty disk whose faults follow from the seed.
    pub fn new(seed: u64) -> Self {
        let disk = Disk { random: seed, ..Disk::default() };
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect(LOCK)
    }

    /// What is left after a power cut, as another disk; this one lives on as if nothing happened,
    /// for whoever still writes to it.
    pub fn power_cut(&self) -> Self {
        let mut disk = self.disk();
        let mut names = disk.durable_names.clone();
        let kept = disk.random() as usize % (disk.unsynced_names.len() + 1);
        for change in &disk.unsynced_names[..kept] {
            apply(&mut names, change);
        }
        // From nothing survives, over anything may, to everything does.
        let odds = disk.random() % 5;
        for inode in names.values_mut() {
            let mut content = inode.content().clone();
            content.settle(|| disk.random() % 4 < odds);
            content.seen = content.durable.clone();
            *inode = Inode(Arc::new(Mutex::new(content)));
        }
        let folders = disk.folders.clone();
        let random = disk.random();
        let survivor =
            Disk { durable_names: names.clone(), names, folders, random, ..Disk::default() };
        Self { disk: Arc::new(Mutex::new(survivor)) }
    }

    /// Lets the nth sync from now on fail, and all after it; 1 is the next.
    pub fn fail_sync(&self, nth: u64) {
        let mut disk = self.disk();
        disk.fail_sync_at = Some(disk.syncs + nth);
    }

    /// Lets writes fail for want of space once so many bytes were written.
    pub fn fill_up_after(&self, bytes: u64) {
        self.disk().writable = Some(bytes);
    }

    /// Lets every rename fail, as a full disk does to a folder that would have to grow, and every
    /// removal if `removals`.
    pub fn refuse_names(&self, removals: bool) {
        let mut disk = self.disk();
        (disk.refuses_renames, disk.refuses_removals) = (true, removals);
    }

    /// Whoever holds this lock stalls all reads.
    pub fn reading(&self) -> Arc<Mutex<()>> {
        self.disk().reading.clone()
    }

    /// Ends every failure that was asked for.
    pub fn heal(&self) {
        let mut disk = self.disk();
        (disk.fail_sync_at, disk.writable) = (None, None);
        (disk.refuses_renames, disk.refuses_removals) = (false, false);
    }

    /// How many syncs there were, of files and folders.
    pub fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// The paths of all files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.disk().names.keys().cloned().collect()
    }

    /// What a file holds.
    pub fn content(&self, path: &Path) -> Vec<u8> {
        self.disk().names[path].content().seen.clone()
    }

    /// Makes a file hold this, durably.
    pub fn set_content(&self, path: &Path, bytes: Vec<u8>) {
        let content = Content { durable: bytes.clone(), seen: bytes, unsynced: Vec::new() };
        let inode = Inode(Arc::new(Mutex::new(content)));
        let mut disk = self.disk();
        disk.names.insert(path.to_owned(), inode.clone());
        disk.durable_names.insert(path.to_owned(), inode);
    }

    /// Another disk with the same files, all durable.
    pub fn copy(&self) -> Self {
        let copy = Self::new(self.disk().random);
        copy.disk().folders = self.disk().folders.clone();
        for path in self.paths() {
            copy.set_content(&path, self.content(&path));
        }
        copy
    }
}

impl File for MemoryFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let reading = self.disk.lock().expect(LOCK).reading.clone();
        let _turn = reading.lock().expect(LOCK);
        let content = self.inode.content();
        let range = offset as usize..offset as usize + buffer.len();
        let bytes = content.seen.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn read_exact_at_uncached(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let content = self.inode.content();
        let range = offset as usize..offset as usize + buffer.len();
        let bytes = content.durable.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Some(writable) = &mut self.disk.lock().expect(LOCK).writable {
            let left = writable.checked_sub(bytes.len() as u64);
            *writable = left.ok_or(io::ErrorKind::StorageFull)?;
        }
        self.inode.content().write(bytes, offset);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.lock().expect(LOCK);
        let result = disk.sync();
        let failed = result.is_err();
        self.inode.content().settle(|| !failed || disk.random().is_multiple_of(2));
        result
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.inode.content().seen.len() as u64)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut content = self.inode.content();
        let (old, length) = (content.seen.len(), length as usize);
        content.seen.resize(length, 0);
        if old < length {
            content.write(&vec![0; length - old], old as u64);
        }
        Ok(())
    }
}

impl Files for MemoryFiles {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk();
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = Inode(Arc::default());
        disk.change(NameChange::Set(path.to_owned(), inode.clone()));
        Ok(Arc::new(MemoryFile { inode, disk: self.disk.clone() }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let disk = self.disk();
        let inode = disk.names.get(path).ok_or(io::ErrorKind::NotFound)?.clone();
        Ok(Arc::new(MemoryFile { inode, disk: self.disk.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        if !disk.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if disk.refuses_renames {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.change(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        if !disk.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if disk.refuses_removals {
            return Err(io::Error::other("simulated failure of a removal"));
        }
        disk.change(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let below: Vec<_> =
            disk.names.keys().filter(|name| name.starts_with(path)).cloned().collect();
        for name in below {
            disk.change(NameChange::Remove(name));
        }
        disk.folders.retain(|folder| !folder.starts_with(path));
        Ok(())
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.disk().folders.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.sync()?;
        disk.unsynced_names.clear();
        disk.durable_names = disk.names.clone();
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk();
        let names = disk.names.keys().filter(|name| name.parent() == Some(path));
        let names = names.filter_map(|name| name.file_name());
        Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let disk = self.disk();
        Ok(disk.names.contains_key(path) || disk.folders.contains(path))
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        Ok(Space { free: 1 << 40, total: 1 << 40 })
    }
}
