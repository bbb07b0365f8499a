//! Lines as they are written, and attempts of clients to forge them.

use super::*;
use crate::server::access_log::escape::is_plain;
use crate::server::access_log::whole::ResponseText;
use crate::server::http::{Codec, Limits, Next, Scratch};

const LIMITS: Limits = Limits { target: 60_000, head: 200_000, fields: 100, body: 0, requests: 0, utf8_query: true };

/// 2026-11-21T09:44:05.067Z
const NOW: u64 = 1_795_254_245_067;

fn formatter(format: AccessLogFormat, room: usize) -> Formatter {
    Formatter::new(&format, room, 3, 77)
}

/// The line of a request with this head.
fn line(formatter: &mut Formatter, head: &[u8], outcome: Outcome) -> String {
    let mut lines = DraftLines::default();
    let (mut codec, mut scratch) = (Codec::new(), Scratch::new());
    let peer = Some(([10, 0, 0, 1], 4711).into());
    let prefix = formatter.prefix("192.0.2.7", peer);
    let client = ClientText { address: "192.0.2.7", peer, prefix: &prefix };
    match codec.next(head, &mut scratch, &LIMITS, &mut |_| false).1 {
        Next::Request(request) => formatter.begin(&mut lines, client, request, &request.origin()),
        Next::Reject(_) => formatter.begin_refused(&mut lines, client, head),
        other => panic!("{other:?}"),
    }
    let mut out = Buffer::default();
    formatter.finish(&mut lines, 0, NOW, outcome, &mut out);
    assert!(out.len() <= formatter.bound(&lines, 0), "{} {}", out.len(), formatter.bound(&lines, 0));
    assert!(out.len() <= formatter.room, "{} {}", out.len(), formatter.room);
    String::from_utf8(out.as_slice().to_owned()).expect("a line is UTF-8")
}

const OK: Outcome = Outcome { status: 200, bytes: 13, micros: 1_002_345 };

#[test]
fn each_format_says_what_it_is_known_to_say() {
    let plain = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n";
    let whole = b"GET /a HTTP/1.0\r\nuser-agent: curl/8\r\nHost: x\r\nREFERER: http://y/\r\nReferer: http://z/\r\n\r\n";
    let time = "[21/Nov/2026:09:44:05 +0000]";
    for (format, head, expected) in [
        (AccessLogFormat::Common, &plain[..], format!("192.0.2.7 - - {time} \"GET /a?b=c HTTP/1.1\" 200 13\n")),
        (AccessLogFormat::Combined, plain, format!("192.0.2.7 - - {time} \"GET /a?b=c HTTP/1.1\" 200 13 \"-\" \"-\"\n")),
        (AccessLogFormat::Common, whole, format!("192.0.2.7 - - {time} \"GET /a HTTP/1.0\" 200 13\n")),
        (
            AccessLogFormat::Combined,
            whole,
            format!("192.0.2.7 - - {time} \"GET /a HTTP/1.0\" 200 13 \"http://y/\" \"curl/8\"\n"),
        ),
        (
            AccessLogFormat::Vhost,
            whole,
            format!("x 192.0.2.7 - - {time} \"GET /a HTTP/1.0\" 200 13 \"http://y/\" \"curl/8\" 1002345\n"),
        ),
        (
            AccessLogFormat::Template(
                "$peer_addr\t${remote_user} $time_iso8601 $msec $request_method $request_uri $server_protocol $scheme://$host \
                 $http_user_agent|$http_x_y|$request_time $worker/$pid$status"
                    .to_owned(),
            ),
            whole,
            "10.0.0.1\t- 2026-11-21T09:44:05+00:00 1795254245.067 GET /a HTTP/1.0 http://x curl/8|-|1.002 3/77200\n".to_owned(),
        ),
        (
            AccessLogFormat::Json,
            plain,
            "{\"time\":\"2026-11-21T09:44:05.067Z\",\"remote\":\"192.0.2.7\",\"host\":\"x\",\"method\":\"GET\",\"target\":\"/a?b=c\",\
             \"version\":\"HTTP/1.1\",\"status\":200,\"bytes\":13,\"duration\":1.002345,\"referer\":null,\"user_agent\":null,\
             \"worker\":3,\"pid\":77}\n"
                .to_owned(),
        ),
    ] {
        assert_eq!(line(&mut formatter(format, 65_536), head, OK), expected);
    }
}

