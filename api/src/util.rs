//! `holdfast util`: what is done with files while no member runs on them.
//!
//! Snapshots are looked at and restored, etcd's data directories imported, our own verified. Input
//! is only read; output goes into a directory that is empty before.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use holdfast_raft::OpenError;

use crate::config::Cluster;
use crate::snapshot::file::{FileError, SnapshotFile, Status};

mod check;
mod etcd_log;
mod migrate;
mod restore;

use etcd_log::LogError;

/// What is to be done.
#[derive(Debug)]
pub enum Task {
    /// Print what a snapshot file says of itself.
    Status {
        /// The file.
        file: PathBuf,
        /// How to print it.
        output: Output,
    },
    /// Make a member's data directory of a snapshot file.
    Restore {
        /// The file.
        file: PathBuf,
        /// Whether the hash behind the database may be absent or wrong.
        skip_hash_check: bool,
        /// Where to, and how.
        restore: Restore,
    },
    /// Make a member's data directory of etcd's.
    Migrate {
        /// etcd's.
        from: PathBuf,
        /// Where etcd's log lies, if not within it.
        log: Option<PathBuf>,
        /// Where to, and how.
        restore: Restore,
    },
    /// Verify a data directory.
    Check {
        /// Which.
        directory: PathBuf,
        /// Where its log lies, if not within it.
        log: Option<PathBuf>,
    },
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The facts, comma-separated.
    Simple,
    /// One JSON object.
    Json,
    /// A table.
    Table,
}

/// Where a history goes, and what is changed on the way.
#[derive(Debug)]
pub struct Restore {
    /// The new member.
    pub target: Target,
    /// By how much to raise the revision; everything before the raised one is then compacted.
    pub bump_revision: u64,
}

/// A member of a new cluster.
#[derive(Debug)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// The folder of its data.
    pub data_directory: PathBuf,
    /// The folder of its log, if apart.
    pub log_directory: Option<PathBuf>,
    /// All members.
    pub cluster: Cluster,
    /// Tells clusters apart.
    pub cluster_token: String,
    /// How others reach it.
    pub peer_urls: Vec<String>,
}

/// Why a task was not done.
#[derive(Debug, thiserror::Error)]
pub enum UtilError {
    /// A snapshot or a database of etcd's is not used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The new data directory was not made.
    #[error(transparent)]
    Target(#[from] OpenError),
    /// etcd's directory is not one that can be imported.
    #[error("{}: {what}", path.display())]
    Source {
        /// Which.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// etcd's log cannot be read, or is damaged.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The data directory is damaged.
    #[error("{} is damaged: {count} problems", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How many problems were printed.
        count: usize,
    },
    /// The data directory could not be verified.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// Does a task and prints what comes of it.
pub fn run(task: &Task) -> ExitCode {
    let result = match task {
        Task::Status { file, output } => status(file).map(|status| print(&status, *output)),
        Task::Restore { file, skip_hash_check, restore } => {
            restore_file(file, *skip_hash_check, restore)
        }
        Task::Migrate { from, log, restore } => {
            migrate::migrate(from, log.as_deref(), restore).map(|done| done + "\n")
        }
        Task::Check { directory, log } => check::check(directory, log.as_deref()),
    };
    match result {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn status(path: &Path) -> Result<Status, UtilError> {
    let file = SnapshotFile::open(path)?;
    Ok(file.status()?)
}

fn restore_file(path: &Path, skip_hash_check: bool, to: &Restore) -> Result<String, UtilError> {
    let file = SnapshotFile::open(path)?;
    if !skip_hash_check {
        file.check_hash()?;
    }
    Ok(format!("restored {}: {}\n", path.display(), restore::restore(&file, to)?))
}

fn print(status: &Status, output: Output) -> String {
    let columns = ["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"];
    let cells = [
        format!("{:x}", status.hash),
        status.revision.to_string(),
        status.total_keys.to_string(),
        human_bytes(status.total_bytes),
        status.version.clone(),
    ];
    match output {
        Output::Json => status.json() + "\n",
        Output::Simple => cells.join(", ") + "\n",
        Output::Table => {
            let width = |(column, cell): (&&str, &String)| column.len().max(cell.len());
            let widths: Vec<usize> = columns.iter().zip(&cells).map(width).collect();
            let line: String =
                widths.iter().map(|width| format!("+{:-<1$}", "", width + 2)).collect();
            let row = |cells: &[&str]| -> String {
                let cell = |(cell, width): (&&str, &usize)| format!("| {cell:>width$} ");
                cells.iter().zip(&widths).map(cell).collect()
            };
            let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
            format!("{line}+\n{}|\n{line}+\n{}|\n{line}+\n", row(&columns), row(&cells))
        }
    }
}

/// As etcd's tools print sizes: two digits, powers of a thousand.
fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut number = bytes as f64;
    while number >= 1000.0 && unit + 1 < UNITS.len() {
        number /= 1000.0;
        unit += 1;
    }
    let rounded = (number * 10.0 + 0.5).floor() / 10.0;
    match rounded < 10.0 {
        true => format!("{rounded:.1} {}", UNITS[unit]),
        false => format!("{rounded:.0} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_printed_as_etcd_does() {
        for (bytes, text) in
            [(7, "7 B"), (20_480, "20 kB"), (8_192, "8.2 kB"), (25_165_824, "25 MB")]
        {
            assert_eq!(human_bytes(bytes), text);
        }
    }
}
