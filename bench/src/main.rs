//! Load and measurements: Holdfast beside etcd and beside the floor of the stack it stands on.
//!
//! Everything runs over real processes through the client API; nothing here knows the server's
//! parts. Every figure is a ratio of runs made one after the other on the same machine.

mod client;
mod cluster;
mod compare;
mod etcd;
mod floor;
mod load;
mod machine;
mod priority;
mod process;
mod random;
mod sample;
mod scenario;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "bench", about = "Load and measurements beside etcd")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Puts and linearizable gets with 1, 64 and 256 clients, in alternating pairs.
    Compare(compare::Options),
    /// 1 GiB of 10 KiB values through a 64 MiB block cache, read back and compared.
    Size(scenario::size::Options),
    /// 1,000,000 keys: time from start to ready, and memory, beside etcd.
    Restart(scenario::restart::Options),
    /// Single gets while 1,000,000 keys are deleted and ten 256 MiB lists are read.
    Stall(scenario::stall::Options),
    /// A member that joins two others under full put load, with 1 GiB of data.
    Join(scenario::join::Options),
    /// The do-nothing server; `compare` starts it as a process of its own.
    #[command(hide = true)]
    Floor(floor::Options),
}

/// Where the programs to measure are, and where their data goes.
#[derive(Args, Clone, Debug)]
struct Programs {
    /// etcd's binary; without it one is built from the Go module beside this crate.
    #[arg(long)]
    etcd: Option<PathBuf>,
    /// Holdfast's binary; by default the one beside this program.
    #[arg(long)]
    holdfast: Option<PathBuf>,
    /// Folder for the servers' data; it should lie on a real disk.
    #[arg(long)]
    scratch: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Compare(options) => compare::run(&options),
        Command::Size(options) => scenario::size::run(&options),
        Command::Restart(options) => scenario::restart::run(&options),
        Command::Stall(options) => scenario::stall::run(&options),
        Command::Join(options) => scenario::join::run(&options),
        Command::Floor(options) => floor::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
