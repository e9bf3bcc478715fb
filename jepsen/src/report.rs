//! What a run prints, and the history it leaves behind.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use holdfast_jepsen::checker::Verdict;
use holdfast_jepsen::history::{History, Outcome};

/// Prints the counts of a run and its verdict.
pub fn print(history: &History, verdict: &Verdict) {
    let count = |wanted: fn(&Outcome) -> bool| {
        history.records.iter().filter(|record| wanted(&record.outcome)).count()
    };
    println!(
        "{} requests: {} written, {} conflicts, {} reads, {} failed, {} unknown; {} changes, {} watched",
        history.records.len(),
        count(|o| matches!(o, Outcome::Written { .. })),
        count(|o| matches!(o, Outcome::Conflict { .. })),
        count(|o| matches!(o, Outcome::Read { .. })),
        count(|o| matches!(o, Outcome::Failed)),
        count(|o| matches!(o, Outcome::Unknown)),
        history.changes.len(),
        history.watched.iter().map(Vec::len).sum::<usize>(),
    );
    for violation in &verdict.violations {
        println!("VIOLATION: {violation}");
    }
    println!("{} violations", verdict.count);
}

/// Writes every request as one JSON object a line.
pub fn write_history(history: &History, path: &Path) -> anyhow::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for record in &history.records {
        serde_json::to_writer(&mut file, record)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}

/// Prints how long writes were not acknowledged after each kill of a leader.
pub fn print_failovers(gaps: &[Duration], election_timeout: Duration) -> anyhow::Result<()> {
    let mut sorted = gaps.to_vec();
    sorted.sort_unstable();
    anyhow::ensure!(!sorted.is_empty(), "no leader was killed");
    let in_timeouts = |gap: Duration| gap.as_secs_f64() / election_timeout.as_secs_f64();
    let median = sorted[sorted.len() / 2];
    let worst = sorted[sorted.len() - 1];
    println!(
        "{} leader kills: first acknowledged write after {:.3} s in the median ({:.2} election \
         timeouts), {:.3} s at worst ({:.2})",
        sorted.len(),
        median.as_secs_f64(),
        in_timeouts(median),
        worst.as_secs_f64(),
        in_timeouts(worst),
    );
    Ok(())
}
