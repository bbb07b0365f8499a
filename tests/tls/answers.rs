//! Every kind of answer, as over TCP.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use nix::sys::signal::Signal;
use rustls::version::TLS13;

use crate::browser::{address, admin_address, file, metric, testbed, Browser, BOTH};
use crate::support::{binary, fresh_path, until, Client, Server, DEADLINE};

#[test]
fn every_kind_of_answer_comes_over_tls_too() {
    for sandbox in ["off", "strict"] {
        let mut server = testbed(&[("FORKPOOL_SANDBOX", sandbox), ("FORKPOOL_WORKERS", "1")]);
        let address = address(&mut server);
        for version in BOTH {
            let browser = Browser::new(&[version]);
            let mut client = browser.connect(address);
            assert_eq!(client.get("/").status, 200);
            assert_eq!(client.get("/204").status, 204);
            assert_eq!(client.get("/plaintext").body, b"Hello, World!");
            // Made later, and written piece by piece.
            let mut other = browser.connect(address);
            for path in ["/late", "/begun"] {
                client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
                let answer = thread::scope(|scope| {
                    let answer = scope.spawn(|| client.answer());
                    // It may arrive after the first of these.
                    until("it was answered", || {
                        assert_eq!(other.get("/now").status, 200);
                        answer.is_finished().then_some(())
                    });
                    answer.join().expect("an answer")
                });
                assert_eq!(answer.status, 200);
            }
            // A body longer than any buffer, and its echo.
            let body: Vec<u8> = (0..900_000_u32).map(|at| (at % 251) as u8).collect();
            client.send(format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()));
            client.send(&body);
            assert!(client.answer().body == body);
            // Pipelined.
            client.send("GET /204 HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50));
            (0..50).for_each(|_| assert_eq!(client.answer().status, 204));
        }
        // Beside it, the same pool speaks HTTP.
        assert_eq!(server.connect().get("/").status, 200);
        server.signal(Signal::SIGTERM);
        server.wait_for("stopped after ");
    }
}

/// Also if the line is made at once, as it is of all but the first request of a connection.
#[test]
fn the_access_log_says_over_which_scheme_a_request_came() {
    for format in ["$time_local$request$status$body_bytes_sent $scheme", "$scheme $request $status"] {
        let log = fresh_path("scheme.log");
        let log_path = log.to_str().expect("a path");
        let variables = [("FORKPOOL_ACCESS_LOG", log_path), ("FORKPOOL_ACCESS_LOG_FORMAT", format)];
        let mut server = testbed(&variables);
        let (mut plain, mut secure) = (server.connect(), Browser::new(&[&TLS13]).connect(address(&mut server)));
        for _ in 0..3 {
            assert_eq!(plain.get("/plain").status, 404);
            assert_eq!(secure.get("/secure").status, 404);
        }
        server.signal(Signal::SIGTERM);
        server.wait_for("stopped after ");
        let text = fs::read_to_string(&log).expect("a log");
        let count = |scheme: &str, path: &str| {
            text.lines().filter(|line| line.contains(path) && line.split(' ').any(|word| word == scheme)).count()
        };
        assert_eq!([count("http", "/plain"), count("https", "/secure")], [3, 3], "{text}");
    }
}

