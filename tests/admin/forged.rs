//! An admin process that was replaced by something hostile.

use std::process::Command;
use std::time::Instant;

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::Watched;
use crate::support::{self, until};

/// Has somebody else send bytes as the admin process, over its link to the parent, so often.
#[track_caller]
fn forge(admin: Pid, message: &str, times: u32) -> bool {
    const FORGE: &str = "
import ctypes, errno, os, socket, sys
libc, pid = ctypes.CDLL(None, use_errno=True), int(sys.argv[1])
pidfd = os.pidfd_open(pid)
for number in map(int, os.listdir(f'/proc/{pid}/fd')):
    try:
        kind = os.readlink(f'/proc/{pid}/fd/{number}')
    except FileNotFoundError:
        # It has closed the connection of who has just asked.
        continue
    if not kind.startswith('socket:'):
        continue
    copy = libc.syscall(438, pidfd, number, 0)
    if copy < 0 and ctypes.get_errno() == errno.EBADF:
        continue
    if copy < 0:
        sys.exit(3)
    link = socket.socket(fileno=copy)
    if link.type == socket.SOCK_SEQPACKET:
        link.setblocking(False)
        for _ in range(int(sys.argv[3])):
            try:
                link.send(b'm' + bytes.fromhex(sys.argv[2]))
            except BlockingIOError:
                pass
        sys.exit(0)
sys.exit(4)
";
    let mut python = Command::new("python3");
    python.args(["-c", FORGE, &admin.to_string(), message, &times.to_string()]);
    match python.status().ok().and_then(|status| status.code()) {
        Some(0) => true,
        // No pidfd_getfd(2), or no right to use it.
        None | Some(3) => {
            support::skip("nobody can reach into the admin process");
            false
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_admin_process_that_sends_an_invalid_command_is_replaced() {
    let mut watched = Watched::start(&[]);
    for message in ["", "00", "ff0000000000000000", "0001000000000000ff"] {
        let admin = watched.pid();
        if !forge(admin, message, 1) {
            return;
        }
        watched.server.wait_for(&format!("admin pid={admin} killed: it sent what is no command"));
        watched.server.wait_for(&format!("admin pid={admin} killed by SIGKILL"));
        assert_eq!(watched.ask("/healthz").status, 200);
    }
    assert_eq!(watched.server.get("/").status, 200);
    watched.server.signal(Signal::SIGTERM);
    assert_eq!(watched.server.wait().code(), Some(0));
}

#[test]
fn a_flood_of_commands_keeps_the_parent_from_nothing() {
    let mut watched = Watched::start(&[]);
    let admin = watched.pid();
    let began = Instant::now();
    // The level of the log, which is a line each time.
    if !forge(admin, "040300000000000000", 200_000) {
        return;
    }
    let worker = watched.server.get("/").worker();
    kill(worker, Signal::SIGKILL).expect("it runs");
    watched.server.wait_for(&format!("pid={worker} killed by SIGKILL"));
    watched.server.wait_for(" gen=2 ");
    until("the next second's have been obeyed", || (watched.server.count("log level: INFO") > 16).then_some(()));
    // All that are here by now were obeyed since then.
    let (lines, seconds) = (watched.server.count("log level: INFO"), began.elapsed().as_secs() as usize);
    assert!(lines <= 16 * (seconds + 2), "{lines} commands in {seconds} s");
    watched.server.signal(Signal::SIGTERM);
    assert_eq!(watched.server.wait().code(), Some(0));
}
