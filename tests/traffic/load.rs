//! The load client of `tests/tools/load` against servers with one fault each: it must count each fault in its class, as
//! often as it happened.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::sockets::closed_port;
use crate::support::{example, until, CLASSES};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use socket2::SockRef;

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Pid: 7\r\n\r\nok";

/// Serves each connection in a thread of its own, until the test's process ends.
fn server(serve: impl Fn(Connection) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let serve = serve.clone();
            thread::spawn(move || serve(Connection { number, is_last: false, stream: BufReader::new(stream) }));
        }
    });
    address
}

/// One client, from the server's side.
struct Connection {
    /// Counted from 0.
    number: usize,
    /// The request that was read says `Connection: close`.
    is_last: bool,
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Reads a request; `false` when the client has closed.
    fn request(&mut self) -> bool {
        let mut line = String::new();
        while self.stream.read_line(&mut line).is_ok_and(|len| len > 2) {
            self.is_last |= line == "Connection: close\r\n";
            line.clear();
        }
        line == "\r\n"
    }

    fn send(&mut self, bytes: &str) {
        // A client that is gone has been counted by itself.
        let _ = self.stream.get_mut().write_all(bytes.as_bytes());
    }

    /// Answers as it should be, until the client closes or has told to.
    fn answer_all(mut self, answered: impl Fn()) {
        while !self.is_last && self.request() {
            self.send(ANSWER);
            answered();
        }
    }

    fn option(&self) -> SockRef<'_> {
        SockRef::from(self.stream.get_ref())
    }

    /// Waits until the client has read what was sent: its receive queue is in proc_net_tcp(5), as `tx:rx`.
    fn is_read(&self) {
        let Ok(SocketAddr::V4(client)) = self.stream.get_ref().peer_addr() else { panic!("an IPv4 client") };
        let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(client.ip().octets()), client.port());
        until("the client has read it", || {
            let sockets = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
            // Not row by row: there are tens of thousands, of connections that have ended.
            let is_read = sockets.match_indices(&format!(": {local} ")).any(|(at, _)| {
                let columns: Vec<&str> = sockets[at..].split_ascii_whitespace().take(5).collect();
                columns[3] == "01" && columns[4].ends_with(":00000000")
            });
            is_read.then_some(())
        });
    }

    /// Closes with a reset instead of an end of file (socket(7), SO_LINGER).
    fn reset(self) {
        self.option().set_linger(Some(Duration::ZERO)).expect("a socket");
    }

    /// Waits until the client closes.
    fn wait(&mut self) {
        let _ = self.stream.read_to_end(&mut Vec::new());
    }
}

/// The exit code and what was printed.
struct Report {
    code: Option<i32>,
    values: BTreeMap<String, u64>,
}

impl Report {
    #[track_caller]
    fn of(output: &Output) -> Report {
        let text = String::from_utf8_lossy(&output.stdout);
        let pairs = text.split_whitespace().filter_map(|word| word.split_once('='));
        let values = pairs.map(|(key, value)| (key.to_owned(), value.parse().expect("a number"))).collect();
        Report { code: output.status.code(), values }
    }

    #[track_caller]
    fn value(&self, key: &str) -> u64 {
        self.values.get(key).copied().unwrap_or_else(|| panic!("no {key} in {:?}", self.values))
    }

    /// Checks the count of every class: those that are not named must be 0.
    #[track_caller]
    fn expect(&self, wanted: &[(&str, u64)]) {
        let found: Vec<_> =
            CLASSES.map(|class| (class, self.value(class))).into_iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(found, wanted);
        let sum = |classes: &[&str]| classes.iter().map(|class| self.value(class)).sum::<u64>();
        assert_eq!(self.value("total"), sum(&CLASSES));
        assert_eq!(self.value("reset"), sum(&CLASSES[3..7]));
        assert_eq!(self.value("lost"), sum(&CLASSES[2..11]));
        let code = if self.value("lost") > 0 {
            1
        } else if self.value("local") > 0 {
            3
        } else {
            0
        };
        assert_eq!(self.code, Some(code));
    }
}

fn command(address: SocketAddr, options: &str) -> Command {
    let mut command = example("load");
    // On a slow machine everything may be late; where that matters, the options say so.
    command.args([&address.to_string(), "--late", "3600s", "--patience", "120s"]).args(options.split_whitespace());
    command
}

#[track_caller]
fn load(address: SocketAddr, options: &str) -> Report {
    Report::of(&command(address, options).output().expect("the example is built"))
}

