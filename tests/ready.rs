//! When a program counts as ready, and what follows when it does not come to that.

mod support;

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::{kill, Signal};
use support::{binary, connect_unix, fresh_path, is_there, run, until, Load, Server, BOTH_MODES};

fn exec(options: &[&str], program: &[&str]) -> Command {
    let mut command = binary();
    command.env("FORKPOOL_WORKERS", "2").arg("exec").args(options).arg("--").args(program);
    command
}

/// A script that can be deployed anew.
struct Deployed(PathBuf);

impl Deployed {
    fn new(name: &str, script: &str) -> Deployed {
        let deployed = Deployed(fresh_path(name));
        deployed.deploy(script);
        deployed
    }

    fn deploy(&self, script: &str) {
        fs::write(&self.0, script).expect("a writable directory");
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("text")
    }
}

impl Drop for Deployed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// How Python programs wait: by select(2), poll(2), epoll(7), in accept(2), in a thread of many, in a child.
const ANSWER: &str = "
import os, select, socket, sys, threading, time
s = socket.socket(fileno=3)
def answer(c):
    c.recv(4096)
    c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\nConnection: close\\r\\n\\r\\nhello')
    c.close()
def accept():
    while True:
        try:
            c, _ = s.accept()
        except BlockingIOError:
            return
        c.setblocking(True)
        answer(c)
";

