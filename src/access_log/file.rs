//! The access log's file: opened by the parent, written to by the workers.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use log::warn;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::unistd::{eaccess, AccessFlags};

use super::format::Formatter;
use crate::clock;
use crate::error::{Error, Result};
use crate::time::Time;

/// Bytes that a worker collects for one write(2).
const BUFFER: usize = 64 * 1024;

/// What a pipe takes whole, whoever else writes to it (pipe(7), `PIPE_BUF`).
const ATOMIC: usize = 4096;

/// How long a line may wait to be written.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the loss of lines is told.
const WARNED: Duration = Duration::from_secs(60);

/// Opens the file at `path`, or standard output for `-`.
///
/// # Errors
///
/// [`Error::File`].
pub(crate) fn open(path: &Path) -> Result<File> {
    let opened = match is_stdout(path) {
        true => io::stdout().as_fd().try_clone_to_owned().map(File::from),
        false => open_file(path),
    };
    opened.map_err(|source| failed(path, source))
}

/// Whether [`open`] could succeed, without making a file; `writable` tells that of a path where there is none.
///
/// # Errors
///
/// As [`open`].
pub(crate) fn check(path: &Path, writable: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    let checked = match is_stdout(path) {
        true => Ok(()),
        false if path.exists() && !path.is_dir() => eaccess(path, AccessFlags::W_OK).map_err(io::Error::from),
        false => writable(path),
    };
    checked.map_err(|source| failed(path, source))
}

pub(crate) fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::File { path: path.display().to_string(), action: "open the access log", source }
}

/// Clients' addresses are nobody's business but the group's: hence the mode.
fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Without O_NONBLOCK the open would wait for a FIFO's reader; with it the error says that there is none.
    options.append(true).create(true).mode(0o640).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        let flags = OFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GETFL)?);
        fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    }
    Ok(file)
}

/// Collects lines and writes them, whole ones only: several workers have the same file.
#[derive(Debug)]
pub(super) struct Sink {
    file: Rc<File>,
    buffer: Vec<u8>,
    room: usize,
    /// Since when the first line in the buffer waits.
    oldest: Time,
    /// The last thing that was written is the beginning of a line.
    is_torn: bool,
    /// Lines that could not be written since that was told.
    lost: usize,
    warned: Option<Time>,
    /// How the log names this worker.
    tag: String,
}

impl Sink {
    pub(super) fn new(file: Rc<File>, tag: String) -> Sink {
        let (room, oldest) = (room(&file), Time::default());
        Sink { file, buffer: Vec::new(), room, oldest, is_torn: false, lost: 0, warned: None, tag }
    }

    /// Most bytes of a line.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// The buffer, with room for a line of at most so many bytes.
    pub(super) fn room_for(&mut self, bound: usize, now: Time) -> &mut Vec<u8> {
        if self.buffer.len() + bound > self.room {
            self.flush(now);
        }
        if self.buffer.is_empty() {
            self.buffer.reserve(self.room);
            self.oldest = now;
        }
        &mut self.buffer
    }

    pub(super) fn due(&self) -> Option<Time> {
        (!self.buffer.is_empty()).then(|| self.oldest + PATIENCE)
    }

    pub(super) fn reopen(&mut self, file: Rc<File>) {
        self.flush(clock::now());
        self.room = room(&file);
        self.file = file;
        self.is_torn = false;
    }

    /// Writes what there is, with one write(2) if the file takes it.
    pub(super) fn flush(&mut self, now: Time) {
        if self.is_torn && !self.buffer.is_empty() {
            self.buffer.insert(0, b'\n');
        }
        let mut rest = &self.buffer[..];
        let mut failure = None;
        while !rest.is_empty() {
            match (&*self.file).write(rest) {
                Ok(0) => failure = Some(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.is_torn = rest[count - 1] != b'\n';
                    rest = &rest[count..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => failure = Some(error),
            }
            if failure.is_some() {
                break;
            }
        }
        self.lost += memchr::memchr_iter(b'\n', rest).count();
        self.buffer.clear();
        if let Some(error) = failure {
            self.warn(&error, now);
        }
    }

    fn warn(&mut self, error: &io::Error, now: Time) {
        if self.warned.is_none_or(|warned| now.since(warned) >= WARNED) {
            warn!("{} lost {} lines of the access log: {error}", self.tag, self.lost);
            self.warned = Some(now);
            self.lost = 0;
        }
    }
}

impl Drop for Sink {
    /// However the worker's code ends; what only the kernel ends loses what it had not written.
    fn drop(&mut self) {
        self.flush(clock::now());
        if self.lost > 0 {
            warn!("{} lost {} more lines of the access log", self.tag, self.lost);
        }
    }
}

/// How much is written at once: to what is no file only as much as the kernel does not mix with others'.
fn room(file: &File) -> usize {
    const { assert!(ATOMIC >= Formatter::ROOM_MIN) };
    match file.metadata() {
        Ok(found) if found.file_type().is_file() => BUFFER,
        _ => ATOMIC,
    }
}
