//! Signals that whoever started the pool has blocked or ignored, that are sent too early, or to the process group.

use std::fs::{self, File};
use std::process::Command;
use std::time::Instant;

use crate::support::{self, after, binary, children, fresh_path, is_gone, skip, until, with_a_short_drain};
use crate::support::{Server, DEADLINE};
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{kill, killpg, SigSet, SigmaskHow, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::{getpgid, Pid, Uid};

/// Starts a program with all signals blocked, as a starter with threads of its own often does.
fn start_blocked(command: Command) -> Server {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).expect("a mask");
    let server = Server::spawn(command);
    before.thread_set_mask().expect("a mask");
    server
}

const IGNORE: &str = "trap '' CHLD TERM HUP ALRM XFSZ USR1 USR2 QUIT INT PIPE TTIN TTOU ABRT TSTP WINCH";

/// The binary, started by somebody who blocks all signals and by somebody who ignores them.
fn started_oddly(arguments: &[&str]) -> [Server; 2] {
    let mut command = binary();
    command.args(arguments);
    let mut servers = [start_blocked(after("true", &command)), Server::spawn(after(IGNORE, &command))];
    servers.iter_mut().for_each(|server| drop(server.wait_for("listening on ")));
    servers
}

/// The signals of a process that are blocked and those that are handled, at one moment.
fn blocked_and_caught(pid: Pid) -> [u64; 2] {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    ["SigBlk:\t", "SigCgt:\t"].map(|set| {
        let line = status.lines().find_map(|line| line.strip_prefix(set));
        line.map_or(0, |line| u64::from_str_radix(line, 16).expect("a set of signals"))
    })
}

fn has(set: u64, signal: Signal) -> bool {
    set & 1 << (signal as i32 - 1) != 0
}

