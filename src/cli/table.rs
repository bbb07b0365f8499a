//! PURE. What `forkpool top` shows: the status of a pool as a table, with rates since the previous status.

use std::cmp::Reverse;

use forkpool::{shown_span, shown_time};
use serde_json::Value;

use super::output::{printable, put};

/// A column: its name, and its value for a worker.
type Column = (&'static str, fn(&Row<'_>) -> String);

/// The columns up to QUEUE fit a terminal of 80 columns, which cuts off the others.
const COLUMNS: &[Column] = &[
    ("WORKER", |row| number(&row.worker["worker"])),
    ("PID", |row| number(&row.worker["pid"])),
    (STATE, |row| row.worker["state"].as_str().unwrap_or("-").to_owned()),
    ("UP", |row| micros(&row.worker["since"]).map_or_else(none, |since| age(row.now, since))),
    ("REQ/S", |row| row.rates.0.map_or_else(none, |requests| requests.to_string())),
    ("CPU%", |row| row.rates.1.map_or_else(none, |cpu| format!("{}.{}", cpu / 10, cpu % 10))),
    ("OPEN", |row| number(&row.worker["open"])),
    ("P50", |row| shown_time(micros(&row.worker["latency"]["p50"]))),
    ("P99", |row| shown_time(micros(&row.worker["latency"]["p99"]))),
    ("QUEUE", |row| number(&row.worker["queue"])),
    ("BUSY", |row| shown_time(micros(&row.worker["busy"]).filter(|busy| *busy > 0))),
    ("GEN", |row| number(&row.worker["generation"])),
    ("RESTARTS", |row| number(&row.worker["restarts"])),
    ("REQUESTS", |row| number(&row.worker["requests"])),
    ("RSS", |row| row.worker["rss"].as_u64().map_or_else(none, |bytes| format!("{}M", bytes >> 20))),
    (LAST_EXIT, |row| row.worker["last_exit"].as_str().unwrap_or("-").to_owned()),
];

/// The columns of text, which are left-aligned.
const STATE: &str = "STATE";
const LAST_EXIT: &str = "LAST EXIT";

/// What the workers are sorted by: by number, or with the highest value first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Worker,
    Requests,
    Cpu,
    Open,
    P99,
    Memory,
}

/// The keys of `top`, and the names for `--sort`.
pub(super) const SORTS: [(u8, &str, Sort); 6] = [
    (b'w', "worker", Sort::Worker),
    (b'r', "requests", Sort::Requests),
    (b'c', "cpu", Sort::Cpu),
    (b'o', "open", Sort::Open),
    (b'p', "p99", Sort::P99),
    (b'm', "memory", Sort::Memory),
];

/// The last line of a terminal: the keys.
pub(super) const KEYS: &str = "q quits; sort by w worker, r requests, c cpu, o open, p p99, m memory";

/// The number of events shown.
const EVENTS: usize = 10;

/// A worker, and the time of its status.
struct Row<'a> {
    worker: &'a Value,
    /// In microseconds.
    now: u64,
    /// Requests per second, and thousandths of a CPU, since the previous status; `None` for a new process, and if
    /// unknown.
    rates: (Option<u64>, Option<u64>),
}

impl Row<'_> {
    /// What the rows are sorted by, the highest first. What is not known comes last.
    fn rank(&self, sort: Sort) -> Option<u64> {
        match sort {
            Sort::Worker => None,
            Sort::Requests => self.rates.0,
            Sort::Cpu => self.rates.1,
            Sort::Open => self.worker["open"].as_u64(),
            Sort::P99 => micros(&self.worker["latency"]["p99"]),
            Sort::Memory => self.worker["rss"].as_u64(),
        }
    }
}

