//! cargo run --release --example load -- 127.0.0.1:8000: a client that loses track of nothing. It puts every request in
//! one class, says how many are in each, and exits with code 1 if the server owes an answer to any.
//!
//! A request is lost when its connection is refused, reset, or closed before or within the answer; when the answer is
//! wrong; or when nothing comes for 30 seconds (`--patience`). That a server closes a kept connection between two requests is its
//! right and no loss; that it closes one while a request is on its way to it is one, since the client cannot know
//! whether it was acted on.

mod answer;
mod client;
mod lane;
mod tally;

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
use tally::{Class, Tally};

const USAGE: &str = "\
usage: load ADDR [options]

  --connections N    requests in progress at once, at most (default 64)
  --duration TIME    how long, as in 500ms or 5s (default 5s, or without end with --until-eof)
  --requests N       how many requests instead
  --keep-alive       requests one after the other on each connection, instead of a connection for each
  --rate R           R requests a second at even distances, whatever the server does; latencies count from when a
                     request was due
  --path PATH        what to ask for (default /plaintext)
  --late TIME        an answer that takes longer is late (default 1s)
  --patience TIME    a request that has not come further for so long has timed out (default 30s)
  --until-eof        stop when standard input ends
  --by-worker        how many connections each worker has answered on, by its X-Pid field
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
    let (is_json, by_worker) = (options.is_json, options.by_worker);
    let tally = match run(options) {
        Ok(tally) => tally,
        Err(error) => {
            eprintln!("load: {error}");
            return ExitCode::from(3);
        }
    };
    println!("{}", tally.report(is_json, by_worker));
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
    is_json: bool,
    by_worker: bool,
}

enum Usage {
    Help,
    Wrong(String),
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, Usage> {
        let (mut address, mut path) = (None, "/plaintext".to_owned());
        let (mut is_keep_alive, mut is_json, mut by_worker) = (false, false, false);
        let mut course = Course {
            connections: 64,
            requests: None,
            duration: None,
            rate: None,
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
                "--rate" => course.rate = Some(f64::from(positive::<u32>(&argument, &value()?)?)),
                "--late" => course.late = duration(&argument, &value()?)?,
                "--patience" => course.patience = duration(&argument, &value()?)?,
                "--path" => path = value()?,
                "--keep-alive" => is_keep_alive = true,
                "--until-eof" => course.until_eof = true,
                "--by-worker" => by_worker = true,
                "--json" => is_json = true,
                "--verbose" => course.verbose = true,
                name if name.starts_with('-') => return Err(Usage::Wrong(format!("unknown option {name}"))),
                name if address.is_none() => address = Some(resolve(name)?),
                name => return Err(Usage::Wrong(format!("what is {name}?"))),
            }
        }
        let address = address.ok_or_else(|| Usage::Wrong("it needs an address".to_owned()))?;
        if course.requests.is_none() && !course.until_eof {
            course.duration.get_or_insert(Duration::from_secs(5));
        }
        let connection = if is_keep_alive { "" } else { "Connection: close\r\n" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{connection}\r\n").into_bytes();
        Ok(Options { plan: Plan { address, request, is_keep_alive }, course, is_json, by_worker })
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
