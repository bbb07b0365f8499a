//! The channels between the parent and each worker.
//!
//! - The *lifeline*, a stream that carries no data: **end of file means finish**. The parent half-closes it to drain a
//!   worker, the kernel closes it when the parent dies, and the worker's own SIGTERM ends it as well, so user code
//!   waits for one thing only.
//! - A pipe for *reports*, short records from the worker. [`protocol`] says which it may send, and when. A worker that
//!   sends anything else is killed.
//! - A pair of datagram sockets, which keep message boundaries, for *orders*: the parent has a worker look after
//!   another slot's sockets, or passes it a new file for the access log.
//! - For a worker that makes the sockets of its slot, a *birth* socket, over which it passes copies to the parent,
//!   once. Both sides close it before any code of the application runs.
//!
//! **Descriptors only go down.** User code can use every descriptor of its process. If a worker could pass descriptors
//! to the parent, the parent would have to close them, and closing can block (SO_LINGER in socket(7)). So after the
//! birth no channel carries descriptors up: a pipe cannot, and the parent's ends of the lifeline and of the orders are
//! shut down for reading.

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod order;
mod protocol;
pub(crate) mod remark;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    sendmsg, shutdown, socketpair, AddressFamily, ControlMessage, MsgFlags, Shutdown as Way, SockFlag, SockType,
    UnixAddr,
};
use nix::unistd::pipe2;

pub(crate) use self::order::Order;
use self::protocol::{
    Protocol, ACCEPTS, ANSWERED, AWAKE, BROKEN, DUE, EXECUTES, FAILED, LEAVE, LISTENING, OVERFLOW, PROGRAM, READY,
    REASON_MAX, RELEASED, REMARK, REQUESTS, RESUMED, STEER, STOPPED,
};
pub(crate) use self::protocol::{Record, Violation, REMARKS, STOPPING};
use self::remark::Remark;
use crate::shared::handover::plan::Selection;
use crate::shared::pace::Pace;
use crate::sys;
use crate::time::Time;

const WATCH: u8 = b'w';
const RELEASE: u8 = b'r';
const LOG: u8 = b'l';
const END: u8 = b'e';
const LOOK: u8 = b'k';
const HAND_OVER: u8 = b'h';
const HAND_OVER_TO_SUCCESSOR: u8 = b's';
const MOVE: u8 = b'm';
const MOVE_BUSY: u8 = b'b';
const EMPTY_QUEUE: u8 = b't';

/// An order to move has the number of connections, or of thousandths, in the upper half of the slot's number.
const SLOTS_OF_MOVE: usize = u32::MAX as usize;

/// Makes both ends for a worker of a pool with this number of TCP and UDP addresses.
pub(crate) fn channel(addresses: usize, makes_sockets: bool) -> io::Result<(ParentEnd, WorkerEnd)> {
    let (lifeline, stream) = UnixStream::pair()?;
    // A worker that writes to it gets EPIPE.
    lifeline.shutdown(Shutdown::Read)?;
    let (orders, ordered) = UnixDatagram::pair()?;
    orders.set_nonblocking(true)?;
    ordered.set_nonblocking(true)?;
    shutdown(orders.as_raw_fd(), Way::Read)?;
    let (reports, reported) = non_blocking_pipe()?;
    // The worker does not wait for the parent either.
    fcntl(&reported, FcntlArg::F_SETFL(OFlag::O_WRONLY | OFlag::O_NONBLOCK))?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let birth = makes_sockets.then(|| socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)).transpose()?;
    let (birth, born) = birth.unzip();
    let protocol = Protocol::new(addresses);
    let spare = RefCell::new(Some(ordered.try_clone()?));
    let parent = ParentEnd { lifeline, reports: reports.into(), birth, orders, addresses, protocol, has_more: false };
    let worker = WorkerEnd {
        stream: Arc::new(stream),
        reports: Arc::new(reported.into()),
        birth: RefCell::new(born),
        orders: ordered,
        spare,
        has_left: Cell::new(false),
        steer_pace: Cell::default(),
        overflow_pace: Cell::default(),
    };
    Ok((parent, worker))
}

