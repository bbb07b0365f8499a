//! cargo run --release --example load -- 127.0.0.1:8000: a client that loses track of nothing. It puts every request in
//! one class, says how many are in each, and exits with code 1 if the server owes an answer to any.
//!
//! A request is lost when its connection is refused, reset, or closed before or within the answer; when the answer is
//! wrong; or when nothing comes for 30 seconds (`--patience`). That a server closes a kept connection between two
//! requests is its right and no loss; that it closes one while a request is on its way to it is one, since the client
//! cannot know whether it was acted on.

mod answer;
mod client;
mod histogram;
mod lane;
mod schedule;
mod tally;
mod wire;

use std::fmt::Display;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{getrlimit, setrlimit, Resource};
use signal_hook::consts::{SIGINT, SIGTERM};

use client::{Client, Course};
use lane::Plan;
use schedule::Demand;
use tally::{Class, Details, Tally};
use wire::Tls;

const USAGE: &str = "\
usage: load ADDR [options]

  --connections N    requests in progress at once, at most (default 64)
  --duration TIME    how long, as in 500ms or 5s (default 5s, or without end with --until-eof)
  --requests N       how many requests instead
  --keep-alive       requests one after the other on each connection, instead of a connection for each
  --rate R           R requests a second at even distances, whatever the server does; latencies count from when a
                     request was due
  --poisson          at random distances instead, as from many clients
  --path PATH        what to ask for (default /plaintext)
  --slow-path PATH   what some of the requests ask for; they are counted apart, as slow.KEY
  --slow-share SHARE how many of them (default 2%)
  --churn SHARE      how many requests replace the connection that is kept (default 0%)
  --seed N           what chance begins with (default 1)
  --late TIME        an answer that takes longer is late (default 1s)
  --patience TIME    a request that has not come further for so long has timed out (default 30s)
  --until-eof        stop when standard input ends
  --tls              speak TLS 1.3, with AES-128-GCM and X25519, to whoever is there: certificates are not checked
  --resume           resume sessions, where the server gives tickets for that; each of the connections that are open at
                     once belongs to a client of its own
  --tls12            TLS 1.2 instead. All three count sessions: full=N, resumed=N, and missed=N of the full ones
                     that could have been resumed
  --by-worker        how many connections each worker has answered on, by its X-Pid field; and what the worker with the
                     most open ones has, in thousandths of the mean, by a look every 100 ms at those that are kept
  --json             a JSON object instead of a line of key=value
  --verbose          tell each failure on standard error
  --help             this

SIGTERM and SIGINT stop it too. It then waits for what becomes of the requests that it has made, and reports. Latencies
are in microseconds.
Exit codes: 0 nothing was lost, 1 something was lost, 2 usage, 3 it could not run, or not without failures of its own.
";

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(Usage::Help) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(Usage::Wrong(what)) => {
            eprintln!("load: {what}; try --help");
            return ExitCode::from(2);
        }
    };
    let details = options.details;
    let tally = match run(options) {
        Ok(tally) => tally,
        Err(error) => {
            eprintln!("load: {error}");
            return ExitCode::from(3);
        }
    };
    println!("{}", tally.report(details));
    if tally.lost() > 0 {
        return ExitCode::from(1);
    }
    match tally.of(Class::Local) {
        0 => ExitCode::SUCCESS,
        count => {
            eprintln!("load: {count} requests failed in the client itself; fewer --connections may help");
            ExitCode::from(3)
        }
    }
}

fn run(options: Options) -> Result<Tally, Box<dyn std::error::Error>> {
    let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?;
    let is_told_to_stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // The second one ends it at once.
        signal_hook::flag::register_conditional_shutdown(signal, 3, Arc::clone(&is_told_to_stop))?;
        signal_hook::flag::register(signal, Arc::clone(&is_told_to_stop))?;
    }
    Ok(Client::new(options.plan, options.course, is_told_to_stop)?.run()?)
}

struct Options {
    plan: Plan,
    course: Course,
    details: Details,
}

