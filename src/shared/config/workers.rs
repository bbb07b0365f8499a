//! The number of workers, its reason, and the CPUs for them.

use nix::sched::{sched_getaffinity, CpuSet};
use nix::unistd::Pid;

use super::{Balance, Config};

impl Config {
    /// Returns the number of workers and, for the log, the reason for it.
    pub(crate) fn worker_count(&self) -> (usize, String) {
        match self.workers.count {
            Some(workers) => (workers, format!("{}: as configured", counted(workers, "worker"))),
            None => derive(cpus_by_affinity().map(|cpus| cpus.len()), cpus_by_quota()),
        }
    }

    /// The CPUs to pin workers to, in turn; empty if they are not pinned.
    pub(crate) fn cpus(&self) -> Vec<usize> {
        match self.workers.pin || self.workers.balance == Balance::Cpu {
            true => cpus_by_affinity().unwrap_or_default(),
            false => Vec::new(),
        }
    }
}

/// Derives the number from the CPUs that this process may use, and from what the cgroup's quota (version 1 or 2) leaves
/// of them, according to num_cpus. A fraction of a CPU counts as one: the kernel hands out the quota in slices, and a
/// worker cannot be halved.
fn derive(affinity: Option<usize>, available: usize) -> (usize, String) {
    let available = available.max(1);
    let workers = available.min(Config::WORKERS_MAX);
    let mut why = match affinity {
        None => counted(available, "CPU"),
        Some(cpus) if available < cpus => {
            format!("{} by affinity, limited to {available} by the cgroup's CPU quota", counted(cpus, "CPU"))
        }
        Some(cpus) => format!("{} by affinity", counted(cpus, "CPU")),
    };
    if workers < available {
        why.push_str(&format!(", limited to {workers}, the most there can be"));
    }
    (workers, format!("{}: {why}", counted(workers, "worker")))
}

/// Calls sched_getaffinity(2); `None` on a machine with more CPUs than a `cpu_set_t` has bits.
fn cpus_by_affinity() -> Option<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).ok()?;
    Some((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

/// num_cpus reads the quota of the process's own cgroup, the standard library those of the groups above as well.
fn cpus_by_quota() -> usize {
    std::thread::available_parallelism().map_or_else(|_| num_cpus::get(), |cpus| num_cpus::get().min(cpus.get()))
}

fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_says_how_the_number_came_about() {
        for (affinity, available, workers, why) in [
            (Some(2), 2, 2, "2 workers: 2 CPUs by affinity"),
            (Some(1), 1, 1, "1 worker: 1 CPU by affinity"),
            (Some(8), 1, 1, "1 worker: 8 CPUs by affinity, limited to 1 by the cgroup's CPU quota"),
            (Some(8), 3, 3, "3 workers: 8 CPUs by affinity, limited to 3 by the cgroup's CPU quota"),
            (None, 4, 4, "4 workers: 4 CPUs"),
            (None, 0, 1, "1 worker: 1 CPU"),
            (None, 2048, 1024, "1024 workers: 2048 CPUs, limited to 1024, the most there can be"),
        ] {
            assert_eq!(derive(affinity, available), (workers, why.to_owned()));
        }
    }

    #[test]
    fn a_configured_number_is_not_derived() {
        let mut config = Config::default();
        config.workers.count = Some(3);
        assert_eq!(config.worker_count(), (3, "3 workers: as configured".to_owned()));
    }

    #[test]
    fn this_machine_has_a_cpu() {
        let (workers, why) = Config::default().worker_count();
        assert!((1..=Config::WORKERS_MAX).contains(&workers), "{why}");
    }
}
