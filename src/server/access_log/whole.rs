//! PURE. Lines that are made in one go, since their response is sent in the step of its request. Most are.
//!
//! Such a line has all that a draft has (`format.rs`), marks as well, so that it can become one if the client does not
//! accept all of the response.
#![forbid(unsafe_code)]

use super::buffer::{Buffer, Space};
use super::escape::fill_with_text;
use super::format::{append_number, digits, is_get, ClientText, DraftLines, Formatter, LoggedRequest, TARGET_SHARE};
use super::plan::{RestStep, Value, WholePlan};
use crate::server::http::{Origin, Request};

/// What a line says of the response, which mostly is what the line before it said.
#[derive(Debug, Default)]
pub(super) struct ResponseText {
    status: u16,
    bytes: u64,
    /// The version, the status and the bytes, with what is around them.
    text: Vec<u8>,
    /// How far the status and the end of what is before the bytes are from the end of the text.
    status_back: usize,
    bytes_back: usize,
}

const VERSION: &[u8] = b" HTTP/1.1";

/// The maximum length of a line that is made whole.
const WHOLE_MAX: usize = 2048;

impl ResponseText {
    #[cold]
    #[inline(never)]
    fn render(&mut self, plan: &WholePlan, status: u16, bytes: u64) {
        (self.status, self.bytes) = (status, bytes);
        let (mut number, [before, between, after]) = (Buffer::default(), &plan.around_status);
        append_number(bytes, &mut number);
        let status = digits(status);
        self.text = [VERSION, before, &status, between, number.as_slice(), after].concat();
        self.bytes_back = number.len() + after.len();
        self.status_back = status.len() + between.len() + self.bytes_back;
    }
}

impl DraftLines {
    /// The lines, if all of them are whole. Each has this many marks.
    pub(super) fn whole(&self, marks: usize) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        let ends = self.marks.chunks_exact(marks).map(|marks| marks.last().map_or(0, |end| *end));
        ends.map(move |end| self.text.part(std::mem::replace(&mut start, end)..end))
    }
}

impl Formatter {
    /// Whether lines can be made before their response is sent.
    #[inline]
    pub(super) fn is_known_early(&self) -> bool {
        self.plan.whole.is_some()
    }

    /// What the lines of a client begin with while the latest line's second lasts, if the method is GET.
    pub(super) fn dated(&self, prefix: &[u8]) -> Vec<u8> {
        let before_get = self.plan.whole.as_ref().map(|whole| &whole.before_get[..]);
        [prefix, &self.local, before_get.unwrap_or_default()].concat()
    }

    /// Appends the line of a response with this status and this many bytes after its head, unless it is very long. The
    /// prefix of `client` is [`dated`](Formatter::dated).
    #[must_use]
    #[inline]
    pub(super) fn make_whole(
        &self,
        lines: &mut DraftLines,
        client: &ClientText<'_>,
        request: &Request<'_>,
        (status, bytes): (u16, u64),
        response: &mut ResponseText,
    ) -> bool {
        let Some(plan) = &self.plan.whole else { return false };
        if response.status != status || response.bytes != bytes {
            response.render(plan, status, bytes);
        }
        lines.text.reserve(WHOLE_MAX);
        let time = lines.text.len() + client.prefix.len() - plan.before_get.len() - self.local.len();
        let space = lines.text.space();
        let Some((rest, left)) = self.fill(plan, space, client, request, response) else { return false };
        lines.text.add_filled(left);
        let rest = lines.text.len() + left - rest;
        lines.marks.extend_from_slice(&[
            time,
            rest - response.status_back,
            rest - response.bytes_back,
            lines.text.len(),
        ]);
        true
    }

    /// Fills space with a line. Returns how much is left behind the response, and at the end.
    #[inline(always)]
    fn fill(
        &self,
        plan: &WholePlan,
        mut space: Space<'_>,
        client: &ClientText<'_>,
        request: &Request<'_>,
        response: &ResponseText,
    ) -> Option<(usize, usize)> {
        let (target, room) = (request.target().as_bytes(), self.share * TARGET_SHARE);
        if is_get(request) {
            space.append(client.prefix)?;
            space = fill_with_text(space, target, room)?;
            space.append(&response.text)?;
        } else {
            space.append(client.prefix.strip_suffix(b"GET ")?)?;
            space = fill_with_words(space, request, room)?;
            space.append(&response.text[VERSION.len()..])?;
        }
        let behind_response = space.left();
        for RestStep { value, text, absent } in &plan.rest {
            match value {
                Value::Field(name) => match request.find_header(name) {
                    None => space.append_short(absent)?,
                    Some(value) => {
                        space = fill_with_text(space, value, self.share)?;
                        space.append_short(text)?;
                    }
                },
                value => {
                    space = self.fill_with_other(space, value, client, request)?;
                    space.append_short(text)?;
                }
            }
        }
        Some((behind_response, space.left()))
    }

    /// A value that few formats have.
    #[inline(never)]
    fn fill_with_other<'s>(
        &self,
        mut space: Space<'s>,
        value: &Value,
        client: &ClientText<'_>,
        request: &Request<'_>,
    ) -> Option<Space<'s>> {
        let (mut text, origin) = (Buffer::default(), Origin::default());
        self.append_known(value, &mut text, client, &LoggedRequest::Parsed(request, &origin));
        space.append(text.as_slice())?;
        Some(space)
    }

    /// Corrects the time of whole lines if it is no longer that of the latest one.
    #[inline]
    pub(super) fn set_time(&mut self, lines: &mut DraftLines, millis: u64) {
        if millis.wrapping_sub(self.second) >= 1000 {
            self.refresh(millis / 1000);
            for marks in lines.marks.chunks_exact(self.marks()) {
                lines.text.fill(marks[0], &self.local);
            }
        }
    }

    /// Turns whole lines, for which this many bytes each were to be sent, into drafts, which lack the bytes.
    pub(super) fn reopen(&self, whole: &DraftLines, bytes: impl Iterator<Item = u64>) -> DraftLines {
        let (mut lines, mut start) = (DraftLines::default(), 0);
        for (marks, bytes) in whole.marks.chunks_exact(self.marks()).zip(bytes) {
            for (number, mark) in marks.iter().enumerate() {
                lines.text.append(whole.text.part(start..*mark));
                lines.marks.push(lines.text.len());
                start = *mark;
                if number == marks.len() - 2 {
                    start += itoa::Buffer::new().format(bytes).len();
                }
            }
        }
        lines
    }
}

/// Fills space with the request line of a request that is not a usual GET. The parser has accepted the method and the
/// version, so they need no escaping.
#[inline(never)]
fn fill_with_words<'s>(mut space: Space<'s>, request: &Request<'_>, room: usize) -> Option<Space<'s>> {
    space.append(request.method().as_bytes())?;
    space.append(b" ")?;
    space = fill_with_text(space, request.target().as_bytes(), room)?;
    space.append(b" ")?;
    space.append(request.version().as_str().as_bytes())?;
    Some(space)
}