/// Makes a pipe whose reading end does not block. The parent reads a worker's reports through one, and a keeper its
/// program's output. The ends are different file descriptions, so only the reader can make its end blocking.
pub(crate) fn non_blocking_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read, write))
}

/// The parent's end.
#[derive(Debug)]
pub(crate) struct ParentEnd {
    /// Never read.
    lifeline: UnixStream,
    reports: File,
    /// Open until the worker reports that it listens.
    birth: Option<OwnedFd>,
    orders: UnixDatagram,
    /// The number of addresses of the pool.
    addresses: usize,
    protocol: Protocol,
    /// Whether the latest read may have left data.
    has_more: bool,
}

/// What a worker has reported since the last call.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    pub(crate) records: Vec<Record>,
    /// How the worker has broken the protocol. Returned once.
    pub(crate) violation: Option<Violation>,
}

/// A socket that a worker has made, with the number of its address: TCP addresses first, then UDP.
pub(crate) type NumberedSocket = (usize, OwnedFd);

/// Reads from a pipe per turn, so that a worker that writes without end does not keep the parent.
const READS: usize = 16;

impl ParentEnd {
    /// Returns what the worker has reported since the last call, up to the limit of a turn
    /// ([`has_more`](ParentEnd::has_more)); nothing if the worker is gone.
    pub(crate) fn read_reports(&mut self, now: Time) -> Reports {
        let mut reports = Reports::default();
        let mut bytes = [0; 4096];
        self.has_more = false;
        for _ in 0..READS {
            match self.reports.read(&mut bytes) {
                Ok(0) => return reports,
                Ok(len) => match self.protocol.take(&bytes[..len], now, &mut reports.records) {
                    Ok(()) => {}
                    Err(violation) => {
                        // The rest has no meaning any more.
                        reports.violation = Some(violation);
                        return reports;
                    }
                },
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return reports,
            }
        }
        self.has_more = true;
        reports
    }

    /// Whether the latest call may have left data.
    pub(crate) fn has_more(&self) -> bool {
        self.has_more
    }

    /// Returns the sockets that the worker has made, once it reports that it listens.
    ///
    /// # Errors
    ///
    /// What is wrong with the message, and the descriptors in it, which the caller must not close where that could
    /// block.
    pub(crate) fn take_made(&mut self) -> Result<Vec<NumberedSocket>, (&'static str, Vec<OwnedFd>)> {
        let Some(birth) = self.birth.take() else { return Ok(Vec::new()) };
        let mut bytes = [0; 2 * sys::fds::MAX];
        let mut receive = || loop {
            match sys::fds::receive(birth.as_fd(), &mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                received => return received.map(|it| (bytes[..it.len].to_vec(), it.fds, it.is_cut)),
            }
        };
        let (said, mut fds, is_cut) = receive().unwrap_or_default();
        let more = receive().map_or(Vec::new(), |(_, fds, _)| fds);
        let numbers: Vec<usize> =
            said.chunks_exact(2).map(|it| usize::from(u16::from_le_bytes([it[0], it[1]]))).collect();
        let problem = if is_cut {
            Some("no descriptor is free for its sockets: raise RLIMIT_NOFILE")
        } else if fds.is_empty() || said.len() != 2 * fds.len() || !more.is_empty() {
            Some("it did not hand over its sockets as agreed")
        } else if !numbers.windows(2).all(|it| it[0] < it[1]) || numbers.last() >= Some(&self.addresses) {
            Some("it handed over sockets of addresses that the pool does not have")
        } else {
            None
        };
        match problem {
            None => Ok(numbers.into_iter().zip(fds).collect()),
            Some(problem) => {
                fds.extend(more);
                Err((problem, fds))
            }
        }
    }

