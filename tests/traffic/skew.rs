//! `tests/tools/skew` measures correctly. The figures themselves are not tested.

// Its pure parts are looked at from within.
#[path = "../tools/load/histogram.rs"]
mod histogram;
#[path = "../tools/load/schedule.rs"]
#[allow(dead_code)]
mod schedule;
#[path = "../tools/load/tally.rs"]
#[allow(dead_code)]
mod tally;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::{self, example, testbed, CLASSES};
use schedule::{Demand, Kind, Request, Schedule};
use tally::{Class, Details, Tally};

const DEMAND: Demand = Demand { rate: Some(300.0), is_random: true, slow: 0.1, churn: 0.0, seed: 7 };

fn draw(demand: &Demand, count: usize) -> Vec<Request> {
    let mut schedule = Schedule::new(demand.clone());
    (0..count).map(|_| schedule.draw()).collect()
}

fn values(report: &str) -> BTreeMap<String, u64> {
    let pairs = report.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.parse().expect("a number"))).collect()
}

fn load(server: &mut support::Server, options: &str) -> BTreeMap<String, u64> {
    let mut command = example("load");
    command.arg(format!("127.0.0.1:{}", server.port())).args(options.split(' ')).arg("--by-worker");
    let output = command.output().expect("the example is built");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    values(&String::from_utf8_lossy(&output.stdout))
}

#[test]
fn percentiles_of_known_latencies() {
    let now = Instant::now();
    let latencies: [(Vec<u64>, [u64; 5]); 4] = [
        (vec![], [0; 5]),
        (vec![70], [70; 5]),
        ((1..=1000).rev().map(|value| value * 100).collect(), [50_000, 90_000, 99_000, 99_900, 100_000]),
        // One in a hundred is far away: the 99th percentile is still near.
        ((0..1000).map(|value| if value % 100 == 0 { 90_000 } else { 60 }).collect(), [60, 60, 60, 90_000, 90_000]),
    ];
    for (latencies, wanted) in latencies {
        let mut tally = Tally::new(now);
        for micros in &latencies {
            tally.answered(Kind::Fast, Class::Ok, Duration::from_micros(*micros), now);
            // The slow ones are apart.
            tally.answered(Kind::Slow, Class::Ok, Duration::from_secs(1), now);
        }
        tally.failed(Kind::Slow, Class::Dropped);
        let report = values(&tally.report(Details { is_json: false, has_slow: true, by_worker: false, is_tls: false }));
        for (name, wanted) in ["p50", "p90", "p99", "p99.9", "max"].into_iter().zip(wanted) {
            let found = report[name];
            assert!((wanted..=wanted + wanted / 32).contains(&found), "{name} is {found}, not {wanted}");
        }
        let count = latencies.len() as u64;
        assert_eq!((report["ok"], report["slow.ok"], report["dropped"]), (2 * count, count, 1));
        assert_eq!((report["total"], report["slow.total"], report["lost"]), (2 * count + 1, count + 1, 1));
    }
}

/// Of four connections on two workers, and then of two on one, with the other worker idle.
#[test]
fn the_fullest_worker_is_a_mean_of_samples() {
    let mut tally = Tally::new(Instant::now());
    tally.workers = BTreeMap::from([(1, 9), (2, 9)]);
    tally.spread([1, 1, 1, 2].into_iter());
    tally.spread([2, 2].into_iter());
    // Nothing is open, so nothing is uneven.
    tally.spread([].into_iter());
    let report = values(&tally.report(Details { is_json: false, has_slow: false, by_worker: true, is_tls: false }));
    assert_eq!(report["fullest"], (1500 + 2000) / 2);
}

#[test]
fn a_seed_makes_the_same_requests_again() {
    assert_eq!(draw(&DEMAND, 1000), draw(&DEMAND, 1000));
    assert_ne!(draw(&DEMAND, 1000), draw(&Demand { seed: 8, ..DEMAND }, 1000));
}

