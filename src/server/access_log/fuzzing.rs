//! Fuzzes what clients can write to the access log ([`crate::fuzzing`]).
#![allow(missing_docs, unreachable_pub)]

use super::buffer::Buffer;
use super::format::{ClientText, DraftLines, Formatter, Outcome};
use super::whole::ResponseText;
use crate::server::http::{Codec, Limits, Next, Scratch};
use crate::shared::config::AccessLogFormat;

const LIMITS: Limits = Limits { target: 60_000, head: 200_000, fields: 100, body: 0, requests: 0, utf8_query: true };

/// For any head and in each format, there must be one line of printable text within the maximum length, the same
/// however it is made.
pub fn line(head: &[u8]) {
    let own = "\"$request_method\" \"$request_uri\" \"$host\" \"$http_host\" \"$http_cookie\" \"$peer_addr\" $msec";
    let own = AccessLogFormat::Template(own.to_owned());
    for format in
        [AccessLogFormat::Common, AccessLogFormat::Combined, AccessLogFormat::Vhost, AccessLogFormat::Json, own]
    {
        let mut formatter = Formatter::new(&format, Formatter::ROOM_MIN, 3, 77);
        let mut line = DraftLines::default();
        let prefix = formatter.prefix("192.0.2.7", None);
        let client = ClientText { address: "192.0.2.7", peer: None, prefix: &prefix };
        let (mut codec, mut scratch) = (Codec::new(), Scratch::new());
        let request = match codec.next(head, &mut scratch, &LIMITS, &mut |_| false).1 {
            Next::Request(request) => Some(request),
            _ => None,
        };
        match &request {
            Some(request) => formatter.begin(&mut line, client, request, &request.origin()),
            None => formatter.begin_refused(&mut line, client, head),
        }
        let (mut out, millis) = (Buffer::default(), head.len() as u64 * 1_000_000_007);
        formatter.finish(&mut line, 0, millis, Outcome { status: 200, bytes: 13, micros: u64::MAX }, &mut out);
        assert!(out.len() <= formatter.bound(&line, 0) && out.len() <= Formatter::ROOM_MIN, "{}", out.len());
        if let Some(request) = request {
            let (client, mut response) =
                (ClientText { prefix: &formatter.dated(&prefix), ..client }, ResponseText::default());
            let mut whole = Buffer::default();
            whole.reserve(Formatter::ROOM_MIN);
            let space = whole.space(0, Formatter::ROOM_MIN);
            if let Some(marks) = formatter.make_whole(space, &client, request, (200, 13), &mut response) {
                assert_eq!(whole.in_space(marks[3]), out.as_slice());
            }
        }
        let text = String::from_utf8(out.as_slice().to_owned()).expect("a line is UTF-8");
        let content = text.strip_suffix('\n').expect("it ends");
        assert!(!content.contains(char::is_control), "{content:?}");
        assert_eq!(unescaped_quotes(content) % 2, 0, "{content:?}");
    }
}

fn unescaped_quotes(text: &str) -> usize {
    let mut is_escaped = false;
    let quotes = text.chars().filter(|c| {
        let is_quote = *c == '"' && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        is_quote
    });
    quotes.count()
}
