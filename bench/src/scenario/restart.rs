//! Many keys: time from start to ready and memory afterwards, beside etcd with the same data.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use super::mebibytes;
use crate::cluster::{self, Cluster, Kind, Target};
use crate::load::{self, Data};
use crate::process::Memory;
use crate::{Programs, etcd};

/// Flags of `bench restart`.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    programs: Programs,
    /// Keys.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Restarts measured.
    #[arg(long, default_value_t = 3)]
    restarts: usize,
    /// Most seconds a restart of Holdfast may take.
    #[arg(long, default_value_t = 5.0)]
    limit_seconds: f64,
    /// Leave etcd out.
    #[arg(long)]
    without_etcd: bool,
    /// Where all values follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Measures both and judges Holdfast's restart.
pub fn run(options: &Options) -> Result<()> {
    let scratch = cluster::scratch_folder(options.programs.scratch.as_deref())?;
    let target = |kind, program| Target {
        kind,
        program,
        flags: vec!["--quota-backend-bytes=8589934592".to_owned()],
    };
    println!("| target | restart s | RSS MiB | RssAnon MiB |\n|---|---|---|---|");
    if !options.without_etcd {
        let program = etcd::binary(options.programs.etcd.as_deref())?;
        measure(options, &target(Kind::Etcd, program), &scratch)?;
    }
    let program = cluster::holdfast_binary(options.programs.holdfast.as_deref())?;
    let slowest = measure(options, &target(Kind::Holdfast, program), &scratch)?;
    ensure!(
        slowest.as_secs_f64() <= options.limit_seconds,
        "a restart took {:.2} s",
        slowest.as_secs_f64()
    );
    Ok(())
}

/// Returns the slowest restart.
fn measure(options: &Options, target: &Target, scratch: &Path) -> Result<Duration> {
    let data = Data { keys: options.keys, key_bytes: 40, value_bytes: 256 };
    let mut cluster = Cluster::start(target, 1, scratch)?;
    load::fill(&cluster, &data, options.seed)?;
    let name = target.kind.name();
    row(&format!("{name}, filled"), None, cluster.memory()?);
    let mut slowest = Duration::ZERO;
    for _ in 0..options.restarts {
        cluster.stop()?;
        let took = cluster.launch()?;
        row(name, Some(took), cluster.memory()?);
        slowest = slowest.max(took);
    }
    Ok(slowest)
}

fn row(what: &str, took: Option<Duration>, memory: Memory) {
    let took = took.map_or_else(|| "-".to_owned(), |took| format!("{:.2}", took.as_secs_f64()));
    println!(
        "| {what} | {took} | {} | {} |",
        mebibytes(memory.resident),
        mebibytes(memory.anonymous)
    );
}