    /// Why the worker failed, in its own words, on one line.
    pub(crate) fn failure(&self) -> Option<String> {
        self.protocol.reason()
    }

    /// Orders the worker to look after these sockets of another slot. Fails if the worker is gone or does not read its
    /// orders.
    pub(crate) fn watch(&self, slot: usize, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.order(WATCH, slot, sockets)
    }

    /// Orders the worker to let go of another slot's sockets.
    pub(crate) fn release(&mut self, slot: usize) -> io::Result<()> {
        self.order(RELEASE, slot, &[])?;
        self.protocol.ordered_release();
        Ok(())
    }

    /// Orders the worker to continue the access log in this file.
    pub(crate) fn log(&self, file: &File) -> io::Result<()> {
        self.order(LOG, 0, &[file.as_fd()])
    }

    /// Orders the keeper of a program to end it at once.
    pub(crate) fn end(&self) -> io::Result<()> {
        self.order(END, 0, &[])
    }

    /// Orders the worker to look at the queues of its slot.
    pub(crate) fn look(&self) -> io::Result<()> {
        self.order(LOOK, 0, &[])
    }

    /// Orders the worker to pass its connections to this slot when it is told to finish, in addition to the slots of
    /// earlier orders.
    pub(crate) fn hand_over(&self, slot: usize, to: BorrowedFd<'_>) -> io::Result<()> {
        self.order(HAND_OVER, slot, &[to])
    }

    /// As [`hand_over`](ParentEnd::hand_over), to a slot of the new pool in an upgrade.
    pub(crate) fn hand_over_to_successor(&self, slot: usize, to: BorrowedFd<'_>) -> io::Result<()> {
        self.order(HAND_OVER_TO_SUCCESSOR, slot, &[to])
    }

    /// Orders the worker to pass some of its connections to this slot.
    pub(crate) fn move_some(&self, slot: usize, selection: Selection, to: BorrowedFd<'_>) -> io::Result<()> {
        let (Selection::Any(count) | Selection::Busy(count)) = selection;
        let kind = if matches!(selection, Selection::Any(_)) { MOVE } else { MOVE_BUSY };
        self.order(kind, slot & SLOTS_OF_MOVE | (count as usize) << 32, &[to])
    }

    /// Orders the worker to take over what is in the queue of a slot that is no more.
    pub(crate) fn empty_queue(&self, slot: usize, from: BorrowedFd<'_>) -> io::Result<()> {
        self.order(EMPTY_QUEUE, slot, &[from])
    }

    fn order(&self, kind: u8, slot: usize, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut message = vec![kind];
        message.extend(u64::try_from(slot).unwrap_or(u64::MAX).to_le_bytes());
        send(&self.orders, &message, sockets)
    }

    /// Waits until the other side has ended, at most for `limit`; returns whether it has.
    pub(crate) fn ends_within(&self, limit: Duration) -> bool {
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        loop {
            // poll(2) reports the end (POLLHUP) without being asked to.
            match poll(&mut [PollFd::new(self.reports.as_fd(), PollFlags::empty())], timeout) {
                Err(Errno::EINTR) => {}
                found => return found.is_ok_and(|found| found > 0),
            }
        }
    }

    /// Tells the worker to finish. Its reports can still be read.
    pub(crate) fn close(&self) {
        // Fails only if the worker is gone, which is the goal.
        let _ = self.lifeline.shutdown(Shutdown::Write);
    }
}

/// Readable when there are reports.
impl AsRawFd for ParentEnd {
    fn as_raw_fd(&self) -> i32 {
        self.reports.as_raw_fd()
    }
}

/// The worker's end.
#[derive(Debug)]
pub(crate) struct WorkerEnd {
    /// Shared with the worker's signal handlers.
    stream: Arc<UnixStream>,
    reports: Arc<File>,
    /// Open until the worker listens.
    birth: RefCell<Option<OwnedFd>>,
    orders: UnixDatagram,
    /// Reserves a descriptor for the next order that brings one. Connections may have taken all others, and an order
    /// whose descriptor cannot be received is lost.
    spare: RefCell<Option<UnixDatagram>>,
    /// Whether the worker has asked to be told to finish.
    has_left: Cell<bool>,
    /// The rates of these requests to the parent.
    steer_pace: Cell<Pace>,
    overflow_pace: Cell<Pace>,
}

