//! What the kernel shows of sockets of TCP over IPv4 (proc_net_tcp(5)).

use std::collections::BTreeSet;
use std::{fs, io};

use nix::unistd::Pid;

/// A socket's local port, its state, and its inode: 0 where no process has it.
pub struct TcpSocket {
    pub port: u16,
    pub state: u8,
    pub inode: u64,
}

pub const ESTABLISHED: u8 = 0x01;
pub const CLOSE_WAIT: u8 = 0x08;
pub const LISTEN: u8 = 0x0A;

/// All sockets of a process's network namespace.
pub fn tcp_sockets(pid: Pid) -> io::Result<Vec<TcpSocket>> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let sockets = rows.map(|row| TcpSocket {
        port: row[1].split_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok()).expect("a port"),
        state: u8::from_str_radix(row[3], 16).expect("a state"),
        inode: row[9].parse().expect("an inode"),
    });
    Ok(sockets.collect())
}

/// Those of them that the process has open.
pub fn tcp_sockets_of(pid: Pid) -> io::Result<Vec<TcpSocket>> {
    let links = fs::read_dir(format!("/proc/{pid}/fd"))?.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let links: BTreeSet<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    let mut sockets = tcp_sockets(pid)?;
    sockets.retain(|socket| links.contains(&format!("socket:[{}]", socket.inode)));
    Ok(sockets)
}

/// How many sockets of a process's network namespace have a local port and are in a state.
#[track_caller]
pub fn count_tcp_sockets(pid: Pid, port: u16, state: u8) -> usize {
    let sockets = tcp_sockets(pid).expect("the process runs");
    sockets.iter().filter(|socket| socket.port == port && socket.state == state).count()
}

/// The port of a process's first listening socket.
pub fn listening_port(pid: Pid) -> Option<u16> {
    let sockets = tcp_sockets_of(pid).ok()?;
    sockets.into_iter().find(|socket| socket.state == LISTEN).map(|socket| socket.port)
}
