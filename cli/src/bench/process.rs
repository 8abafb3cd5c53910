//! What a process has used so far.

use std::time::Instant;

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

/// A moment in the life of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    /// When.
    pub(crate) at: Instant,
    /// Processor time of all threads, user and system, in seconds.
    pub(crate) cpu_s: f64,
    /// Resident bytes.
    pub(crate) rss: u64,
    /// The most bytes that were ever resident.
    pub(crate) rss_peak: u64,
}

impl Snapshot {
    /// Of now.
    pub(crate) fn take() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let at = Instant::now();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            at,
            cpu_s: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            rss: kib(&status, "VmRSS:") * 1024,
            rss_peak: kib(&status, "VmHWM:") * 1024,
        }
    }
}

fn kib(status: &str, field: &str) -> u64 {
    let value =
        status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix("kB")?.trim().parse().ok());
    value.unwrap_or(0)
}

/// Raises the number of file descriptors to what the system allows; returns it, `None` without a limit.
pub(crate) fn raise_descriptor_limit() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused: what we have is what counts.
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_uses_something() {
        let snapshot = Snapshot::take();
        assert!(snapshot.rss > 0 && snapshot.rss_peak >= snapshot.rss, "{snapshot:?}");
    }
}
