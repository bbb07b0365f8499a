//! Messages between the parent and a worker, over a pair of sockets that keeps their boundaries and order.
//!
//! The sockets are of the type SOCK_SEQPACKET (unix(7)). A message arrives whole or not at all, no copy in user space
//! is needed, and, unlike with datagrams, each side sees when the other one closes. Every message begins with a marker
//! byte, so that an empty message is not mistaken for the end. The kernel's buffer is the queue: a sender that is
//! faster than the reader gets an error.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    sendmsg, shutdown, socketpair, AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr,
};

use crate::sys;
use crate::sys::fds::WholeMessage;

/// The maximum length of a message, 64 KiB. Three such messages fit into the default socket buffer of Linux.
pub const MESSAGE_MAX: usize = 64 * 1024;

/// The marker byte at the beginning of each message.
const MARK: u8 = b'm';

/// The marker, a message, and one more byte to detect a message that is too long.
pub(crate) const BUFFER: usize = 1 + MESSAGE_MAX + 1;

/// The problems with descriptors, where a message may bring none, or one.
const ONE: &str = "it carries a descriptor";
const SEVERAL: &str = "it carries several descriptors";

/// Why a message was not sent. No part of it was.
#[derive(Debug)]
#[non_exhaustive]
pub enum MessageError {
    /// The message is larger than [`MESSAGE_MAX`].
    TooLarge {
        /// Its size in bytes.
        len: usize,
        /// The maximum size in bytes.
        max: usize,
    },
    /// The receiver has not read earlier messages. Try again later, or drop the message.
    Full,
    /// The receiver has gone, is about to finish or has not started, or the pool has no
    /// [hook](crate::Builder::on_event).
    Gone,
    /// The pool does not accept file descriptors from workers; see
    /// [`Builder::accept_descriptors`](crate::Builder::accept_descriptors).
    NoDescriptors,
    /// Another system error.
    System(io::Error),
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MessageError::TooLarge { len, max } => write!(f, "the message has {len} bytes, more than {max}; split it"),
            MessageError::Full => f.write_str("the receiver has not read earlier messages; try again later"),
            MessageError::Gone => f.write_str("the receiver of the message is gone"),
            MessageError::NoDescriptors => {
                f.write_str("the pool accepts no descriptors from workers; allow them by Builder::accept_descriptors")
            }
            MessageError::System(_) => f.write_str("cannot send a message with sendmsg(2)"),
        }
    }
}

impl StdError for MessageError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            MessageError::System(error) => Some(error),
            _ => None,
        }
    }
}

/// One end of the pair. Neither sending nor receiving blocks.
#[derive(Debug)]
pub(crate) struct MessageEnd {
    socket: OwnedFd,
    /// Whether this end may send descriptors.
    sends_descriptors: bool,
    /// Whether this end may receive descriptors.
    accept_descriptors: bool,
    /// Whether descriptors may come from an untrusted process. The caller must not close them where that could block.
    is_guarded: bool,
}

