//! What everyone who touches the store's files shares: the folders, and the manifests that count.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::blocks::{BlockFile, Extent, FileId};
use crate::manifest::ManifestInfo;
use crate::manifest::folder::ManifestFolder;
use crate::{Fatal, Options, Records};

/// How many manifests are kept.
pub const MANIFESTS_KEPT: usize = 2;

/// The store's files. Shared by the maintainer and by checkpoints on their way in and out.
pub(crate) struct Disk {
    pub(crate) options: Options,
    pub(crate) records: Records,
    pub(crate) folder: ManifestFolder,
    /// The sequence number of the next block file begun here.
    pub(crate) next_sequence: Arc<AtomicU64>,
    manifests: Mutex<VecDeque<KeptManifest>>,
    /// The manifests that are being made, by name. Locked before `manifests`.
    claimed: Mutex<BTreeSet<String>>,
}

/// The right to write the manifest of one name, and to remove it as long as it does not count.
/// Only one exists for a name, and none for the name of a manifest that counts.
pub(crate) struct Claim {
    disk: Arc<Disk>,
    name: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.disk.claimed().remove(&self.name);
    }
}

/// A verified manifest. It holds its files, so that none of them counts as garbage.
#[derive(Clone)]
pub(crate) struct KeptManifest {
    pub(crate) info: ManifestInfo,
    pub(crate) files: Vec<(Arc<BlockFile>, Extent)>,
}

impl KeptManifest {
    /// The identities of its files.
    pub(crate) fn ids(&self) -> Vec<FileId> {
        self.files.iter().map(|(file, _)| file.id).collect()
    }
}

impl Disk {
    pub(crate) fn new(
        options: Options,
        records: Records,
        folder: ManifestFolder,
        next_sequence: u64,
        manifests: VecDeque<KeptManifest>,
    ) -> Self {
        let next_sequence = Arc::new(AtomicU64::new(next_sequence));
        let (manifests, claimed) = (Mutex::new(manifests), Mutex::default());
        Self { options, records, folder, next_sequence, manifests, claimed }
    }

    /// The right to write this manifest; `None` if one as new counts already, or if somebody else
    /// is about to write it.
    pub(crate) fn claim(self: &Arc<Self>, manifest: &ManifestInfo) -> Option<Claim> {
        let mut claimed = self.claimed();
        let newest = self.manifests().back().map(|newest| newest.info.position.index);
        let name = manifest.name.clone();
        let free = newest < Some(manifest.position.index) && claimed.insert(name.clone());
        free.then(|| Claim { disk: self.clone(), name })
    }

    fn claimed(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.claimed.lock().expect("no panic under it")
    }

    /// The verified manifests, oldest first.
    pub(crate) fn manifests(&self) -> MutexGuard<'_, VecDeque<KeptManifest>> {
        self.manifests.lock().expect("no panic under it")
    }

    /// Counts a manifest that was taken here. False if a received one has overtaken it. Gives the
    /// names of those that count no more.
    pub(crate) fn add_manifest(&self, manifest: KeptManifest) -> (bool, Vec<String>) {
        let mut manifests = self.manifests();
        let newest = manifests.back().map(|newest| newest.info.position.index);
        if newest >= Some(manifest.info.position.index) {
            return (false, vec![manifest.info.name]);
        }
        manifests.push_back(manifest);
        let surplus = manifests.len().saturating_sub(MANIFESTS_KEPT);
        (true, manifests.drain(..surplus).map(|gone| gone.info.name).collect())
    }

    /// Counts a received manifest and no other: the log before it is gone.
    pub(crate) fn replace_manifests(&self, manifest: KeptManifest) -> Vec<String> {
        let mut manifests = self.manifests();
        let name = manifest.info.name.clone();
        let gone = manifests.drain(..).map(|gone| gone.info.name).filter(|old| *old != name);
        let gone = gone.collect();
        manifests.push_back(manifest);
        gone
    }

    /// Removes the files of manifests that count no more.
    pub(crate) fn remove_manifests(&self, names: &[String]) -> Result<(), Fatal> {
        names.iter().try_for_each(|name| self.folder.remove(name))
    }

    /// The folder of block files.
    pub(crate) fn blocks(&self) -> PathBuf {
        self.options.directory.join(BLOCKS)
    }

    /// Where a block file lies.
    pub(crate) fn block_path(&self, id: FileId) -> PathBuf {
        self.blocks().join(id.name())
    }
}

/// The folder of block files.
pub(crate) const BLOCKS: &str = "blocks";
/// The folder of manifests.
pub(crate) const SNAP: &str = "snap";
/// The folder of the block directory.
pub(crate) const SLED: &str = "sled";
/// What the names of block files that are being received end with.
pub(crate) const PARTIAL: &str = ".part";
