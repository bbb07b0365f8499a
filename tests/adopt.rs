//! Unmodified programs under `forkpool exec`: they bind the pool's address themselves, and get its socket.

mod support;

#[path = "adopt/families.rs"]
mod families;
#[path = "adopt/harm.rs"]
mod harm;
#[path = "adopt/sources.rs"]
mod sources;
#[path = "adopt/upgrade.rs"]
mod upgrade;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use nix::sys::signal::{kill, Signal};
use nix::unistd::{Pid, Uid};
use sources::{directory, script, server, APPLICATIONS, ASYNCIO, NGINX};
use support::{binary, children, is_gone, is_there, skip, until, Load, Server, BOTH_MODES};

/// A pool whose workers run this script, without the variables and descriptors that pass the sockets.
fn exec(options: &[&str], script: &str) -> Command {
    exec_with("2", options, script)
}

fn exec_with(workers: &str, options: &[&str], script: &str) -> Command {
    let mut command = binary();
    let unaware = "PORT=${LISTEN_FDNAMES%%:*}; unset LISTEN_FDS LISTEN_PID LISTEN_FDNAMES; exec 3<&-; ";
    command.args(["exec", "--workers", workers]).args(options).args(["--", "sh", "-c", &(unaware.to_owned() + script)]);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Whether it answers.
fn is_answered(server: &mut Server, name: &str) {
    if name == "redis" {
        let mut client = TcpStream::connect(("127.0.0.1", server.port())).expect("it listens");
        client.write_all(b"PING\r\n").expect("it reads");
        let mut answer = [0; 7];
        client.read_exact(&mut answer).expect("it answers");
        return assert_eq!(&answer, b"+PONG\r\n");
    }
    let answer = server.get("/");
    assert_eq!((answer.status, answer.text()), (200, "hello world\n"));
}

/// Restarts, and waits until the old programs have ended: when told to finish, many still accept, but do not answer.
fn restart(server: &mut Server, workers: usize) {
    server.signal(Signal::SIGHUP);
    server.wait_for("rolling restart done");
    until("the old workers are gone", || (server.workers().len() == workers).then_some(()));
}

/// The programs of a pool without an admin process.
fn programs(server: &Server) -> Vec<Pid> {
    server.workers().into_iter().flat_map(children).collect()
}

/// Makes the same tests for each program.
macro_rules! programs {
    ($($name:ident)*) => {$(
        mod $name {
            #[test]
            fn serves_on_the_pool_s_socket() {
                super::serves_on_the_pool_s_socket(stringify!($name));
            }

            #[test]
            fn cannot_start_without() {
                super::cannot_start_without(stringify!($name));
            }
        }
    )*};
}

programs! { c node node_cluster http_server asyncio uvicorn uvicorn_workers gunicorn php go nginx redis }

/// The program must serve, also after a restart and after it was killed.
fn serves_on_the_pool_s_socket(name: &str) {
    let Some(script) = script(name) else { return };
    let mut server = Server::start(exec(&["--adopt", "require", "--drain-timeout", "5s"], &script));
    assert!(server.log().iter().any(|line| line.contains("gets the pool's socket, 127.0.0.1:")), "{:?}", server.log());
    for _ in 0..4 {
        is_answered(&mut server, name);
    }
    restart(&mut server, 2);
    is_answered(&mut server, name);
    for program in programs(&server) {
        kill(program, Signal::SIGKILL).expect("it runs");
        // What it has started may accept still, and dies with what it has accepted.
        while !server.wait_for(" gen=3 ").ends_with(" ready") {}
        is_answered(&mut server, name);
    }
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.log());
}

/// With `--adopt off` the program must fail to start, since the pool already has its address.
fn cannot_start_without(name: &str) {
    let Some(script) = script(name) else { return };
    let options = ["--adopt", "off", "--give-up", "2", "--boot-timeout", "30s"];
    let mut server = Server::spawn(exec(&options, &script));
    assert_ne!(server.wait().code(), Some(0), "{:?}", server.log());
}

#[test]
fn restarts_lose_nothing_of_an_unmodified_program() {
    let Some(script) = script("node") else { return };
    let mut server = Server::start(exec(&["--adopt", "require"], &script));
    let load = Load::begin(server.port(), BOTH_MODES[0]);
    for _ in 0..5 {
        let before = programs(&server);
        server.signal(Signal::SIGHUP);
        server.wait_for("rolling restart done");
        until("the programs from before are gone", || before.iter().all(|it| is_gone(*it)).then_some(()));
    }
    load.finish().nothing_lost();
}

