//! PURE. Values of clients, so that they neither end a value or a line nor command a terminal.
#![forbid(unsafe_code)]

use super::buffer::Buffer;

/// Replaces the rest of a value that is too long.
pub(super) const ELLIPSIS: &[u8] = b"...";

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
#[inline]
pub(super) fn is_plain(value: &[u8]) -> bool {
    let Some(last) = value.last_chunk() else {
        return value.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'));
    };
    let (mut found, mut rest) = (odd(*last), value);
    while let Some((first, after)) = rest.split_first_chunk() {
        found |= odd(*first);
        rest = after;
    }
    found == 0
}

/// Zero if all of these bytes are plain.
#[inline]
fn odd(bytes: [u8; 8]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES * 0x80;
    let word = u64::from_le_bytes(bytes);
    // Not zero if some byte is zero, and zero if none is.
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let controls = word.wrapping_sub(ONES * 0x20) & !word;
    let other = |byte: u8| has_zero(word ^ (ONES * u64::from(byte)));
    (word | controls | other(b'"') | other(b'\\') | other(0x7f)) & HIGHS
}
