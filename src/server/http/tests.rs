//! Stored requests, tables of limits, and one property over all of them: it does not matter how the bytes come.

use super::*;

const LIMITS: Limits = Limits { target: 40, head: 400, fields: 6, body: 64, requests: 0 };

/// The limits that a pool has by default; the stored requests are for these.
const DEFAULT: Limits = Limits { target: 8 << 10, head: 16 << 10, fields: 100, body: 1 << 20, requests: 0 };

/// What a client would see of one request or refusal.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Request { line: String, host: Option<String>, fields: Vec<(String, Vec<u8>)>, body: Vec<u8>, keeps_alive: bool },
    Refused(Reject),
}

/// Feeds pieces as a connection does: what is not consumed is offered again with what follows.
fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Vec<Seen> {
    feed_with(pieces, limits, None)
}

/// The same, with what other connections have left behind.
fn feed_with<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limits: &Limits,
    mut recall: Option<&mut Recall>,
) -> Vec<Seen> {
    let (mut codec, mut encoder, mut out) = (Codec::new(), Encoder::new(Common::new()), Vec::new());
    let (mut seen, mut kept) = (Vec::new(), Vec::new());
    for piece in pieces {
        kept.extend_from_slice(piece);
        let mut at = 0;
        loop {
            let mut scratch = recall.as_deref_mut().map_or_else(Scratch::new, Scratch::with);
            let (consumed, next) = codec.next(&kept[at..], &mut scratch, limits, &mut |_| false);
            at += consumed;
            match next {
                Next::NeedMore => break,
                Next::Continue => {}
                Next::Reject(reject) => {
                    codec.reject(reject, &mut encoder, &mut out);
                    seen.push(Seen::Refused(reject));
                }
                Next::Request(request) => {
                    let mut request = see(request);
                    codec.respond(
                        &ResponseHead::new(200, None),
                        Length::Known(0),
                        &mut encoder,
                        false,
                        limits,
                        &mut out,
                    );
                    if let Seen::Request { keeps_alive, .. } = &mut request {
                        *keeps_alive = !codec.is_closing();
                    }
                    seen.push(request);
                }
            }
        }
        kept.drain(..at);
    }
    seen
}

fn see(request: &Request<'_>) -> Seen {
    Seen::Request {
        line: format!("{} {} {}", request.method(), request.target(), request.version()),
        host: request.host().map(str::to_owned),
        fields: request.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        body: request.body().to_owned(),
        keeps_alive: false,
    }
}

fn whole(bytes: &[u8]) -> Vec<Seen> {
    feed([bytes], &LIMITS)
}

/// Byte by byte, cut in two everywhere, and in random pieces: the same is seen.
#[track_caller]
fn assert_independent_of_pieces(bytes: &[u8], limits: &Limits) {
    let expected = feed([bytes], limits);
    // A large one is cut here and there: every cut of every byte would be millions.
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

/// A stored request: `tests/requests/{valid,invalid}/NAME.http`, and what is to be seen of it in `NAME.expect`.
struct Stored {
    name: String,
    bytes: Vec<u8>,
    /// For a valid one the lines of [`Seen::described`], for an invalid one the status of the answer.
    expected: String,
}

/// Adding a case is adding its two files.
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

/// The stored requests, damaged at random: nothing panics, it does not matter how the bytes come, nothing is read
/// behind a refusal, and where a request is given out, httparse sees the same one. `FUZZ_ROUNDS=n` goes on for
/// longer.
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

/// The same under any limits, however small: which rule is found broken first does not depend on where a read ended.
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
    // But for the two time-outs, which the codec is told.
    assert_eq!(refused.len(), 19, "{refused:?}");
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

/// What the tests above have found, in the order found.
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
            // Every length, since what mattered was where a limit fell.
            if text.is_char_boundary(len) {
                assert_independent_of_pieces(format!("{}\r\n\r\n", &text[..len]).as_bytes(), &LIMITS);
            }
        }
    }
}

/// A head that is known says what it says when it is parsed, whatever follows it; and nothing is taken for it that
/// differs from it anywhere.
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

/// Where this codec accepts a head, httparse must read the same from it.
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

#[test]
fn a_head_over_its_limit_is_refused_however_it_ends() {
    let head = |len: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(len));
    let fits = LIMITS.head - head(0).len();
    assert!(matches!(whole(head(fits).as_bytes())[..], [Seen::Request { .. }]));
    assert_eq!(whole(head(fits + 1).as_bytes()), [Seen::Refused(Reject::HeadTooLarge)]);
    assert_eq!(whole(&head(1000).as_bytes()[..LIMITS.head + 1]), [Seen::Refused(Reject::HeadTooLarge)]);
    assert_eq!(whole(&head(1000).as_bytes()[..LIMITS.head]), []);
    for len in [fits, fits + 1, 1000] {
        assert_independent_of_pieces(head(len).as_bytes(), &LIMITS);
    }
}

