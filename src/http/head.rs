//! A request's head: where it ends, what it says, and how the body behind it is framed.
//!
//! A head that comes whole and is valid takes the short way: one pass through httparse, one over the fields that
//! concern the protocol. Whatever else there is goes line by line, so that the first broken rule decides, however the
//! bytes came.

use std::mem::MaybeUninit;

use memchr::{memchr, memchr_iter, memrchr};

use super::request::Version;
use super::{host, Limits, Reject, FIELDS_MAX};

/// Longest method: more than any registered one has.
const METHOD_MAX: usize = 32;

/// Room for the fields of a head, on the stack of the caller and never initialised as a whole.
pub(crate) struct Scratch<'a> {
    pub(super) whole: Slots<'a>,
    /// For a second look. The borrow checker cannot see that a parse that failed has given its slots back.
    pub(super) lines: Slots<'a>,
}

/// Room for so many fields.
pub(super) type Slots<'a> = [MaybeUninit<httparse::Header<'a>>; FIELDS_MAX];

impl Scratch<'_> {
    pub(crate) fn new() -> Self {
        let slots = const { [const { MaybeUninit::uninit() }; FIELDS_MAX] };
        Scratch { whole: slots, lines: slots }
    }
}

/// How far the lines of an incomplete head have been looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Where the first line begins that has not been seen whole.
    line: u32,
    /// Where to look for its end.
    searched: u32,
    /// Lines seen whole.
    lines: u32,
}

impl Scan {
    /// Looks at what is new in `input`, which begins with the head. Returns the head's length once it is complete.
    pub(super) fn advance(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, Reject> {
        for end in memchr_iter(b'\n', &input[self.searched as usize..]) {
            let end = self.searched as usize + end + 1;
            let start = self.line as usize;
            if end > limits.head {
                break;
            }
            match line(&input[start..end]) {
                None => return Err(Reject::LineEnd),
                Some(b"") if self.lines > 0 => return Ok(Some(end)),
                Some(_) => {}
            }
            self.lines += 1;
            self.line = end as u32;
        }
        self.searched = input.len().min(limits.head) as u32;
        Ok(None)
    }

    /// What is already wrong with an incomplete head.
    ///
    /// Called for a head that has grown by at least one line, or not yet to one.
    fn refuse(&self, input: &[u8], limits: &Limits) -> Result<(), Reject> {
        check_lines(&input[..self.line as usize], limits)?;
        if self.lines == 0 {
            let end = memchr(b'\n', input).unwrap_or(input.len());
            check_begun_request_line(&input[..end], limits)?;
        }
        Ok(())
    }

    /// As [`advance`](Scan::advance), and refuses what cannot become a valid head any more.
    pub(super) fn find_end(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, Reject> {
        let seen = self.lines;
        match self.advance(input, limits) {
            Ok(Some(len)) => return Ok(Some(len)),
            Ok(None) => {}
            Err(reject) => {
                // Something before may be what is wrong.
                self.refuse(input, limits)?;
                return Err(reject);
            }
        }
        let is_too_large = input.len() > limits.head;
        if self.lines > seen || self.lines == 0 || is_too_large {
            self.refuse(input, limits)?;
        }
        if is_too_large {
            return Err(Reject::HeadTooLarge);
        }
        Ok(None)
    }
}

/// A line without its CRLF; `None` when it does not end in one.
fn line(with_end: &[u8]) -> Option<&[u8]> {
    with_end.strip_suffix(b"\r\n")
}

/// What a head says, in slices of it.
#[derive(Clone, Debug)]
pub(super) struct Head<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) version: Version,
    pub(super) host: Option<&'a [u8]>,
    pub(super) fields: &'a [httparse::Header<'a>],
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    /// The client waits for 100 (Continue) before it sends the body.
    pub(super) expects_continue: bool,
    /// Both Upgrade and `Connection: upgrade` are there.
    pub(super) upgrade: bool,
}

/// How the body behind a head is delimited (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// By its length; zero when there is none.
    Length(u64),
    Chunked,
}