#[test]
fn it_is_ready_however_it_waits() {
    if !is_there("python3", &["--version"]) {
        return;
    }
    for (way, wait) in [
        ("select", "while True:\n select.select([s], [], [])\n accept()"),
        ("poll", "p = select.poll(); p.register(s, select.POLLIN)\nwhile True:\n p.poll()\n accept()"),
        ("epoll", "p = select.epoll(); p.register(s, select.EPOLLIN)\nwhile True:\n p.poll()\n accept()"),
        ("accept", "s.setblocking(True)\naccept()"),
        ("thread", "s.setblocking(True)\nthreading.Thread(target=accept).start()\ntime.sleep(600)"),
        ("child", "s.setblocking(True)\nif os.fork() == 0: accept()\ntime.sleep(600)"),
    ] {
        // It listens from the start, and serves nobody before this file is there.
        let go = Deployed::new("ready-go", "");
        fs::remove_file(&go.0).expect("it is there");
        let script = format!(
            "{ANSWER}\nos.write(1, b'born\\n')\nwhile not os.path.exists('{}'): time.sleep(0.01)\n{wait}\n",
            go.path()
        );
        let mut server = Server::spawn(exec(&[], &["python3", "-c", &script]));
        server.wait_for("born");
        server.wait_for("born");
        assert_eq!(server.count(" ready"), 0, "{way}: it does not wait yet");
        go.deploy("");
        server.wait_for("listening on ");
        assert_eq!(server.get("/").text(), "hello", "{way}");
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn a_broken_version_costs_no_old_worker() {
    if !is_there("node", &["--version"]) {
        return;
    }
    let good = "process.on('SIGTERM', () => server.close());\n\
                const server = require('http').createServer((q, r) => r.end('hello')).listen({ fd: 3 });";
    let app = Deployed::new("ready-broken.js", good);
    let socket = fresh_path("ready-broken.admin");
    let admin = format!("unix:{}", socket.display());
    let mut server = Server::start(exec(&["--admin", &admin], &["node", app.path()]));
    let load = Load::begin(server.port(), BOTH_MODES[0]);
    for broken in ["syntax error here(", "process.exit(0)", "throw new Error('no database')"] {
        app.deploy(broken);
        let said = run(binary().args(["restart", "--admin", &admin]));
        assert_eq!(said.code, 4, "{broken}: {said:?}");
        assert!(
            said.out.contains("rolling restart aborted") && said.out.contains("before it waited for connections"),
            "{said:?}"
        );
    }
    let gone = |line: &&String| line.contains("gen=1 ") && line.contains("exited");
    assert_eq!(server.log().iter().filter(gone).count(), 0, "all from the start serve");
    app.deploy(good);
    let said = run(binary().args(["restart", "--admin", &admin]));
    assert_eq!(said.code, 0, "{said:?}");
    load.finish().nothing_lost();
}

#[test]
fn the_predecessor_serves_until_its_replacement_does() {
    if !is_there("python3", &["--version"]) {
        return;
    }
    let app =
        |text: &str, boot: &str| format!("{}\n{boot}\ns.setblocking(True)\naccept()\n", ANSWER.replace("hello", text));
    let go = Deployed::new("ready-slow-go", "");
    fs::remove_file(&go.0).expect("it is there");
    let deployed = Deployed::new("ready-slow.py", &app("first", ""));
    let mut server = Server::start(exec(&["--workers", "1"], &["python3", deployed.path()]));
    let boot = format!("while not os.path.exists('{}'): time.sleep(0.01)", go.path());
    deployed.deploy(&app("other", &boot));
    server.signal(Signal::SIGHUP);
    server.wait_for("rolling restart begun");
    let keepers = until("its replacement starts", || Some(server.workers()).filter(|it| it.len() == 2));
    until("it runs", || (support::children(keepers[1]).len() == 1).then_some(()));
    for _ in 0..20 {
        assert_eq!(server.get("/").text(), "first");
    }
    go.deploy("");
    server.wait_for("rolling restart done");
    until("the other one answers", || (support::children(server.pid()).len() == 1).then_some(()));
    assert_eq!(server.get("/").text(), "other");
}

/// A server with one thread and more connections than it can answer accepts without ever waiting for one.
#[test]
fn a_program_whose_queue_never_ends_is_ready_when_it_has_accepted() {
    if !is_there("python3", &["--version"]) {
        return;
    }
    let program = format!("{ANSWER}\ns.setblocking(True)\naccept()\n");
    let mut server = Server::start(exec(&["--workers", "1"], &["python3", "-c", &program]));
    let port = server.port();
    // The program waits for the request of the first, its replacement for that of the second, and the others queue.
    let connect = || TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let clients: Vec<TcpStream> = (0..4).map(|_| connect()).collect();
    server.signal(Signal::SIGHUP);
    server.wait_for("rolling restart done");
    drop(clients);
    assert_eq!(server.get("/").text(), "hello");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

/// It ends the pool, with its reason.
fn fails(options: &[&str], program: &[&str], reason: &str) {
    let mut server = Server::spawn(exec(options, program));
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(1), "{program:?}: {log:?}");
    let last = log.last().expect("a line");
    assert!(last.contains("no worker could start") && last.contains(reason), "{program:?}: {last}");
    assert!(!log.iter().any(|line| line.contains(" ready")), "{log:?}");
}

#[test]
fn a_program_that_never_served_ends_the_pool_and_says_why() {
    fails(&[], &["sh", "-c", "exit 3"], "exited with code 3: before it waited for connections");
    fails(&[], &["true"], "exited with code 0: before it waited for connections");
    fails(&[], &["sh", "-c", "sleep 600 & exit 0"], "it left others to run in the background");
    fails(&[], &["sh", "-c", "kill -9 $$"], "killed by SIGKILL");
}

#[test]
fn one_that_does_not_come_to_serve_is_killed_and_the_reason_is_seen() {
    // Longer than it takes to execute the program, which changes the reason.
    let options = ["--boot-timeout", "8s"];
    for (script, reason) in [
        ("exec 3<&-; exec sleep 600", "it did not have the pool's socket open"),
        ("exec sleep 600", "it had the pool's socket open and was not seen to wait for connections"),
    ] {
        let mut server = Server::spawn(exec(&options, &["sh", "-c", script]));
        server.wait_for(reason);
        assert_eq!(server.wait().code(), Some(1));
    }
}

/// The service manager of a pool, at the other end of its NOTIFY_SOCKET (sd_notify(3)).
struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Manager {
    fn new(name: &str) -> Manager {
        let path = fresh_path(name);
        let socket = UnixDatagram::bind(&path).expect("a writable directory");
        socket.set_nonblocking(true).expect("a socket");
        Manager { path, socket }
    }

    /// Whether it was told that the pool is ready, since it was asked last.
    fn is_told(&self) -> bool {
        let mut message = [0; 4096];
        let mut told = false;
        while let Ok(len) = self.socket.recv(&mut message) {
            told |= String::from_utf8_lossy(&message[..len]).lines().any(|line| line == "READY=1");
        }
        told
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[test]
fn what_the_pool_says_of_itself_follows_its_programs() {
    if !is_there("python3", &["--version"]) {
        return;
    }
    // A program waits for connections once this file is there, and fails if it says so.
    let go = Deployed::new("ready-follows", "");
    let stay = || fs::remove_file(&go.0).expect("it is there");
    stay();
    let script = format!(
        "{ANSWER}\nos.write(1, b'born\\n')\nwhile not os.path.exists('{0}'): time.sleep(0.01)\n\
         if open('{0}').read() == 'fail': sys.exit(3)\ns.setblocking(True)\naccept()",
        go.path()
    );
    let manager = Manager::new("ready-follows.notify");
    let socket = fresh_path("ready-follows.admin");
    let admin = format!("unix:{}", socket.display());
    let mut command = exec(&["--admin", &admin], &["python3", "-c", &script]);
    command.env("NOTIFY_SOCKET", &manager.path);
    let mut server = Server::spawn(command);
    server.wait_for("born");
    server.wait_for("born");
    let ask = || connect_unix(&socket).get("/readyz");
    until("the admin process listens", || UnixStream::connect(&socket).ok());
    assert_eq!((ask().status, ask().text()), (503, "the pool is starting\n"));
    let status = || run(binary().args(["status", "--admin", &admin]));
    let serve = |part: &str| until(part, || status().out.contains(&format!("{part} workers serve")).then_some(()));
    serve("0 of 2");
    assert!(!manager.is_told(), "no program waits for connections");
    go.deploy("");
    until("the pool is ready", || (ask().status == 200).then_some(()));
    until("the manager is told", || manager.is_told().then_some(()));
    serve("2 of 2");

    stay();
    let scale = |workers: &str| {
        let mut command = binary();
        command.args(["scale", workers, "--admin", &admin]).stdout(Stdio::piped()).spawn().expect("it runs")
    };
    let mut scaling = scale("3");
    server.wait_for("born");
    serve("2 of 3");
    assert!(scaling.try_wait().expect("a child").is_none(), "it waits for the third one");
    assert_eq!(ask().status, 200, "two serve");
    go.deploy("");
    assert_eq!(scaling.wait().expect("a child").code(), Some(0));
    serve("3 of 3");
    go.deploy("fail");
    assert_eq!(scale("4").wait().expect("a child").code(), Some(4));
    serve("3 of 4");
}

/// It says that it is ready once a file is there, and who it is to everybody else.
const HEALTH: &str = "
import os, socket, sys, threading
s = socket.socket(fileno=3)
s.setblocking(True)
def answer(c):
    head = b''
    while b'\\r\\n\\r\\n' not in head:
        part = c.recv(4096)
        if not part:
            return c.close()
        head += part
    status, text = b'200 OK', b'%d' % os.getpid()
    if head.startswith(b'GET /health HTTP/1.1\\r\\nHost: a.example\\r\\n'):
        is_well = os.path.exists(sys.argv[1])
        status, text = b'204 x' if is_well else b'503 x', b''
        if not is_well:
            os.write(1, b'not well\\n')
    c.sendall(b'HTTP/1.1 %s\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n%s' % (status, len(text), text))
    c.close()
while True:
    c, _ = s.accept()
    threading.Thread(target=answer, args=(c,)).start()
";

#[test]
fn a_program_is_asked_by_http_whether_it_is_ready() {
    if !is_there("python3", &["--version"]) {
        return;
    }
    let go = Deployed::new("ready-http", "");
    let not_well = || fs::remove_file(&go.0).expect("it is there");
    let admin = format!("unix:{}", fresh_path("ready-http.admin").display());
    let options = ["--ready", "http://a.example/health", "--admin", &admin, "--workers", "3"];
    let program = ["python3", "-u", "-c", HEALTH, go.path()];
    not_well();
    let mut server = Server::spawn(exec(&options, &program));
    until("each is asked again and again", || (server.count("not well") > 9).then_some(()));
    assert_eq!(server.count(" ready"), 0);
    server.signal(Signal::SIGTERM);
    let (_, log) = server.finish();
    assert!(log.iter().any(|line| line.ends_with("GET /health was answered with 503")), "{log:?}");

    go.deploy("");
    let mut server = Server::start(exec(&options, &program));
    // One of three, which clients are led around until it is ready.
    let first: Vec<_> = server.workers().into_iter().flat_map(support::children).collect();
    kill(first[0], Signal::SIGKILL).expect("it runs");
    let is_next_ready = |line: &String| line.contains(" gen=2 ") && line.ends_with(" ready");
    until("the next one is ready", || server.log().iter().any(is_next_ready).then_some(()));
    // A version that is not well costs no old worker.
    not_well();
    let before = server.count("not well");
    server.signal(Signal::SIGHUP);
    server.wait_for("rolling restart begun");
    until("the next one is asked", || (server.count("not well") > before + 5).then_some(()));
    for _ in 0..20 {
        assert_eq!(server.get("/").status, 200);
    }
    assert!(!server.log().iter().any(|line| line.contains("rolling restart done")));
    go.deploy("");
    server.wait_for("rolling restart done");
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_program_that_closes_its_socket_is_replaced() {
    if !is_there("python3", &["--version"]) {
        return;
    }
    let script = format!("{ANSWER}\ns.setblocking(True)\nc, _ = s.accept()\nanswer(c)\ns.close()\ntime.sleep(600)");
    let mut server = Server::start(exec(&["--workers", "1"], &["python3", "-c", &script]));
    // The second waits for the replacement.
    for _ in 0..2 {
        assert_eq!(server.get("/").text(), "hello");
    }
    server.wait_for("it had closed the pool's socket, and nobody took its connections");
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let path = format!("unix:{}", fresh_path("ready-unasked").display());
    for (options, problem) in [
        (&["--ready", "http:health"][..], "--ready http:health: http: must be followed by a path without blanks"),
        (&["--ready", "http:/a b"], "http: must be followed by a path"),
        (&["--ready", "http://"], "http: must name a host between // and the path"),
        (&["--ready", "http:/x", "--listen", &path], "ready: http needs a TCP address to ask the program at"),
    ] {
        let said = run(&mut exec(options, &["true"]));
        assert!(said.code == 2 && said.problem.contains(problem), "{said:?}");
    }
}