#[test]
fn the_body_limit_is_exact() {
    let exact = "x".repeat(LIMITS.body);
    let by_length = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{exact}", exact.len());
    let chunked = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{exact}\r\n0\r\n\r\n");
    for text in [by_length, chunked] {
        let seen = whole(text.as_bytes());
        assert!(matches!(&seen[..], [Seen::Request { body, .. }] if *body == exact.as_bytes()), "{seen:?}");
    }
}

#[test]
fn chunk_extensions_are_bounded_over_the_whole_body() {
    let limits = Limits { body: 1 << 20, ..LIMITS };
    let chunk = format!("1;{}\r\nx\r\n", "e".repeat(900));
    let mut codec = Codec::new();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut refused = None;
    for piece in std::iter::once(head).chain(std::iter::repeat_n(chunk.as_str(), 30)) {
        let mut scratch = Scratch::new();
        if let (_, Next::Reject(reject)) = codec.next(piece.as_bytes(), &mut scratch, &limits, &mut |_| false) {
            refused = Some(reject);
            break;
        }
    }
    assert_eq!(refused, Some(Reject::Chunk));
}

#[test]
fn a_client_that_waits_is_told_to_go_on_once_and_only_for_a_body() {
    let next = |codec: &mut Codec, text: &str| {
        let mut scratch = Scratch::new();
        match codec.next(text.as_bytes(), &mut scratch, &LIMITS, &mut |_| false).1 {
            Next::NeedMore => "more",
            Next::Continue => "continue",
            Next::Request(_) => "request",
            Next::Reject(_) => "reject",
        }
    };
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let mut codec = Codec::new();
    assert_eq!(next(&mut codec, head), "continue");
    assert_eq!(next(&mut codec, ""), "more");
    assert_eq!(next(&mut codec, "a"), "more");
    assert_eq!(next(&mut codec, "b"), "request");
    assert_eq!(next(&mut Codec::new(), &format!("{head}a")), "more");
    assert_eq!(next(&mut Codec::new(), &format!("{head}ab")), "request");
    let bodyless = "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(next(&mut Codec::new(), bodyless), "request");
    let too_large = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 65\r\n\r\n";
    assert_eq!(next(&mut Codec::new(), too_large), "reject");
    let later = "POST / HTTP/1.5\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(next(&mut Codec::new(), later), "continue");
}

#[test]
fn phases_tell_what_a_connection_waits_for() {
    let phase = |text: &str| {
        let (mut codec, mut scratch) = (Codec::new(), Scratch::new());
        let _ = codec.next(text.as_bytes(), &mut scratch, &LIMITS, &mut |_| false);
        codec.phase()
    };
    assert_eq!(phase(""), Phase::Idle);
    assert_eq!(phase("\r\n"), Phase::Idle);
    assert_eq!(phase("G"), Phase::Head);
    assert_eq!(phase("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"), Phase::Body);
}

#[test]
fn requests_tell_path_query_and_host() {
    for (target, path, query, host) in [
        ("/a/b?c=d?e", "/a/b", Some("c=d?e"), "a"),
        ("/a", "/a", None, "a"),
        ("/?", "/", Some(""), "a"),
        ("http://b:1/c?d", "/c", Some("d"), "b:1"),
        ("http://b", "/", None, "b"),
        ("http://b?d", "/", Some("d"), "b"),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Y: 1\r\nx-y: 2\r\n\r\n");
        let (mut codec, mut scratch) = (Codec::new(), Scratch::new());
        let (_, Next::Request(request)) = codec.next(text.as_bytes(), &mut scratch, &LIMITS, &mut |_| false) else {
            panic!("{text:?} is valid");
        };
        assert_eq!((request.path(), request.query(), request.host()), (path, query, Some(host)));
        assert_eq!(request.header("X-y"), Some("1"));
        assert_eq!(request.header("z"), None);
        assert_eq!(request.headers().len(), 3);
    }
}