#[test]
fn a_pool_handles_signals_that_were_blocked_or_ignored() {
    for mut server in started_oddly(&["--workers", "2"]) {
        let worker = server.workers()[0];
        kill(worker, Signal::SIGKILL).expect("it runs");
        server.wait_for(" gen=2 ");
        server.signal(Signal::SIGUSR1);
        server.wait_for("SIGUSR1 ignored");
        server.signal(Signal::SIGTTIN);
        server.wait_for("scaled from 2 to 3 workers");
        server.signal(Signal::SIGTTOU);
        server.wait_for("scaled from 3 to 2 workers");
        server.signal(Signal::SIGHUP);
        server.wait_for("rolling restart done");
        server.signal(Signal::SIGTERM);
        server.wait_for("draining: SIGTERM");
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn a_worker_handles_signals_that_were_blocked_or_ignored() {
    for mut server in started_oddly(&["--workers", "1"]) {
        for signal in [Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGINT] {
            let worker = until("it has a worker that serves", || {
                let worker = server.workers().first().copied()?;
                let [blocked, caught] = blocked_and_caught(worker);
                (has(caught, signal) && !has(blocked, signal)).then_some(worker)
            });
            kill(worker, signal).expect("it runs");
            server.wait_for(&format!("pid={worker} exited with code 0"));
        }
    }
}

#[test]
fn a_worker_without_a_parent_ends_in_time_whatever_was_ignored() {
    let mut command = with_a_short_drain();
    command.env_remove("RUST_LOG");
    for server in [start_blocked(after("true", &command)), Server::spawn(after(IGNORE, &command))] {
        support::ends_with_its_parent_in_time(server);
    }
}

#[test]
fn a_new_binary_handles_signals_that_were_blocked_or_ignored() {
    for mut server in started_oddly(&["--workers", "1"]) {
        server.signal(Signal::SIGUSR2);
        let line = server.wait_for("upgrade done: pid=");
        let pid = line.split("pid=").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("a pid");
        let successor = Pid::from_raw(pid);
        server.wait();
        kill(successor, Signal::SIGHUP).expect("it runs");
        server.wait_for("rolling restart done");
        kill(successor, Signal::SIGTERM).expect("it runs");
        server.wait_for("draining: SIGTERM");
        until("it is gone", || is_gone(successor).then_some(()));
    }
}

/// The signals that would end or stop a pool which does not hear them yet.
const EARLY: [Signal; 5] = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGTTIN, Signal::SIGTTOU];

#[test]
fn signals_before_the_pool_handles_them_are_not_lost() {
    // From its first instruction on they are blocked: nothing is left to chance.
    let mut command = binary();
    command.args(["--workers", "1"]);
    let mut server = start_blocked(command);
    server.signal(Signal::SIGUSR1);
    server.signal(Signal::SIGHUP);
    server.wait_for("SIGUSR1 ignored");
    server.wait_for("rolling restart done");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn signals_in_its_first_moments_do_not_end_a_pool() {
    let (begun, mut rounds, mut in_time) = (Instant::now(), 0, 0);
    // The moment in which they are blocked is short: this test may miss it again and again, on one processor most of
    // all.
    while rounds < 20 || in_time == 0 && begun.elapsed() < DEADLINE / 4 {
        let mut command = binary();
        command.args(["--workers", "1"]);
        let mut server = Server::spawn(command);
        let pid = server.pid();
        let is_blocked = loop {
            match blocked_and_caught(pid).map(|signals| has(signals, Signal::SIGHUP)) {
                [true, false] => break true,
                [_, true] => break false,
                [false, false] => assert!(!is_gone(pid), "it has ended: {:?}", server.log()),
            }
        };
        in_time += usize::from(is_blocked);
        EARLY.iter().for_each(|signal| server.signal(*signal));
        server.wait_for("listening on ");
        // Its successor, if the upgrade was asked for in time.
        if let Ok(WaitStatus::Exited(..)) = waitpid(pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT)) {
            panic!("it has ended: {:?}", server.log());
        }
        rounds += 1;
    }
    eprintln!("they were blocked and not heard yet in {in_time} of {rounds} rounds");
}

#[test]
fn a_log_at_its_size_limit_does_not_end_the_pool() {
    let (log, pid_file) = (fresh_path("limited.log"), fresh_path("limited.pid"));
    let mut command = binary();
    command.args(["--workers", "2", "--pid-file"]).arg(&pid_file);
    // A shell's unit is 512 or 1024 bytes. What does not fit goes nowhere, so it is known by the pid file.
    let mut command = after("ulimit -f 1", &command);
    let mut child = command.stderr(File::create(&log).expect("a file")).spawn().expect("there is a shell");
    until("it runs", || fs::read_to_string(&pid_file).ok().filter(|text| text.ends_with('\n')));
    let parent = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let size = || fs::metadata(&log).map_or(0, |found| found.len());
    until("the log is full", || {
        kill(parent, Signal::SIGUSR1).expect("it runs");
        (size() >= 512).then_some(())
    });
    let worker = until("there is a worker", || children(parent).first().copied());
    kill(worker, Signal::SIGKILL).expect("it runs");
    let is_replaced = || children(parent).len() == 2 && !children(parent).contains(&worker);
    until("it is replaced", || is_replaced().then_some(()));
    kill(parent, Signal::SIGINT).expect("it runs");
    assert_eq!(child.wait().expect("a child").code(), Some(0));
}

#[test]
fn an_access_log_at_its_size_limit_costs_no_worker() {
    let path = fresh_path("limited-access.log");
    let mut command = binary();
    // The limit holds for shared memory as well, which lies elsewhere where the kernel counts connections.
    command.args(["--workers", "1", "--balance", "random", "--admin", "127.0.0.1:0", "--access-log"]).arg(&path);
    let mut server = Server::start(after("ulimit -S -f 1", &command));
    let processes = server.workers();
    let mut client = server.connect();
    for _ in 0..1000 {
        assert_eq!(client.get("/").status, 200);
    }
    server.wait_for("lines of the access log: File too large");
    assert_eq!(server.workers(), processes);
}

fn exec(options: &[&str], program: &[&str]) -> Command {
    let mut command = binary();
    command.args(["exec", "--ready", "listen", "--workers", "2"]).args(options).arg("--").args(program);
    command
}

#[test]
fn what_is_sent_to_the_group_reaches_the_parent_and_not_its_programs() {
    let mut server = Server::start(exec(&[], &["sleep", "600"]));
    // And their keepers.
    let mut programs = server.workers();
    programs.extend(server.workers().into_iter().flat_map(children));
    assert_eq!(programs.len(), 4);
    programs.iter().for_each(|program| assert_eq!(getpgid(Some(*program)), Ok(*program)));
    killpg(server.pid(), Signal::SIGUSR1).expect("the parent leads it");
    server.wait_for("SIGUSR1 ignored");
    killpg(server.pid(), Signal::SIGHUP).expect("the parent leads it");
    server.wait_for("rolling restart done");
    // The old ones have died of what the parent has sent them, and not of what comes now.
    until("they are gone", || programs.iter().all(|program| is_gone(*program)).then_some(()));
    killpg(server.pid(), Signal::SIGINT).expect("the parent leads it");
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(0));
    let dead = log.iter().filter(|line| line.contains("killed by SIGHUP") || line.contains("killed by SIGUSR1"));
    assert_eq!(dead.count(), 0, "{log:?}");
    let drained = log.iter().filter(|line| line.contains("gen=1") && line.contains("killed by SIGTERM"));
    assert_eq!(drained.count(), 2, "one after the other, by the parent: {log:?}");
}