/// Parses the head that `input` begins with, if it is complete and well formed; returns also its length. `None` leaves
/// it to be looked at line by line.
pub(super) fn parse_whole<'a>(
    input: &'a [u8],
    slots: &'a mut Slots<'a>,
    limits: &Limits,
) -> Option<(usize, Result<Head<'a>, Reject>)> {
    // httparse skips empty lines, whatever ends them.
    if matches!(input, [] | [b'\r' | b'\n', ..]) {
        return None;
    }
    let slots = &mut slots[..limits.fields.min(FIELDS_MAX)];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(input, slots) {
        Ok(httparse::Status::Complete(len))
            if len <= limits.head && has_strict_lines(&input[..len], request.headers) =>
        {
            Some((len, judge(request, limits)))
        }
        _ => None,
    }
}

/// Whether all lines of a head end in CRLF. httparse takes a lone LF too, but never a lone CR: so it is enough to look
/// for a CR two bytes before each line. It is less than half the cost of looking for line ends.
fn has_strict_lines(head: &[u8], fields: &[httparse::Header<'_>]) -> bool {
    let start = head.as_ptr() as usize;
    let mut names = fields.iter().map(|field| field.name.as_ptr() as usize - start);
    names.all(|name| head.get(name - 2) == Some(&b'\r')) && head.ends_with(b"\r\n\r\n")
}

/// Parses a complete head, of lines that end in CRLF.
pub(super) fn parse<'a>(head: &'a [u8], slots: &'a mut Slots<'a>, limits: &Limits) -> Result<Head<'a>, Reject> {
    let slots = &mut slots[..limits.fields.min(FIELDS_MAX)];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(head, slots) {
        Ok(httparse::Status::Complete(len)) if len == head.len() => judge(request, limits),
        _ => Err(first_broken_rule(head, limits)),
    }
}

/// Applies the rules that httparse does not know.
fn judge<'a>(request: httparse::Request<'a, 'a>, limits: &Limits) -> Result<Head<'a>, Reject> {
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(Reject::RequestLine);
    };
    if method.len() > METHOD_MAX {
        return Err(Reject::Method);
    }
    if target.len() > limits.target {
        return Err(Reject::TargetTooLong);
    }
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let authority = authority(method, target)?;
    let facts = Facts::of(request.headers, version)?;
    // The target's own authority takes the place of Host (RFC 9112 section 3.2.2), which must be there all the same.
    let host = authority.or(facts.host);
    Ok(Head {
        method,
        target,
        version,
        host,
        fields: request.headers,
        framing: facts.framing,
        keep_alive: facts.keep_alive,
        expects_continue: facts.expects_continue,
        upgrade: facts.upgrade,
    })
}

/// The minor version, for a head whose first line says HTTP/1.2 or later: it is to be read as HTTP/1.1 (RFC 9110
/// section 2.5). Returns where the digit stands.
pub(super) fn later_minor_version(head: &[u8]) -> Option<usize> {
    let end = memchr(b'\n', head)?;
    let version = head.get(end.checked_sub(9)?..end - 1)?;
    (version.starts_with(b"HTTP/1.") && matches!(version[7], b'2'..=b'9')).then_some(end - 2)
}

/// Checks the form of the target (RFC 9112 section 3.2); returns its authority if it has one.
fn authority<'a>(method: &str, target: &'a str) -> Result<Option<&'a [u8]>, Reject> {
    if !is_target(target.as_bytes()) {
        return Err(Reject::Target);
    }
    if method == "CONNECT" {
        return Err(Reject::Connect);
    }
    if target.starts_with('/') {
        return Ok(None);
    }
    if target == "*" {
        return if method == "OPTIONS" { Ok(None) } else { Err(Reject::Target) };
    }
    let (scheme, rest) = target.split_once("://").ok_or(Reject::Target)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Reject::Target);
    }
    let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
    // Neither empty (RFC 9110 section 4.2.1) nor with user information (section 4.2.4).
    if authority.is_empty() || !host::is_valid(authority.as_bytes()) {
        return Err(Reject::Target);
    }
    Ok(Some(authority.as_bytes()))
}