#[test]
fn files_come_over_tls_whole_and_in_ranges() {
    let root = fresh_path("tls.root");
    fs::create_dir(&root).expect("a directory");
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 253) as u8).collect();
    for (name, len) in [("empty", 0), ("small", 5_000), ("middle", 50_000), ("large", body.len())] {
        fs::write(root.join(name), &body[..len]).expect("written");
    }
    let mut command = binary();
    command.env_remove("FORKPOOL_LISTEN").args(["--workers", "1", "--root"]).arg(&root);
    command.args(["--tls-listen", "127.0.0.1:0", "--tls-certificate", &file("a.pem"), "--tls-key", &file("a.key")]);
    let mut server = Server::start(command);
    assert!(!server.log().iter().any(|line| line.contains("http://")), "no other address");
    let address = address(&mut server);
    for version in BOTH {
        let mut client = Browser::new(&[version]).connect(address);
        for (name, len) in [("empty", 0), ("small", 5_000), ("middle", 50_000), ("large", body.len())] {
            assert!(client.get(&format!("/{name}")).body == body[..len], "{name}");
        }
        client.send("GET /large HTTP/1.1\r\nHost: x\r\nRange: bytes=100000-250000\r\n\r\n");
        let part = client.answer();
        assert!(part.status == 206 && part.body == body[100_000..=250_000]);
        client.send("GET /large HTTP/1.1\r\nHost: x\r\nRange: bytes=0-99999,200000-399999\r\n\r\n");
        let parts = client.answer();
        assert!(parts.status == 206 && parts.body.len() > 300_000);
        client.send("HEAD /large HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.answer_to_head().fields["content-length"], body.len().to_string());
        // A client that reads late gets it all the same.
        client.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n".repeat(4));
        (0..4).for_each(|_| assert!(client.answer().body == body));
    }
    fs::remove_dir_all(&root).expect("removed");
}

#[test]
fn requests_without_tls_are_told_or_redirected() {
    let mut server = testbed(&[("FORKPOOL_HTTPS_REDIRECT", "yes"), ("FORKPOOL_TRUSTED_PROXIES", "127.0.0.1")]);
    let address = address(&mut server);
    // Plain HTTP on the port of HTTPS.
    let mut client = Client::new(TcpStream::connect(address).expect("it listens"));
    client.stream().set_read_timeout(Some(DEADLINE)).expect("a socket");
    let answer = client.get("/");
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("this port speaks HTTPS only"));
    assert_eq!(client.into_stream().read(&mut [0]).expect("an end"), 0);
    // On the other port.
    let mut client = server.connect();
    for (request, status, location) in [
        ("GET /a?b=c HTTP/1.1\r\nHost: x.example:80\r\n\r\n", 308, Some("https://x.example:PORT/a?b=c")),
        ("POST / HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 1\r\n\r\nx", 308, Some("https://[::1]:PORT/")),
        ("GET /204 HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n", 204, None),
        ("GET /.well-known/acme-challenge/x HTTP/1.1\r\nHost: x\r\n\r\n", 404, None),
    ] {
        client.send(request);
        let answer = client.answer();
        assert_eq!(answer.status, status, "{request}");
        let location = location.map(|location| location.replace("PORT", &address.port().to_string()));
        assert_eq!(answer.fields.get("location"), location.as_ref(), "{request}");
    }
    assert_eq!(Browser::new(&[&TLS13]).connect(address).get("/204").status, 204);
}

#[test]
fn a_header_of_a_proxy_comes_before_the_handshake() {
    let mut server = testbed(&[("FORKPOOL_PROXY_PROTOCOL", "yes")]);
    let address = address(&mut server);
    for version in BOTH {
        let mut socket = TcpStream::connect(address).expect("it listens");
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
        socket.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.8 5 443\r\n").expect("sent");
        let mut client = Browser::new(&[version]).shake_hands(socket, "localhost").expect("a handshake");
        assert!(client.get("/client").text().contains("192.0.2.7"));
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn metrics_count_handshakes() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_ADMIN", "127.0.0.1:0")]);
    let address = address(&mut server);
    let admin = admin_address(&mut server);
    let browsers = BOTH.map(|version| Browser::new(&[version]));
    for browser in &browsers {
        assert!(!browser.visit(address) && browser.visit(address));
    }
    let plain = TcpStream::connect(address).expect("it listens");
    plain.set_read_timeout(Some(DEADLINE)).expect("a socket");
    assert_eq!(Client::new(plain).get("/").status, 400);
    let counted = |name: &str, labels: &str, count: u64| {
        let (name, labels) = (format!("forkpool_tls_{name}_total"), format!("worker=\"0\",{labels}"));
        until(&labels, || (metric(admin, &name, &labels)? == count).then_some(()));
    };
    for version in ["1.2", "1.3"] {
        counted("handshakes", &format!("version=\"{version}\",resumed=\"no\""), 1);
        counted("handshakes", &format!("version=\"{version}\",resumed=\"yes\""), 1);
    }
    counted("failures", "reason=\"plain_http\"", 1);
}
