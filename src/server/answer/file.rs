//! Files as responses: whole or in ranges, with conditions, sent by the kernel.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::iter;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::vec;

use nix::sys::sendfile::sendfile64;

use crate::server::client::Client;
use crate::server::http::{evaluate, parse_range, single, Coding, Ranges, Request, ResponseHead, Validators, Verdict};
use crate::sys::stat::Stat;

/// The beginning of meaningful times. Files from before 1990, when there was no web, only have a time that some tool
/// gives to all files for reproducible builds: 0 or 1 (Nix, OSTree), 1980 (ZIP), 1985 (npm). It does not say when they
/// were modified.
const TIMES_BEGIN: u64 = 631_152_000;

/// The contents of a file.
#[derive(Clone, Debug)]
pub(crate) struct Representation {
    pub(crate) content_type: Cow<'static, str>,
    pub(crate) coding: Option<Coding>,
}

/// An open regular file, and its metadata.
#[derive(Debug)]
pub(crate) struct Opened {
    file: File,
    stat: Stat,
    validators: Validators,
}

impl Opened {
    /// Opens a regular file.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or is not a regular file ([`ErrorKind::InvalidInput`]).
    pub(crate) fn open(path: &Path) -> io::Result<Opened> {
        // Without O_NONBLOCK, opening a FIFO would block the worker until somebody writes to it.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "no regular file"));
        }
        Ok(Opened::new(file, Stat::from(&metadata)))
    }

    pub(crate) fn new(file: File, stat: Stat) -> Opened {
        let nanos_of = |(seconds, nanos): (i64, u32)| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        let (seconds, nanos) = stat.modified;
        let time = nanos_of(stat.modified);
        // A strong tag, as far as a file system allows: the time to the nanosecond, and the size. Copies on several
        // machines that preserve the time have the same tag.
        let validators = match u64::try_from(seconds).ok().filter(|seconds| *seconds >= TIMES_BEGIN) {
            Some(seconds) => {
                // No file was modified in the future (RFC 9110 section 8.8.2.1).
                let modified = (SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)).min(SystemTime::now());
                Validators::new(format_args!("{time:x}-{:x}", stat.len), Some(modified))
            }
            // The inode and its last change identify the state, but only on this machine.
            None => {
                let changed = nanos_of(stat.changed);
                Validators::new(format_args!("{:x}-{changed:x}-{:x}", stat.inode, stat.len), None)
            }
        };
        Opened { file, stat, validators }
    }

    pub(crate) fn stat(&self) -> &Stat {
        &self.stat
    }
}

/// How to respond to a request with an open regular file: a head, and a body if there is one.
pub(crate) fn respond(
    request: &Request<'_>,
    opened: Arc<Opened>,
    representation: Representation,
) -> (ResponseHead, Option<Box<FileBody>>) {
    let Representation { content_type, coding } = representation;
    let (len, validators) = (opened.stat.len, &opened.validators);
    let verdict = evaluate(request, validators);
    let ranges = match verdict {
        Verdict::Go { ranges: true } => single(request, "Range").map_or(Ranges::All, |field| parse_range(field, len)),
        _ => Ranges::All,
    };
    let ranges = match ranges {
        // Content-Encoding would apply to the multipart body, which is not encoded.
        Ranges::Some(ranges) if ranges.len() > 1 && coding.is_some() => Ranges::All,
        ranges => ranges,
    };
    let mut head = ResponseHead::of_file(content_type.clone());
    validators.add_to(&mut head);
    head.add_valid("Accept-Ranges", "bytes");
    let mut rest = Vec::new().into_iter();
    let first = match (verdict, ranges) {
        (Verdict::Go { .. }, Ranges::All) => Some(Part::of(0..len)),
        (Verdict::Go { .. }, Ranges::Some(ranges)) => {
            head.set_status(206);
            match <[Range<u64>; 1]>::try_from(ranges) {
                Ok([range]) => {
                    head.add_valid("Content-Range", &content_range(&range, len));
                    Some(Part::of(range))
                }
                Err(ranges) => {
                    let boundary = format!("forkpool-{}", validators.etag.trim_matches('"'));
                    rest = multipart(&ranges, len, &content_type, &boundary).into_iter();
                    head.content_type = Some(format!("multipart/byteranges; boundary={boundary}").into());
                    rest.next()
                }
            }
        }
        (verdict, _) => {
            head.content_type = None;
            match verdict {
                Verdict::NotModified => head.set_status(304),
                Verdict::Failed => head.set_status(412),
                Verdict::Go { .. } => {
                    head.set_status(416);
                    head.add_valid("Content-Range", &format!("bytes */{len}"));
                }
            }
            None
        }
    };
    if let Some(coding) = coding.filter(|_| first.is_some()) {
        head.add_valid("Content-Encoding", coding.name());
    }
    (head, first.map(|part| Box::new(FileBody { opened, part, rest })))
}

