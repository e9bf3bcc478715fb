//! The file `holdfast.format`: whose data directory this is, and how new.

use std::io;
use std::path::Path;

use super::{OpenError, io_error};
use crate::files::Files;

const NAME: &str = "holdfast.format";
const WORD: &str = "holdfast";

/// The format of the data directory as a whole.
const FORMAT: u32 = 1;

/// Where etcd keeps its data.
const ETCD: &str = "member";

/// No valid format file is longer.
const LENGTH_MAX: u64 = 64;

/// Refuses a directory that is not ours or newer than this version. Changes nothing.
pub(crate) fn check(files: &dyn Files, directory: &Path) -> Result<(), OpenError> {
    let etcd = directory.join(ETCD);
    if files.exists(&etcd).map_err(io_error(&etcd))? {
        return Err(OpenError::Foreign { path: etcd, what: "it is a data directory of etcd" });
    }
    let path = directory.join(NAME);
    if !files.exists(&path).map_err(io_error(&path))? {
        return Ok(());
    }
    let contents = read(files, &path).map_err(io_error(&path))?;
    match parse(&contents) {
        Some(found) if found > FORMAT => Err(OpenError::Newer { path, found, known: FORMAT }),
        Some(_) => Ok(()),
        None => Err(OpenError::Foreign { path, what: "its format file makes no sense" }),
    }
}

/// Marks the directory as ours, unless it is marked.
pub(super) fn write(files: &dyn Files, directory: &Path) -> Result<(), OpenError> {
    let path = directory.join(NAME);
    if files.exists(&path).map_err(io_error(&path))? {
        return Ok(());
    }
    create(files, directory, &path).map_err(io_error(&path))
}

fn create(files: &dyn Files, directory: &Path, path: &Path) -> io::Result<()> {
    let temporary = directory.join(format!("{NAME}.tmp"));
    if files.exists(&temporary)? {
        files.remove(&temporary)?;
    }
    let file = files.create(&temporary)?;
    file.write_all_at(format!("{WORD} {FORMAT}\n").as_bytes(), 0)?;
    file.sync_data()?;
    files.rename(&temporary, path)?;
    files.sync_directory(directory)
}

fn read(files: &dyn Files, path: &Path) -> io::Result<Vec<u8>> {
    let file = files.open(path)?;
    let mut bytes = vec![0; file.length()?.min(LENGTH_MAX) as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn parse(contents: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(contents).ok()?;
    text.strip_prefix(WORD)?.strip_prefix(' ')?.trim_end().parse().ok()
}
