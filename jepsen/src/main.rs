//! Faults on real processes: a cluster of server binaries, clients that write down what they saw,
//! something that kills and cuts, and a judge of the histories.
//!
//! Reaches the cluster only over etcd's API, so the same run works against etcd itself
//! (`--target-binary etcd`), which shows that the judge is fair. Client retries are off: a request
//! is sent once, and its outcome is what the answer says, or unknown.

mod args;
mod client;
mod cluster;
mod disk;
mod network;
mod replace;
mod report;
mod runs;
mod watcher;
mod workload;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = args::Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &args::Args) -> anyhow::Result<()> {
    network::enter_own_namespace_if_asked(args)?;
    disk::enter_own_namespace_if_asked(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(runs::run(args))
}
