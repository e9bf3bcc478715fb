//! The comparison as text: a table for people, comma-separated lines for keeping.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{CPU_LIMITS, DATA, JUDGED_CLIENTS, Measurement, OPERATIONS, Options};
use crate::cluster::Kind;
use crate::load::Operation;
use crate::sample::Spread;

const KINDS: [Kind; 4] = [Kind::Etcd, Kind::Holdfast, Kind::Floor, Kind::FloorWithWal];

/// A figure of a run.
type Figure = fn(&Measurement) -> f64;

/// One line while the comparison runs.
pub(super) fn progress(measurement: &Measurement) -> String {
    let outcome = &measurement.outcome;
    format!(
        "round {} members {} {:9} {} {:3} clients: {:8.0}/s  p50 {:.0?}  p99 {:.0?}  cpu {:.1?}/op  \
         rss {} MiB{}",
        measurement.round + 1,
        measurement.members,
        measurement.kind.name(),
        measurement.operation.name(),
        measurement.clients,
        outcome.rate,
        outcome.latencies[0],
        outcome.latencies[2],
        outcome.cpu_per_operation,
        outcome.memory.resident >> 20,
        match outcome.errors {
            0 => String::new(),
            errors => format!("  {errors} ERRORS"),
        }
    )
}

/// The whole report in Markdown.
pub(super) fn summary(all: &[Measurement], machine: &str, options: &Options) -> String {
    let mut text = format!(
        "# Comparison\n\n```\n{machine}```\n\n{} keys, values of {} bytes; one connection for every \
         8 clients, spread over all members; client and servers share the cores. Medians of the \
         rounds; ratios are made within a round, `median (least to greatest)`. Seed {}.\n",
        DATA.keys, DATA.value_bytes, options.seed
    );
    for &members in &options.members {
        let of_size: Vec<&Measurement> =
            all.iter().filter(|measurement| measurement.members == members).collect();
        // Writing to a string cannot fail.
        let _ = write!(text, "\n## Members: {members}\n\n{}", figures(&of_size));
        let _ = write!(text, "\n{}", ratios(&of_size));
    }
    text
}

fn figures(all: &[&Measurement]) -> String {
    let mut text = String::from(
        "| workload | target | rate /s | p50 µs | p90 µs | p99 µs | p99.9 µs | CPU µs/op | RSS MiB \
         | RssAnon MiB | errors |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (operation, clients) in workloads(all) {
        for kind in KINDS {
            let runs = of(all, operation, clients, kind);
            if runs.is_empty() {
                continue;
            }
            let middle = |figure: Figure| median(&runs, figure);
            let errors: usize = runs.iter().map(|run| run.outcome.errors).sum();
            let _ = writeln!(
                text,
                "| {} {clients} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.0} | {:.0} \
                 | {errors} |",
                operation.name(),
                kind.name(),
                middle(rate),
                middle(|run| micros(run.outcome.latencies[0])),
                middle(|run| micros(run.outcome.latencies[1])),
                middle(p99),
                middle(|run| micros(run.outcome.latencies[3])),
                middle(cpu),
                middle(|run| mebibytes(run.outcome.memory.resident)),
                middle(|run| mebibytes(run.outcome.memory.anonymous)),
            );
        }
    }
    text
}

fn ratios(all: &[&Measurement]) -> String {
    let mut text = String::from(
        "| workload | rate ÷ etcd | CPU ÷ etcd | p99 ÷ etcd | CPU ÷ floor |\n|---|---|---|---|---|\n",
    );
    for (operation, clients) in workloads(all) {
        let floor = match operation {
            Operation::Put => Kind::FloorWithWal,
            Operation::Get => Kind::Floor,
        };
        let ratio = |figure: Figure, other: Kind| {
            let ours = of(all, operation, clients, Kind::Holdfast);
            let theirs = of(all, operation, clients, other);
            quotient(&ours, &theirs, figure)
        };
        let _ = writeln!(
            text,
            "| {} {clients} | {} | {} | {} | {} |",
            operation.name(),
            ratio(rate, Kind::Etcd),
            ratio(cpu, Kind::Etcd),
            ratio(p99, Kind::Etcd),
            ratio(cpu, floor),
        );
    }
    text
}

