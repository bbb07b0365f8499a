//! What became of the requests: every one in exactly one class.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::histogram::Histogram;
use super::schedule::Kind;

/// What became of a request. Together they are all requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// A valid answer, whole and in time.
    Ok,
    /// Like `Ok`, but after more than `--late`. Not lost.
    Late,
    /// ECONNREFUSED.
    Refused,
    /// Reset before the request was sent.
    ResetConnecting,
    /// Reset after the request was sent, before any byte of an answer.
    ResetWaiting,
    ResetMidAnswer,
    /// Reset instead of closed, after a whole answer that was announced as the connection's last.
    ResetAfterAnswer,
    /// Closed within the answer.
    Truncated,
    /// Closed before any byte of an answer.
    Dropped,
    /// Not a 200 with a Content-Length, or longer than that says.
    Bad,
    /// No progress for as long as `--patience` says.
    TimedOut,
    /// The client's own failure: too few descriptors, no free port. A run that has any says nothing about the server.
    Local,
}

impl Class {
    const ALL: [(Class, &str); 12] = [
        (Class::Ok, "ok"),
        (Class::Late, "late"),
        (Class::Refused, "refused"),
        (Class::ResetConnecting, "reset_connecting"),
        (Class::ResetWaiting, "reset_waiting"),
        (Class::ResetMidAnswer, "reset_mid_answer"),
        (Class::ResetAfterAnswer, "reset_after_answer"),
        (Class::Truncated, "truncated"),
        (Class::Dropped, "dropped"),
        (Class::Bad, "bad"),
        (Class::TimedOut, "timed_out"),
        (Class::Local, "local"),
    ];

    pub(crate) fn name(self) -> &'static str {
        Class::ALL[self as usize].1
    }

    pub(crate) fn is_answered(self) -> bool {
        matches!(self, Class::Ok | Class::Late)
    }

    /// Whether the server owes an answer.
    pub(crate) fn is_lost(self) -> bool {
        !self.is_answered() && self != Class::Local
    }

    fn is_reset(self) -> bool {
        use Class::{ResetAfterAnswer, ResetConnecting, ResetMidAnswer, ResetWaiting};
        matches!(self, ResetConnecting | ResetWaiting | ResetMidAnswer | ResetAfterAnswer)
    }
}

/// The counts of a run.
#[derive(Debug)]
pub(crate) struct Tally {
    fast: Counts,
    slow: Counts,
    /// Answers before the load's end.
    in_time: u64,
    begun: Instant,
    ended: Option<Instant>,
    last_answer: Instant,
    longest_gap: Duration,
    /// Connections opened, or tried to open.
    pub(crate) connections: u64,
    /// Idle connections that the server ended between two requests: its right, and no loss.
    pub(crate) closed_idle: u64,
    /// Sessions of TLS that were begun anew, and that went on with an earlier one, of connections that have answered.
    pub(crate) full: u64,
    pub(crate) resumed: u64,
    /// Those of the former that could have been resumed.
    pub(crate) missed: u64,
    /// Connections that each worker has answered on.
    pub(crate) workers: BTreeMap<u32, u64>,
    spread: Spread,
}

/// What is printed beside the counts of all requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Details {
    pub(crate) is_json: bool,
    /// Those of the slow ones.
    pub(crate) has_slow: bool,
    pub(crate) by_worker: bool,
    pub(crate) is_tls: bool,
}

impl Tally {
    pub(crate) fn new(now: Instant) -> Tally {
        Tally {
            fast: Counts::default(),
            slow: Counts::default(),
            in_time: 0,
            begun: now,
            ended: None,
            last_answer: now,
            longest_gap: Duration::ZERO,
            connections: 0,
            closed_idle: 0,
            full: 0,
            resumed: 0,
            missed: 0,
            workers: BTreeMap::new(),
            spread: Spread::default(),
        }
    }

    pub(crate) fn answered(&mut self, kind: Kind, class: Class, latency: Duration, now: Instant) {
        let counts = self.counts(kind);
        counts.classes[class as usize] += 1;
        counts.latencies.record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        if self.ended.is_none() {
            self.end_gap(now);
            self.in_time += 1;
        }
    }

    pub(crate) fn failed(&mut self, kind: Kind, class: Class) {
        self.counts(kind).classes[class as usize] += 1;
    }

    /// An answer turned out to be longer than it said, after it had been counted.
    pub(crate) fn retract(&mut self, kind: Kind, class: Class) {
        let classes = &mut self.counts(kind).classes;
        classes[class as usize] -= 1;
        classes[Class::Bad as usize] += 1;
    }

    fn counts(&mut self, kind: Kind) -> &mut Counts {
        match kind {
            Kind::Fast => &mut self.fast,
            Kind::Slow => &mut self.slow,
        }
    }

    /// Looks which worker has each of the connections that are open now.
    pub(crate) fn spread(&mut self, open: impl Iterator<Item = u32>) {
        self.spread.look(open, self.workers.len());
    }