/// Visible ASCII without a fragment. Wider than RFC 3986, which browsers exceed in queries, and safe: no byte that
/// ends a target.
fn is_target(target: &[u8]) -> bool {
    !target.is_empty() && target.iter().all(|byte| matches!(byte, b'!'..=b'~')) && memchr(b'#', target).is_none()
}

/// What the fields say about the message and the connection.
struct Facts<'a> {
    host: Option<&'a [u8]>,
    framing: Framing,
    keep_alive: bool,
    expects_continue: bool,
    upgrade: bool,
}

impl<'a> Facts<'a> {
    /// One pass, by length first: most fields concern nobody here.
    fn of(fields: &[httparse::Header<'a>], version: Version) -> Result<Facts<'a>, Reject> {
        let mut hosts = 0;
        let mut found = Facts {
            host: None,
            framing: Framing::Length(0),
            keep_alive: false,
            expects_continue: false,
            upgrade: false,
        };
        let mut length = None;
        let mut coding: Option<TransferCoding> = None;
        let (mut close, mut keep_alive, mut upgrade, mut protocol) = (false, false, false, false);
        for field in fields {
            match field.name.len() {
                4 if field.name.eq_ignore_ascii_case("host") => {
                    hosts += 1;
                    found.host = Some(field.value);
                }
                6 if field.name.eq_ignore_ascii_case("expect") && version == Version::Http11 => {
                    if !field.value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Reject::Expectation);
                    }
                    found.expects_continue = true;
                }
                7 if field.name.eq_ignore_ascii_case("upgrade") => protocol = true,
                10 if field.name.eq_ignore_ascii_case("connection") => {
                    for option in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                        close |= option.eq_ignore_ascii_case(b"close");
                        keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                        upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                    }
                }
                14 if field.name.eq_ignore_ascii_case("content-length") => {
                    // Even twice the same: somebody upstream may have taken another one.
                    let value = content_length(field.value)?;
                    if length.replace(value).is_some() {
                        return Err(Reject::ContentLength);
                    }
                }
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                    coding.get_or_insert_default().add(field.value);
                }
                _ => {}
            }
        }
        match (hosts, version) {
            (0, Version::Http10) | (1, _) => {}
            _ => return Err(Reject::Host),
        }
        if found.host.is_some_and(|host| !host::is_valid(host)) {
            return Err(Reject::Host);
        }
        found.framing = match (coding, length) {
            (None, length) => Framing::Length(length.unwrap_or(0)),
            (Some(_), Some(_)) => return Err(Reject::TwoLengths),
            (Some(_), None) if version == Version::Http10 => return Err(Reject::TransferEncoding),
            (Some(coding), None) => coding.framing()?,
        };
        found.upgrade = upgrade && protocol;
        found.keep_alive = !close && (keep_alive || version == Version::Http11);
        Ok(found)
    }
}

/// `1*DIGIT` that fits in 64 bits.
fn content_length(value: &[u8]) -> Result<u64, Reject> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Reject::ContentLength);
    }
    let digits = std::str::from_utf8(value).map_err(|_| Reject::ContentLength)?;
    digits.parse().map_err(|_| Reject::ContentLength)
}

/// The transfer codings of a message, over all its Transfer-Encoding fields.
#[derive(Default)]
struct TransferCoding {
    is_malformed: bool,
    is_unknown: bool,
    /// Codings that are known, and that only a proxy would undo.
    others: u32,
    chunked: u32,
    ends_in_chunked: bool,
}

impl TransferCoding {
    fn add(&mut self, value: &[u8]) {
        for coding in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let is = |name: &str| coding.eq_ignore_ascii_case(name.as_bytes());
            self.ends_in_chunked = is("chunked");
            match () {
                () if is("chunked") => self.chunked += 1,
                () if KNOWN_CODINGS.into_iter().any(is) => self.others += 1,
                () if is("identity") || !is_token(coding) => self.is_malformed = true,
                () => self.is_unknown = true,
            }
        }
    }

    fn framing(&self) -> Result<Framing, Reject> {
        match () {
            () if self.is_malformed || self.chunked > 1 => Err(Reject::TransferEncoding),
            () if self.is_unknown => Err(Reject::TransferCoding),
            () if !self.ends_in_chunked => Err(Reject::TransferEncoding),
            () if self.others > 0 => Err(Reject::TransferCoding),
            () => Ok(Framing::Chunked),
        }
    }
}

