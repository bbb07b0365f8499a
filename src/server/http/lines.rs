//! Incomplete and invalid heads: where they end, and which rule they break first.
//!
//! **The order of errors.** The byte that breaks a rule is the first one with which the input so far violates it. The
//! rule broken by the earliest byte determines the response. So the response depends only on the shortest input that
//! breaks a rule: what follows has no influence, and it does not matter how the bytes arrive. The bytes in question:
//!
//! | rule | broken by |
//! |---|---|
//! | the method is a token of at most [`METHOD_MAX`] bytes | the first byte too many, or outside of tokens |
//! | the target has at most `limits.target` bytes | the first byte that makes the line longer than any with such a target |
//! | the head has at most `limits.head` bytes | the first byte too many |
//! | a line ends in CRLF; its contents; the number of lines | its LF |
//! | the rules about several fields | the LF of the empty line |
//!
//! If one byte breaks several rules, the upper row applies. Within a line, its end comes first, then its place, then
//! its contents. A CR counts together with the byte after it, since it may be half of the line's end.

use memchr::{memchr, memchr_iter, memrchr};

use super::grammar::{find_query, is_token, METHOD_MAX, TCHAR};
use super::response::is_value;
use super::{Limits, Reject};

/// How far the lines of an incomplete head were scanned.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scan {
    /// The beginning of the first incomplete line.
    line: u32,
    /// Where to continue looking for its end.
    searched: u32,
    /// The number of complete lines.
    lines: u32,
}

impl Scan {
    /// Whether a part of a head was scanned.
    #[inline]
    pub(super) fn is_begun(self) -> bool {
        self.searched > 0
    }

    /// Scans what is new in `input`, which begins with the head. Returns the length of the head once it is complete, or
    /// the first rule that an incomplete head breaks.
    pub(super) fn find_end(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, Reject> {
        let checked = *self;
        let lines_end = self.advance(input, limits);
        if let Ok(Some(len)) = lines_end {
            // Parsing will show whether it is valid.
            return Ok(Some(len));
        }
        // Only new lines, so that a head that arrives line by line is not checked from the beginning with each line.
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

    /// Skips complete lines until an empty one, which ends the head, or one that does not end in CRLF.
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

/// The first rule that a complete head breaks.
pub(super) fn first_broken_rule(head: &[u8], limits: &Limits) -> Reject {
    let fields = head.len().saturating_sub(2);
    let broken = check_lines(&head[..fields], 0, limits).err();
    debug_assert!(broken.is_some(), "a head without a broken line was not parsed: {}", head.escape_ascii());
    broken.unwrap_or(Reject::Field)
}

/// Checks complete lines of a head, without the empty one, beginning with number `first`. The request line is number 0.
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

/// A line without its CRLF; `None` if it does not end in one.
fn line(with_end: &[u8]) -> Option<&[u8]> {
    with_end.strip_suffix(b"\r\n")
}

/// Checks the beginning of a request line, even before its LF has arrived, so that clients of other protocols get an
/// error at once. If an input breaks one of these rules, so does every longer one.
fn check_begun_request_line(begun: &[u8], limits: &Limits) -> Result<(), Reject> {
    let begun = begun.strip_suffix(b"\r").unwrap_or(begun);
    let method = &begun[..memchr(b' ', begun).unwrap_or(begun.len())];
    if !method.iter().take(METHOD_MAX).all(|byte| is_token(&[*byte])) {
        return Err(Reject::Method);
    }
    if let Some(byte) = method.get(METHOD_MAX) {
        return Err(if is_token(&[*byte]) { Reject::LongMethod } else { Reject::Method });
    }
    // What surrounds the longest allowed target.
    let around = method.len() + " ".len() + " HTTP/1.1".len();
    if begun.len() > around + limits.target {
        return Err(Reject::TargetTooLong);
    }
    Ok(())
}

/// Checks a complete request line whose beginning is valid.
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

/// Checks one field line with its CRLF: `field-name ":" OWS field-value OWS` (RFC 9112 section 5).
fn check_field_line(with_end: &[u8]) -> Result<(), Reject> {
    let text = line(with_end).ok_or(Reject::Field)?;
    let name = text.iter().take_while(|byte| TCHAR.contains(**byte)).count();
    match &text[name..] {
        [b':', value @ ..] if name > 0 && is_value(value) => Ok(()),
        _ => Err(Reject::Field),
    }
}

/// Checks the lines of a trailer section, without the empty one.
pub(super) fn check_trailer_line(line: &[u8]) -> Result<(), Reject> {
    check_field_line(line).map_err(|_| Reject::Trailer)?;
    let name = &line[..memchr(b':', line).unwrap_or(line.len())];
    // Fields that frame or route a message must not come after it (RFC 9110 section 6.5.1).
    let framing = ["content-length", "transfer-encoding", "host", "trailer", "te", "connection", "content-encoding"];
    match framing.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes())) {
        true => Err(Reject::Trailer),
        false => Ok(()),
    }
}