#[test]
fn a_connection_for_each_request() {
    type Fault = fn(Connection);
    let cases: [(&str, Fault); 12] = [
        ("ok", |mut c| c.send(ANSWER)),
        // In one segment with its end, and in many.
        ("ok", |mut c| {
            c.option().set_tcp_nodelay(true).expect("a socket");
            ANSWER.split_inclusive(' ').for_each(|part| c.send(part));
        }),
        ("dropped", drop),
        ("truncated", |mut c| c.send(&ANSWER[..20])),
        ("truncated", |mut c| c.send(&ANSWER[..ANSWER.len() - 1])),
        ("reset_waiting", Connection::reset),
        ("reset_mid_answer", |mut c| {
            c.send(&ANSWER[..ANSWER.len() - 1]);
            c.reset();
        }),
        ("reset_after_answer", |mut c| {
            c.send(ANSWER);
            c.reset();
        }),
        ("bad", |mut c| {
            c.send("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno");
            c.wait();
        }),
        ("bad", |mut c| {
            c.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nno");
            c.wait();
        }),
        ("bad", |mut c| {
            c.send("HTTP/1.1 200 OK\r\n\r\nno");
            c.wait();
        }),
        ("bad", |mut c| {
            c.send("220 mail.example.com ESMTP\r\n");
            c.wait();
        }),
    ];
    for (class, fault) in cases {
        let address = server(move |mut connection| {
            assert!(connection.request());
            fault(connection);
        });
        let report = load(address, "--requests 20 --connections 4");
        report.expect(&[(class, 20)]);
        assert_eq!(report.value("connections"), 20);
    }
}

/// What is wrong behind an answer is noticed although the answer is whole.
#[test]
fn the_end_of_a_connection() {
    let address = server(|mut connection| {
        connection.request();
        connection.send(ANSWER);
        connection.is_read();
        connection.send("more");
    });
    load(address, "--requests 20 --connections 4").expect(&[("bad", 20)]);
    let address = server(|mut connection| {
        connection.request();
        connection.send(ANSWER);
        connection.wait();
    });
    load(address, "--requests 8 --connections 4 --patience 1ms").expect(&[("timed_out", 8)]);
}

#[test]
fn nobody_listens() {
    let (_kept, address) = closed_port();
    load(address, "--requests 20 --connections 4").expect(&[("refused", 20)]);
    load(address, "--requests 20 --connections 4 --keep-alive").expect(&[("refused", 20)]);
}

#[test]
fn no_response_comes() {
    let address = server(|mut connection| connection.wait());
    load(address, "--requests 8 --connections 4 --patience 1ms").expect(&[("timed_out", 8)]);
}

/// Any answer takes more than no time at all.
#[test]
fn late_responses_are_not_lost() {
    let address = server(|mut connection| {
        connection.request();
        connection.send(ANSWER);
    });
    load(address, "--requests 20 --late 0ms").expect(&[("late", 20)]);
    load(address, "--requests 20 --late 3600s").expect(&[("ok", 20)]);
}

/// With the standard streams and epoll's descriptor, four are taken. Whoever started the tests may have left a further
/// one open.
#[test]
fn the_clients_own_failures_are_told_apart() {
    let address = server(|mut connection| connection.wait());
    let load = example("load");
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec 3>&-; ulimit -n 4; exec \"$@\"", "sh"]).arg(load.get_program()).arg(address.to_string());
    let output = shell.args(["--requests", "20"]).output().expect("a shell");
    Report::of(&output).expect(&[("local", 20)]);
}

#[test]
fn kept_connections() {
    let address = server(|connection| connection.answer_all(|| {}));
    for options in
        ["--requests 200 --connections 4 --keep-alive", "--requests 200 --connections 4 --keep-alive --rate 2000"]
    {
        let report = load(address, options);
        report.expect(&[("ok", 200)]);
        assert!(report.value("connections") <= 4);
    }
}

/// A server may close between two requests. It does so here with the answer's last segment, so that no request can be
/// on its way.
#[test]
fn an_idle_connection_that_is_closed_is_no_loss() {
    let is_torn = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_torn);
    let address = server(move |mut connection| {
        connection.option().set_tcp_cork(true).expect("a socket");
        connection.request();
        let begun = Instant::now();
        connection.send(ANSWER);
        drop(connection);
        // The kernel holds an answer back for a fifth of a second, and sends it without its end then.
        told.fetch_or(begun.elapsed() > Duration::from_millis(100), Relaxed);
    });
    until("every answer comes with its end", || {
        let report = load(address, "--requests 12 --connections 1 --keep-alive");
        if is_torn.swap(false, Relaxed) {
            return None;
        }
        report.expect(&[("ok", 12)]);
        assert_eq!((report.value("connections"), report.value("closed_idle")), (12, 11));
        Some(())
    });
}

