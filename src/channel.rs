//! The lifeline: one stream between the parent and each worker.
//!
//! Up go short records: *listening* with copies of the worker's sockets, *ready*, *awake*, *failed* with a reason, and
//! *executes* before the worker becomes another program; then the stream's end says that it has. Down
//! goes nothing, ever; **end of file means finish**. The parent half-closes it to drain a worker, the kernel closes it
//! when the parent dies, and the worker's own SIGTERM ends it as well: one thing for user code to wait for.
//!
//! What a worker may say, and when, is in [`protocol`]: anything else ends it.
//!
//! Beside it runs a pair of datagram sockets, whose messages keep their boundaries: on it the parent orders a worker to
//! look after another slot's sockets, or gives it another file for the access log.

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod protocol;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags, UnixAddr};

use crate::sys;
use crate::time::Time;

use self::protocol::{
    Protocol, AWAKE, BROKEN, DUE, EXECUTES, FAILED, LEAVE, LISTENING, READY, REASON_MAX, RELEASED, STEER,
};
pub(crate) use self::protocol::{Record, Violation};

const OUTPUT: u8 = b'O';
const EXECUTES_AND_NOTIFIES: u8 = b'N';
const EXECUTES_AND_RINGS: u8 = b'T';

/// What a worker says.
#[derive(Debug)]
pub(crate) enum Report {
    Record(Record),
    /// What is read from these pipes is its stdout and its stderr.
    Output([OwnedFd; 2]),
    /// By what it is seen that the program is ready that it is about to execute.
    Sign(Sign),
    /// It has broken the protocol; told once.
    Violation(Violation),
}

/// By what the parent sees that a program is ready.
#[derive(Debug)]
pub(crate) enum Sign {
    /// That it was executed.
    Execution,
    /// What sd_notify(3) sends to this socket.
    Notification(UnixDatagram),
    /// That this timer (timerfd_create(2)) rings.
    Timer(OwnedFd),
}

/// What a worker is ordered to do: with another slot's sockets, or with a file.
#[derive(Debug)]
pub(crate) enum Order {
    /// Look after them, behind whoever does already.
    Watch { slot: usize, sockets: Vec<OwnedFd> },
    /// Let go of them, and report it.
    Release { slot: usize },
    /// Go on with the access log in this file.
    Log { file: File },
}

const WATCH: u8 = b'w';
const RELEASE: u8 = b'r';
const LOG: u8 = b'l';

/// Makes the two ends of a lifeline, for a worker of a pool that has so many TCP and UDP addresses.
pub(crate) fn lifeline(addresses: usize) -> io::Result<(ParentEnd, WorkerEnd)> {
    let (parent, worker) = UnixStream::pair()?;
    parent.set_nonblocking(true)?;
    let (orders, ordered) = UnixDatagram::pair()?;
    orders.set_nonblocking(true)?;
    ordered.set_nonblocking(true)?;
    let parent =
        ParentEnd { stream: parent, orders, protocol: Protocol::new(addresses), sockets: Vec::new(), has_more: false };
    let spare = RefCell::new(Some(ordered.try_clone()?));
    Ok((parent, WorkerEnd { stream: Arc::new(worker), orders: ordered, spare, has_left: Cell::new(false) }))
}

/// The parent's end.
#[derive(Debug)]
pub(crate) struct ParentEnd {
    stream: UnixStream,
    orders: UnixDatagram,
    protocol: Protocol,
    /// The worker's sockets, that came with its word that it listens.
    sockets: Vec<OwnedFd>,
    /// There may be more than the latest reading has taken.
    has_more: bool,
}

/// Reads from a lifeline in one turn: whoever writes to it without end must not keep the parent.
const READS: usize = 16;

impl ParentEnd {
    /// What the worker has said since the last call, or a turn's worth of it ([`has_more`](ParentEnd::has_more)); empty
    /// when there is nothing to read or it is gone.
    pub(crate) fn reports(&mut self, now: Time) -> Vec<Report> {
        let mut reports = Vec::new();
        let mut bytes = [0; 4096];
        self.has_more = false;
        for _ in 0..READS {
            match sys::fds::receive(self.stream.as_fd(), &mut bytes) {
                Ok((0, _)) => {
                    reports.extend(self.protocol.end().map(Report::Record));
                    return reports;
                }
                Ok((len, fds)) => self.take(&bytes[..len], fds, now, &mut reports),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return reports,
            }
        }
        self.has_more = true;
        reports
    }

