//! `scripts/bench`: its client counts correctly, scripts use names that exist, and charts have all their points. The
//! figures themselves are not tested.

mod support;

#[path = "tools/load/schedule.rs"]
#[allow(dead_code)]
mod schedule;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use schedule::{Demand, Schedule};
use support::{example, testbed, Server};

type Values = BTreeMap<String, u64>;

fn flood(server: &mut Server, options: &str) -> Command {
    let mut command = example("flood");
    command.arg(format!("127.0.0.1:{}", server.port())).args(options.split(' '));
    command
}

fn values(line: &str) -> Values {
    let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.parse().expect("a number"))).collect()
}

fn finished(mut command: Command) -> Values {
    let output = command.output().expect("the example is built");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    values(&String::from_utf8_lossy(&output.stdout))
}

/// How many requests are due within this time.
fn due(rate: f64, seed: u64, time: Duration) -> u64 {
    let mut schedule = Schedule::new(Demand { rate: Some(rate), is_random: true, slow: 0.0, churn: 0.0, seed });
    (0..).take_while(|_| schedule.draw().after.is_some_and(|after| after < time)).count() as u64
}

/// One worker that takes 10 ms for each request answers half of 200 requests a second. A client that waits for each
/// response before its next request would measure 10 ms. Measured from when each request was due, latencies show the
/// backlog.
#[test]
fn latencies_count_what_a_slow_server_delays() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    let report = finished(flood(&mut server, "--rate 200 --seconds 0.5 --seed 7 --connections 4 --path /slow?ms=10"));
    assert_eq!(report["requests"], due(200.0, 7, Duration::from_millis(500)));
    let (total, last_due) = (report["requests"] * 10_000_000, 500_000_000);
    assert!(report["max"] >= total - last_due, "{report:?}");
    assert!(report["p50"] >= 10_000_000 && report["p50"] <= report["p99"] && report["p99"] <= report["max"]);
}

#[test]
fn a_client_that_holds_asks_each_connection_and_then_waits_each_time() {
    let mut server = testbed(&[]);
    let mut command = flood(&mut server, "--hold --connections 10 --active 3 --requests 21");
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the example is built");
    let mut lines = BufReader::new(client.stdout.take().expect("it is piped")).lines();
    let mut next = || values(&lines.next().expect("there is a line").expect("it is text"));
    assert_eq!(next(), Values::from([("open".to_owned(), 10)]));
    let mut begin = client.stdin.take().expect("it is piped");
    for _ in 0..2 {
        begin.write_all(b"\n").expect("it reads");
        let report = next();
        assert_eq!((report["requests"], report["errors"]), (21, 0));
    }
    drop(begin);
    assert!(client.wait().expect("it is a child").success());
}

#[test]
fn options_that_exclude_a_rate() {
    for options in ["--rate 0", "--rate 10 --close", "--rate 10 --pipeline 2", "--rate 10 --requests 5", "--active 0"] {
        let output = example("flood").arg("127.0.0.1:1").args(options.split(' ')).output();
        assert_eq!(output.expect("the example is built").status.code(), Some(2), "{options}");
    }
}

/// Most scripts take too long to run here, so this only looks for undefined names.
#[test]
fn no_script_uses_a_name_that_is_defined_nowhere() {
    const CHECK: &str = "
import ast, builtins, pathlib, sys
KNOWN = {*dir(builtins), '__file__', '__doc__', '__name__'}
is_python = lambda path: path.suffix == '.py' or path.is_file() and b'python3' in path.read_bytes().split(b'\\n', 1)[0]
scripts = [path for path in [*pathlib.Path('.').iterdir(), *pathlib.Path('peers').iterdir()] if is_python(path)]
for path in scripts:
    nodes, names = list(ast.walk(ast.parse(path.read_text()))), set(KNOWN)
    for node in nodes:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name) | ast.ExceptHandler(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Import(names=imported) | ast.ImportFrom(names=imported):
                names |= {(it.asname or it.name).split('.')[0] for it in imported}
    used = {(node.id, node.lineno) for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    for name, line in sorted(used):
        if name not in names:
            print(f'{path}:{line}: {name}')
print(len(scripts), 'scripts', file=sys.stderr)
";
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let output = Command::new("python3").args(["-B", "-c", CHECK]).current_dir(scripts).output();
    let Ok(output) = output else { return support::skip("there is no python3") };
    let (unknown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && unknown.is_empty(), "{unknown}{said}");
    let count = said.split(' ').next().and_then(|count| count.parse::<usize>().ok());
    assert!(count.is_some_and(|count| count > 8), "{said}");
}

#[test]
fn a_chart_has_a_line_for_each_server() {
    let script = "from peers import plot; curves = {'raw': [3.5, 4], 'forkpool': [3.7, None]}\n\
        for is_logarithmic in (False, True):\n \
        panels = [plot.Panel(name, ['1', '2'], name, curves) for name in ('workers', 'connections')]\n \
        print(plot.svg('Cost', 'µs', panels, is_logarithmic))";
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let output = Command::new("python3").args(["-B", "-c", script]).current_dir(scripts).output();
    let Ok(output) = output else { return support::skip("there is no python3") };
    let (charts, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}");
    let count = |part: &str| charts.matches(part).count();
    assert_eq!([count("<svg "), count("<polyline "), count("<circle "), count("</svg>")], [2, 8, 12, 2], "{charts}");
    assert!(!charts.contains("nan") && !charts.contains("inf"), "{charts}");
}