#[test]
fn an_announced_close_is_obeyed() {
    let address = server(|mut connection| {
        connection.request();
        connection.send(ANSWER);
        connection.request();
        connection.send("HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n");
        // A further request would not be answered.
        connection.wait();
    });
    let report = load(address, "--requests 12 --connections 1 --keep-alive");
    report.expect(&[("ok", 12)]);
    assert_eq!((report.value("connections"), report.value("closed_idle")), (6, 0));
}

#[test]
fn faults_of_kept_connections() {
    type Fault = fn(Connection);
    let cases: [(&str, Fault); 4] = [
        ("dropped", drop),
        ("truncated", |mut c| c.send(&ANSWER[..ANSWER.len() - 1])),
        ("reset_waiting", Connection::reset),
        ("bad", |mut c| {
            c.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nno");
            c.wait();
        }),
    ];
    for (class, fault) in cases {
        let address = server(move |mut connection| {
            connection.request();
            connection.send(ANSWER);
            connection.request();
            fault(connection);
        });
        let report = load(address, "--requests 12 --connections 1 --keep-alive");
        report.expect(&[("ok", 6), (class, 6)]);
        assert_eq!(report.value("connections"), 6);
    }
}

/// Bytes that nobody asked for are found whenever they come: with their answer, while the connection is idle, or as the
/// answer to the next request.
#[test]
fn bytes_after_an_answer_make_one_request_bad() {
    let address = server(|mut connection| {
        connection.request();
        connection.send(ANSWER);
        if connection.number == 0 {
            connection.is_read();
            connection.send("more");
        }
        connection.wait();
    });
    let report = load(address, "--requests 2 --connections 1 --keep-alive --rate 2");
    report.expect(&[("ok", 1), ("bad", 1)]);
}

#[test]
fn it_stops_when_it_is_told_to() {
    for options in ["", "--keep-alive", "--rate 500", "--rate 500 --keep-alive"] {
        for by_signal in [false, true] {
            let (sender, answers) = mpsc::channel();
            let address = server(move |connection| connection.answer_all(|| sender.send(()).unwrap_or_default()));
            let mut load = command(address, options);
            load.arg("--until-eof").stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = load.spawn().expect("the example is built");
            assert_eq!(answers.iter().take(20).count(), 20);
            let stdin = child.stdin.take();
            if by_signal {
                kill(Pid::from_raw(child.id().try_into().expect("a pid")), Signal::SIGTERM).expect("it runs");
            } else {
                drop(stdin);
            }
            let report = Report::of(&child.wait_with_output().expect("a child"));
            let total = report.value("total");
            assert!(total >= 20 && report.value("gap_ms") <= report.value("ms"));
            report.expect(&[("ok", total)]);
        }
    }
}

#[test]
fn what_it_prints() {
    let address = server(|connection| connection.answer_all(|| {}));
    let report = load(address, "--requests 100 --connections 5 --keep-alive --by-worker");
    assert_eq!(report.value("worker.7"), report.value("connections"));
    let quantiles = ["p50", "p90", "p99", "p99.9", "max"].map(|name| report.value(name));
    assert!(quantiles.is_sorted() && quantiles[0] > 0, "{quantiles:?}");
    let output =
        command(address, "--requests 1 --keep-alive --by-worker --json").output().expect("the example is built");
    let text = String::from_utf8(output.stdout).expect("JSON");
    assert!(text.starts_with("{\"total\":1,\"lost\":0,") && text.ends_with("\"workers\":{\"7\":1}}\n"), "{text}");
}

#[test]
fn wrong_arguments() {
    for arguments in [
        "",
        "127.0.0.1",
        "127.0.0.1:1 --rate 0",
        "127.0.0.1:1 --late 5",
        "127.0.0.1:1 --fast",
        "127.0.0.1:1 x",
        "127.0.0.1:1 --slow-path / --slow-share 101%",
        "127.0.0.1:1 --slow-share 2%",
        "127.0.0.1:1 --churn 2%",
        "127.0.0.1:1 --poisson",
    ] {
        let output = example("load").args(arguments.split_whitespace()).output().expect("the example is built");
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(String::from_utf8_lossy(&output.stderr).ends_with("; try --help\n"), "{arguments}");
    }
}
