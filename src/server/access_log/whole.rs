//! PURE. Lines that are made in one go, since their response is sent in the step of its request. Most are.
//!
//! Such a line is made where it will be written from. It has all that a draft has (`format.rs`), marks as well, so that
//! it can become one if the client does not accept all of the response.
#![forbid(unsafe_code)]

use super::buffer::{Buffer, Space};
use super::escape::{fill_with_optional_text, fill_with_text};
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

/// Where parts of a whole line are: its time, its status, its bytes, and its end.
pub(super) type Marks = [usize; 4];

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

    /// Fills space, if it is enough, with the line of a response with this status and this many bytes after its head.
    /// The prefix of `client` is [`dated`](Formatter::dated).
    #[inline(always)]
    pub(super) fn make_whole(
        &self,
        space: Space<'_>,
        client: &ClientText<'_>,
        request: &Request<'_>,
        (status, bytes): (u16, u64),
        response: &mut ResponseText,
    ) -> Option<Marks> {
        let plan = self.plan.whole.as_ref()?;
        if response.status != status || response.bytes != bytes {
            response.render(plan, status, bytes);
        }
        let all = space.left();
        let [behind_response, left] = self.fill(plan, space, client, request, response)?;
        let time = client.prefix.len() - plan.before_get.len() - self.local.len();
        let response_end = all - behind_response;
        Some([time, response_end - response.status_back, response_end - response.bytes_back, all - left])
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
    ) -> Option<[usize; 2]> {
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
                        space = fill_with_optional_text(space, value, self.share)?;
                        space.append_short(text)?;
                    }
                },
                value => {
                    space = self.fill_with_other(space, value, client, request)?;
                    space.append_short(text)?;
                }
            }
        }
        Some([behind_response, space.left()])
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

    /// Corrects the time of whole lines in the space of a buffer if it is no longer that of the latest one.
    pub(super) fn set_time(&mut self, text: &mut Buffer, whole: impl Iterator<Item = Marks>, millis: u64) {
        if millis.wrapping_sub(self.second) >= 1000 {
            self.refresh(millis / 1000);
            let mut start = text.len();
            for [time, _, _, end] in whole {
                text.fill(start + time, &self.local);
                start += end;
            }
        }
    }

    /// Turns whole lines, for which this many bytes each were to be sent, into drafts, which lack the bytes.
    pub(super) fn reopen(&self, mut text: &[u8], whole: impl Iterator<Item = (Marks, u64)>) -> DraftLines {
        let mut lines = DraftLines::default();
        for ([time, status, bytes, end], number) in whole {
            let (line, rest) = text.split_at(end);
            text = rest;
            let start = lines.text.len();
            lines.text.append(&line[..bytes]);
            lines.text.append(&line[bytes + itoa::Buffer::new().format(number).len()..]);
            lines.marks.extend_from_slice(&[start + time, start + status, start + bytes, lines.text.len()]);
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
