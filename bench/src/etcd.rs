//! The etcd to measure against: the one given, or the newest 3.6 from the Go module.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/etcd");
const PACKAGE: &str = "go.etcd.io/etcd/server/v3";

/// The binary at `given`, or one built into the system's folder for temporary files.
pub fn binary(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        ensure!(path.is_file(), "--etcd {}: no such file", path.display());
        return Ok(path.to_owned());
    }
    let path = std::env::temp_dir().join("holdfast-bench").join("etcd-3.6");
    eprintln!("building etcd from {MODULE}");
    let status = Command::new("go")
        .args(["build", "-o"])
        .arg(&path)
        .arg(PACKAGE)
        .current_dir(MODULE)
        .status()
        .context("building etcd needs Go; or give a binary with --etcd")?;
    ensure!(status.success(), "go build of {PACKAGE} failed");
    Ok(path)
}
