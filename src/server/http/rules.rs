//! The rules of a head that are about more than one of its lines.

use super::field_summary::FieldSummary;
use super::grammar::METHOD_MAX;
use super::headers::{Field, Fields, Headers};
use super::message::Head;
use super::request::{Request, Version};
use super::{host, Limits, Reject};

/// Space for a head.
pub(super) struct HeadStorage<'a> {
    pub(super) fields: Fields<'a>,
    /// Requests are created in place, since they are large and are passed through many functions.
    pub(super) request: Option<Request<'a>>,
}

impl HeadStorage<'_> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        HeadStorage { fields: Fields::new(), request: None }
    }
}

/// The lines of a head.
pub(super) struct Lines<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    /// The position of the target's first `?`, or its end.
    pub(super) query_mark: usize,
    pub(super) version: Version,
    pub(super) fields: &'a [Field<'a>],
}

/// Applies the rules about more than one line.
#[inline(always)]
pub(super) fn judge<'a>(
    Lines { method, target, query_mark, version, fields }: Lines<'a>,
    summary: &FieldSummary<'a>,
    place: &'a mut Option<Request<'a>>,
    limits: &Limits,
) -> Result<Head<'a>, Reject> {
    if method.len() > METHOD_MAX {
        return Err(Reject::LongMethod);
    }
    if target.len() > limits.target {
        return Err(Reject::TargetTooLong);
    }
    let authority = authority(method, target)?;
    summary.check(version)?;
    let framing = summary.framing(version);
    let request = place.insert(Request {
        method,
        target,
        query_mark,
        version,
        // The target's own authority replaces Host (RFC 9112 section 3.2.2), which must exist all the same.
        host: authority.or(summary.host),
        fields: Headers::parsed(fields),
        body: b"",
        peer: None,
        worker: 0,
        via: None,
        tls: None,
    });
    Ok(Head {
        request,
        framing: framing?,
        keep_alive: !summary.close && (summary.keep_alive || version == Version::Http11),
        expects_continue: summary.expects_continue,
        upgrade: summary.upgrade && summary.protocol,
    })
}

/// Checks the form of a target of valid bytes (RFC 9112 section 3.2); returns its authority if it has one.
#[inline(always)]
fn authority<'a>(method: &str, target: &'a str) -> Result<Option<&'a [u8]>, Reject> {
    if method == "CONNECT" {
        return Err(Reject::Connect);
    }
    if target.starts_with('/') {
        return Ok(None);
    }
    authority_of_other_form(method, target)
}

#[cold]
fn authority_of_other_form<'a>(method: &str, target: &'a str) -> Result<Option<&'a [u8]>, Reject> {
    if target == "*" {
        return if method == "OPTIONS" { Ok(None) } else { Err(Reject::Target) };
    }
    let (scheme, rest) = target.split_once("://").ok_or(Reject::Target)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Reject::Target);
    }
    let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
    // Neither without a host (RFC 9110 section 4.2.1) nor with user information (section 4.2.4).
    if authority.is_empty() || !host::is_valid(authority.as_bytes()) {
        return Err(Reject::Target);
    }
    Ok(Some(authority.as_bytes()))
}
