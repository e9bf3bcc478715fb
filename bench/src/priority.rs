//! Who goes first when the clients of a measurement share the cores with the server.
//!
//! Only the calling thread changes, by way of util-linux's `chrt`.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// This thread runs only when nobody else wants to.
pub fn last() -> Result<()> {
    ensure!(chrt("--idle", "0")?, "chrt cannot make a thread idle");
    Ok(())
}

/// This thread runs as soon as it can, as a client on a machine of its own would. Only root may
/// ask for that; says whether it was granted.
pub fn first() -> Result<bool> {
    chrt("--fifo", "1")
}

fn chrt(policy: &str, priority: &str) -> Result<bool> {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let status = Command::new("chrt")
        .args([policy, "--pid", priority, &thread])
        .stderr(Stdio::null())
        .status()
        .context("running chrt, of Debian's package util-linux")?;
    Ok(status.success())
}
