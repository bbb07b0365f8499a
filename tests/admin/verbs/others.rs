//! Whoever answers in a pool's place, and how little a verb takes from it.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::forkpool;
use crate::support::{fresh_path, testbed, Said};

/// How an admin process's answers begin.
const ADMIN_HEAD: &str = "HTTP/1.0 200 OK\r\nServer: forkpool-admin/0.1.0\r\n";

#[test]
fn what_is_no_pool_is_said() {
    for (answer, problem) in [
        ("hello\r\n\r\n", "it does not speak HTTP\n"),
        ("HTTP/1.0 200 OK\r\n\r\nhello world\n", "it is not one: it responds with status 200\n"),
        ("HTTP/1.0 404 Not Found\r\nServer: nginx\r\n\r\nno\n", "it is not one: it responds with status 404\n"),
    ] {
        let problem = problem.replace("it is not one: ", "");
        let (said, address) = told(answer);
        let problem = format!("forkpool: the server at {address} is not a pool's admin process: {problem}");
        assert_eq!((said.code, said.out.as_str(), said.problem), (1, "", problem), "{answer}");
    }
    let (said, _) = told("");
    assert!(said.code == 1 && said.problem.contains("does not answer: unexpected end of file"), "{said:?}");
    let (said, _) = told(&format!("{ADMIN_HEAD}Content-Length: 3\r\n\r\nhi"));
    assert!(said.code == 1 && said.problem.contains("does not answer: unexpected end of file"), "{said:?}");
    let (said, _) = told(&format!("{}\r\nno \x1b[1mpage\n", ADMIN_HEAD.replace("200 OK", "404 Not Found")));
    assert!(said.code == 1 && said.problem.contains("refuses: no ?[1mpage\n"), "{said:?}");
    // The port of the workers.
    let mut server = testbed(&[]);
    let address = format!("127.0.0.1:{}", server.port());
    for verb in [&["status"][..], &["status", "--json"], &["status", "--ready"], &["top"], &["scale", "2"]] {
        let said = forkpool(&address, verb);
        assert!(said.code == 1 && said.out.is_empty(), "{said:?}");
        assert!(said.problem.contains("is not a pool's admin process: "), "{said:?}");
    }
}

#[test]
fn nothing_that_is_told_commands_the_terminal() {
    let (said, _) = told(&format!("{ADMIN_HEAD}\r\na\x1b[2J\rb\u{9b}c\n\u{e9}\n"));
    assert_eq!((said.code, said.out.as_str()), (0, "a?[2J?b?c\n\u{e9}\n"), "{said:?}");
}

/// What `forkpool status` says when that is the answer, and where it came from.
fn told(answer: &str) -> (Said, String) {
    let answer = answer.to_owned();
    answered(&["status"], move |_, stream| stream.write_all(answer.as_bytes()))
}

/// What a verb says when each of its requests is answered so, and where the answers came from.
fn answered(
    verb: &[&str],
    mut answer: impl FnMut(&str, &mut TcpStream) -> io::Result<()> + Send + 'static,
) -> (Said, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(stream.try_clone().expect("a socket")).lines().map_while(Result::ok);
            let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            // One that has seen enough goes away.
            let _ = answer(&request.join("\n"), &mut stream);
        }
    });
    (forkpool(&address, verb), address)
}

/// No more than what would fill a small machine's memory.
const ENDLESS: usize = 256 << 20;

/// Sends `part` again and again; counts what was taken.
fn endless(stream: &mut TcpStream, part: &str, taken: &AtomicUsize) -> io::Result<()> {
    let part = part.repeat(1 << 10);
    while taken.load(Relaxed) < ENDLESS {
        stream.write_all(part.as_bytes())?;
        taken.fetch_add(part.len(), Relaxed);
    }
    Ok(())
}