/// What was received.
#[derive(Debug)]
pub(crate) enum Received<'b> {
    Message(&'b [u8], Option<OwnedFd>),
    /// No valid message: the reason, and the descriptors in it.
    Malformed(&'static str, Vec<OwnedFd>),
    /// A message that was lost because there were no free descriptors for those in it. Holds those that did arrive.
    Cut(Vec<OwnedFd>),
    /// A message with a descriptor stays in the queue until a descriptor is free.
    NoRoom,
    /// The queue is empty.
    Nothing,
    /// The other end is closed and the queue is empty.
    End,
}

impl MessageEnd {
    /// Makes both ends, the parent's and the worker's. If the worker may send no descriptors, the kernel refuses them
    /// as far as it can.
    pub(crate) fn pair(accept_descriptors: bool) -> io::Result<(MessageEnd, MessageEnd)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (parent, worker) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let is_guarded = accept_descriptors || !sys::fds::refuse_descriptors(parent.as_fd());
        Ok((
            MessageEnd { socket: parent, sends_descriptors: true, accept_descriptors, is_guarded },
            MessageEnd {
                socket: worker,
                sends_descriptors: accept_descriptors,
                accept_descriptors: true,
                is_guarded: false,
            },
        ))
    }

    /// Sends a message, optionally with a copy of a descriptor (unix(7), `SCM_RIGHTS`).
    pub(crate) fn send(&self, message: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), MessageError> {
        if message.len() > MESSAGE_MAX {
            return Err(MessageError::TooLarge { len: message.len(), max: MESSAGE_MAX });
        }
        if fd.is_some() && !self.sends_descriptors {
            return Err(MessageError::NoDescriptors);
        }
        let fds: Vec<RawFd> = fd.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &[][..] } else { &rights };
        let parts = [IoSlice::new(&[MARK]), IoSlice::new(message)];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        match sendmsg::<UnixAddr>(self.socket.as_raw_fd(), &parts, control, flags, None) {
            Ok(_) => Ok(()),
            // ETOOMANYREFS: too many descriptors of this user are in transit.
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::ETOOMANYREFS) => Err(MessageError::Full),
            Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => Err(MessageError::Gone),
            Err(errno) => Err(MessageError::System(errno.into())),
        }
    }

    /// Receives the next message into a buffer of [`BUFFER`] bytes.
    pub(crate) fn receive<'b>(&self, buffer: &'b mut [u8]) -> Received<'b> {
        let sys::fds::Received { len, mut fds, is_cut, .. } = loop {
            let received = match self.is_guarded {
                true => sys::fds::receive_whole(self.socket.as_fd(), buffer, usize::from(self.accept_descriptors)),
                false => sys::fds::receive(self.socket.as_fd(), buffer).map(WholeMessage::Received),
            };
            match received {
                Ok(WholeMessage::Received(received)) => break received,
                Ok(WholeMessage::TooMany) if self.accept_descriptors => {
                    return Received::Malformed(SEVERAL, Vec::new())
                }
                Ok(WholeMessage::TooMany) => return Received::Malformed(ONE, Vec::new()),
                Ok(WholeMessage::NoRoom) => return Received::NoRoom,
                // Returned once, before the messages that are still queued, if the other side has closed with unread
                // data.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Received::Nothing,
                Err(_) => return Received::End,
            }
        };
        match (&buffer[..len], fds.len()) {
            ([], 0) => Received::End,
            ([MARK, ..], _) if len == BUFFER => Received::Malformed("it is larger than a message may be", fds),
            ([MARK, ..], _) if is_cut => Received::Cut(fds),
            ([MARK, ..], 1..) if !self.accept_descriptors => Received::Malformed(ONE, fds),
            ([MARK, message @ ..], 0 | 1) => Received::Message(message, fds.pop()),
            ([MARK, ..], _) => Received::Malformed(SEVERAL, fds),
            _ => Received::Malformed("it was not sent by this library", fds),
        }
    }

    /// The socket, if its queue may hold descriptors, which closing it would close.
    pub(crate) fn with_descriptors(self) -> Option<OwnedFd> {
        self.is_guarded.then_some(self.socket)
    }

    /// Accepts no more messages. The other side gets an error from now on; queued messages can still be read, followed
    /// by [`Received::End`].
    pub(crate) fn close(&self) {
        // Fails only if the other side has gone, which has the same effect.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Read);
    }
}

impl AsFd for MessageEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for MessageEnd {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (MessageEnd, MessageEnd) {
        MessageEnd::pair(true).expect("descriptors are free")
    }