/// Renders the status as a table. `before` is the previous status, or null.
pub(super) fn table(status: &Value, before: &Value, sort: Sort) -> String {
    let mut out = String::new();
    let now = micros(&status["pool"]["time"]).unwrap_or(0);
    head(&mut out, status, before);
    let workers = status["workers"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |worker| Row { worker, now, rates: rates(worker, now, before) };
    let mut sorted: Vec<Row<'_>> = workers.iter().map(row).collect();
    // The sort is stable: workers of one rank stay in the order of their numbers.
    sorted.sort_by_key(|row| Reverse(row.rank(sort)));
    let mut rows: Vec<Vec<String>> = vec![COLUMNS.iter().map(|(name, _)| (*name).to_owned()).collect()];
    rows.extend(sorted.iter().map(|row| COLUMNS.iter().map(|(_, cell)| cell(row)).collect()));
    for row in &rows {
        let mut line = String::new();
        for (column, (name, _)) in COLUMNS.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            match *name {
                STATE | LAST_EXIT => put(&mut line, format_args!("{:<width$}  ", row[column])),
                _ => put(&mut line, format_args!("{:>width$}  ", row[column])),
            }
        }
        put(&mut out, format_args!("{}\n", line.trim_end()));
    }
    let events = status["events"].as_array().map_or(&[][..], Vec::as_slice);
    out.push_str(if events.is_empty() { "" } else { "\n" });
    for event in &events[events.len().saturating_sub(EVENTS)..] {
        let (level, text) = (event["level"].as_str().unwrap_or_default(), event["text"].as_str().unwrap_or_default());
        put(&mut out, format_args!("{:>8} ago  {level:<5}  {text}\n", age(now, micros(&event["time"]).unwrap_or(now))));
    }
    // Reasons and paths are foreign text, which may hold control characters.
    printable(&out)
}

/// Renders the lines about the pool as a whole.
fn head(out: &mut String, status: &Value, before: &Value) {
    let (pool, totals) = (&status["pool"], &status["totals"]);
    let time_of = |status: &Value| micros(&status["pool"]["time"]).unwrap_or(0);
    let is_same = pool["pid"] == before["pool"]["pid"];
    let elapsed = time_of(status).saturating_sub(time_of(before));
    let requests = |totals: &Value| totals["requests"].as_u64();
    let rate = rate(requests(totals), requests(&before["totals"]), elapsed, 1_000_000).filter(|_| is_same);
    put(
        out,
        format_args!(
            "forkpool {}: {}, {} of {} workers serve, pid {}, up {}\n",
            pool["version"].as_str().unwrap_or("?"),
            pool["state"].as_str().unwrap_or("?"),
            number(&pool["serving"]),
            number(&pool["wanted"]),
            number(&pool["pid"]),
            age(time_of(status), micros(&pool["started"]).unwrap_or(0)),
        ),
    );
    let listening = pool["listening"].as_array().into_iter().flatten().filter_map(Value::as_str);
    put(out, format_args!("listening on {}\n", listening.collect::<Vec<_>>().join(", ")));
    if let Some(aborted) = pool["restart_aborted"].as_str() {
        put(out, format_args!("{aborted}\n"));
    }
    let latency = |quantile: &str| shown_time(micros(&totals["latency"][quantile]));
    put(
        out,
        format_args!(
            "{} requests per second, p50 {}, p99 {}; {} connections open\n{} requests, {} refused, {} panics\n",
            rate.map_or_else(none, |rate| rate.to_string()),
            latency("p50"),
            latency("p99"),
            number(&totals["open"]),
            number(&totals["requests"]),
            number(&totals["refused"]),
            number(&totals["panics"]),
        ),
    );
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|class| (class, totals["responses"][class].as_u64()));
    let counts = classes.iter().filter_map(|(class, count)| Some((class, count.filter(|count| *count > 0)?)));
    let counts: Vec<String> = counts.map(|(class, count)| format!("{count} {class}")).collect();
    if let (false, Some(sent)) = (counts.is_empty(), totals["sent"].as_u64()) {
        put(out, format_args!("responses: {}; {} KiB sent\n", counts.join(", "), sent >> 10));
    }
    tls(out, pool, &totals["tls"]);
    match totals["log_lines_lost"].as_u64() {
        None | Some(0) => out.push('\n'),
        Some(lost) => put(out, format_args!("{lost} log lines lost\n\n")),
    }
}

/// Renders the lines about HTTPS, of a pool that has it.
fn tls(out: &mut String, pool: &Value, handshakes: &Value) {
    let now = micros(&pool["time"]).unwrap_or(0) / 1_000_000;
    for certificate in pool["certificates"].as_array().into_iter().flatten() {
        let file = certificate["file"].as_str().unwrap_or("?");
        let until = certificate["expires"].as_u64().unwrap_or(0);
        match until.checked_sub(now) {
            Some(left) => put(out, format_args!("certificate {file} expires in {} days\n", left / 86_400)),
            None => put(out, format_args!("certificate {file} HAS EXPIRED\n")),
        }
    }
    if handshakes.is_object() {
        let count = |way: &str| number(&handshakes[way]);
        let (full, resumed, failed) = (count("full"), count("resumed"), count("failed"));
        put(out, format_args!("TLS handshakes: {full} full, {resumed} resumed, {failed} failed\n"));
    }
}

