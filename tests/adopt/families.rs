//! Programs and pools of IPv4, of IPv6, of both, and of Unix sockets.

use super::*;
use crate::support::fresh_path;

#[test]
fn an_ipv4_program_gets_no_ipv6_socket() {
    let Some(path) = server() else { return };
    let script = format!("exec {path} $PORT");
    let options = ["--listen", "[::]:0", "--give-up", "1"];
    let mut server = Server::spawn(exec(&options, &script));
    server.wait_for("binds 0.0.0.0:");
    let (status, log) = server.finish();
    let last = log.last().expect("a line");
    assert_eq!(status.code(), Some(1), "{log:?}");
    assert!(last.contains("no worker could start: ") && last.contains("misreads IPv6 addresses; make the"), "{log:?}");
    // For `:PORT`, the pool itself chooses IPv4.
    let mut server = Server::start(exec(&["--listen", ":0"], &script));
    assert!(server.addresses()[0].is_ipv4());
    is_answered(&mut server, "c");
    assert_eq!(server.count("(IPv4; --listen [::]:"), 1, "{:?}", server.log());
}

/// Each of its sockets has its own family, as those of redis and of most servers in Python and Go.
#[test]
fn a_program_that_binds_both_families_gets_both_sockets() {
    if !is_there("python3", &["--version"]) {
        return;
    }
    let files = directory("families");
    fs::write(files.join("app.py"), ASYNCIO).expect("it is writable");
    let script = format!("exec python3 {}/app.py $PORT", files.display());
    // Unlike for forkpool's own server, `:PORT` is IPv4 here, so that [::]:PORT is no repetition.
    let port = crate::support::sockets::unused_port();
    let listen = [format!(":{port}"), format!("[::]:{port}")];
    let mut server = Server::start(exec(&["--listen", &listen[0], "--listen", &listen[1]], &script));
    for host in ["127.0.0.1", "::1"] {
        let mut client = TcpStream::connect((host, port)).expect("it listens");
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("it answers");
        assert!(answer.ends_with("hello world\n"), "{host}: {answer}");
    }
    assert_eq!(server.count("does not bind"), 0, "{:?}", server.log());
}

/// The program binds only one of two addresses, so clients of the other one would wait for ever.
#[test]
fn an_address_that_a_program_does_not_bind_is_told_of() {
    let Some(path) = server() else { return };
    let options = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    let mut server = Server::start(exec(&options, &format!("exec {path} $PORT")));
    let told: Vec<_> = server.log().iter().filter(|line| line.contains("does not bind 127.0.0.1:")).cloned().collect();
    // Once for all workers, of whichever is ready first.
    assert_eq!(told.len(), 1, "{told:?}");
}

/// As it would remove the path when it closes the socket, also that of all others.
#[test]
fn a_unix_socket_is_not_given_and_the_last_line_says_so() {
    if !is_there("python3", &["--version"]) {
        return;
    }
    let path = fresh_path("adopt-unix.sock");
    let bind = format!("import socket; socket.socket(socket.AF_UNIX).bind('{}')", path.display());
    let mut command = binary();
    command.args(["exec", "--listen", &format!("unix:{}", path.display()), "--", "python3", "-c", &bind]);
    let mut server = Server::spawn(command);
    let (status, log) = server.finish();
    let last = log.last().expect("a line");
    assert_eq!(status.code(), Some(1), "{log:?}");
    assert!(last.contains("exited with code 1: it binds the path of the pool's Unix socket, which"), "{log:?}");
}
