//! Scans input in wide steps: what the input begins with, and where that ends.
//!
//! A [`Cursor`] looks at 32 bytes at once: with AVX2 if the processor has it, which is detected at run time, otherwise
//! with SSE2; with NEON on 64-bit ARM; and on other architectures byte by byte. It never reads beyond its input. Near
//! the end of the input, it looks at the last 32 bytes again and skips those that it has seen. Code that depends on the
//! instruction set is inlined into the one function that is compiled for it ([`Work::run`]). Closures would not be
//! inlined there, so this module has none.

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod neon;
#[cfg(any(test, not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))))]
mod portable;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

/// The number of bytes in one step.
const WINDOW: usize = 32;

/// A set of ASCII bytes.
#[derive(Debug)]
pub(crate) struct Set {
    /// Indexed by the lower four bits of a byte: a bit for each value of the upper four bits.
    low: [u8; 16],
}

impl Set {
    /// Returns the set of these bytes.
    ///
    /// # Panics
    ///
    /// If a byte is not ASCII.
    pub(crate) const fn of(bytes: &[u8]) -> Set {
        let mut low = [0; 16];
        let mut index = 0;
        while index < bytes.len() {
            assert!(bytes[index].is_ascii());
            low[(bytes[index] & 15) as usize] |= 1 << (bytes[index] >> 4);
            index += 1;
        }
        Set { low }
    }

    #[inline]
    pub(crate) fn contains(&self, byte: u8) -> bool {
        byte.is_ascii() && self.low[usize::from(byte & 15)] >> (byte >> 4) & 1 == 1
    }
}

/// How a window is scanned. Both methods skip the first `skip` bytes, and return how many matching bytes follow before
/// the first other byte.
///
/// # Safety
///
/// The count must agree with [`Set::contains`].
pub(crate) unsafe trait Steps: Copy {
    /// Counts bytes of a set.
    fn within(self, window: &[u8; WINDOW], skip: u32, set: &Set) -> usize;

    /// Counts bytes that are not control characters: the text of a line, up to a tab.
    fn text(self, window: &[u8; WINDOW], skip: u32) -> usize;
}

/// What to do with a cursor, for any kind of steps.
pub(crate) trait Work {
    /// The result.
    type Output;

    /// Does the work. Implementations must always be inlined, so that they are compiled for the instruction set of
    /// `steps`.
    fn run<S: Steps>(self, steps: S) -> Self::Output;
}

/// Does the work with the widest steps that this processor has.
#[inline]
pub(crate) fn run<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    return x86::run(work);
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    return work.run(neon::Neon);
    #[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little"))))]
    return work.run(portable::Bytes);
}

/// Returns the distance from bit `skip` of a window's mask to the first bit that is set from there on, or to the end if
/// none is.
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
#[inline(always)]
fn first(mask: u32, skip: u32) -> usize {
    if skip == 0 {
        return mask.trailing_zeros() as usize;
    }
    ((u64::from(mask) | 1 << WINDOW) >> skip).trailing_zeros() as usize
}

/// The rest of an input.
#[derive(Debug)]
pub(crate) struct Cursor<'a, S> {
    rest: &'a [u8],
    /// The last bytes of the input; zeros come first if the input is shorter.
    last: [u8; WINDOW],
    steps: S,
}

impl<'a, S: Steps> Cursor<'a, S> {
    #[inline(always)]
    pub(crate) fn new(input: &'a [u8], steps: S) -> Self {
        let last = input.last_chunk().copied().unwrap_or_else(|| pad(input));
        Cursor { rest: input, last, steps }
    }

