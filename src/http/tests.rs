//! Tables of rules, and one property over all of them: it does not matter how the bytes come.

use super::*;

const LIMITS: Limits = Limits { target: 40, head: 400, fields: 6, body: 64, requests: 0 };

/// What a client would see of one request or refusal.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Request { line: String, host: Option<String>, fields: Vec<(String, Vec<u8>)>, body: Vec<u8>, keeps_alive: bool },
    Refused(u16),
}

/// Feeds pieces as a connection does: what is not consumed is offered again with what follows.
fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Seen> {
    let (mut codec, common, mut out) = (Codec::new(), Common::new(), Vec::new());
    let (mut seen, mut kept) = (Vec::new(), Vec::new());
    for piece in pieces {
        kept.extend_from_slice(piece);
        let mut at = 0;
        loop {
            let mut scratch = Scratch::new();
            let (consumed, next) = codec.next(&kept[at..], &mut scratch, &LIMITS);
            at += consumed;
            match next {
                Next::NeedMore => break,
                Next::Continue => {}
                Next::Reject(reject) => {
                    codec.reject(reject, &common, &mut out);
                    seen.push(Seen::Refused(reject.status()));
                }
                Next::Request(request) => {
                    let mut request = see(&request);
                    codec.respond(&ResponseHead::new(200, None), Length::Known(0), &common, false, &LIMITS, &mut out);
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
    feed([bytes])
}

/// Byte by byte, cut in two everywhere, and in random pieces: the same is seen.
#[track_caller]
fn assert_independent_of_pieces(bytes: &[u8]) {
    let expected = whole(bytes);
    assert_eq!(feed(bytes.chunks(1)), expected, "byte by byte: {}", bytes.escape_ascii());
    for cut in 1..bytes.len() {
        let (first, second) = bytes.split_at(cut);
        assert_eq!(feed([first, second]), expected, "cut at {cut}: {}", bytes.escape_ascii());
    }
    let mut random = Random(bytes.len() as u64);
    for round in 0..20 {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(1 + random.below(rest.len().min(12)));
            pieces.push(piece);
            rest = after;
        }
        assert_eq!(feed(pieces), expected, "random pieces {round}: {}", bytes.escape_ascii());
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
}

/// Requests that are valid, with what of them is worth a look: body, and whether the connection goes on.
const VALID: &[(&str, &str, bool)] = &[
    ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", true),
    ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "", true),
    ("GET / HTTP/1.0\r\n\r\n", "", false),
    ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "", true),
    ("GET / HTTP/1.0\r\nConnection: Keep-Alive, close\r\n\r\n", "", false),
    ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "", false),
    ("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo\r\nCONNECTION: x , Close\r\n\r\n", "", false),
    ("GET / HTTP/1.9\r\nHost: a\r\n\r\n", "", true),
    ("POST / HTTP/1.7\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "abc", true),
    ("POST / HTTP/1.7\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "abc", true),
    ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "", true),
    ("GET http://b:80/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "", true),
    ("GET HTTPS://[::1]:80 HTTP/1.1\r\nHost: a\r\n\r\n", "", true),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "", true),
    ("GET / HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n", "", true),
    ("GET / HTTP/1.1\r\nHost: a%20b:\r\n\r\n", "", true),
    ("GET / HTTP/1.1\r\nhOsT:a\r\nX:\t v\t\r\n\r\n", "", true),
    ("GET /\"<>{}|^`\\ HTTP/1.1\r\nHost: a\r\n\r\n", "", true),
    ("M!#$%&'*+-.^_`|~9 / HTTP/1.1\r\nHost: a\r\n\r\n", "", true),
    ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", "", true),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "", true),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "hello", true),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\n\r\nhello", "hello", true),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\r\n\r\n", "\r\n\r\n", true),
    ("POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\nx", "x", false),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", true),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n2\r\nab\r\nA\r\n0123456789\r\n0\r\n\r\n",
        "ab0123456789",
        true,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0001;a;b=c; d = \"e\\\"\"\r\nx\r\n00\r\n\r\n",
        "x",
        true,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n",
        "x",
        true,
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\nx", "x", true),
    ("POST / HTTP/1.0\r\nExpect: nonsense\r\nContent-Length: 1\r\n\r\nx", "x", false),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{e4}\r\n\r\n", "", true),
    (
        "GET /0123456789012345678901234567890123456 HTTP/1.1\r\nHost: a\r\nB: \r\nC: \r\nD: \r\nE: \r\nF: \r\n\r\n",
        "",
        true,
    ),
];

#[test]
fn valid_requests_are_given_out() {
    for (text, expected, alive) in VALID {
        let seen = whole(text.as_bytes());
        let [Seen::Request { body, keeps_alive, .. }] = &seen[..] else { panic!("{text:?}: {seen:?}") };
        assert_eq!((body.as_slice(), keeps_alive), (expected.as_bytes(), alive), "{text:?}");
        assert_independent_of_pieces(text.as_bytes());
    }
}

#[test]
fn pipelined_requests_are_given_out_in_order_until_the_connection_ends() {
    for (text, _, alive) in VALID {
        let behind = "GET /behind HTTP/1.1\r\nHost: a\r\n\r\n";
        let bytes = format!("{text}{text}{behind}");
        let seen = whole(bytes.as_bytes());
        assert_eq!(seen.len(), if *alive { 3 } else { 1 }, "{text:?}: {seen:?}");
        assert_independent_of_pieces(bytes.as_bytes());
    }
}

/// Whole heads and bodies that break a rule, and the status that answers them.
const INVALID: &[(u16, &str)] = &[
    // Line ends.
    (400, "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1\nHost: a\n\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\n\n"),
    (400, "GET / HTTP/1.1\rHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"),
    (400, "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    // Request line.
    (400, "GET /\r\n\r\n"),
    (400, "GET\r\n\r\n"),
    (400, " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    (400, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GE(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "A23456789012345678901234567890123 / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03"),
    (400, "GET / http/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/x.1\r\nHost: a\r\n\r\n"),
    (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    (505, "GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
    (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    // Targets.
    (400, "GET foo HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET http://a/ HTTP/1.1\r\n\r\n"),
    (501, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
    (414, "GET /0123456789012345678901234567890123456789 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (414, "GET /01234567890123456789012345678901234567890123456789012345678901234567890123456789"),
    // Fields.
    (400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX\u{e4}: b\r\n\r\n"),
    (431, "GET / HTTP/1.1\r\nHost: a\r\nB: \r\nC: \r\nD: \r\nE: \r\nF: \r\nG: \r\n\r\n"),
    // Host.
    (400, "GET / HTTP/1.1\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a:x\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: [1]\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a%2\r\n\r\n"),
    // Content-Length.
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nx"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\nx"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n"),
    (413, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n"),
    (413, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65\r\n\r\n"),
    // Transfer-Encoding.
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    (417, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\nx"),
];

/// Bodies behind a valid head that says `chunked`.
const INVALID_CHUNKS: &[(u16, &str)] = &[
    (400, "\r\n"),
    (400, "x\r\n"),
    (400, "+1\r\nx\r\n0\r\n\r\n"),
    (400, "-1\r\nx\r\n0\r\n\r\n"),
    (400, "0x1\r\nx\r\n0\r\n\r\n"),
    (400, " 1\r\nx\r\n0\r\n\r\n"),
    (400, "1 \r\nx\r\n0\r\n\r\n"),
    (400, "1x\r\nx\r\n0\r\n\r\n"),
    (400, "1\nx\r\n0\r\n\r\n"),
    (400, "1\r\nx\n0\r\n\r\n"),
    (400, "1\r\nxy\r\n0\r\n\r\n"),
    (400, "1\r\nx0\r\n\r\n"),
    (400, "1;\r\nx\r\n0\r\n\r\n"),
    (400, "1;a=\r\nx\r\n0\r\n\r\n"),
    (400, "1;a=\"b\r\nx\r\n0\r\n\r\n"),
    (400, "1;a\rb\r\nx\r\n0\r\n\r\n"),
    (400, "1;a\nb\r\nx\r\n0\r\n\r\n"),
    (400, "00000000000000001\r\nx\r\n0\r\n\r\n"),
    (400, "0\r\nX : y\r\n\r\n"),
    (400, "0\r\nX: y\n\r\n"),
    (400, "0\r\n X: y\r\n\r\n"),
    (400, "0\r\n\n"),
    (400, "0\n\r\n"),
    (400, "0\r\nContent-Length: 5\r\n\r\n"),
    (400, "0\r\nGET / HTTP/1.1\r\n\r\n"),
    (400, "0\r\nA: \r\nB: \r\nC: \r\nD: \r\nE: \r\nF: \r\nG: \r\n\r\n"),
    (413, "41\r\n"),
    (413, "FFFFFFFFFFFFFFFF\r\n"),
    (413, "3f\r\n000000000000000000000000000000000000000000000000000000000000000\r\n2\r\n"),
];

#[test]
fn broken_rules_are_answered_and_nothing_behind_them_is_read() {
    let behind = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let check = |status: u16, text: String| {
        assert_eq!(whole(text.as_bytes()), [Seen::Refused(status)], "{text:?}");
        assert_independent_of_pieces(text.as_bytes());
    };
    for (status, text) in INVALID {
        check(*status, (*text).to_owned());
        check(*status, format!("{text}{behind}"));
    }
    for (status, body) in INVALID_CHUNKS {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(*status, format!("{head}{body}"));
        check(*status, format!("{head}{body}{behind}"));
    }
}

#[test]
fn a_head_over_its_limit_is_refused_however_it_ends() {
    let head = |len: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(len));
    let fits = LIMITS.head - head(0).len();
    assert!(matches!(whole(head(fits).as_bytes())[..], [Seen::Request { .. }]));
    assert_eq!(whole(head(fits + 1).as_bytes()), [Seen::Refused(431)]);
    assert_eq!(whole(&head(1000).as_bytes()[..LIMITS.head + 1]), [Seen::Refused(431)]);
    assert_eq!(whole(&head(1000).as_bytes()[..LIMITS.head]), []);
    for len in [fits, fits + 1, 1000] {
        assert_independent_of_pieces(head(len).as_bytes());
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
        if let (_, Next::Reject(reject)) = codec.next(piece.as_bytes(), &mut scratch, &limits) {
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
        match codec.next(text.as_bytes(), &mut scratch, &LIMITS).1 {
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
        let _ = codec.next(text.as_bytes(), &mut scratch, &LIMITS);
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
        let (_, Next::Request(request)) = codec.next(text.as_bytes(), &mut scratch, &LIMITS) else {
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
    let (mut codec, mut common, mut out) = (Codec::new(), Common::new(), Vec::new());
    common.add("X-Worker", "7").expect("valid");
    common.refresh(784_111_777);
    let mut scratch = Scratch::new();
    let (_, Next::Request(_)) = codec.next(request.as_bytes(), &mut scratch, &LIMITS) else {
        panic!("{request:?} is valid");
    };
    let transfer = codec.respond(head, length, &common, is_last, &LIMITS, &mut out);
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
    let (mut codec, common, mut out) = (Codec::new(), Common::new(), Vec::new());
    for closes in [false, true] {
        let mut scratch = Scratch::new();
        let (_, Next::Request(_)) = codec.next(GET.as_bytes(), &mut scratch, &limits) else { panic!("valid") };
        codec.respond(&head(200), Length::Known(0), &common, false, &limits, &mut out);
        assert_eq!(codec.is_closing(), closes);
    }
}

#[test]
fn protocols_are_changed_only_when_the_client_offers_it() {
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Upgrade\r\nUpgrade: y\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: y\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: y\r\n\r\n", false),
    ] {
        let (mut codec, mut scratch) = (Codec::new(), Scratch::new());
        let (_, Next::Request(_)) = codec.next(request.as_bytes(), &mut scratch, &LIMITS) else { panic!("valid") };
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
        let (_, Next::Request(request)) = codec.next(&bytes, &mut scratch, &limits) else { panic!("valid") };
        assert_eq!(request.body(), pieces.concat());
    }
}

#[test]
fn refusals_say_why_and_close() {
    let (mut codec, mut out) = (Codec::new(), Vec::new());
    codec.reject(Reject::HeadTimeout, &Common::new(), &mut out);
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
