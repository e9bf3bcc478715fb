//! The data directory: whose it is, and that nobody else uses it.
//!
//! `identity` holds the member, its cluster and a random incarnation. An incarnation stands for
//! everything the directory has promised: votes given, entries acknowledged. It is written once the
//! log has begun, so one of them without the other was not left so by a crash.
//!
//! `importing` marks a directory that is being filled with a history from elsewhere. It is durable
//! before anything else is written, and goes when the identity is there.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_store::files::{File, Files};
use prost::Message;
use rand::RngExt;

use crate::error::OpenError;
use crate::identity::Identity;
use crate::node::Plan;

const FORMAT: u32 = 1;
const NAME: &str = "identity";
const LOCK: &str = "lock";
const TEMPORARY: &str = "identity.tmp";
const IMPORTING: &str = "importing";
/// For whoever finds it.
const IMPORTING_TEXT: &[u8] =
    b"A history is being written into this directory. It is not whole yet.\n";
/// The folder in which etcd keeps a member.
const ETCD: &str = "member";

#[derive(Clone, PartialEq, prost::Message)]
struct IdentityFile {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(fixed64, tag = "2")]
    cluster: u64,
    #[prost(fixed64, tag = "3")]
    member: u64,
    #[prost(fixed64, tag = "4")]
    incarnation: u64,
    /// See [`Marks`].
    #[prost(fixed64, optional, tag = "5")]
    forced: Option<u64>,
    /// See [`Marks`].
    #[prost(bool, tag = "6")]
    log_apart: bool,
    /// Of the encoding with this field at 0.
    #[prost(fixed32, tag = "15")]
    crc32c: u32,
}

/// What an identity says besides whose it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// There once `--force-new-cluster` is given, until a start without it: where the membership of
    /// this member alone stands in the log, or will stand if the log is not that long; 0 if none was
    /// needed.
    pub(crate) forced: Option<u64>,
    /// The log lies in a directory of its own.
    pub(crate) log_apart: bool,
}

/// An opened data directory.
pub(crate) struct Directory {
    pub(crate) identity: Identity,
    /// The identity has just been drawn, and is not written yet.
    pub(crate) is_new: bool,
}

/// Held for as long as this process uses the directory; the system releases it with the process.
pub(crate) struct Lock {
    _file: std::fs::File,
}