/// The program's own listen(2) with a backlog of 4 would shorten the queue for good, and connections would be lost.
#[test]
fn what_waits_while_a_program_is_replaced_is_served() {
    let Some(path) = server() else { return };
    let script = format!("exec {path} $PORT");
    let mut server = Server::start(exec_with("1", &["--adopt", "require"], &script));
    let before = server.get("/").worker();
    kill(before, Signal::SIGSTOP).expect("it runs");
    let is_stopped = || fs::read_to_string(format!("/proc/{before}/stat")).is_ok_and(|stat| stat.contains(") T "));
    until("it accepts no more", || is_stopped().then_some(()));
    let mut waiting: Vec<_> = (0..60).map(|_| server.connect()).collect();
    waiting.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    kill(before, Signal::SIGKILL).expect("it is there");
    for client in &mut waiting {
        assert_ne!(client.answer().worker(), before);
    }
}

/// It still has the descriptor that it has inherited, and so does the shell that has started it.
#[test]
fn a_program_that_closes_the_socket_it_was_given_is_replaced() {
    let Some(path) = server() else { return };
    let script = format!("{path} closes ${{LISTEN_FDNAMES%%:*}}; :");
    let mut command = binary();
    command.args(["exec", "--adopt", "require", "--workers", "1", "--", "sh", "-c", &script]);
    let mut server = Server::start(command);
    // The second waits for the replacement.
    for _ in 0..2 {
        is_answered(&mut server, "c");
    }
    server.wait_for("it had closed the pool's socket, and nobody took its connections");
}

