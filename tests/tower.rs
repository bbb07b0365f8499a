//! What `serve_tower` has besides that for which `servers.rs` tests the examples: HTTP/2, panics, the drain of what has
//! no end, metrics, TLS.

#[cfg(feature = "hyper-tls")]
#[allow(dead_code)]
#[path = "tls/browser.rs"]
mod browser;
mod support;

#[cfg(feature = "hyper-tls")]
use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::signal::Signal;
use support::{example, is_gone, until, Server};
use tokio::io::{AsyncRead, AsyncWrite};
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
    /// How the clients speak TLS.
    #[cfg(feature = "hyper-tls")]
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Clients {
    fn start(address: &str, count: usize) -> Clients {
        Clients::start_with(address, count, Shared::default())
    }

    fn start_with(address: &str, count: usize, shared: Shared) -> Clients {
        let (shared, address) = (Arc::new(shared), address.to_owned());
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
        #[cfg(feature = "hyper-tls")]
        let mut sender = match &shared.tls {
            Some(tls) => {
                let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
                speak(connector.connect(name, stream).await.expect("TLS")).await
            }
            None => speak(stream).await,
        };
        #[cfg(not(feature = "hyper-tls"))]
        let mut sender = speak(stream).await;
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

/// Begins with HTTP/2.
async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> http2::SendRequest<Full<Bytes>> {
    let spoken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = spoken.expect("HTTP/2");
    tokio::spawn(connection);
    sender
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
    let mut command = example("tonic");
    command.envs([("FORKPOOL_WORKERS", "2"), ("RUST_LOG", "info")]);
    let mut server = Server::start(command);
    let clients = Clients::start(&format!("127.0.0.1:{}", server.port()), 8);
    lose_nothing(&mut server, clients);
}

#[test]
#[cfg(feature = "hyper-tls")]
fn rolling_restarts_lose_no_call_of_grpc_over_tls() {
    let mut server = Server::start(with_tls(example("tonic"), "2"));
    let address = browser::address(&mut server).to_string();
    let mut tls = rustls::ClientConfig::clone(&browser::Browser::new(&browser::BOTH).0);
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let shared = Shared { tls: Some(Arc::new(tls)), ..Shared::default() };
    let clients = Clients::start_with(&address, 8, shared);
    lose_nothing(&mut server, clients);
}

#[track_caller]
fn lose_nothing(server: &mut Server, clients: Clients) {
    let restarts = std::env::var("RESTARTS").ok().and_then(|count| count.parse().ok()).unwrap_or(2);
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

/// A pool with HTTPS.
#[cfg(feature = "hyper-tls")]
fn with_tls(mut command: Command, workers: &str) -> Command {
    command.envs([("FORKPOOL_WORKERS", workers), ("RUST_LOG", "info"), ("FORKPOOL_TLS_LISTEN", "127.0.0.1:0")]).envs(
        [("FORKPOOL_TLS_CERTIFICATE", "a.pem"), ("FORKPOOL_TLS_KEY", "a.key")]
            .map(|(variable, name)| (variable, browser::file(name))),
    );
    command
}

#[test]
#[cfg(feature = "hyper-tls")]
fn a_service_speaks_tls_and_sessions_resume_with_the_next_worker() {
    use rustls::version::{TLS12, TLS13};
    use rustls::HandshakeKind;

    let mut command = with_tls(example("towered"), "1");
    command.env("FORKPOOL_ADMIN", "127.0.0.1:0");
    let mut server = Server::spawn(command);
    let admin = server.wait_for_admin();
    let address = browser::address(&mut server);
    for (versions, name) in [([&TLS12], "Tls12"), ([&TLS13], "Tls13")] {
        let client = browser::Browser::new(&versions);
        let mut first = client.connect(address);
        assert_eq!(first.get("/tls").text(), format!("Some({name}) of localhost over HTTP/1.1"));
        let worker = first.get("/").worker();
        server.signal(Signal::SIGHUP);
        server.wait_for("rolling restart done");
        // It accepts until it knows.
        until("the old worker is gone", || is_gone(worker).then_some(()));
        let mut second = client.connect(address);
        assert_ne!(second.get("/").worker(), worker);
        assert_eq!(second.stream().conn.handshake_kind(), Some(HandshakeKind::Resumed), "{name}");
    }
    // Without TLS, on the other address, and where TLS is expected.
    assert_eq!(server.get("/tls").text(), "None of no name over HTTP/1.1");
    let mut plain = std::net::TcpStream::connect(address).expect("it listens");
    plain.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").expect("sent");
    plain.write_all(&[0; 1_000_000]).expect("it is read");
    let answer = support::Client::new(plain).answer();
    assert!(answer.status == 400 && answer.text().contains("this port speaks HTTPS only"));
    until("the handshakes are counted", || {
        let stream = std::net::TcpStream::connect(("127.0.0.1", admin)).expect("it listens");
        let metrics = support::Client::new(stream).get("/metrics").text().to_owned();
        let counted = |series: &str| metrics.lines().any(|line| line.starts_with(series) && !line.ends_with(" 0"));
        let resumed = ["1.2", "1.3"].map(|version| {
            counted(&format!("forkpool_tls_handshakes_total{{worker=\"0\",version=\"{version}\",resumed=\"yes\"}}"))
        });
        let failed = counted("forkpool_tls_failures_total{worker=\"0\",reason=\"plain_http\"}");
        (resumed == [true; 2] && failed).then_some(())
    });
}

#[test]
#[cfg(feature = "hyper-tls")]
fn a_handshake_of_which_nothing_comes_delays_no_drain() {
    let mut command = with_tls(example("towered"), "1");
    command.env("FORKPOOL_HEAD_TIMEOUT", "1h").env("FORKPOOL_DRAIN_TIMEOUT", "1h");
    let mut server = Server::spawn(command);
    let address = browser::address(&mut server);
    let silent = std::net::TcpStream::connect(address).expect("it listens");
    // It has accepted the one before as well.
    let client = browser::Browser::new(&[&rustls::version::TLS13]);
    let worker = client.connect(address).get("/").worker();
    server.signal(Signal::SIGHUP);
    until("the old worker is gone", || is_gone(worker).then_some(()));
    drop(silent);
}

#[test]
#[cfg(feature = "hyper-tls")]
fn handshakes_that_wait_for_their_clients_make_room_for_others() {
    for version in browser::BOTH {
        let mut command = with_tls(example("towered"), "1");
        command.envs([("FORKPOOL_TLS_MAX_HANDSHAKES", "4"), ("FORKPOOL_HEAD_TIMEOUT", "1h")]);
        command.env("FORKPOOL_ADMIN", "127.0.0.1:0");
        let mut server = Server::spawn(command);
        let admin = ([127, 0, 0, 1], server.wait_for_admin()).into();
        let address = browser::address(&mut server);
        let client = browser::Browser::new(&[version]);
        let mut kept = client.connect(address);
        assert_eq!(kept.get("/").status, 200);
        let bytes = browser::hello(&client);
        // Nothing, a part of a hello, a whole one, and a client that reads no answer.
        let stuck: Vec<_> = [0, 7, bytes.len() / 2, bytes.len(), bytes.len(), 0, 1, 3]
            .map(|len| browser::connect(address, &bytes[..len]))
            .into();
        for _ in 0..3 {
            assert_eq!(client.connect(address).get("/").status, 200);
        }
        server.wait_for("has reached its limit at 4 TLS handshakes in progress");
        until("some have made room", || stuck.iter().any(browser::has_ended).then_some(()));
        let labels = "worker=\"0\",reason=\"limit\"";
        let counted = || browser::metric(admin, "forkpool_tls_failures_total", labels);
        until("they are counted", || (counted()? >= 5).then_some(()));
        assert_eq!(kept.get("/").status, 200);
    }
}

#[test]
#[cfg(feature = "hyper-tls")]
fn a_flood_of_hellos_leaves_others_their_turn() {
    use std::io::Read;
    use std::time::{Duration, Instant};

    let mut command = with_tls(example("towered"), "1");
    command.env("FORKPOOL_ADMIN", "127.0.0.1:0");
    let mut server = Server::spawn(command);
    let admin = ([127, 0, 0, 1], server.wait_for_admin()).into();
    let address = browser::address(&mut server);
    let client = browser::Browser::new(&[&rustls::version::TLS13]);
    let mut kept = client.connect(address);
    let paths = ["first", "second", "last"].map(|name| support::fresh_path(&format!("tower.flood.{name}")));
    let [first, second, last] =
        paths.each_ref().map(|path| format!("GET /wait?{} HTTP/1.1\r\nHost: x\r\n\r\n", path.display()));
    let turns = |count: u32| format!("GET /turns?{count} HTTP/1.1\r\nHost: x\r\n\r\n");
    kept.send(first + &turns(5) + &second + &turns(5) + &last);
    server.wait_for("serves /wait");
    // The flood comes during the first.
    let bytes = browser::hello(&client);
    let mut flood: Vec<_> = (0..100).map(|_| browser::connect(address, &bytes)).collect();
    std::fs::write(&paths[0], "").expect("written");
    server.wait_for("serves /wait");
    // Now handshakes wait for their turn.
    // Long enough for the status to tell whether it has been busy since then, or since the end of this one.
    until("it is busy for long", || (browser::busy(admin) >= Duration::from_millis(500)).then_some(()));
    let released = Instant::now();
    std::fs::write(&paths[1], "").expect("written");
    server.wait_for("serves /wait");
    // Now it is in the last, some ten turns later, each with four steps of handshakes.
    let answered = flood.iter().filter(|socket| browser::has_answer(socket)).count();
    assert!((1..80).contains(&answered), "{answered} handshakes came before it");
    until("it was busy all the time, so that new connections avoid it", || {
        let elapsed = released.elapsed();
        (browser::busy(admin) >= elapsed).then_some(())
    });
    std::fs::write(&paths[2], "").expect("written");
    for _ in 0..5 {
        assert_eq!(kept.answer().status, 200);
    }
    // All of them get on.
    for socket in &mut flood {
        socket.read_exact(&mut [0]).expect("an answer");
    }
    paths.iter().for_each(|path| std::fs::remove_file(path).expect("removed"));
}

#[test]
#[cfg(feature = "hyper-tls")]
fn a_handshake_has_the_time_of_a_head_in_a_service_too() {
    use std::io::Read;

    let mut command = with_tls(example("towered"), "1");
    command.env("FORKPOOL_HEAD_TIMEOUT", "1s");
    let mut server = Server::spawn(command);
    let address = browser::address(&mut server);
    for bytes in [&b""[..], b"\x16", b"\x16\x03\x01\x40\x00"] {
        let mut rest = Vec::new();
        let _ = browser::connect(address, bytes).read_to_end(&mut rest);
        assert!(rest.is_empty(), "{rest:?}");
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

/// Some have had a request, and some have sent a part of the next one, or of the first one, which might be of HTTP/2.
#[test]
fn kept_connections_outlive_their_worker() {
    let mut server = towered(&[("FORKPOOL_WORKERS", "2")]);
    let mut kept: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let request = "PRI / HTTP/1.1\r\nHost: a\r\n\r\n";
    for _ in 0..3 {
        let old = server.workers();
        let mut begun = Vec::new();
        for sent in [0, 1, 2, 20] {
            let mut new = server.connect();
            new.send(&request[..sent]);
            begun.push((sent, new));
        }
        let mut posted = server.connect();
        posted.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
        assert!(!posted.answer().closes());
        for (index, client) in kept.iter_mut().enumerate() {
            let answer = client.get("/");
            assert!(answer.status == 200 && !answer.closes(), "{answer:?}");
            client.send(&request[..index]);
        }
        server.signal(Signal::SIGHUP);
        server.wait_for("rolling restart done");
        until("the old workers are gone", || old.iter().all(|worker| is_gone(*worker)).then_some(()));
        let new = server.workers();
        let waiting = kept.iter_mut().enumerate();
        for (sent, client) in waiting.chain(begun.iter_mut().map(|(sent, client)| (*sent, client))) {
            client.send(&request[sent..]);
            let answer = client.answer();
            assert!(answer.status == 200 && !answer.closes() && new.contains(&answer.worker()), "{sent}: {answer:?}");
        }
        assert!(posted.is_closed(), "its body may still be read");
        kept.extend(begun.into_iter().map(|(_, client)| client));
        kept.truncate(20);
    }
}

#[test]
fn connections_go_to_the_workers_that_stay() {
    let mut server = towered(&[("FORKPOOL_WORKERS", "3")]);
    let mut kept: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for count in [2, 1] {
        kept.iter_mut().for_each(|client| assert!(!client.get("/").closes()));
        server.signal(Signal::SIGTTOU);
        until("one worker has left", || (server.workers().len() == count).then_some(()));
    }
    let left = server.workers();
    for client in &mut kept {
        let answer = client.get("/");
        assert!(!answer.closes() && left.contains(&answer.worker()), "{answer:?}");
    }
}
