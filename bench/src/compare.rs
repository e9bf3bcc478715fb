//! Puts and gets against etcd, Holdfast and the floor, in alternating pairs.
//!
//! A round starts each target afresh, one after the other, and runs every workload against it; the
//! order turns around from one round to the next. Ratios are made within a round, and the medians
//! of rounds are reported with their spread.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::Programs;
use crate::cluster::{self, Cluster, Kind, Target};
use crate::load::{self, Data, Load, Operation, Outcome};
use crate::{etcd, machine};

mod report;

const DATA: Data = Data { keys: 10_000, key_bytes: 16, value_bytes: 512 };
/// Members, and the most CPU time Holdfast may use for an operation, as a share of etcd's.
const CPU_LIMITS: [(usize, f64); 2] = [(1, 0.6), (3, 0.5)];
/// The number of clients at which that is judged.
const JUDGED_CLIENTS: usize = 64;
const OPERATIONS: [Operation; 2] = [Operation::Put, Operation::Get];

/// Flags of `bench compare`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    programs: Programs,
    /// One short round.
    #[arg(long)]
    quick: bool,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds measured in each run.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Cluster sizes.
    #[arg(long, value_delimiter = ',', default_value = "1,3")]
    members: Vec<usize>,
    /// Numbers of clients.
    #[arg(long, value_delimiter = ',', default_value = "1,64,256")]
    clients: Vec<usize>,
    /// Targets to leave out.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// Folder under which the raw figures and the summary are kept.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Fail if Holdfast's CPU time at 64 clients is above its limit, or was not measured. A limit
    /// that is missed is judged by twice the rounds.
    #[arg(long)]
    judge: bool,
    /// Name of the run in that folder, after the date.
    #[arg(long, default_value = "compare")]
    note: String,
    /// Where all random choices follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One run of one workload.
#[derive(Clone, Debug)]
struct Measurement {
    round: usize,
    members: usize,
    kind: Kind,
    operation: Operation,
    clients: usize,
    outcome: Outcome,
}

/// Runs the comparison and prints it.
pub fn run(options: &Options) -> Result<()> {
    let scratch = cluster::scratch_folder(options.programs.scratch.as_deref())?;
    let targets = targets(options)?;
    let programs: Vec<&Path> = targets
        .iter()
        .filter(|target| matches!(target.kind, Kind::Etcd | Kind::Holdfast))
        .map(|target| target.program.as_path())
        .collect();
    let machine = machine::describe(&scratch, &programs)?;
    let mut measurements = Vec::new();
    let rounds = if options.quick { 1 } else { options.rounds };
    for &members in &options.members {
        for round in 0..rounds {
            measure_round(options, &targets, members, round, &scratch, &mut measurements)?;
        }
        // A limit missed by the noise of a shared machine is met by the median of more rounds.
        if options.judge && !report::broken_limits_of(&measurements, members).is_empty() {
            for round in rounds..2 * rounds {
                measure_round(options, &targets, members, round, &scratch, &mut measurements)?;
            }
        }
    }
    let summary = report::summary(&measurements, &machine, options);
    println!("{summary}");
    if let Some(folder) = &options.output {
        report::keep(folder, &options.note, &measurements, &summary)?;
    }
    let broken = report::broken_limits(&measurements);
    ensure!(!options.judge || broken.is_empty(), "{}", broken.join("; "));
    Ok(())
}

fn has_peers(kind: Kind) -> bool {
    matches!(kind, Kind::Etcd | Kind::Holdfast)
}

fn targets(options: &Options) -> Result<Vec<Target>> {
    let wanted = |kind: Kind| !options.without.iter().any(|name| name == kind.name());
    let target = |kind, program| Target { kind, program, flags: Vec::new() };
    let mut targets = Vec::new();
    if wanted(Kind::Etcd) {
        targets.push(target(Kind::Etcd, etcd::binary(options.programs.etcd.as_deref())?));
    }
    if wanted(Kind::Holdfast) {
        let program = cluster::holdfast_binary(options.programs.holdfast.as_deref())?;
        targets.push(target(Kind::Holdfast, program));
    }
    for kind in [Kind::Floor, Kind::FloorWithWal] {
        if wanted(kind) {
            targets.push(target(kind, std::env::current_exe()?));
        }
    }
    Ok(targets)
}

/// Every target once, in an order that turns around from one round to the next.
fn measure_round(
    options: &Options,
    targets: &[Target],
    members: usize,
    round: usize,
    scratch: &Path,
    into: &mut Vec<Measurement>,
) -> Result<()> {
    let mut order: Vec<&Target> =
        targets.iter().filter(|target| members == 1 || has_peers(target.kind)).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order.into_iter().try_for_each(|target| measure(options, target, members, round, scratch, into))
}

fn measure(
    options: &Options,
    target: &Target,
    members: usize,
    round: usize,
    scratch: &Path,
    into: &mut Vec<Measurement>,
) -> Result<()> {
    let cluster = Cluster::start(target, members, scratch)?;
    load::fill(&cluster, &DATA, options.seed)?;
    for operation in OPERATIONS {
        // The floor with a log reads as the floor without.
        if operation == Operation::Get && target.kind == Kind::FloorWithWal {
            continue;
        }
        for &clients in &options.clients {
            let load = Load {
                operation,
                clients,
                data: DATA,
                warm_up: Duration::from_secs_f64(if options.quick { 0.3 } else { 1.0 }),
                measured: Duration::from_secs_f64(if options.quick {
                    1.5
                } else {
                    options.seconds
                }),
                seed: options.seed + round as u64,
            };
            let outcome = load::run(&cluster, &load)?;
            let measurement =
                Measurement { round, members, kind: target.kind, operation, clients, outcome };
            eprintln!("{}", report::progress(&measurement));
            into.push(measurement);
        }
    }
    Ok(())
}
