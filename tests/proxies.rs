//! Proxies in front of a pool: how they name their clients, and which of them are trusted.

mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use support::{connect_unix, fresh_path, skip, testbed, until, Client, Server, DEADLINE};

const REQUEST: &str = "GET /client HTTP/1.1\r\nHost: a.example\r\n\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(command: u8, family: u8, behind: &[u8]) -> Vec<u8> {
    let len = u16::try_from(behind.len()).expect("short").to_be_bytes();
    [SIGNATURE, &[command, family], &len, behind].concat()
}

/// From 203.0.113.9:12345 to 10.0.0.1:80.
const V4: [u8; 12] = [203, 0, 113, 9, 10, 0, 0, 1, 0x30, 0x39, 0, 80];

/// Whether the server closes, which may be by a reset, without an answer.
fn is_closed(client: &mut Client<TcpStream>) -> bool {
    let mut stream = client.stream();
    let mut rest = Vec::new();
    let ended = match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    ended && rest.is_empty()
}

#[test]
fn the_proxy_header_names_the_client() {
    let mut server = testbed(&[("FORKPOOL_PROXY_PROTOCOL", "yes")]);
    let long = [&V4[..], &[0xee; 60_000]].concat();
    for (header, client) in [
        (b"PROXY TCP4 203.0.113.9 10.0.0.1 12345 80\r\n".to_vec(), "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (v2(0x21, 0x11, &V4), "203.0.113.9"),
        (v2(0x21, 0x11, &[&V4[..], b"\x04\0\x03\0\0\0"].concat()), "203.0.113.9"),
        (v2(0x21, 0x11, &long), "203.0.113.9"),
        (v2(0x20, 0, b""), "127.0.0.1"),
        (v2(0x21, 0, b""), "127.0.0.1"),
    ] {
        // All in one packet, with a second request behind the first; the next ones have no header.
        let mut connection = server.connect();
        connection.send([&header[..], REQUEST.as_bytes(), REQUEST.as_bytes()].concat());
        let expected = format!("{client} http://a.example");
        assert_eq!(connection.answer().text(), expected);
        assert_eq!(connection.answer().text(), expected);
        connection.send(REQUEST);
        assert_eq!(connection.answer().text(), expected);
        // In two pieces, cut at each byte of a short one.
        let cuts: Vec<usize> = if header.len() < 100 { (1..=header.len()).collect() } else { vec![5, 20, 30, 40_000] };
        for cut in cuts {
            let mut connection = server.connect();
            connection.stream().set_nodelay(true).expect("a socket");
            connection.send(&header[..cut]);
            connection.send([&header[cut..], REQUEST.as_bytes()].concat());
            assert_eq!(connection.answer().text(), expected, "{cut}");
        }
    }
}

#[test]
fn a_connection_without_a_header_is_closed() {
    let mut server = testbed(&[("FORKPOOL_PROXY_PROTOCOL", "yes")]);
    for bytes in [
        REQUEST.as_bytes().to_vec(),
        b"PROXY TCP4 203.0.113.9 10.0.0.1 12345\r\n".to_vec(),
        v2(0x21, 0x11, b"short"),
        b"\x16\x03\x01\x02\0\x01\0".to_vec(),
    ] {
        let mut connection = server.connect();
        connection.send(&bytes);
        assert!(is_closed(&mut connection), "{bytes:?}");
    }
    server.wait_for("closed a connection from 127.0.0.1:");
    // A check of health that opens a connection, with or without a header, and closes it.
    for bytes in [v2(0x20, 0, b""), Vec::new()] {
        let mut connection = server.connect();
        connection.send(&bytes);
        connection.stream().shutdown(std::net::Shutdown::Write).expect("a socket");
        assert!(is_closed(&mut connection));
    }
    let mut connection = server.connect();
    connection.send([b"PROXY UNKNOWN\r\n", REQUEST.as_bytes()].concat());
    assert_eq!(connection.answer().status, 200);
}

#[test]
fn a_header_comes_in_time_or_never() {
    let mut server = testbed(&[("FORKPOOL_PROXY_PROTOCOL", "yes"), ("FORKPOOL_HEAD_TIMEOUT", "200ms")]);
    let long = v2(0x21, 0x11, &[&V4[..], b"tlv"].concat());
    for bytes in [&b"PROXY TCP4 203.0.113.9"[..], &long[..20], &long[..30], b"PROXY UNKNOWN\r\n", b""] {
        let mut connection = server.connect();
        // On a slow machine its time may be over already.
        let _ = (&mut connection.stream()).write_all(bytes);
        assert!(is_closed(&mut connection), "{bytes:?}");
    }
}

#[test]
fn connections_that_no_trusted_proxy_makes_are_closed() {
    let socket = fresh_path("trusted.sock");
    let listen = format!("127.0.0.1:0,unix:{}", socket.display());
    let header = b"PROXY TCP4 203.0.113.9 10.0.0.1 1 2\r\n";
    for (proxies, is_tcp_taken, is_unix_taken) in
        [("10.0.0.0/8", false, false), ("127.0.0.0/8", true, false), ("127.0.0.1,unix", true, true)]
    {
        let variables = [
            ("FORKPOOL_LISTEN", listen.as_str()),
            ("FORKPOOL_PROXY_PROTOCOL", "yes"),
            ("FORKPOOL_TRUSTED_PROXIES", proxies),
        ];
        let mut server = testbed(&variables);
        let mut tcp = server.connect();
        match is_tcp_taken {
            true => {
                tcp.send([&header[..], REQUEST.as_bytes()].concat());
                assert_eq!(tcp.answer().text(), "203.0.113.9 http://a.example");
            }
            // At once, with nothing sent.
            false => assert!(is_closed(&mut tcp), "{proxies}"),
        }
        let mut unix = connect_unix(&socket);
        match is_unix_taken {
            true => {
                unix.send([&header[..], REQUEST.as_bytes()].concat());
                assert_eq!(unix.answer().text(), "203.0.113.9 http://a.example");
                let mut unix = connect_unix(&socket);
                // It may be closed before that is sent.
                let _ = unix.stream().try_clone().expect("a socket").write_all(REQUEST.as_bytes());
                assert!(unix.try_answer(false).is_err(), "and not without a header");
            }
            false => {
                let _ = unix.stream().try_clone().expect("a socket").write_all(REQUEST.as_bytes());
                assert!(unix.try_answer(false).is_err(), "{proxies}");
            }
        }
        stop(&mut server);
    }
}

#[test]
fn a_unix_socket_has_no_header_where_nobody_is_listed() {
    let socket = fresh_path("plain.sock");
    let listen = format!("127.0.0.1:0,unix:{}", socket.display());
    let _server = testbed(&[("FORKPOOL_LISTEN", &listen), ("FORKPOOL_PROXY_PROTOCOL", "yes")]);
    let mut unix = connect_unix(&socket);
    unix.send(REQUEST);
    assert_eq!(unix.answer().text(), "nobody http://a.example");
}

#[test]
fn forwarded_fields_count_after_a_proxy_header_too() {
    let mut server =
        testbed(&[("FORKPOOL_TRUSTED_PROXIES", "127.0.0.1 10.0.0.0/8"), ("FORKPOOL_PROXY_PROTOCOL", "yes")]);
    for (header, client) in [
        // The proxy of connections names a trusted proxy of requests, or the client itself.
        ("PROXY TCP4 10.0.0.1 10.0.0.2 1 2", "192.0.2.1 https://b.example"),
        ("PROXY TCP4 203.0.113.9 10.0.0.2 1 2", "203.0.113.9 http://a.example"),
        ("PROXY UNKNOWN", "192.0.2.1 https://b.example"),
    ] {
        let fields =
            "X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b.example\r\n";
        let mut connection = server.connect();
        connection.send(format!("{header}\r\nGET /client HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"));
        assert_eq!(connection.answer().text(), client, "{header}");
    }
}

#[test]
fn forwarded_fields_are_ignored_by_default() {
    let mut server = testbed(&[]);
    for field in ["X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1;proto=https", "X-Forwarded-Proto: https"] {
        let mut connection = server.connect();
        connection.send(format!("GET /client HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"));
        assert_eq!(connection.answer().text(), "127.0.0.1 http://a", "{field}");
    }
    let mut connection = server.connect();
    connection.send([b"PROXY UNKNOWN\r\n", REQUEST.as_bytes()].concat());
    assert_eq!(connection.answer().status, 400);
}

#[test]
fn a_balance_by_client_addresses_behind_a_proxy_is_warned_of() {
    let mut server = testbed(&[("FORKPOOL_BALANCE", "client"), ("FORKPOOL_TRUSTED_PROXIES", "10.0.0.0/8")]);
    assert_eq!(server.count("balance client chooses by the proxies' addresses"), 1);
    stop(&mut server);
}

#[test]
fn the_access_log_names_the_client() {
    let (log, socket) = (fresh_path("clients.log"), fresh_path("clients.sock"));
    let listen = format!("127.0.0.1:0,unix:{}", socket.display());
    let format = "$remote_addr $peer_addr $scheme://$host \"$request\" $status";
    let mut server = testbed(&[
        ("FORKPOOL_WORKERS", "1"),
        ("FORKPOOL_LISTEN", &listen),
        ("FORKPOOL_ACCESS_LOG", &log.to_string_lossy()),
        ("FORKPOOL_ACCESS_LOG_FORMAT", format),
        ("FORKPOOL_TRUSTED_PROXIES", "127.0.0.1"),
    ]);
    let mut connection = server.connect();
    for fields in ["X-Forwarded-For: 192.0.2.1\r\n", "", "X-Forwarded-For: 192.0.2.2\r\nX-Forwarded-Proto: https\r\n"] {
        connection.send(format!("GET /204 HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(connection.answer().status, 204);
    }
    connection.send("GET /x\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n");
    assert_eq!(connection.answer().status, 400);
    let mut unix = connect_unix(&socket);
    unix.send("GET /204 HTTP/1.1\r\nHost: u\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n");
    assert_eq!(unix.answer().status, 204);
    stop(&mut server);
    let lines = fs::read_to_string(&log).expect("a log");
    let expected = [
        "192.0.2.1 127.0.0.1 http://a \"GET /204 HTTP/1.1\" 204",
        "127.0.0.1 127.0.0.1 http://a \"GET /204 HTTP/1.1\" 204",
        "192.0.2.2 127.0.0.1 https://a \"GET /204 HTTP/1.1\" 204",
        "127.0.0.1 127.0.0.1 http://- \"GET /x\" 400",
        "0.0.0.0 0.0.0.0 http://u \"GET /204 HTTP/1.1\" 204",
    ];
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn goaccess_reads_the_lines() {
    if !is_installed("goaccess") {
        return;
    }
    for (format, known) in [
        ("common", "COMMON"),
        ("combined", "COMBINED"),
        ("vhost", "%v %h %^[%d:%t %^] \"%r\" %s %b \"%R\" \"%u\" %D"),
        (
            "$time_iso8601 $remote_addr $host \"$request\" $status $body_bytes_sent $request_time",
            "%dT%t+%^ %h %v \"%r\" %s %b %T",
        ),
    ] {
        let (log, socket, report) = (fresh_path("go.log"), fresh_path("go.sock"), fresh_path("go.json"));
        let listen = format!("127.0.0.1:0,unix:{}", socket.display());
        let mut server = testbed(&[
            ("FORKPOOL_LISTEN", &listen),
            ("FORKPOOL_ACCESS_LOG", &log.to_string_lossy()),
            ("FORKPOOL_ACCESS_LOG_FORMAT", format),
        ]);
        assert_eq!(server.get("/").status, 200);
        let mut unix = connect_unix(&socket);
        unix.send("GET /\u{22}a HTTP/1.1\r\nHost: u\r\nUser-Agent: a\"b\r\n\r\n");
        assert_eq!(unix.answer().status, 404);
        stop(&mut server);
        let mut command = Command::new("goaccess");
        let date = if format.starts_with("$time_iso") { "%Y-%m-%d" } else { "%d/%b/%Y" };
        command.args(["--no-global-config", "--date-format", date, "--time-format", "%H:%M:%S"]);
        command.args(["--log-format", known, "--no-progress", "-o"]).arg(&report).arg(&log);
        let output = command.output().expect("it is installed");
        assert!(output.status.success(), "{format}: {output:?}\n{}", fs::read_to_string(&log).expect("a log"));
        let report = fs::read_to_string(&report).expect("a report");
        assert!(report.contains("\"valid_requests\": 2,") && report.contains("\"failed_requests\": 0,"), "{report}");
    }
}

#[test]
fn curl_speaks_the_protocol() {
    let mut server = testbed(&[("FORKPOOL_PROXY_PROTOCOL", "yes")]);
    let port = server.port();
    if let Some(said) = curl(&["--haproxy-protocol", "--interface", "127.0.0.7"], port) {
        assert_eq!(said, format!("127.0.0.7 http://127.0.0.1:{port}"));
    }
}

#[test]
fn haproxy_names_its_clients() {
    let mut pool = testbed(&[("FORKPOOL_PROXY_PROTOCOL", "yes"), ("FORKPOOL_TRUSTED_PROXIES", "127.0.0.1")]);
    let mut plain = testbed(&[("FORKPOOL_TRUSTED_PROXIES", "127.0.0.1")]);
    let (pool, plain) = (pool.port(), plain.port());
    let backends = [
        // Its checks of health speak the protocol too, for nobody.
        format!("option httpchk GET /\n server a 127.0.0.1:{pool} send-proxy check inter 100ms check-send-proxy"),
        format!("option httpchk GET /\n server a 127.0.0.1:{pool} send-proxy-v2 check inter 100ms check-send-proxy"),
        format!("server a 127.0.0.1:{pool} send-proxy-v2-ssl-cn proxy-v2-options unique-id\n unique-id-format %[src]"),
        format!("option forwardfor\n server a 127.0.0.1:{plain}"),
    ];
    for backend in backends {
        let config = |port| {
            format!(
                "global\n maxconn 100\ndefaults\n mode http\n timeout connect 60s\n timeout client 60s\n timeout server 60s\n\
                 listen l\n bind 127.0.0.1:{port}\n {backend}\n"
            )
        };
        let Some((_proxy, port)) = Proxy::start("haproxy", &["-db", "-f"], config) else { return };
        for _ in 0..3 {
            // Also what the client says of itself.
            let arguments = ["--interface", "127.0.0.9", "-H", "X-Forwarded-For: 192.0.2.1", "-H", "Host: a.example"];
            let Some(said) = curl(&arguments, port) else { return };
            assert_eq!(said, "127.0.0.9 http://a.example", "{backend}");
        }
    }
}

#[test]
fn nginx_names_its_clients() {
    let socket = fresh_path("nginx.sock");
    let listen = format!("127.0.0.1:0,unix:{}", socket.display());
    let mut pool = testbed(&[("FORKPOOL_LISTEN", &listen), ("FORKPOOL_TRUSTED_PROXIES", "127.0.0.1,unix")]);
    let pool = pool.port();
    for (upstream, fields) in [
        (format!("http://127.0.0.1:{pool}"), "X-Forwarded-For $proxy_add_x_forwarded_for"),
        (format!("http://unix:{}:", socket.display()), "X-Forwarded-For $proxy_add_x_forwarded_for"),
        (format!("http://127.0.0.1:{pool}"), "Forwarded \"for=$remote_addr;proto=http\""),
    ] {
        let directory = fresh_path("nginx");
        fs::create_dir_all(&directory).expect("writable");
        let at = directory.display();
        // Without a client's X-Forwarded-For where it sets Forwarded alone.
        let clear = if fields.starts_with("Forwarded") { "proxy_set_header X-Forwarded-For \"\";" } else { "" };
        let config = |port| {
            let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|name| format!("{name}_temp_path {at}/{name};"));
            format!(
                "daemon off; master_process off; pid {at}/pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off; {}\n\
                 server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {upstream}; proxy_set_header Host $http_host;\n\
                 proxy_set_header {fields}; {clear} proxy_set_header X-Forwarded-Proto $scheme; }} }} }}\n",
                temporary.concat()
            )
        };
        let Some((_proxy, port)) = Proxy::start("nginx", &["-e", "stderr", "-c"], config) else { return };
        let arguments = ["--interface", "127.0.0.9", "-H", "X-Forwarded-For: 192.0.2.1", "-H", "Host: a.example"];
        let Some(said) = curl(&arguments, port) else { return };
        assert_eq!(said, "127.0.0.9 http://a.example", "{upstream} {fields}");
    }
}

fn stop(server: &mut Server) {
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
}

/// A proxy that runs until the test ends.
struct Proxy(Child);

impl Proxy {
    /// Starts it on a free port with a configuration of that, whose path is the last argument. `None`, and a skip,
    /// where it is not installed.
    #[track_caller]
    fn start(name: &str, arguments: &[&str], config: impl Fn(u16) -> String) -> Option<(Proxy, u16)> {
        if !is_installed(name) {
            return None;
        }
        // Somebody else may take the port in between.
        for _ in 0..20 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
            let port = free.expect("a port is free").port();
            let path = std::path::absolute(fresh_path(&format!("{name}.conf"))).expect("a path");
            fs::write(&path, config(port)).expect("writable");
            let mut command = Command::new(program(name).expect("it is installed"));
            command.args(arguments).arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut proxy = Proxy(command.spawn().expect("it starts"));
            let is_up = until("it listens or ends", || match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                Ok(_) => Some(true),
                Err(_) => proxy.0.try_wait().expect("a child").map(|_| false),
            });
            if is_up {
                return Some((proxy, port));
            }
        }
        panic!("{name} does not start with:\n{}", config(1));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `/client` says through a port; `None`, and a skip, where there is no curl.
#[track_caller]
fn curl(arguments: &[&str], port: u16) -> Option<String> {
    if !is_installed("curl") {
        return None;
    }
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--show-error",
        "--fail",
        "--noproxy",
        "*",
        "--max-time",
        &DEADLINE.as_secs().to_string(),
    ]);
    let output = command.args(arguments).arg(format!("http://127.0.0.1:{port}/client")).output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).expect("text"))
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([Path::new("/usr/sbin").to_owned()]);
    places.map(|place| place.join(name)).find(|place| place.is_file())
}

/// Whether a program is there; says so where it is not.
#[track_caller]
fn is_installed(name: &str) -> bool {
    let found = program(name).is_some();
    if !found {
        skip(&format!("there is no {name}"));
    }
    found
}
