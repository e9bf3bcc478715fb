//! Snapshots in etcd's own form: the Snapshot call, and what `holdfast util` does with files.
//!
//! A snapshot is a database of etcd's, made from the history at one moment in a temporary file that
//! has no name, and sent from there. Who asks while a file is being sent shares it, if nothing was
//! applied since its moment; otherwise a newer one is made. One is made at a time, in slices on the
//! pool, and no more than [`FILES_MAX`] exist; whoever would need one more is refused after a while.

pub mod build;
pub mod file;
pub mod room;
pub mod schema;
mod stream;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use holdfast_store::{ReadError, Rejected};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Code;

use crate::maintenance::minor_version;
use crate::services::Services;
use crate::status::Error;
use build::{Build, BuildError};
use room::Room;

pub use stream::Sending;

/// Files that are being made or sent.
const FILES_MAX: usize = 2;
/// How often a compaction may overtake the making of a file.
const ATTEMPTS: usize = 3;
/// How long a request waits for one of the files to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where snapshots are asked for; one for all runtimes.
pub struct Desk {
    room: Room,
    turn: Semaphore,
    files: Arc<Semaphore>,
    newest: Mutex<Weak<Built>>,
}

/// A snapshot in its file, which is gone with it.
pub struct Built {
    file: File,
    bytes: u64,
    /// The version of etcd that the file is made for.
    version: String,
    /// The last entry that it contains.
    index: u64,
    room: Room,
    _permit: OwnedSemaphorePermit,
}

impl Desk {
    /// Temporary files will lie in `directory`.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            room: Room::of(directory),
            turn: Semaphore::new(1),
            files: Arc::new(Semaphore::new(FILES_MAX)),
            newest: Mutex::default(),
        }
    }

    /// A file that contains everything applied by now.
    async fn file(&self, services: &Services) -> Result<Arc<Built>, Error> {
        let wanted = services.reader.applied().index;
        let mut permit = None;
        loop {
            let turn = self.turn.acquire().await.map_err(|_| Error::Stopped)?;
            let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
            if let Some(newest) = newest.filter(|newest| newest.index >= wanted) {
                return Ok(newest);
            }
            permit = permit.or_else(|| self.files.clone().try_acquire_owned().ok());
            let Some(permit) = permit.take() else {
                // Others may share a file meanwhile.
                drop(turn);
                permit = Some(self.wait_for_file().await?);
                continue;
            };
            let built = Arc::new(self.build(services, permit).await?);
            *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&built);
            return Ok(built);
        }
    }

    async fn wait_for_file(&self) -> Result<OwnedSemaphorePermit, Error> {
        let permit = self.files.clone().acquire_owned();
        match tokio::time::timeout(PATIENCE, permit).await {
            Ok(permit) => permit.map_err(|_| Error::Stopped),
            Err(_) => Err(Error::Other(
                Code::ResourceExhausted,
                "too many snapshots are being sent: try again when one of them has ended".into(),
            )),
        }
    }

    async fn build(
        &self,
        services: &Services,
        permit: OwnedSemaphorePermit,
    ) -> Result<Built, Error> {
        let mut attempts = 1;
        let (file, bytes, index) = loop {
            match self.attempt(services).await {
                Err(BuildError::Read(ReadError::Rejected(Rejected::Compacted)))
                    if attempts < ATTEMPTS =>
                {
                    attempts += 1;
                }
                Err(error) => return Err(refusal(services, error)),
                Ok(made) => break made,
            }
        };
        tracing::info!(bytes, index, "made a snapshot");
        let version = minor_version(services.shared.etcd_version);
        Ok(Built { file, bytes, version, index, room: self.room.clone(), _permit: permit })
    }

    async fn attempt(&self, services: &Services) -> Result<(File, u64, u64), BuildError> {
        let history = services.node().history().await?;
        let index = history.position().index;
        let members = services.node().members();
        let alarms = services.reader.alarms();
        let version = minor_version(services.shared.etcd_version);
        let estimate = estimate(services);
        let room = self.room.clone();
        let begin = move || {
            let bytes_max = room.left()?;
            if bytes_max < estimate {
                return Err(BuildError::NoSpace);
            }
            let file = nameless(room.directory())?;
            Build::begin(file, bytes_max, history, &members, &alarms, &version)
        };
        let pool = &services.shared.pool;
        let mut build = pool.run(begin).await.map_err(BuildError::Refused)??;
        loop {
            let room = self.room.clone();
            let step = move || match room.left()? {
                0 => Err(BuildError::NoSpace),
                _ => build.step().map(|goes_on| (build, goes_on)),
            };
            let goes_on;
            (build, goes_on) = pool.run_next(step).await.map_err(BuildError::Refused)??;
            if !goes_on {
                break;
            }
        }
        let (file, bytes) = build.finish()?;
        Ok((file, bytes, index))
    }
}

/// Answers the call: the stream begins when the file has been made.
pub async fn snapshot(services: Arc<Services>) -> Result<Sending, Error> {
    let built = services.shared.snapshots.file(&services).await?;
    Ok(Sending::new(services.shared.pool.clone(), built))
}

/// About how long the file will be: pages are not quite full, and every record has a key.
fn estimate(services: &Services) -> u64 {
    let bytes = services.reader.sizes().in_use_bytes;
    bytes + bytes / 4
}

/// A file in `directory` that is gone with its handle.
fn nameless(directory: &Path) -> std::io::Result<File> {
    use rand::RngExt as _;
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
        return Ok(file.into());
    }
    // Not every file system can make a file without a name.
    let path = directory.join(format!("snapshot-{:016x}.tmp", rand::rng().random::<u64>()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn refusal(services: &Services, error: BuildError) -> Error {
    match error {
        BuildError::Read(error) => services.read_error(error),
        BuildError::Refused(error) => error,
        BuildError::NoSpace => {
            tracing::warn!("no room for a snapshot's temporary file in the data directory");
            Error::Other(
                Code::ResourceExhausted,
                "no room for a snapshot's temporary file in the data directory".into(),
            )
        }
        BuildError::Io(error) => {
            tracing::error!(%error, "a snapshot's temporary file cannot be written");
            Error::internal(format!("a snapshot's temporary file cannot be written: {error}"))
        }
    }
}