impl WorkerEnd {
    pub(crate) fn stream(&self) -> &Arc<UnixStream> {
        &self.stream
    }

    /// Passes copies of the sockets that this worker has made, with the numbers of their addresses, and reports that it
    /// listens and has closed what it inherited from the parent.
    pub(crate) fn listening(&self, made: &[(usize, BorrowedFd<'_>)]) -> io::Result<()> {
        if let Some(birth) = self.birth.take() {
            let numbers = made.iter().map(|(address, _)| u16::try_from(*address).unwrap_or(u16::MAX).to_le_bytes());
            let sockets: Vec<_> = made.iter().map(|(_, socket)| *socket).collect();
            send(&birth, &numbers.flatten().collect::<Vec<_>>(), &sockets)?;
        }
        self.say(&[LISTENING])
    }

    /// Sends a record without waiting, whole or not at all (pipe(7), `PIPE_BUF`).
    fn say(&self, record: &[u8]) -> io::Result<()> {
        (&*self.reports).write_all(record)
    }

    /// The socket that is readable when there are orders.
    pub(crate) fn orders_source(&self) -> &UnixDatagram {
        &self.orders
    }

    /// Returns the next order, if there is one.
    pub(crate) fn order(&self) -> Option<Order> {
        let mut message = [0; 9];
        let (len, fds) = loop {
            drop(self.spare.take());
            let received = sys::fds::receive(self.orders.as_fd(), &mut message);
            // If no descriptor is free now, one may be when the order has been carried out.
            self.spare.replace(self.orders.try_clone().ok());
            match received {
                // The order had several descriptors and is lost. Those that arrived are closed; later orders are still
                // readable.
                Ok(received) if received.is_cut => {}
                received => break received.map(|it| (it.len, it.fds)).ok()?,
            }
        };
        let slot = usize::try_from(u64::from_le_bytes(message[1..].try_into().ok()?)).ok()?;
        match (message[0], len) {
            (WATCH, 9) => Some(Order::Watch { slot, sockets: fds }),
            (RELEASE, 9) => Some(Order::Release { slot }),
            (LOG, 9) => Some(Order::Log { file: fds.into_iter().next()?.into() }),
            (END, 9) => Some(Order::End),
            (LOOK, 9) => Some(Order::Look),
            (kind @ (HAND_OVER | HAND_OVER_TO_SUCCESSOR), 9) => {
                let to = fds.into_iter().next()?.into();
                Some(Order::HandOver { slot, to, is_successor: kind == HAND_OVER_TO_SUCCESSOR })
            }
            (kind @ (MOVE | MOVE_BUSY), 9) => {
                let count = u32::try_from(slot >> 32).ok()?;
                let selection = if kind == MOVE { Selection::Any(count) } else { Selection::Busy(count) };
                Some(Order::Move { slot: slot & SLOTS_OF_MOVE, selection, to: fds.into_iter().next()?.into() })
            }
            (EMPTY_QUEUE, 9) => Some(Order::EmptyQueue { from: fds.into_iter().next()?.into() }),
            _ => None,
        }
    }

    pub(crate) fn released(&self) {
        // Nobody waits for this if the parent is gone.
        let _ = self.say(&[RELEASED]);
    }

    pub(crate) fn due(&self) {
        // Nobody replaces this worker if the parent is gone.
        let _ = self.say(&[DUE]);
    }

    pub(crate) fn leave(&self) {
        if !self.has_left.replace(true) {
            // If the parent is gone, the lifeline has ended already.
            let _ = self.say(&[LEAVE]);
        }
    }

    /// Reports that a socket of this worker's own slot fails, by the number of its address: TCP addresses first, then
    /// UDP. Call this at most once a second; the parent takes more for an attack.
    pub(crate) fn broken(&self, address: usize) {
        let [low, high] = u16::try_from(address).unwrap_or(u16::MAX).to_le_bytes();
        // Nobody repairs it if the parent is gone.
        let _ = self.say(&[BROKEN, low, high]);
    }

    /// Asks the parent to check the steering. Allowed once the worker is ready. Requests above the allowed rate are
    /// dropped here, since the parent would take them for an attack; the caller repeats them as long as there is a
    /// reason.
    pub(crate) fn steer(&self, now: Time) {
        self.request(&self.steer_pace, STEER, now);
    }

    /// Reports that a connection waits in a queue that other workers accept from as well, and that this one has no room
    /// for it. Allowed and dropped as [`steer`](WorkerEnd::steer).
    pub(crate) fn overflow(&self, now: Time) {
        self.request(&self.overflow_pace, OVERFLOW, now);
    }

    fn request(&self, pace: &Cell<Pace>, record: u8, now: Time) {
        let mut next = pace.get();
        if next.take(REQUESTS, now).is_ok() {
            pace.set(next);
            // Nobody obeys if the parent is gone.
            let _ = self.say(&[record]);
        }
    }

    pub(crate) fn ready(&self) -> io::Result<()> {
        self.say(&[READY])
    }

    pub(crate) fn awake(&self) {
        self.waking().awake();
    }

    /// What other threads need to wake the parent.
    pub(crate) fn waking(&self) -> ParentWaker {
        ParentWaker(Arc::clone(&self.reports))
    }

    pub(crate) fn executes(&self) -> io::Result<()> {
        self.say(&[EXECUTES])
    }

    /// Reports that the program of this keeper runs.
    pub(crate) fn program(&self, pid: i32) -> io::Result<()> {
        let [a, b, c, d] = pid.to_le_bytes();
        self.say(&[PROGRAM, a, b, c, d])
    }

    /// Reports that the program waits for connections. The parent then sends it some, and its keeper asks it whether it
    /// is ready.
    pub(crate) fn accepts(&self) {
        // A parent that is gone sends none.
        let _ = self.say(&[ACCEPTS]);
    }

    /// Reports with which status the program has answered that request. Call this [`REMARKS`] times at most.
    pub(crate) fn answered(&self, status: u16) {
        let [low, high] = status.to_le_bytes();
        // Nobody says it if the parent is gone.
        let _ = self.say(&[ANSWERED, low, high]);
    }

    /// Reports what was noticed about the program. Call this [`REMARKS`] times at most.
    pub(crate) fn remark(&self, remark: Remark) {
        let mut bytes = vec![REMARK];
        bytes.extend(remark.encode());
        // Nobody says it if the parent is gone.
        let _ = self.say(&bytes);
    }

    /// Reports that a signal has stopped the program, or that it runs again. Call this at most at the rate of
    /// [`STOPPING`].
    pub(crate) fn suspended(&self, is_stopped: bool) {
        // Nobody replaces it if the parent is gone.
        let _ = self.say(&[if is_stopped { STOPPED } else { RESUMED }]);
    }

    pub(crate) fn failed(&self, reason: &str) {
        let mut words = vec![FAILED];
        words.extend(reason.bytes().take(REASON_MAX));
        // Nobody reads the reason if the parent is gone.
        let _ = self.say(&words);
    }
}

/// Tells the parent that the worker has become busy.
#[derive(Clone, Debug)]
pub(crate) struct ParentWaker(Arc<File>);

impl ParentWaker {
    pub(crate) fn awake(&self) {
        let _ = (&*self.0).write_all(&[AWAKE]);
    }
}

/// Sends bytes with copies of sockets (unix(7), `SCM_RIGHTS`).
fn send(socket: &impl AsRawFd, bytes: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let fds: Vec<i32> = sockets.iter().map(|socket| socket.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights };
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}
