//! A new binary takes over, or does not: the old pool is not touched before the new one serves.
//!
//! Tried without the word that the new one serves, and without the timeout: both make a test fail.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{self, children, connect_unix, copy_program, example, fresh_path, is_gone, until, Client, Server};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

/// A program that can be exchanged while it runs, with its pid file.
struct Program {
    path: PathBuf,
    pid_file: PathBuf,
}

impl Program {
    fn new(name: &str) -> Program {
        let program =
            Program { path: fresh_path(&format!("{name}.program")), pid_file: fresh_path(&format!("{name}.pid")) };
        program.install(Path::new(example("testbed").get_program()));
        program
    }

    /// As a package manager does: beside the old one, then in its place.
    fn install(&self, program: &Path) {
        let draft = self.path.with_extension("new");
        copy_program(program, &draft);
        fs::rename(&draft, &self.path).expect("the same directory");
    }

    fn install_script(&self, script: &str) {
        let source = self.path.with_extension("script");
        fs::write(&source, format!("#!/bin/sh\n{script}\n")).expect("a writable directory");
        fs::set_permissions(&source, fs::Permissions::from_mode(0o755)).expect("it is ours");
        self.install(&source);
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        // As `example`, which is not this one's path.
        command.envs(example("testbed").get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("FORKPOOL_PID_FILE", &self.pid_file).env("FORKPOOL_WORKERS", "2");
        command
    }

    fn parent(&self) -> Pid {
        let text = fs::read_to_string(&self.pid_file).expect("a pid file");
        Pid::from_raw(text.trim().parse().expect("a number"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        for path in [&self.path, &self.path.with_extension("script"), &self.pid_file] {
            let _ = fs::remove_file(path);
        }
    }
}

#[test]
fn the_new_binary_serves_and_the_old_one_ends() {
    let program = Program::new("upgrade");
    let socket = fresh_path("upgrade.socket");
    let mut command = program.command();
    command.env("FORKPOOL_LISTEN", format!("127.0.0.1:0,unix:{}", socket.display()));
    let mut server = Server::start(command);
    let (old, mut kept) = (server.pid(), server.connect());
    let old_workers = server.workers();
    assert!(old_workers.contains(&kept.get("/").worker()));
    server.signal(Signal::SIGUSR2);
    let line = server.wait_for("upgrade done: pid=");
    // What was open stays open, while it is passed on.
    for _ in 0..20 {
        assert!(!kept.get("/").closes());
    }
    assert_eq!(server.wait().code(), Some(0));
    server.wait_for("another pool has taken over");
    let new = program.parent();
    assert!(new != old && line.contains(&format!("pid={new} ")), "{line}");
    let new_workers = children(new);
    assert_eq!(new_workers.len(), 2);
    assert!(new_workers.contains(&kept.get("/").worker()));
    for _ in 0..20 {
        assert!(new_workers.contains(&server.get("/").worker()));
        assert!(new_workers.contains(&connect_unix(&socket).get("/").worker()));
    }
    // It is a pool like any other: its workers are replaced, and it can be stopped.
    kill(new_workers[0], Signal::SIGKILL).expect("it runs");
    server.wait_for(" gen=2 ");
    kill(new, Signal::SIGTERM).expect("it runs");
    until("it is gone", || is_gone(new).then_some(()));
    assert!(!socket.exists() && !program.pid_file.exists(), "nothing is left behind");
    support::until_closed(server.port());
}

/// A pool that tries new binaries, each of which fails; it has them wait for so long, for one that is not ready.
#[track_caller]
fn fails(program: &Program, boot_timeout: &str, tries: &[(&str, &str)]) -> Server {
    // Its own workers have no longer. Once more where this machine has not let them become ready.
    let mut server = until("the first pool is ready in time", || {
        let mut command = program.command();
        command.env("FORKPOOL_BOOT_TIMEOUT", boot_timeout).env("FORKPOOL_DRAIN_TIMEOUT", "500ms");
        let mut server = Server::spawn(command);
        server.wait_for_any(&["listening on ", "no worker could start"]).contains("listening on ").then_some(server)
    });
    let (old, workers) = (server.pid(), server.workers());
    for (script, reason) in tries {
        program.install_script(script);
        server.signal(Signal::SIGUSR2);
        server.wait_for("upgrade begun");
        server.wait_for(&format!("upgrade failed, this pool stays: the new binary: {reason}"));
        until("it is gone", || (children(old) == workers).then_some(()));
        assert!(workers.contains(&server.get("/").worker()));
        assert_eq!(program.parent(), old);
    }
    server
}

#[test]
fn a_new_binary_that_fails_changes_nothing() {
    let program = Program::new("broken");
    let mut server = fails(&program, "1h", &[("exit 7", "exited with code 7"), ("kill -SEGV $$", "killed by SIGSEGV")]);
    fs::remove_file(&program.path).expect("it is there");
    server.signal(Signal::SIGUSR2);
    server.wait_for(
        "upgrade failed, this pool stays: the new binary: it could not be started: No such file or directory",
    );
    // Once it is right, it works.
    program.install(Path::new(example("testbed").get_program()));
    server.signal(Signal::SIGUSR2);
    server.wait_for("upgrade done");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_new_binary_that_does_not_become_ready_changes_nothing() {
    let program = Program::new("unready");
    let late = "it was not ready in time (boot-timeout)";
    // Deaf to TERM, the second is killed when it does not leave.
    fails(&program, "2s", &[("exec sleep 600", late), ("trap '' TERM; while :; do sleep 0.1; done", late)]);
}

#[test]
fn other_commands_wait_for_the_end_of_an_upgrade() {
    let program = Program::new("meanwhile");
    let mut command = program.command();
    command.env("FORKPOOL_BOOT_TIMEOUT", "1h");
    let mut server = Server::start(command);
    program.install_script("exec sleep 600");
    server.signal(Signal::SIGUSR2);
    server.wait_for("upgrade begun");
    for signal in [Signal::SIGUSR2, Signal::SIGHUP, Signal::SIGTTIN] {
        server.signal(signal);
        server.wait_for("refused: an upgrade is under way");
    }
    assert_eq!(server.count("rolling restart begun") + server.count("scaled"), 0);
    // But a worker that dies is replaced.
    kill(server.workers()[0], Signal::SIGKILL).expect("it runs");
    server.wait_for(" gen=2 ");
    // And a stop ends the one that is on its way.
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_new_binary_may_have_other_addresses_and_fewer_workers() {
    let program = Program::new("different");
    let mut command = program.command();
    command.env("FORKPOOL_WORKERS", "4").env("FORKPOOL_LISTEN", "127.0.0.1:0").env("RUST_LOG", "debug");
    let mut server = Server::start(command);
    let port = server.port();
    // A wrapper is exchanged as a binary is, and may set what it likes.
    let testbed = example("testbed");
    program.install_script(&format!(
        "FORKPOOL_WORKERS=2 FORKPOOL_LISTEN=127.0.0.1:0,127.0.0.2:0 exec {}",
        testbed.get_program().to_string_lossy()
    ));
    server.signal(Signal::SIGUSR2);
    server.wait_for("upgrade done");
    assert_eq!(server.wait().code(), Some(0));
    let added = server.log().iter().find_map(|line| {
        let (_, rest) = line.split_once("listening on http://127.0.0.2:")?;
        rest.split(' ').next()?.parse::<u16>().ok()
    });
    let added = added.expect("it says where it listens");
    let workers: BTreeSet<Pid> = children(program.parent()).into_iter().collect();
    assert_eq!(workers.len(), 2);
    // The sockets of the two slots that are no more are closed at last.
    for _ in 0..2 {
        server.wait_for("removed, its sockets closed");
    }
    for address in [("127.0.0.1", port), ("127.0.0.2", added)] {
        let (mut seen, mut kept) = (BTreeSet::new(), Vec::new());
        // Where one of them is late, the other one looks after its queue.
        until(&format!("both workers answer at {address:?}"), || {
            let mut client = Client::new(TcpStream::connect(address).expect("it listens"));
            seen.insert(client.get("/").worker());
            kept.push(client);
            assert!(seen.is_subset(&workers), "{address:?}: {seen:?}, and {workers:?} are the workers");
            (kept.len() >= 60 && seen == workers).then_some(())
        });
    }
    kill(program.parent(), Signal::SIGINT).expect("it runs");
}

#[test]
fn a_new_binary_that_was_stopped_may_still_report_that_it_serves() {
    if Command::new("bash").arg("--version").output().is_err() {
        return support::skip("no bash(1), whose redirections know every descriptor");
    }
    let program = Program::new("late-word");
    let mut server = Server::start(program.command());
    // It says so when it is told to leave, as one does that has just become ready.
    program.install_script(
        "exec bash -c 'read -r talk <<< \"$FORKPOOL_UPGRADE\"; sleep 60 & \
         trap \"printf S >&$talk; kill $!; exit\" TERM; echo it waits >&2; wait'",
    );
    server.signal(Signal::SIGUSR2);
    server.wait_for("it waits");
    server.signal(Signal::SIGTERM);
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(0));
    assert!(!log.iter().any(|line| line.contains("another pool has taken over")), "{log:?}");
}

#[test]
fn a_stop_during_an_upgrade_ends_both_pools() {
    let program = Program::new("both");
    let marker = fresh_path("both.marker");
    let mut command = program.command();
    // Time enough for the new one to become ready meanwhile, which it does not before the marker is gone.
    command.env("FORKPOOL_LAME_DUCK", "3s").env("TESTBED", format!("start-after:{}", marker.display()));
    let mut server = Server::start(command);
    fs::write(&marker, "").expect("a writable directory");
    server.signal(Signal::SIGUSR2);
    server.wait_for("upgrade begun");
    server.signal(Signal::SIGTERM);
    server.wait_for("lame duck");
    fs::remove_file(&marker).expect("it is there");
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(0));
    assert!(!log.iter().any(|line| line.contains("upgrade done")), "{log:?}");
    assert!(!program.pid_file.exists(), "nobody is left");
}
