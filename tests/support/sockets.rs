//! What the kernel shows of sockets of TCP over IPv4 (proc_net_tcp(5)).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};

use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};

/// A socket's local port and its inode: 0 where no process has it.
pub struct TcpSocket {
    pub port: u16,
    pub inode: u64,
}

pub const ESTABLISHED: &str = "01";
pub const CLOSE_WAIT: &str = "08";
pub const LISTEN: &str = "0A";

/// The sockets of a process's network namespace that are in a state. Read only as far as is asked: while all tests run
/// there are tens of thousands of connections that have ended, and they are behind those that listen.
pub fn tcp_sockets(pid: Pid, state: &str) -> io::Result<impl Iterator<Item = TcpSocket>> {
    let table = BufReader::new(File::open(format!("/proc/{pid}/net/tcp"))?);
    Ok(table.lines().skip(1).map_while(Result::ok).filter_map(move |line| {
        let mut columns = line.split_ascii_whitespace();
        let local = columns.nth(1).expect("a local address");
        if columns.nth(1) != Some(state) {
            return None;
        }
        let port = local.split_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok()).expect("a port");
        let inode = columns.nth(5).and_then(|inode| inode.parse().ok()).expect("an inode");
        Some(TcpSocket { port, inode })
    }))
}

/// Those of them that the process has open.
pub fn tcp_sockets_of(pid: Pid, state: &str) -> io::Result<impl Iterator<Item = TcpSocket>> {
    let links = fs::read_dir(format!("/proc/{pid}/fd"))?.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let links: BTreeSet<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    Ok(tcp_sockets(pid, state)?.filter(move |socket| links.contains(&format!("socket:[{}]", socket.inode))))
}

/// How many sockets of a process's network namespace have a local port and are in a state.
#[track_caller]
pub fn count_tcp_sockets(pid: Pid, port: u16, state: &str) -> usize {
    tcp_sockets(pid, state).expect("the process runs").filter(|socket| socket.port == port).count()
}

/// The port of a process's first listening socket.
pub fn listening_port(pid: Pid) -> Option<u16> {
    tcp_sockets_of(pid, LISTEN).ok()?.next().map(|socket| socket.port)
}

/// A port of 127.0.0.1 at which nobody listens. While the socket is kept, no other test gets it.
pub fn closed_port() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket());
    (socket, address.expect("it is bound"))
}
