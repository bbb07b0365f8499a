//! The application's own metrics: summed over the workers, and lasting beyond them.

mod support;

use std::collections::BTreeMap;
use std::net::TcpStream;

use nix::sys::signal::{kill, Signal};
use support::{example, until, Client, Server};

/// The samples of the application, by name and labels.
fn samples(admin: u16) -> BTreeMap<String, f64> {
    let stream = TcpStream::connect(("127.0.0.1", admin)).expect("it listens");
    let answer = Client::new(stream).get("/metrics");
    let lines = answer.text().lines().filter(|line| line.starts_with("shop_"));
    let samples = lines.filter_map(|line| line.rsplit_once(' '));
    samples.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
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
