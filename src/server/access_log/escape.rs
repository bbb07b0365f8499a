//! PURE. Values of clients, so that they neither end a value or a line nor command a terminal.
#![forbid(unsafe_code)]

use super::buffer::{Buffer, Space};

/// Replaces the rest of a value that is too long.
pub(super) const ELLIPSIS: &[u8] = b"...";

/// Fills space with a value as [`escape_text`] does, unless there is too little.
#[inline(always)]
pub(super) fn fill_with_text<'s>(mut space: Space<'s>, value: &[u8], room: usize) -> Option<Space<'s>> {
    if value.len() > room || !is_plain(value) {
        return fill_with_odd_text(space, value, room);
    }
    space.append(value)?;
    Some(space)
}

#[cold]
#[inline(never)]
fn fill_with_odd_text<'s>(mut space: Space<'s>, value: &[u8], room: usize) -> Option<Space<'s>> {
    let mut text = Buffer::default();
    escape_odd_text(value, room, &mut text);
    space.append(text.as_slice())?;
    Some(space)
}

/// The same for a value that many requests lack.
#[inline(never)]
pub(super) fn fill_with_optional_text<'s>(space: Space<'s>, value: &[u8], room: usize) -> Option<Space<'s>> {
    fill_with_text(space, value, room)
}

/// Appends a value. Bytes that could end a value or a line, or command a terminal, are written as `\xHH`.
#[inline(never)]
pub(super) fn escape_text(value: &[u8], room: usize, out: &mut Buffer) {
    match value.len() <= room && is_plain(value) {
        true => out.append(value),
        false => escape_odd_text(value, room, out),
    }
}

#[cold]
#[inline(never)]
fn escape_odd_text(value: &[u8], room: usize, out: &mut Buffer) {
    let end = out.len() + room;
    for byte in value {
        let escaped = [b'\\', b'x', hex(byte >> 4), hex(byte & 15)];
        let text = if is_plain(&[*byte]) { &[*byte][..] } else { &escaped };
        if out.len() + text.len() > end {
            return out.append(ELLIPSIS);
        }
        out.append(text);
    }
}

/// Appends a value as the content of a string (RFC 8259 section 7). U+FFFD replaces bytes that are not UTF-8.
pub(super) fn escape_json(value: &[u8], room: usize, out: &mut Buffer) {
    match value.len() <= room && is_plain(value) {
        true => out.append(value),
        false => escape_odd_json(value, room, out),
    }
}

#[cold]
#[inline(never)]
fn escape_odd_json(value: &[u8], room: usize, out: &mut Buffer) {
    let end = out.len() + room;
    let chunks = value.utf8_chunks();
    let characters = chunks.flat_map(|chunk| {
        let replaced = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        chunk.valid().chars().chain(replaced)
    });
    for character in characters {
        let (mut utf8, code) = ([0; 4], character as u32);
        // C1 controls command terminals, too. Everything that is escaped is below 256.
        let escaped = [b'\\', b'u', b'0', b'0', hex((code >> 4 & 15) as u8), hex((code & 15) as u8)];
        let text = match character {
            '"' => b"\\\"",
            '\\' => b"\\\\",
            _ if character.is_control() => &escaped[..],
            _ => character.encode_utf8(&mut utf8).as_bytes(),
        };
        if out.len() + text.len() > end {
            return out.append(ELLIPSIS);
        }
        out.append(text);
    }
}

fn hex(digit: u8) -> u8 {
    b"0123456789abcdef"[usize::from(digit & 15)]
}

/// Whether a value consists of visible ASCII and blanks, without quotes and backslashes. Nearly all do, so it checks
/// eight bytes at once, and the last eight again if there is a rest.
#[inline(always)]
pub(super) fn is_plain(value: &[u8]) -> bool {
    let Some(last) = value.last_chunk() else { return odd(fold(value)) & HIGHS == 0 };
    let (mut found, mut rest) = (odd(u64::from_ne_bytes(*last)), value);
    while let Some((first, after)) = rest.split_first_chunk() {
        found |= odd(u64::from_ne_bytes(*first));
        rest = after;
    }
    found & HIGHS == 0
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = ONES * 0x80;
const BLANKS: u64 = ONES * b' ' as u64;

/// Has no highest bit of a byte if all bytes of the word are plain. If one is not, only bytes after it can disturb.
#[inline(always)]
fn odd(word: u64) -> u64 {
    let (control, delete) = (word.wrapping_sub(BLANKS), word.wrapping_add(ONES));
    let is = |byte: u8| (word ^ (ONES * u64::from(byte))).wrapping_sub(ONES);
    word | control | delete | is(b'"') | is(b'\\')
}

/// The bytes of a value that is shorter than a word, each at least once, and blanks.
#[inline(always)]
fn fold(value: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (value.first_chunk(), value.last_chunk()) {
        return u64::from(u32::from_ne_bytes(*first)) << 32 | u64::from(u32::from_ne_bytes(*last));
    }
    match value {
        [] => BLANKS,
        [first, ..] => {
            let [middle, last] = [value.len() / 2, value.len() - 1].map(|place| value[place]);
            u64::from_ne_bytes([*first, middle, last, b' ', b' ', b' ', b' ', b' '])
        }
    }
}