/// What was measured, in the order in which it was.
fn workloads(all: &[&Measurement]) -> Vec<(Operation, usize)> {
    let mut workloads = Vec::new();
    for run in all {
        if !workloads.contains(&(run.operation, run.clients)) {
            workloads.push((run.operation, run.clients));
        }
    }
    workloads
}

fn of<'a>(
    all: &[&'a Measurement],
    operation: Operation,
    clients: usize,
    kind: Kind,
) -> Vec<&'a Measurement> {
    all.iter()
        .copied()
        .filter(|run| run.operation == operation && run.clients == clients && run.kind == kind)
        .collect()
}

fn median(runs: &[&Measurement], figure: Figure) -> f64 {
    Spread::of(runs.iter().map(|run| figure(run)).collect()).map_or(f64::NAN, |found| found.median)
}

/// Quotients within each round.
fn quotients(ours: &[&Measurement], theirs: &[&Measurement], figure: Figure) -> Option<Spread> {
    let quotients = ours.iter().filter_map(|run| {
        let other = theirs.iter().find(|other| other.round == run.round)?;
        Some(figure(run) / figure(other))
    });
    Spread::of(quotients.collect())
}

fn quotient(ours: &[&Measurement], theirs: &[&Measurement], figure: Figure) -> String {
    match quotients(ours, theirs, figure) {
        Some(Spread { median, least, greatest }) => {
            format!("{median:.2} ({least:.2} to {greatest:.2})")
        }
        None => "-".to_owned(),
    }
}

/// Where Holdfast uses more CPU time than it may, in words, at every size that has a limit.
pub(super) fn broken_limits(all: &[Measurement]) -> Vec<String> {
    CPU_LIMITS.iter().flat_map(|(members, _)| broken_limits_of(all, *members)).collect()
}

/// The same for one size.
pub(super) fn broken_limits_of(all: &[Measurement], members: usize) -> Vec<String> {
    let limit = CPU_LIMITS.iter().find(|(of, _)| *of == members).map(|(_, limit)| *limit);
    let of_size: Vec<&Measurement> =
        all.iter().filter(|measurement| measurement.members == members).collect();
    let broken = |operation: Operation| {
        let limit = limit?;
        let ours = of(&of_size, operation, JUDGED_CLIENTS, Kind::Holdfast);
        let theirs = of(&of_size, operation, JUDGED_CLIENTS, Kind::Etcd);
        let name = operation.name();
        let Some(spread) = quotients(&ours, &theirs, cpu) else {
            return Some(format!("{members} members, {name}: not measured"));
        };
        let share = spread.median;
        (share > limit).then(|| {
            format!(
                "{members} members, {name} with {JUDGED_CLIENTS} clients: CPU is {share:.2} of \
                 etcd's, above {limit}"
            )
        })
    };
    OPERATIONS.into_iter().filter_map(broken).collect()
}

fn rate(run: &Measurement) -> f64 {
    run.outcome.rate
}

fn cpu(run: &Measurement) -> f64 {
    micros(run.outcome.cpu_per_operation)
}

fn p99(run: &Measurement) -> f64 {
    micros(run.outcome.latencies[2])
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Keeps the raw figures and the summary in `folder/<date>-<note>/`.
pub(super) fn keep(folder: &Path, note: &str, all: &[Measurement], summary: &str) -> Result<()> {
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().context("date")?;
    ensure!(date.status.success(), "date failed");
    let date = String::from_utf8(date.stdout)?;
    let folder = folder.join(format!("{}-{note}", date.trim()));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("summary.md"), summary)?;
    let mut csv = String::from(
        "round,members,target,operation,clients,rate,p50_us,p90_us,p99_us,p999_us,cpu_us_per_op,\
         rss_bytes,rss_anon_bytes,errors\n",
    );
    for run in all {
        let outcome = &run.outcome;
        let latencies: Vec<String> =
            outcome.latencies.iter().map(|latency| format!("{:.1}", micros(*latency))).collect();
        writeln!(
            csv,
            "{},{},{},{},{},{:.1},{},{:.2},{},{},{}",
            run.round + 1,
            run.members,
            run.kind.name(),
            run.operation.name(),
            run.clients,
            outcome.rate,
            latencies.join(","),
            cpu(run),
            outcome.memory.resident,
            outcome.memory.anonymous,
            outcome.errors
        )?;
    }
    std::fs::write(folder.join("raw.csv"), csv)?;
    println!("kept in {}", folder.display());
    Ok(())
}
