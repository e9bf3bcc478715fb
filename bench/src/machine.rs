//! What the figures were measured on.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::sample::Sample;

const SYNCS: u64 = 200;
const BLOCK_BYTES: u64 = 4096;

/// A note for people: processor, memory, kernel, disk, and the versions measured.
pub fn describe(scratch: &Path, programs: &[&Path]) -> Result<String> {
    let mut note = String::new();
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism()?;
    writeln!(note, "cpu: {} x {}", cores, model.trim_start_matches(['\t', ' ', ':']))?;
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    writeln!(note, "{}", memory.lines().next().unwrap_or_default())?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    writeln!(note, "kernel: {}", kernel.trim())?;
    writeln!(note, "fdatasync of 4 KiB over existing blocks: {}", sync_times(scratch)?)?;
    for program in programs {
        let output = Command::new(program).arg("--version").output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<&str> = text.lines().take(3).collect();
        writeln!(note, "{}: {}", program.display(), lines.join("; "))?;
    }
    Ok(note)
}

fn sync_times(scratch: &Path) -> Result<String> {
    let path = scratch.join("sync-probe");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    file.write_all_at(&vec![0; (SYNCS * BLOCK_BYTES) as usize], 0)?;
    file.sync_all()?;
    let mut sample = Sample::default();
    for number in 0..SYNCS {
        file.write_all_at(&[1; BLOCK_BYTES as usize], number * BLOCK_BYTES)?;
        let started = Instant::now();
        file.sync_data()?;
        sample.add(started.elapsed());
    }
    std::fs::remove_file(path)?;
    let [median, slow] = sample.percentiles([0.5, 0.99]);
    Ok(format!("p50 {median:.0?}, p99 {slow:.0?}"))
}
