//! PURE. Renders the status as JSON (RFC 8259). JSON is written here and never read, so a writer of strings and numbers
//! is enough.

use std::fmt::{Display, Write};

use super::history::History;
use super::snapshot::{Snapshot, Worker};
use super::{Counters, Event, Latency, Micros, Millis, Reading, Reason};
use crate::shared::counters::CLASSES;

impl Snapshot<'_> {
    pub(crate) fn to_json(&self) -> String {
        let mut json = Json::default();
        json.object(|json| {
            json.key("pool").object(|json| self.pool_to(json));
            json.key("totals").object(|json| self.totals_to(json));
            json.key("workers").array(self.workers.iter(), |json, worker| json.object(|json| worker.write_to(json)));
            json.key("events").array(self.events.iter(), |json, event| json.object(|json| event.write_to(json)));
        });
        json.0
    }

    fn pool_to(&self, json: &mut Json) {
        let pool = self.pool;
        json.key("state").string(pool.state.as_str());
        json.key("ready").bare(self.is_ready);
        json.key("pid").bare(pool.pid);
        json.key("version").string(env!("CARGO_PKG_VERSION"));
        json.key("time").bare(Millis(self.now));
        json.key("started").bare(Millis(pool.started));
        json.key("wanted").bare(pool.wanted);
        json.key("serving").bare(pool.serving);
        json.key("listening").array(pool.listening.iter(), |json, address| json.string(address));
        json.key("workers_because").string(&pool.because);
        json.key("balance").string(&pool.balance);
        json.key("restart_aborted").optional(pool.restart_aborted.as_deref());
        json.key("max_held").bare(pool.max_held);
        json.key("certificates").array(pool.certificates.iter(), |json, (file, until)| {
            json.object(|json| {
                json.key("file").string(file);
                json.key("expires").bare(until);
            });
        });
    }

    fn totals_to(&self, json: &mut Json) {
        let totals = Some(&self.totals).filter(|_| self.is_counted);
        json.key("requests").known(totals.map(|it| it.requests));
        json.key("connections").known(totals.map(|it| it.accepted));
        json.key("open").known(self.open);
        json.key("refused").known(totals.map(|it| it.refused));
        json.key("panics").known(totals.map(|it| it.panics));
        json.key("responses").classes(totals);
        json.key("sent").known(totals.map(|it| it.sent));
        json.key("handed_over").known(totals.map(|it| it.handed));
        json.key("handover_refused").known(totals.map(|it| it.discarded));
        json.key("tls");
        match self.handshakes().filter(|_| self.is_counted) {
            None => json.bare("null"),
            Some([full, resumed, failed]) => json.object(|json| {
                json.key("full").bare(full);
                json.key("resumed").bare(resumed);
                json.key("failed").bare(failed);
            }),
        }
        json.key("log_lines_lost").bare(self.lost());
        json.key("restarts").object(|json| {
            for (reason, count) in Reason::ALL.iter().zip(self.restarts) {
                json.key(reason.as_str()).bare(count);
            }
        });
        json.key("latency").latency(Some(self.latency).filter(|_| self.is_counted));
    }
}

impl Worker<'_> {
    fn write_to(&self, json: &mut Json) {
        let nothing = Reading::default();
        let (process, reading) = (self.process.map(|(it, _)| it), self.process.map_or(&nothing, |(_, it)| it));
        json.key("worker").bare(self.id);
        json.key("generation").bare(process.map_or(0, |it| it.generation));
        json.key("pid").known(process.map(|it| it.pid));
        json.key("state").string(self.state());
        json.key("since").known(process.map(|it| Millis(it.since)));
        json.key("restarts").bare(self.slot.map_or(0, |slot| slot.restarted()));
        json.key("last_exit").optional(self.slot.and_then(|slot| slot.last_exit.as_deref()));
        // A slot without a process serves nothing.
        let reported = if process.is_some() { self.reported() } else { Some(reading) };
        json.key("requests").known(reported.map(|it| it.counters.requests));
        json.key("connections").known(reported.map(|it| it.counters.accepted));
        json.key("open").known(reported.map(|it| it.counters.open()));
        json.key("responses").classes(reported.map(|it| &it.counters));
        json.key("sent").known(reported.map(|it| it.counters.sent));
        json.key("taken_over").known(reported.map(|it| it.counters.taken));
        json.key("queue").known(self.queue);
        json.key("busy").known(reported.map(|it| Millis(it.busy)));
        json.key("cpu").bare(Micros(reading.cpu));
        json.key("rss").bare(reading.rss);
        json.key("held").known(reported.map(|it| it.held));
        json.key("log_lines_lost").bare(reading.counters.lost);
        json.key("latency").latency(reported.map(|it| &it.latency));
    }
}

