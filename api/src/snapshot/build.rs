//! From a history to a database of etcd's, a slice at a time.

use std::fs::File;
use std::io::{self, BufWriter};

use holdfast_raft::Member;
use holdfast_store::auth::{FIRST_REVISION, StoredAuth};
use holdfast_store::{Alarm, Fatal, History, ReadError, Revision};

use super::schema::{self, record_pair};
use crate::bolt::{WriteError, Writer};
use crate::status::Error;

/// Bytes of records written in one slice.
const SLICE_BYTES: usize = 1 << 20;
const BUFFER_BYTES: usize = 256 << 10;

/// Why a file was not made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The history could not be read to its end.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no room for the file.
    #[error("there is no room for the file")]
    NoSpace,
    /// The file cannot be written.
    #[error(transparent)]
    Io(io::Error),
    /// The pool did not take the work.
    #[error("{}", .0.text())]
    Refused(Error),
}

impl From<io::Error> for BuildError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Io(error),
        }
    }
}

impl From<WriteError> for BuildError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Io(error) => error.into(),
            WriteError::TooLong(_) => Self::NoSpace,
        }
    }
}

/// A database in the making.
pub struct Build {
    history: History,
    writer: Writer<BufWriter<File>>,
}

impl Build {
    /// Writes everything but the records.
    pub fn begin(
        file: File,
        bytes_max: u64,
        history: History,
        members: &[Member],
        alarms: &[Alarm],
        version: &str,
    ) -> Result<Self, BuildError> {
        let mut writer = Writer::begin(BufWriter::with_capacity(BUFFER_BYTES, file), bytes_max)?;
        write_meta(&mut writer, &history, members, version)?;
        write_cluster(&mut writer, members, version)?;
        write_auth(&mut writer, history.auth())?;
        writer.bucket(schema::ALARM)?;
        write_sorted(&mut writer, alarms.iter().map(schema::alarm_pair))?;
        writer.bucket(schema::LEASE)?;
        // By the bytes of their ids, where the store has them by number.
        let mut leases: Vec<_> = history.leases().iter().map(schema::lease_pair).collect();
        leases.sort();
        leases.iter().try_for_each(|(key, value)| writer.put(key, value))?;
        writer.bucket(schema::KEY)?;
        Ok(Self { history, writer })
    }

    /// Writes some records; false when there are no more.
    pub fn step(&mut self) -> Result<bool, BuildError> {
        let Self { history, writer } = self;
        let mut failed = None;
        let goes_on = history.step(SLICE_BYTES, &mut |record| {
            let (key, value) = record_pair(record);
            writer.put(&key, &value).map_err(|error| {
                let fatal = Fatal::new(&error);
                failed = Some(error);
                fatal
            })
        });
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(goes_on?),
        }
    }

    /// The finished file and its length.
    pub fn finish(self) -> Result<(File, u64), BuildError> {
        let (file, bytes) = self.writer.finish()?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((file, bytes))
    }
}

type Result<T, E = BuildError> = std::result::Result<T, E>;

fn write_meta(
    writer: &mut Writer<BufWriter<File>>,
    history: &History,
    members: &[Member],
    version: &str,
) -> Result<()> {
    let at = history.position();
    let compacted = schema::revision_key(Revision::new(history.compacted(), 0));
    writer.bucket(schema::META)?;
    writer.put(schema::CONF_STATE, &schema::conf_state(members))?;
    writer.put(schema::CONSISTENT_INDEX, &at.index.to_be_bytes())?;
    if history.compacted() >= 0 {
        writer.put(schema::FINISHED_COMPACT, &compacted)?;
        writer.put(schema::SCHEDULED_COMPACT, &compacted)?;
    }
    writer.put(schema::STORAGE_VERSION, version.as_bytes())?;
    writer.put(schema::TERM, &at.term.to_be_bytes())?;
    Ok(())
}

fn write_cluster(
    writer: &mut Writer<BufWriter<File>>,
    members: &[Member],
    version: &str,
) -> Result<()> {
    writer.bucket(schema::CLUSTER)?;
    writer.put(schema::CLUSTER_VERSION, version.as_bytes())?;
    writer.bucket(schema::MEMBERS)?;
    write_sorted(writer, members.iter().map(schema::member_pair))?;
    writer.bucket(schema::MEMBERS_REMOVED)?;
    Ok(())
}

fn write_auth(writer: &mut Writer<BufWriter<File>>, auth: Option<&StoredAuth>) -> Result<()> {
    writer.bucket(schema::AUTH)?;
    // etcd does not write that authentication is off where nobody ever set it up.
    if let Some(auth) = auth {
        writer.put(schema::AUTH_ENABLED, &[u8::from(auth.enabled)])?;
    }
    let revision = auth.map_or(FIRST_REVISION, |auth| auth.revision);
    writer.put(schema::AUTH_REVISION, &revision.to_be_bytes())?;
    writer.bucket(schema::AUTH_ROLES)?;
    let roles = auth.map(|auth| auth.roles.iter().map(schema::role_pair));
    write_sorted(writer, roles.into_iter().flatten())?;
    writer.bucket(schema::AUTH_USERS)?;
    let users = auth.map(|auth| auth.users.iter().map(schema::user_pair));
    write_sorted(writer, users.into_iter().flatten())
}

fn write_sorted(
    writer: &mut Writer<BufWriter<File>>,
    pairs: impl Iterator<Item = (Vec<u8>, Vec<u8>)>,
) -> Result<()> {
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort();
    pairs.iter().try_for_each(|(key, value)| Ok(writer.put(key, value)?))
}
