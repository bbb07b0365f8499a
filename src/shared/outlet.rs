//! Writes logs without ever blocking, whatever the descriptor is.
//!
//! O_NONBLOCK belongs to the open file description (open(2)), which standard error shares with the process that started
//! this one, and an inherited file with the siblings. This process must not set the flag there, and others may clear
//! it. So a pipe or a terminal is opened again, for a description of this process's own. If that is refused because it
//! belongs to another user, splice(2) can be told not to block.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{fcntl, splice, FcntlArg, OFlag, SpliceFFlags};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::socket::{send, MsgFlags};
use nix::unistd::{isatty, pipe2};

/// The length that a pipe accepts whole or not at all, whoever else writes to it (pipe(7), `PIPE_BUF`).
pub(crate) const ATOMIC: usize = 4096;

/// How much to write at once to a terminal that could not be opened again. poll(2) only says that there is some space.
const LITTLE: usize = 128;

/// The destination of a log.
#[derive(Debug)]
pub(crate) struct Outlet {
    file: File,
    kind: Kind,
    /// Whether the last write ended within a line.
    in_line: bool,
    /// Whether that line is incomplete for good, so the next one must begin on a new line.
    is_torn: bool,
}

#[derive(Debug)]
enum Kind {
    /// A file, or a device that never blocks.
    File,
    Socket,
    /// A pipe or FIFO, with an open file description of this process's own.
    OwnPipe,
    /// A pipe that could not be opened again, and an empty pipe of ours, from which the kernel moves the bytes.
    Pipe {
        read: File,
        write: File,
    },
    OwnTerminal,
    Terminal,
}

impl Outlet {
    /// Takes a descriptor whose flags it does not change.
    pub(crate) fn new(descriptor: OwnedFd) -> Outlet {
        let given = File::from(descriptor);
        let found = given.metadata().map(|found| found.file_type());
        let (is_pipe, is_socket) = found.map_or((false, false), |it| (it.is_fifo(), it.is_socket()));
        let is_terminal = isatty(&given).unwrap_or(false);
        let own = if is_pipe || is_terminal { reopen(&given).ok() } else { None };
        let is_own = own.is_some();
        let kind = match () {
            () if is_socket => Kind::Socket,
            () if is_pipe && is_own => Kind::OwnPipe,
            // Without free descriptors, treat it like a terminal.
            () if is_pipe => pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
                .map_or(Kind::Terminal, |(read, write)| Kind::Pipe { read: read.into(), write: write.into() }),
            () if is_terminal && is_own => Kind::OwnTerminal,
            () if is_terminal => Kind::Terminal,
            () => Kind::File,
        };
        Outlet { file: own.unwrap_or(given), kind, in_line: false, is_torn: false }
    }

    /// Whether this is a file, to which many lines can be written at once.
    pub(crate) fn is_file(&self) -> bool {
        self.file.metadata().is_ok_and(|found| found.is_file())
    }