#[test]
fn what_a_verb_reads_is_bounded() {
    // What the kernel holds between the two may be more than what the verb reads, and a verb without a bound takes all.
    const MOST: usize = ENDLESS / 4 * 3;
    let head_only = |_: &str| format!("{ADMIN_HEAD}\r\n");
    type Begin = fn(&str) -> String;
    let cases: [(&[&str], Begin, &'static str, &str); 4] = [
        (&["stop"], |_| ADMIN_HEAD.to_owned(), "A: b\r\n", "the head of its response is too long"),
        (&["status"], head_only, "0123456789", "its response is too long"),
        (
            &["status"],
            |_| format!("{ADMIN_HEAD}Content-Length: 99999999999\r\n\r\n"),
            "0123456789",
            "its response is too long",
        ),
        (
            &["restart"],
            |request| match request {
                _ if request.starts_with("GET /status.json ") => format!("{ADMIN_HEAD}Content-Length: 2\r\n\r\n{{}}"),
                _ if request.starts_with("POST ") => format!("{ADMIN_HEAD}Content-Length: 2\r\n\r\n{{}}"),
                _ => format!("{ADMIN_HEAD}\r\n"),
            },
            "0123456789",
            "it sends an event that is too long",
        ),
    ];
    for (verb, begin, part, problem) in cases {
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        let (said, _) = answered(verb, move |request, stream| {
            let begin = begin(request);
            stream.write_all(begin.as_bytes())?;
            if begin.ends_with("{}") {
                return Ok(());
            }
            endless(stream, part, &counter)
        });
        assert!(said.code == 1 && said.out.is_empty() && said.problem.contains(problem), "{verb:?}: {said:?}");
        assert!(taken.load(Relaxed) < MOST, "{verb:?} has read {} bytes", taken.load(Relaxed));
    }
}

#[test]
fn a_verb_does_not_wait_for_an_answer_that_never_ends() {
    let waits = |begin: String| {
        let (said, address) = answered(&["status"], move |_, stream| {
            stream.write_all(begin.as_bytes())?;
            let began = Instant::now();
            // A byte now and then is as good as silence.
            while began.elapsed() < Duration::from_secs(60) {
                stream.write_all(b"x")?;
                thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        });
        let problem = format!("forkpool: the pool at {address} does not answer within 5s\n");
        assert_eq!((said.code, said.out.as_str(), said.problem), (1, "", problem));
    };
    thread::scope(|scope| {
        for begin in [String::new(), ADMIN_HEAD.to_owned(), format!("{ADMIN_HEAD}\r\n")] {
            scope.spawn(move || waits(begin));
        }
    });
}

/// A restart that somebody else has asked for may end just before this one begins.
#[test]
fn the_end_of_another_restart_is_no_answer() {
    let events = |lines: &[&str]| {
        let lines = lines.iter().zip(1..).map(|(line, seq)| format!("{{\"seq\":{seq},\"text\":\"{line}\"}}\n"));
        let lines: String = lines.collect();
        answered(&["restart"], move |request, stream| {
            let is_stream = request.starts_with("GET /events");
            let answer = if is_stream { format!("\r\n{lines}") } else { "Content-Length: 2\r\n\r\n{}".to_owned() };
            stream.write_all(format!("{ADMIN_HEAD}{answer}").as_bytes())
        })
        .0
    };
    let (begun, done) = ("rolling restart begun", "rolling restart done");
    let aborted = "rolling restart aborted, the other workers stay; worker=0 exited with code 1";
    for (before, after, code) in [(done, aborted, 4), (aborted, done, 0)] {
        let said = events(&[before, begun, after]);
        assert_eq!((said.code, said.out), (code, format!("{begun}\n{after}\n")));
    }
    for (only, code) in [
        ("refused: an upgrade is under way", 1),
        ("rolling restart aborted, no worker is replaced: app.env:2: has no =", 4),
    ] {
        let said = events(&[done, only]);
        assert_eq!((said.code, said.out), (code, format!("{only}\n")));
    }
}

#[test]
fn a_verb_does_not_ask_for_ever_what_always_breaks_off() {
    let (said, address) = answered(&["restart"], |request, stream| {
        let is_stream = request.starts_with("GET /events");
        let answer = if is_stream { "\r\n" } else { "Content-Length: 2\r\n\r\n{}" };
        stream.write_all(format!("{ADMIN_HEAD}{answer}").as_bytes())
    });
    let problem = format!("forkpool: the pool at {address} keeps closing the connection\n");
    assert_eq!((said.code, said.problem), (1, problem));
}

#[test]
fn a_token_is_shown_to_nobody_who_is_only_looked_at() {
    let token = fresh_path("verbs.shown");
    fs::write(&token, "secret\n").expect("a writable directory");
    let file = token.to_str().expect("UTF-8");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::clone(&seen);
    let (said, _) = answered(&["stop", "--token-file", file], move |request, stream| {
        requests.lock().expect("no panic").push(request.to_owned());
        stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    });
    let seen = seen.lock().expect("no panic");
    assert!(said.code == 1 && seen.len() == 1 && !seen[0].contains("secret"), "{said:?} {seen:?}");
    fs::remove_file(&token).expect("it is there");
}