/// Requests per second and thousandths of a CPU, for a process that was in the previous status.
fn rates(worker: &Value, now: u64, before: &Value) -> (Option<u64>, Option<u64>) {
    let elapsed = now.saturating_sub(micros(&before["pool"]["time"]).unwrap_or(0));
    let mut olds = before["workers"].as_array().into_iter().flatten();
    let old = olds.find(|old| old["pid"].is_u64() && old["pid"] == worker["pid"]).unwrap_or(&Value::Null);
    (
        rate(worker["requests"].as_u64(), old["requests"].as_u64(), elapsed, 1_000_000),
        rate(micros(&worker["cpu"]), micros(&old["cpu"]), elapsed, 1000),
    )
}

/// Returns `unit` times the growth of a number per microsecond; zero if the number has fallen, since its counter may
/// have restarted.
fn rate(new: Option<u64>, old: Option<u64>, elapsed: u64, unit: u64) -> Option<u64> {
    Some(new?.saturating_sub(old?).saturating_mul(unit) / elapsed.max(1))
}

/// Converts seconds to microseconds.
fn micros(seconds: &Value) -> Option<u64> {
    // The cast saturates: zero for a negative number, the maximum for one that is too high.
    Some((seconds.as_f64()? * 1e6).round() as u64)
}

fn number(value: &Value) -> String {
    value.as_u64().map_or_else(none, |number| number.to_string())
}

fn none() -> String {
    "-".to_owned()
}

