//! The lifeline: one stream between the parent and each worker.
//!
//! Up go short records: *listening* with copies of the worker's sockets, *ready*, *awake*, *failed* with a reason, and
//! *executes* before the worker becomes another program; then the stream's end says that it has. Down
//! goes nothing, ever; **end of file means finish**. The parent half-closes it to drain a worker, the kernel closes it
//! when the parent dies, and the worker's own SIGTERM ends it as well: one thing for user code to wait for.
//!
//! Beside it runs a pair of datagram sockets, whose messages keep their boundaries: on it the parent orders a worker to
//! look after another slot's sockets, or gives it another file for the access log.

use std::cell::RefCell;
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

/// Most bytes of the reason that a failing worker sends up.
const REASON_MAX: usize = 400;

const LISTENING: u8 = b'L';
const READY: u8 = b'R';
const AWAKE: u8 = b'A';
const RELEASED: u8 = b'D';
const DUE: u8 = b'M';
const LEAVE: u8 = b'Q';
const OUTPUT: u8 = b'O';
const EXECUTES: u8 = b'X';
const EXECUTES_AND_NOTIFIES: u8 = b'N';
const EXECUTES_AND_RINGS: u8 = b'T';
/// Followed by text until the end of the stream.
const FAILED: u8 = b'F';

