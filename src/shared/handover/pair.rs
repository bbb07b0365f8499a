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
use crate::shared::listener;
use crate::sys;
use crate::sys::fds::Received;

/// The space of a queue, in bytes, which the kernel doubles: its own default, for some 270 records without unread
/// bytes.
const SPACE: libc::c_int = 104 * 1024;

/// From linux/socket.h (6.5 and 6.16); libc does not know them.
const SO_PASSPIDFD: libc::c_int = 76;
const SO_PASSRIGHTS: libc::c_int = 83;

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
        // A filter would drop connections that were sent, and nobody would be told.
        sys::options::set(receiver.as_fd(), libc::SOL_SOCKET, libc::SO_LOCK_FILTER, &1_i32.to_ne_bytes())?;
        let pair = Pair { sender, receiver };
        pair.restore();
        Ok(pair)
    }

    /// Sets the options of both ends that matter. Each process of the slot, and each one that has passed connections to
    /// it, shares them, so one that was broken into would harm those after it.
    pub(crate) fn restore(&self) {
        let set = |end: &OwnedFd, option, value: libc::c_int| {
            // An option that the kernel does not know cannot have been changed.
            let _ = sys::options::set(end.as_fd(), libc::SOL_SOCKET, option, &value.to_ne_bytes());
        };
        set(&self.receiver, libc::SO_PEEK_OFF, -1);
        set(&self.receiver, SO_PASSRIGHTS, 1);
        for option in [libc::SO_PASSCRED, libc::SO_PASSSEC, SO_PASSPIDFD] {
            set(&self.receiver, option, 0);
        }
        set(&self.sender, libc::SO_SNDBUF, SPACE);
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
    /// Puts a connection into the queue, or leaves it where it is. Never blocks, whatever the flags of the socket,
    /// which other processes share.
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
        match self.has_next() {
            Ok(true) => {}
            Ok(false) => return Taken::NoRoom,
            Err(taken) => return taken,
        }
        self.take_next(bytes)
    }

    /// Whether there is a free descriptor for the next record. If there were none, the kernel would close the
    /// connection.
    ///
    /// Junk is taken as well if not all of its descriptors fit: those behind it would wait until they do. The kernel
    /// then closes them, which can block if their sender has set SO_LINGER; this worker is replaced then as any that
    /// stalls.
    fn has_next(&self) -> Result<bool, Taken> {
        let peeked = retried(|| sys::fds::peek(self.0.as_fd()))?;
        let is_junk = peeked.fds.len() > 1;
        close(peeked.fds);
        Ok(!peeked.is_cut || is_junk)
    }

    /// Takes whatever is next now: the worker before or after this one in the slot may have taken what
    /// [`has_next`](Receiver::has_next) has seen. So the descriptors that come with this very message are used, and not
    /// the copies of those that were seen.
    fn take_next(&self, bytes: &mut [u8]) -> Taken {
        let received = match retried(|| sys::fds::receive(self.0.as_fd(), bytes)) {
            Ok(received) => received,
            Err(taken) => return taken,
        };
        match <[OwnedFd; 1]>::try_from(received.fds) {
            Ok([connection]) if !received.is_cut => Taken::Record(received.len, connection),
            Ok(fds) => junk(fds),
            Err(fds) if fds.is_empty() && received.len == 0 && self.is_over() => Taken::End,
            Err(fds) => junk(fds),
        }
    }

    /// Whether nothing is left, and nothing can come. An empty message looks like the end otherwise.
    fn is_over(&self) -> bool {
        is_shut(self.0.as_fd()) && sys::fds::unread(&self.0).is_ok_and(|bytes| bytes == 0)
    }
}

/// Receives again if a signal has interrupted it.
fn retried(receive: impl FnMut() -> io::Result<Received>) -> Result<Received, Taken> {
    let mut receive = receive;
    loop {
        return match receive() {
            Ok(received) => Ok(received),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(Taken::Nothing),
            Err(_) => Err(Taken::End),
        };
    }
}

fn junk(fds: impl IntoIterator<Item = OwnedFd>) -> Taken {
    close(fds);
    Taken::Junk
}

