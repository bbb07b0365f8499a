//! The lifeline: one stream between the parent and each worker.
//!
//! Up go short records: *listening* with copies of the worker's sockets, *ready*, *awake*, *failed* with a reason. Down
//! goes nothing, ever; **end of file means finish**. The parent half-closes it to drain a worker, the kernel closes it
//! when the parent dies, and the worker's own SIGTERM ends it as well: one thing for user code to wait for.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags, UnixAddr};

use crate::sys;

/// Most bytes of the reason that a failing worker sends up.
const REASON_MAX: usize = 400;

const LISTENING: u8 = b'L';
const READY: u8 = b'R';
const AWAKE: u8 = b'A';
/// Followed by text until the end of the stream.
const FAILED: u8 = b'F';

/// What a worker says.
#[derive(Debug)]
pub(crate) enum Report {
    /// It listens; these are copies of its sockets, in the order of the addresses.
    Listening(Vec<OwnedFd>),
    /// It serves.
    Ready,
    /// It has become busy while the parent was not watching for stalls.
    Awake,
}

/// Makes the two ends of a lifeline.
pub(crate) fn lifeline() -> io::Result<(ParentEnd, WorkerEnd)> {
    let (parent, worker) = UnixStream::pair()?;
    parent.set_nonblocking(true)?;
    Ok((ParentEnd { stream: parent, failure: None }, WorkerEnd { stream: Arc::new(worker) }))
}

/// The parent's end.
#[derive(Debug)]
pub(crate) struct ParentEnd {
    stream: UnixStream,
    /// The worker's last words, once it has begun to say them.
    failure: Option<Vec<u8>>,
}

impl ParentEnd {
    /// What the worker has said since the last call; empty when there is nothing to read or it is gone.
    pub(crate) fn reports(&mut self) -> Vec<Report> {
        let mut reports = Vec::new();
        let mut bytes = [0; 512];
        loop {
            match sys::fds::receive(self.stream.as_fd(), &mut bytes) {
                Ok((0, _)) => return reports,
                Ok((len, fds)) => self.take(&bytes[..len], fds, &mut reports),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return reports,
            }
        }
    }

    /// `fds` came with one of `bytes`; only *listening* carries any, so they are its own.
    fn take(&mut self, bytes: &[u8], fds: Vec<OwnedFd>, reports: &mut Vec<Report>) {
        let mut fds = Some(fds);
        for byte in bytes {
            match (&mut self.failure, *byte) {
                (Some(words), byte) => {
                    if words.len() < REASON_MAX {
                        words.push(byte);
                    }
                }
                (None, LISTENING) => reports.push(Report::Listening(fds.take().unwrap_or_default())),
                (None, READY) => reports.push(Report::Ready),
                (None, AWAKE) => reports.push(Report::Awake),
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
}

impl WorkerEnd {
    pub(crate) fn stream(&self) -> &Arc<UnixStream> {
        &self.stream
    }

    pub(crate) fn listening(&self, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let fds: Vec<i32> = sockets.iter().map(|socket| socket.as_raw_fd()).collect();
        let control = [ControlMessage::ScmRights(&fds)];
        let parts = [IoSlice::new(&[LISTENING])];
        sendmsg::<UnixAddr>(self.stream.as_raw_fd(), &parts, &control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    pub(crate) fn ready(&self) -> io::Result<()> {
        (&*self.stream).write_all(&[READY])
    }

    pub(crate) fn awake(&self) {
        // A parent that is gone watches nothing.
        let _ = (&*self.stream).write_all(&[AWAKE]);
    }

    pub(crate) fn failed(&self, reason: &str) {
        let mut words = vec![FAILED];
        words.extend(reason.bytes().take(REASON_MAX));
        // A parent that is gone needs no reason.
        let _ = (&*self.stream).write_all(&words);
    }
}
