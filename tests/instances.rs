//! Two pools with one address, and a pool whose address cannot be bound.

mod support;

use std::collections::BTreeSet;

use nix::sys::signal::Signal;
use socket2::{Domain, SockAddr, Socket, Type};
use support::{binary, example, testbed, Server};

#[test]
fn a_second_instance_is_refused_and_the_first_goes_on() {
    let mut first = testbed(&[]);
    let address = format!("127.0.0.1:{}", first.port());
    for mut command in [example("testbed"), binary()] {
        command.env("FORKPOOL_LISTEN", &address);
        let (status, log) = Server::spawn(command).finish();
        assert_eq!(status.code(), Some(1));
        let [line] = &log[..] else { panic!("one line: {log:?}") };
        assert!(line.contains(&format!("cannot listen on {address}: Address already in use")), "{line}");
    }
    let workers = first.workers();
    for _ in 0..20 {
        assert!(workers.contains(&first.get("/").worker()));
    }
}

#[test]
fn a_second_instance_may_start_when_the_first_has_stopped() {
    let mut first = testbed(&[]);
    let address = format!("127.0.0.1:{}", first.port());
    // Connections that the server closes leave TIME_WAIT behind, which must not matter.
    let mut client = first.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    client.answer();
    first.signal(Signal::SIGTERM);
    first.wait();
    let mut second = testbed(&[("FORKPOOL_LISTEN", &address)]);
    assert_eq!(second.get("/").status, 200);
}

#[test]
fn all_workers_share_a_free_port() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "4")]);
    let mut seen = BTreeSet::new();
    support::until("each of four has answered", || {
        seen.insert(server.get("/").worker());
        (seen.len() == 4).then_some(())
    });
    assert_eq!(server.count("listening on"), 1);
}

#[test]
fn an_address_that_cannot_be_bound_ends_the_pool_before_any_worker_runs() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("bound");
    for (listen, expected) in [
        (format!("127.0.0.1:0,{taken}"), "Address already in use"),
        // A documentation address (RFC 5737): no machine has it.
        ("192.0.2.1:0".to_owned(), "no network interface of this machine has that address"),
        ("unix:/nowhere/x.sock".to_owned(), "the directory /nowhere does not exist"),
    ] {
        let mut command = binary();
        command.env("FORKPOOL_LISTEN", &listen).env("FORKPOOL_VERBOSE", "1");
        let (status, log) = Server::spawn(command).finish();
        assert_eq!(status.code(), Some(1), "{log:?}");
        assert!(log.last().is_some_and(|line| line.contains(expected)), "{log:?}");
        assert!(!log.iter().any(|line| line.contains("worker=")), "{log:?}");
    }
}

#[test]
fn a_unix_socket_whose_server_hangs_is_replaced() {
    let path = support::fresh_path("hangs.socket");
    let address = SockAddr::unix(&path).expect("short enough");
    let socket = || Socket::new(Domain::UNIX, Type::STREAM, None).expect("a free descriptor");
    let server = socket();
    server.bind(&address).and_then(|()| server.listen(0)).expect("the path is free");
    // Its queue is full: whoever connects next waits.
    let clients = (0..).map(|_| socket()).take_while(|client| {
        client.set_nonblocking(true).expect("a socket");
        client.connect(&address).is_ok()
    });
    let clients: Vec<Socket> = clients.collect();
    assert!(!clients.is_empty());
    let mut command = binary();
    command.env("FORKPOOL_LISTEN", format!("unix:{}", path.display()));
    let (status, log) = Server::spawn(command).finish();
    assert_eq!(status.code(), Some(1));
    assert!(log.last().is_some_and(|line| line.contains("another process holds it")), "{log:?}");
    assert!(path.exists());
}

#[test]
fn a_privileged_port_is_refused_with_the_remedy() {
    if !nix::unistd::Uid::effective().is_root() {
        return support::skip("not root, so it cannot become somebody without privileges");
    }
    let program = binary();
    // Where everybody may read it.
    let copy = std::env::temp_dir().join(format!("forkpool-{}", std::process::id()));
    support::copy_program(program.get_program().as_ref(), &copy);
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]).arg(&copy);
    command.env("FORKPOOL_LISTEN", "127.0.0.1:80");
    if std::process::Command::new("setpriv").arg("--version").output().is_err() {
        return support::skip("no setpriv(1)");
    }
    let limit = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if limit.trim().parse::<u16>().is_ok_and(|port| port <= 80) {
        return support::skip("port 80 is everybody's here");
    }
    let (status, log) = Server::spawn(command).finish();
    std::fs::remove_file(&copy).expect("the copy");
    assert_eq!(status.code(), Some(1), "{log:?}");
    let line = log.last().expect("a line");
    assert!(line.contains("127.0.0.1:80: Permission denied") && line.contains("CAP_NET_BIND_SERVICE"), "{line}");
}
