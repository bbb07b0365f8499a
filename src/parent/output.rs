//! What workers write to stdout and stderr, where that is prefixed ([`Builder::prefix_output`]): read from pipes, and
//! passed on line by line. While nobody reads the parent's own output, theirs stays in the pipes, and they wait.
//!
//! [`Builder::prefix_output`]: crate::Builder::prefix_output

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};

use super::*;
use crate::shared::channel;
use crate::shared::outlet::Outlet;

/// Read from a pipe in one turn, so that signals, lifelines and other pipes have theirs.
const READ: usize = 16 * 1024;

/// A longer line is passed on in parts.
const LINE_MAX: usize = 64 * 1024;

/// How often it is tried again while nobody reads.
const RETRY: Duration = Duration::from_millis(20);

/// How many turns' worth is read at once from the pipe of a process that has exited: more than a pipe holds, so that
/// only another process that writes to it is cut short, and only for the moment.
const REST: usize = 64;

/// How long the pipes of a process that has exited stay: others that it has started may have them, for ever.
const REMAINS: Duration = Duration::from_secs(5);

/// At the end of the pool, for how many milliseconds what is left may wait for a reader.
const LAST_WORDS: u16 = 1000;

/// The pipes of all workers, and what was read from them and not written yet.
#[derive(Debug, Default)]
pub(super) struct Output {
    pipes: BTreeMap<usize, Pipe>,
    /// How many there ever were.
    count: usize,
    /// Those that may have more.
    unread: BTreeSet<usize>,
    /// Stdout and stderr, once there is something for them.
    outlets: [Option<Outlet>; 2],
    /// Whole lines for each.
    pending: [Vec<u8>; 2],
    retry: Option<Time>,
}

#[derive(Debug)]
struct Pipe {
    pid: Pid,
    file: File,
    /// 0 for stdout, 1 for stderr.
    stream: usize,
    lines: Lines,
    /// When it is closed, whoever may still write to it.
    until: Option<Time>,
}

/// The ends of the parent and of the worker, for stdout and for stderr.
pub(super) fn pipes() -> io::Result<([OwnedFd; 2], [OwnedFd; 2])> {
    let ((stdout, to_stdout), (stderr, to_stderr)) = (channel::non_blocking_pipe()?, channel::non_blocking_pipe()?);
    Ok(([stdout, stderr], [to_stdout, to_stderr]))
}

impl Output {
    /// There is something to read.
    pub(super) fn note(&mut self, id: usize) {
        self.unread.insert(id);
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        let is_free = |id: &usize| self.pipes.get(id).is_some_and(|pipe| self.pending[pipe.stream].is_empty());
        let next = self.unread.iter().any(is_free).then(|| Time::from_millis(0)).or(self.retry);
        next.into_iter().chain(self.pipes.values().filter_map(|pipe| pipe.until)).min()
    }

    /// Passes on what has come, as far as somebody reads it.
    pub(super) fn pass_on(&mut self, now: Time) {
        self.close_old(now);
        if self.unread.is_empty() && self.retry.is_none_or(|at| now < at) {
            return;
        }
        (0..2).for_each(|stream| self.write(stream));
        for id in std::mem::take(&mut self.unread) {
            let Some(pipe) = self.pipes.get(&id) else { continue };
            let stream = pipe.stream;
            if !self.pending[stream].is_empty() || self.read(id) {
                self.unread.insert(id);
            }
            self.write(stream);
        }
        self.retry = self.pending.iter().any(|pending| !pending.is_empty()).then(|| now + RETRY);
    }

    /// Closes the pipes of processes that have exited a while ago.
    fn close_old(&mut self, now: Time) {
        let is_old = |pipe: &Pipe| pipe.until.is_some_and(|until| until <= now);
        let old = self.pipes.iter().filter(|(_, pipe)| is_old(pipe)).map(|(id, _)| *id);
        for id in old.collect::<Vec<_>>() {
            self.unread.remove(&id);
            if let Some(pipe) = self.pipes.remove(&id) {
                pipe.lines.end(&mut self.pending[pipe.stream]);
            }
            self.retry = Some(now);
        }
    }

