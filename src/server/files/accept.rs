//! PURE. Whether a client asks for a page.
#![forbid(unsafe_code)]

use crate::server::http::Request;

/// What Accept says about HTML (RFC 9110 section 12.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// It names HTML, as browsers do when they navigate.
    Wanted,
    /// Anything is acceptable, or the field is missing.
    Unsaid,
    Unwanted,
}

pub(super) fn page(request: &Request<'_>) -> Page {
    let fields = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("Accept"));
    fields.map(|(_, value)| read(value)).reduce(most).unwrap_or(Page::Unsaid)
}

fn read(field: &[u8]) -> Page {
    let ranges = String::from_utf8_lossy(field).to_ascii_lowercase();
    let one = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default();
        let weight = parts.find_map(|parameter| parameter.strip_prefix("q="));
        let is_refused = weight.is_some_and(|weight| weight.trim_matches(['0', '.']).is_empty());
        match range {
            _ if is_refused => Page::Unwanted,
            "text/html" | "application/xhtml+xml" => Page::Wanted,
            "*/*" | "text/*" => Page::Unsaid,
            _ => Page::Unwanted,
        }
    };
    ranges.split(',').map(one).reduce(most).unwrap_or(Page::Unwanted)
}

fn most(one: Page, other: Page) -> Page {
    match (one, other) {
        (Page::Wanted, _) | (_, Page::Wanted) => Page::Wanted,
        (Page::Unsaid, _) | (_, Page::Unsaid) => Page::Unsaid,
        _ => Page::Unwanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_ask_for_pages() {
        for (field, page) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", Page::Wanted),
            ("TEXT/HTML;level=1 ; q=0.1", Page::Wanted),
            ("text/html;q=0.0, */*", Page::Unsaid),
            ("*/*", Page::Unsaid),
            ("image/avif,image/webp,*/*;q=0.8", Page::Unsaid),
            ("application/json", Page::Unwanted),
            ("text/html;q=0", Page::Unwanted),
            ("", Page::Unwanted),
        ] {
            assert_eq!(read(field.as_bytes()), page, "{field}");
        }
    }
}
