//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Runs one fault workload against a three-member cluster and judges what clients saw.
#[derive(Parser, Debug)]
#[command(name = "holdfast-jepsen", version)]
pub struct Args {
    /// What goes wrong during the run.
    #[arg(value_enum)]
    pub faults: Faults,
    /// The server: a holdfast or an etcd binary.
    #[arg(long)]
    pub target_binary: PathBuf,
    /// For `upgrade`: the older server that the members run at first.
    #[arg(long, required_if_eq("faults", "upgrade"))]
    pub from_binary: Option<PathBuf>,
    /// How long faults go on, in seconds (for `partition`: of each kind of cut).
    #[arg(long, default_value_t = 120)]
    pub seconds: u64,
    /// Clients that write and read, each with one request under way.
    #[arg(long, default_value_t = 64)]
    pub clients: usize,
    /// Keys that all clients share.
    #[arg(long, default_value_t = 64)]
    pub keys: u64,
    /// Leader kills of a `failover` run.
    #[arg(long, default_value_t = 20)]
    pub kills: usize,
    /// How often a `replace` run goes round the cluster.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Size of each member's file system in a `disk` run.
    #[arg(long, default_value_t = 512)]
    pub disk_mebibytes: u64,
    /// How often a `disk` run fills and empties it.
    #[arg(long, default_value_t = 2)]
    pub disk_rounds: u64,
    /// Print the failover figures without judging them (for another server than holdfast).
    #[arg(long)]
    pub compare_only: bool,
    /// `--snapshot-count` of every member; small makes members come back by checkpoint.
    #[arg(long, default_value_t = 10_000)]
    pub snapshot_count: u64,
    /// `--snapshot-catchup-entries` of every member.
    #[arg(long)]
    pub snapshot_catchup_entries: Option<u64>,
    /// Milliseconds; `--election-timeout` of every member.
    #[arg(long, default_value_t = 1_000)]
    pub election_timeout: u64,
    /// Where members keep data and logs; a fresh temporary folder if not given. Kept on a violation.
    #[arg(long)]
    pub directory: Option<PathBuf>,
    /// Seed of every random choice of the harness (the cluster itself is not deterministic).
    #[arg(long)]
    pub seed: Option<u64>,
    /// Write the history as JSON lines to this file.
    #[arg(long)]
    pub history: Option<PathBuf>,
}

/// The kinds of run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Faults {
    /// None: shows that the harness itself is sound.
    None,
    /// kill -9 of the leader, a follower or all members, at random.
    Kill,
    /// Halves, leader isolated, bridge, and one-way cuts, in network namespaces (needs root).
    Partition,
    /// A follower is down while many entries are written, and comes back; over and over.
    Lag,
    /// Every member in turn is replaced: a learner is added and promoted, the old one removed.
    Replace,
    /// The leader is killed again and again; measures the time to the first acknowledged write.
    Failover,
    /// Members that run `--from-binary` are replaced by the target, one after the other; in between,
    /// old and new ones lead and follow.
    Upgrade,
    /// Small file systems are filled, emptied and filled again (needs root).
    Disk,
}

impl Args {
    /// How long faults go on.
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}
