//! Files as responses: whole or in ranges, on conditions, sent by the kernel.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::sendfile::sendfile64;

use crate::http::{
    evaluate, fixdate, media_type, parse_range, Coding, Ranges, Request, ResponseHead, Validators, Verdict,
};
use crate::response::{Body, Response};

impl Response {
    /// A file, as `request` asks for it: whole or in ranges (RFC 9110 section 14), or not at all when the client has
    /// it already (section 13). Carries ETag, Last-Modified and a Content-Type by the file name's extension; the
    /// kernel sends it (sendfile(2)).
    ///
    /// `path` is taken as it is: what comes from a request must be checked by the caller, `..` and links included.
    ///
    /// ```no_run
    /// # use forkpool::{Pool, Response};
    /// # fn main() -> forkpool::Result<()> {
    /// Pool::bind("127.0.0.1:8000").serve(|request| match request.path() {
    ///     "/manual.pdf" => Response::file(request, "/srv/manual.pdf").unwrap_or_else(|_| Response::new(404)),
    ///     _ => Response::new(404),
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or is no regular file ([`ErrorKind::InvalidInput`]).
    pub fn file(request: &Request<'_>, path: impl AsRef<Path>) -> io::Result<Response> {
        let path = path.as_ref();
        // Without O_NONBLOCK, a FIFO would hold the worker up until somebody writes to it.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "no regular file"));
        }
        let representation = Representation { content_type: media_type(path.as_os_str().as_bytes()), coding: None };
        Ok(respond(request, file, &metadata, representation))
    }
}

/// What a file holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Representation {
    pub(crate) content_type: &'static str,
    pub(crate) coding: Option<Coding>,
}

/// Answers with a regular file that is open.
pub(crate) fn respond(
    request: &Request<'_>,
    file: File,
    metadata: &Metadata,
    representation: Representation,
) -> Response {
    let Representation { content_type, coding } = representation;
    let len = metadata.len();
    let validators = validators(metadata);
    let verdict = evaluate(request, &validators);
    let ranges = match verdict {
        Verdict::Go { ranges: true } => request.header("Range").map_or(Ranges::All, |field| parse_range(field, len)),
        _ => Ranges::All,
    };
    let ranges = match ranges {
        // Content-Encoding would be said of the multipart body, which is not encoded.
        Ranges::Some(ranges) if ranges.len() > 1 && coding.is_some() => Ranges::All,
        ranges => ranges,
    };
    let whole = Part { preamble: Vec::new(), range: 0..len };
    let (status, content_type, extra, parts): (_, Option<Cow<'static, str>>, _, _) = match (verdict, ranges) {
        (Verdict::NotModified, _) => (304, None, None, Vec::new()),
        (Verdict::Failed, _) => (412, None, None, Vec::new()),
        (Verdict::Go { .. }, Ranges::Unsatisfiable) => (416, None, Some(format!("bytes */{len}")), Vec::new()),
        (Verdict::Go { .. }, Ranges::All) => (200, Some(content_type.into()), None, vec![whole]),
        (Verdict::Go { .. }, Ranges::Some(ranges)) => match <[Range<u64>; 1]>::try_from(ranges) {
            Ok([range]) => {
                let content_range = content_range(&range, len);
                (206, Some(content_type.into()), Some(content_range), vec![Part { preamble: Vec::new(), range }])
            }
            Err(ranges) => {
                let boundary = format!("forkpool-{}", validators.etag.trim_matches('"'));
                let parts = multipart(&ranges, len, content_type, &boundary);
                (206, Some(format!("multipart/byteranges; boundary={boundary}").into()), None, parts)
            }
        },
    };
    let mut head = ResponseHead::new(status, content_type);
    let modified = fixdate(validators.modified);
    let range = extra.as_deref().map(|extra| ("Content-Range", extra));
    let coding = coding.filter(|_| matches!(status, 200 | 206)).map(|coding| ("Content-Encoding", coding.name()));
    let validating = [("ETag", validators.etag.as_str()), ("Last-Modified", &modified), ("Accept-Ranges", "bytes")];
    for (name, value) in validating.into_iter().chain(range).chain(coding) {
        head.add(name, value).expect("digits, dates and these names are valid");
    }
    let body = if parts.is_empty() {
        Body::Bytes(Default::default())
    } else {
        Body::File(Box::new(FileBody::new(file, parts)))
    };
    Response { head, body }
}

