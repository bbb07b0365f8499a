//! PURE. Renders the status in the text format of Prometheus, version 0.0.4.
//!
//! Counters are kept per slot, over all its processes, so that none goes back when a worker dies.

use std::fmt::{Display, Write};

use super::snapshot::{SlotTotals, Snapshot};
use super::{Counters, Micros, Millis, Reason, WorkerState};
use crate::shared::metrics::escaped;

impl Snapshot<'_> {
    pub(crate) fn to_metrics(&self) -> String {
        let mut out = Metrics::default();
        self.counters_to(&mut out);
        self.latency_to(&mut out);
        self.workers_to(&mut out);
        out.family(
            "forkpool_ready",
            "gauge",
            "Whether load balancers should send clients to this pool, as /readyz says.",
        );
        out.sample("forkpool_ready", "", u8::from(self.is_ready));
        out.family(
            "forkpool_build_info",
            "gauge",
            "Always 1. The labels are the version, and how workers are chosen for connections, as in --balance.",
        );
        let labels = format!("version=\"{}\",balance=\"{}\"", env!("CARGO_PKG_VERSION"), balance(&self.pool.balance));
        out.sample("forkpool_build_info", &labels, 1);
        out.family("process_start_time_seconds", "gauge", "When the pool's parent began, in seconds since 1970.");
        out.sample("process_start_time_seconds", "", Millis(self.pool.started));
        self.parent_to(&mut out);
        out.0
    }

    fn counters_to(&self, out: &mut Metrics) {
        type Count = fn(&Counters) -> u64;
        let counters: [(&str, &str, &str, Count); 8] = [
            ("forkpool_requests_total", "counter", "Requests passed to the handler.", |it| it.requests),
            ("forkpool_connections_accepted_total", "counter", "Connections accepted.", |it| it.accepted),
            ("forkpool_connections_open", "gauge", "Connections open.", Counters::open),
            (
                "forkpool_connections_handed_over_total",
                "counter",
                "Connections passed to another worker, since this one left or had more than others.",
                |it| it.handed,
            ),
            (
                "forkpool_connections_taken_over_total",
                "counter",
                "Connections passed to this worker by another one.",
                |it| it.taken,
            ),
            (
                "forkpool_handover_refused_total",
                "counter",
                "What was passed to this worker and is no connection of this pool.",
                |it| it.discarded,
            ),
            ("forkpool_requests_refused_total", "counter", "Requests refused before the handler.", |it| it.refused),
            ("forkpool_handler_panics_total", "counter", "Handlers that panicked.", |it| it.panics),
        ];
        for (name, kind, help, count) in counters {
            out.of_slots(name, kind, help, self, |slot| slot.counted().map(count));
        }
        let name = "forkpool_responses_total";
        out.family(name, "counter", "Responses, by the class of their status code.");
        for (slot, counters) in self.slots.iter().filter_map(|slot| Some((slot, slot.counted()?))) {
            for (class, count) in (1..).zip(counters.responses) {
                out.sample(name, &format!("worker=\"{}\",code=\"{class}xx\"", slot.id), count);
            }
        }
        self.handshakes_to(out);
        let help = "Bytes of responses that the sockets of clients have accepted, heads included.";
        out.of_slots("forkpool_sent_bytes_total", "counter", help, self, |slot| slot.counted().map(|it| it.sent));
        let help = "Connections to the ports of a pool of programs, including those that wait to be accepted.";
        out.family("forkpool_connections_established", "gauge", help);
        if let Some(established) = self.established {
            out.sample("forkpool_connections_established", "", established);
        }
        let name = "forkpool_log_lines_lost_total";
        out.family(name, "counter", "Log lines that could not be written, by process or slot.");
        out.sample(name, "process=\"parent\"", self.lost[0]);
        out.sample(name, "process=\"admin\"", self.lost[1]);
        for slot in &self.slots {
            out.sample(name, &format!("process=\"worker\",worker=\"{}\"", slot.id), slot.counters.lost);
        }
        let name = "forkpool_worker_restarts_total";
        out.family(name, "counter", "Workers that were started to replace another one, by the reason.");
        for slot in &self.slots {
            for (reason, count) in Reason::ALL.iter().zip(slot.slot.restarts) {
                out.sample(name, &format!("worker=\"{}\",reason=\"{}\"", slot.id, reason.as_str()), count);
            }
        }
    }

    /// Only of pools with TLS.
    fn handshakes_to(&self, out: &mut Metrics) {
        if self.pool.certificates.is_empty() {
            return;
        }
        let name = "forkpool_tls_certificate_expiry_seconds";
        out.family(name, "gauge", "When the certificates in a file expire, in seconds since 1970.");
        for (file, until) in &self.pool.certificates {
            out.sample(name, &format!("file=\"{}\"", escaped(file, true)), until);
        }
        let name = "forkpool_tls_handshakes_total";
        out.family(
            name,
            "counter",
            "Handshakes of TLS that were finished, by version, and whether a session was resumed.",
        );
        for (slot, counters) in self.slots.iter().filter_map(|slot| Some((slot, slot.counted()?))) {
            let ways = [("1.2", "no"), ("1.2", "yes"), ("1.3", "no"), ("1.3", "yes")];
            for ((version, resumed), count) in ways.iter().zip(counters.handshakes) {
                let labels = format!("worker=\"{}\",version=\"{version}\",resumed=\"{resumed}\"", slot.id);
                out.sample(name, &labels, count);
            }
        }
        let name = "forkpool_tls_failures_total";
        out.family(name, "counter", "Connections whose TLS has failed, by the reason.");
        for (slot, counters) in self.slots.iter().filter_map(|slot| Some((slot, slot.counted()?))) {
            let reasons = ["invalid", "refused_by_client", "unfinished", "plain_http", "limit", "broken", "truncated"];
            for (reason, count) in reasons.iter().zip(&counters.handshakes[4..]) {
                out.sample(name, &format!("worker=\"{}\",reason=\"{reason}\"", slot.id), count);
            }
        }
    }

    fn latency_to(&self, out: &mut Metrics) {
        let name = "forkpool_request_duration_seconds";
        out.family(
            name,
            "histogram",
            "Time from reading a request's head to having its response, in the built-in server.",
        );
        if !self.is_counted {
            return;
        }
        for exponent in 4..=26 {
            let end = 1 << exponent;
            let labels = format!("le=\"{}\"", Micros(end));
            out.sample(&format!("{name}_bucket"), &labels, self.latency.shorter_than(end));
        }
        let count = self.latency.count();
        out.sample(&format!("{name}_bucket"), "le=\"+Inf\"", count);
        out.sample(&format!("{name}_sum"), "", Micros(self.latency.sum));
        out.sample(&format!("{name}_count"), "", count);
    }

    /// What the pool's parent uses.
    fn parent_to(&self, out: &mut Metrics) {
        let name = "process_cpu_seconds_total";
        if let Some(cpu) = self.parent.cpu {
            out.family(name, "counter", "CPU time used by the pool's parent.");
            out.sample(name, "", Micros(cpu));
        }
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory of the pool's parent.", self.parent.rss),
            ("process_open_fds", "Open file descriptors of the pool's parent.", self.parent.fds),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                out.family(name, "gauge", help);
                out.sample(name, "", value);
            }
        }
    }

    fn workers_to(&self, out: &mut Metrics) {
        out.family("forkpool_workers_wanted", "gauge", "Number of workers that the pool should have.");
        out.sample("forkpool_workers_wanted", "", self.pool.wanted);
        out.family("forkpool_workers", "gauge", "Worker processes, and slots that back off, by state.");
        for state in WorkerState::ALL.iter().map(|state| state.as_str()).chain(["backoff"]) {
            let count = self.workers.iter().filter(|worker| worker.state() == state).count();
            out.sample("forkpool_workers", &format!("state=\"{state}\""), count);
        }
        let help = "CPU time used by the worker's processes.";
        out.of_slots("forkpool_worker_cpu_seconds_total", "counter", help, self, |slot| Some(Micros(slot.cpu)));
        let help = "Resident memory of the worker's processes, including shared memory.";
        let rss = |slot: &SlotTotals<'_>| Some(slot.processes.iter().map(|(_, it)| it.rss).sum::<u64>());
        out.of_slots("forkpool_worker_resident_memory_bytes", "gauge", help, self, rss);
        let help = "Bytes that the worker holds for requests and responses in progress.";
        let held = |slot: &SlotTotals<'_>| slot.reported(|it| it.held);
        out.of_slots("forkpool_worker_held_bytes", "gauge", help, self, held);
        out.family(
            "forkpool_held_limit_bytes",
            "gauge",
            "Maximum of forkpool_worker_held_bytes for each worker; 0 is no limit.",
        );
        out.sample("forkpool_held_limit_bytes", "", self.pool.max_held);
        let help = "Connections in the worker's own queues that wait to be accepted.";
        out.of_slots("forkpool_accept_queue_length", "gauge", help, self, |slot| slot.queue);
        let help = "How long the worker has been busy with the current turn of its loop; 0 while it waits.";
        let busy = |slot: &SlotTotals<'_>| {
            let reported = slot.processes.iter().filter(|(it, _)| !it.is_program);
            reported.map(|(_, it)| it.busy).max().map(Millis)
        };
        out.of_slots("forkpool_worker_busy_seconds", "gauge", help, self, busy);
        let help = "When the worker's newest process was forked, in seconds since 1970.";
        let start = |slot: &SlotTotals<'_>| slot.processes.last().map(|(it, _)| Millis(it.since));
        out.of_slots("forkpool_worker_start_time_seconds", "gauge", help, self, start);
    }
}

#[derive(Debug, Default)]
struct Metrics(String);

impl Metrics {
    /// Begins a metric; all its samples must follow.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        // Writing to a string does not fail.
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    /// Writes a metric with a sample for each slot that has a value.
    fn of_slots<'m, V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        snapshot: &Snapshot<'m>,
        value: impl Fn(&SlotTotals<'m>) -> Option<V>,
    ) {
        self.family(name, kind, help);
        for slot in &snapshot.slots {
            if let Some(value) = value(slot) {
                self.sample(name, &format!("worker=\"{}\"", slot.id), value);
            }
        }
    }
}

/// How workers are chosen, as a word of `--balance`, from the text for people.
fn balance(text: &str) -> &'static str {
    let named =
        [("least", "least-connections"), ("random", "random"), ("hash", "hash"), ("CPU", "cpu"), ("client", "client")];
    named.iter().find(|(part, _)| text.contains(part)).map_or("unknown", |(_, word)| word)
}
