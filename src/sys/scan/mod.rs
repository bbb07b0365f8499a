//! Bytes from outside, in wide steps: what stands at the front of them, and where it ends.
//!
//! A [`Cursor`] looks at 32 bytes at once: by AVX2 where the processor has it, which is asked when the program runs, else
//! by SSE2, and where there is neither byte by byte. It reads within its input alone: towards the end of that it looks at
//! the last 32 bytes, and passes over those that it has seen. What depends on the instructions is inlined into the one
//! function that is compiled for them ([`Work::run`]), closures excepted: so there are none here.

#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

/// Bytes of one step.
const WINDOW: usize = 32;

/// A set of ASCII bytes.
#[derive(Debug)]
pub(crate) struct Set {
    /// By the lower four bits of a byte: a bit for each value of its upper ones.
    low: [u8; 16],
}

impl Set {
    /// The set of these bytes.
    ///
    /// # Panics
    ///
    /// If one is not ASCII.
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

/// How a window is looked at. Both return how many bytes there are behind the first `skip`, before one that is not
/// meant.
///
/// # Safety
///
/// They are as many as [`Set::contains`] says.
pub(crate) unsafe trait Steps: Copy {
    /// Bytes of a set.
    fn within(self, window: &[u8; WINDOW], skip: u32, set: &Set) -> usize;

    /// Bytes but for control characters: what is in a line, without tabs.
    fn text(self, window: &[u8; WINDOW], skip: u32) -> usize;
}

/// What is done with a cursor, whatever it steps by.
pub(crate) trait Work {
    /// What comes of it.
    type Output;

    /// Does it. To be inlined always: so it is compiled for the instructions that `steps` are made of.
    fn run<S: Steps>(self, steps: S) -> Self::Output;
}

/// Does it by the widest steps that this processor has.
#[inline]
pub(crate) fn run<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    return x86::run(work);
    #[cfg(not(target_arch = "x86_64"))]
    return work.run(portable::Bytes);
}

/// The rest of an input.
#[derive(Debug)]
pub(crate) struct Cursor<'a, S> {
    rest: &'a [u8],
    /// The last bytes of the input; behind others where it has fewer.
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

    /// Passes over so many bytes.
    #[inline(always)]
    pub(crate) fn skip(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    /// Passes over `prefix` if it is next.
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

    /// Takes the bytes of a set that are next, one at least, if `stop` follows them; passes over that, and over one
    /// space.
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

    /// Takes the bytes of a set, and perhaps a `?` and bytes of another set, if a space follows; passes over that.
    /// Returns also where the `?` is, or the end.
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

    /// Takes a text, which may have tabs but no other control characters, if CRLF follows it, and passes over that.
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

    /// Counts the bytes of a set that `rest` begins with, which this cursor was or is at.
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

/// Compared as a word.
#[inline(always)]
fn is_pair(bytes: &[u8; 2], pair: [u8; 2]) -> bool {
    u16::from_ne_bytes(*bytes) == u16::from_ne_bytes(pair)
}

/// A text and what follows its CRLF. Hardly any has tabs, so they are not among what steps count.
#[cold]
#[inline(never)]
fn line_with_tabs(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| byte.is_ascii_control() && *byte != b'\t')?;
    Some((&bytes[..end], bytes[end..].strip_prefix(b"\r\n")?))
}

/// How much of the input's last window is before a rest that is shorter.
#[inline(always)]
fn seen(rest: &[u8]) -> u32 {
    (WINDOW - rest.len()) as u32
}

/// A short input, behind zeros.
#[cold]
fn pad(input: &[u8]) -> [u8; WINDOW] {
    let mut last = [0; WINDOW];
    last[WINDOW - input.len()..].copy_from_slice(input);
    last
}
