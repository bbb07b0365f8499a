//! Programs that drop what they have not read when they are told to finish, as uvicorn and PHP's server do.

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::exec;
use crate::support::{is_gone, is_there, until, Load, Server};

/// Reads a connection a while after it has accepted it, so that it has always some that it has not read. When it is
/// told to finish, it ends at once.
const LAZY: &str = "
import select, signal, socket, time
listener, told, fresh = socket.socket(fileno=3), [], []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
while not told:
    if select.select([listener], [], [], 0.002)[0]:
        try: fresh.append((time.monotonic(), listener.accept()[0]))
        except BlockingIOError: pass
    while fresh and time.monotonic() - fresh[0][0] > 0.02 and not told:
        client = fresh.pop(0)[1]
        client.setblocking(True)
        client.recv(65536)
        client.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 12\\r\\nConnection: close\\r\\n\\r\\nhello world\\n')
        client.close()
";

/// On a machine that is busy most of them may lose something.
const TRIES: usize = 30;

/// Replaces the programs of a pool under load until nothing is lost: a program that the machine does not let run for a
/// quarter of a second may lose something. `replace` does that once, given the parent, and returns the parent then.
fn nothing_is_lost(replace: impl Fn(&mut Server, Pid) -> Pid) {
    if !is_there("python3", &["--version"]) {
        return;
    }
    let mut server = Server::start(exec("2", &[], &["python3", "-c", LAZY]));
    let mut pool = server.pid();
    let lost: Vec<u64> = (0..TRIES)
        .map_while(|_| {
            let load = Load::begin(server.port(), &["--connections", "16"]);
            until("it is under load", || (server.get("/").status == 200).then_some(()));
            pool = replace(&mut server, pool);
            Some(load.finish().count("lost")).filter(|lost| *lost > 0)
        })
        .collect();
    assert!(lost.len() < TRIES, "each time some were lost: {lost:?}");
    kill(pool, Signal::SIGTERM).expect("it runs");
    until("it is gone", || is_gone(pool).then_some(()));
}

#[test]
fn a_restart_loses_nothing_of_a_program_that_drops_what_it_has_not_read() {
    nothing_is_lost(|server, pool| {
        server.signal(Signal::SIGHUP);
        server.wait_for("rolling restart done");
        until("the old ones are gone", || (server.workers().len() == 2).then_some(()));
        pool
    });
}

#[test]
fn an_upgrade_loses_nothing_of_a_program_that_drops_what_it_has_not_read() {
    nothing_is_lost(|server, pool| {
        kill(pool, Signal::SIGUSR2).expect("it runs");
        let line = server.wait_for("upgrade done: pid=");
        until("the old pool is gone", || is_gone(pool).then_some(()));
        let new = line.split("pid=").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        Pid::from_raw(new.expect("a pid"))
    });
}
