//! The cost of the parts of the hot path. `scripts/instructions` runs these under callgrind, one at a time, and counts
//! the instructions within [`measured`].
#![forbid(unsafe_code)]

use std::hint::black_box;

use crate::server::http::{Codec, CommonFields, Encoder, Length, Limits, Next, Recall, ResponseHead, Scratch};
use crate::shared::scoreboard::ParentBoard;
use crate::time::Time;

/// `scripts/instructions` divides by this.
const ROUNDS: u32 = 1000;

const LIMITS: Limits =
    Limits { target: 8 << 10, head: 16 << 10, fields: 100, body: 1 << 20, requests: 0, utf8_query: true };
const SHORT: &[u8] = b"GET /plaintext HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n";
const BROWSER: &[u8] = b"GET /plaintext HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\nCookie: session=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\r\n\
    Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Mode: navigate\r\nPriority: u=0, i\r\n\r\n";

/// callgrind counts within this function, so it must be found by its name.
#[inline(never)]
fn measured(mut work: impl FnMut()) {
    (0..ROUNDS).for_each(|_| work());
}

fn parse(head: &[u8]) {
    let mut codec = Codec::new();
    measured(|| {
        let mut scratch = Scratch::new();
        let (len, next) = codec.next(black_box(head), &mut scratch, &LIMITS, &mut |_| false);
        assert!(len == head.len() && matches!(black_box(next), Next::Request(_)));
    });
}

/// No two successive heads are alike; with what a worker keeps to recognize one.
fn parse_unlike(head: &[u8]) {
    let text = String::from_utf8_lossy(head);
    let heads = [1, 2, 3, 4, 5, 6, 7].map(|n| text.replace("/plaintext", &format!("/plaintext?100{n}")).into_bytes());
    let (mut codec, mut recall, mut heads) = (Codec::new(), Recall::default(), heads.iter().cycle());
    measured(|| {
        let head = heads.next().expect("there are some, again and again");
        let mut scratch = Scratch::with(&mut recall);
        let (len, next) = codec.next(black_box(head), &mut scratch, &LIMITS, &mut |_| false);
        assert!(len == head.len() && matches!(black_box(next), Next::Request(_)));
    });
}

fn parse_recalled(head: &[u8]) {
    let (mut codec, mut recall) = (Codec::new(), Recall::default());
    let mut next = || {
        let mut scratch = Scratch::with(&mut recall);
        let (len, next) = codec.next(black_box(head), &mut scratch, &LIMITS, &mut |_| false);
        assert!(len == head.len() && matches!(black_box(next), Next::Request(_)));
    };
    // The first two are parsed, and learnt.
    next();
    next();
    measured(next);
}

#[test]
#[ignore = "counted by scripts/instructions"]
fn head_short() {
    parse(SHORT);
}

#[test]
#[ignore = "counted by scripts/instructions"]
fn head_short_unlike() {
    parse_unlike(SHORT);
}

#[test]
#[ignore = "counted by scripts/instructions"]
fn head_short_recalled() {
    parse_recalled(SHORT);
}

#[test]
#[ignore = "counted by scripts/instructions"]
fn head_browser() {
    parse(BROWSER);
}

#[test]
#[ignore = "counted by scripts/instructions"]
fn head_browser_unlike() {
    parse_unlike(BROWSER);
}

#[test]
#[ignore = "counted by scripts/instructions"]
fn head_browser_recalled() {
    parse_recalled(BROWSER);
}

fn render(heads: &[ResponseHead]) {
    let (mut codec, mut encoder, mut out) = (Codec::new(), Encoder::new(CommonFields::new()), Vec::with_capacity(4096));
    let mut scratch = Scratch::new();
    assert!(matches!(codec.next(SHORT, &mut scratch, &LIMITS, &mut |_| false).1, Next::Request(_)));
    let mut heads = heads.iter().cycle();
    measured(|| {
        let head = heads.next().expect("there are some, again and again");
        out.clear();
        codec.respond(black_box(head), Length::Known(black_box(13)), &mut encoder, black_box(&mut out));
    });
    assert!(out.ends_with(b"\r\n\r\n"));
}

#[test]
#[ignore = "counted by scripts/instructions"]
fn encode() {
    render(&[ResponseHead::with("text/plain".into())]);
}

/// No two successive ones are alike.
#[test]
#[ignore = "counted by scripts/instructions"]
fn encode_unlike() {
    render(&["a", "b", "c", "d", "e", "f", "g"].map(|kind| ResponseHead::with(kind.into())));
}

#[test]
#[ignore = "counted by scripts/instructions"]
fn date() {
    let mut common = CommonFields::new();
    // Within one day, since the length of the search for a year varies.
    measured(|| common.refresh(black_box(1_800_000_000)));
}

/// What a worker writes in a turn of its loop with one request.
#[test]
#[ignore = "counted by scripts/instructions"]
fn scoreboard() {
    let scoreboard = ParentBoard::new(2).expect("memory for two rows");
    let page = scoreboard.lend(1, 0, Time::default()).expect("there is a row");
    let row = black_box(page.row());
    measured(|| {
        row.busy(black_box(Time::from_millis(1)));
        row.count_request();
        row.idle();
    });
    assert_eq!(row.requests(), u64::from(ROUNDS));
}
