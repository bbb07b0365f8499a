//! The head of a response, as a handler makes it.

use std::borrow::Cow;
use std::fmt;
use std::ptr;

use super::grammar::is_token;

/// Status, header fields, and whether to close the connection.
#[derive(Clone)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    pub(crate) content_type: Option<Cow<'static, str>>,
    /// Rendered: `name: value CRLF`, and so on.
    pub(super) fields: Vec<u8>,
    pub(crate) close: bool,
}

impl ResponseHead {
    /// # Panics
    ///
    /// Unless `status` is between 200 and 599, and the media type is a valid field value.
    pub(crate) fn new(status: u16, content_type: Option<Cow<'static, str>>) -> ResponseHead {
        let mut head = match content_type {
            Some(content_type) => ResponseHead::with(content_type),
            None => ResponseHead { status: 200, content_type: None, fields: Vec::new(), close: false },
        };
        head.set_status(status);
        head
    }

    /// A 200 with a media type.
    ///
    /// # Panics
    ///
    /// Unless the media type is a valid field value.
    #[inline]
    pub(crate) fn with(content_type: Cow<'static, str>) -> ResponseHead {
        assert!(is_value(content_type.as_bytes()), "the media type {content_type:?} is no valid field value");
        ResponseHead { status: 200, content_type: Some(content_type), fields: Vec::new(), close: false }
    }

    /// Whether dropping it would free memory.
    #[inline]
    pub(crate) fn owns_memory(&self) -> bool {
        self.fields.capacity() > 0 || matches!(self.content_type, Some(Cow::Owned(_)))
    }

    /// Whether both render to the same bytes. `close` is not part of the head, but of the connection.
    #[inline]
    pub(super) fn renders_as(&self, other: &ResponseHead) -> bool {
        // An empty Vec has a dangling pointer, from which glibc's memcmp(3) with AVX-512 loads. The load is masked, so
        // it does not fault, but it takes 180 cycles.
        let has_equal_fields = match (self.fields.is_empty(), other.fields.is_empty()) {
            (false, false) => self.fields == other.fields,
            (none, none_either) => none == none_either,
        };
        let has_equal_type = match (&self.content_type, &other.content_type) {
            // Mostly from the same line of the program.
            (Some(Cow::Borrowed(one)), Some(Cow::Borrowed(other))) if ptr::eq(*one, *other) => true,
            (one, other) => one == other,
        };
        self.status == other.status && has_equal_type && has_equal_fields
    }

    /// The fields other than Content-Type, as names and values.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        // They were rendered from text.
        let lines = std::str::from_utf8(&self.fields).unwrap_or_default().split_terminator("\r\n");
        lines.filter_map(|line| line.split_once(": "))
    }

    /// # Panics
    ///
    /// Unless `status` is between 200 and 599; the server sends interim responses itself.
    pub(crate) fn set_status(&mut self, status: u16) {
        assert!((200..600).contains(&status), "a response's status is from 200 to 599, not {status}");
        self.status = status;
    }

    /// A 200 with one of our own media types, and space for the fields of a file.
    pub(crate) fn of_file(content_type: Cow<'static, str>) -> ResponseHead {
        let fields = Vec::with_capacity(FILE_FIELDS_GUESS);
        ResponseHead { status: 200, content_type: Some(content_type), fields, close: false }
    }

    /// Adds a field that is known to be valid, without surrounding white space, and not Content-Type.
    pub(crate) fn add_valid(&mut self, name: &str, value: &str) {
        debug_assert!(
            check_field(name, value).is_ok() && value == value.trim_matches([' ', '\t']),
            "{name}: {value:?}"
        );
        for part in [name, ": ", value, "\r\n"] {
            self.fields.extend_from_slice(part.as_bytes());
        }
    }

    /// Adds a Trailer field with these names, if there are any.
    pub(crate) fn announcing(mut self, trailers: Option<&str>) -> ResponseHead {
        if let Some(names) = trailers {
            push_field(&mut self.fields, "Trailer", names);
        }
        self
    }

    /// Adds a field. A Content-Type replaces an earlier one.
    pub(crate) fn add(&mut self, name: &str, value: &str) -> Result<(), InvalidHeader> {
        if name.eq_ignore_ascii_case("upgrade") && is_value(value.as_bytes()) {
            push_field(&mut self.fields, name, value);
            // Both or none (RFC 9110 section 7.8). A list may have several lines, so a further Connection of the server
            // does not matter.
            push_field(&mut self.fields, "Connection", "Upgrade");
            return Ok(());
        }
        check_field(name, value)?;
        if name.eq_ignore_ascii_case("content-type") {
            self.content_type = Some(Cow::Owned(value.to_owned()));
        } else {
            push_field(&mut self.fields, name, value);
        }
        Ok(())
    }
}

/// The length of the fields that describe a file, so that one allocation is enough.
const FILE_FIELDS_GUESS: usize = 256;

impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead")
            .field("status", &self.status)
            .field("content_type", &self.content_type)
            .field("fields", &String::from_utf8_lossy(&self.fields))
            .field("close", &self.close)
            .finish()
    }
}

/// A header field that must not be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidHeader {
    name: String,
    problem: &'static str,
}

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "header field {:?}: {}", self.name, self.problem)
    }
}

impl std::error::Error for InvalidHeader {}

impl InvalidHeader {
    pub(crate) fn servers_own(name: &str) -> InvalidHeader {
        InvalidHeader::new(name, "the server sets this field itself")
    }

    #[cfg(feature = "http")]
    pub(crate) fn of(name: &str, problem: &'static str) -> InvalidHeader {
        InvalidHeader::new(name, problem)
    }

    /// Whether only the server may set the field.
    #[cfg(feature = "http")]
    pub(crate) fn is_servers_own(name: &str) -> bool {
        THE_SERVERS.iter().any(|own| name.eq_ignore_ascii_case(own))
    }

    pub(super) fn new(name: &str, problem: &'static str) -> InvalidHeader {
        InvalidHeader { name: name.to_owned(), problem }
    }
}

/// Whether a field may be added to a response.
pub(super) fn check_field(name: &str, value: &str) -> Result<(), InvalidHeader> {
    let problem = match () {
        () if !is_token(name.as_bytes()) => "the name is no token (RFC 9110 section 5.1)",
        () if !is_value(value.as_bytes()) => "the value holds a control character (RFC 9110 section 5.5)",
        () if THE_SERVERS.iter().any(|own| name.eq_ignore_ascii_case(own)) => "the server sets this field itself",
        () => return Ok(()),
    };
    Err(InvalidHeader::new(name, problem))
}

/// Renders a field that was checked.
pub(super) fn push_field(fields: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value.trim_matches([' ', '\t']), "\r\n"] {
        fields.extend_from_slice(part.as_bytes());
    }
}

/// `field-value` of RFC 9110 section 5.5; bytes from 0x80 on are its `obs-text`.
///
/// Inlined, it costs nothing for a literal.
#[inline]
pub(crate) fn is_value(value: &[u8]) -> bool {
    // Without a branch per byte, since few are invalid.
    !value.iter().fold(false, |wrong, byte| wrong | (*byte < b' ' && *byte != b'\t') | (*byte == 0x7f))
}

/// Fields that frame a message or concern the connection.
const THE_SERVERS: [&str; 8] = [
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Keep-Alive",
    "Date",
    "Trailer",
    "Upgrade",
    "Proxy-Connection",
];
