//! Heads that are incomplete or wrong: where they end, and which rule they break first.
//!
//! **The order of errors.** A rule is broken by one byte: the first with which the input so far breaks it. The rule that
//! is broken by the earliest byte decides the answer. So the answer is a function of the shortest input that breaks a
//! rule; what follows has no say, and it does not matter how the bytes come. Which byte that is:
//!
//! | rule | broken by |
//! |---|---|
//! | the method is a token of at most [`METHOD_MAX`] bytes | the first byte too many, or that is no token's |
//! | the target has at most `limits.target` bytes | the first byte with which the line is longer than any with such a target |
//! | the head has at most `limits.head` bytes | the first byte too many |
//! | a line ends in CRLF; what it must contain; how many there are | its LF |
//! | what the fields say together | the LF of the empty line |
//!
//! Where one byte breaks several rules, the upper row decides; of a line, first its end, then its place, then its
//! contents. A CR counts with the byte behind it, as it may be half of the line's end.

use memchr::{memchr, memchr_iter, memrchr};

use super::grammar::{find_query, is_token, METHOD_MAX};
use super::{Limits, Reject};

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
    /// Looks at what is new in `input`, which begins with the head. Returns the head's length once it is complete, and
    /// the first rule that an incomplete one breaks.
    pub(super) fn find_end(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, Reject> {
        let checked = *self;
        let lines_end = self.advance(input, limits);
        if let Ok(Some(len)) = lines_end {
            // Parsing it tells whether it is valid.
            return Ok(Some(len));
        }
        // Only lines that are new: a head that comes line by line is not checked all over again with each.
        check_lines(&input[checked.line as usize..self.line as usize], checked.lines as usize, limits)?;
        if self.lines == 0 {
            let end = memchr(b'\n', input).unwrap_or(input.len());
            check_begun_request_line(&input[..end.min(limits.head + 1)], limits)?;
        }
        lines_end?;
        if input.len() > limits.head {
            return Err(Reject::HeadTooLarge);
        }
        Ok(None)
    }

    /// Passes over whole lines until one that is empty, which ends the head, or that does not end in CRLF.
    fn advance(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, Reject> {
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
}

/// Which rule a complete head breaks first.
pub(super) fn first_broken_rule(head: &[u8], limits: &Limits) -> Reject {
    let fields = head.len().saturating_sub(2);
    let broken = check_lines(&head[..fields], 0, limits).err();
    debug_assert!(broken.is_some(), "a head without a broken line was not parsed: {}", head.escape_ascii());
    broken.unwrap_or(Reject::Field)
}

/// Checks whole lines of a head from the one numbered `first`, without the empty one. The request line is number 0.
fn check_lines(lines: &[u8], first: usize, limits: &Limits) -> Result<(), Reject> {
    let mut start = 0;
    for (number, end) in (first..).zip(memchr_iter(b'\n', lines)) {
        if number == 0 {
            check_begun_request_line(&lines[start..end], limits)?;
        }
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

/// A line without its CRLF; `None` when it does not end in one.
fn line(with_end: &[u8]) -> Option<&[u8]> {
    with_end.strip_suffix(b"\r\n")
}

/// Checks what a request line begins with, whether or not its LF has come: what speaks another protocol is told at once.
/// Once an input breaks one of these rules, so does every longer one.
fn check_begun_request_line(begun: &[u8], limits: &Limits) -> Result<(), Reject> {
    let begun = begun.strip_suffix(b"\r").unwrap_or(begun);
    let method = &begun[..memchr(b' ', begun).unwrap_or(begun.len())];
    if !method.iter().take(METHOD_MAX).all(|byte| is_token(&[*byte])) {
        return Err(Reject::Method);
    }
    if let Some(byte) = method.get(METHOD_MAX) {
        return Err(if is_token(&[*byte]) { Reject::LongMethod } else { Reject::Method });
    }
    // What stands around a target of the longest kind.
    let around = method.len() + " ".len() + " HTTP/1.1".len();
    if begun.len() > around + limits.target {
        return Err(Reject::TargetTooLong);
    }
    Ok(())
}

/// Checks a whole request line whose beginning is right.
fn check_request_line(line: &[u8], limits: &Limits) -> Result<(), Reject> {
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
    find_query(target, limits)?;
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