/// Registered, and not implemented here (RFC 9112 section 7.2).
const KNOWN_CODINGS: [&str; 5] = ["gzip", "x-gzip", "deflate", "compress", "x-compress"];

/// Which rule a malformed head breaks first, from the top.
fn first_broken_rule(head: &[u8], limits: &Limits) -> Reject {
    let fields = head.len().saturating_sub(2);
    check_lines(&head[..fields], limits).err().unwrap_or(Reject::Field)
}

/// Checks whole lines of a head, without the empty one.
fn check_lines(lines: &[u8], limits: &Limits) -> Result<(), Reject> {
    let mut start = 0;
    for (number, end) in memchr_iter(b'\n', lines).enumerate() {
        let text = line(&lines[start..=end]).ok_or(Reject::LineEnd)?;
        match number {
            0 => check_request_line(text, limits)?,
            _ if number > limits.fields => return Err(Reject::TooManyFields),
            _ => check_field_line(&lines[start..=end])?,
        }
        start = end + 1;
    }
    Ok(())
}

fn check_request_line(line: &[u8], limits: &Limits) -> Result<(), Reject> {
    check_begun_request_line(line, limits)?;
    let space = memchr(b' ', line).ok_or(Reject::RequestLine)?;
    let (method, rest) = (&line[..space], &line[space + 1..]);
    if method.is_empty() {
        return Err(Reject::Method);
    }
    let space = memrchr(b' ', rest).ok_or(Reject::RequestLine)?;
    let (target, version) = (&rest[..space], &rest[space + 1..]);
    if target.len() > limits.target {
        return Err(Reject::TargetTooLong);
    }
    if !is_target(target) {
        return Err(Reject::Target);
    }
    match version {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            if *major == b'1' {
                Ok(())
            } else {
                Err(Reject::Version)
            }
        }
        _ => Err(Reject::RequestLine),
    }
}

/// Checks the first line before its end has come: what speaks another protocol is told at once.
fn check_begun_request_line(line: &[u8], limits: &Limits) -> Result<(), Reject> {
    // The CR may be there already, and is not part of the line.
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let method = &line[..memchr(b' ', line).unwrap_or(line.len())];
    if method.len() > METHOD_MAX || !method.iter().all(|byte| is_token(&[*byte])) {
        return Err(Reject::Method);
    }
    // What stands around a target of the longest kind.
    let around = method.len() + " ".len() + " HTTP/1.1".len();
    if line.len() > around + limits.target {
        return Err(Reject::TargetTooLong);
    }
    Ok(())
}

/// Checks one field line with its CRLF.
fn check_field_line(line: &[u8]) -> Result<(), Reject> {
    let mut field = [httparse::EMPTY_HEADER];
    match httparse::parse_headers(line, &mut field) {
        // Partial: it is valid, and no empty line follows.
        Ok(httparse::Status::Partial) => Ok(()),
        _ => Err(Reject::Field),
    }
}

/// Checks the lines of a trailer section, without the empty one.
pub(super) fn check_trailer_line(line: &[u8]) -> Result<(), Reject> {
    check_field_line(line).map_err(|_| Reject::Trailer)?;
    let name = &line[..memchr(b':', line).unwrap_or(line.len())];
    // Fields that frame or route a message may not come after it (RFC 9110 section 6.5.1).
    let framing = ["content-length", "transfer-encoding", "host", "trailer", "te", "connection", "content-encoding"];
    match framing.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes())) {
        true => Err(Reject::Trailer),
        false => Ok(()),
    }
}

/// `1*tchar` (RFC 9110 section 5.6.2).
pub(super) fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| IS_TCHAR[usize::from(*byte)])
}

static IS_TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let tchars = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut index = 0;
    while index < tchars.len() {
        table[tchars[index] as usize] = true;
        index += 1;
    }
    table
};
