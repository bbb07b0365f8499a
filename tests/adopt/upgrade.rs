//! Programs that go on to bind addresses while their pool is replaced.

use std::time::Duration;

use super::*;

/// When it is told to finish, it makes another server, and names it.
const LATE: &str = "
import http.server, signal, socket, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header('Content-Length', '12'); self.end_headers()
        self.wfile.write(b'hello world\\n')
def finish(*_):
    late = socket.create_server(('127.0.0.1', 0), backlog=5)
    socket.create_connection(late.getsockname())
    late.accept()
    print('served late', flush=True)
    threading.Thread(target=server.shutdown).start()
server = http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler)
signal.signal(signal.SIGTERM, finish)
server.serve_forever()
";

/// Keepers need no parent to answer: the old pool's answer until they end, the new pool's from their start.
#[test]
fn an_upgrade_loses_nothing_of_an_unmodified_program() {
    let Some(script) = script("node") else { return };
    let mut server = Server::start(exec(&["--adopt", "require"], &script));
    let load = Load::begin(server.port(), BOTH_MODES[0]);
    server.signal(Signal::SIGUSR2);
    server.wait_for("upgrade done: pid=");
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(server.get("/").status, 200);
    load.finish().nothing_lost();
}

/// The keepers of the old pool answer until their programs have ended.
#[test]
fn programs_of_the_old_pool_may_bind_while_they_finish() {
    if !is_there("python3", &["--version"]) {
        return;
    }
    let files = directory("late");
    fs::write(files.join("app.py"), LATE).expect("it is writable");
    let script = format!("exec python3 {}/app.py $PORT", files.display());
    let mut server = Server::start(exec(&["--adopt", "require"], &script));
    is_answered(&mut server, "http_server");
    server.signal(Signal::SIGUSR2);
    server.wait_for("upgrade done: pid=");
    // They say so on another stream than the pool, so it may be read before that.
    until("both have", || (server.count("served late") == 2).then_some(()));
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.log());
    is_answered(&mut server, "http_server");
}

/// The new pool has them as well, and may use the slot again.
#[test]
fn an_old_pool_does_not_shut_the_sockets_of_a_removed_slot_during_an_upgrade() {
    let Some(path) = server() else { return };
    let hold = directory("hold").join("hold");
    let script = format!("while [ -e {} ]; do sleep 0.05; done; exec {path} $PORT", hold.display());
    let mut server = Server::start(exec(&["--adopt", "require"], &script));
    server.signal(Signal::SIGTTIN);
    while !server.wait_for("worker=2 gen=1").ends_with(" ready") {}
    server.signal(Signal::SIGTTOU);
    until("it is gone", || (server.workers().len() == 2).then_some(()));
    fs::write(&hold, "").expect("it is writable");
    server.signal(Signal::SIGUSR2);
    server.wait_for("upgrade begun");
    // Longer than the time after which the sockets of such a slot are closed.
    std::thread::sleep(Duration::from_secs(4));
    fs::remove_file(&hold).expect("it is there");
    server.wait_for("upgrade done: pid=");
    assert_eq!(server.wait().code(), Some(0));
    is_answered(&mut server, "c");
    assert_eq!(server.count("has a broken socket"), 0, "{:?}", server.log());
}
