//! What `serve_tower` has besides that for which `servers.rs` tests the examples: HTTP/2, panics, the drain of what has
//! no end, metrics.

mod support;

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::signal::Signal;
use support::{example, until, Server};
use tokio::net::TcpStream;

/// Clients of gRPC that ask again and again, each on a connection that it keeps until it is told to leave.
struct Clients {
    shared: Arc<Shared>,
    thread: thread::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    answered: AtomicUsize,
    lost: AtomicUsize,
    connections: AtomicUsize,
    is_over: AtomicBool,
}

impl Clients {
    fn start(address: &str, count: usize) -> Clients {
        let (shared, address) = (Arc::<Shared>::default(), address.to_owned());
        let inner = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let ask = |_| tokio::spawn(ask_again(address.clone(), Arc::clone(&inner)));
                for client in (0..count).map(ask).collect::<Vec<_>>() {
                    client.await.expect("it does not panic");
                }
            });
        });
        Clients { shared, thread }
    }

    fn until_answered(&self) {
        let before = self.shared.answered.load(Ordering::Relaxed);
        until("clients are answered", || (self.shared.answered.load(Ordering::Relaxed) > before + 20).then_some(()));
    }

    /// Answered, lost, connections.
    fn stop(self) -> (usize, usize, usize) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("it ends");
        let Shared { answered, lost, connections, .. } = &*self.shared;
        (answered.load(Ordering::Relaxed), lost.load(Ordering::Relaxed), connections.load(Ordering::Relaxed))
    }
}

async fn ask_again(address: String, shared: Arc<Shared>) {
    while !shared.is_over.load(Ordering::Relaxed) {
        let stream = TcpStream::connect(&address).await.expect("it listens");
        let (mut sender, connection) =
            http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        shared.connections.fetch_add(1, Ordering::Relaxed);
        while !shared.is_over.load(Ordering::Relaxed) && sender.ready().await.is_ok() {
            match check(&mut sender, &address).await {
                Ok(()) => shared.answered.fetch_add(1, Ordering::Relaxed),
                // It was not sent, since GOAWAY came first.
                Err(Some(error)) if error.is_canceled() => break,
                Err(_) => shared.lost.fetch_add(1, Ordering::Relaxed),
            };
        }
    }
}

/// Asks whether the server serves (the gRPC health checking protocol).
async fn check(sender: &mut http2::SendRequest<Full<Bytes>>, address: &str) -> Result<(), Option<hyper::Error>> {
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::from(&[0; 5][..]))
        .expect("a request");
    let response = sender.send_request(request).await.map_err(Some)?;
    let body = response.into_body().collect().await.map_err(|_| None)?;
    let is_good = body.trailers().is_some_and(|trailers| trailers["grpc-status"] == "0");
    // SERVING: a message of two bytes, of which field 1 is 1.
    match is_good && body.to_bytes()[..] == [0, 0, 0, 0, 2, 8, 1] {
        true => Ok(()),
        false => Err(None),
    }
}

#[test]
fn rolling_restarts_lose_no_call_of_grpc() {
    let restarts = std::env::var("RESTARTS").ok().and_then(|count| count.parse().ok()).unwrap_or(2);
    let mut command = example("tonic");
    command.envs([("FORKPOOL_WORKERS", "2"), ("RUST_LOG", "info")]);
    let mut server = Server::start(command);
    let clients = Clients::start(&format!("127.0.0.1:{}", server.port()), 8);
    for _ in 0..restarts {
        clients.until_answered();
        server.signal(Signal::SIGHUP);
        server.wait_for("rolling restart done");
    }
    clients.until_answered();
    let (answered, lost, connections) = clients.stop();
    println!("{restarts} restarts: {lost} lost, {answered} answered on {connections} connections");
    assert_eq!(lost, 0, "of {answered}");
    assert!(connections > 8, "clients were told to leave");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

fn towered(variables: &[(&str, &str)]) -> Server {
    Server::start(towered_command(variables))
}

fn towered_command(variables: &[(&str, &str)]) -> Command {
    let mut command = example("towered");
    command.envs([("FORKPOOL_WORKERS", "1"), ("RUST_LOG", "info")]).envs(variables.iter().copied());
    command
}

#[test]
fn what_waits_for_the_drain_learns_of_it() {
    let mut server = towered(&[]);
    let mut waiting = server.connect();
    waiting.send("GET /draining HTTP/1.1\r\nHost: a\r\n\r\n");
    // It came later on the same worker, so that one has begun.
    assert_eq!(server.get("/").status, 200);
    server.signal(Signal::SIGTERM);
    let answer = waiting.answer();
    assert_eq!((answer.text(), answer.closes()), ("it drains", true));
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_panic_costs_its_connection_or_its_worker() {
    let mut server = towered(&[]);
    let worker = server.get("/").worker();
    let mut broken = server.connect();
    broken.send("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(broken.is_closed());
    server.wait_for("panicked in GET /panic: as asked");
    assert_eq!(server.get("/").worker(), worker);

    let mut server = towered(&[("FORKPOOL_ON_PANIC", "exit")]);
    let worker = server.get("/").worker();
    server.connect().send("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for("gen=2");
    assert_ne!(server.get("/").worker(), worker);
}

#[test]
fn the_pool_counts_what_the_service_does() {
    let mut server = Server::spawn(towered_command(&[("FORKPOOL_ADMIN", "127.0.0.1:0")]));
    let admin = server.wait_for_admin();
    server.wait_for("listening on ");
    let mut client = server.connect();
    let own = client.stream().local_addr().expect("connected").to_string();
    assert_eq!(client.get("/peer").text(), own);
    assert_eq!(client.get("/missing").status, 404);
    let metrics = until("the requests are counted", || {
        let stream = std::net::TcpStream::connect(("127.0.0.1", admin)).expect("it listens");
        let metrics = support::Client::new(stream).get("/metrics").text().to_owned();
        metrics.contains("forkpool_requests_total{worker=\"0\"} 2").then_some(metrics)
    });
    for line in [
        "forkpool_responses_total{worker=\"0\",code=\"2xx\"} 1",
        "forkpool_responses_total{worker=\"0\",code=\"4xx\"} 1",
        "forkpool_connections_open{worker=\"0\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[test]
fn a_worker_takes_as_many_connections_as_it_may() {
    let mut server = towered(&[("FORKPOOL_MAX_CONNECTIONS", "2")]);
    let (mut first, mut second) = (server.connect(), server.connect());
    assert_eq!((first.get("/").status, second.get("/").status), (200, 200));
    let mut third = server.connect();
    third.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(first.get("/").status, 200);
    drop(second);
    assert_eq!(third.answer().status, 200);
}
