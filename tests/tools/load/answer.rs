//! The answer to one GET, as its bytes come.

/// The longest head that is taken for an answer.
const MAX_HEAD: usize = 16 * 1024;
const MAX_FIELDS: usize = 64;

/// What an [`Answer`] is with the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Partial,
    Whole,
    /// No 200 with a Content-Length, or longer than that says.
    Bad,
}

/// Forgets the body's bytes: only their number is checked.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    head: Vec<u8>,
    body: Option<Body>,
    /// The server closes the connection after this answer (RFC 9112 section 9.6).
    pub(crate) closes: bool,
    /// The process that gave it, where it has an `X-Pid` field.
    pub(crate) worker: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Body {
    left: u64,
}

impl Answer {
    /// Makes it empty for the next answer, and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.head.clear();
        self.body = None;
        self.closes = false;
        self.worker = None;
    }

    /// Whether any byte of it has come.
    pub(crate) fn has_begun(&self) -> bool {
        self.body.is_some() || !self.head.is_empty()
    }

    pub(crate) fn take(&mut self, bytes: &[u8]) -> Progress {
        if let Some(body) = self.body {
            return self.take_body(body, bytes.len());
        }
        self.head.extend_from_slice(bytes);
        match self.parse_head() {
            Ok(Some((len, body))) => self.take_body(body, self.head.len() - len),
            Ok(None) if self.head.len() <= MAX_HEAD => Progress::Partial,
            _ => Progress::Bad,
        }
    }

    fn take_body(&mut self, body: Body, len: usize) -> Progress {
        let Some(left) = body.left.checked_sub(len as u64) else { return Progress::Bad };
        self.body = Some(Body { left });
        if left == 0 {
            Progress::Whole
        } else {
            Progress::Partial
        }
    }

    /// The head's length and the body that follows; `None` while the head is incomplete.
    fn parse_head(&mut self) -> Result<Option<(usize, Body)>, Invalid> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(len) = head.parse(&self.head).map_err(|_| Invalid)? else { return Ok(None) };
        if head.code != Some(200) {
            return Err(Invalid);
        }
        let (mut left, mut closes, mut worker) = (None, head.version == Some(0), None);
        for field in head.headers.iter() {
            let value = std::str::from_utf8(field.value).map_err(|_| Invalid)?.trim();
            if field.name.eq_ignore_ascii_case("Content-Length") {
                // Two of them disagree about where the answer ends, even if they are equal today.
                let earlier = left.replace(value.parse().map_err(|_| Invalid)?);
                earlier.map_or(Ok(()), |_: u64| Err(Invalid))?;
            } else if field.name.eq_ignore_ascii_case("Connection") {
                closes |= value.split(',').any(|option| option.trim().eq_ignore_ascii_case("close"));
            } else if field.name.eq_ignore_ascii_case("X-Pid") {
                worker = value.parse().ok();
            }
        }
        (self.closes, self.worker) = (closes, worker);
        Ok(Some((len, Body { left: left.ok_or(Invalid)? })))
    }
}

struct Invalid;
