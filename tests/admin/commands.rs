//! Who may command a pool, by which token or socket.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::{metrics, number, Watched};
use crate::support::{connect_unix, example, fresh_path, testbed, until, Answer, Server};

#[test]
fn over_tcp_commands_need_the_token() {
    let path = fresh_path("admin.token");
    fs::write(&path, "let-me-in\n").expect("a writable directory");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let without = Watched::start(&[]);
    let answer = without.send("POST", "/restart", "Authorization: Bearer let-me-in\r\n");
    assert!(answer.status == 403 && answer.text().contains("read-only over TCP"), "{}", answer.text());
    drop(without);
    let mut watched = Watched::start(&[("FORKPOOL_ADMIN_TOKEN_FILE", path.to_str().expect("UTF-8"))]);
    for fields in [
        "",
        "Authorization: Bearer let-me-im\r\n",
        "Authorization: Bearer let-me-in-\r\n",
        "Authorization: Bearer\r\n",
        "Authorization: Basic let-me-in\r\n",
    ] {
        let answer = watched.send("POST", "/restart", fields);
        assert_eq!((answer.status, answer.text().contains("missing or wrong")), (403, true), "{fields}");
    }
    let right = "Authorization: bearer let-me-in\r\n";
    for (target, status) in [("/scale?workers=0", 400), ("/scale", 400), ("/log?level=loud", 400)] {
        assert_eq!(watched.send("POST", target, right).status, status, "{target}");
    }
    let answer = watched.send("POST", "/scale?workers=3", right);
    assert_eq!((answer.status, number(answer.text(), "after") > 0.0), (202, true));
    assert!(answer.text().starts_with("{\"accepted\":\"scale\","), "{}", answer.text());
    watched.server.wait_for("scaled from 2 to 3");
    watched.server.wait_for("worker=2 gen=1");
    // Where the kernel counts connections, a row for each worker is there from the start.
    if watched.server.count("balance: least connections, among the free workers") == 1 {
        assert_eq!(watched.send("POST", "/scale?workers=65", right).status, 202);
        watched.server.wait_for("still 3 workers: there can be 1 to 64 while the kernel counts their connections");
    }
    assert_eq!(watched.send("POST", "/restart", right).status, 202);
    watched.server.wait_for("rolling restart done");
    until("each has been replaced once, and all have left", || {
        let samples = metrics(watched.ask("/metrics").text());
        let restarts =
            |slot| samples[&format!("forkpool_worker_restarts_total{{worker=\"{slot}\",reason=\"restart\"}}")];
        let have_left = samples["forkpool_workers{state=\"draining\"}"] == 0.0;
        (have_left && (0..3).all(|slot| restarts(slot) == 1.0)).then_some(())
    });
    assert_eq!(watched.send("POST", "/log?level=warn", right).status, 202);
    until("it is said", || watched.ask("/status.txt").text().contains("log level: WARN").then_some(()));
    assert_eq!(watched.send("POST", "/stop", right).status, 202);
    assert_eq!(watched.server.wait().code(), Some(0));
    fs::remove_file(&path).expect("it is there");
}

#[test]
fn a_token_that_everybody_can_read_is_refused() {
    let path = fresh_path("admin.open-token");
    for (content, mode, problem) in [
        ("secret", 0o644, "every user has access to"),
        ("two words", 0o600, "must hold one word"),
        ("", 0o600, "must hold one word"),
    ] {
        fs::write(&path, content).expect("a writable directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        refuses(&path, problem);
    }
    fs::remove_file(&path).expect("it is there");
    // Nobody ever writes to it, and the start does not wait for that.
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe");
    refuses(&path, "it is a pipe; it must be a regular file");
    fs::remove_file(&path).expect("it is there");
}

/// Expects a pool not to start with this file as its token.
#[track_caller]
fn refuses(path: &Path, problem: &str) {
    let mut command = example("testbed");
    command.env("FORKPOOL_ADMIN", "127.0.0.1:0").env("FORKPOOL_ADMIN_TOKEN_FILE", path);
    let (status, log) = Server::spawn(command).finish();
    assert!(!status.success() && log.iter().any(|line| line.contains(problem)), "{log:?}");
}

#[track_caller]
fn post(path: &Path, target: &str) -> Answer {
    let mut client = connect_unix(path);
    client.send(format!("POST {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client.answer()
}

#[test]
fn a_unix_socket_is_for_its_owner_who_may_do_everything() {
    // Left by one that was killed.
    let path = fresh_path("admin.socket");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a writable directory"));
    // A program that another test starts has a copy until it is executed.
    until("nobody listens on it", || UnixStream::connect(&path).is_err().then_some(()));
    let address = format!("unix:{}", path.display());
    let mut server = testbed(&[("FORKPOOL_ADMIN", &address)]);
    let mode = fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(post(&path, "/scale?workers=1").status, 202);
    server.wait_for("scaled from 2 to 1");
    assert_eq!(post(&path, "/stop").status, 202);
    assert_eq!(server.wait().code(), Some(0));
    assert!(!path.exists());
}
