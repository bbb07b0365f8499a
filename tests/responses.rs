//! What a pool counts of its answers, over the deaths of its workers.

mod support;

use nix::sys::signal::{kill, Signal};
use support::{connect_unix, fresh_path, testbed, until};

/// The sum of a metric over all workers.
fn sum(socket: &std::path::Path, name: &str) -> u64 {
    let metrics = connect_unix(socket).get("/metrics");
    let values = metrics.text().lines().filter(|line| line.starts_with("forkpool_")).filter_map(|line| {
        let (sample, value) = line.split_once(' ')?;
        let (metric, labels) = sample.split_once('{')?;
        let (wanted, code) = name.split_once('/').unwrap_or((name, ""));
        (metric == wanted && labels.contains(code)).then(|| value.parse::<u64>().expect("a number"))
    });
    values.sum()
}

#[test]
fn responses_are_counted_by_class_and_outlive_their_workers() {
    let socket = fresh_path("responses.sock");
    let admin = format!("unix:{}", socket.display());
    let mut server = testbed(&[("FORKPOOL_ADMIN", &admin)]);
    let mut sent = 0;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        ("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        ("GET /204 HTTP/1.1\r\nHost: x\r\n\r\n", 204),
        ("GET /304 HTTP/1.1\r\nHost: x\r\n\r\n", 304),
        ("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        ("GET /panic HTTP/1.1\r\nHost: x\r\n\r\n", 500),
        // Refused before the handler.
        ("GET / HTTP/1.1\r\n\r\n", 400),
    ] {
        let mut client = server.connect();
        client.send(request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
        let answer = client.rest();
        assert!(answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{request}");
        sent += answer.len() as u64;
    }
    let counted = |class: &str| sum(&socket, &format!("forkpool_responses_total/{class}xx"));
    let expected = [("1", 0), ("2", 3), ("3", 1), ("4", 2), ("5", 1)];
    for (class, count) in expected {
        assert_eq!(counted(class), count, "{class}xx");
    }
    assert_eq!(sum(&socket, "forkpool_sent_bytes_total"), sent);
    let status = connect_unix(&socket).get("/status.json");
    let all = r#""responses":{"1xx":0,"2xx":3,"3xx":1,"4xx":2,"5xx":1},"sent":"#;
    assert!(status.text().contains(&format!("{all}{sent}")), "{}", status.text());
    let text = connect_unix(&socket).get("/status.txt");
    assert!(text.text().contains("\nresponses: 3 2xx, 1 3xx, 2 4xx, 1 5xx; "), "{}", text.text());
    // What the dead have counted stays.
    let victim = server.get("/").worker();
    kill(victim, Signal::SIGKILL).expect("it runs");
    server.wait_for("killed by SIGKILL");
    until("another one serves", || (server.get("/").worker() != victim).then_some(()));
    // The last of them may be counted after its client has it.
    until("both are counted", || (counted("2") >= 5).then_some(()));
    assert_eq!(counted("4"), 2);
}