/// Answers a request; returns the head, and how the body is to follow.
fn answer(request: &str, head: &ResponseHead, length: Length, is_last: bool) -> (String, Transfer) {
    let mut common = Common::new();
    common.add("X-Worker", "7").expect("valid");
    let (mut codec, mut encoder, mut out) = (Codec::new(), Encoder::new(common), Vec::new());
    encoder.refresh(784_111_777);
    let mut scratch = Scratch::new();
    let (_, Next::Request(_)) = codec.next(request.as_bytes(), &mut scratch, &LIMITS, &mut |_| false) else {
        panic!("{request:?} is valid");
    };
    let transfer = codec.respond(head, length, &mut encoder, is_last, &LIMITS, &mut out);
    assert_eq!(codec.is_closing(), String::from_utf8_lossy(&out).contains("Connection: close\r\n"));
    (String::from_utf8(out).expect("these are ASCII"), transfer)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn head(status: u16) -> ResponseHead {
    ResponseHead::new(status, Some("text/plain".into()))
}

#[test]
fn a_head_has_what_the_server_and_the_handler_put_there() {
    let mut own = head(200);
    own.add("X-A", "b").expect("valid");
    let (text, transfer) = answer(GET, &own, Length::Known(3), false);
    assert_eq!(
        text,
        "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nX-Worker: 7\r\nX-A: b\r\n\
         Content-Type: text/plain\r\nContent-Length: 3\r\n\r\n"
    );
    assert_eq!(transfer, Transfer::AsIs);
    assert!(answer(GET, &head(299), Length::Known(0), false).0.starts_with("HTTP/1.1 299 \r\n"));
    own.add("content-type", "text/x").expect("valid");
    let (replaced, _) = answer(GET, &own, Length::Known(0), false);
    assert_eq!(replaced.to_ascii_lowercase().matches("content-type").count(), 1, "{replaced}");
}

#[test]
fn the_body_is_framed_as_request_and_status_demand() {
    let old = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let to_head = GET.replace("GET", "HEAD");
    for (request, status, length, field, transfer, closes) in [
        (GET, 200, Length::Known(3), "Content-Length: 3\r\n", Transfer::AsIs, false),
        (GET, 200, Length::Unknown, "Transfer-Encoding: chunked\r\n", Transfer::Chunked, false),
        (&to_head, 200, Length::Known(3), "Content-Length: 3\r\n", Transfer::Nothing, false),
        (&to_head, 200, Length::Unknown, "Transfer-Encoding: chunked\r\n", Transfer::Nothing, false),
        (GET, 204, Length::Known(3), "", Transfer::Nothing, false),
        (GET, 304, Length::Unknown, "", Transfer::Nothing, false),
        (GET, 205, Length::Known(3), "Content-Length: 0\r\n", Transfer::Nothing, false),
        (GET, 205, Length::Unknown, "Content-Length: 0\r\n", Transfer::Nothing, false),
        (old, 205, Length::Unknown, "Content-Length: 0\r\n", Transfer::Nothing, false),
        (old, 200, Length::Known(3), "Connection: keep-alive\r\nContent-Length: 3\r\n", Transfer::AsIs, false),
        (old, 200, Length::Unknown, "", Transfer::AsIs, true),
    ] {
        let (text, how) = answer(request, &head(status), length, false);
        let case = format!("{request:?} {status} {length:?}: {text}");
        assert!(text.contains(field) && how == transfer, "{case}");
        assert_eq!(text.contains("Connection: close\r\n"), closes, "{case}");
        let framed = text.matches("Content-Length").count() + text.matches("Transfer-Encoding").count();
        assert_eq!(framed, usize::from(field.contains("Length") || field.contains("Encoding")), "{case}");
    }
}

#[test]
fn the_last_answer_says_so() {
    assert!(answer(GET, &head(200), Length::Known(0), true).0.contains("Connection: close\r\n"));
    let closing = ResponseHead { close: true, ..head(200) };
    assert!(answer(GET, &closing, Length::Known(0), false).0.contains("Connection: close\r\n"));
    let limits = Limits { requests: 2, ..LIMITS };
    let (mut codec, mut encoder, mut out) = (Codec::new(), Encoder::new(Common::new()), Vec::new());
    for closes in [false, true] {
        let mut scratch = Scratch::new();
        let (_, Next::Request(_)) = codec.next(GET.as_bytes(), &mut scratch, &limits, &mut |_| false) else {
            panic!("valid")
        };
        codec.respond(&head(200), Length::Known(0), &mut encoder, false, &limits, &mut out);
        assert_eq!(codec.is_closing(), closes);
    }
}

#[test]
fn heads_are_rendered_alike_whatever_was_rendered_before() {
    let mut random = Random(11);
    let mut heads = Vec::new();
    for status in [200, 404, 299] {
        for content_type in [None, Some("text/plain"), Some("text/plaid")] {
            for value in [None, Some("b"), Some("c")] {
                let mut head = ResponseHead::new(status, content_type.map(Into::into));
                value.into_iter().for_each(|value| head.add("X-A", value).expect("valid"));
                heads.push(head);
            }
        }
    }
    let requests = [GET, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"];
    let lengths = [Length::Known(0), Length::Known(7), Length::Known(7_000), Length::Unknown];
    let mut encoder = Encoder::new(Common::new());
    for round in 0..10_000 {
        if round % 100 == 0 {
            encoder.refresh(round);
        }
        // Runs of the same, among others.
        let head = &heads[random.below(heads.len())];
        for _ in 0..=random.below(4) {
            let mut fresh = Encoder::new(Common::new());
            fresh.refresh(round - round % 100);
            let (request, length) = (requests[random.below(2)], lengths[random.below(lengths.len())]);
            let is_last = random.below(4) == 0;
            let [kept, anew] = [&mut encoder, &mut fresh].map(|encoder| {
                let (mut codec, mut scratch, mut out) = (Codec::new(), Scratch::new(), b"before".to_vec());
                let (_, next) = codec.next(request.as_bytes(), &mut scratch, &LIMITS, &mut |_| false);
                assert!(matches!(next, Next::Request(_)));
                codec.respond(head, length, encoder, is_last, &LIMITS, &mut out);
                String::from_utf8(out).expect("these are ASCII")
            });
            assert_eq!(kept, anew);
        }
    }
}

#[test]
fn protocols_are_changed_only_when_the_client_offers_it() {
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Upgrade\r\nUpgrade: y\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: y\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: y\r\n\r\n", false),
        // Not before the body, which would be taken for the other protocol.
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: y\r\nContent-Length: 1\r\n\r\n", false),
    ] {
        let (mut codec, mut scratch) = (Codec::new(), Scratch::new());
        let (_, Next::Request(_)) = codec.next(request.as_bytes(), &mut scratch, &LIMITS, &mut |_| true) else {
            panic!("valid")
        };
        assert_eq!(codec.may_upgrade(), expected, "{request:?}");
    }
}

#[test]
fn heads_are_what_httparse_reads_back() {
    let mut random = Random(1);
    for _ in 0..500 {
        let status = 200 + random.below(400) as u16;
        let mut value = || (0..random.below(20)).map(|_| char::from(b'!' + random.below(94) as u8)).collect::<String>();
        let fields: Vec<(String, String)> = (0..6).map(|n| (format!("X-{n}"), value())).collect();
        let mut head = head(status);
        for (name, value) in &fields {
            head.add(name, value).expect("valid");
        }
        let (text, _) = answer(GET, &head, Length::Known(7), false);
        let mut slots = [httparse::EMPTY_HEADER; 32];
        let mut parsed = httparse::Response::new(&mut slots);
        let parsed_len = parsed.parse(text.as_bytes()).expect("valid");
        assert_eq!(parsed_len, httparse::Status::Complete(text.len()));
        assert_eq!(parsed.code, Some(status));
        for (name, value) in &fields {
            assert!(parsed.headers.iter().any(|field| field.name == name && field.value == value.as_bytes()));
        }
    }
}

#[test]
fn chunks_are_what_the_decoder_reads_back() {
    let mut random = Random(2);
    let limits = Limits { body: 1 << 20, ..LIMITS };
    for _ in 0..200 {
        let pieces: Vec<Vec<u8>> =
            (0..random.below(6)).map(|_| (0..random.below(300)).map(|_| random.below(256) as u8).collect()).collect();
        let mut bytes = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        pieces.iter().for_each(|piece| chunk(piece, &mut bytes));
        bytes.extend_from_slice(LAST_CHUNK);
        let (mut codec, mut scratch) = (Codec::new(), Scratch::new());
        let (_, Next::Request(request)) = codec.next(&bytes, &mut scratch, &limits, &mut |_| false) else {
            panic!("valid")
        };
        assert_eq!(request.body(), pieces.concat());
    }
}

#[test]
fn refusals_say_why_and_close() {
    let (mut codec, mut out) = (Codec::new(), Vec::new());
    codec.reject(Reject::HeadTimeout, &mut Encoder::new(Common::new()), &mut out);
    let text = String::from_utf8(out).expect("ASCII");
    assert!(text.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{text}");
    assert!(
        text.contains("Connection: close\r\n") && text.ends_with("\r\n\r\nthe request head took too long\n"),
        "{text}"
    );
    assert!(codec.is_closing());
}

#[test]
fn fields_that_would_split_a_response_are_refused() {
    for (name, value) in [
        ("X", "a\r\nY: b"),
        ("X", "a\nb"),
        ("X", "a\rb"),
        ("X", "a\0b"),
        ("X", "a\x7fb"),
        ("X:", "a"),
        ("", "a"),
        ("X Y", "a"),
        ("content-length", "1"),
        ("Transfer-Encoding", "chunked"),
        ("CONNECTION", "close"),
        ("Date", "now"),
    ] {
        assert!(head(200).add(name, value).is_err(), "{name:?}: {value:?}");
        assert!(Common::new().add(name, value).is_err(), "{name:?}: {value:?}");
    }
    assert!(head(200).add("X", "a\tb \u{e4}").is_ok());
}
