//! A program's output to stdout and stderr, if it is prefixed ([`Builder::prefix`]): read from pipes, and passed on
//! line by line. While nobody reads the keeper's own output, the program's stays in the pipes, and the program waits.
//!
//! [`Builder::prefix`]: crate::Builder::prefix

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use log::warn;

use crate::shared::channel::non_blocking_pipe;
use crate::shared::outlet::Outlet;
use crate::time::Time;

/// The bytes read from a pipe in one turn, so that signals and the lifeline have theirs.
const READ: usize = 16 * 1024;

/// A longer line is split.
const LINE_MAX: usize = 64 * 1024;

/// How often to try again while nobody reads.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// How many turns to read at once at the end: more than a pipe holds, so that only a process that still writes to it is
/// cut short.
const LAST_READS_MAX: usize = 64;

/// How many milliseconds the rest may wait for a reader at the end.
const FLUSH_MILLIS_MAX: u16 = 1000;

/// Both output streams of a program.
#[derive(Debug)]
pub(super) struct Output([Stream; 2]);

#[derive(Debug)]
struct Stream {
    /// `None` at its end.
    pipe: Option<File>,
    lines: Lines,
    outlet: Option<Outlet>,
    /// Whole lines that were not written yet.
    pending: Vec<u8>,
    retry: Option<Time>,
}

/// The ends of the keeper and of the program, for stdout and for stderr.
pub(super) fn pipes() -> io::Result<([OwnedFd; 2], [OwnedFd; 2])> {
    let ((stdout, to_stdout), (stderr, to_stderr)) = (non_blocking_pipe()?, non_blocking_pipe()?);
    Ok(([stdout, stderr], [to_stdout, to_stderr]))
}

impl Output {
    pub(super) fn new([stdout, stderr]: [OwnedFd; 2], prefix: &str) -> Output {
        let stream = |pipe: OwnedFd, to: BorrowedFd<'_>| Stream {
            pipe: Some(pipe.into()),
            lines: Lines::new(prefix.to_owned()),
            outlet: to.try_clone_to_owned().ok().map(Outlet::new),
            pending: Vec::new(),
            retry: None,
        };
        Output([stream(stdout, io::stdout().as_fd()), stream(stderr, io::stderr().as_fd())])
    }

    /// The pipes to wait for: those whose latest output was read.
    pub(super) fn pipes(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let open = self.0.iter().filter(|stream| stream.pending.is_empty());
        open.filter_map(|stream| stream.pipe.as_ref().map(AsFd::as_fd))
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.0.iter().filter_map(|stream| stream.retry).min()
    }

    /// Passes on what has arrived, as far as somebody reads it.
    pub(super) fn pass_on(&mut self, now: Time) {
        for stream in &mut self.0 {
            if !stream.pending.is_empty() && stream.retry.is_some_and(|at| now < at) {
                continue;
            }
            stream.write();
            if stream.pending.is_empty() {
                stream.read();
                stream.write();
            }
            stream.retry = (!stream.pending.is_empty()).then(|| now + RETRY_INTERVAL);
        }
    }

    /// All processes that could write more are gone, and the keeper will end.
    pub(super) fn end(mut self) {
        for stream in &mut self.0 {
            for _ in 0..LAST_READS_MAX {
                if !stream.read() {
                    break;
                }
            }
            stream.close();
            stream.write();
            let mut left = usize::MAX;
            let waits = |it: &Stream| it.outlet.as_ref().is_some_and(|it| it.wait(FLUSH_MILLIS_MAX.into()));
            while (1..left).contains(&stream.pending.len()) && waits(stream) {
                left = stream.pending.len();
                stream.write();
            }
            if !stream.pending.is_empty() {
                warn!("dropped {} bytes of program output: its reader is too slow", stream.pending.len());
            }
        }
    }
}

impl Stream {
    /// Reads once; returns whether there may be more.
    fn read(&mut self) -> bool {
        let Some(pipe) = &mut self.pipe else { return false };
        let mut bytes = [0; READ];
        match pipe.read(&mut bytes) {
            Ok(len) if len > 0 => {
                self.lines.take(&bytes[..len], &mut self.pending);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Ok(_) | Err(_) => {
                self.close();
                false
            }
        }
    }

    fn close(&mut self) {
        self.pipe = None;
        self.lines.end(&mut self.pending);
    }

    /// Writes what is pending, as far as somebody reads it.
    fn write(&mut self) {
        let Some(outlet) = self.outlet.as_mut().filter(|_| !self.pending.is_empty()) else { return };
        match outlet.write(&self.pending) {
            (written, None) => drop(self.pending.drain(..written)),
            (written, Some(error)) if error.kind() == ErrorKind::WouldBlock => drop(self.pending.drain(..written)),
            // Nobody will ever read it.
            (_, Some(_)) => self.pending.clear(),
        }
    }
}

/// Splits the output into lines, and puts a prefix before each.
#[derive(Debug)]
struct Lines {
    prefix: String,
    /// An incomplete line.
    begun: Vec<u8>,
}

impl Lines {
    fn new(prefix: String) -> Lines {
        Lines { prefix, begun: Vec::new() }
    }

    fn take(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = &bytes[..bytes.len().min(LINE_MAX - self.begun.len())];
            let (len, is_whole) = match memchr::memchr(b'\n', room) {
                Some(end) => (end, true),
                None => (room.len(), false),
            };
            self.begun.extend_from_slice(&bytes[..len]);
            bytes = &bytes[len + usize::from(is_whole)..];
            if is_whole || self.begun.len() == LINE_MAX {
                self.put(out);
            }
        }
    }

    /// No more output will come.
    fn end(&mut self, out: &mut Vec<u8>) {
        if !self.begun.is_empty() {
            self.put(out);
        }
    }

    fn put(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix.as_bytes());
        out.append(&mut self.begun);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_the_prefix_however_it_comes() {
        for (pieces, expected) in [
            (&["a\n"][..], "p a\n"),
            (&["a\nb\n\nc\n"], "p a\np b\np \np c\n"),
            (&["a", "", "b", "\n", "c"], "p ab\np c\n"),
            (&["\n", "\n"], "p \np \n"),
            (&["a\r\n"], "p a\r\n"),
            (&[""], ""),
        ] {
            let (mut lines, mut out) = (Lines::new("p ".to_owned()), Vec::new());
            pieces.iter().for_each(|piece| lines.take(piece.as_bytes(), &mut out));
            lines.end(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{pieces:?}");
        }
    }

    #[test]
    fn a_line_without_end_is_passed_on_in_parts() {
        let (mut lines, mut out) = (Lines::new("p ".to_owned()), Vec::new());
        (0..3).for_each(|_| lines.take(&[b'x'; LINE_MAX / 2 + 1], &mut out));
        lines.end(&mut out);
        let lengths: Vec<usize> = out.split(|byte| *byte == b'\n').map(<[u8]>::len).collect();
        assert_eq!(lengths, [2 + LINE_MAX, 2 + LINE_MAX / 2 + 3, 0]);
    }
}
