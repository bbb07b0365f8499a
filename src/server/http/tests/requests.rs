//! Requests and their results.

use super::*;

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
