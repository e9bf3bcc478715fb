//! A log that lies in a directory of its own (`--wal-dir`), and that it is this member's.
//!
//! ```text
//! --data-dir D       lock  identity (says that the log lies apart)  blocks/  snap/  ...
//! --wal-dir  W       lock  identity (of the same member)            wal/
//! ```
//!
//! A member that is given another log than its own has forgotten what it promised, and nobody would
//! notice. So the log's directory carries a copy of the identity, written before that of the data
//! directory, and a data directory whose log lies apart is never again used without one: a log that
//! was left in it is an old one. A log is moved out of its data directory by hand, identity and all.

use std::io;
use std::path::Path;

use holdfast_store::files::Files;

use crate::config::NodeConfig;
use crate::directory::{self, Lock, Marks};
use crate::error::OpenError;
use crate::identity::Identity;
use crate::log::Log;

/// How etcd's log files end, whose names are two numbers with a dash between them; ours have none.
const ETCDS: &str = ".wal";

/// Takes the directories for this process, the log's too if it lies apart. Only for real files.
pub(crate) fn lock(config: &NodeConfig) -> Result<Vec<Lock>, OpenError> {
    if config.log_directory.as_ref() == Some(&config.data_directory) {
        let text = "--wal-dir: the log lies in the data directory already, without the flag";
        return Err(OpenError::Misconfigured(text.to_owned()));
    }
    let directories = [Some(&config.data_directory), config.log_directory.as_ref()];
    directories.into_iter().flatten().map(|directory| directory::lock(directory)).collect()
}

/// Refuses a log directory that is not the one of the member `found` in the data directory, and
/// makes one that is absent. Both belong to this process.
pub(crate) fn check(
    config: &NodeConfig,
    files: &dyn Files,
    found: Option<Identity>,
) -> Result<(), OpenError> {
    let data = &config.data_directory;
    inspect(data, config.log_directory.as_deref(), found, files)?;
    let Some(log) = &config.log_directory else { return Ok(()) };
    files.create_directory(log).map_err(failed("making", log))?;
    let Some(member) = found else { return Ok(()) };
    let marks = directory::marks(data, files)?;
    if marks.log_apart {
        return Ok(());
    }
    tracing::info!(wal_dir = shown(log), "the log has been moved");
    directory::record(data, files, member, Marks { log_apart: true, ..marks })
}

/// Whether the log directory is the one of the member `found` in the data directory; nothing is
/// changed.
pub(crate) fn inspect(
    data: &Path,
    log: Option<&Path>,
    found: Option<Identity>,
    files: &dyn Files,
) -> Result<(), OpenError> {
    let Some(log) = log else {
        let marks = found.map(|_| directory::marks(data, files)).transpose()?;
        return match marks.is_some_and(|marks| marks.log_apart) {
            true => Err(OpenError::LogApart(shown(data))),
            false => Ok(()),
        };
    };
    let names = match files.exists(log).map_err(failed("looking into", log))? {
        true => files.list(log).map_err(failed("looking into", log))?,
        false => Vec::new(),
    };
    if names.iter().any(|name| name.ends_with(ETCDS) && name.contains('-')) {
        return Err(OpenError::LogOfEtcd(shown(log)));
    }
    let (data_shown, log_shown) = (shown(data), shown(log));
    // Of two logs one is not the member's.
    if Log::exists(files, data)? {
        return Err(OpenError::LogInPlace { data: data_shown, log: log_shown });
    }
    let owner = directory::peek(log, files)?;
    match (found, owner) {
        (Some(Identity { member_id: member, .. }), None) => {
            Err(OpenError::LogLost { data: data_shown, log: log_shown, member })
        }
        (Some(member), Some(owner)) if !is_same(member, owner) => {
            Err(OpenError::LogOfAnother { data: data_shown, log: log_shown })
        }
        // What a new member finds there must never have been used: see [`orphaned`].
        _ => Ok(()),
    }
}

/// The cluster is not compared: `--force-new-cluster` changes it, in the data directory alone.
fn is_same(member: Identity, owner: Identity) -> bool {
    (member.member_id, member.incarnation) == (owner.member_id, owner.incarnation)
}

/// Writes the identity of a new member to where its log lies, if that is apart, and then into the
/// data directory. The log has begun.
pub(crate) fn record(
    config: &NodeConfig,
    files: &dyn Files,
    identity: Identity,
    forced: Option<u64>,
) -> Result<(), OpenError> {
    if let Some(log) = &config.log_directory {
        directory::record(log, files, identity, Marks::default())?;
    }
    let marks = Marks { forced, log_apart: config.log_directory.is_some() };
    directory::record(&config.data_directory, files, identity, marks)
}

/// The refusal of a log that has begun and that no identity answers for.
pub(crate) fn orphaned(config: &NodeConfig) -> OpenError {
    let data = shown(&config.data_directory);
    match &config.log_directory {
        Some(log) => OpenError::LogOfAnother { data, log: shown(log) },
        None => OpenError::IdentityMissing(data),
    }
}

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let what = format!("{what} {}", path.display());
    move |source| OpenError::Io { what, source }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
