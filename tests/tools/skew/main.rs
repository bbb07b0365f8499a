//! cargo build --release --examples && cargo run --release --example skew: what a few slow requests do to all others,
//! for each way to choose the worker of a new connection. Loads the testbed beside it with the example `load`, and
//! prints Markdown tables; `scripts/balance` does all of it.

#[path = "../../support/classes.rs"]
mod classes;
mod method;
mod plot;
#[path = "../pool.rs"]
mod pool;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, ExitCode};

use classes::LOSSES;
use method::Method;
use nix::sys::signal::Signal;
use plot::{Curve, Panel};
use pool::{beside, Result};

const USAGE: &str = "\
usage: skew [options]

  --quick              a fifth of the time
  --duration SECONDS   of each run (default 10)
  --rounds N           runs of each method in turn; tables and plot have the medians (default 3)
  --methods LIST       plain, hash, random, least-connections, cpu, client, shared; separated by commas (default all)
  --workers N --rate R one pool of so many workers and so many requests a second, instead of 4 with 400 and 8 with 1000
  --slow-share SHARE   how many requests are slow (default 2%)
  --slow-ms N          how long a slow one blocks its worker (default 100)
  --seed N             when requests are due and which are slow, at random but the same for the same N (default 1)
  --plot FILE          draw the latencies there, as SVG
  --help               this

Requests are due at random whatever the pool does, each on a connection of its own, and latencies count from when one
was due. Tables and plot show those of the fast requests. Then connections are kept, and replaced one by one: 400 on 8
workers. Further FORKPOOL_* variables are the pool's.
Exit codes: 0 done, 1 requests were lost, 2 usage, 3 it could not run.
";

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("skew: {wrong}; try --help");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(lost) => {
            eprintln!("skew: {lost} requests were lost");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("skew: {error}");
            ExitCode::from(3)
        }
    }
}

/// Returns how many requests were lost.
fn run(options: &Options) -> Result<u64> {
    let (mut lost, mut panels) = (0, Vec::new());
    for (workers, rate) in &options.pools {
        let (panel, count) = tail(options, *workers, *rate)?;
        panels.push(panel);
        lost += count;
    }
    lost += connections(options)?;
    if let Some(path) = &options.plot {
        let (share, ms) = (&options.slow_share, options.slow_ms);
        let title = format!("Latency of the fast requests while {share} of all block their worker for {ms} ms");
        std::fs::write(path, plot::svg(&title, &panels)).map_err(|error| format!("cannot write {path}: {error}"))?;
    }
    Ok(lost)
}

/// The latencies of the fast requests, in the order of the table and the plot.
const LATENCIES: [&str; 5] = ["p50", "p90", "p99", "p99.9", "max"];

fn tail(options: &Options, workers: u32, rate: u32) -> Result<(Panel, u64)> {
    let (share, ms) = (&options.slow_share, options.slow_ms);
    println!("{workers} workers, {rate} requests/s, {share} of them slow ({ms} ms); the others' latencies in ms:\n");
    println!("| who picks | {} | connections per worker, max/mean | lost |", LATENCIES.join(" | "));
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    let path = format!("/slow?ms={ms}");
    // Enough connections for every request that can be waiting at once.
    let load = format!("--rate {rate} --poisson --connections 2000 --slow-path {path} --slow-share {share}");
    let (mut panel, mut lost) = (Panel::new(format!("{workers} workers, {rate} requests/s")), 0);
    measure(options, workers, &load, |method, report| {
        let points = LATENCIES.map(|name| report.value(name) as f64 / 1e3);
        let (cells, busiest) = (points.map(millis).join(" | "), report.ratio("busiest"));
        println!("| {} | {cells} | {busiest:.2} | {} |", method.label, report.lost());
        panel.curves.push(Curve { method: method.name, points: points.to_vec() });
        lost += report.value("lost");
    })?;
    Ok((panel, lost))
}

/// How evenly kept connections are spread, while one request in ten replaces its own.
fn connections(options: &Options) -> Result<u64> {
    println!("8 workers, 400 kept connections, 400 of them replaced a second:\n");
    println!("| who picks | open connections per worker, max/mean | lost |\n|---|---:|---:|");
    let mut lost = 0;
    measure(options, 8, "--rate 4000 --poisson --connections 400 --keep-alive --churn 10%", |method, report| {
        println!("| {} | {:.2} | {} |", method.label, report.ratio("fullest"), report.lost());
        lost += report.value("lost");
    })?;
    Ok(lost)
}

/// Loads a pool of each method in turn, round after round, so that what else the machine does meets all of them. What a
/// pool warned of, as that it had to fall back to another method, stands under the table.
fn measure(options: &Options, workers: u32, load: &str, mut row: impl FnMut(&Method, &Report)) -> Result<()> {
    let mut reports: Vec<Vec<Report>> = options.methods.iter().map(|_| Vec::new()).collect();
    let mut notes = BTreeSet::new();
    for round in 0..options.rounds {
        for (method, reports) in options.methods.iter().zip(&mut reports) {
            let pool = match method::start(method, workers) {
                Ok(pool) => pool,
                Err(error) => {
                    notes.insert(format!("{}: {error}", method.name));
                    continue;
                }
            };
            let mut command = Command::new(beside("load")?);
            command.arg(pool.address()?.to_string()).args(load.split(' ')).arg("--by-worker");
            let (duration, seed) = (format!("{}ms", options.millis), options.seed.wrapping_add(round).to_string());
            command.args(["--duration", &duration, "--seed", &seed]);
            reports.push(Report::of(&mut command, workers)?);
            notes.extend(pool.stop(Signal::SIGTERM)?.iter().map(|line| format!("{}: {line}", method.name)));
        }
    }
    for (method, reports) in options.methods.iter().zip(&reports).filter(|(_, reports)| !reports.is_empty()) {
        row(method, &Report::merged(reports));
    }
    println!();
    notes.iter().for_each(|note| println!("- {note}"));
    if !notes.is_empty() {
        println!();
    }
    Ok(())
}

