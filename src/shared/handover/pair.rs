//! The two ends of a slot's pair of sockets.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    sendmsg, shutdown, socketpair, AddressFamily, ControlMessage, MsgFlags, Shutdown as Way, SockFlag, SockType,
    UnixAddr,
};

use super::record::RECORD_MAX;
use crate::sys;
use crate::sys::fds::Whole;

/// A slot's pair, in the parent.
#[derive(Debug)]
pub(crate) struct Pair {
    sender: OwnedFd,
    receiver: OwnedFd,
}

impl Pair {
    pub(crate) fn new() -> io::Result<Pair> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (sender, receiver) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        // So nothing comes back, and nobody has to read it.
        shutdown(sender.as_raw_fd(), Way::Read)?;
        Ok(Pair { sender, receiver })
    }

    /// The pair whose ends were inherited, if that is what they are.
    pub(crate) fn inherited(sender: OwnedFd, receiver: OwnedFd) -> Option<Pair> {
        let is_of_kind = |end: &OwnedFd| {
            let socket = socket2::SockRef::from(end);
            socket.domain().ok() == Some(socket2::Domain::UNIX)
                && socket.r#type().ok() == Some(socket2::Type::SEQPACKET)
        };
        let pair = Pair { sender, receiver };
        (is_of_kind(&pair.sender) && is_of_kind(&pair.receiver) && pair.is_sound()).then_some(pair)
    }

    pub(crate) fn sender(&self) -> BorrowedFd<'_> {
        self.sender.as_fd()
    }

    pub(crate) fn receiver(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }

    /// Whether a process with a copy of an end has not shut it down.
    pub(crate) fn is_sound(&self) -> bool {
        !is_shut(self.receiver())
    }

    /// Makes sure that nobody can send any more. What is in the queue can still be received.
    pub(crate) fn shut(&self) {
        // Fails only if it was shut down before.
        let _ = shutdown(self.sender.as_raw_fd(), Way::Write);
    }
}

/// Whether nothing will ever be added to the queue of this end.
fn is_shut(receiver: BorrowedFd<'_>) -> bool {
    let mut wait = [PollFd::new(receiver, PollFlags::from_bits_retain(libc::POLLRDHUP))];
    // nix does not know POLLRDHUP. Besides it only POLLHUP and POLLERR can be reported.
    poll(&mut wait, PollTimeout::ZERO).is_ok_and(|found| found > 0)
}

/// The sending end of another process's slot.
#[derive(Debug)]
pub(crate) struct Sender(OwnedFd);

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is in the queue, with a copy of the descriptor.
    Done,
    /// There is no space now. The socket reports when there is.
    Full,
    /// Nothing can be sent here any more.
    Never,
}

impl Sender {
    /// Puts a connection into the queue, or leaves it where it is. Never blocks, whatever the flags of the socket, which
    /// other processes share.
    pub(crate) fn send(&self, record: &[u8], connection: BorrowedFd<'_>) -> Sent {
        let fds = [connection.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        loop {
            return match sendmsg::<UnixAddr>(self.0.as_raw_fd(), &[IoSlice::new(record)], &rights, flags, None) {
                Ok(_) => Sent::Done,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN | Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM) => Sent::Full,
                Err(_) => Sent::Never,
            };
        }
    }
}

impl From<OwnedFd> for Sender {
    fn from(end: OwnedFd) -> Sender {
        Sender(end)
    }
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The receiving end of a slot.
#[derive(Debug)]
pub(crate) struct Receiver(OwnedFd);

/// The next record of a queue.
#[derive(Debug)]
pub(crate) enum Taken {
    /// A record, at the beginning of the buffer, with this length, and its descriptor.
    Record(usize, OwnedFd),
    /// Something that is no record; its descriptors were closed.
    Junk,
    /// No descriptor is free in this process. The record stays in the queue.
    NoRoom,
    /// The queue is empty. The socket reports when it is not.
    Nothing,
    /// The queue is empty, and nobody can send any more.
    End,
}

impl Receiver {
    /// Takes the next record from the queue. `bytes` must have room for [`RECORD_MAX`]. Never blocks.
    pub(crate) fn take(&self, bytes: &mut [u8]) -> Taken {
        debug_assert!(bytes.len() >= RECORD_MAX);
        loop {
            return match sys::fds::receive_whole(self.0.as_fd(), bytes, 1) {
                Ok(Whole::Received(mut received)) => match received.fds.pop() {
                    Some(connection) => Taken::Record(received.len, connection),
                    None if received.len == 0 && self.is_over() => Taken::End,
                    None => Taken::Junk,
                },
                Ok(Whole::TooMany) => match sys::fds::drop_message(self.0.as_fd()) {
                    Ok(()) => Taken::Junk,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(_) => Taken::Nothing,
                },
                Ok(Whole::NoRoom) => Taken::NoRoom,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => Taken::Nothing,
                Err(_) => Taken::End,
            };
        }
    }

    /// Whether nothing is left, and nothing can come. An empty message looks like the end otherwise.
    fn is_over(&self) -> bool {
        is_shut(self.0.as_fd()) && sys::fds::unread(&self.0).is_ok_and(|bytes| bytes == 0)
    }
}

impl From<OwnedFd> for Receiver {
    fn from(end: OwnedFd) -> Receiver {
        Receiver(end)
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
