//! PURE. Fields after a chunked body (RFC 9110 section 6.5), and the interim response that only has fields (RFC 8297).
#![forbid(unsafe_code)]

use super::request::{Request, Version};
use super::response::{check_field, push_field, InvalidHeader};

/// Appends a field to rendered trailers.
///
/// # Errors
///
/// If the field is invalid, or must not come after the content.
pub(crate) fn add_trailer(trailers: &mut Vec<u8>, name: &str, value: &str) -> Result<(), InvalidHeader> {
    check_field(name, value)?;
    check_trailer(name)?;
    push_field(trailers, name, value);
    Ok(())
}

/// Appends a name to those that a Trailer field will announce.
///
/// # Errors
///
/// As [`add_trailer`].
pub(crate) fn announce_trailer(names: &mut String, name: &str) -> Result<(), InvalidHeader> {
    check_field(name, "")?;
    check_trailer(name)?;
    if !names.is_empty() {
        names.push_str(", ");
    }
    names.push_str(name);
    Ok(())
}

/// RFC 9110 section 6.5.1: fields that concern framing, routing, authentication, conditions, or how to read the content
/// must be known before it.
fn check_trailer(name: &str) -> Result<(), InvalidHeader> {
    let is_condition = name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("if-"));
    match is_condition || BEFORE_CONTENT.iter().any(|field| name.eq_ignore_ascii_case(field)) {
        true => Err(InvalidHeader::new(name, "it has to come before the content, not in the trailer section")),
        false => Ok(()),
    }
}

/// In addition to those that only the server sets.
const BEFORE_CONTENT: [&str; 30] = [
    "Accept-Ranges",
    "Age",
    "Allow",
    "Authorization",
    "Cache-Control",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Language",
    "Content-Location",
    "Content-Range",
    "Content-Security-Policy",
    "Content-Type",
    "Cookie",
    "Expect",
    "Expires",
    "Host",
    "Location",
    "Max-Forwards",
    "Pragma",
    "Proxy-Authenticate",
    "Proxy-Authentication-Info",
    "Proxy-Authorization",
    "Range",
    "Realm",
    "Retry-After",
    "Set-Cookie",
    "TE",
    "Vary",
    "Warning",
    "WWW-Authenticate",
];

/// Whether the client has declared that it accepts trailers (RFC 9110 section 10.1.4).
pub(crate) fn takes_trailers(request: &Request<'_>) -> bool {
    let mut codings = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("te"));
    request.version() == Version::Http11
        && codings.any(|(_, value)| {
            value.split(|byte| *byte == b',').any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
        })
}

/// Makes an interim response with hints (RFC 8297): 103 and these fields.
///
/// # Errors
///
/// If a field is invalid, or set by the server itself.
pub(crate) fn early_hints(fields: &[(&str, &str)]) -> Result<Vec<u8>, InvalidHeader> {
    let mut head = b"HTTP/1.1 103 Early Hints\r\n".to_vec();
    for (name, value) in fields {
        check_field(name, value)?;
        push_field(&mut head, name, value);
    }
    head.extend_from_slice(b"\r\n");
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_hold_nothing_that_has_to_be_known_before_them() {
        for (name, value, is_valid) in [
            ("Server-Timing", "db;dur=53", true),
            ("Digest", "sha-256=x", true),
            ("IF-match", "x", false),
            ("content-length", "1", false),
            ("Transfer-Encoding", "chunked", false),
            ("trailer", "x", false),
            ("SET-COOKIE", "x", false),
            ("X", "a\r\nb", false),
            ("X Y", "a", false),
        ] {
            let mut trailers = Vec::new();
            assert_eq!(add_trailer(&mut trailers, name, value).is_ok(), is_valid, "{name}");
            assert_eq!(trailers.is_empty(), !is_valid, "{name}");
        }
        let mut names = String::new();
        assert!(announce_trailer(&mut names, "A").and_then(|()| announce_trailer(&mut names, "B")).is_ok());
        assert!(announce_trailer(&mut names, "Host").is_err() && announce_trailer(&mut names, "a b").is_err());
        assert_eq!(names, "A, B");
    }

    #[test]
    fn hints_are_one_head() {
        let hints = early_hints(&[("Link", " </a.css>; rel=preload "), ("X", "y")]).expect("valid");
        assert_eq!(hints, b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX: y\r\n\r\n");
        for field in [("Link", "a\nb"), ("Content-Length", "3"), ("Connection", "close")] {
            assert!(early_hints(&[field]).is_err(), "{field:?}");
        }
    }
}