    /// Writes as many of these lines as are accepted at once. Returns the number of bytes written, and the error if it
    /// is not all of them.
    pub(crate) fn write(&mut self, lines: &[u8]) -> (usize, Option<io::Error>) {
        if self.is_torn {
            match self.write_once(b"\n") {
                Ok(_) => self.is_torn = false,
                Err(error) => return (0, Some(error)),
            }
        }
        let mut written = 0;
        while written < lines.len() {
            let rest = &lines[written..];
            match self.write_once(if matches!(self.kind, Kind::File) { rest } else { part(rest) }) {
                Ok(0) => return (written, Some(ErrorKind::WriteZero.into())),
                Ok(len) => {
                    written += len;
                    self.in_line = rest[len - 1] != b'\n';
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return (written, Some(error)),
            }
        }
        (written, None)
    }

    /// The rest of the current line will not be written.
    pub(crate) fn give_up(&mut self) {
        self.is_torn |= std::mem::take(&mut self.in_line);
    }

    /// Waits until there is space, at most for `limit`.
    pub(crate) fn wait(&self, limit: PollTimeout) -> bool {
        matches!(poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)], limit), Ok(1))
    }

    fn write_once(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.kind {
            Kind::File => (&self.file).write(bytes).or_else(|error| {
                self.be_buffered(error)?;
                (&self.file).write(bytes)
            }),
            Kind::OwnPipe => (&self.file).write(bytes),
            Kind::Socket => Ok(send(self.file.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?),
            Kind::Pipe { read, write } => splice_once(self.file.as_fd(), read, write, bytes),
            Kind::OwnTerminal => in_background(|| (&self.file).write(bytes)),
            Kind::Terminal if !self.wait(PollTimeout::ZERO) => Err(ErrorKind::WouldBlock.into()),
            Kind::Terminal => in_background(|| (&self.file).write(&bytes[..bytes.len().min(LITTLE)])),
        }
    }

    /// Clears O_DIRECT if it may be the reason for this error. Whoever shares the open file description can set it, and
    /// a file that bypasses the cache then refuses lines.
    fn be_buffered(&self, error: io::Error) -> io::Result<()> {
        let flags = OFlag::from_bits_retain(fcntl(&self.file, FcntlArg::F_GETFL)?);
        if error.kind() != ErrorKind::InvalidInput || !flags.contains(OFlag::O_DIRECT) {
            return Err(error);
        }
        fcntl(&self.file, FcntlArg::F_SETFL(flags - OFlag::O_DIRECT))?;
        Ok(())
    }
}

/// Opens the same file again, in a non-blocking open file description of its own.
fn reopen(file: &File) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// Moves bytes into a pipe in the kernel: all or none, since they lie in one page.
fn splice_once(to: BorrowedFd<'_>, mut read: &File, mut write: &File, bytes: &[u8]) -> io::Result<usize> {
    let len = write.write(&bytes[..bytes.len().min(ATOMIC)])?;
    let moved = splice(read, None, to, None, len, SpliceFFlags::SPLICE_F_NONBLOCK);
    if moved != Ok(len) {
        let mut left = [0; ATOMIC];
        // Empties the pipe.
        let _ = read.read(&mut left);
    }
    Ok(moved?)
}

/// Writes to a terminal even if this process is in the background, and after `stty tostop`. SIGTTOU would stop the
/// process, or make a parent remove a worker.
fn in_background<T>(write: impl FnOnce() -> T) -> T {
    let mut stops = SigSet::empty();
    stops.add(Signal::SIGTTOU);
    let before = stops.thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let written = write();
    let _ = before.and_then(|before| before.thread_set_mask());
    written
}

/// The first of these lines, as many as may be written at once: whole ones, unless the first is too long.
fn part(lines: &[u8]) -> &[u8] {
    let first = &lines[..lines.len().min(ATOMIC)];
    match memchr::memrchr(b'\n', first) {
        Some(end) => &first[..=end],
        None => first,
    }
}

/// Lines that this process could not write to any log.
static LOST: AtomicU64 = AtomicU64::new(0);

type Count = Box<dyn Fn(u64) + Send>;

/// Another counter of the same lines.
static COUNT: Mutex<Option<Count>> = Mutex::new(None);

/// Counts lines that will never be written.
pub(crate) fn count_lost(lines: u64) {
    LOST.fetch_add(lines, Relaxed);
    if let Some(count) = &*COUNT.lock().unwrap_or_else(PoisonError::into_inner) {
        count(lines);
    }
}

/// The number of lines that this process could not write.
pub(crate) fn lost() -> u64 {
    LOST.load(Relaxed)
}

