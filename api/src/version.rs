//! The versions this program reports.
//!
//! Clients gate features on the etcd version, so it is the one that `Status` and `/version` carry;
//! Holdfast's own version stands beside it where people look.

/// The etcd release whose behaviour clients may expect.
pub const ETCD_VERSION: &str = "3.6.13";

/// Holdfast's own version.
pub const HOLDFAST_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `--version` prints; the first line is read by etcd's own tooling.
pub fn report() -> String {
    let sha = option_env!("HOLDFAST_GIT_SHA").unwrap_or("Not provided");
    format!(
        "etcd Version: {ETCD_VERSION}\nHoldfast Version: {HOLDFAST_VERSION}\nGit SHA: {sha}\nOS/Arch: {}/{}\n",
        std::env::consts::OS,
        std::env::consts::ARCH,
    )
}
