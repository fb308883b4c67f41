//! What the kernel says of a process: CPU time, memory. Linux only; elsewhere nothing is known, and said so.

use std::time::Duration;

/// CPU time of all threads of a process, user and system together, ended threads included.
pub(super) fn cpu(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    cpu_ticks(&stat).map(|ticks| Duration::from_nanos(ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second()))
}

/// Fields 14 and 15 of `/proc/PID/stat` (proc(5)); the second field, the name, may hold anything but ends with the last `)`.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Memory of a process that is in RAM.
pub(super) fn rss_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// CPU time of the calling thread.
pub(super) fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "77 (a) b) c) S 1 77 77 0 -1 4194304 900 0 3 0 250 30 0 0 20 0 4 0 100 1000 200";
        assert_eq!(cpu_ticks(stat), Some(280));
        assert_eq!(cpu_ticks("77 (a"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn own_process_uses_cpu_and_memory() {
        assert!(cpu(std::process::id()).is_some());
        assert!(rss_bytes(std::process::id()).is_some_and(|bytes| bytes > 1 << 20));
    }
}