impl Event {
    fn write_to(&self, json: &mut Json) {
        json.key("seq").bare(self.seq);
        json.key("time").bare(Millis(self.time));
        json.key("level").string(self.level.as_str());
        json.key("kind").string(&self.kind);
        json.key("worker").known(self.worker);
        json.key("generation").known(self.generation);
        json.key("pid").known(self.pid);
        json.key("reason").optional(self.reason.as_deref());
        json.key("text").string(&self.text);
    }
}

/// Renders an event as a line of its own.
pub(crate) fn event_line(event: &Event) -> String {
    let mut json = Json::default();
    json.object(|json| event.write_to(json));
    json.0 + "\n"
}

/// Renders the samples of the last minutes.
pub(crate) fn history(history: &History) -> String {
    let mut json = Json::default();
    json.array(history.samples(), |json, sample| {
        json.object(|json| {
            json.key("time").bare(Millis(sample.time));
            json.key("requests").known(sample.requests);
            json.key("failed").known(sample.failed);
            json.key("open").known(sample.open);
            json.key("cpu").bare(Micros(sample.cpu));
        });
    });
    json.0 + "\n"
}

/// The response to a command that was passed on. `after` is the latest event before it.
pub(crate) fn accepted(command: &str, after: u64) -> String {
    let mut json = Json::default();
    json.object(|json| {
        json.key("accepted").string(command);
        json.key("after").bare(after);
    });
    json.0 + "\n"
}

/// The response to a command that was refused.
pub(crate) fn refused(error: &str) -> String {
    let mut json = Json::default();
    json.object(|json| json.key("error").string(error));
    json.0 + "\n"
}

/// The JSON written so far.
#[derive(Debug, Default)]
pub(super) struct Json(String);

impl Json {
    pub(super) fn object(&mut self, members: impl FnOnce(&mut Json)) {
        self.0.push('{');
        members(self);
        self.0.push('}');
    }

    /// Writes the name of a member; its value must follow.
    pub(super) fn key(&mut self, name: &str) -> &mut Json {
        self.separate();
        self.string(name);
        self.0.push(':');
        self
    }

    fn array<T>(&mut self, items: impl Iterator<Item = T>, mut item: impl FnMut(&mut Json, T)) {
        self.0.push('[');
        for it in items {
            self.separate();
            item(self, it);
        }
        self.0.push(']');
    }

    fn separate(&mut self) {
        if !self.0.ends_with(['{', '[']) {
            self.0.push(',');
        }
    }

    pub(super) fn string(&mut self, text: &str) {
        self.0.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => self.0.extend(['\\', c]),
                // Also escapes what terminals interpret, and what ends a line in JavaScript.
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                    // Writing to a string does not fail.
                    let _ = write!(self.0, "\\u{:04x}", u32::from(c));
                }
                c => self.0.push(c),
            }
        }
        self.0.push('"');
    }

    fn optional(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None => self.bare("null"),
        }
    }

    /// Writes a number, true, false or null.
    fn bare(&mut self, value: impl Display) {
        // Writing to a string does not fail.
        let _ = write!(self.0, "{value}");
    }

    /// Writes a number, or null if it is unknown.
    fn known(&mut self, value: Option<impl Display>) {
        match value {
            Some(value) => self.bare(value),
            None => self.bare("null"),
        }
    }

    /// Writes the number of responses for each class of status.
    fn classes(&mut self, counters: Option<&Counters>) {
        self.object(|json| {
            for class in 0..CLASSES {
                json.key(&format!("{}xx", class + 1)).known(counters.map(|it| it.responses[class]));
            }
        });
    }

    /// Writes the latencies. If they are unknown, all values are null and there are no buckets.
    fn latency(&mut self, latency: Option<&Latency>) {
        let nothing = Latency::default();
        self.object(|json| {
            json.key("count").known(latency.map(Latency::count));
            json.key("sum").known(latency.map(|it| Micros(it.sum)));
            let latency = latency.unwrap_or(&nothing);
            for (name, thousandths) in [("p50", 500), ("p90", 900), ("p99", 990), ("p999", 999)] {
                json.key(name).known(latency.quantile(thousandths).map(Micros));
            }
            json.key("buckets").array(latency.filled(), |json, (end, count)| {
                json.array(0..2, |json, index| if index == 0 { json.bare(Micros(end)) } else { json.bare(count) });
            });
        });
    }
}
