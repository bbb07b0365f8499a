//! Programs as the workers: `forkpool exec` runs them, whatever they are written in.

mod support;

#[path = "exec/leaving.rs"]
mod leaving;
#[path = "exec/readiness.rs"]
mod readiness;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{kill, Signal};
use nix::unistd::{pipe2, Pid};
use support::{binary, children, example, fresh_path, is_gone, skip, until, Load, Server, BOTH_MODES};

const NODE: &str = "
const server = require('http').createServer((request, response) => {
    response.setHeader('X-Pid', process.pid);
    response.end('hello world\\n');
});
process.on('SIGTERM', () => server.close());
server.listen({ fd: 3 });
";

const PYTHON: &str = "
import asyncio, os, signal, socket

HEAD = 'HTTP/1.1 200 OK\\r\\nContent-Length: 12\\r\\nX-Pid: %d\\r\\nConnection: close\\r\\n\\r\\n' % os.getpid()

async def answer(reader, writer):
    await reader.readuntil(b'\\r\\n\\r\\n')
    writer.write(HEAD.encode() + b'hello world\\n')
    await writer.drain()
    writer.close()

async def main():
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    listener = socket.socket(fileno=3)
    server = await asyncio.start_server(answer, sock=listener)
    await over.wait()
    # Not server.close(), which drops those that were accepted a moment ago.
    loop.remove_reader(listener)
    # Those that are answered still, and those that come of these.
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)

asyncio.run(main())
";

/// A program and its arguments; none if it is not on this machine.
fn program(name: &str) -> Option<Vec<String>> {
    let script = match name {
        "listen_fds" => return Some(vec![example(name).get_program().to_str().expect("text").to_owned()]),
        "node" => ["-e", NODE],
        _ => ["-c", PYTHON],
    };
    let is_there = Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there {
        skip(&format!("there is no {name}"));
        return None;
    }
    Some([name].iter().chain(&script).map(|word| (*word).to_owned()).collect())
}

fn exec(workers: &str, options: &[&str], program: &[impl AsRef<str>]) -> Command {
    let mut command = binary();
    command.args(["exec", "--workers", workers]).args(options).arg("--");
    command.args(program.iter().map(AsRef::as_ref));
    command
}

/// It is ready once it is executed.
fn shell(workers: &str, options: &[&str], script: &str) -> Command {
    exec(workers, &[&["--ready", "listen"], options].concat(), &["sh", "-c", script])
}

fn sleeping(workers: &str) -> Server {
    Server::start(exec(workers, &["--ready", "listen"], &["sleep", "600"]))
}

/// The programs of a pool without an admin process.
fn programs(server: &Server) -> Vec<Pid> {
    server.workers().into_iter().flat_map(children).collect()
}

/// The example, ready when it knows what SIGTERM asks.
fn start_listen_fds(workers: &str) -> Server {
    Server::start(exec(workers, &["--ready", "notify"], &program("listen_fds").expect("it is built")))
}

/// Each program is tested for the same.
macro_rules! programs {
    ($($name:ident)*) => {$(
        mod $name {
            #[test]
            fn serves_until_it_is_told_to_finish() {
                super::serves_until_it_is_told_to_finish(stringify!($name));
            }

            #[test]
            fn rolling_restarts_lose_nothing() {
                super::rolling_restarts_lose_nothing(stringify!($name));
            }

            #[test]
            fn a_crash_is_replaced() {
                super::a_crash_is_replaced(stringify!($name));
            }
        }
    )*};
}

programs! { listen_fds node python3 }

fn serves_until_it_is_told_to_finish(name: &str) {
    let Some(program) = program(name) else { return };
    let mut server = Server::start(exec("2", &[], &program));
    for _ in 0..4 {
        let answer = server.get("/");
        assert_eq!((answer.status, answer.text()), (200, "hello world\n"));
        assert!(programs(&server).contains(&answer.worker()));
    }
    server.signal(Signal::SIGTERM);
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(0));
    assert!(log.iter().any(|line| line.ends_with(" stopped")), "what it has served is not known: {log:?}");
    // A program that was still starting knows no SIGTERM yet, and dies of it.
    assert!(log.iter().any(|line| line.ends_with("exited with code 0")), "{log:?}");
}