    /// Whether there may be more than the latest [`reports`](ParentEnd::reports).
    pub(crate) fn has_more(&self) -> bool {
        self.has_more
    }

    /// `fds` came with the last of `bytes`: records that carry any are a byte long, and the kernel ends a read behind
    /// them (unix(7)).
    fn take(&mut self, bytes: &[u8], fds: Vec<OwnedFd>, now: Time, reports: &mut Vec<Report>) {
        let (mut said, mut fds) = (bytes.to_vec(), fds.into_iter());
        match said.last_mut() {
            Some(byte) if *byte == LISTENING && self.sockets.is_empty() => self.sockets = fds.collect(),
            Some(byte) if *byte == OUTPUT => {
                said.pop();
                reports.extend(fds.next().zip(fds.next()).map(|(stdout, stderr)| Report::Output([stdout, stderr])));
            }
            Some(byte) if [EXECUTES_AND_NOTIFIES, EXECUTES_AND_RINGS].contains(byte) => {
                let sign = match (*byte, fds.next()) {
                    (EXECUTES_AND_NOTIFIES, Some(socket)) => Some(Sign::Notification(socket.into())),
                    (EXECUTES_AND_RINGS, Some(timer)) => Some(Sign::Timer(timer)),
                    _ => None,
                };
                *byte = EXECUTES;
                reports.extend(sign.map(Report::Sign));
            }
            _ => {}
        }
        let mut records = Vec::new();
        let taken = self.protocol.take(&said, now, &mut records);
        reports.extend(records.into_iter().map(Report::Record));
        reports.extend(taken.err().map(Report::Violation));
    }