    /// Receives, and describes the result.
    #[track_caller]
    fn next(end: &MessageEnd) -> String {
        match end.receive(&mut vec![0; BUFFER]) {
            Received::Message(message, fd) => {
                format!("{}{}", String::from_utf8_lossy(message), if fd.is_some() { " +fd" } else { "" })
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn messages_keep_their_boundaries_and_their_order() {
        let (parent, worker) = pair();
        for (from, to) in [(&parent, &worker), (&worker, &parent)] {
            for message in ["a", "", "bc"] {
                from.send(message.as_bytes(), None).expect("there is room");
            }
            assert_eq!([next(to), next(to), next(to), next(to)], ["a", "", "bc", "Nothing"]);
        }
    }

    #[test]
    fn one_may_be_as_large_as_is_said() {
        let (parent, worker) = pair();
        parent.send(&[b'x'; MESSAGE_MAX], None).expect("it fits");
        let error = parent.send(&[b'x'; MESSAGE_MAX + 1], None).expect_err("too large");
        assert!(matches!(error, MessageError::TooLarge { len: 65_537, max: 65_536 }), "{error}");
        assert_eq!([next(&worker).len(), next(&worker).len()], [MESSAGE_MAX, "Nothing".len()]);
    }

    #[test]
    fn a_full_queue_is_told_and_loses_nothing() {
        let (parent, worker) = pair();
        let fill = || {
            let sent = (0..u32::MAX).take_while(|n| match worker.send(&n.to_le_bytes(), None) {
                Ok(()) => true,
                Err(MessageError::Full) => false,
                Err(error) => panic!("{error}"),
            });
            sent.count()
        };
        let sent = fill();
        let mut buffer = vec![0; BUFFER];
        for n in 0..u32::try_from(sent).expect("it was counted by one") {
            let Received::Message(message, None) = parent.receive(&mut buffer) else { panic!("message {n} is lost") };
            assert_eq!(message, n.to_le_bytes());
        }
        assert_eq!(next(&parent), "Nothing");
        assert_eq!(fill(), sent);
    }

    #[test]
    fn what_was_sent_before_the_end_still_comes() {
        let (parent, worker) = pair();
        // Left unread, so that the close is a reset.
        parent.send(b"unread", None).expect("there is room");
        worker.send(b"last words", None).expect("there is room");
        drop(worker);
        assert_eq!([next(&parent), next(&parent), next(&parent)], ["last words", "End", "End"]);
        assert!(matches!(parent.send(b"", None), Err(MessageError::Gone)));
    }

    #[test]
    fn closing_keeps_what_came_and_refuses_what_comes() {
        let (parent, worker) = pair();
        worker.send(b"before", None).expect("there is room");
        parent.close();
        assert!(matches!(worker.send(b"after", None), Err(MessageError::Gone)));
        assert_eq!([next(&parent), next(&parent)], ["before", "End"]);
        parent.send(b"the other way", None).expect("it is open");
        assert_eq!(next(&worker), "the other way");
    }

    #[test]
    fn a_descriptor_comes_with_its_message() {
        let (parent, worker) = pair();
        let (reader, mut writer) = UnixStream::pair().expect("descriptors are free");
        worker.send(b"take this", Some(reader.as_fd())).expect("there is room");
        drop(reader);
        writer.write_all(b"through it").expect("the reader is on its way");
        drop(writer);
        let mut buffer = vec![0; BUFFER];
        let Received::Message(b"take this", Some(fd)) = parent.receive(&mut buffer) else { panic!("it came") };
        let mut text = String::new();
        UnixStream::from(fd).read_to_string(&mut text).expect("text");
        assert_eq!(text, "through it");
    }

    #[test]
    fn what_is_no_message_is_known() {
        let (parent, worker) = pair();
        let raw = |bytes: &[u8], fds: &[RawFd]| {
            let rights = [ControlMessage::ScmRights(fds)];
            let control = if fds.is_empty() { &[][..] } else { &rights };
            let sent =
                sendmsg::<UnixAddr>(worker.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::empty(), None);
            sent.expect("there is room");
        };
        raw(b"hello", &[]);
        raw(&[MARK; BUFFER], &[]);
        raw(&[MARK; BUFFER + 1], &[]);
        raw(&[MARK], &[worker.as_raw_fd(); 2]);
        for reason in ["not sent by this library", "larger than", "larger than", "several descriptors"] {
            assert!(next(&parent).contains(reason), "{reason}");
        }
        // Nobody reads it.
        assert!(next(&parent).contains("several descriptors"));
    }
}
