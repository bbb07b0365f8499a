//! The access log of real pools: what its lines say, and that none is lost or torn.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::{kill, Signal};
use nix::unistd::Uid;
use socket2::SockRef;
use support::{binary, connect_unix, example, fresh_path, testbed, until, Load, Server};

/// The lines of a file that are whole.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(String::from).collect()
}

/// What the lines of a text format say behind the time.
fn said(path: &Path) -> Vec<String> {
    let behind = |line: &String| line.split_once("] ").map(|(_, rest)| rest.to_owned()).expect("a time in brackets");
    lines(path).iter().map(behind).collect()
}

/// Ends a pool, which has written everything then.
fn stop(server: &mut Server) {
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
}

fn answers(log: &Path, file: &Path) -> Server {
    let mut command = example("answers");
    command.env("FORKPOOL_ACCESS_LOG", log).env("FORKPOOL_ACCESS_LOG_FORMAT", "common").env("ANSWERS_FILE", file);
    command.env("FORKPOOL_WORKERS", "1");
    Server::start_silent(command)
}

#[test]
fn each_kind_of_answer_is_logged_with_the_bytes_of_its_body() {
    let (log, file) = (fresh_path("kinds.log"), fresh_path("kinds.bin"));
    fs::write(&file, vec![b'f'; 200_000]).expect("a file");
    let mut server = answers(&log, &file);
    let mut expected = Vec::new();
    let mut client = server.connect();
    for (target, fields, status) in [
        ("/text", "", 200),
        ("/none", "", 404),
        ("/large", "", 200),
        ("/deferred?1", "", 200),
        ("/forgotten", "", 500),
        ("/file", "", 200),
        ("/file", "Range: bytes=5-99\r\n", 206),
        ("/file", "Range: bytes=0-99999,100001-199999\r\n", 206),
        ("/redirect", "", 303),
        ("/\"quoted\\\"", "", 404),
    ] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
        let answer = client.answer();
        assert_eq!(answer.status, status, "{target}");
        let target = target.replace('\\', "\\x5c").replace('"', "\\x22");
        expected.push(format!("\"GET {target} HTTP/1.1\" {status} {}", answer.body.len()));
    }
    client.send("HEAD /large HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.answer_to_head().status, 200);
    expected.push("\"HEAD /large HTTP/1.1\" 200 0".to_owned());
    let mut refused = server.connect();
    refused.send("HEAD /refused HTTP/1.1\r\n\r\n");
    assert_eq!(refused.answer_to_head().status, 400);
    expected.push("\"HEAD /refused HTTP/1.1\" 400 0".to_owned());
    // The head of a chunk and its end count, too.
    client.send("GET /stream?10 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.answer().body.len(), 10);
    expected.push("\"GET /stream?10 HTTP/1.1\" 200 20".to_owned());
    client.send("GET /upgrade HTTP/1.1\r\nHost: x\r\nUpgrade: shout\r\nConnection: upgrade\r\n\r\n");
    assert_eq!(client.answer_to_head().status, 101);
    // While it is open it would hold the stop.
    drop(client);
    expected.push("\"GET /upgrade HTTP/1.1\" 101 0".to_owned());
    for (request, line) in [
        ("GET /upgrade HTTP/1.1\r\nHost: x\r\n\r\n", "GET /upgrade HTTP/1.1\" 426"),
        ("GET  /bad HTTP/1.1\r\nHost: x\r\n\r\n", "GET  /bad HTTP/1.1\" 400"),
        ("\x16\x03\x01\r\n\r\n", "\\x16\\x03\\x01\" 400"),
        ("POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "POST /p HTTP/1.1\" 400"),
        ("POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n", "POST /p HTTP/1.1\" 413"),
        ("GET /text HTTP/1.0\r\n\r\n", "GET /text HTTP/1.0\" 200"),
    ] {
        let mut client = server.connect();
        client.send(request);
        expected.push(format!("\"{line} {}", client.answer().body.len()));
        assert!(client.is_closed());
    }
    stop(&mut server);
    assert_eq!(said(&log), expected);
}

#[test]
fn the_duration_of_a_request_does_not_begin_before_its_connection() {
    let (log, gates) = (fresh_path("durations.log"), ["first", "second"].map(fresh_path));
    let variables = [
        ("FORKPOOL_WORKERS", "1"),
        ("FORKPOOL_ACCESS_LOG", log.to_str().expect("UTF-8")),
        ("FORKPOOL_ACCESS_LOG_FORMAT", "$request_uri $duration_us"),
    ];
    let mut server = testbed(&variables);
    let ask = |client: &mut support::Client<std::net::TcpStream>, gate: &Path| {
        client.send(format!("GET /wait?{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", gate.display()));
    };
    // While the handler is busy with the first, the second arrives.
    let mut first = server.connect();
    ask(&mut first, &gates[0]);
    // Nothing depends on how long this is. It only makes a wrong beginning visible.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let begun = Instant::now();
    let mut second = server.connect();
    ask(&mut second, &gates[1]);
    for (client, gate) in [first, second].iter_mut().zip(&gates) {
        fs::write(gate, "").expect("a file");
        assert_eq!(client.answer().status, 200);
        // The answer comes before the worker takes the time, and the end of the connection after it.
        assert!(client.is_closed());
    }
    let most = begun.elapsed().as_micros();
    stop(&mut server);
    let lines = lines(&log);
    let duration = lines[1].split(' ').nth(1).and_then(|duration| duration.parse::<u128>().ok());
    assert!(duration.is_some_and(|duration| duration <= most), "{lines:?}, but its client has waited for {most}");
}

#[test]
fn a_connection_that_ends_within_an_answer_is_logged_with_what_was_sent() {
    let log = fresh_path("ends.log");
    let mut server = answers(&log, Path::new("Cargo.toml"));
    let mut client = server.connect();
    client.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
    client.read(&mut [0; 1000]);
    drop(client);
    let mut client = server.connect();
    client.send("GET /deferred?600000 HTTP/1.1\r\nHost: x\r\n\r\n");
    // The second request of a connection is answered behind it, so that one has begun to wait.
    let mut other = server.connect();
    for _ in 0..2 {
        assert_eq!(other.get("/text").status, 200);
    }
    SockRef::from(client.stream()).set_linger(Some(std::time::Duration::ZERO)).expect("a socket");
    drop(client);
    until("the four are logged", || (lines(&log).len() == 4).then_some(()));
    let mut said = said(&log);
    said.sort();
    let large = said.remove(1);
    let text = "\"GET /text HTTP/1.1\" 200 6";
    assert_eq!(said, ["\"GET /deferred?600000 HTTP/1.1\" 499 0", text, text]);
    let bytes = large.strip_prefix("\"GET /large HTTP/1.1\" 200 ").expect("it was begun");
    assert!((500..8 << 20).contains(&bytes.parse::<u64>().expect("a number")), "{large}");
}

#[test]
fn panics_bodies_and_unix_clients_are_logged_in_json_and_combined() {
    let (log, socket) = (fresh_path("json.log"), fresh_path("json.sock"));
    let listen = format!("127.0.0.1:0,unix:{}", socket.display());
    let variables = [
        ("FORKPOOL_LISTEN", listen.as_str()),
        ("FORKPOOL_WORKERS", "1"),
        ("FORKPOOL_ACCESS_LOG", log.to_str().expect("UTF-8")),
        ("FORKPOOL_ACCESS_LOG_FORMAT", "json"),
    ];
    let mut server = testbed(&variables);
    let worker = server.get("/pid").worker();
    assert_eq!(server.get("/panic").status, 500);
    connect_unix(&socket).get("/204");
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: x\r\nUser-Agent: \"é\"\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.answer().body, b"abc");
    stop(&mut server);
    let masked = lines(&log).into_iter().map(|line| {
        let (time, rest) = line.split_at("{\"time\":\"2026-11-21T09:44:05.067Z\",".len());
        assert!(time.starts_with("{\"time\":\"2") && time.ends_with("Z\","), "{line}");
        let (before, rest) = rest.split_once("\"duration\":").expect("a duration");
        let (duration, after) = rest.split_once(',').expect("more");
        assert!(duration.parse::<f64>().is_ok_and(|duration| duration < 30.0), "{line}");
        format!("{before}{after}")
    });
    let end = format!("\"worker\":0,\"pid\":{worker}}}");
    let answer_len = "the server failed to answer this request\n".len();
    let pid_len = worker.to_string().len();
    let expected = [
        ("127.0.0.1", "GET", "/pid", 200, pid_len, "null"),
        ("127.0.0.1", "GET", "/panic", 500, answer_len, "null"),
        ("0.0.0.0", "GET", "/204", 204, 0, "null"),
        ("127.0.0.1", "POST", "/echo", 200, 3, "\"\\\"é\\\"\""),
    ]
    .map(|(remote, method, target, status, bytes, agent)| {
        let host = if method == "POST" { "x" } else { "localhost" };
        format!(
            "\"remote\":\"{remote}\",\"host\":\"{host}\",\"method\":\"{method}\",\"target\":\"{target}\",\"version\":\"HTTP/1.1\",\
             \"status\":{status},\"bytes\":{bytes},\"referer\":null,\"user_agent\":{agent},{end}"
        )
    });
    assert_eq!(masked.collect::<Vec<_>>(), expected);
}

/// Four workers that log to one file under load, which is renamed so many times.
#[track_caller]
fn hammer(name: &str, format: &str, renamings: usize) {
    let log = fresh_path(name);
    let variables = [
        ("FORKPOOL_WORKERS", "4"),
        ("FORKPOOL_ACCESS_LOG", log.to_str().expect("UTF-8")),
        ("FORKPOOL_ACCESS_LOG_FORMAT", format),
    ];
    let mut server = testbed(&variables);
    let load = Load::begin(server.port(), &["--connections", "16", "--keep-alive", "--path", "/plaintext"]);
    let mut files = Vec::new();
    for renaming in 0..renamings {
        until("lines are written", || (fs::metadata(&log).ok()?.len() > 100_000).then_some(()));
        let old = log.with_extension(renaming.to_string());
        fs::rename(&log, &old).expect("it is there");
        server.signal(Signal::SIGUSR1);
        server.wait_for(" reopened");
        files.push(old);
    }
    until("lines are written", || (fs::metadata(&log).ok()?.len() > 1_000_000).then_some(()));
    files.push(log);
    let tally = load.finish();
    tally.nothing_lost();
    stop(&mut server);
    let mut count = 0;
    for line in files.iter().flat_map(|file| lines(file)) {
        let is_whole = match format {
            "json" => line.starts_with("{\"time\":\"") && line.matches('{').count() == 1 && line.ends_with('}'),
            _ => line.starts_with("127.0.0.") && line.ends_with("\"GET /plaintext HTTP/1.1\" 200 13"),
        };
        assert!(is_whole, "{line}");
        count += 1;
    }
    assert!(files.iter().all(|file| fs::read(file).expect("a file").ends_with(b"\n")));
    assert_eq!(count, tally.count("ok") + tally.count("late"));
}

#[test]
fn workers_that_log_to_one_file_write_whole_lines_and_all_of_them() {
    hammer("hammer.log", "json", 0);
}

#[test]
fn renaming_the_file_under_load_loses_no_line() {
    hammer("rename.log", "common", 5);
}

#[test]
fn a_pipe_gets_whole_lines_from_all_workers() {
    let mut command = example("testbed");
    let variables = [("FORKPOOL_WORKERS", "4"), ("FORKPOOL_ACCESS_LOG", "-"), ("FORKPOOL_ACCESS_LOG_FORMAT", "common")];
    command.envs(variables);
    let mut server = Server::start(command);
    let port = server.port();
    let load = Load::begin(port, &["--connections", "16", "--keep-alive"]);
    until("lines are written", || (server.count("\"GET /plaintext") > 5000).then_some(()));
    let tally = load.finish();
    server.signal(Signal::SIGTERM);
    let (_, log) = server.finish();
    let lines: Vec<_> = log.iter().filter(|line| line.contains("/plaintext")).collect();
    let is_whole = |line: &&&String| line.starts_with("127.0.0.") && line.ends_with("HTTP/1.1\" 200 13");
    assert_eq!(lines.iter().find(|line| !is_whole(line)), None);
    // Nobody waits for a reader that is behind.
    let count = |line: &String| line.split_once(" lost ")?.1.split(' ').next()?.parse::<u64>().ok();
    let lost: u64 = log.iter().filter(|line| line.contains(" of the access log")).filter_map(count).sum();
    assert_eq!(lines.len() as u64 + lost, tally.count("ok") + tally.count("late"));
}

#[test]
fn a_line_waits_for_a_moment_only_and_is_not_written_twice_when_its_worker_is_killed() {
    let log = fresh_path("kill.log");
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_ACCESS_LOG", log.to_str().expect("UTF-8"))]);
    let worker = server.get("/pid").worker();
    until("the line is written", || (lines(&log).len() == 1).then_some(()));
    kill(worker, Signal::SIGKILL).expect("it runs");
    server.wait_for("gen=2");
    assert_eq!(server.get("/204").status, 204);
    assert_eq!(server.get("/304").status, 304);
    stop(&mut server);
    let said = said(&log);
    let expected = ["/pid HTTP/1.1\" 200", "/204 HTTP/1.1\" 204", "/304 HTTP/1.1\" 304"];
    assert_eq!(said.len(), expected.len(), "{said:?}");
    assert!(said.iter().zip(expected).all(|(line, expected)| line.contains(expected)), "{said:?}");
}

#[test]
fn a_full_disk_costs_lines_and_no_answer() {
    let begun = Instant::now();
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_ACCESS_LOG", "/dev/full")]);
    assert_eq!(server.get("/plaintext").status, 200);
    let line = server.wait_for("of the access log");
    assert!(line.contains("worker=0 ") && line.contains(" lost 1 lines ") && line.contains("No space left"), "{line}");
    for _ in 0..200 {
        assert_eq!(server.get("/plaintext").status, 200);
    }
    server.signal(Signal::SIGTERM);
    let (status, log) = server.finish();
    assert!(status.success());
    let told: Vec<_> = log.iter().filter(|line| line.contains("of the access log")).collect();
    // Now and then, and at the end what was not told yet.
    let lost = told.iter().filter_map(|line| line.split_once(" lost ")?.1.split(' ').next()?.parse::<u32>().ok());
    assert_eq!(lost.sum::<u32>(), 201, "{told:?}");
    assert!(told.len() >= 2 && told.len() as u64 <= begun.elapsed().as_secs() + 3, "{told:?}");
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_at_the_start() {
    let file = fresh_path("no-directory");
    fs::write(&file, "").expect("a file");
    for (path, problem) in [
        ("/nowhere/access.log".to_owned(), "the directory /nowhere does not exist"),
        ("/".to_owned(), "it is a directory"),
        (format!("{}/x", file.display()), "is no directory"),
    ] {
        for check in [&["--check"][..], &[]] {
            let output = binary().args(["--access-log", &path]).args(check).output().expect("the binary runs");
            let said = String::from_utf8(output.stderr).expect("UTF-8");
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.starts_with(&format!("forkpool: cannot open the access log {path}: ")), "{said}");
            assert!(said.contains(problem) && said.lines().count() == 1, "{said}");
        }
    }
}

#[test]
fn without_an_access_log_the_signal_does_nothing() {
    let mut server = testbed(&[]);
    server.signal(Signal::SIGUSR1);
    server.wait_for("SIGUSR1 ignored");
    assert_eq!(server.get("/plaintext").status, 200);
}

#[test]
fn workers_without_privileges_get_the_file_that_only_root_may_open() {
    if !Uid::effective().is_root() {
        return support::skip("not root, so it cannot become somebody without privileges");
    }
    let directory = PathBuf::from(format!("{}.d", fresh_path("user").display()));
    fs::create_dir_all(&directory).expect("a directory");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).expect("it is ours");
    let log = directory.join("access.log");
    let _ = fs::remove_file(&log);
    let path = log.to_str().expect("UTF-8");
    let mut server = testbed(&[("FORKPOOL_USER", "65534"), ("FORKPOOL_ACCESS_LOG", path)]);
    assert_eq!(server.get("/plaintext").status, 200);
    let old = directory.join("access.log.1");
    fs::rename(&log, &old).expect("it is there");
    server.signal(Signal::SIGUSR1);
    server.wait_for(" reopened");
    until("the old file has the line", || (!lines(&old).is_empty()).then_some(()));
    // The order to a worker may come behind the first requests.
    until("the new file has a line", || {
        assert_eq!(server.get("/204").status, 204);
        (!lines(&log).is_empty()).then_some(())
    });
    stop(&mut server);
    assert!(said(&log).iter().all(|line| line == "\"GET /204 HTTP/1.1\" 204 0 \"-\" \"-\""), "{:?}", said(&log));
    assert_eq!(fs::metadata(&log).expect("a file").permissions().mode() & 0o777, 0o640);
    fs::remove_dir_all(&directory).expect("it is ours");
}

