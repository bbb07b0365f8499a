//! Responses and their bytes.

use super::*;

/// Responds, for the last time if told so.
fn respond(
    codec: &mut Codec,
    head: &ResponseHead,
    length: Length,
    is_last: bool,
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
) -> Transfer {
    if is_last {
        codec.mode.end_after_answer();
    }
    codec.respond(head, length, encoder, out)
}

/// Responds to a request; returns the head, and how to send the body.
fn answer(request: &str, head: &ResponseHead, length: Length, is_last: bool) -> (String, Transfer) {
    let mut common = CommonFields::new();
    common.add("X-Worker", "7").expect("valid");
    let (mut codec, mut encoder, mut out) = (Codec::new(), Encoder::new(common), Vec::new());
    encoder.refresh(784_111_777);
    let mut scratch = Scratch::new();
    let (_, Next::Request(_)) = codec.next(request.as_bytes(), &mut scratch, &LIMITS, &mut |_| false) else {
        panic!("{request:?} is valid");
    };
    let transfer = respond(&mut codec, head, length, is_last, &mut encoder, &mut out);
    assert_eq!(codec.ending.is_last(), String::from_utf8_lossy(&out).contains("Connection: close\r\n"));
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
    let (mut codec, mut encoder, mut out) = (Codec::new(), Encoder::new(CommonFields::new()), Vec::new());
    for closes in [false, true] {
        let mut scratch = Scratch::new();
        let (_, Next::Request(_)) = codec.next(GET.as_bytes(), &mut scratch, &limits, &mut |_| false) else {
            panic!("valid")
        };
        codec.respond(&head(200), Length::Known(0), &mut encoder, &mut out);
        assert_eq!(codec.ending.is_last(), closes);
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
    let mut encoder = Encoder::new(CommonFields::new());
    for round in 0..10_000 {
        if round % 100 == 0 {
            encoder.refresh(round);
        }
        // Some of them several times in a row.
        let head = &heads[random.below(heads.len())];
        for _ in 0..=random.below(4) {
            let mut fresh = Encoder::new(CommonFields::new());
            fresh.refresh(round - round % 100);
            let (request, length) = (requests[random.below(2)], lengths[random.below(lengths.len())]);
            let is_last = random.below(4) == 0;
            let [kept, anew] = [&mut encoder, &mut fresh].map(|encoder| {
                let (mut codec, mut scratch, mut out) = (Codec::new(), Scratch::new(), b"before".to_vec());
                let (_, next) = codec.next(request.as_bytes(), &mut scratch, &LIMITS, &mut |_| false);
                assert!(matches!(next, Next::Request(_)));
                respond(&mut codec, head, length, is_last, encoder, &mut out);
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
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x,, Y\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\nUpgrade: y\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: y/2\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: \r\n\r\n", false),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: y\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: y\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: y\r\n\r\n", false),
        // Not before the body, which would be taken for the other protocol.
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: y\r\nContent-Length: 1\r\n\r\n", false),
    ] {
        let (mut codec, mut scratch) = (Codec::new(), Scratch::new());
        let (_, Next::Request(_)) = codec.next(request.as_bytes(), &mut scratch, &DEFAULT, &mut |_| true) else {
            panic!("valid")
        };
        assert_eq!(codec.may_upgrade("y"), expected, "{request:?}");
        assert!(!codec.may_upgrade(""));
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
        last_chunk(b"", &mut bytes);
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
    codec.reject(Reject::HeadTimeout, &mut Encoder::new(CommonFields::new()), &mut out);
    let text = String::from_utf8(out).expect("ASCII");
    assert!(text.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{text}");
    assert!(
        text.contains("Connection: close\r\n") && text.ends_with("\r\n\r\nthe request head took too long\n"),
        "{text}"
    );
    assert!(codec.ending.is_last());
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
        assert!(CommonFields::new().add(name, value).is_err(), "{name:?}: {value:?}");
    }
    assert!(head(200).add("X", "a\tb \u{e4}").is_ok());
}