/// Three digits are as many as repeat.
fn millis(value: f64) -> String {
    let decimals = if value < 1.0 { 2 } else { usize::from(value < 10.0) };
    format!("{value:.decimals$}")
}

/// What the client has printed.
struct Report(BTreeMap<String, u64>);

impl Report {
    fn of(load: &mut Command, workers: u32) -> Result<Report> {
        let output = load.output().map_err(|error| format!("cannot run {load:?}: {error}"))?;
        // Code 1 says that requests were lost, which is a result.
        if !matches!(output.status.code(), Some(0 | 1)) {
            return Err(format!("{load:?} has failed: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        let text = String::from_utf8(output.stdout)?;
        let pairs = text.split_whitespace().filter_map(|word| word.split_once('='));
        let mut values =
            pairs.map(|(key, value)| Ok((key.to_owned(), value.parse()?))).collect::<Result<BTreeMap<_, _>>>()?;
        let counts = || values.iter().filter(|(key, _)| key.starts_with("worker.")).map(|(_, count)| *count);
        let (most, sum) = (counts().max().unwrap_or(0), counts().sum::<u64>());
        values.retain(|key, _| !key.starts_with("worker."));
        // Like `fullest`, in thousandths of the mean, but of all connections and not of those open at once.
        values.insert("busiest".to_owned(), most * u64::from(workers) * 1000 / sum.max(1));
        Ok(Report(values))
    }

    /// Of several rounds: the sums of what was lost, and the medians of what was measured.
    fn merged(reports: &[Report]) -> Report {
        let Some(first) = reports.first() else { return Report(BTreeMap::new()) };
        let merged = first.0.keys().map(|key| {
            let mut values: Vec<_> = reports.iter().map(|report| report.value(key)).collect();
            values.sort_unstable();
            let is_sum = key == "lost" || LOSSES.contains(&key.as_str());
            (key.clone(), if is_sum { values.iter().sum() } else { values[values.len() / 2] })
        });
        Report(merged.collect())
    }

    fn value(&self, key: &str) -> u64 {
        self.0.get(key).copied().unwrap_or(0)
    }

    fn ratio(&self, key: &str) -> f64 {
        self.value(key) as f64 / 1e3
    }

    /// How many, and of which class.
    fn lost(&self) -> String {
        let classes = LOSSES.iter().filter(|class| self.value(class) > 0);
        let classes: Vec<_> = classes.map(|class| format!("{} {class}", self.value(class))).collect();
        if classes.is_empty() {
            "0".to_owned()
        } else {
            classes.join(", ")
        }
    }
}

struct Options {
    methods: Vec<&'static Method>,
    pools: Vec<(u32, u32)>,
    slow_share: String,
    slow_ms: u32,
    millis: u32,
    seed: u64,
    rounds: u64,
    plot: Option<String>,
}

impl Options {
    /// `None` when the usage is asked for.
    fn parse(mut arguments: impl Iterator<Item = String>) -> std::result::Result<Option<Options>, String> {
        let mut options = Options {
            methods: Method::ALL.iter().collect(),
            pools: vec![(4, 400), (8, 1000)],
            slow_share: "2%".to_owned(),
            slow_ms: 100,
            millis: 10_000,
            seed: 1,
            rounds: 3,
            plot: None,
        };
        let (mut workers, mut rate, mut is_quick) = (None, None, false);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--help" => return Ok(None),
                "--quick" => is_quick = true,
                "--duration" => options.millis = number::<u16>(&argument, &value()?)? as u32 * 1000,
                "--methods" => {
                    options.methods = value()?.split(',').map(Method::named).collect::<std::result::Result<_, _>>()?
                }
                "--workers" => workers = Some(number(&argument, &value()?)?),
                "--rate" => rate = Some(number(&argument, &value()?)?),
                "--slow-share" => options.slow_share = value()?,
                "--slow-ms" => options.slow_ms = number(&argument, &value()?)?,
                "--seed" => options.seed = number(&argument, &value()?)?,
                "--rounds" => options.rounds = number(&argument, &value()?)?,
                "--plot" => options.plot = Some(value()?),
                other => return Err(format!("what is {other}?")),
            }
        }
        match (workers, rate) {
            (Some(workers), Some(rate)) => options.pools = vec![(workers, rate)],
            (None, None) => {}
            _ => return Err("--workers and --rate come together".to_owned()),
        }
        if is_quick {
            options.millis /= 5;
        }
        Ok(Some(options))
    }
}

fn number<N: std::str::FromStr + Default + PartialOrd>(option: &str, value: &str) -> std::result::Result<N, String> {
    let number = value.parse().ok().filter(|number| *number > N::default());
    number.ok_or_else(|| format!("{option} {value}: it is no number above 0, or too large"))
}