/// How long ago something was; both times are in microseconds.
fn age(now: u64, then: u64) -> String {
    shown_span(now.saturating_sub(then) / 1000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(time: f64, requests: u64, cpu: f64) -> Value {
        let latency = json!({"p50": 0.000_025, "p99": 0.0021});
        json!({
            "pool": {"version": "1", "state": "serving", "pid": 1, "time": time, "started": 0.0, "serving": 1,
                "wanted": 2, "listening": ["127.0.0.1:8000"], "restart_aborted": null},
            "totals": {"requests": requests, "open": 3, "refused": 0, "panics": 0, "log_lines_lost": 0,
                "responses": {"1xx": 0, "2xx": 7, "3xx": 0, "4xx": 1, "5xx": 0}, "sent": 10_240,
                "latency": latency},
            "workers": [
                {"worker": 0, "generation": 2, "pid": 77, "state": "ready", "since": 10.0, "restarts": 1,
                    "last_exit": "killed\u{1b}[2J", "requests": requests, "open": 3, "queue": 0, "busy": 0.5,
                    "cpu": cpu, "rss": 5_242_880, "latency": latency},
                {"worker": 1, "generation": 0, "pid": null, "state": "backoff", "since": null, "restarts": 4,
                    "last_exit": null, "requests": null, "open": null, "queue": null, "busy": 0.0, "cpu": 0.0,
                    "rss": null, "latency": {"p50": null, "p99": null}},
            ],
            "events": [{"time": 70.0, "level": "info", "text": "a"}],
        })
    }

    #[test]
    fn of_a_program_what_is_known_is_shown() {
        let program = |time, cpu| {
            let mut status = status(time, 0, cpu);
            for name in ["requests", "open", "busy"] {
                status["workers"][0][name] = Value::Null;
            }
            status["totals"]["requests"] = Value::Null;
            status
        };
        let shown = table(&program(102.0, 2.0), &program(100.0, 1.0), Sort::Worker);
        assert!(
            shown.contains("\n- requests per second, p50 25us, p99 2.1ms; 3 connections open\n- requests"),
            "{shown}"
        );
        let row = shown.lines().find(|line| line.contains(" ready ")).expect("a row");
        assert_eq!(row.split_whitespace().collect::<Vec<_>>()[4..7], ["-", "50.0", "-"], "{shown}");
    }

    #[test]
    fn the_status_is_a_table_with_rates() {
        let shown = table(&status(100.0, 1000, 1.0), &Value::Null, Sort::Worker);
        assert!(shown.contains("\n- requests per second") && shown.contains("\n1000 requests"), "{shown}");
        let shown = table(&status(102.0, 5000, 2.0), &status(100.0, 1000, 1.0), Sort::Worker);
        assert_eq!(
            shown,
            "\
forkpool 1: serving, 1 of 2 workers serve, pid 1, up 1m42s
listening on 127.0.0.1:8000
2000 requests per second, p50 25us, p99 2.1ms; 3 connections open
5000 requests, 0 refused, 0 panics
responses: 7 2xx, 1 4xx; 10 KiB sent

WORKER  PID  STATE       UP  REQ/S  CPU%  OPEN   P50    P99  QUEUE   BUSY  GEN  RESTARTS  REQUESTS  RSS  LAST EXIT
     0   77  ready    1m32s   2000  50.0     3  25us  2.1ms      0  500ms    2         1      5000   5M  killed?[2J
     1    -  backoff      -      -     -     -     -      -      -      -    0         4         -    -  -

     32s ago  info   a
"
        );
    }

    #[test]
    fn a_terminal_of_80_columns_has_room_for_what_matters() {
        let mut status = status(90_000.0, 1_234_567_890, 80_000.0);
        status["totals"]["open"] = json!(1_000_000);
        for worker in status["workers"].as_array_mut().expect("workers") {
            worker["pid"] = json!(4_194_304);
            worker["state"] = json!("draining");
            worker["open"] = json!(99_999);
            worker["latency"] = json!({"p50": 0.000_999, "p99": 0.999});
        }
        let mut before = status.clone();
        before["pool"]["time"] = json!(89_999.0);
        before["totals"]["requests"] = json!(1_234_000_000);
        before["workers"][0]["requests"] = json!(1_234_000_000);
        let shown = table(&status, &before, Sort::Worker);
        let (head, table) = shown.split_once("\n\n").expect("a head");
        assert!(head.lines().all(|line| line.len() <= 80), "{head}");
        let names = table.lines().next().expect("names");
        assert!(names.find("QUEUE").is_some_and(|at| at + "QUEUE".len() <= 80), "{shown}");
        assert!(KEYS.len() <= 80);
    }

    #[test]
    fn workers_are_sorted_with_the_highest_first() {
        let mut status = status(100.0, 1000, 1.0);
        let worker = |id: u64, open: Value, rss: u64, p99: f64| {
            let (pid, cpu) = (id + 1, 9.0 - id as f64);
            let latency = json!({"p99": p99});
            json!({"worker": id, "pid": pid, "open": open, "rss": rss, "latency": latency, "requests": id, "cpu": cpu})
        };
        let workers = [worker(0, json!(5), 1, 0.2), worker(1, Value::Null, 3, 0.1), worker(2, json!(7), 2, 0.3)];
        status["workers"] = json!(workers);
        let mut before = status.clone();
        before["pool"]["time"] = json!(90.0);
        for worker in before["workers"].as_array_mut().expect("workers") {
            (worker["requests"], worker["cpu"]) = (json!(0), json!(0.0));
        }
        status["workers"][1]["requests"] = json!(500);
        for (sort, order) in [
            (Sort::Worker, ["0", "1", "2"]),
            (Sort::Requests, ["1", "0", "2"]),
            (Sort::Cpu, ["0", "1", "2"]),
            (Sort::Open, ["2", "0", "1"]),
            (Sort::P99, ["2", "0", "1"]),
            (Sort::Memory, ["1", "2", "0"]),
        ] {
            let shown = table(&status, &before, sort);
            let rows = shown.lines().skip_while(|line| !line.starts_with("WORKER")).skip(1);
            let found: Vec<&str> = rows.take(3).filter_map(|row| row.split_whitespace().next()).collect();
            assert_eq!(found, order, "{sort:?}: {shown}");
        }
    }

    #[test]
    fn https_has_lines_of_its_own() {
        let mut https = status(100.0, 1000, 1.0);
        https["pool"]["certificates"] =
            json!([{"file": "a.pem", "expires": 86_400 * 3 + 150}, {"file": "b.pem", "expires": 99}]);
        https["totals"]["tls"] = json!({"full": 3, "resumed": 4, "failed": 5});
        let shown = table(&https, &Value::Null, Sort::Worker);
        let lines = "certificate a.pem expires in 3 days\ncertificate b.pem HAS EXPIRED\n\
                     TLS handshakes: 3 full, 4 resumed, 5 failed\n";
        assert!(shown.contains(lines), "{shown}");
    }

    #[test]
    fn a_status_of_anything_else_is_shown_without_panic() {
        for status in
            [Value::Null, json!([]), json!({"workers": 7, "pool": {"time": "x"}}), json!({"workers": [1, {}]})]
        {
            assert!(table(&status, &status, Sort::default()).starts_with("forkpool ?: ?, - of - workers serve"));
        }
    }
}