    /// The load is over: what is still answered is counted, but is not part of the rate and ends no gap.
    pub(crate) fn end(&mut self, now: Instant) {
        if self.ended.is_none() {
            self.end_gap(now);
            self.ended = Some(now);
        }
    }

    fn end_gap(&mut self, now: Instant) {
        self.longest_gap = self.longest_gap.max(now.duration_since(self.last_answer));
        self.last_answer = now;
    }

    pub(crate) fn of(&self, class: Class) -> u64 {
        self.fast.of(class) + self.slow.of(class)
    }

    pub(crate) fn total(&self) -> u64 {
        self.fast.sum(|_| true) + self.slow.sum(|_| true)
    }

    pub(crate) fn lost(&self) -> u64 {
        self.fast.sum(Class::is_lost) + self.slow.sum(Class::is_lost)
    }

    /// One line of `key=value`, or one JSON object with the same keys. Latencies are in microseconds, and those of the
    /// slow requests are apart.
    pub(crate) fn report(&self, details: Details) -> String {
        let elapsed = self.last_answer.duration_since(self.begun).as_secs_f64();
        let rate = if elapsed > 0.0 { self.in_time as f64 / elapsed } else { 0.0 };
        let reset = self.fast.sum(Class::is_reset) + self.slow.sum(Class::is_reset);
        let mut pairs = Pairs::default();
        pairs.extend([("total", self.total()), ("lost", self.lost()), ("reset", reset)]);
        pairs.extend(Class::ALL.map(|(class, name)| (name, self.of(class))));
        pairs.extend([("connections", self.connections), ("closed_idle", self.closed_idle)]);
        pairs.extend([("ms", (elapsed * 1e3) as u64), ("rate", rate as u64)]);
        pairs.extend(self.fast.latencies.summary());
        pairs.extend([("gap_ms", self.longest_gap.as_millis() as u64)]);
        if details.has_slow {
            pairs.extend_with("slow.", [("total", self.slow.sum(|_| true))]);
            pairs.extend_with("slow.", Class::ALL.map(|(class, name)| (name, self.slow.of(class))));
            pairs.extend_with("slow.", self.slow.latencies.summary());
        }
        if details.is_tls {
            pairs.extend([("full", self.full), ("resumed", self.resumed), ("missed", self.missed)]);
        }
        if details.by_worker {
            pairs.extend([("fullest", self.spread.fullest())]);
        }
        let workers = details.by_worker.then_some(&self.workers);
        if details.is_json {
            json(&pairs.0, workers)
        } else {
            line(&pairs.0, workers)
        }
    }
}

/// What became of the requests of one kind.
#[derive(Debug, Default)]
struct Counts {
    classes: [u64; Class::ALL.len()],
    latencies: Histogram,
}

impl Counts {
    fn of(&self, class: Class) -> u64 {
        self.classes[class as usize]
    }

    fn sum(&self, belongs: impl Fn(Class) -> bool) -> u64 {
        Class::ALL.iter().filter(|(class, _)| belongs(*class)).map(|(class, _)| self.of(*class)).sum()
    }
}

/// How evenly the open connections are spread over the workers, from look to look.
#[derive(Debug, Default)]
struct Spread {
    looks: u64,
    /// Of each look: the connections of the worker with the most, as a part of the mean.
    ratios: f64,
}

impl Spread {
    /// A worker without a connection counts too.
    fn look(&mut self, open: impl Iterator<Item = u32>, workers: usize) {
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        open.for_each(|worker| *counts.entry(worker).or_default() += 1);
        if let Some(most) = counts.values().max() {
            self.looks += 1;
            self.ratios += (most * workers as u64) as f64 / counts.values().sum::<u64>() as f64;
        }
    }

    /// In thousandths of the mean, and on average; 0 when there was no look.
    fn fullest(&self) -> u64 {
        (self.ratios * 1e3 / self.looks.max(1) as f64).round() as u64
    }
}

#[derive(Default)]
struct Pairs(Vec<(String, u64)>);

impl Pairs {
    fn extend<const N: usize>(&mut self, pairs: [(&str, u64); N]) {
        self.extend_with("", pairs);
    }

    fn extend_with<const N: usize>(&mut self, prefix: &str, pairs: [(&str, u64); N]) {
        self.0.extend(pairs.map(|(key, value)| (format!("{prefix}{key}"), value)));
    }
}

type Workers = BTreeMap<u32, u64>;

fn line(pairs: &[(String, u64)], workers: Option<&Workers>) -> String {
    let mut words: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    words.extend(workers.into_iter().flatten().map(|(pid, count)| format!("worker.{pid}={count}")));
    words.join(" ")
}

fn json(pairs: &[(String, u64)], workers: Option<&Workers>) -> String {
    let mut members: Vec<String> = pairs.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    if let Some(workers) = workers {
        let counts: Vec<String> = workers.iter().map(|(pid, count)| format!("\"{pid}\":{count}")).collect();
        members.push(format!("\"workers\":{{{}}}", counts.join(",")));
    }
    format!("{{{}}}", members.join(","))
}
