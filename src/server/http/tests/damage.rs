//! Randomly damaged requests, and known heads: the result does not depend on how the bytes arrive.

use super::*;
use crate::server::http::feed::feed_with;

/// The stored requests, damaged at random. Nothing may panic, it must not matter how the bytes arrive, nothing is read
/// after a refusal, and httparse reads each accepted request in the same way. `FUZZ_ROUNDS=n` runs longer. A fuzzer has
/// compared 112 million inputs with httparse, and found no difference (tests/fuzz).
#[test]
fn damaged_requests_are_seen_alike_however_they_come() {
    let rounds = std::env::var("FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20_000);
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let corpus: Vec<Vec<u8>> =
        stored("valid").into_iter().chain(stored("invalid")).map(|case| case.bytes).filter(|b| b.len() < 600).collect();
    let mut random = Random(seed);
    for _ in 0..rounds {
        let mut bytes = corpus[random.below(corpus.len())].clone();
        for _ in 0..1 + random.below(4) {
            damage(&mut bytes, &corpus, &mut random);
        }
        let expected = feed([bytes.as_slice()], &LIMITS);
        let pieces = random.pieces(&bytes, 20);
        assert_eq!(feed(pieces, &LIMITS), expected, "{}", bytes.escape_ascii());
        let refused = expected.iter().position(|seen| matches!(seen, Seen::Refused(_)));
        assert!(refused.is_none_or(|at| at + 1 == expected.len()), "{}", bytes.escape_ascii());
        if let Some(Seen::Request { line, fields, .. }) = expected.first() {
            assert_seen_by_httparse(&bytes, line, fields);
        }
    }
}

/// The same under any limits, however small: the first broken rule does not depend on where a read ended.
#[test]
fn the_first_broken_rule_is_the_same_under_any_limits() {
    let rounds = std::env::var("FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(10_000);
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(13);
    let corpus: Vec<Vec<u8>> =
        stored("valid").into_iter().chain(stored("invalid")).map(|case| case.bytes).filter(|b| b.len() < 300).collect();
    let mut random = Random(seed);
    let mut refused = std::collections::BTreeSet::new();
    for _ in 0..rounds {
        let mut bytes = corpus[random.below(corpus.len())].clone();
        for _ in 0..random.below(4) {
            damage(&mut bytes, &corpus, &mut random);
        }
        for _ in 0..random.below(3) {
            stretch(&mut bytes, &mut random);
        }
        let limits = Limits {
            target: 1 + random.below(80),
            head: 1 + random.below(300),
            fields: random.below(6),
            body: random.below(40),
            requests: random.below(3) as u64,
            utf8_query: random.below(2) == 0,
        };
        let expected = feed([bytes.as_slice()], &limits);
        if let Some(Seen::Refused(reject)) = expected.last() {
            refused.insert(format!("{reject:?}"));
        }
        let case = || format!("{limits:?}: {}", bytes.escape_ascii());
        assert_eq!(feed(bytes.chunks(1), &limits), expected, "byte by byte, {}", case());
        for max in [2, 20, 200] {
            assert_eq!(feed(random.pieces(&bytes, max), &limits), expected, "pieces of up to {max}, {}", case());
        }
    }
    // Except for the two timeouts, which the codec is told about.
    assert_eq!(refused.len(), 20, "{refused:?}");
}

/// Repeats one byte, so that something becomes too long.
fn stretch(bytes: &mut Vec<u8>, random: &mut Random) {
    const REPEATED: [u8; 6] = [b'a', b'/', b' ', b'\r', 0, b':'];
    let at = random.below(bytes.len() + 1);
    let repeated = match random.below(2) {
        0 if at < bytes.len() => bytes[at],
        _ => REPEATED[random.below(REPEATED.len())],
    };
    drop(bytes.splice(at..at, std::iter::repeat_n(repeated, random.below(100))));
}

/// What the tests above have found, in that order.
#[test]
fn damage_that_was_once_seen_differently_is_seen_alike() {
    let long = "x".repeat(300);
    for text in [
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: y\nZ: {long}{long}\r\n\r\n"),
        format!("GET htt HTTP/{}\r\n\r\n", &long[..41]),
        format!("POST / HTTP/1.1\r{}\r\n\r\n", &long[..40]),
        "CONNECT /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        format!("ET / {} ep-a\0\0\0\r\r\nHost:\u{1}", "\0".repeat(35)),
        "GET\r\r\nHost: a\r\n\r\n".to_owned(),
    ] {
        for len in 0..text.len() {
            // Each length, since it matters where a limit fell.
            if text.is_char_boundary(len) {
                assert_independent_of_pieces(format!("{}\r\n\r\n", &text[..len]).as_bytes(), &LIMITS);
            }
        }
    }
}

/// A known head means the same as when it is parsed, whatever follows it, and no head that differs anywhere is taken
/// for it.
#[test]
fn heads_that_are_known_are_seen_as_if_they_were_not() {
    let corpus: Vec<Vec<u8>> =
        stored("valid").into_iter().chain(stored("invalid")).map(|case| case.bytes).filter(|b| b.len() < 600).collect();
    let mut random = Random(11);
    let mut known = 0;
    for bytes in &corpus {
        let mut recall = Recall::default();
        for round in 0..3 {
            let seen = feed_with([bytes.as_slice()], &DEFAULT, Some(&mut recall));
            assert_eq!(seen, feed([bytes.as_slice()], &DEFAULT), "round {round}: {}", bytes.escape_ascii());
        }
        known += usize::from(recall.knows(bytes));
        for _ in 0..40 {
            let mut other = bytes.clone();
            damage(&mut other, &corpus, &mut random);
            let seen = feed_with([other.as_slice()], &DEFAULT, Some(&mut recall));
            assert_eq!(seen, feed([other.as_slice()], &DEFAULT), "{}", other.escape_ascii());
        }
    }
    assert!(known > 50, "only {known} of the stored heads became known");
}

#[test]
fn a_head_is_known_from_its_third_time_on() {
    let text = b"GET http://b/c?d HTTP/1.1\r\nHost: a\r\nX-Y: \xc3\xa4\r\n\r\n";
    let mut recall = Recall::default();
    for round in 0..3 {
        assert_eq!(recall.knows(text), round == 2);
        let (mut codec, mut scratch) = (Codec::new(), Scratch::with(&mut recall));
        let (len, Next::Request(request)) = codec.next(text, &mut scratch, &LIMITS, &mut |_| false) else {
            panic!("it is valid");
        };
        assert_eq!(len, text.len());
        assert_eq!((request.path(), request.query(), request.host()), ("/c", Some("d"), Some("b")));
        assert_eq!((request.header("x-y"), request.headers().len()), (Some("\u{e4}"), 2));
    }
    let mut recall = Recall::default();
    let latin = b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe4\r\n\r\n";
    for _ in 0..20 {
        assert_eq!(feed_with([&latin[..]], &LIMITS, Some(&mut recall)), whole(latin));
    }
    assert!(!recall.knows(latin), "its fields are no text");
}

fn damage(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    const PARTS: [&[u8]; 16] = [
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"chunked",
        b"Content-Length: 3\r\n",
        b"0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: a\r\n",
        b"HTTP/1.1",
        b"ffffffff",
    ];
    let at = random.below(bytes.len() + 1);
    match random.below(5) {
        0 if at < bytes.len() => bytes[at] = random.below(256) as u8,
        1 if at < bytes.len() => drop(bytes.drain(at..(at + 1 + random.below(8)).min(bytes.len()))),
        2 => drop(bytes.splice(at..at, PARTS[random.below(PARTS.len())].iter().copied())),
        3 => {
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => bytes.extend_from_slice(&corpus[random.below(corpus.len())]),
    }
}

/// If this codec accepts a head, httparse must read the same from it.
#[track_caller]
fn assert_seen_by_httparse(bytes: &[u8], line: &str, fields: &[(String, Vec<u8>)]) {
    let mut slots = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut slots);
    match parsed.parse(bytes) {
        // HTTP/1.2 and later, which httparse does not know.
        Err(httparse::Error::Version) => return,
        result => assert!(matches!(result, Ok(httparse::Status::Complete(_))), "{}", bytes.escape_ascii()),
    }
    let (method, path, minor) = (parsed.method.unwrap_or(""), parsed.path.unwrap_or(""), parsed.version.unwrap_or(9));
    assert_eq!(format!("{method} {path} HTTP/1.{minor}"), line, "{}", bytes.escape_ascii());
    let theirs: Vec<(String, Vec<u8>)> =
        parsed.headers.iter().map(|field| (field.name.to_owned(), field.value.to_owned())).collect();
    assert_eq!(theirs, fields, "{}", bytes.escape_ascii());
}