#[test]
fn requests_are_drawn_as_configured() {
    let even = draw(&Demand { is_random: false, ..DEMAND }, 301);
    assert_eq!(even[0].after, Some(Duration::ZERO));
    assert_eq!(even[300].after, Some(Duration::from_secs(1)));
    assert!(draw(&Demand { rate: None, ..DEMAND }, 10).iter().all(|request| request.after.is_none()));

    let drawn = draw(&Demand { churn: 0.3, ..DEMAND }, 100_000);
    let times: Vec<_> = drawn.iter().map(|request| request.after.expect("there is a rate").as_secs_f64()).collect();
    let distances: Vec<_> = times.windows(2).map(|pair| (pair[1] - pair[0]) * 300.0).collect();
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / distances.len() as f64;
    let near = |found: f64, wanted: f64| assert!((found / wanted - 1.0).abs() < 0.05, "{found}, not {wanted}");
    // Both are 1 for the exponential distribution of mean 1; the second is 0 for even distances.
    near(mean(&mut distances.iter().copied()), 1.0);
    near(mean(&mut distances.iter().map(|distance| (distance - 1.0).powi(2))), 1.0);
    let count = |belongs: &dyn Fn(&Request) -> bool| drawn.iter().filter(|request| belongs(request)).count() as f64;
    near(count(&|request| request.kind == Kind::Slow), 10_000.0);
    near(count(&|request| request.is_renewal), 30_000.0);
    near(count(&|request| request.kind == Kind::Slow && request.is_renewal), 3000.0);
}

/// Every request that is due within the second is made, whatever the pool does meanwhile, and is in one class.
#[test]
fn every_request_is_accounted_for() {
    let mut server = testbed(&[]);
    let options = "--rate 300 --poisson --seed 7 --slow-path /slow?ms=20 --slow-share 10% --duration 1s --late 30s";
    let report = load(&mut server, options);
    let due: Vec<_> = draw(&DEMAND, 1000)
        .into_iter()
        .take_while(|request| request.after.is_some_and(|after| after < Duration::from_secs(1)))
        .collect();
    let slow = due.iter().filter(|request| request.kind == Kind::Slow).count() as u64;
    assert_eq!((report["total"], report["slow.total"]), (due.len() as u64, slow));
    for prefix in ["", "slow."] {
        let sum: u64 = CLASSES.iter().map(|class| report[&format!("{prefix}{class}")]).sum();
        assert_eq!(sum, report[&format!("{prefix}total")]);
    }
    assert!(report["slow.p50"] >= 20_000, "it has waited for {} us", report["slow.p50"]);
    let by_worker: u64 = report.iter().filter(|(key, _)| key.starts_with("worker.")).map(|(_, count)| count).sum();
    assert_eq!((by_worker, report["connections"]), (report["total"], report["total"]));
}

#[test]
fn a_renewal_is_a_connection() {
    let mut server = testbed(&[]);
    let report = load(&mut server, "--requests 500 --connections 4 --keep-alive --churn 10% --seed 7");
    let drawn = draw(&Demand { rate: None, slow: 0.0, churn: 0.1, ..DEMAND }, 500);
    // The first of each has nothing to replace.
    let renewals = drawn.iter().skip(4).filter(|request| request.is_renewal).count() as u64;
    assert!(renewals > 0);
    assert_eq!((report["ok"], report["connections"]), (500, 4 + renewals));
    assert_eq!(report["closed_idle"], 0);
}

#[test]
fn a_table_and_a_plot() {
    let plot = std::env::temp_dir().join(format!("forkpool-skew-{}.svg", std::process::id()));
    let mut skew = example("skew");
    skew.args("--methods random,shared --workers 2 --rate 100 --duration 1 --rounds 1 --plot".split(' ')).arg(&plot);
    let output = skew.output().expect("the example is built");
    let (table, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{table}{errors}");
    // Rows of the two methods in both tables, each as wide as the table's head.
    let widths: Vec<_> =
        table.lines().filter(|line| line.starts_with('|')).map(|line| line.matches('|').count()).collect();
    assert_eq!(widths, [[9; 4], [4; 4]].concat(), "{table}");
    let svg = std::fs::read_to_string(&plot).expect("it was drawn");
    std::fs::remove_file(&plot).expect("it was drawn");
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    assert_eq!(svg.matches("<polyline ").count(), 2);
    assert_eq!(svg.matches("<circle ").count(), 10);
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

#[test]
fn wrong_arguments() {
    for arguments in ["--methods fast", "--workers 4", "--rate 100", "--rounds 0", "--duration 99999", "--plot", "x"] {
        let output = example("skew").args(arguments.split(' ')).output().expect("the example is built");
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(String::from_utf8_lossy(&output.stderr).ends_with("; try --help\n"), "{arguments}");
    }
}