/// What a worker says.
#[derive(Debug)]
pub(crate) enum Report {
    /// It listens and holds nothing of the parent's any more; these are copies of its sockets, in the order of the
    /// addresses, if it had to make them.
    Listening(Vec<OwnedFd>),
    /// It serves.
    Ready,
    /// It has become busy while the parent was not watching for stalls.
    Awake,
    /// It has let go of the sockets that it was first ordered to release.
    Released,
    /// It has served as many requests as it may.
    Due,
    /// It wants to be told to finish.
    Leave,
    /// What is read from these pipes is its stdout and its stderr.
    Output([OwnedFd; 2]),
    /// It is about to become another program, which hears signals and nothing else, and is ready at this sign.
    Executes(Sign),
    /// It has become that program, or has ended on the way.
    Executed,
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

/// Makes the two ends of a lifeline.
pub(crate) fn lifeline() -> io::Result<(ParentEnd, WorkerEnd)> {
    let (parent, worker) = UnixStream::pair()?;
    parent.set_nonblocking(true)?;
    let (orders, ordered) = UnixDatagram::pair()?;
    orders.set_nonblocking(true)?;
    ordered.set_nonblocking(true)?;
    let parent = ParentEnd { stream: parent, orders, failure: None, executes: false, has_more: false };
    let spare = RefCell::new(Some(ordered.try_clone()?));
    Ok((parent, WorkerEnd { stream: Arc::new(worker), orders: ordered, spare }))
}

/// The parent's end.
#[derive(Debug)]
pub(crate) struct ParentEnd {
    stream: UnixStream,
    orders: UnixDatagram,
    /// The worker's last words, once it has begun to say them.
    failure: Option<Vec<u8>>,
    /// The worker has said that it is about to execute a program, and the stream has not ended since.
    executes: bool,
    /// There may be more than the latest reading has taken.
    has_more: bool,
}

/// Reads from a lifeline in one turn, far more than a worker has to say: user code can reach this stream, and whoever
/// writes to it without end must not keep the parent.
const READS: usize = 64;

impl ParentEnd {
    /// What the worker has said since the last call, or a turn's worth of it ([`has_more`](ParentEnd::has_more)); empty
    /// when there is nothing to read or it is gone.
    pub(crate) fn reports(&mut self) -> Vec<Report> {
        let mut reports = Vec::new();
        let mut bytes = [0; 512];
        self.has_more = false;
        for _ in 0..READS {
            match sys::fds::receive(self.stream.as_fd(), &mut bytes) {
                Ok((0, _)) => {
                    // Its end of the stream is closed on execve(2); if that fails, it says so before it ends.
                    if std::mem::take(&mut self.executes) && self.failure.is_none() {
                        reports.push(Report::Executed);
                    }
                    return reports;
                }
                Ok((len, fds)) => self.take(&bytes[..len], fds, &mut reports),
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
    fn take(&mut self, bytes: &[u8], fds: Vec<OwnedFd>, reports: &mut Vec<Report>) {
        let mut fds = fds.into_iter();
        for (index, byte) in bytes.iter().enumerate() {
            let mut fds = fds.by_ref().take(if index + 1 == bytes.len() { sys::fds::MAX } else { 0 });
            match (&mut self.failure, *byte) {
                (Some(words), byte) => {
                    if words.len() < REASON_MAX {
                        words.push(byte);
                    }
                }
                (None, LISTENING) => reports.push(Report::Listening(fds.collect())),
                (None, READY) => reports.push(Report::Ready),
                (None, AWAKE) => reports.push(Report::Awake),
                (None, RELEASED) => reports.push(Report::Released),
                (None, DUE) => reports.push(Report::Due),
                (None, LEAVE) => reports.push(Report::Leave),
                (None, OUTPUT) => {
                    if let (Some(stdout), Some(stderr)) = (fds.next(), fds.next()) {
                        reports.push(Report::Output([stdout, stderr]));
                    }
                }
                (None, kind @ (EXECUTES | EXECUTES_AND_NOTIFIES | EXECUTES_AND_RINGS)) => {
                    self.executes = true;
                    reports.push(Report::Executes(match (kind, fds.next()) {
                        (EXECUTES_AND_NOTIFIES, Some(socket)) => Sign::Notification(socket.into()),
                        (EXECUTES_AND_RINGS, Some(timer)) => Sign::Timer(timer),
                        _ => Sign::Execution,
                    }));
                }
                (None, FAILED) => self.failure = Some(Vec::new()),
                // User code can reach this stream; what it writes there is noise.
                (None, _) => {}
            }
        }
    }

    /// Why the worker gave up, in its own words, on one line.
    pub(crate) fn failure(&self) -> Option<String> {
        let words = String::from_utf8_lossy(self.failure.as_ref()?);
        Some(words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    }

    /// Orders the worker to look after these sockets of another slot. Fails when it is gone or does not listen to
    /// orders.
    pub(crate) fn watch(&self, slot: usize, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.order(WATCH, slot, sockets)
    }

    /// Orders the worker to let go of another slot's sockets.
    pub(crate) fn release(&self, slot: usize) -> io::Result<()> {
        self.order(RELEASE, slot, &[])
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
        // A parent that is gone has told it.
        let _ = (&*self.stream).write_all(&[LEAVE]);
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
        // A parent that is gone watches nothing.
        let _ = (&*self.0).write_all(&[AWAKE]);
    }
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
    fn descriptors_belong_to_the_record_that_they_came_with() {
        let (mut parent, worker) = lifeline().expect("a socket pair");
        let (socket, _) = UnixDatagram::pair().expect("a socket pair");
        worker.listening(&[]).expect("the parent is there");
        worker.executes(&Sign::Notification(socket)).expect("the parent is there");
        let reports = parent.reports();
        assert!(
            matches!(&reports[..], [Report::Listening(fds), Report::Executes(Sign::Notification(_))] if fds.is_empty()),
            "{reports:?}"
        );
    }

    #[test]
    fn a_flood_is_read_turn_by_turn_and_hides_no_report() {
        let (mut parent, worker) = lifeline().expect("a socket pair");
        worker.stream().set_nonblocking(true).expect("a socket");
        let noise = [b'-'; 4096];
        while (&**worker.stream()).write(&noise).is_ok() {}
        let mut turns = 0;
        while parent.reports().is_empty() && parent.has_more() {
            turns += 1;
        }
        assert!(turns > 1, "{turns}");
        worker.ready().expect("there is room");
        assert!(matches!(parent.reports()[..], [Report::Ready]) && !parent.has_more());
    }

    #[test]
    fn the_end_of_the_stream_tells_of_an_execution_that_was_announced_and_did_not_fail() {
        for (announced, failed, executed) in [(true, false, true), (true, true, false), (false, false, false)] {
            let (mut parent, worker) = lifeline().expect("a socket pair");
            if announced {
                worker.executes(&Sign::Execution).expect("the parent is there");
            }
            if failed {
                worker.failed("no such program");
            }
            assert!(!parent.reports().iter().any(|report| matches!(report, Report::Executed)));
            drop(worker);
            let at_the_end = |parent: &mut ParentEnd| matches!(parent.reports()[..], [Report::Executed]);
            assert_eq!(at_the_end(&mut parent), executed, "{announced} {failed}");
            assert!(!at_the_end(&mut parent), "told twice");
        }
    }
}
