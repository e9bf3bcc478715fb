//! What the system says of this process, under the names that every Prometheus library uses.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::text::{Kind, Text};

/// Adds the families; those that the system does not tell are left out.
pub(super) fn write(text: &mut Text) {
    if let Some(stat) = Stat::read() {
        text.family("process_cpu_seconds_total", Kind::Counter);
        text.sample("process_cpu_seconds_total", &[], stat.cpu_seconds);
        text.gauge("process_resident_memory_bytes", stat.resident_bytes);
        text.gauge("process_virtual_memory_bytes", stat.virtual_bytes);
        if let Some(boot) = boot_seconds() {
            text.gauge("process_start_time_seconds", boot as f64 + stat.started_seconds);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The folder itself was open while it was read.
        let open = open.count().saturating_sub(1);
        text.gauge("process_open_fds", open);
        text.gauge("os_fd_used", open);
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    text.gauge("process_max_fds", limit);
    text.gauge("os_fd_limit", limit);
}

struct Stat {
    cpu_seconds: f64,
    /// After the system's start.
    started_seconds: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        let text = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is a name in brackets, which may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
            started_seconds: field(22)? as f64 / ticks,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * rustix::param::page_size() as u64,
        })
    }
}

fn boot_seconds() -> Option<u64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_has_begun() {
        let stat = Stat::read().expect("Linux tells");
        assert!(stat.resident_bytes > 4096 && stat.virtual_bytes >= stat.resident_bytes);
        let started = boot_seconds().expect("Linux tells") as f64 + stat.started_seconds;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let age = now.expect("after 1970").as_secs_f64() - started;
        assert!((-2.0..86_400.0).contains(&age), "started {age} s ago");
    }
}