#[test]
fn a_new_binary_goes_on_in_the_same_file() {
    let log = fresh_path("upgrade.log");
    let mut server = testbed(&[("FORKPOOL_ACCESS_LOG", log.to_str().expect("UTF-8"))]);
    assert_eq!(server.get("/204").status, 204);
    server.signal(Signal::SIGUSR2);
    server.wait_for("stopped after ");
    assert_eq!(server.get("/304").status, 304);
    until("both lines are written", || (lines(&log).len() == 2).then_some(()));
    assert!(said(&log)[0].contains(" 204 0 ") && said(&log)[1].contains(" 304 0 "));
}

#[test]
fn the_log_of_the_pool_can_be_in_json() {
    let mut command = binary();
    command.args(["--workers", "1", "--log-format", "json"]);
    let mut server = Server::spawn(command);
    let worker = server.wait_for(" ready");
    let (time, rest) = worker.split_at("{\"time\":\"2026-11-21T09:44:05.067Z\"".len());
    assert!(time.starts_with("{\"time\":\"2") && time.ends_with("Z\""), "{worker}");
    let pid = server.workers()[0];
    let message = format!("worker=0 gen=1 pid={pid} ready");
    let about = format!("\"kind\":\"ready\",\"worker\":0,\"generation\":1,\"pid\":{pid},\"reason\":null");
    assert_eq!(rest, format!(",\"level\":\"info\",{about},\"message\":\"{message}\"}}"));
    let listening = server.wait_for("listening on ");
    let about = format!("\"kind\":\"listening\",\"worker\":null,\"generation\":null,\"pid\":{},", server.pid());
    assert!(listening.contains(&about), "{listening}");
    kill(pid, Signal::SIGKILL).expect("it runs");
    let about = format!("\"kind\":\"exited\",\"worker\":0,\"generation\":1,\"pid\":{pid},\"reason\":\"killed\",");
    server.wait_for(&about);
}

