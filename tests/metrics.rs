//! The application's own metrics: summed over the workers, and lasting beyond them.

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use nix::sys::signal::{kill, Signal};
use support::{example, skip, until, Client, Server};

/// The samples of the application, by name and labels.
fn samples(admin: u16) -> BTreeMap<String, f64> {
    let stream = TcpStream::connect(("127.0.0.1", admin)).expect("it listens");
    let answer = Client::new(stream).get("/metrics");
    let lines = answer.text().lines().filter(|line| line.starts_with("shop_"));
    let samples = lines.filter_map(|line| line.rsplit_once(' '));
    samples.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

/// Prints the families of standard input as the parser of Prometheus's client for Python reads them, and complains of
/// what its convention forbids.
const PARSER: &str = r#"
import sys
from prometheus_client.parser import text_string_to_metric_families
names, samples = set(), set()
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.name not in names, f"{family.name} comes twice"
    assert family.documentation and family.type != "unknown", f"{family.name} lacks HELP or TYPE"
    names.add(family.name)
    for sample in family.samples:
        key = (sample.name, tuple(sorted(sample.labels.items())))
        assert key not in samples, f"{key} comes twice"
        samples.add(key)
        print(family.type, sample.name, sorted(sample.labels.items()), float(sample.value))
"#;

#[test]
fn a_parser_of_prometheus_reads_all_of_it() {
    let is_there = Command::new("python3").args(["-c", "import prometheus_client"]).stderr(Stdio::null()).status();
    if !is_there.is_ok_and(|status| status.success()) {
        return skip("no python3 with prometheus_client here (pip install prometheus_client)");
    }
    let mut command = example("metrics");
    command.envs([("FORKPOOL_WORKERS", "2"), ("FORKPOOL_ADMIN", "127.0.0.1:0"), ("RUST_LOG", "info")]);
    let mut server = Server::spawn(command);
    let admin = server.wait_for_admin();
    server.wait_for("listening on ");
    (0..3).for_each(|_| assert_eq!(server.get("/book").status, 200));

    let stream = TcpStream::connect(("127.0.0.1", admin)).expect("it listens");
    let answer = Client::new(stream).get("/metrics");
    let mut parser = Command::new("python3");
    let parser = parser.args(["-c", PARSER]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut parser = parser.spawn().expect("it has just run");
    parser.stdin.take().expect("a pipe").write_all(answer.text().as_bytes()).expect("it reads");
    let output = parser.wait_with_output().expect("it ends");
    let (read, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{complaint}\n{}", answer.text());
    for line in [
        "counter shop_orders_total [('kind', 'book')] 3.0",
        "counter shop_orders_total [('kind', 'record')] 0.0",
        "gauge shop_workers [] 2.0",
        "histogram shop_order_seconds_bucket [('le', '+Inf')] 3.0",
        "histogram shop_order_seconds_count [] 3.0",
        "gauge forkpool_workers_wanted [] 2.0",
    ] {
        assert!(read.lines().any(|it| it == line), "{line} is not in\n{read}");
    }
}

#[test]
fn counters_outlive_workers_and_gauges_do_not() {
    let mut command = example("metrics");
    command.envs([("FORKPOOL_WORKERS", "2"), ("FORKPOOL_ADMIN", "127.0.0.1:0"), ("RUST_LOG", "info")]);
    let mut server = Server::spawn(command);
    let admin = server.wait_for_admin();
    server.wait_for("listening on ");
    let counted = |samples: &BTreeMap<String, f64>, books: f64, records: f64| {
        let found = |name: &str| samples.get(name).copied();
        found("shop_orders_total{kind=\"book\"}") == Some(books)
            && found("shop_orders_total{kind=\"record\"}") == Some(records)
            && found("shop_order_seconds_count") == Some(books + records)
            && found("shop_order_seconds_bucket{le=\"+Inf\"}") == Some(books + records)
    };

    // On a connection each, until each of the workers has counted.
    let mut workers = BTreeMap::new();
    let mut books = 0.0;
    until("each worker has an order", || {
        *workers.entry(server.get("/book").worker()).or_insert(0) += 1;
        books += 1.0;
        (workers.len() == 2).then_some(())
    });
    assert_eq!(server.get("/record").status, 200);
    let before = samples(admin);
    assert!(counted(&before, books, 1.0), "{before:?}");
    assert_eq!(before["shop_workers"], 2.0);

    // While a worker is dead and replaced, and afterwards, nothing goes back.
    kill(*workers.keys().next().expect("a worker"), Signal::SIGKILL).expect("it runs");
    let mut last = before["shop_order_seconds_sum"];
    until("a replacement takes orders", || {
        let now = samples(admin);
        assert!(counted(&now, books, 1.0), "{now:?}");
        assert!(now["shop_order_seconds_sum"] >= last && now["shop_workers"] <= 2.0, "{now:?}");
        last = now["shop_order_seconds_sum"];
        (server.count("gen=2") > 0 && now["shop_workers"] == 2.0).then_some(())
    });

    server.signal(Signal::SIGHUP);
    server.wait_for("rolling restart done");
    assert_eq!(server.get("/book").status, 200);
    until("the old workers have gone", || {
        let now = samples(admin);
        assert!(counted(&now, books + 1.0, 1.0), "{now:?}");
        (now["shop_workers"] == 2.0).then_some(())
    });
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}
