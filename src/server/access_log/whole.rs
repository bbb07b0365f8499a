//! PURE. Lines that are made in one go, since their response is sent in the step of its request. Most are.
//!
//! Such a line has all that a draft has (`format.rs`), marks as well, so that it can become one if the client does not
//! accept all of the response.
#![forbid(unsafe_code)]

use super::buffer::Buffer;
use super::escape::escape_text;
use super::format::{
    append_number, digits, is_get, request_line, ClientText, DraftLines, Formatter, LoggedRequest, TARGET_SHARE,
};
use crate::server::http::{Origin, Request};

/// What a line says of the response, which mostly is what the line before it said.
#[derive(Debug, Default)]
pub(super) struct ResponseText {
    status: u16,
    bytes: u64,
    /// The version, the status and the bytes, with what is between them.
    text: Vec<u8>,
    /// How long it is from the status to the bytes, and the bytes are.
    between: usize,
    digits: usize,
}

const VERSION: &[u8] = b" HTTP/1.1";

/// The steps of the [`Plan`](super::plan::Plan) before those after the bytes.
const TIME_TO_BYTES: usize = 4;

impl ResponseText {
    #[cold]
    #[inline(never)]
    fn render(&mut self, formatter: &Formatter, status: u16, bytes: u64) {
        (self.status, self.bytes) = (status, bytes);
        let [_, _, before_status, before_bytes, ..] = &formatter.plan.early[..] else {
            return;
        };
        let mut number = Buffer::default();
        append_number(bytes, &mut number);
        let (status, between) = (digits(status), before_bytes.text.as_slice());
        self.text = [VERSION, before_status.text.as_slice(), &status, between, number.as_slice()].concat();
        (self.between, self.digits) = (status.len() + between.len(), number.len());
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
        self.plan.get.is_some()
    }

    /// Adds the time of the latest line to what all lines of a client begin with.
    pub(super) fn dated(&self, prefix: &[u8]) -> Vec<u8> {
        [prefix, &self.local].concat()
    }

    /// Appends the line of a response with this status and this many bytes after its head. The prefix of `client` is
    /// [`dated`](Formatter::dated).
    pub(super) fn make_whole(
        &self,
        lines: &mut DraftLines,
        client: ClientText<'_>,
        request: &Request<'_>,
        (status, bytes): (u16, u64),
        response: &mut ResponseText,
    ) {
        if response.status != status || response.bytes != bytes {
            response.render(self, status, bytes);
        }
        let (Some(get), Some((begin, rest))) = (&self.plan.get, self.plan.early.split_at_checked(TIME_TO_BYTES)) else {
            return;
        };
        let DraftLines { text, marks } = lines;
        let origin = Origin::default();
        let logged = LoggedRequest::Parsed(request, &origin);
        text.append(client.prefix);
        let time = text.len() - self.local.len();
        if is_get(request) {
            text.append_short(get);
            escape_text(request.target().as_bytes(), self.share * TARGET_SHARE, text);
            text.append(&response.text);
        } else {
            text.append_short(&begin[1].text);
            request_line(&logged, self.share, text);
            text.append(&response.text[VERSION.len()..]);
        }
        let bytes = text.len() - response.digits;
        for step in rest {
            text.append_short(&step.text);
            self.append_known(&step.value, text, &client, &logged);
        }
        marks.extend_from_slice(&[time, bytes - response.between, bytes, text.len()]);
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