/// The whole file, whatever the request says about ranges and conditions, since the file is not what it asked for.
pub(crate) fn whole(status: u16, opened: Arc<Opened>, representation: Representation) -> (ResponseHead, Box<FileBody>) {
    let mut head = ResponseHead::of_file(representation.content_type);
    head.set_status(status);
    if let Some(coding) = representation.coding {
        head.add_valid("Content-Encoding", coding.name());
    }
    let part = Part::of(0..opened.stat.len);
    (head, Box::new(FileBody { opened, part, rest: Vec::new().into_iter() }))
}

fn content_range(range: &Range<u64>, len: u64) -> String {
    format!("bytes {}-{}/{len}", range.start, range.end - 1)
}

/// Several ranges in one body (RFC 9110 section 14.6).
fn multipart(ranges: &[Range<u64>], len: u64, content_type: &str, boundary: &str) -> Vec<Part> {
    let preamble = |range: &Range<u64>| {
        let content_range = content_range(range, len);
        format!("\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {content_range}\r\n\r\n")
            .into_bytes()
    };
    let parts = ranges.iter().map(|range| Part { preamble: preamble(range), range: range.clone() });
    let end = Part { preamble: format!("\r\n--{boundary}--\r\n").into_bytes(), range: 0..0 };
    parts.chain([end]).collect()
}

/// A file to send.
#[derive(Debug)]
pub(crate) struct FileBody {
    opened: Arc<Opened>,
    /// The part that is being sent.
    part: Part,
    rest: vec::IntoIter<Part>,
}

/// Some bytes, followed by a range of the file.
#[derive(Debug)]
struct Part {
    preamble: Vec<u8>,
    range: Range<u64>,
}

impl Part {
    fn of(range: Range<u64>) -> Part {
        Part { preamble: Vec::new(), range }
    }

    fn left(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// Bodies up to this length are read after their head and sent with it, which is cheaper than a second system call on
/// the socket.
pub(crate) const READ_MAX: u64 = 16 * 1024;

/// Ranges up to this length share a packet with the head. Longer ones do not fit, and would cost several times as much,
/// since all their pages would straddle the kernel's largest packets.
const TOGETHER_MAX: u64 = 64 * 1024;

/// The maximum number of bytes to send before other connections have their turn.
const BYTES_PER_TURN: u64 = 1 << 20;

/// The same, if they are encrypted.
const SEALED_TURN: u64 = BYTES_PER_TURN / 4;

/// The progress of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    All,
    /// As much as one turn allows.
    Some,
    /// The socket accepts no more at the moment.
    Blocked {
        progress: bool,
    },
}

impl AsFd for FileBody {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.opened.file.as_fd()
    }
}

impl FileBody {
    fn parts(&self) -> impl Iterator<Item = &Part> {
        iter::once(&self.part).chain(self.rest.as_slice())
    }