#[test]
fn what_was_refused_is_written_as_it_came() {
    for (head, text, json) in [
        (&b"GET  / HTTP/1.1\r\n\r\n"[..], r#""GET  / HTTP/1.1" "#, r#""GET","target":"","version":"/ HTTP/1.1""#),
        (b"\r\n\r\n\x16\x03\x01\r\n\r\n", r#""\x16\x03\x01" "#, r#""\u0016\u0003\u0001","target":null,"version":null"#),
        (b"GET /\" HTTP/9.9\r\n\r\n", r#""GET /\x22 HTTP/9.9" "#, r#""GET","target":"/\"","version":"HTTP/9.9""#),
        (b"\r\n\r\n\r\n\r\n\r\n\r\n", r#""-" "#, r#"null,"target":null,"version":null"#),
    ] {
        let found = line(&mut formatter(AccessLogFormat::Common, 65_536), head, OK);
        assert!(found.contains(&format!("] {text}200")), "{found}");
        let found = line(&mut formatter(AccessLogFormat::Json, 65_536), head, OK);
        assert!(found.contains(&format!("\"method\":{json},\"status\"")), "{found}");
    }
}

#[test]
fn nothing_that_a_client_sends_ends_a_value_or_a_line_or_reaches_a_terminal() {
    for (value, text, json) in [
        (&b"plain"[..], "plain", "plain"),
        (b"", "", ""),
        (b"\" 200 0 \"", r"\x22 200 0 \x22", "\\\" 200 0 \\\""),
        (br"\", r"\x5c", r"\\"),
        (br"eight or more \x22", r"eight or more \x5cx22", r"eight or more \\x22"),
        (b"\r\n127.0.0.1 - -", r"\x0d\x0a127.0.0.1 - -", r"\u000d\u000a127.0.0.1 - -"),
        (b"\x00\x1b[31m\x7f", r"\x00\x1b[31m\x7f", r"\u0000\u001b[31m\u007f"),
        ("é\u{9b}\u{2028}".as_bytes(), r"\xc3\xa9\xc2\x9b\xe2\x80\xa8", "é\\u009b\u{2028}"),
        (b"\xff\xfe\xe2\x82", r"\xff\xfe\xe2\x82", "\u{fffd}\u{fffd}\u{fffd}"),
        ("1234567é".as_bytes(), r"1234567\xc3\xa9", "1234567é"),
    ] {
        let mut out = Buffer::default();
        escape_text(value, 1000, &mut out);
        assert_eq!(String::from_utf8_lossy(out.as_slice()), text);
        out.clear();
        escape_json(value, 1000, &mut out);
        assert_eq!(String::from_utf8_lossy(out.as_slice()), json);
    }
}

#[test]
fn each_byte_is_plain_or_not_wherever_it_is() {
    for byte in 0..=u8::MAX {
        let plain = (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
        for (len, place) in (1..70).flat_map(|len| (0..len).map(move |place| (len, place))) {
            let mut value = vec![b'a'; len];
            value[place] = byte;
            assert_eq!(is_plain(&value), plain, "{byte} at {place} of {len}");
        }
    }
}

#[test]
fn what_is_too_long_is_cut_between_escapes() {
    for (value, room, text, json) in [
        (&b"abcdef"[..], 6, "abcdef", "abcdef"),
        (b"abcdef", 5, "abcde...", "abcde..."),
        (b"\"\"\"", 5, r"\x22...", "\\\"\\\"..."),
        ("ééé".as_bytes(), 5, r"\xc3...", "éé..."),
        (b"abcd\n", 5, "abcd...", "abcd..."),
    ] {
        let mut out = Buffer::default();
        escape_text(value, room, &mut out);
        assert_eq!(String::from_utf8_lossy(out.as_slice()), text);
        out.clear();
        escape_json(value, room, &mut out);
        assert_eq!(String::from_utf8_lossy(out.as_slice()), json);
    }
}

#[test]
fn the_longest_lines_fit() {
    let outcome = Outcome { status: 999, bytes: u64::MAX, micros: u64::MAX };
    let fields = [b'"', b'a', 0xff].map(|byte| vec![byte; 50_000]);
    for room in [Formatter::ROOM_MIN, 65_536] {
        let many = "$http_host $host $request $request_uri $http_referer ".repeat(4) + &"$msec$duration_us".repeat(2);
        let many = AccessLogFormat::Template(many + &"x".repeat(500));
        let all =
            [AccessLogFormat::Common, AccessLogFormat::Combined, AccessLogFormat::Vhost, AccessLogFormat::Json, many];
        for (format, field) in all.iter().zip(fields.iter().cycle()) {
            let mut head = b"M".repeat(100);
            head.extend_from_slice(b" /");
            head.extend_from_slice(&b"t".repeat(50_000));
            head.extend_from_slice(b" HTTP/1.1\r\nHost: x\r\nReferer: ");
            head.extend_from_slice(field);
            head.extend_from_slice(b"\r\nUser-Agent: ");
            head.extend_from_slice(field);
            head.extend_from_slice(b"\r\n\r\n");
            let found = line(&mut Formatter::new(format, room, usize::MAX, u32::MAX), &head, outcome);
            assert!(found.contains("..."), "{format:?}");
            // All of a refused request may have to be escaped.
            head[150] = 0;
            line(&mut Formatter::new(format, room, usize::MAX, u32::MAX), &head, outcome);
        }
    }
}

#[test]
fn a_client_is_named_by_its_address() {
    for (client, name) in [
        (Some("192.0.2.7"), "192.0.2.7"),
        (Some("2001:db8::1"), "2001:db8::1"),
        (Some("::ffff:192.0.2.7"), "192.0.2.7"),
        (None, "0.0.0.0"),
    ] {
        assert_eq!(remote(client.map(|client| client.parse().expect("an address"))), name);
    }
}

#[test]
fn a_line_is_the_same_whether_it_was_made_at_once_or_step_by_step() {
    let own = "$remote_addr, $time_local|$request|${status}x$body_bytes_sent $host $http_referer $request_method.";
    for format in [AccessLogFormat::Common, AccessLogFormat::Combined, AccessLogFormat::Template(own.to_owned())] {
        let mut formatter = formatter(format, 65_536);
        assert!(formatter.is_known_early());
        let outcomes = [(200, 0), (200, 13), (404, 9), (599, 10), (200, 99), (503, 100), (200, 32_768)];
        let heads: Vec<String> = ["/", "/\"a\\\"", &format!("/{}", "a".repeat(100)), "http://y/?b=c"]
            .iter()
            .flat_map(|target| ["GET", "POST"].map(|method| format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n")))
            .chain(["GET / HTTP/1.0\r\nReferer: r\r\nUser-Agent: é\"\r\n\r\n".to_owned()])
            .collect();
        let (mut whole, mut marks, mut filled, mut written) = (Buffer::default(), Vec::new(), 0, Vec::new());
        whole.reserve(65_536);
        let (mut response, mut expected) = (ResponseText::default(), Vec::new());
        let cases: Vec<_> = heads.iter().flat_map(|head| outcomes.map(|outcome| (head, outcome))).collect();
        for (head, outcome) in &cases {
            let prefix = formatter.prefix("192.0.2.7", None);
            let client = ClientText { address: "192.0.2.7", peer: None, prefix: &prefix };
            let (mut codec, mut scratch) = (Codec::new(), Scratch::new());
            let Next::Request(request) = codec.next(head.as_bytes(), &mut scratch, &LIMITS, &mut |_| false).1 else {
                panic!("{head} is a request");
            };
            let dated = ClientText { prefix: &formatter.dated(&prefix), ..client };
            let space = whole.space(filled, 65_536);
            let made = formatter.make_whole(space, &dated, request, *outcome, &mut response).expect("enough space");
            filled += made[3];
            marks.push(made);
            let (mut lines, mut out) = (DraftLines::default(), Buffer::default());
            formatter.begin(&mut lines, client, request, &request.origin());
            let (status, bytes) = *outcome;
            formatter.finish(&mut lines, 0, NOW, Outcome { status, bytes, micros: 0 }, &mut out);
            expected.push(String::from_utf8(out.as_slice().to_owned()).expect("a line is UTF-8"));
        }
        // A second later, so that the time changes, and back again.
        formatter.set_time(&mut whole, marks.iter().copied(), NOW + 1000);
        formatter.set_time(&mut whole, marks.iter().copied(), NOW);
        let text = |line: &[u8]| String::from_utf8(line.to_owned()).expect("a line is UTF-8");
        assert_eq!(text(whole.in_space(filled)), expected.concat());
        // A client that has not read all of it.
        let bytes = cases.iter().map(|(_, (_, bytes))| *bytes);
        let mut lines = formatter.reopen(whole.in_space(filled), marks.into_iter().zip(bytes));
        for (line, (_, (status, bytes))) in cases.iter().enumerate() {
            let mut out = Buffer::default();
            let outcome = Outcome { status: *status, bytes: *bytes, micros: 0 };
            formatter.finish(&mut lines, line * formatter.marks(), NOW, outcome, &mut out);
            written.push(text(out.as_slice()));
        }
        assert_eq!(written, expected);
    }
    for format in [AccessLogFormat::Vhost, AccessLogFormat::Json, AccessLogFormat::Template("$msec".to_owned())] {
        assert!(
            !formatter(format, 65_536).is_known_early(),
            "it says how long a response took, or when exactly it was sent"
        );
    }
}
