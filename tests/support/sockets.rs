//! What the kernel shows of sockets of TCP over IPv4 (proc_net_tcp(5)).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

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

/// A free port for a test to bind later. No other test gets it meanwhile: not from this function, and not from the
/// kernel, which chooses none below `ip_local_port_range` (ip(7)) for those that ask for any.
pub fn unused_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 10_000;
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("Linux has it");
    let end = range.split_whitespace().next().and_then(|least| least.parse().ok()).expect("two ports");
    let count = u32::max(end, FIRST + 1_000) - FIRST;
    // Test programs that run at the same time begin in different places.
    let ports = (0..count).map(|_| FIRST + (std::process::id() * 50 + TAKEN.fetch_add(1, Relaxed)) % count);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
    ports.map(|port| u16::try_from(port).expect("a port")).find(is_free).expect("one is free")
}

/// A port of 127.0.0.1 at which nobody listens. While the socket is kept, no other test gets it.
pub fn closed_port() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket());
    (socket, address.expect("it is bound"))
}
