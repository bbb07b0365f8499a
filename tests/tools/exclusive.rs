//! Two workers wait for connections to one Unix socket. The first one is woken alone (EPOLLEXCLUSIVE), and dies without
//! having accepted. Its replacement never listens. For tests/parent.rs.

mod logger;

use std::error::Error;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use forkpool::{Pool, Response, Worker};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{raise, Signal};

fn main() -> Result<(), Box<dyn Error>> {
    logger::init();
    let (mut waits, mut is_first) = UnixStream::pair()?;
    Pool::bind("127.0.0.1:0").env().run(|worker| match (worker.id(), worker.generation()) {
        (0, 1) => is_woken_alone(worker, &mut is_first),
        (0, _) => {
            Ok(_ = poll(&mut [PollFd::new(worker.shutdown_signal()?.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?)
        }
        _ => {
            // The kernel wakes those that wait in the order of their registration.
            waits.read_exact(&mut [0])?;
            Ok(worker.serve(|_| Response::text("served\n"))?)
        }
    })?;
    Ok(())
}

fn is_woken_alone(worker: &Worker, is_first: &mut UnixStream) -> Result<(), Box<dyn Error>> {
    let listeners = worker.take_unix_listeners();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listeners[0], EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE, 0))?;
    is_first.write_all(b"!")?;
    worker.ready()?;
    while epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE) == Err(Errno::EINTR) {}
    raise(Signal::SIGKILL)?;
    Ok(())
}
