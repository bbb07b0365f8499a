//! What the fields of a head imply for the message and the connection.

use super::grammar::is_token;
use super::message::Framing;
use super::request::Version;
use super::{host, Reject};
use crate::sys::scan::{Cursor, Steps};

/// What the fields imply for the message and the connection.
#[derive(Default)]
pub(super) struct FieldSummary<'a> {
    pub(super) host: Option<&'a [u8]>,
    /// Everything from the host on.
    behind_host: &'a [u8],
    is_host_valid: bool,
    has_two_hosts: bool,
    /// The first rule that a field breaks by itself.
    broken: Option<Reject>,
    length: Option<u64>,
    coding: Option<TransferCoding>,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    /// Whether it is an option of Connection.
    pub(super) upgrade: bool,
    /// Whether the field exists.
    pub(super) protocol: bool,
    pub(super) expects_continue: bool,
}

/// By length, the first letter of the names that matter.
static FIRST_LETTERS: [u8; 18] = {
    let mut letters = [0; 18];
    letters["host".len()] = b'h';
    letters["expect".len()] = b'e';
    letters["upgrade".len()] = b'u';
    letters["connection".len()] = b'c';
    letters["content-length".len()] = b'c';
    letters["transfer-encoding".len()] = b't';
    letters
};

impl<'a> FieldSummary<'a> {
    /// Handles a field whose value is at the front of `behind`, unless further blanks precede it. Selects by length and
    /// first letter, since most fields do not matter here.
    #[inline(always)]
    pub(super) fn learn(&mut self, name: &str, value: &'a [u8], behind: &'a [u8], version: Version) {
        let first = name.as_bytes().first().map_or(0, |byte| byte | 0x20);
        if FIRST_LETTERS.get(name.len()) != Some(&first) {
            return;
        }
        if is(name, b"host") {
            self.has_two_hosts |= self.host.replace(value).is_some();
            self.behind_host = behind;
        } else {
            self.learn_closely(name, value, version);
        }
    }

    /// Checks the host, once `cursor` has passed over all fields.
    #[inline(always)]
    pub(super) fn check_host<S: Steps>(&mut self, cursor: &Cursor<'_, S>) {
        let Some(host) = self.host else { return };
        self.is_host_valid = match self.behind_host {
            // Further blanks precede it.
            [] | [..=b' ', ..] => host::is_valid(host),
            behind => host::is_valid_at(host, behind, cursor),
        };
    }

    #[inline(never)]
    fn learn_closely(&mut self, name: &str, value: &[u8], version: Version) {
        if let Err(reject) = self.try_learn(name, value, version) {
            self.broken.get_or_insert(reject);
        }
    }

    fn try_learn(&mut self, name: &str, value: &[u8], version: Version) -> Result<(), Reject> {
        match () {
            () if is(name, b"connection") => {
                if value == b"keep-alive" {
                    self.keep_alive = true;
                    return Ok(());
                }
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            () if is(name, b"content-length") => {
                // Not even twice the same value, since another server upstream may have used a different one.
                let value = content_length(value)?;
                if self.length.replace(value).is_some() {
                    return Err(Reject::ContentLength);
                }
            }
            () if is(name, b"transfer-encoding") => self.coding.get_or_insert_default().add(value),
            () if is(name, b"upgrade") => self.protocol = true,
            () if is(name, b"expect") && version == Version::Http11 => {
                for expectation in elements(value) {
                    if !expectation.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Reject::Expectation);
                    }
                    self.expects_continue = true;
                }
            }
            () => {}
        }
        Ok(())
    }

    /// Returns the first rule that the fields break together.
    #[inline(always)]
    pub(super) fn check(&self, version: Version) -> Result<(), Reject> {
        if let Some(reject) = self.broken {
            return Err(reject);
        }
        let is_needed = version == Version::Http11;
        match self.host {
            // An http URI has a host (RFC 9110 section 4.2.1), and a request here without an authority has none.
            Some(b"") if is_needed => Err(Reject::Host),
            Some(_) if !self.has_two_hosts && self.is_host_valid => Ok(()),
            None if !is_needed => Ok(()),
            _ => Err(Reject::Host),
        }
    }

    #[inline(always)]
    pub(super) fn framing(&self, version: Version) -> Result<Framing, Reject> {
        match (&self.coding, self.length) {
            (None, length) => Ok(Framing::Length(length.unwrap_or(0))),
            (Some(_), Some(_)) => Err(Reject::TwoLengths),
            (Some(_), None) if version == Version::Http10 => Err(Reject::TransferEncoding),
            (Some(coding), None) => coding.framing(),
        }
    }
}

/// Whether a name is `lower`, which is in lower case, ignoring case; compares words of up to eight bytes. Among the
/// bytes of tokens, only letters become those of `lower` by the bit that is set.
#[inline(always)]
fn is<const N: usize>(name: &str, lower: &[u8; N]) -> bool {
    let Ok(name) = <&[u8; N]>::try_from(name.as_bytes()) else { return false };
    let word = |bytes: &[u8; N], at: usize| match bytes[at..].first_chunk() {
        Some(word) => u64::from_ne_bytes(*word) | 0x2020_2020_2020_2020,
        None => 0,
    };
    let half = |bytes: &[u8; N], at: usize| match bytes[at..].first_chunk() {
        Some(half) => u32::from_ne_bytes(*half) | 0x2020_2020,
        None => 0,
    };
    match N {
        4..8 => half(name, 0) == half(lower, 0) && half(name, N - 4) == half(lower, N - 4),
        8..16 => word(name, 0) == word(lower, 0) && word(name, N - 8) == word(lower, N - 8),
        _ => name.eq_ignore_ascii_case(lower),
    }
}

/// The elements of a list, without empty ones (RFC 9110 section 5.6.1.2).
fn elements(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// `1*DIGIT` within 64 bits.
fn content_length(value: &[u8]) -> Result<u64, Reject> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Reject::ContentLength);
    }
    let digits = std::str::from_utf8(value).map_err(|_| Reject::ContentLength)?;
    digits.parse().map_err(|_| Reject::ContentLength)
}

/// The transfer codings of a message, over all its Transfer-Encoding fields.
#[derive(Default)]
struct TransferCoding {
    is_malformed: bool,
    is_unknown: bool,
    /// Known codings that only a proxy would decode.
    others: u32,
    chunked: u32,
    ends_in_chunked: bool,
}

impl TransferCoding {
    fn add(&mut self, value: &[u8]) {
        for coding in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let is = |name: &str| coding.eq_ignore_ascii_case(name.as_bytes());
            self.ends_in_chunked = is("chunked");
            match () {
                () if is("chunked") => self.chunked += 1,
                () if KNOWN_CODINGS.into_iter().any(is) => self.others += 1,
                () if is("identity") || !is_token(coding) => self.is_malformed = true,
                () => self.is_unknown = true,
            }
        }
    }

    fn framing(&self) -> Result<Framing, Reject> {
        match () {
            () if self.is_malformed || self.chunked > 1 => Err(Reject::TransferEncoding),
            () if self.is_unknown => Err(Reject::TransferCoding),
            () if !self.ends_in_chunked => Err(Reject::TransferEncoding),
            () if self.others > 0 => Err(Reject::TransferCoding),
            () => Ok(Framing::Chunked),
        }
    }
}

/// Registered, and not implemented here (RFC 9112 section 7.2).
const KNOWN_CODINGS: [&str; 5] = ["gzip", "x-gzip", "deflate", "compress", "x-compress"];
