//! The deterministic simulation: three real members (raft, store, log, peers over gRPC) in one
//! thread, on simulated disks and a simulated network, driven by one seed.
//!
//! The same seed gives the same run: its trace hash is printed, and `--twice` asserts it. What
//! clients saw is judged as in the harness over real processes. Leaves out the API crate.

mod clients;
mod disk;
mod faults;
mod network;
mod plants;
mod simulation;
mod trace;
mod world;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use plants::Plant;
use simulation::{Run, Scenario};

/// Runs seeds of the simulation; a failing seed is printed with the command that replays it.
#[derive(Parser, Debug)]
#[command(name = "jepsen-sim", version)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// What goes wrong.
    #[arg(long, value_enum, default_value = "chaos")]
    scenario: Scenario,
    /// Build this fault into the product, and expect the judge to notice within the seeds.
    #[arg(long, value_enum)]
    plant: Option<Plant>,
    /// Do so for every fault there is, one after the other.
    #[arg(long)]
    plants: bool,
    /// Run every seed twice and compare the traces.
    #[arg(long)]
    twice: bool,
    /// Print what happens.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let passed = match (args.plants, args.plant) {
        (true, _) => Plant::value_variants().iter().all(|plant| expect_caught(&args, *plant)),
        (false, Some(plant)) => expect_caught(&args, plant),
        (false, None) => run_seeds(&args),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every seed must pass.
fn run_seeds(args: &Args) -> bool {
    let mut failed = 0;
    for seed in args.start..args.start + args.seeds {
        let run = Run { seed, scenario: args.scenario, plant: None, verbose: args.verbose };
        match run.execute() {
            Ok(summary) => println!("seed {seed}: {summary}"),
            Err(error) => {
                failed += 1;
                println!("seed {seed} FAILED: {error:#}");
                println!("replay: {run}");
                continue;
            }
        }
        // The first seed always shows that a run replays; the others when asked.
        if (args.twice || seed == args.start) && !replays(run) {
            failed += 1;
        }
    }
    println!("{} seeds of {:?}, {failed} failed", args.seeds, args.scenario);
    failed == 0
}

fn replays(run: Run) -> bool {
    let traces = [run.execute(), run.execute()].map(|result| result.map(|summary| summary.trace));
    let [Ok(first), Ok(second)] = &traces else {
        println!("seed {} passed once and failed when run again", run.seed);
        return false;
    };
    if first != second {
        println!("seed {}: trace {first:016x}, and {second:016x} when run again", run.seed);
    }
    first == second
}

/// At least one seed must fail.
fn expect_caught(args: &Args, plant: Plant) -> bool {
    for seed in args.start..args.start + plant.seeds() {
        let scenario = plant.scenario();
        let run = Run { seed, scenario, plant: Some(plant), verbose: args.verbose };
        if let Err(error) = run.execute() {
            println!("{plant:?} caught by seed {seed}: {error:#}");
            return true;
        }
    }
    println!("{plant:?} NOT caught within {} seeds", plant.seeds());
    false
}