/// It is busy for longer than the keeper waits before it checks.
#[test]
fn a_program_that_lets_connections_wait_is_not_replaced() {
    let Some(path) = server() else { return };
    let script = format!("{path} ${{LISTEN_FDNAMES%%:*}}; :");
    let mut command = binary();
    command.args(["exec", "--adopt", "require", "--workers", "1", "--", "sh", "-c", &script]);
    let mut server = Server::start(command);
    let before = server.get("/").worker();
    let mut waiting: Vec<_> = (0..6).map(|_| server.connect()).collect();
    waiting.iter_mut().for_each(|client| client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"));
    for client in &mut waiting {
        assert_eq!(client.answer().worker(), before);
    }
}

#[test]
fn programs_of_another_user_are_served() {
    if !Uid::effective().is_root() {
        return skip("only root can be another user");
    }
    let Some(path) = server() else { return };
    let options = ["--adopt", "require", "--user", "65534", "--sandbox", "strict"];
    for what in ["", "old", "older"] {
        let mut server = Server::start(exec(&options, &format!("exec {path} {what} $PORT")));
        is_answered(&mut server, "c");
        let program = programs(&server)[0];
        let status = fs::read_to_string(format!("/proc/{program}/status")).expect("it runs");
        assert!(status.contains("Uid:\t65534\t65534") && status.contains("NoNewPrivs:\t1"), "{status}");
    }
}

#[test]
fn root_s_programs_keep_their_privileges() {
    if !Uid::effective().is_root() {
        return skip("only root has privileges");
    }
    let Some(path) = server() else { return };
    let server = Server::start(exec(&["--adopt", "require"], &format!("exec {path} $PORT")));
    let status = fs::read_to_string(format!("/proc/{}/status", programs(&server)[0])).expect("it runs");
    assert!(status.contains("NoNewPrivs:\t0"), "{status}");
}

/// `--adopt` changes nothing for programs that find the pool's sockets by themselves.
#[test]
fn programs_that_take_their_sockets_by_number_go_on() {
    let directory = directory("numbers");
    let (place, write) = (directory.display(), |name: &str, text: &str| fs::write(directory.join(name), text));
    write("app.py", APPLICATIONS).and_then(|()| write("nginx.conf", NGINX)).expect("it is writable");
    let own = format!("{place}/$FORKPOOL_UNIQUE_ID");
    for (program, flag, script) in [
        // The variable of each: nginx's upgrades, gunicorn's, systemd's, Circus' and Einhorn's.
        (
            "nginx",
            "-v",
            format!(
                "mkdir -p {own}; sed s/PORT/127.0.0.1:${{LISTEN_FDNAMES}}/ {place}/nginx.conf > {own}/nginx.conf; \
                 NGINX='3;' exec nginx -p {own} -c {own}/nginx.conf"
            ),
        ),
        ("gunicorn", "--version", format!("cd {place}; exec gunicorn --workers 1 app:wsgi")),
        (
            "gunicorn",
            "--version",
            format!("cd {place}; unset LISTEN_FDS LISTEN_PID; GUNICORN_PID=1 GUNICORN_FD=3 exec gunicorn app:wsgi"),
        ),
        ("gunicorn", "--version", format!("cd {place}; unset LISTEN_FDS; exec gunicorn --bind fd://3 app:wsgi")),
        ("uvicorn", "--version", format!("cd {place}; exec uvicorn --fd 3 app:asgi")),
        (
            "python3",
            "--version",
            format!(
                "EINHORN_FD_0=3 EINHORN_FD_COUNT=1 SERVER_STARTER_PORT=$LISTEN_FDNAMES=3; export EINHORN_FD_0 \
                 EINHORN_FD_COUNT SERVER_STARTER_PORT; exec python3 {place}/numbered.py"
            ),
        ),
    ] {
        if !is_there(program, &[flag]) {
            continue;
        }
        let by_number = ASYNCIO.replace("port=int(sys.argv[1])", "sock=taken()").replace(
            "async def main",
            "def taken():\n    import os, socket\n    fd = int(os.environ['EINHORN_FD_0'])\n    port, other = \
             os.environ['SERVER_STARTER_PORT'].split('=')\n    assert fd == int(other)\n    sock = \
             socket.socket(fileno=fd)\n    assert sock.getsockname()[1] == int(port)\n    sock.listen(2)\n    \
             return sock\nasync def main",
        );
        write("numbered.py", &by_number).expect("it is writable");
        let mut command = binary();
        command.args(["exec", "--adopt", "require", "--workers", "1", "--", "sh", "-c", &script]);
        let mut server = Server::start(command);
        is_answered(&mut server, program);
        restart(&mut server, 1);
        is_answered(&mut server, program);
        assert_eq!(server.count("takes the pool's sockets by their numbers"), 1, "{script}: {:?}", server.log());
        assert_eq!(server.count("gets the pool's socket, "), 0, "{script}: {:?}", server.log());
    }
}

#[test]
fn a_program_that_listens_elsewhere_is_told_of() {
    let Some(path) = server() else { return };
    let mut server = Server::start(exec(&[], &format!("exec {path} elsewhere $PORT")));
    is_answered(&mut server, "c");
    restart(&mut server, 2);
    let told: Vec<_> = server.log().iter().filter(|line| line.contains("which is not the pool's")).cloned().collect();
    assert!(told.len() == 1 && told[0].contains("listens on 0.0.0.0:"), "{told:?}");
    assert!(told[0].contains(&format!("make the program listen on 127.0.0.1:{}, or add --listen ", server.port())));
}

/// Whichever worker comes second has no reason of its own to know.
#[test]
fn who_fails_since_another_worker_has_its_own_port_is_told_what_to_do() {
    let Some(path) = server() else { return };
    let port = support::sockets::unused_port();
    let script = format!("OTHER={port} exec {path} both $PORT");
    let mut server = Server::spawn(exec(&[], &script));
    let hint =
        format!("it wanted 0.0.0.0:{port}, which is not the pool's, so only one worker can have it; add --listen");
    server.wait_for(&hint);
    until("the other one is told of", || {
        (server.count(&format!("listens on 0.0.0.0:{port}, which")) == 1).then_some(())
    });
}

/// The only worker can listen there, but serves nobody of the pool's clients.
#[test]
fn where_a_program_listens_that_is_never_ready_is_in_the_last_line() {
    let Some(path) = server() else { return };
    let port = support::sockets::unused_port();
    let options = ["--boot-timeout", "8s"];
    let mut server = Server::spawn(exec_with("1", &options, &format!("exec {path} plain {port}")));
    let (status, log) = server.finish();
    let last = log.last().expect("a line");
    assert_eq!(status.code(), Some(1), "{log:?}");
    let part =
        format!("not ready 8s after its start; it listens on 0.0.0.0:{port}, which is not the pool's (127.0.0.1:");
    assert!(last.contains("no worker could start: ") && last.contains(&part), "{log:?}");
}

#[test]
fn what_a_program_answers_that_is_never_ready_is_told() {
    let Some(path) = server() else { return };
    let options = ["--ready", "http:/health", "--boot-timeout", "8s"];
    let mut server = Server::spawn(exec(&options, &format!("exec {path} sick $PORT")));
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(1), "{log:?}");
    assert!(log.last().is_some_and(|last| last.contains("no worker could start: ")), "{log:?}");
    // The last line is about the one that was killed last, and on a slow machine that one may not have answered.
    let answer = "killed: not ready 8s after its start; GET /health was answered with 503 (boot-timeout)";
    assert!(log.iter().any(|line| line.ends_with(answer)), "{log:?}");
}

#[test]
fn a_pool_within_a_pool_goes_without_and_says_so() {
    let within = |adopt: &str| {
        let inner = binary().get_program().to_str().expect("text").to_owned();
        let words =
            ["--listen", "127.0.0.1:0", "--workers", "1", "--adopt", adopt, "--ready", "listen", "--", "sleep", "600"];
        let mut command = binary();
        command.args(["exec", "--workers", "1", "--ready", "listen", "--", &inner, "exec"]).args(words);
        Server::spawn(command)
    };
    let why = "seccomp(2) gives no notification: Device or resource busy";
    within("auto").wait_for(&format!("programs must take their sockets from descriptor 3 on: {why}"));
    // Before the first worker, whose error would be about worker=0.
    within("require").wait_for(&format!(
        "forkpool: cannot give programs that bind an address the pool's socket (--adopt require): {why}"
    ));
}
