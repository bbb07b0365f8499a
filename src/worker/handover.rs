//! Connections that outlive their worker, for servers of one's own.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use crate::shared::channel::Order;
use crate::shared::handover::record::RECORD_MAX;
pub(super) use crate::shared::handover::Sender as Destination;
use crate::shared::handover::{Admitted, Gate, Receiver, Record, Sent, Taken};
use crate::shared::scoreboard::RowPage;
use crate::worker::Worker;

/// How long to wait for space in a queue.
const TIMEOUT: Duration = Duration::from_secs(1);

impl Worker {
    /// Returns the connections that workers of this pool pass to this one when they leave, or `None` on a second call.
    /// Call it before the listeners are taken, and before [`ready`](Worker::ready). From then on, workers that leave
    /// pass connections on here, so accept them until this worker is to finish.
    ///
    /// [`serve`](Worker::serve) does this by itself. A server of your own needs it only if it also
    /// [hands over](Worker::hand_over) its connections.
    pub fn take_over(&self) -> Option<TakenOver> {
        let receiver = self.sockets.handover.take()?;
        let mut gate = Gate::default();
        let (own, shared) = (self.sockets.own.borrow(), self.sockets.shared.borrow());
        own.iter().chain(&*shared).for_each(|listener| gate.open(listener.as_fd()));
        self.row().set_takes();
        Some(TakenOver { receiver, gate, page: self.page.clone(), bytes: vec![0; RECORD_MAX].into_boxed_slice() })
    }

    /// Passes a TCP connection to the process that serves on when this worker is to finish: its replacement, another
    /// worker if the slot is removed, or a worker of the new binary in an upgrade. The client does not notice.
    ///
    /// Call this after [`shutdown_signal`](Worker::shutdown_signal) has ended, when the connection is between two
    /// requests: everything that was read is answered and sent, or is in `unread`, up to 64 KiB. It waits up to a
    /// second if the receiver is behind.
    ///
    /// # Errors
    ///
    /// When nobody takes it over, as when the pool ends. The error has the connection, which is to be closed after its
    /// next response, as usual.
    pub fn hand_over(&self, connection: TcpStream, unread: &[u8]) -> Result<(), NotHandedOver> {
        match self.pass(&Record { unread, ..Record::default() }, connection.as_fd()) {
            true => Ok(()),
            false => Err(NotHandedOver(connection)),
        }
    }

    /// Whether other processes take over the connections of this worker, which is to finish.
    pub(super) fn has_destinations(&self) -> bool {
        let destinations = &mut *self.destinations.borrow_mut();
        while let Some(order) = self.lifeline.order() {
            if let Order::HandOver { to, .. } = order {
                destinations.push_back(to);
            }
        }
        !destinations.is_empty()
    }

    /// Passes a connection on. Returns whether somebody takes it over.
    pub(super) fn pass(&self, record: &Record<'_>, connection: BorrowedFd<'_>) -> bool {
        if !self.has_destinations() {
            return false;
        }
        let destinations = &mut *self.destinations.borrow_mut();
        let mut bytes = Vec::new();
        let fits = record.encode(&mut bytes);
        let end = Instant::now() + TIMEOUT;
        while let Some(destination) = destinations.front().filter(|_| fits) {
            match destination.send(&bytes, connection) {
                Sent::Done => {
                    destinations.rotate_left(1);
                    return true;
                }
                Sent::Full if wait_for_room(destination, end) => {}
                Sent::Full | Sent::Never => _ = destinations.pop_front(),
            }
        }
        false
    }
}

/// Waits until there may be space; returns whether there is time left.
fn wait_for_room(destination: &Destination, end: Instant) -> bool {
    let left = end.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
    match poll(&mut [PollFd::new(destination.as_fd(), PollFlags::POLLOUT)], timeout) {
        Ok(0) => false,
        Ok(_) => {
            // Too many descriptors are in flight, although there is space.
            std::thread::sleep(Duration::from_millis(1).min(left));
            !left.is_zero()
        }
        Err(errno) => errno == Errno::EINTR && !left.is_zero(),
    }
}

/// The connections that other workers pass to this one; see [`Worker::take_over`].
///
/// Its descriptor ([`AsFd`]) is readable when there is one.
pub struct TakenOver {
    receiver: Receiver,
    gate: Gate,
    page: RowPage,
    bytes: Box<[u8]>,
}

impl TakenOver {
    /// Returns the next connection, non-blocking, and what its client has sent that was not handled yet.
    ///
    /// Whoever has passed it on may have kept a copy, and may make it blocking again; in a pool whose workers do not
    /// trust each other use `MSG_DONTWAIT`.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is none now.
    pub fn accept(&mut self) -> io::Result<(TcpStream, Vec<u8>)> {
        loop {
            match self.next()? {
                (Admitted::Tcp(fd, _), _, unread) => return Ok((fd.into(), unread)),
                (Admitted::Unix(_), ..) => self.page.row().count_discarded(),
            }
        }
    }

    /// The next connection, its client's address as told by a proxy, and its unread bytes.
    pub(super) fn next(&mut self) -> io::Result<(Admitted, Option<SocketAddr>, Vec<u8>)> {
        loop {
            let (len, fd) = match self.receiver.take(&mut self.bytes) {
                Taken::Record(len, fd) => (len, fd),
                Taken::Junk => {
                    self.page.row().count_discarded();
                    continue;
                }
                Taken::NoRoom => return Err(io::Error::from_raw_os_error(libc::EMFILE)),
                Taken::Nothing | Taken::End => return Err(ErrorKind::WouldBlock.into()),
            };
            match (Record::decode(&self.bytes[..len]), self.gate.admit(fd)) {
                (Some(record), Ok(admitted)) => return Ok((admitted, record.source, record.unread.to_vec())),
                _ => self.page.row().count_discarded(),
            }
        }
    }
}

impl AsFd for TakenOver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

impl fmt::Debug for TakenOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TakenOver").finish_non_exhaustive()
    }
}

/// Nobody takes a connection over; see [`Worker::hand_over`].
#[derive(Debug)]
pub struct NotHandedOver(TcpStream);

impl NotHandedOver {
    /// Gives the connection back.
    pub fn into_connection(self) -> TcpStream {
        self.0
    }
}

impl fmt::Display for NotHandedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody takes the connection over")
    }
}

impl std::error::Error for NotHandedOver {}
