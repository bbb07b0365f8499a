//! The fields that all responses of a worker have in common.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::response::{check_field, push_field, InvalidHeader};

/// Date and the worker's own fields, rendered once a second and copied into each head.
#[derive(Clone, Debug)]
pub(crate) struct CommonFields {
    /// The status line with which most responses begin, `Date: ` in IMF-fixdate (RFC 9110 section 5.6.7), CRLF, then
    /// the other fields.
    rendered: Vec<u8>,
    /// Where the other fields begin.
    own: usize,
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\n";

impl CommonFields {
    pub(crate) fn new() -> CommonFields {
        let mut common = CommonFields { rendered: Vec::new(), own: 0 };
        common.refresh(0);
        common
    }

    /// Adds a field to every response.
    pub(crate) fn add(&mut self, name: &str, value: &str) -> Result<(), InvalidHeader> {
        check_field(name, value)?;
        push_field(&mut self.rendered, name, value);
        Ok(())
    }

    /// Renders the Date for a second since 1970.
    pub(crate) fn refresh(&mut self, second: u64) {
        let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(second.min(LAST_SECOND)));
        let own = self.rendered.split_off(self.own);
        self.rendered.clear();
        self.rendered.extend_from_slice(OK);
        self.rendered.extend_from_slice(format!("Date: {date}\r\n").as_bytes());
        self.own = self.rendered.len();
        self.rendered.extend_from_slice(&own);
    }

    pub(super) fn rendered(&self) -> &[u8] {
        &self.rendered[OK.len()..]
    }

    /// The same, without the status line of a 200.
    pub(super) fn behind_ok(&self) -> &[u8] {
        &self.rendered
    }
}

/// A time as IMF-fixdate (RFC 9110 section 5.6.7), or the nearest representable time: file systems know others.
pub(crate) fn fixdate(time: SystemTime) -> String {
    let last = UNIX_EPOCH + Duration::from_secs(LAST_SECOND);
    httpdate::fmt_http_date(time.clamp(UNIX_EPOCH, last))
}

/// The end of the year 9999, since IMF-fixdate has four digits for the year.
const LAST_SECOND: u64 = 253_402_300_799;
