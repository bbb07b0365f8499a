//! The fuzz targets of the codec ([`crate::fuzzing`]).
#![allow(missing_docs, unreachable_pub)]

use std::time::{Duration, UNIX_EPOCH};

use super::feed::feed;
#[cfg(fuzzing)]
use super::feed::Seen;
use super::{evaluate, parse_range, Codec, Limits, Next, Ranges, Scratch, TrustedProxies, Validators, Verdict, Via};
use crate::shared::config::{Config, ForwardedHeader, Setting};

const LIMITS: Limits = Limits { target: 64, head: 512, fields: 8, body: 256, requests: 0, utf8_query: true };

/// A request's head.
pub fn head(bytes: &[u8]) {
    assert_alike(b"", bytes);
}

/// The request line and the fields of the first request, if it is accepted, to be compared with what another parser
/// reads.
#[cfg(fuzzing)]
pub fn accepted(bytes: &[u8]) -> Option<(String, Vec<(String, Vec<u8>)>)> {
    match feed([bytes], &LIMITS).into_iter().next() {
        Some(Seen::Request { line, fields, .. }) => Some((line, fields)),
        _ => None,
    }
}

/// A chunked body.
pub fn chunked(bytes: &[u8]) {
    assert_alike(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", bytes);
}

/// A whole connection, cut as its first bytes say.
pub fn connection(bytes: &[u8]) {
    let (cuts, bytes) = bytes.split_at(bytes.len().min(4));
    let whole = feed([bytes], &LIMITS);
    let mut pieces = Vec::new();
    let mut rest = bytes;
    for cut in cuts.iter().cycle().map(|cut| usize::from(*cut) + 1) {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(cut.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    assert_eq!(feed(pieces, &LIMITS), whole);
}

/// A Range field, preceded by the length of the representation.
pub fn range(bytes: &[u8]) {
    let Some((len, field)) = bytes.split_first_chunk() else { return };
    let (len, field) = (u64::from_le_bytes(*len), String::from_utf8_lossy(field));
    // A fuzzer does not guess the unit, which is compared ignoring case.
    for field in [format!("bytes={field}"), field.into_owned()] {
        if let Ranges::Some(ranges) = parse_range(&field, len) {
            assert!(!ranges.is_empty() && ranges.len() <= 16, "{ranges:?}");
            assert!(ranges.iter().all(|range| range.start < range.end && range.end <= len), "{ranges:?} of {len}");
            let mut sorted = ranges;
            sorted.sort_by_key(|range| range.start);
            assert!(sorted.windows(2).all(|pair| pair[0].end <= pair[1].start), "{field} of {len} overlaps");
        }
    }
}

/// Fields of trusted proxies: two elements that a proxy adds decide, whatever precedes them.
pub fn forwarded(bytes: &[u8]) {
    let config = Config::default();
    let mut trusting = config.clone();
    let setting = Setting::named("trusted-proxies").expect("a setting");
    setting.apply(&mut trusting, "10.0.0.0/8").expect("a network");
    let proxy = Some(([10, 0, 0, 1], 1).into());
    for (field, elements) in
        [("X-Forwarded-For", "192.0.2.1, 10.0.0.2"), ("Forwarded", "for=192.0.2.1;host=a, for=10.0.0.2")]
    {
        let said = [field.as_bytes(), b": ", bytes].concat();
        for added in [String::new(), format!(", {elements}"), format!("\r\n{field}: {elements}")] {
            let text = [b"GET / HTTP/1.1\r\nHost: h\r\n", &said[..], added.as_bytes(), b"\r\n\r\n"].concat();
            let (mut codec, mut scratch) = (Codec::new(), Scratch::new());
            let (_, Next::Request(request)) = codec.next(&text, &mut scratch, &LIMITS, &mut |_| false) else {
                continue;
            };
            request.peer = proxy;
            let header = ForwardedHeader::Auto;
            request.via = Some(Via { trust: TrustedProxies { proxies: &config.server.proxies, header }, source: None });
            assert_eq!(request.client(), Some([10, 0, 0, 1].into()), "who is not trusted says nothing");
            request.via =
                Some(Via { trust: TrustedProxies { proxies: &trusting.server.proxies, header }, source: None });
            let client = request.client();
            assert!(client.is_some() && request.host().is_some_and(|host| !host.is_empty()));
            // It may contain several lines, and so fields of another name.
            if !added.is_empty() && !bytes.contains(&b'\n') {
                assert_eq!(client, Some([192, 0, 2, 1].into()), "{request:?}");
            }
        }
    }
}

/// The fields of a conditional request, for a reading method and a writing one.
pub fn conditions(bytes: &[u8]) {
    let validators = Validators::new(format_args!("a"), Some(UNIX_EPOCH + Duration::from_millis(784_111_777_500)));
    for method in ["GET", "PUT"] {
        let text = [method.as_bytes(), b" / HTTP/1.1\r\nHost: a\r\n", bytes, b"\r\n\r\n"].concat();
        let (mut codec, mut scratch) = (Codec::new(), Scratch::new());
        if let (_, Next::Request(request)) = codec.next(&text, &mut scratch, &LIMITS, &mut |_| false) {
            let verdict = evaluate(request, &validators);
            assert!(method == "GET" || verdict != Verdict::NotModified, "{}", text.escape_ascii());
            assert!(method == "GET" || verdict != Verdict::Go { ranges: true }, "{}", text.escape_ascii());
        }
    }
}

fn assert_alike(prefix: &[u8], bytes: &[u8]) {
    let all = [prefix, bytes].concat();
    let whole = feed([&all[..]], &LIMITS);
    assert_eq!(feed(all.chunks(1), &LIMITS), whole);
    let half = all.len() / 2;
    assert_eq!(feed([&all[..half], &all[half..]], &LIMITS), whole);
}
