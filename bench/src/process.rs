//! What the system says about a server's processes: CPU time and memory, from /proc.

use std::time::Duration;

use anyhow::{Context as _, Result};

/// Memory of one process or the sum of several, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Everything resident, mapped files included.
    pub resident: u64,
    /// The part that no file backs.
    pub anonymous: u64,
}

/// User and system time of the processes so far, their ended children left out.
pub fn cpu_time(processes: &[u32]) -> Result<Duration> {
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let mut total = 0;
    for id in processes {
        let path = format!("/proc/{id}/stat");
        let stat = std::fs::read_to_string(&path).with_context(|| path)?;
        total += ticks(&stat).context("a line of /proc/PID/stat")?;
    }
    Ok(Duration::from_secs_f64(total as f64 / ticks_per_second as f64))
}

/// The memory of the processes now.
pub fn memory(processes: &[u32]) -> Result<Memory> {
    let mut total = Memory::default();
    for id in processes {
        let path = format!("/proc/{id}/status");
        let status = std::fs::read_to_string(&path).with_context(|| path)?;
        total.resident += kilobytes(&status, "VmRSS:").context("VmRSS")? * 1024;
        total.anonymous += kilobytes(&status, "RssAnon:").context("RssAnon")? * 1024;
    }
    Ok(total)
}

/// utime + stime: fields 14 and 15, counted after the name, which may hold spaces.
fn ticks(stat: &str) -> Option<u64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn kilobytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(key))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stand_after_a_name_with_spaces_and_brackets() {
        let stat = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 200 34 5 6";
        assert_eq!(ticks(stat), Some(234));
    }

    #[test]
    fn this_process_uses_memory() {
        let memory = memory(&[std::process::id()]).expect("read");
        assert!(memory.resident >= memory.anonymous && memory.anonymous > 0, "{memory:?}");
    }
}