/// Closes descriptors without waiting. Whoever has sent them may have closed its own copies.
fn close(fds: impl IntoIterator<Item = OwnedFd>) {
    fds.into_iter().for_each(|fd| listener::never_linger(&fd));
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::sys::options::set;

    fn is_received(pair: &Pair) -> bool {
        let sender = Sender::from(pair.sender().try_clone_to_owned().expect("a descriptor"));
        let receiver = Receiver::from(pair.receiver().try_clone_to_owned().expect("a descriptor"));
        sender.send(&[b'x'; 50_000], pair.receiver()) == Sent::Done
            && matches!(receiver.take(&mut vec![0; RECORD_MAX]), Taken::Record(50_000, _))
    }

    /// The process that serves a slot and its replacement do, while a third one still passes connections on.
    #[test]
    fn two_processes_that_receive_at_a_time_get_each_connection_once() {
        let pair = Pair::new().expect("a pair");
        let sender = Sender::from(pair.sender().try_clone_to_owned().expect("a descriptor"));
        let receivers = [0; 2].map(|_| Receiver::from(pair.receiver().try_clone_to_owned().expect("a descriptor")));
        let mut clients = Vec::new();
        for record in [b"0", b"1"] {
            let (client, connection) = UnixStream::pair().expect("descriptors");
            assert_eq!(sender.send(record, connection.as_fd()), Sent::Done);
            clients.push(client);
        }
        let mut bytes = vec![0; RECORD_MAX];
        assert!(matches!(receivers[0].has_next(), Ok(true)));
        // The other one is faster.
        for (receiver, expected) in [(&receivers[1], 0), (&receivers[0], 1)] {
            let taken = if expected == 0 { receiver.take(&mut bytes) } else { receiver.take_next(&mut bytes) };
            let Taken::Record(1, connection) = taken else { panic!("{taken:?}") };
            assert_eq!(bytes[0], b'0' + expected);
            let client = &mut clients[usize::from(expected)];
            client.write_all(b"x").expect("somebody has it");
            let mut connection = UnixStream::from(connection);
            connection.set_nonblocking(true).expect("a socket");
            assert_eq!(connection.read(&mut [0; 2]).expect("it is this record's"), 1);
            drop(connection);
            assert_eq!(client.read(&mut [0]).expect("nobody else has it"), 0);
        }
        assert!(matches!(receivers[0].take(&mut bytes), Taken::Nothing));
    }

    /// A sender and a receiver that die after each of their steps.
    #[test]
    fn who_dies_takes_at_most_the_connection_in_its_hands_along() {
        for (step, lost) in [(0, 0), (1, 0), (2, 1)] {
            let pair = Pair::new().expect("a pair");
            let receiver = || Receiver::from(pair.receiver().try_clone_to_owned().expect("a descriptor"));
            let mut bytes = vec![0; RECORD_MAX];
            let mut clients = Vec::new();
            for _ in 0..3 {
                let sender = Sender::from(pair.sender().try_clone_to_owned().expect("a descriptor"));
                let (client, connection) = UnixStream::pair().expect("descriptors");
                assert_eq!(sender.send(b"x", connection.as_fd()), Sent::Done);
                // The sender dies here, with its copy of the connection and its end.
                clients.push(client);
            }
            let dies = receiver();
            match step {
                0 => {}
                1 => assert!(matches!(dies.has_next(), Ok(true))),
                _ => assert!(matches!(dies.take(&mut bytes), Taken::Record(..))),
            }
            drop(dies);
            let next = receiver();
            let taken: Vec<_> = std::iter::from_fn(|| match next.take(&mut bytes) {
                Taken::Record(_, connection) => Some(connection),
                _ => None,
            })
            .collect();
            assert_eq!(taken.len(), 3 - lost, "{step}");
            let is_closed = |client: &mut UnixStream| {
                client.set_nonblocking(true).expect("a socket");
                client.read(&mut [0]).is_ok_and(|count| count == 0)
            };
            assert_eq!(clients.iter_mut().filter_map(|client| is_closed(client).then_some(())).count(), lost, "{step}");
            drop(taken);
            assert!(clients.iter_mut().all(is_closed), "nobody else has one: {step}");
        }
    }

    #[test]
    fn messages_with_other_numbers_of_descriptors_are_junk_and_leave_no_copies() {
        let pair = Pair::new().expect("a pair");
        let receiver = Receiver::from(pair.receiver().try_clone_to_owned().expect("a descriptor"));
        let (mut ours, theirs) = UnixStream::pair().expect("descriptors");
        for count in [0, 2, sys::fds::MAX] {
            let fds = vec![theirs.as_raw_fd(); count];
            let rights = [ControlMessage::ScmRights(&fds)];
            let rights = if count == 0 { &[][..] } else { &rights };
            let part = [IoSlice::new(b"x")];
            sendmsg::<UnixAddr>(pair.sender.as_raw_fd(), &part, rights, MsgFlags::MSG_DONTWAIT, None).expect("room");
        }
        drop(theirs);
        let mut bytes = vec![0; RECORD_MAX];
        for _ in 0..3 {
            assert!(matches!(receiver.take(&mut bytes), Taken::Junk));
        }
        assert!(matches!(receiver.take(&mut bytes), Taken::Nothing));
        assert_eq!(ours.read(&mut [0]).expect("a socket"), 0, "a copy is left");
    }

    /// In a process with few descriptors, which this test starts.
    #[test]
    fn junk_that_does_not_fit_holds_up_nobody() {
        const NAME: &str = "shared::handover::pair::tests::junk_that_does_not_fit_holds_up_nobody";
        const HAS_FEW: &str = "TESTED_WITH_FEW_DESCRIPTORS";
        if std::env::var_os(HAS_FEW).is_none() {
            let mut few = std::process::Command::new("sh");
            few.args(["-c", "ulimit -n 64 && exec \"$0\" --exact \"$1\""]);
            let few = few.arg(std::env::current_exe().expect("this test")).arg(NAME).env(HAS_FEW, "1");
            let output = few.output().expect("a shell");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let pair = Pair::new().expect("a pair");
        let sender = Sender::from(pair.sender().try_clone_to_owned().expect("a descriptor"));
        let receiver = Receiver::from(pair.receiver().try_clone_to_owned().expect("a descriptor"));
        let (_ours, theirs) = UnixStream::pair().expect("descriptors");
        let fds = [theirs.as_raw_fd(); sys::fds::MAX];
        let rights = [ControlMessage::ScmRights(&fds)];
        let part = [IoSlice::new(b"x")];
        sendmsg::<UnixAddr>(pair.sender.as_raw_fd(), &part, &rights, MsgFlags::MSG_DONTWAIT, None).expect("room");
        assert_eq!(sender.send(b"x", theirs.as_fd()), Sent::Done);
        let mut bytes = vec![0; RECORD_MAX];
        assert!(matches!(receiver.take(&mut bytes), Taken::Junk));
        let mut taken = Vec::new();
        // A record stays until there is a descriptor for its connection.
        while let Ok(copy) = theirs.try_clone() {
            taken.push(copy);
        }
        assert!(matches!(receiver.take(&mut bytes), Taken::NoRoom));
        taken.clear();
        assert!(matches!(receiver.take(&mut bytes), Taken::Record(1, _)));
    }

    #[test]
    fn nobody_can_have_the_kernel_drop_what_is_sent() {
        let pair = Pair::new().expect("a pair");
        // struct sock_fprog: the number of instructions, and, in the next word, where they are. This one keeps nothing.
        let nothing = [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }];
        let mut program = [1_u16.to_ne_bytes(), [0; 2], [0; 2], [0; 2]].concat();
        program.truncate(size_of::<usize>());
        program.extend((nothing.as_ptr() as usize).to_ne_bytes());
        assert!(set(pair.receiver(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program).is_err());
        assert!(is_received(&pair));
    }

    #[test]
    fn what_a_process_has_changed_does_not_harm_the_next_one() {
        let pair = Pair::new().expect("a pair");
        let changed = [(libc::SO_PEEK_OFF, 1 << 20), (SO_PASSRIGHTS, 0), (libc::SO_PASSCRED, 1), (SO_PASSPIDFD, 1)];
        for (option, value) in changed {
            // Not every kernel knows all.
            let _ = set(pair.receiver(), libc::SOL_SOCKET, option, &i32::to_ne_bytes(value));
        }
        set(pair.sender(), libc::SOL_SOCKET, libc::SO_SNDBUF, &1_i32.to_ne_bytes()).expect("a socket");
        assert!(!is_received(&pair));
        pair.restore();
        assert!(is_received(&pair));
    }
}