/// Size, time to the nanosecond, and inode: strong, as far as a file system can tell.
fn validators(metadata: &Metadata) -> Validators {
    let nanos = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    let etag = format!("\"{:x}-{nanos:x}-{:x}\"", metadata.ino(), metadata.len());
    // Nothing was modified in the future (RFC 9110 section 8.8.2.1).
    let modified = metadata.modified().unwrap_or(UNIX_EPOCH).clamp(UNIX_EPOCH, SystemTime::now().max(UNIX_EPOCH));
    Validators { etag, modified }
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

/// A file to be sent.
#[derive(Debug)]
pub(crate) struct FileBody {
    file: File,
    parts: VecDeque<Part>,
}

/// Some bytes, and a range of the file behind them.
#[derive(Debug)]
struct Part {
    preamble: Vec<u8>,
    range: Range<u64>,
}

/// Bodies up to this are read behind their head and sent with it: cheaper than a second system call to the socket.
pub(crate) const READ_MAX: u64 = 16 * 1024;

/// Ranges up to this share their packet with the head. More does not fit, and then costs several times as much: all
/// its pages lie across the kernel's largest packets.
const TOGETHER_MAX: u64 = 64 * 1024;

/// Most bytes sent before other connections have their turn.
const TURN: u64 = 1 << 20;

/// How far sending has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    All,
    /// A turn's worth.
    Some,
    /// The socket takes no more at the moment.
    Blocked {
        progress: bool,
    },
}

impl FileBody {
    fn new(file: File, parts: Vec<Part>) -> FileBody {
        FileBody { file, parts: parts.into() }
    }

    pub(crate) fn len(&self) -> u64 {
        self.parts.iter().map(|part| part.preamble.len() as u64 + part.range.end - part.range.start).sum()
    }

    /// Bytes of the ranges that have not been sent.
    pub(crate) fn left(&self) -> u64 {
        self.parts.iter().map(|part| part.range.end - part.range.start).sum()
    }

    /// Whether the current range is worth being sent together with what is before it. The end of a multipart body has an
    /// empty one: what is before that would wait for nothing.
    pub(crate) fn goes_on(&self) -> bool {
        self.parts.front().is_some_and(|part| (1..=TOGETHER_MAX).contains(&(part.range.end - part.range.start)))
    }

    /// Takes what is to be sent before the next range of the file.
    pub(crate) fn take_preamble(&mut self, out: &mut Vec<u8>) {
        if let Some(part) = self.parts.front_mut() {
            out.append(&mut part.preamble);
        }
    }

    /// Appends all of it to `out`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnexpectedEof`] when the file has become shorter than was announced.
    pub(crate) fn read(self, out: &mut Vec<u8>) -> io::Result<()> {
        for mut part in self.parts {
            out.append(&mut part.preamble);
            let start = out.len();
            out.resize(start + (part.range.end - part.range.start) as usize, 0);
            self.file.read_exact_at(&mut out[start..], part.range.start)?;
        }
        Ok(())
    }

    /// Sends the current range; the kernel copies it from its cache to the socket.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnexpectedEof`] when the file has become shorter than was announced.
    pub(crate) fn send(&mut self, socket: impl AsFd) -> io::Result<Sent> {
        let Some(part) = self.parts.front_mut() else { return Ok(Sent::All) };
        let mut turn = TURN;
        while part.range.start < part.range.end {
            if turn == 0 {
                return Ok(Sent::Some);
            }
            let count = (part.range.end - part.range.start).min(turn);
            let mut offset = i64::try_from(part.range.start).map_err(io::Error::other)?;
            match sendfile64(&socket, &self.file, Some(&mut offset), count as usize) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(sent) => {
                    part.range.start += sent as u64;
                    turn -= sent as u64;
                }
                Err(nix::Error::EAGAIN) => return Ok(Sent::Blocked { progress: turn < TURN }),
                Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.parts.pop_front();
        Ok(if self.parts.is_empty() { Sent::All } else { Sent::Some })
    }
}