    /// A process has exited: all that it has written is here.
    pub(super) fn exited(&mut self, pid: Pid, now: Time) {
        let theirs = self.pipes.values_mut().filter(|pipe| pipe.pid == pid);
        theirs.for_each(|pipe| pipe.until = Some(now + REMAINS));
        let pipes = self.pipes.iter().filter(|(_, pipe)| pipe.pid == pid).map(|(id, _)| *id);
        for id in pipes.collect::<Vec<_>>() {
            if (0..REST).all(|_| self.read(id)) {
                self.unread.insert(id);
            }
        }
        self.retry = Some(Time::from_millis(0));
    }

    /// The pool ends, and with it whoever could pass on more.
    pub(super) fn end(&mut self) {
        for id in self.pipes.keys().copied().collect::<Vec<_>>() {
            while self.read(id) && self.pending.iter().map(Vec::len).sum::<usize>() < REST * READ {}
            if let Some(pipe) = self.pipes.remove(&id) {
                pipe.lines.end(&mut self.pending[pipe.stream]);
            }
        }
        for stream in 0..2 {
            self.write(stream);
            let waits = |it: &Output| it.outlets[stream].as_ref().is_some_and(|it| it.wait(LAST_WORDS.into()));
            let mut left = usize::MAX;
            while (1..left).contains(&self.pending[stream].len()) && waits(self) {
                left = self.pending[stream].len();
                self.write(stream);
            }
            if !self.pending[stream].is_empty() {
                warn!("dropped {} bytes of worker output: its reader is too slow", self.pending[stream].len());
            }
        }
    }

    /// Reads once; returns whether there may be more.
    fn read(&mut self, id: usize) -> bool {
        let Some(pipe) = self.pipes.get_mut(&id) else { return false };
        let mut bytes = [0; READ];
        match pipe.file.read(&mut bytes) {
            Ok(len) if len > 0 => {
                pipe.lines.take(&bytes[..len], &mut self.pending[pipe.stream]);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Ok(_) | Err(_) => {
                if let Some(pipe) = self.pipes.remove(&id) {
                    pipe.lines.end(&mut self.pending[pipe.stream]);
                }
                false
            }
        }
    }

    /// Writes what is pending, as far as somebody reads it.
    fn write(&mut self, stream: usize) {
        let pending = &mut self.pending[stream];
        let Some(outlet) = self.outlets[stream].as_mut().filter(|_| !pending.is_empty()) else { return };
        match outlet.write(pending) {
            (written, None) => drop(pending.drain(..written)),
            (written, Some(error)) if error.kind() == ErrorKind::WouldBlock => drop(pending.drain(..written)),
            // Nobody will ever read it.
            (_, Some(_)) => pending.clear(),
        }
    }
}

impl Parent {
    /// A worker's stdout and stderr are these pipes from now on.
    pub(super) fn take_output(&mut self, pid: Pid, slot: usize, pipes: [OwnedFd; 2]) {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        for (outlet, descriptor) in self.output.outlets.iter_mut().zip([stdout.as_fd(), stderr.as_fd()]) {
            if outlet.is_none() {
                *outlet = descriptor.try_clone_to_owned().ok().map(Outlet::new);
            }
        }
        for (stream, pipe) in pipes.into_iter().enumerate() {
            let id = self.output.count;
            self.output.count += 1;
            let listens = self.listen_to(&std::os::fd::AsRawFd::as_raw_fd(&pipe), Source::Output(id));
            if let Err(error) = listens {
                error!("cannot read the output of {}: {error}", self.roster.tag(pid));
            }
            let lines = Lines::new(format!("worker={slot} pid={} ", pid.0));
            self.output.pipes.insert(id, Pipe { pid, file: pipe.into(), stream, lines, until: None });
        }
    }
}

/// Cuts what comes into lines, and puts a prefix before each.
#[derive(Debug)]
struct Lines {
    prefix: String,
    /// A line whose end has not come yet.
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

    /// No more will come.
    fn end(mut self, out: &mut Vec<u8>) {
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
