//! Checks whether a process of the program waits for connections on one of the pool's sockets.

use std::fs;
use std::io::{ErrorKind, IoSliceMut};

use nix::sys::uio::{process_vm_readv, RemoteIoVec};
use nix::unistd::Pid;

use super::plan::Sight;
use super::sign::{self, Open, Waits, LIST_MAX};
use super::tree;

/// The best sign of any process. `inodes` are those of the sockets.
pub(super) fn look(inodes: &[u64]) -> Sight {
    let mut best = Sight::Nothing;
    for pid in tree::descendants() {
        best = best.max(look_at(pid, inodes));
        if best == Sight::Waits {
            break;
        }
    }
    best
}

fn look_at(pid: i32, inodes: &[u64]) -> Sight {
    let links = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(links) => links,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Sight::Hidden,
        // The process has ended.
        Err(_) => return Sight::Nothing,
    };
    let (mut held, mut epolls, mut has_ring) = (Vec::new(), Vec::new(), false);
    for link in links.flatten() {
        let Some(fd) = link.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) else { continue };
        let Some(target) = fs::read_link(link.path()).ok() else { continue };
        match sign::open(&target.to_string_lossy()) {
            Open::Socket(inode) if inodes.contains(&inode) => held.push(fd),
            Open::Epoll => epolls.push(fd),
            Open::Ring => has_ring = true,
            Open::Socket(_) | Open::Other => {}
        }
    }
    let watches = |fd: &u64| {
        let fdinfo = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}"));
        fdinfo.is_ok_and(|fdinfo| sign::is_watched(&fdinfo, inodes))
    };
    match () {
        () if epolls.iter().any(watches) => Sight::Waits,
        () if held.is_empty() => Sight::Nothing,
        () => look_at_threads(pid, &held).max(if has_ring { Sight::Hidden } else { Sight::Holds }),
    }
}

/// What the threads of a process wait for, given the descriptors at which it has the socket.
fn look_at_threads(pid: i32, held: &[u64]) -> Sight {
    let mut best = Sight::Holds;
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let waits = match fs::read_to_string(task.path().join("syscall")) {
            Ok(line) => sign::waits(&line),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Sight::Hidden,
            Err(_) => continue,
        };
        let is_sign = match waits {
            Waits::Accept(fd) => held.contains(&fd),
            Waits::Poll { list, count } => read(pid, list, count.saturating_mul(8), |it| sign::is_polled(it, held)),
            Waits::Select { set, below } => read(pid, set, below.div_ceil(64) * 8, |it| sign::is_selected(it, held)),
            Waits::Elsewhere => false,
        };
        if is_sign {
            best = Sight::Waits;
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
