//! Checks whether a process of the program waits for connections on one of the pool's sockets.

use std::collections::HashSet;
use std::fs;
use std::io::{ErrorKind, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use nix::sys::uio::{process_vm_readv, RemoteIoVec};
use nix::unistd::Pid;

use super::accepted;
use super::plan::Observation;
use super::procfs::{self, OpenFile, PoolSocket, WaitingCall, LIST_MAX};
use super::tree;
use crate::sys;

/// How many connections wait. They can only become fewer by being accepted.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    waiting: u32,
    /// Whether the program has accepted some of them.
    pub(super) was_accepted: bool,
}

impl Backlog {
    /// `is_shared`: a program before this one may accept as well.
    pub(super) fn note(&mut self, sockets: &[OwnedFd], is_shared: bool) {
        let waiting = sockets.iter().filter_map(|socket| sys::fds::waiting(socket).ok()).sum();
        self.was_accepted |= waiting < self.waiting && !is_shared;
        self.waiting = waiting;
    }
}

/// The best evidence from any process.
pub(super) fn look(sockets: &[PoolSocket]) -> Observation {
    let mut best = Observation::Nothing;
    for pid in tree::descendants() {
        best = best.max(look_at(pid, sockets));
        if best == Observation::WaitingCall {
            break;
        }
    }
    best
}

/// Whether a process has a connection open that has come to one of these addresses. A program that works off a queue
/// which never ends accepts without waiting. `is_over` says that the keeper has something else to do.
pub(super) fn has_accepted(listeners: &[SocketAddr], is_over: impl Fn() -> bool) -> bool {
    let sockets: HashSet<u64> = tree::descendants().into_iter().flat_map(sockets_of).collect();
    let is_one = |inode| sockets.contains(&inode);
    !sockets.is_empty() && listeners.iter().any(|it| accepted::any(*it, is_one, &is_over).unwrap_or(false))
}

fn sockets_of(pid: i32) -> impl Iterator<Item = u64> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    links.filter_map(|link| match procfs::open(&fs::read_link(link.path()).ok()?.to_string_lossy()) {
        OpenFile::Socket(inode) => Some(inode),
        OpenFile::Epoll | OpenFile::Ring | OpenFile::Other => None,
    })
}

fn look_at(pid: i32, sockets: &[PoolSocket]) -> Observation {
    let links = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(links) => links,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Observation::Hidden,
        // The process has ended.
        Err(_) => return Observation::Nothing,
    };
    let (mut open, mut epolls, mut has_ring) = (Vec::new(), Vec::new(), false);
    for link in links.flatten() {
        let Some(fd) = link.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) else { continue };
        let Some(target) = fs::read_link(link.path()).ok() else { continue };
        match procfs::open(&target.to_string_lossy()) {
            OpenFile::Socket(inode) if sockets.iter().any(|it| it.inode == inode) => open.push((fd, inode)),
            OpenFile::Epoll => epolls.push(fd),
            OpenFile::Ring => has_ring = true,
            OpenFile::Socket(_) | OpenFile::Other => {}
        }
    }
    let watches = |fd: &u64| {
        let fdinfo = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}"));
        // An instance still lists a descriptor that the process has closed, if others have the socket open.
        fdinfo.is_ok_and(|fdinfo| procfs::watched(&fdinfo).any(|watched| open.contains(&watched)))
    };
    let open_fds: Vec<u64> = open.iter().map(|(fd, _)| *fd).collect();
    let is_held = open.iter().any(|it| sockets.iter().any(|socket| socket.is_held_at(*it)));
    match () {
        () if epolls.iter().any(watches) => Observation::WaitingCall,
        () if open_fds.is_empty() => Observation::Nothing,
        () => match look_at_threads(pid, &open_fds) {
            Observation::Holds if !is_held => Observation::Nothing,
            Observation::Holds if has_ring => Observation::Hidden,
            observation => observation,
        },
    }
}

/// What the threads of a process wait for, given the descriptors at which it has the socket.
fn look_at_threads(pid: i32, open_fds: &[u64]) -> Observation {
    let mut best = Observation::Holds;
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let waits = match fs::read_to_string(task.path().join("syscall")) {
            Ok(line) => procfs::waits(&line),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Observation::Hidden,
            Err(_) => continue,
        };
        let is_sign = match waits {
            WaitingCall::Accept(fd) => open_fds.contains(&fd),
            WaitingCall::Poll { list, count } => {
                read(pid, list, count.saturating_mul(8), |it| procfs::is_polled(it, open_fds))
            }
            WaitingCall::Select { set, below } => {
                read(pid, set, below.div_ceil(64) * 8, |it| procfs::is_selected(it, open_fds))
            }
            WaitingCall::Elsewhere => false,
        };
        if is_sign {
            best = Observation::WaitingCall;
        }
    }
    best
}

/// Reads the memory of a process. This may block on whoever provides that memory (userfaultfd(2), FUSE), so only the
/// keeper does it.
fn read(pid: i32, address: u64, len: u64, is_sign: impl Fn(&[u8]) -> bool) -> bool {
    let (Ok(base), Ok(len)) = (usize::try_from(address), usize::try_from(len)) else { return false };
    let mut bytes = vec![0; len.min(LIST_MAX)];
    let remote = [RemoteIoVec { base, len: bytes.len() }];
    let read = process_vm_readv(Pid::from_raw(pid), &mut [IoSliceMut::new(&mut bytes)], &remote);
    read.is_ok_and(|len| is_sign(&bytes[..len]))
}
