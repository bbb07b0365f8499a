//! The blocking accept loop of a plain `std` server.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use crate::shared::listener;
use crate::worker::Worker;

/// An iterator over accepted connections, which ends when the worker is to finish; see [`Worker::incoming`].
#[derive(Debug)]
pub struct Incoming<'a> {
    worker: &'a Worker,
    /// Closed when the worker is to finish.
    listeners: Vec<TcpListener>,
    /// The number of connections that may still be accepted after that.
    allowance: u32,
    /// Whether the worker could not get ready.
    has_failed: bool,
}

/// How many connections to accept from the queues when the worker is to finish; they would be lost if the pool stops.
/// Bounded, since during a rolling restart the replacement accepts from the same queues, which might never be empty.
const WAITING_MAX: u32 = 1024;

impl<'a> Incoming<'a> {
    pub(crate) fn new(worker: &'a Worker) -> Incoming<'a> {
        Incoming { worker, listeners: worker.take_listeners(), allowance: WAITING_MAX, has_failed: false }
    }

    fn accept(&mut self) -> io::Result<Option<TcpStream>> {
        if self.has_failed {
            return Ok(None);
        }
        self.worker.ready().inspect_err(|_| self.has_failed = true)?;
        loop {
            let lifeline = self.worker.lifeline().stream();
            let mut wait: Vec<PollFd<'_>> = vec![PollFd::new(lifeline.as_fd(), PollFlags::POLLIN)];
            wait.extend(self.listeners.iter().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
            match poll(&mut wait, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            let is_over = wait[0].any() != Some(false);
            if is_over {
                self.allowance = self.allowance.saturating_sub(1);
            }
            for (listener, ready) in self.listeners.iter().zip(&wait[1..]) {
                if ready.any() == Some(false) || self.allowance == 0 {
                    continue;
                }
                match listener.accept() {
                    // This connection is blocking, since accept4(2) does not pass on the flags of the listener.
                    Ok((stream, _)) => {
                        listener::never_linger(&stream);
                        return Ok(Some(stream));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            if is_over {
                self.listeners.clear();
                return Ok(None);
            }
        }
    }
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        self.accept().transpose()
    }
}
