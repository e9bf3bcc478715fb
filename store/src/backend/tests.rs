//! The block directory may lose or damage anything, and nothing but a start's speed depends on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::*;
use crate::files::RealFiles;
use crate::options::BackendKind;
use crate::testing::{Small, files, options};
use crate::{Options, Taken};

/// Options for a real directory with a real sled in it.
fn real(directory: &Path) -> Options {
    Options {
        directory: directory.to_owned(),
        files: Arc::new(RealFiles),
        backend: BackendKind::Sled,
        ..options(&crate::files::MemoryFiles::new())
    }
}

/// A directory with a checkpoint of 300 entries, half of the first hundred given up.
fn filled() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Small::open(real(folder.path())).unwrap();
    store.apply(200, 90);
    assert!(matches!(store.take().unwrap(), Taken::Manifest(_)));
    store.compact(|main| main < 100 && main % 2 == 0);
    store.settle().unwrap();
    store.apply(300, 90);
    assert!(matches!(store.take().unwrap(), Taken::Manifest(_)));
    folder
}

/// Opens it, checks everything, and says whether the directory had to be rebuilt.
fn reopen(folder: &Path) -> bool {
    let mut store = Small::open(real(folder)).unwrap();
    assert_eq!(store.applied, 300);
    let expected = (2..=301).filter(|main| *main >= 100 || main % 2 != 0);
    let found = store.expected.keys().map(|revision| revision.main);
    assert!(found.eq(expected), "what was given up stays given up");
    store.check();
    store.apply(301, 90);
    store.check();
    store.rebuilt
}

#[test]
fn sled_is_used_when_it_is_clean_and_of_the_right_manifest() {
    let folder = filled();
    assert!(!reopen(folder.path()));
    assert!(!reopen(folder.path()));
}

#[test]
fn a_deleted_sled_is_rebuilt() {
    let folder = filled();
    fs::remove_dir_all(folder.path().join("sled")).unwrap();
    assert!(reopen(folder.path()));
    assert!(!reopen(folder.path()), "once");
}

#[test]
fn a_sled_of_another_manifest_is_rebuilt() {
    let folder = filled();
    let older = tempfile::tempdir().unwrap();
    copy(&folder.path().join("sled"), &older.path().join("sled"));
    let mut store = Small::open(real(folder.path())).unwrap();
    store.apply(400, 90);
    store.take().unwrap();
    drop(store);
    let manifests = || {
        let names = fs::read_dir(folder.path().join("snap")).unwrap();
        let mut paths: Vec<PathBuf> = names.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    // The newest manifest is lost: sled is ahead of the one before.
    fs::remove_file(manifests().last().unwrap()).unwrap();
    assert!(reopen(folder.path()));
    // An old copy of sled comes back.
    fs::remove_dir_all(folder.path().join("sled")).unwrap();
    copy(&older.path().join("sled"), &folder.path().join("sled"));
    assert!(!reopen(folder.path()), "it is the one of that manifest");
}

#[test]
fn a_damaged_sled_is_rebuilt_or_read_around() {
    let folder = filled();
    let database = folder.path().join("sled/db");
    let length = fs::metadata(&database).unwrap().len();
    let good = fs::read(&database).unwrap();
    let used = good.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    for step in 0..24 {
        let mut bytes = good.clone();
        let at = used * step / 24;
        for byte in &mut bytes[at as usize..(at as usize + 64).min(length as usize)] {
            *byte ^= 0xff;
        }
        fs::write(&database, bytes).unwrap();
        reopen(folder.path());
    }
    fs::write(&database, b"not a database").unwrap();
    assert!(reopen(folder.path()));
}

#[test]
fn an_unfinished_snapshot_and_an_unfinished_opening_do_no_harm() {
    let folder = filled();
    fs::write(folder.path().join("sled/snap.00000000000000FF.generating"), b"half").unwrap();
    assert!(!reopen(folder.path()));
    fs::write(folder.path().join("sled.opening"), b"").unwrap();
    assert!(reopen(folder.path()), "it was not survived the last time");
    assert!(!reopen(folder.path()));
}

#[test]
fn a_sled_in_use_is_left_alone() {
    let folder = filled();
    let store = Small::open(real(folder.path())).unwrap();
    let error = Small::open(real(folder.path())).err().unwrap().to_string();
    assert!(error.contains("in use"), "{error}");
    drop(store);
    assert!(!reopen(folder.path()));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// A backend that outlives its store and fails when told to.
#[derive(Clone, Default)]
struct Faulty {
    map: Arc<Mutex<MemoryBackend>>,
    /// Operations left before everything fails.
    left: Arc<Mutex<Option<u64>>>,
}

impl Faulty {
    fn spend(&self) -> Result<(), BackendError> {
        match &mut *self.left.lock().unwrap() {
            Some(0) => Err(BackendError::new("injected")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Backend for Faulty {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        self.spend()?;
        self.map.lock().unwrap().read(key)
    }
    fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<(), BackendError> {
        self.spend()?;
        self.map.lock().unwrap().insert(key, value)
    }
    fn remove(&mut self, key: &[u8]) -> Result<(), BackendError> {
        self.spend()?;
        self.map.lock().unwrap().remove(key)
    }
    fn scan(&self, prefix: &[u8], each: Each<'_>) -> Result<(), BackendError> {
        self.spend()?;
        self.map.lock().unwrap().scan(prefix, each)
    }
    fn flush(&mut self) -> Result<(), BackendError> {
        self.spend()
    }
}

#[test]
fn a_backend_may_fail_at_any_operation() {
    for left in 0..120 {
        let files = files();
        let faulty = Faulty::default();
        let made = faulty.clone();
        let options = Options {
            backend: BackendKind::Custom(Arc::new(move |_| Ok(Box::new(made.clone())))),
            ..options(&files)
        };
        let mut store = Small::open(options.clone()).unwrap();
        store.apply(100, 90);
        store.take().unwrap();
        *faulty.left.lock().unwrap() = Some(left);
        store.apply(200, 90);
        assert!(matches!(store.take().unwrap(), Taken::Manifest(_)));
        store.compact(|main| main % 4 != 0);
        store.settle().unwrap();
        store.apply(300, 90);
        assert!(matches!(store.take().unwrap(), Taken::Manifest(_)));
        store.check();
        let expected = store.expected.clone();
        drop(store);
        // Whatever state it was left in, it is found out.
        *faulty.left.lock().unwrap() = (left % 2 == 0).then_some(left);
        let store = Small::open(options).unwrap();
        assert_eq!(store.expected, expected);
        store.check();
    }
}