/// Takes the directory for this process. Only for real files. A directory of etcd's is left alone.
pub(crate) fn lock(directory: &Path) -> Result<Lock, OpenError> {
    let failed = |source| {
        let what = format!("locking {}", directory.display());
        OpenError::Io { what, source }
    };
    if directory.join(ETCD).exists() {
        return Err(OpenError::WrittenByEtcd(directory.display().to_string()));
    }
    if directory.join(IMPORTING).exists() {
        return Err(OpenError::ImportUnfinished(directory.display().to_string()));
    }
    make_private(directory).map_err(failed)?;
    let path = directory.join(LOCK);
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(failed)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock { _file: file }),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(OpenError::DirectoryInUse(directory.display().to_string()))
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// Takes the directory for reading; nothing is made there. None if nobody ever locked it.
pub(crate) fn lock_for_reading(directory: &Path) -> Result<Option<Lock>, OpenError> {
    let failed = |source: io::Error| {
        let what = format!("locking {}", directory.display());
        OpenError::Io { what, source }
    };
    let file = match std::fs::File::open(directory.join(LOCK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(OpenError::DirectoryInUse(directory.display().to_string()))
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// Makes the directory and its parents durably, for this user alone: it will hold everybody's secrets.
fn make_private(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let missing: Vec<_> = directory.ancestors().take_while(|path| !path.exists()).collect();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // A name lasts once the directory that it stands in is synced.
    for made in missing {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        std::fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// The identity in the directory, which is made if it is not there; none before [`record`].
pub(crate) fn find(directory: &Path, files: &dyn Files) -> Result<Option<Identity>, OpenError> {
    let failed = |what: &str| {
        let what = format!("{what} {}", directory.display());
        move |source| OpenError::Io { what, source }
    };
    if files.exists(&directory.join(ETCD)).map_err(failed("looking into"))? {
        return Err(OpenError::WrittenByEtcd(directory.display().to_string()));
    }
    check_imported(directory, files)?;
    files.create_directory(directory).map_err(failed("making"))?;
    let path = directory.join(NAME);
    if !files.exists(&path).map_err(failed("looking into"))? {
        return Ok(None);
    }
    let found = read(&path, files).map_err(failed("reading the identity in"))?;
    if found.format > FORMAT {
        return Err(OpenError::NewerFormat {
            directory: directory.display().to_string(),
            found: found.format,
            known: FORMAT,
        });
    }
    Ok(Some(Identity {
        member_id: found.member,
        cluster_id: found.cluster,
        incarnation: found.incarnation,
    }))
}

/// The directory of the member that `found` names, or of a new one of the `plan`. The flags are
/// history once a member has data, as with etcd: members may have been added or have moved since.
/// But a directory of another member of the plan has been mixed up with this one's.
pub(crate) fn open(
    directory: &Path,
    found: Option<Identity>,
    plan: &Plan,
) -> Result<Directory, OpenError> {
    let Some(identity) = found else {
        let incarnation = crate::runtime::generator().random_range(1..=u64::MAX);
        let Plan { member_id, cluster_id, .. } = *plan;
        return Ok(Directory {
            identity: Identity { member_id, cluster_id, incarnation },
            is_new: true,
        });
    };
    let describe = |member: u64, cluster: u64| format!("{member:x} of cluster {cluster:x}");
    if identity.member_id != plan.member_id && plan.members.contains_key(&identity.member_id) {
        return Err(OpenError::WrongMember {
            directory: directory.display().to_string(),
            found: describe(identity.member_id, identity.cluster_id),
            expected: describe(plan.member_id, plan.cluster_id),
        });
    }
    Ok(Directory { identity, is_new: false })
}

/// Refuses a directory in which an import was begun and not finished.
pub(crate) fn check_imported(directory: &Path, files: &dyn Files) -> Result<(), OpenError> {
    let is_importing = files.exists(&directory.join(IMPORTING)).map_err(|source| {
        let what = format!("looking into {}", directory.display());
        OpenError::Io { what, source }
    })?;
    match is_importing {
        true => Err(OpenError::ImportUnfinished(directory.display().to_string())),
        false => Ok(()),
    }
}

/// Refuses a directory that holds anything but the file that it is locked by.
pub(crate) fn check_empty(directory: &Path, files: &dyn Files) -> Result<(), OpenError> {
    check_imported(directory, files)?;
    let failed = |source| {
        let what = format!("looking into {}", directory.display());
        OpenError::Io { what, source }
    };
    let names = match files.exists(directory).map_err(failed)? {
        true => files.list(directory).map_err(failed)?,
        false => Vec::new(),
    };
    match names.iter().all(|name| name == LOCK) {
        true => Ok(()),
        false => Err(OpenError::NotEmpty(directory.display().to_string())),
    }
}

/// Marks the directory, durably, before an import writes into it.
pub(crate) fn begin_import(directory: &Path, files: &dyn Files) -> Result<(), OpenError> {
    let mark = || {
        files.create_directory(directory)?;
        let file = files.create(&directory.join(IMPORTING))?;
        file.write_all_at(IMPORTING_TEXT, 0)?;
        file.sync_data()?;
        sync_with_parent(directory, files)
    };
    mark().map_err(|source| {
        let what = format!("marking {} as being imported into", directory.display());
        OpenError::Io { what, source }
    })
}

/// Takes the mark away, durably. What was imported is whole, and so is the identity.
pub(crate) fn end_import(directory: &Path, files: &dyn Files) -> Result<(), OpenError> {
    let unmark = || {
        files.remove(&directory.join(IMPORTING))?;
        files.sync_directory(directory)
    };
    unmark().map_err(|source| {
        let what = format!("finishing the import into {}", directory.display());
        OpenError::Io { what, source }
    })
}

/// Whose directory it is, without taking it.
pub(crate) fn inspect(directory: &Path, files: &dyn Files) -> Result<Identity, OpenError> {
    let found = read(&directory.join(NAME), files).map_err(|source| {
        let what = format!("reading the identity in {}", directory.display());
        OpenError::Io { what, source }
    })?;
    let (member_id, cluster_id) = (found.member, found.cluster);
    Ok(Identity { member_id, cluster_id, incarnation: found.incarnation })
}

/// As [`inspect`]; none where there is no identity.
pub(crate) fn peek(directory: &Path, files: &dyn Files) -> Result<Option<Identity>, OpenError> {
    let is_there = files.exists(&directory.join(NAME)).map_err(|source| {
        let what = format!("looking into {}", directory.display());
        OpenError::Io { what, source }
    })?;
    is_there.then(|| inspect(directory, files)).transpose()
}

/// What the identity in the directory says besides whose it is.
pub(crate) fn marks(directory: &Path, files: &dyn Files) -> Result<Marks, OpenError> {
    let found = read(&directory.join(NAME), files).map_err(|source| {
        let what = format!("reading the identity in {}", directory.display());
        OpenError::Io { what, source }
    })?;
    Ok(Marks { forced: found.forced, log_apart: found.log_apart })
}

/// Writes the identity and its marks, durably. The log that answers for it has to be there.
pub(crate) fn record(
    directory: &Path,
    files: &dyn Files,
    identity: Identity,
    marks: Marks,
) -> Result<(), OpenError> {
    create(directory, files, identity, marks).map_err(|source| {
        let what = format!("writing the identity into {}", directory.display());
        OpenError::Io { what, source }
    })
}

fn create(directory: &Path, files: &dyn Files, identity: Identity, marks: Marks) -> io::Result<()> {
    let mut content = IdentityFile {
        format: FORMAT,
        cluster: identity.cluster_id,
        member: identity.member_id,
        incarnation: identity.incarnation,
        forced: marks.forced,
        log_apart: marks.log_apart,
        crc32c: 0,
    };
    content.crc32c = crc32c::crc32c(&content.encode_to_vec());
    let temporary = directory.join(TEMPORARY);
    if files.exists(&temporary)? {
        files.remove(&temporary)?;
    }
    let file = files.create(&temporary)?;
    file.write_all_at(&content.encode_to_vec(), 0)?;
    file.sync_data()?;
    files.rename(&temporary, &directory.join(NAME))?;
    sync_with_parent(directory, files)
}

fn sync_with_parent(directory: &Path, files: &dyn Files) -> io::Result<()> {
    files.sync_directory(directory)?;
    match directory.parent() {
        Some(parent) => files.sync_directory(parent),
        None => Ok(()),
    }
}

fn read(path: &Path, files: &dyn Files) -> io::Result<IdentityFile> {
    let file: Arc<dyn File> = files.open(path)?;
    let length = usize::try_from(file.length()?).map_err(io::Error::other)?;
    if length > 4096 {
        return Err(damaged());
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    let content = IdentityFile::decode(Bytes::from(bytes)).map_err(|_| damaged())?;
    let bare = IdentityFile { crc32c: 0, ..content };
    if content.format <= FORMAT && crc32c::crc32c(&bare.encode_to_vec()) != content.crc32c {
        return Err(damaged());
    }
    Ok(content)
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the identity file is damaged")
}

#[cfg(test)]
mod tests {
    use holdfast_store::files::{MemoryFiles, RealFiles};

    use super::*;
    use crate::types::PeerNode;

    const PATH: &str = "/data";

    fn plan(member_id: u64, cluster_id: u64) -> Plan {
        let members = [1, 2].map(|member| (member, PeerNode::default())).into();
        Plan { member_id, cluster_id, members }
    }

    fn open_as(files: &dyn Files, plan: &Plan) -> Result<Directory, OpenError> {
        let directory = Path::new(PATH);
        open(directory, find(directory, files)?, plan)
    }

    #[test]
    fn an_identity_is_made_once_and_found_again() {
        let files = MemoryFiles::default();
        let made = open_as(&files, &plan(1, 2)).expect("made");
        assert!(made.is_new && open_as(&files, &plan(1, 2)).expect("made again").is_new);
        record(Path::new(PATH), &files, made.identity, Marks::default()).expect("written");
        let found = open_as(&files, &plan(1, 2)).expect("found");
        assert_eq!((made.identity, false), (found.identity, found.is_new));
        // Added at run time, it has an id that does not follow from its flags.
        let added = Plan { members: [(9, PeerNode::default())].into(), ..plan(9, 2) };
        for plan in [plan(1, 3), added] {
            let changed = open_as(&files, &plan).expect("the initial cluster is history");
            assert_eq!(made.identity, changed.identity);
        }
        let mixed_up = open_as(&files, &plan(2, 2));
        assert!(matches!(mixed_up, Err(OpenError::WrongMember { .. })));
        files.flip(Path::new("/data/identity"), 12, 1).expect("there");
        assert!(matches!(open_as(&files, &plan(1, 2)), Err(OpenError::Io { .. })));
    }

    #[test]
    fn an_identity_is_replaced_whole() {
        let files = MemoryFiles::default();
        let folder = Path::new(PATH);
        let made = open_as(&files, &plan(1, 2)).expect("made").identity;
        let moved = Identity { cluster_id: 3, ..made };
        for (identity, forced) in [(made, None), (moved, Some(9)), (moved, Some(0)), (moved, None)]
        {
            let written = Marks { forced, log_apart: forced == Some(9) };
            record(folder, &files, identity, written).expect("written");
            assert_eq!(find(folder, &files).expect("readable"), Some(identity));
            assert_eq!(marks(folder, &files).expect("readable"), written);
        }
    }

    #[test]
    fn a_directory_is_used_by_one_process_at_a_time() {
        let directory = tempfile::tempdir().expect("a folder");
        let held = lock(directory.path()).expect("free");
        assert!(matches!(lock(directory.path()), Err(OpenError::DirectoryInUse(_))));
        let reading = lock_for_reading(directory.path());
        assert!(matches!(reading, Err(OpenError::DirectoryInUse(_))));
        drop(held);
        let _held = lock(directory.path()).expect("free again");
        let found = find(directory.path(), &RealFiles).expect("a lock file is no obstacle");
        assert_eq!(found, None);
    }

    #[test]
    fn nothing_is_locked_in_a_directory_of_etcd() {
        let directory = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(directory.path().join(ETCD)).expect("made");
        assert!(matches!(lock(directory.path()), Err(OpenError::WrittenByEtcd(_))));
        assert!(!directory.path().join(LOCK).exists());
    }
}
