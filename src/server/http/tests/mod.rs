//! Stored requests, tables of limits, and one property over all of them: it does not matter how the bytes arrive.

mod damage;
mod requests;
mod responses;

use super::feed::{feed, Seen};
use super::*;

const LIMITS: Limits = Limits { target: 40, head: 400, fields: 6, body: 64, requests: 0, utf8_query: true };

/// The default limits of a pool, for which the stored requests are made.
const DEFAULT: Limits =
    Limits { target: 8 << 10, head: 16 << 10, fields: 100, body: 1 << 20, requests: 0, utf8_query: true };

fn whole(bytes: &[u8]) -> Vec<Seen> {
    feed([bytes], &LIMITS)
}

/// Byte by byte, cut in two everywhere, and in random pieces, the result is the same.
#[track_caller]
fn assert_independent_of_pieces(bytes: &[u8], limits: &Limits) {
    let expected = feed([bytes], limits);
    // A large request is cut in some places only; all cuts would be millions.
    let step = 1 + bytes.len() / 2000;
    if step == 1 {
        assert_eq!(feed(bytes.chunks(1), limits), expected, "byte by byte: {}", bytes.escape_ascii());
    }
    for cut in (1..bytes.len()).step_by(step) {
        let (first, second) = bytes.split_at(cut);
        assert_eq!(feed([first, second], limits), expected, "cut at {cut}: {}", bytes.escape_ascii());
    }
    let mut random = Random(bytes.len() as u64);
    for round in 0..20 {
        let pieces = random.pieces(bytes, 12 * step);
        assert_eq!(feed(pieces, limits), expected, "random pieces {round}: {}", bytes.escape_ascii());
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    /// Cuts bytes into pieces of at most `max`.
    fn pieces<'a>(&mut self, bytes: &'a [u8], max: usize) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(1 + self.below(rest.len().min(max)));
            pieces.push(piece);
            rest = after;
        }
        pieces
    }
}

/// A stored request: `tests/requests/{valid,invalid}/NAME.http`, and the expected result in `NAME.expect`.
struct Stored {
    name: String,
    bytes: Vec<u8>,
    /// For a valid request the lines of [`Seen::described`], for an invalid one the status of the response.
    expected: String,
}

/// To add a case, add its two files.
fn stored(kind: &str) -> Vec<Stored> {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requests").join(kind);
    let files = std::fs::read_dir(&directory).expect("the stored requests").map(|file| file.expect("a file").path());
    let requests = files.filter(|path| path.extension().is_some_and(|extension| extension == "http"));
    let stored = requests.map(|path| Stored {
        name: path.display().to_string(),
        bytes: std::fs::read(&path).expect("a request"),
        expected: std::fs::read_to_string(path.with_extension("expect")).expect("what is expected of it"),
    });
    let mut stored: Vec<Stored> = stored.collect();
    stored.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(stored.len() > 50, "there are {} {kind} ones", stored.len());
    stored
}

impl Seen {
    fn described(&self) -> String {
        match self {
            Seen::Refused(reject) => format!("{}\n", reject.status()),
            Seen::Request { line, host, body, keeps_alive, .. } => {
                let printable = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'\\';
                let escaped = |byte: &u8| match printable(byte) {
                    true => char::from(*byte).to_string(),
                    false => format!("\\x{byte:02x}"),
                };
                format!(
                    "line: {line}\nhost: {}\nbody: {}\nconnection: {}\n",
                    host.as_deref().unwrap_or("-"),
                    body.iter().map(escaped).collect::<String>(),
                    if *keeps_alive { "keep-alive" } else { "close" }
                )
            }
        }
    }
}

#[test]
fn stored_requests_are_seen_as_expected_however_they_come() {
    for case in stored("valid").into_iter().chain(stored("invalid")) {
        let seen = feed([case.bytes.as_slice()], &DEFAULT);
        let [one] = &seen[..] else { panic!("{}: {seen:?}", case.name) };
        assert_eq!(one.described(), case.expected, "{}", case.name);
        assert_independent_of_pieces(&case.bytes, &DEFAULT);
    }
}

#[test]
fn pipelined_requests_are_seen_in_order_until_the_connection_ends() {
    for case in stored("valid") {
        let behind = b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n";
        let bytes = [case.bytes.as_slice(), &case.bytes, behind].concat();
        let seen = feed([bytes.as_slice()], &DEFAULT);
        let keeps_alive = case.expected.ends_with("connection: keep-alive\n");
        assert_eq!(seen.len(), if keeps_alive { 3 } else { 1 }, "{}: {seen:?}", case.name);
        assert_eq!(seen[0].described(), case.expected, "{}", case.name);
        assert_independent_of_pieces(&bytes, &DEFAULT);
    }
}

#[test]
fn nothing_behind_a_broken_rule_is_read() {
    for case in stored("invalid") {
        let bytes = [case.bytes.as_slice(), b"\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        let seen: Vec<String> = feed([bytes.as_slice()], &DEFAULT).iter().map(Seen::described).collect();
        assert_eq!(seen, [case.expected.as_str()], "{}", case.name);
        assert_independent_of_pieces(&bytes, &DEFAULT);
    }
}

#[test]
fn each_limit_has_a_refusal_of_its_own() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (reject, text) in [
        (Reject::TargetTooLong, "GET /0123456789012345678901234567890123456789 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (Reject::TargetTooLong, format!("GET /{}", "0123456789".repeat(8))),
        (
            Reject::TooManyFields,
            "GET / HTTP/1.1\r\nHost: a\r\nB: \r\nC: \r\nD: \r\nE: \r\nF: \r\nG: \r\n\r\n".to_owned(),
        ),
        (Reject::BodyTooLarge, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65\r\n\r\n".to_owned()),
        (Reject::BodyTooLarge, format!("{head}41\r\n")),
        (Reject::BodyTooLarge, format!("{head}3f\r\n{}\r\n2\r\n", "0".repeat(63))),
        (Reject::Trailer, format!("{head}0\r\nA: \r\nB: \r\nC: \r\nD: \r\nE: \r\nF: \r\nG: \r\n\r\n")),
    ] {
        assert_eq!(whole(text.as_bytes()), [Seen::Refused(reject)], "{text:?}");
        assert_independent_of_pieces(text.as_bytes(), &LIMITS);
    }
    let at_the_limits =
        "GET /0123456789012345678901234567890123456 HTTP/1.1\r\nHost: a\r\nB: \r\nC: \r\nD: \r\nE: \r\nF: \r\n\r\n";
    assert!(matches!(whole(at_the_limits.as_bytes())[..], [Seen::Request { .. }]));
}