enum Usage {
    Help,
    Wrong(String),
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, Usage> {
        let (mut address, mut path, mut slow_path) = (None, "/plaintext".to_owned(), None);
        let (mut is_keep_alive, mut is_json, mut by_worker) = (false, false, false);
        let (mut slow, mut tls) = (None, None::<Tls>);
        let mut course = Course {
            connections: 64,
            demand: Demand { rate: None, is_random: false, slow: 0.0, churn: 0.0, seed: 1 },
            requests: None,
            duration: None,
            late: Duration::from_secs(1),
            patience: Duration::from_secs(30),
            until_eof: false,
            verbose: false,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| Usage::Wrong(format!("{argument} needs a value")));
            match argument.as_str() {
                "--help" => return Err(Usage::Help),
                "--connections" => course.connections = positive(&argument, &value()?)?,
                "--duration" => course.duration = Some(duration(&argument, &value()?)?),
                "--requests" => course.requests = Some(positive(&argument, &value()?)?),
                "--rate" => course.demand.rate = Some(f64::from(positive::<u32>(&argument, &value()?)?)),
                "--poisson" => course.demand.is_random = true,
                "--late" => course.late = duration(&argument, &value()?)?,
                "--patience" => course.patience = duration(&argument, &value()?)?,
                "--path" => path = value()?,
                "--slow-path" => slow_path = Some(value()?),
                "--slow-share" => slow = Some(share(&argument, &value()?)?),
                "--churn" => course.demand.churn = share(&argument, &value()?)?,
                "--seed" => course.demand.seed = positive(&argument, &value()?)?,
                "--keep-alive" => is_keep_alive = true,
                "--until-eof" => course.until_eof = true,
                "--tls" => _ = tls.get_or_insert_default(),
                "--resume" => tls.get_or_insert_default().resumes = true,
                "--tls12" => tls.get_or_insert_default().is_12 = true,
                "--by-worker" => by_worker = true,
                "--json" => is_json = true,
                "--verbose" => course.verbose = true,
                name if name.starts_with('-') => return Err(Usage::Wrong(format!("unknown option {name}"))),
                name if address.is_none() => address = Some(resolve(name)?),
                name => return Err(Usage::Wrong(format!("what is {name}?"))),
            }
        }
        let address = address.ok_or_else(|| Usage::Wrong("it needs an address".to_owned()))?;
        let useless = [
            ("--poisson", course.demand.is_random && course.demand.rate.is_none(), "--rate"),
            ("--slow-share", slow.is_some() && slow_path.is_none(), "--slow-path"),
            ("--churn", course.demand.churn > 0.0 && !is_keep_alive, "--keep-alive"),
        ];
        if let Some((option, _, other)) = useless.iter().find(|(_, is_useless, _)| *is_useless) {
            return Err(Usage::Wrong(format!("{option} means nothing without {other}")));
        }
        if course.requests.is_none() && !course.until_eof {
            course.duration.get_or_insert(Duration::from_secs(5));
        }
        course.demand.slow = slow_path.as_ref().map_or(0.0, |_| slow.unwrap_or(0.02));
        let connection = if is_keep_alive { "" } else { "Connection: close\r\n" };
        let request = |path| format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{connection}\r\n").into_bytes();
        let details = Details { is_json, has_slow: slow_path.is_some(), by_worker, is_tls: tls.is_some() };
        let (fast, slow) = (request(&path), slow_path.as_ref().map(request).unwrap_or_default());
        Ok(Options { plan: Plan { address, fast, slow, is_keep_alive, tls }, course, details })
    }
}

fn resolve(name: &str) -> Result<SocketAddr, Usage> {
    let wrong = |why: &dyn Display| Usage::Wrong(format!("{name} is no address like 127.0.0.1:8000: {why}"));
    name.to_socket_addrs().map_err(|error| wrong(&error))?.next().ok_or_else(|| wrong(&"it has none"))
}

fn positive<N: FromStr + Default + PartialOrd>(option: &str, value: &str) -> Result<N, Usage> {
    let number = value.parse().ok().filter(|number| *number > N::default());
    number.ok_or_else(|| Usage::Wrong(format!("{option} {value}: it is no number above 0")))
}

/// As a part of 1.
fn share(option: &str, value: &str) -> Result<f64, Usage> {
    let percent = value.strip_suffix('%').and_then(|percent| percent.parse().ok());
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    percent.map(|percent| percent / 100.0).ok_or_else(|| Usage::Wrong(format!("{option} {value}: write 2% or 0.5%")))
}

/// Milliseconds or seconds.
fn duration(option: &str, value: &str) -> Result<Duration, Usage> {
    let (digits, unit) = match value.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (value.strip_suffix('s').unwrap_or_default(), 1000),
    };
    let millis: Option<u64> = digits.parse().ok();
    let millis = millis.and_then(|number| number.checked_mul(unit));
    millis.map(Duration::from_millis).ok_or_else(|| Usage::Wrong(format!("{option} {value}: write 500ms or 5s")))
}