fn rolling_restarts_lose_nothing(name: &str) {
    let Some(program) = program(name) else { return };
    let mut server = Server::start(exec("2", &[], &program));
    let load = Load::begin(server.port(), BOTH_MODES[0]);
    for _ in 0..4 {
        let before = programs(&server);
        server.signal(Signal::SIGHUP);
        server.wait_for("rolling restart done");
        until("the programs from before are gone", || before.iter().all(|worker| is_gone(*worker)).then_some(()));
        // Its successor has come up, and not only been started.
        assert_eq!(server.get("/").status, 200);
    }
    load.finish().nothing_lost();
}

fn a_crash_is_replaced(name: &str) {
    let Some(program) = program(name) else { return };
    let mut server = Server::start(exec("1", &[], &program));
    let before = server.get("/").worker();
    kill(before, Signal::SIGKILL).expect("it runs");
    // The new one's queue is the old one's: whoever connects in between waits.
    assert_ne!(server.get("/").worker(), before);
    server.wait_for("killed by SIGKILL");
    server.wait_for("gen=2");
}

#[test]
fn what_waits_behind_a_crash_is_served() {
    let mut server = start_listen_fds("1");
    // It takes one at a time, in their order.
    let (mut slow, mut crash) = (server.connect(), server.connect());
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    crash.send("GET /crash HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut waiting: Vec<_> = (0..50).map(|_| server.connect()).collect();
    waiting.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    let before = slow.answer().worker();
    for client in &mut waiting {
        assert_ne!(client.answer().worker(), before);
    }
    server.wait_for("killed by SIGABRT");
}

#[test]
fn a_program_finishes_what_it_has_begun() {
    let mut server = start_listen_fds("1");
    let (mut slow, mut next) = (server.connect(), server.connect());
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    next.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    server.signal(Signal::SIGTERM);
    assert_eq!(slow.answer().status, 200);
    assert_eq!(next.answer().status, 200);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn workers_come_and_go() {
    let mut server = start_listen_fds("2");
    server.signal(Signal::SIGTTIN);
    server.wait_for("worker=2 gen=1");
    assert_eq!(server.get("/").status, 200);
    server.signal(Signal::SIGTTOU);
    server.wait_for("worker=2 gen=1");
    until("it is gone", || (server.workers().len() == 2).then_some(()));
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_new_binary_takes_over() {
    let mut server = start_listen_fds("2");
    let load = Load::begin(server.port(), BOTH_MODES[0]);
    server.signal(Signal::SIGUSR2);
    server.wait_for("another pool has taken over");
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(server.get("/").status, 200);
    load.finish().nothing_lost();
}

#[test]
fn a_program_finds_what_the_manual_says() {
    let path = fresh_path("exec.sock");
    let script = "echo fds=$LISTEN_FDS fd=$FORKPOOL_FD id=$FORKPOOL_WORKER_ID notify=$NOTIFY_SOCKET.; \
                  echo own $((LISTEN_PID - $$)), named $LISTEN_FDNAMES.; grep Sig /proc/self/status; echo told; \
 exec sleep 600";
    let mut command = shell("1", &["--listen", &format!("127.0.0.1:0,unix:{}", path.display())], script);
    command.envs([("NOTIFY_SOCKET", "/nowhere"), ("LISTEN_FDS", "7")]);
    let mut server = Server::start(command);
    // Before or after the pool says that all are ready.
    until("all is told", || (server.count("told") > 0).then_some(()));
    let port = server.port();
    server.signal(Signal::SIGTERM);
    let (_, log) = server.finish();
    for line in ["fds=2 fd=3 id=0 notify=.", &format!("own 0, named {port}:unix."), "SigBlk:\t0000000000000000"] {
        assert!(log.iter().any(|it| it == line), "no {line:?} in {log:?}");
    }
    let ignored = log.iter().find_map(|line| line.strip_prefix("SigIgn:\t")).expect("grep has found it");
    let ignored = u64::from_str_radix(ignored, 16).expect("a set of signals");
    assert_eq!(ignored & 1 << (Signal::SIGPIPE as i32 - 1), 0, "{ignored:x}");
}

#[test]
fn a_program_that_cannot_be_executed_is_noticed_before_anything_starts() {
    let directory = fresh_path("no-program");
    fs::create_dir_all(directory.join("folder")).expect("a writable directory");
    fs::write(directory.join("plain"), "").expect("a writable directory");
    let path = directory.join("chdir.env");
    fs::write(&path, "PATH=/nowhere\n").expect("a writable directory");
    let (chdir, env_file) = (directory.to_str().expect("text"), path.to_str().expect("text"));
    for (options, program, problem) in [
        (&[][..], "no-such-program", "it is in no directory of PATH ("),
        (&["--env-file", env_file], "sh", "it is in no directory of PATH (/nowhere); install it, or give its path"),
        (&["--chdir", chdir], "./plain", "is not executable; run it by its interpreter, or allow it with chmod +x"),
        (&["--chdir", chdir], "./folder", "is a directory; give a program"),
        (&["--chdir", chdir], "./nothing", "does not exist"),
        (&[], "", "exec needs a program"),
    ] {
        for check in [&[][..], &["--check"]] {
            let said = support::run(&mut exec("2", &[options, check].concat(), &[program]));
            let code = if program.is_empty() { 2 } else { 1 };
            assert_eq!((said.code, said.out.as_str()), (code, ""), "{program}: {said:?}");
            let line = said.problem.strip_prefix("forkpool: ").expect("an error");
            assert!(line.lines().count() == 1 && line.contains(problem), "{program}: {line}");
        }
    }
    fs::remove_dir_all(&directory).expect("ours");
}

#[test]
fn a_program_that_is_gone_at_a_restart_aborts_it() {
    let directory = fresh_path("gone-program");
    fs::create_dir_all(&directory).expect("a writable directory");
    let (app, admin) = (directory.join("app"), directory.join("admin"));
    std::os::unix::fs::symlink(example("listen_fds").get_program(), &app).expect("a writable directory");
    let admin = format!("unix:{}", admin.display());
    let mut command = exec("2", &["--ready", "notify", "--admin", &admin], &["app"]);
    command.env("PATH", &directory);
    let mut server = Server::start(command);
    fs::remove_file(&app).expect("it is there");
    let said = support::run(binary().args(["restart", "--admin", &admin]));
    assert!(said.code == 4 && said.out.contains("cannot execute app: No such file"), "{said:?}");
    assert_eq!(server.get("/").status, 200);
    fs::remove_dir_all(&directory).expect("ours");
}

#[test]
fn a_program_that_exits_at_once_is_backed_off_from() {
    let mut server = Server::start(shell("1", &["--give-up", "4"], "exit 3"));
    server.wait_for("exited with code 3");
    server.wait_for("backing off for ");
    assert_eq!(server.wait().code(), Some(3));
}

#[test]
fn a_program_that_ignores_the_signal_is_killed() {
    let mut server =
        Server::spawn(shell("1", &["--drain-timeout", "200ms"], "trap '' TERM; echo deaf; exec sleep 600"));
    server.wait_for("deaf");
    server.signal(Signal::SIGTERM);
    server.wait_for("killed: still running 200ms after it was told to finish");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_quick_stop_is_an_interrupt() {
    // Once more where this machine has not let the programs end within the second that they have for it.
    until("they end in time", || {
        let mut server = sleeping("2");
        let begun = Instant::now();
        server.signal(Signal::SIGINT);
        let (status, log) = server.finish();
        assert_eq!(status.code(), Some(0));
        let interrupted = log.iter().filter(|line| line.contains("killed by SIGINT")).count();
        assert!(interrupted == 2 || begun.elapsed() >= Duration::from_secs(1), "{log:?}");
        (interrupted == 2).then_some(())
    });
}

#[test]
fn the_end_of_the_pool_is_the_end_of_the_program() {
    let server = sleeping("2");
    let mut workers = programs(&server);
    workers.extend(server.workers());
    server.signal(Signal::SIGKILL);
    until("they are gone", || workers.iter().all(|worker| is_gone(*worker)).then_some(()));
}

#[test]
fn output_is_prefixed_to_its_last_word() {
    let script = "trap 'printf bye; exit 0' TERM; echo one; printf three; echo two >&2; while :; do sleep 0.01; done";
    let mut server = Server::spawn(shell("2", &["--prefix", "yes"], script));
    server.wait_for("listening on ");
    let workers = programs(&server);
    // By then they know what SIGTERM asks, and the line that is not at its end is begun.
    until("both have written", || (server.count(" one") == 2 && server.count(" two") == 2).then_some(()));
    server.signal(Signal::SIGTERM);
    let (status, log) = server.finish();
    assert!(status.success(), "{log:?}");
    for (slot, pid) in workers.iter().enumerate() {
        for text in ["one", "two", "threebye"] {
            let line = format!("worker={slot} pid={pid} {text}");
            assert_eq!(log.iter().filter(|it| **it == line).count(), 1, "{line}: {log:?}");
        }
    }
}

#[test]
fn nothing_of_the_output_of_a_program_that_ends_is_lost() {
    const LINES: usize = 100_000;
    let script = format!("[ $FORKPOOL_UNIQUE_ID = 1 ] && {{ seq {LINES}; exit 3; }}; exec sleep 1000");
    let mut server = Server::spawn(shell("1", &["--prefix", "yes"], &script));
    let line = server.wait_for("exited with code 3");
    let pid = line.split(' ').find_map(|word| word.strip_prefix("pid=")).expect("it names the process");
    server.signal(Signal::SIGINT);
    let (_, log) = server.finish();
    let prefix = format!("worker=0 pid={pid} ");
    let numbers = log.iter().filter_map(|line| line.strip_prefix(&prefix)?.parse::<usize>().ok());
    assert!(numbers.eq(1..=LINES), "{} lines", log.len());
}

#[test]
fn a_program_finishes_by_the_signal_that_it_wants() {
    let script = "trap 'echo finished; exit 0' QUIT; trap 'echo cut; exit 1' TERM; while :; do sleep 0.01; done";
    let mut server = Server::start(shell("1", &["--stop-signal", "QUIT", "--drain-timeout", "40s"], script));
    // It leads a group of its own, whose other member QUIT ends as well: the shell may note that.
    until("it knows the signals", || {
        let caught = fs::read_to_string(format!("/proc/{}/status", programs(&server).first()?)).ok()?;
        let caught = caught.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).map(str::to_owned)?;
        (u64::from_str_radix(&caught, 16).ok()? & 1 << (Signal::SIGTERM as i32 - 1) != 0).then_some(())
    });
    server.signal(Signal::SIGTERM);
    let (status, log) = server.finish();
    assert!(status.success(), "{log:?}");
    assert!(log.iter().any(|line| line == "finished") && !log.iter().any(|line| line == "cut"), "{log:?}");
}

/// What a shell, npm and daemons leave behind: in the group, in a session of its own, and without its parent.
const FAMILY: &str = "sleep 601 & setsid sleep 602 & (sleep 603 &); (setsid sh -c 'trap \"\" TERM; sleep 604; :' &)";

/// All processes below one.
fn descendants(pid: Pid) -> Vec<Pid> {
    let children = children(pid);
    children.iter().flat_map(|child| descendants(*child)).chain(children.iter().copied()).collect()
}

fn family(server: &Server) -> Vec<Pid> {
    until("all have been started", || {
        let all = descendants(server.pid());
        // The keeper, its shell, and what that has started.
        (all.len() >= 7).then_some(all)
    })
}

#[test]
fn the_whole_tree_ends_with_the_program() {
    if Command::new("setsid").arg("--version").output().is_err() {
        return skip("no setsid(1)");
    }
    let script = format!("{FAMILY}; echo born; wait");
    for how in ["stop", "restart", "kill the parent", "kill the program", "kill the keeper", "kill it and stop"] {
        let options = ["--drain-timeout", "500ms"];
        let mut server = Server::start(shell("1", &options, &script));
        until("it has started all", || (server.count("born") > 0).then_some(()));
        let all = family(&server);
        match how {
            "stop" => server.signal(Signal::SIGTERM),
            "restart" => server.signal(Signal::SIGHUP),
            "kill the parent" => server.signal(Signal::SIGKILL),
            "kill the keeper" => kill(server.workers()[0], Signal::SIGKILL).expect("it runs"),
            "kill it and stop" => {
                let keeper = server.workers()[0];
                server.signal(Signal::SIGSTOP);
                kill(keeper, Signal::SIGKILL).expect("it runs");
                server.signal(Signal::SIGTERM);
                server.signal(Signal::SIGCONT);
                server.wait();
            }
            _ => kill(programs(&server)[0], Signal::SIGKILL).expect("it runs"),
        }
        until(how, || all.iter().all(|pid| is_gone(*pid)).then_some(()));
        if how == "restart" {
            server.wait_for("rolling restart done");
        }
    }
}

#[test]
fn a_shell_s_server_frees_the_port_when_the_pool_stops() {
    let Some(python) = program("python3") else { return };
    // The shell waits for it, and passes nothing on.
    let mut words: Vec<&str> = vec!["sh", "-c", "\"$@\"; :", "sh"];
    words.extend(python.iter().map(String::as_str));
    let mut server = Server::start(exec("2", &[], &words));
    assert_eq!(server.get("/").status, 200);
    let load = Load::begin(server.port(), BOTH_MODES[0]);
    for _ in 0..2 {
        let before: Vec<Pid> = server.workers().into_iter().flat_map(descendants).collect();
        server.signal(Signal::SIGHUP);
        server.wait_for("rolling restart done");
        until("those from before are gone", || before.iter().all(|pid| is_gone(*pid)).then_some(()));
    }
    load.finish().nothing_lost();
    let port = server.port();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
}

#[test]
fn nobody_who_reads_the_output_does_not_stop_the_parent() {
    let mut command = shell("1", &["--prefix", "yes", "--drain-timeout", "1s"], "exec yes");
    let (_nobody_reads, stdout) = pipe2(OFlag::O_CLOEXEC).expect("descriptors are free");
    let stdout_too = stdout.try_clone().expect("descriptors are free");
    let mut child = command.stdout(stdout_too).stderr(Stdio::piped()).spawn().expect("it is built");
    let mut log = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
    assert!(log.any(|line| line.contains("listening on ")));
    let parent = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let is_full = || {
        let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
        (poll(&mut fds, PollTimeout::ZERO) == Ok(0)).then_some(())
    };
    until("there is no room for more", is_full);
    kill(parent, Signal::SIGTERM).expect("it runs");
    let end: Vec<String> = log.collect();
    assert!(child.wait().expect("a child").success(), "{end:?}");
    assert!(end.iter().any(|line| line.contains("of program output: its reader is too slow")), "{end:?}");
}

#[test]
fn of_a_program_nothing_is_shown_that_nobody_knows() {
    let admin = fresh_path("exec.admin");
    let mut command = exec("1", &["--ready", "notify"], &program("listen_fds").expect("it is built"));
    command.env("FORKPOOL_ADMIN", format!("unix:{}", admin.display()));
    let mut server = Server::start(command);
    let get = |target: &str| support::connect_unix(&admin).get(target).text().to_owned();
    // The example takes one connection at a time, so the others wait, which the kernel counts as well.
    let held: Vec<_> = (0..3).map(|_| server.connect()).collect();
    let json =
        until("it is known to be a program", || Some(get("/status.json")).filter(|it| it.contains("\"open\":3")));
    for part in
        ["\"totals\":{\"requests\":null,\"connections\":null,\"open\":3,", "\"last_exit\":null,\"requests\":null"]
    {
        assert!(json.contains(part), "{part}: {json}");
    }
    let metrics = get("/metrics");
    assert!(metrics.contains("\nforkpool_connections_established 3\n"), "{metrics}");
    assert!(
        !metrics.contains("\nforkpool_requests_total{") && !metrics.contains("\nforkpool_connections_open{"),
        "{metrics}"
    );
    assert!(get("/status.txt").contains("\n3 connections open; requests to programs are not counted\n"));
    drop(held);
    until("they are gone", || get("/status.json").contains("\"connections\":null,\"open\":0,").then_some(()));
}