    pub(crate) fn len(&self) -> u64 {
        self.parts().map(|part| part.preamble.len() as u64 + part.left()).sum()
    }

    /// The bytes of the ranges that were not sent yet.
    pub(crate) fn left(&self) -> u64 {
        self.parts().map(Part::left).sum()
    }

    /// Whether it is worth sending the current range together with what precedes it. The range at the end of a
    /// multipart body is empty, so what precedes it would wait for nothing.
    pub(crate) fn goes_on(&self) -> bool {
        (1..=TOGETHER_MAX).contains(&self.part.left())
    }

    /// Takes the bytes to send before the next range of the file.
    pub(crate) fn take_preamble(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.part.preamble);
    }

    /// Appends all of it to `out`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnexpectedEof`] if the file has become shorter than announced.
    pub(crate) fn read(self, out: &mut Vec<u8>) -> io::Result<()> {
        for mut part in iter::once(self.part).chain(self.rest) {
            out.append(&mut part.preamble);
            let start = out.len();
            out.resize(start + part.left() as usize, 0);
            self.opened.file.read_exact_at(&mut out[start..], part.range.start)?;
        }
        Ok(())
    }

    /// Sends the current range. The kernel copies it from its cache to the socket.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnexpectedEof`] if the file has become shorter than announced.
    pub(crate) fn send(&mut self, socket: impl AsFd) -> io::Result<Sent> {
        let range = &mut self.part.range;
        let mut turn = BYTES_PER_TURN;
        while range.start < range.end {
            if turn == 0 {
                return Ok(Sent::Some);
            }
            let count = (range.end - range.start).min(turn);
            let mut offset = i64::try_from(range.start).map_err(io::Error::other)?;
            match sendfile64(&socket, &self.opened.file, Some(&mut offset), count as usize) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(sent) => {
                    range.start += sent as u64;
                    turn -= sent as u64;
                }
                Err(nix::Error::EAGAIN) => return Ok(Sent::Blocked { progress: turn < BYTES_PER_TURN }),
                Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(self.next_part())
    }

    fn next_part(&mut self) -> Sent {
        let Some(next) = self.rest.next() else { return Sent::All };
        self.part = next;
        Sent::Some
    }

    /// As [`send`](FileBody::send), but by way of `room`, to a socket for which sendfile(2) might block.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnexpectedEof`] if the file has become shorter than announced.
    pub(crate) fn send_by_copy(&mut self, client: &mut Client, room: &mut [u8]) -> io::Result<Sent> {
        let range = &mut self.part.range;
        let mut turn = BYTES_PER_TURN;
        while range.start < range.end {
            if turn == 0 {
                return Ok(Sent::Some);
            }
            let count = (range.end - range.start).min(turn).min(room.len() as u64);
            let count = self.opened.file.read_at(&mut room[..count as usize], range.start)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let sent = client.write_some(&room[..count])?;
            range.start += sent as u64;
            turn -= sent as u64;
            if sent < count {
                return Ok(Sent::Blocked { progress: turn < BYTES_PER_TURN });
            }
        }
        Ok(self.next_part())
    }

    /// As [`send`](FileBody::send), to a client with TLS: reads the file, and encrypts it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnexpectedEof`] if the file has become shorter than announced.
    pub(crate) fn send_sealed(&mut self, stream: &mut crate::server::tls::Stream) -> io::Result<Sent> {
        let FileBody { opened, part: Part { range, .. }, .. } = self;
        let mut turn = SEALED_TURN;
        while range.start < range.end {
            if turn == 0 {
                return Ok(Sent::Some);
            }
            let (read, sent) = stream
                .write_from((range.end - range.start).min(turn), |part| opened.file.read_at(part, range.start))?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            range.start += sent as u64;
            turn -= sent as u64;
            if sent < read {
                return Ok(Sent::Blocked { progress: turn < SEALED_TURN });
            }
        }
        Ok(self.next_part())
    }
}
