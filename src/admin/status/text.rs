//! PURE. Renders the status as a table for terminals.

use std::fmt::{Arguments, Write};

use super::snapshot::{Snapshot, Worker};

const COLUMNS: [&str; 14] = [
    "WORKER", "GEN", "PID", "STATE", "UP", "RESTARTS", "REQUESTS", "OPEN", "QUEUE", "BUSY", "P50", "P99", "CPU", "RSS",
];

impl Snapshot<'_> {
    pub(crate) fn to_text(&self) -> String {
        let pool = self.pool;
        let mut out = String::new();
        let mut line = |text: Arguments<'_>| {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{text}");
        };
        line(format_args!(
            "forkpool {}: {}, {} of {} workers serve, pid {}, up {}",
            env!("CARGO_PKG_VERSION"),
            pool.state.as_str(),
            pool.serving,
            pool.wanted,
            pool.pid,
            shown_span(self.now.saturating_sub(pool.started))
        ));
        line(format_args!("listening on {}", pool.listening.join(", ")));
        line(format_args!("{}; balance: {}", pool.because, pool.balance));
        if let Some(aborted) = &pool.restart_aborted {
            line(format_args!("{aborted}"));
        }
        let open = self.open.map_or_else(|| "-".to_owned(), |open| open.to_string());
        match self.is_counted {
            true => line(format_args!(
                "{} requests on {} connections, {open} open, {} refused, {} panics; p50 {}, p99 {}",
                self.totals.requests,
                self.totals.accepted,
                self.totals.refused,
                self.totals.panics,
                shown_time(self.latency.quantile(500)),
                shown_time(self.latency.quantile(990))
            )),
            false => line(format_args!("{open} connections open; requests to programs are not counted")),
        }
        if self.is_counted {
            let [one, two, three, four, five] = self.totals.responses;
            let informational = if one > 0 { format!("{one} 1xx, ") } else { String::new() };
            let sent = size(self.totals.sent);
            line(format_args!("responses: {informational}{two} 2xx, {three} 3xx, {four} 4xx, {five} 5xx; {sent} sent"));
        }
        if self.totals.handed > 0 || self.totals.discarded > 0 {
            let (handed, refused) = (self.totals.handed, self.totals.discarded);
            line(format_args!("{handed} connections passed from one worker to another, {refused} refused"));
        }
        let held = self.workers.iter().filter_map(|worker| worker.process.map(|(_, reading)| reading.held));
        let held = held.fold(0, u64::saturating_add);
        if held > 0 {
            let limit = if self.pool.max_held == 0 { "any" } else { &format!("{}M", self.pool.max_held >> 20) };
            line(format_args!(
                "{}K held for requests and responses in progress; the limit per worker is {limit}",
                held >> 10
            ));
        }
        self.tls_to(&mut line);
        if self.lost() > 0 {
            line(format_args!("{} log lines lost: nobody read them, or there was no room", self.lost()));
        }
        out.push('\n');
        self.table_to(&mut out);
        if !self.events.is_empty() {
            out.push('\n');
        }
        for event in self.events.iter().rev().take(10).rev() {
            let ago = shown_span(self.now.saturating_sub(event.time));
            // Writing to a string does not fail.
            let _ = writeln!(out, "{ago:>8} ago  {:<5}  {}", event.level.as_str(), event.text);
        }
        // Reasons and paths are foreign text, which may hold control characters.
        out.replace(|c: char| c.is_control() && c != '\n', "?")
    }

    fn tls_to(&self, line: &mut impl FnMut(Arguments<'_>)) {
        for (file, until) in &self.pool.certificates {
            match until.checked_sub(self.now / 1000) {
                Some(left) => line(format_args!("certificate {file} expires in {} days", left / 86_400)),
                None => line(format_args!("certificate {file} HAS EXPIRED")),
            }
        }
        if let Some([full, resumed, failed]) = self.handshakes() {
            line(format_args!("TLS handshakes: {full} full, {resumed} resumed, {failed} failed"));
        }
    }

    fn table_to(&self, out: &mut String) {
        let mut rows = vec![COLUMNS.map(str::to_owned)];
        rows.extend(self.workers.iter().map(|worker| worker.cells(self.now)));
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: [usize; COLUMNS.len()] = std::array::from_fn(width);
        let exits = self.workers.iter().map(|worker| worker.slot.and_then(|slot| slot.last_exit.as_deref()));
        for (row, exit) in rows.iter().zip([Some("LAST EXIT")].into_iter().chain(exits)) {
            for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
                // The state is the only word; numbers are right-aligned. Writing to a string does not fail.
                let _ = match column {
                    3 => write!(out, "{cell:<width$}  "),
                    _ => write!(out, "{cell:>width$}  "),
                };
            }
            out.push_str(exit.unwrap_or("-"));
            out.push('\n');
        }
    }
}

impl Worker<'_> {
    fn cells(&self, now: u64) -> [String; COLUMNS.len()] {
        let restarts = self.slot.map_or(0, |slot| slot.restarted());
        let none = || "-".to_owned();
        let queue = self.queue.map_or_else(none, |queue| queue.to_string());
        let Some((process, reading)) = self.process else {
            let mut cells = std::array::from_fn(|_| none());
            (cells[0], cells[3], cells[5]) = (self.id.to_string(), self.state().to_owned(), restarts.to_string());
            cells[8] = queue;
            return cells;
        };
        [
            self.id.to_string(),
            process.generation.to_string(),
            process.pid.to_string(),
            self.state().to_owned(),
            shown_span(now.saturating_sub(process.since)),
            restarts.to_string(),
            self.reported().map_or_else(none, |reading| reading.counters.requests.to_string()),
            self.reported().map_or_else(none, |reading| reading.counters.open().to_string()),
            queue,
            if reading.busy == 0 { none() } else { shown_time(Some(reading.busy * 1000)) },
            shown_time(reading.latency.quantile(500)),
            shown_time(reading.latency.quantile(990)),
            shown_time(Some(reading.cpu)),
            format!("{}M", reading.rss >> 20),
        ]
    }
}

/// Shows a time in microseconds with about three digits; a dash if it is unknown.
pub fn shown_time(micros: Option<u64>) -> String {
    match micros {
        None => "-".to_owned(),
        Some(micros @ 0..1000) => format!("{micros}us"),
        Some(micros @ 1000..10_000) => format!("{}.{}ms", micros / 1000, micros % 1000 / 100),
        Some(micros @ 10_000..1_000_000) => format!("{}ms", micros / 1000),
        Some(micros) => format!("{}.{}s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}

/// Shows a number of bytes with about three digits.
fn size(bytes: u64) -> String {
    let units = [(30, 'G'), (20, 'M'), (10, 'K')];
    match units.into_iter().find(|(shift, _)| bytes >> shift >= 10) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

/// Shows a span of milliseconds.
pub fn shown_span(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}
