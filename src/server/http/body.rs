//! Request bodies: by length and chunked (RFC 9112 section 7.1).

use memchr::memchr;

use super::grammar::is_token;
use super::lines::check_trailer_line;
use super::{Limits, Reject};

/// The maximum length of a chunk-size line with its extensions, which this server ignores.
const SIZE_LINE_MAX: usize = 1024;

/// The maximum length of all extensions in a body. Without a bound, a body of one-byte chunks would cost a kilobyte per
/// byte.
const EXTENSIONS_MAX: usize = 16 * 1024;

/// The maximum number of digits of a chunk size, those of 64 bits.
const SIZE_DIGITS_MAX: usize = 16;

/// The assumed minimum for the rest of a chunked body.
const CHUNKED_REST: usize = 64 * 1024;

/// Decodes a body as it arrives.
#[derive(Debug)]
pub(super) enum Decoder {
    Length { left: u64 },
    Chunked(Chunked),
}

impl Decoder {
    /// Decodes as much of `input` as possible into `body`. Returns how much of the input belongs to this body, and
    /// whether the body is complete.
    pub(super) fn decode(
        &mut self,
        input: &[u8],
        body: &mut Vec<u8>,
        limits: &Limits,
    ) -> Result<(usize, bool), Reject> {
        match self {
            Decoder::Length { left } => {
                let taken = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                reserve(body, taken, usize::try_from(*left).unwrap_or(usize::MAX));
                body.extend_from_slice(&input[..taken]);
                *left -= taken as u64;
                Ok((taken, *left == 0))
            }
            Decoder::Chunked(chunked) => chunked.decode(input, body, limits),
        }
    }

    /// How much memory the rest needs in addition to `body`. For a chunked body this is a guess greater than zero.
    pub(super) fn room_needed(&self, body: &Vec<u8>) -> usize {
        match self {
            Decoder::Length { left } => {
                usize::try_from(*left).unwrap_or(usize::MAX).saturating_sub(body.capacity() - body.len())
            }
            Decoder::Chunked(_) => body.len().max(CHUNKED_REST),
        }
    }
}

/// Makes space for the next bytes of a body as a vector does, but not for more than is left of it.
fn reserve(body: &mut Vec<u8>, next: usize, left: usize) {
    if body.capacity() - body.len() < next {
        body.reserve_exact(body.len().max(next).min(left));
    }
}

/// The chunked coding. Lines are collected whole before they are checked, so it does not matter how the bytes arrive.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    expects: Expects,
    /// An incomplete line.
    line: Vec<u8>,
    extensions: usize,
    trailer: usize,
    trailer_lines: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum Expects {
    /// `chunk-size [ chunk-ext ] CRLF`
    #[default]
    Size,
    /// `chunk-data`
    Data { left: u64 },
    /// The CRLF after it.
    DataEnd,
    /// `*( field-line CRLF ) CRLF`
    Trailer,
}

impl Chunked {
    fn decode(&mut self, input: &[u8], body: &mut Vec<u8>, limits: &Limits) -> Result<(usize, bool), Reject> {
        let mut at = 0;
        while at < input.len() {
            let rest = &input[at..];
            if let Expects::Data { left } = self.expects {
                let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                body.extend_from_slice(&rest[..taken]);
                at += taken;
                let left = left - taken as u64;
                self.expects = if left == 0 { Expects::DataEnd } else { Expects::Data { left } };
                continue;
            }
            let max = match self.expects {
                Expects::DataEnd => 2,
                Expects::Trailer => limits.head,
                _ => SIZE_LINE_MAX,
            };
            let end = memchr(b'\n', rest).map(|end| end + 1);
            let part = &rest[..end.unwrap_or(rest.len())];
            if self.line.len() + part.len() > max {
                return Err(if matches!(self.expects, Expects::Trailer) { Reject::Trailer } else { Reject::Chunk });
            }
            at += part.len();
            if end.is_none() {
                self.line.extend_from_slice(part);
                continue;
            }
            let mut line = std::mem::take(&mut self.line);
            let is_last = if line.is_empty() {
                // The line is whole in the input, as most are.
                self.take_line(part, body.len(), limits)?
            } else {
                line.extend_from_slice(part);
                self.take_line(&line, body.len(), limits)?
            };
            if is_last {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// Handles a line; returns whether it was the last of the body.
    fn take_line(&mut self, line: &[u8], decoded: usize, limits: &Limits) -> Result<bool, Reject> {
        match self.expects {
            Expects::Size => {
                let text = line.strip_suffix(b"\r\n").ok_or(Reject::Chunk)?;
                let (size, extensions) = chunk_size(text)?;
                self.extensions += extensions;
                if self.extensions > EXTENSIONS_MAX {
                    return Err(Reject::Chunk);
                }
                if size > (limits.body - decoded.min(limits.body)) as u64 {
                    return Err(Reject::BodyTooLarge);
                }
                self.expects = if size == 0 { Expects::Trailer } else { Expects::Data { left: size } };
                Ok(false)
            }
            Expects::Trailer if line == b"\r\n" => Ok(true),
            Expects::Trailer => {
                self.trailer += line.len();
                self.trailer_lines += 1;
                if self.trailer > limits.head || self.trailer_lines > limits.fields || !line.ends_with(b"\r\n") {
                    return Err(Reject::Trailer);
                }
                check_trailer_line(line)?;
                Ok(false)
            }
            Expects::Data { .. } | Expects::DataEnd => {
                if line != b"\r\n" {
                    return Err(Reject::Chunk);
                }
                self.expects = Expects::Size;
                Ok(false)
            }
        }
    }
}

/// Parses `chunk-size [ chunk-ext ]`; returns the size and the length of the extensions.
fn chunk_size(line: &[u8]) -> Result<(u64, usize), Reject> {
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    if digits == 0 || digits > SIZE_DIGITS_MAX {
        return Err(Reject::Chunk);
    }
    let (size, extensions) = line.split_at(digits);
    if !are_extensions(extensions) {
        return Err(Reject::Chunk);
    }
    let value = |digit: &u8| u64::from(char::from(*digit).to_digit(16).unwrap_or_default());
    Ok((size.iter().fold(0, |size, digit| size << 4 | value(digit)), extensions.len()))
}

/// `*( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] )`
fn are_extensions(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let Some(name) = skip_blanks(rest).strip_prefix(b";") else { return false };
        let Some(after) = skip_token(skip_blanks(name)) else { return false };
        rest = after;
        if let Some(value) = skip_blanks(after).strip_prefix(b"=") {
            let value = skip_blanks(value);
            let Some(after) = skip_token(value).or_else(|| skip_quoted(value)) else { return false };
            rest = after;
        }
    }
    true
}

fn skip_blanks(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(bytes.len());
    &bytes[end..]
}

fn skip_token(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| !is_token(&[*byte])).unwrap_or(bytes.len());
    (end > 0).then(|| &bytes[end..])
}

/// `quoted-string` (RFC 9110 section 5.6.4).
fn skip_quoted(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(b"\"")?;
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'\t' | b' '..=b'~' | 0x80.., after @ ..] => after,
            [b'\t' | b' ' | b'!' | b'#'..=b'[' | b']'..=b'~' | 0x80.., after @ ..] => after,
            _ => return None,
        };
    }
}