#[test]
fn programs_outlive_the_terminal() {
    if Command::new("setsid").arg("--version").output().is_err() {
        return skip("no setsid(1)");
    }
    let pid_file = fresh_path("terminal.pid");
    // Nobody else must hold it, so that it hangs up.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let terminal = posix_openpt(flags).expect("a pseudo-terminal");
    grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("it is ours");
    let name = ptsname_r(&terminal).expect("it has a name");
    // A shell whose controlling terminal it is, and the pool in the foreground there.
    let pool = exec(&["--pid-file", pid_file.to_str().expect("text")], &["sleep", "600"]);
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait", "sh", "-c", "\"$0\" \"$@\"; exit"]);
    command.arg(pool.get_program()).args(pool.get_args());
    command.envs(pool.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut server = Server::start(after(&format!("exec < {name}"), &command));
    let parent = fs::read_to_string(&pid_file).expect("the pool runs").trim().parse().expect("a pid");
    drop(terminal);
    server.wait_for("rolling restart done");
    kill(Pid::from_raw(parent), Signal::SIGINT).expect("it runs");
    let (_, log) = server.finish();
    assert!(!log.iter().any(|line| line.contains("killed by SIGHUP")), "{log:?}");
}

#[test]
fn a_program_has_the_actions_that_the_pool_was_started_with() {
    let script = "grep Sig /proc/self/status; echo told; exec sleep 600";
    for (first, is_ignored) in [(IGNORE, true), ("true", false)] {
        let mut server = Server::start(after(first, &exec(&[], &["sh", "-c", script])));
        until("all is told", || (server.count("told") > 1).then_some(()));
        let log = server.log();
        let ignored = log.iter().find_map(|line| line.strip_prefix("SigIgn:\t")).expect("grep has found it");
        let ignored = u64::from_str_radix(ignored, 16).expect("a set of signals");
        let all = [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGXFSZ, Signal::SIGALRM, Signal::SIGTSTP];
        all.iter().for_each(|signal| assert_eq!(has(ignored, *signal), is_ignored, "{signal} {ignored:x}"));
        assert!(!has(ignored, Signal::SIGPIPE), "{ignored:x}");
        assert!(log.iter().any(|line| line == "SigBlk:\t0000000000000000"), "{log:?}");
        // Those that ignore SIGTERM would outlive the pool.
        let programs: Vec<Pid> = server.workers().into_iter().flat_map(children).collect();
        server.signal(Signal::SIGKILL);
        // Those that do not have ended.
        programs.iter().for_each(|program| _ = kill(*program, Signal::SIGKILL));
    }
}

#[test]
fn a_user_s_programs_know_whose_they_are() {
    if !Uid::effective().is_root() {
        return skip("only root can run workers as somebody else");
    }
    let nobody = nix::unistd::User::from_name("nobody").ok().flatten().expect("everybody has nobody");
    let script = "echo home=$HOME user=$USER logname=$LOGNAME.; exec sleep 600";
    let mut command = exec(&["--user", "nobody"], &["sh", "-c", script]);
    command.envs([("HOME", "/root"), ("USER", "root"), ("LOGNAME", "root")]);
    let mut server = Server::spawn(command);
    server.wait_for(&format!("home={} user=nobody logname=nobody.", nobody.dir.display()));
}