    /// The sockets that the worker has made, once it has said that it listens.
    pub(crate) fn take_sockets(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.sockets)
    }

    /// Why the worker gave up, in its own words, on one line.
    pub(crate) fn failure(&self) -> Option<String> {
        self.protocol.reason()
    }

    /// Orders the worker to look after these sockets of another slot. Fails when it is gone or does not listen to
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

    /// Orders the worker to go on with the access log in this file.
    pub(crate) fn log(&self, file: &File) -> io::Result<()> {
        self.order(LOG, 0, &[file.as_fd()])
    }

    fn order(&self, kind: u8, slot: usize, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut message = vec![kind];
        message.extend(u64::try_from(slot).unwrap_or(u64::MAX).to_le_bytes());
        send(&self.orders, &message, sockets)
    }

    /// Waits until the other side has ended, and for so long at most; returns whether it has.
    pub(crate) fn ends_within(&self, patience: Duration) -> bool {
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        loop {
            // The end is told without being asked for (poll(2), POLLHUP).
            match poll(&mut [PollFd::new(self.stream.as_fd(), PollFlags::empty())], timeout) {
                Err(Errno::EINTR) => {}
                found => return found.is_ok_and(|found| found > 0),
            }
        }
    }

    /// Asks the worker to finish. What it has to say still comes up.
    pub(crate) fn close(&self) {
        // Fails only when the worker is gone, which is what was asked.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

impl AsRawFd for ParentEnd {
    fn as_raw_fd(&self) -> i32 {
        self.stream.as_raw_fd()
    }
}

/// The worker's end.
#[derive(Debug)]
pub(crate) struct WorkerEnd {
    /// Shared with the worker's signal actions.
    stream: Arc<UnixStream>,
    orders: UnixDatagram,
    /// Holds a descriptor free for the one that comes with an order: connections may have taken all others, and an order
    /// whose descriptor finds no place is lost.
    spare: RefCell<Option<UnixDatagram>>,
    /// It has asked to be told to finish.
    has_left: Cell<bool>,
}

impl WorkerEnd {
    pub(crate) fn stream(&self) -> &Arc<UnixStream> {
        &self.stream
    }

    pub(crate) fn listening(&self, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(&self.stream, &[LISTENING], sockets)
    }

    /// What is readable when there are orders.
    pub(crate) fn orders_source(&self) -> &UnixDatagram {
        &self.orders
    }

    /// The next order, if there is one.
    pub(crate) fn order(&self) -> Option<Order> {
        let mut message = [0; 9];
        let (len, fds) = loop {
            drop(self.spare.take());
            let received = sys::fds::receive(self.orders.as_fd(), &mut message);
            // Where there is none now, there may be one when the order is done.
            self.spare.replace(self.orders.try_clone().ok());
            match received {
                // It came with several: that one is lost, and not those behind it.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                received => break received.ok()?,
            }
        };
        let slot = usize::try_from(u64::from_le_bytes(message[1..].try_into().ok()?)).ok()?;
        match (message[0], len) {
            (WATCH, 9) => Some(Order::Watch { slot, sockets: fds }),
            (RELEASE, 9) => Some(Order::Release { slot }),
            (LOG, 9) => Some(Order::Log { file: fds.into_iter().next()?.into() }),
            _ => None,
        }
    }

    pub(crate) fn released(&self) {
        // A parent that is gone waits for nothing.
        let _ = (&*self.stream).write_all(&[RELEASED]);
    }

    pub(crate) fn due(&self) {
        // A parent that is gone replaces nobody.
        let _ = (&*self.stream).write_all(&[DUE]);
    }

    pub(crate) fn leave(&self) {
        if !self.has_left.replace(true) {
            // A parent that is gone has told it.
            let _ = (&*self.stream).write_all(&[LEAVE]);
        }
    }

    /// Tells the parent that a socket of this worker's own slot fails: the one of this address, counted among the TCP
    /// and then the UDP addresses. Not more than once a second, or it is taken for an attack.
    pub(crate) fn broken(&self, address: usize) {
        let [low, high] = u16::try_from(address).unwrap_or(u16::MAX).to_le_bytes();
        // A parent that is gone mends nothing.
        let _ = (&*self.stream).write_all(&[BROKEN, low, high]);
    }

    /// Asks the parent to look at who is to get new connections. Allowed once the worker is ready.
    pub(crate) fn steer(&self) {
        ring(&self.stream, STEER);
    }

    pub(crate) fn ready(&self) -> io::Result<()> {
        (&*self.stream).write_all(&[READY])
    }

    pub(crate) fn awake(&self) {
        self.waking().awake();
    }

    /// What other threads need to wake the parent.
    pub(crate) fn waking(&self) -> Waking {
        Waking(Arc::clone(&self.stream))
    }

    pub(crate) fn output(&self, pipes: [BorrowedFd<'_>; 2]) -> io::Result<()> {
        send(&self.stream, &[OUTPUT], &pipes)
    }

    pub(crate) fn executes(&self, sign: &Sign) -> io::Result<()> {
        match sign {
            Sign::Execution => send(&self.stream, &[EXECUTES], &[]),
            Sign::Notification(socket) => send(&self.stream, &[EXECUTES_AND_NOTIFIES], &[socket.as_fd()]),
            Sign::Timer(timer) => send(&self.stream, &[EXECUTES_AND_RINGS], &[timer.as_fd()]),
        }
    }

    pub(crate) fn failed(&self, reason: &str) {
        let mut words = vec![FAILED];
        words.extend(reason.bytes().take(REASON_MAX));
        // A parent that is gone needs no reason.
        let _ = (&*self.stream).write_all(&words);
    }
}

/// Tells the parent that the worker has become busy.
#[derive(Clone, Debug)]
pub(crate) struct Waking(Arc<UnixStream>);

impl Waking {
    pub(crate) fn awake(&self) {
        ring(&self.0, AWAKE);
    }
}

/// Rings the parent. One that is gone does nothing about it; one that has not read for so long that there is no room is not
/// waited for.
fn ring(lifeline: &UnixStream, record: u8) {
    let _ = nix::sys::socket::send(lifeline.as_raw_fd(), &[record], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
}

/// Sends bytes and, with them, copies of sockets (unix(7), `SCM_RIGHTS`).
fn send(socket: &impl AsRawFd, bytes: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let fds: Vec<i32> = sockets.iter().map(|socket| socket.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights };
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_read_turn_by_turn_and_breaks_the_protocol_once() {
        let (mut parent, worker) = lifeline(0).expect("a socket pair");
        worker.stream().set_nonblocking(true).expect("a socket");
        let noise = [b'-'; 4096];
        while (&**worker.stream()).write(&noise).is_ok() {}
        let mut turns = 0;
        let mut violations = 0;
        loop {
            turns += 1;
            violations += parent.reports(Time::default()).len();
            if !parent.has_more() {
                break;
            }
        }
        assert!(turns > 1, "{turns}");
        assert_eq!(violations, 1);
    }
}