    #[inline(always)]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Skips `count` bytes.
    #[inline(always)]
    pub(crate) fn skip(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    /// Skips `prefix` if the input continues with it.
    #[inline(always)]
    pub(crate) fn strip<const N: usize>(&mut self, prefix: &[u8; N]) -> bool {
        match self.rest.split_first_chunk() {
            Some((first, rest)) if first == prefix => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Takes the next bytes of a set, at least one, if `stop` follows them. Also skips `stop` and one space.
    #[inline(always)]
    pub(crate) fn take(&mut self, set: &Set, stop: u8) -> Option<&'a str> {
        let count = self.count(self.rest, set);
        let behind = self.rest.get(count..)?;
        let rest = match behind.split_first_chunk() {
            Some((two, rest)) if is_pair(two, [stop, b' ']) => rest,
            _ => behind.strip_prefix(&[stop])?,
        };
        let taken = &self.rest[..count];
        if taken.is_empty() {
            return None;
        }
        self.rest = rest;
        // SAFETY: every byte of it is in a set of ASCII bytes.
        Some(unsafe { std::str::from_utf8_unchecked(taken) })
    }

    /// Takes the next bytes of a set, and optionally a `?` and bytes of another set, if a space follows. Also skips the
    /// space. Returns the text and the position of the `?` in it, or the length of the text.
    #[inline(always)]
    pub(crate) fn take_parts(&mut self, set: &Set, other: &Set) -> Option<(&'a str, usize)> {
        let mark = self.count(self.rest, set);
        let mut len = mark;
        if let Some([b'?', behind @ ..]) = self.rest.get(mark..) {
            len += 1 + self.count(behind, other);
        }
        let rest = self.rest.get(len..)?.strip_prefix(b" ")?;
        let taken = &self.rest[..len];
        self.rest = rest;
        // SAFETY: every byte of it is in one of two sets of ASCII bytes, or is `?`.
        Some((unsafe { std::str::from_utf8_unchecked(taken) }, mark))
    }

    /// Takes a text, which may contain tabs but no other control characters, if CRLF follows it. Also skips the CRLF.
    #[inline(always)]
    pub(crate) fn take_line(&mut self) -> Option<&'a [u8]> {
        let (taken, behind) = self.rest.split_at_checked(self.count_text(self.rest))?;
        let (taken, rest) = match behind.split_first_chunk() {
            Some((two, rest)) if is_pair(two, *b"\r\n") => (taken, rest),
            _ => line_with_tabs(self.rest)?,
        };
        self.rest = rest;
        Some(taken)
    }

    /// Counts the bytes of a set at the beginning of `rest`, which is the rest of this cursor's input now or at an
    /// earlier time.
    #[inline(always)]
    pub(crate) fn count(&self, rest: &[u8], set: &Set) -> usize {
        let Some(window) = rest.first_chunk() else { return self.steps.within(&self.last, seen(rest), set) };
        let mut len = self.steps.within(window, 0, set);
        let mut count = len;
        while count == WINDOW {
            let rest = &rest[len..];
            count = match rest.first_chunk() {
                Some(window) => self.steps.within(window, 0, set),
                None => self.steps.within(&self.last, seen(rest), set),
            };
            len += count;
        }
        len
    }

    #[inline(always)]
    fn count_text(&self, rest: &[u8]) -> usize {
        let Some(window) = rest.first_chunk() else { return self.steps.text(&self.last, seen(rest)) };
        let mut len = self.steps.text(window, 0);
        let mut count = len;
        while count == WINDOW {
            let rest = &rest[len..];
            count = match rest.first_chunk() {
                Some(window) => self.steps.text(window, 0),
                None => self.steps.text(&self.last, seen(rest)),
            };
            len += count;
        }
        len
    }
}

/// Compares two bytes as one word.
#[inline(always)]
fn is_pair(bytes: &[u8; 2], pair: [u8; 2]) -> bool {
    u16::from_ne_bytes(*bytes) == u16::from_ne_bytes(pair)
}

/// Returns a text and what follows its CRLF. Tabs are rare, so the steps do not count them as text.
#[cold]
#[inline(never)]
fn line_with_tabs(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| byte.is_ascii_control() && *byte != b'\t')?;
    Some((&bytes[..end], bytes[end..].strip_prefix(b"\r\n")?))
}

/// How many bytes of the input's last window come before `rest`, which is shorter than a window.
#[inline(always)]
fn seen(rest: &[u8]) -> u32 {
    (WINDOW - rest.len()) as u32
}

/// Pads a short input with zeros in front.
#[cold]
fn pad(input: &[u8]) -> [u8; WINDOW] {
    let mut last = [0; WINDOW];
    last[WINDOW - input.len()..].copy_from_slice(input);
    last
}