/// Called in a new child, which has lost nothing yet. It counts with `count` as well.
pub(crate) fn count_anew(count: Option<Count>) {
    LOST.store(0, Relaxed);
    *COUNT.lock().unwrap_or_else(PoisonError::into_inner) = count;
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use nix::unistd::pipe;

    use super::*;

    #[test]
    fn lines_are_written_whole_unless_they_are_too_long() {
        let long = vec![b'x'; ATOMIC];
        for (lines, expected) in [
            (b"a\nb\n".to_vec(), 4),
            ([&b"a\n"[..], &long, b"\n"].concat(), 2),
            ([&long[..], b"\n"].concat(), ATOMIC),
            ([&long[1..], b"\nb\n"].concat(), ATOMIC),
        ] {
            assert_eq!(part(&lines).len(), expected);
        }
    }

    /// Fills an outlet, reads all of it, and checks that lines are whole and flags unchanged.
    fn fills_and_flows(mut outlet: Outlet, given: &File, mut reader: impl FnMut() -> Vec<u8>) {
        let is_blocking = || {
            let flags = fcntl(given, FcntlArg::F_GETFL).expect("a descriptor");
            flags & OFlag::O_NONBLOCK.bits() == 0
        };
        assert!(is_blocking());
        let line = [&[b'x'; 99][..], b"\n"].concat();
        let mut taken = 0;
        let error = loop {
            let (len, error) = outlet.write(&line);
            taken += len;
            if let Some(error) = error {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(is_blocking());
        assert!(taken > 0 && taken % line.len() == 0, "{taken}");
        assert_eq!(reader().len(), taken);
        assert!(matches!(outlet.write(&line), (100, None)));
        assert_eq!(reader(), line);
    }

    fn read_all(read: &OwnedFd) -> Vec<u8> {
        fcntl(read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a descriptor");
        let mut all = Vec::new();
        // Reads until it would block.
        let _ = File::from(read.try_clone().expect("a descriptor")).read_to_end(&mut all);
        all
    }

    #[test]
    fn a_full_pipe_is_not_waited_for() {
        let (read, write) = pipe().expect("descriptors");
        let given = File::from(write.try_clone().expect("a descriptor"));
        let outlet = Outlet::new(write);
        assert!(matches!(outlet.kind, Kind::OwnPipe));
        fills_and_flows(outlet, &given, || read_all(&read));
    }

    #[test]
    fn a_full_pipe_of_somebody_else_is_not_waited_for() {
        let (read, write) = pipe().expect("descriptors");
        let given = File::from(write);
        let (from, to) = pipe2(OFlag::O_NONBLOCK).expect("descriptors");
        let kind = Kind::Pipe { read: from.into(), write: to.into() };
        let file = given.try_clone().expect("a descriptor");
        fills_and_flows(Outlet { file, kind, in_line: false, is_torn: false }, &given, || read_all(&read));
    }

    #[test]
    fn a_full_socket_is_not_waited_for() {
        let (read, write) = UnixDatagram::pair().expect("a pair");
        let given = File::from(OwnedFd::from(write.try_clone().expect("a descriptor")));
        read.set_nonblocking(true).expect("a socket");
        let reader = || {
            let mut all = Vec::new();
            let mut line = [0; 200];
            while let Ok(len) = read.recv(&mut line) {
                all.extend_from_slice(&line[..len]);
            }
            all
        };
        fills_and_flows(Outlet::new(write.into()), &given, reader);
    }

    #[test]
    fn half_a_line_is_ended_before_the_next() {
        let (read, write) = pipe().expect("descriptors");
        let mut outlet = Outlet::new(write);
        let long = vec![b'x'; 1 << 20];
        let (taken, _) = outlet.write(&long);
        assert!(taken > 0);
        outlet.give_up();
        read_all(&read);
        assert!(matches!(outlet.write(b"b\n"), (2, None)));
        assert_eq!(read_all(&read), b"\nb\n");
    }

    #[test]
    fn a_file_takes_lines_whatever_somebody_has_set_on_it() {
        let path = std::env::temp_dir().join(format!("forkpool-outlet-{}", std::process::id()));
        let file = File::create(&path).expect("a writable directory");
        let flags = OFlag::O_WRONLY | OFlag::O_DIRECT;
        let set = fcntl(&file, FcntlArg::F_SETFL(flags));
        let (written, error) = Outlet::new(file.into()).write(b"a line\n");
        std::fs::remove_file(&path).expect("it is there");
        assert!(written == 7 && error.is_none(), "{written} {error:?}, {set:?}");
    }
}