#[test]
fn a_worker_without_a_free_descriptor_goes_on_in_the_new_file() {
    let (path, old) = (fresh_path("full.log"), fresh_path("full.log.1"));
    let program = example("testbed");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\""]).arg(program.get_program());
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("FORKPOOL_WORKERS", "1").env("FORKPOOL_ACCESS_LOG", &path);
    let mut server = Server::start(command);
    let clients: Vec<_> = (0..80).map(|_| server.connect()).collect();
    server.wait_for("has reached its limit at");
    fs::rename(&path, &old).expect("it is there");
    server.signal(Signal::SIGUSR1);
    server.wait_for("reopened");
    // Its order may come behind the first of them.
    until("it writes to the new file", || {
        // It takes the place of one that is idle.
        assert_eq!(server.get("/plaintext").status, 200);
        fs::read_to_string(&path).ok()?.contains("GET /plaintext").then_some(())
    });
    drop(clients);
}

#[test]
fn lines_of_a_worker_that_is_killed_are_written() {
    let path = fresh_path("killed.log");
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_ACCESS_LOG", path.to_str().expect("UTF-8"))]);
    let mut client = server.connect();
    let victim = client.get("/first").worker();
    for number in 0..100 {
        client.get(&format!("/number/{number}"));
    }
    // It may be killed after the last response, but before the line of that one.
    client.get("/last");
    kill(victim, Signal::SIGKILL).expect("it runs");
    server.wait_for("killed by SIGKILL");
    let mut client = server.connect();
    client.get("/next");
    // One that ends by itself in the middle of a request leaves those before it.
    client.send("GET /exit?code=7 HTTP/1.1\r\nHost: x\r\n\r\n");
    server.wait_for("exited with code 7");
    stop(&mut server);
    let mut said = said(&path);
    said.retain(|line| !line.starts_with("\"GET /last "));
    assert!(said[0].starts_with("\"GET /first "), "{said:?}");
    for number in 0..100 {
        assert!(said[number + 1].starts_with(&format!("\"GET /number/{number} ")), "{said:?}");
    }
    assert!(said[101].starts_with("\"GET /next ") && said.len() == 102, "{said:?}");
    fs::remove_file(path).expect("the log");
}
