//! PURE. HTTP/1.1 for a server: bytes to requests, responses to bytes (RFC 9110, RFC 9112).
//!
//! Knows no socket and no clock. A [`Codec`] holds the state of one connection:
//!
//! ```text
//!            bytes                       bytes
//!   Idle ──────────► Head ──────────► Body (owned: head, decoded body)
//!    ▲                 │ whole request in   │ body complete
//!    │                 ▼ the caller's bytes ▼
//!    └──── respond ── Request ◄─────────────┘
//!
//!   any ── a broken rule ── Reject ──► Closed      respond, the last one ──► Closed
//! ```
//!
//! A request that is whole in the caller's bytes is returned as slices of them: nothing is copied or allocated. The
//! codec copies only a request whose body is incomplete or chunked, and frees the copy with its response.
//!
//! # What a head costs
//!
//! Instructions in user space, compiled for size as the shipped binary was then, for `GET /plaintext?1234` with a Host,
//! and for `GET /plaintext` with ten fields as a browser sends them; `Codec::next` with all that it calls.
//!
//! | step | short | browser |
//! |---|---:|---:|
//! | httparse, then one pass over the fields that it has found | 1 383 | 4 161 |
//! | an own pass: one window of 32 bytes for a name, as many as needed for a value | 769 | 2 727 |
//! | compare names as words instead of bytes; handle windows that reach beyond the input elsewhere | 690 | 1 947 |
//! | compare a name only if its first letter is right for its length | 654 | 1 754 |
//! | check the host after the loop, so that its code exists once; use BMI1 | 659 | 1 643 |
//! | inline the rules about several lines; compare `: ` and CRLF as one word; handle tabs elsewhere | 620 | 1 437 |
//! | recognise GET by one comparison | 598 | 1 375 |
//! | move the code for other processors, and the code that learns a head, out of line | 576 | 1 353 |
//!
//! A head that repeats ([`Recall`]) costs 183 and 255 instead. The look-up costs every other head 41 to 51: a whole
//! request with a short head takes 1 446 without it instead of 1 487, and one that repeats 1 424 instead of 1 083. So
//! it pays where one short head in nine repeats. What did not help: closures around the steps. They are not inlined
//! into the function that is compiled for AVX2, and so call each intrinsic as a function (922 and 1 813).
//!
//! # What a turn costs
//!
//! The same for a whole request, with one connection that is ready: the turn of the loop, the head, the handler and the
//! response. `GET /plaintext?1234` with a Host, no two alike, and the one that repeats.
//!
//! | step | differs | repeats |
//! |---|---:|---:|
//! | compile for speed | 1 563 | 1 161 |
//! | compute with spans in milliseconds; keep the last wait; ask for rare things by one flag; find an entry once | 1 503 | |
//! | keep the timeouts as spans; keep the kind of processor in one byte | 1 470 | 1 068 |
//! | let the parts of the loop own their state, which costs some | 1 514 | 1 095 |
//! | serve TLS beside plain HTTP, with a match on the kind of the socket in each call | 1 598 | |
//! | match once per call; drop most responses without asking what they hold; ask for room when it changes | 1 523 | 1 121 |
//! | see by one number whether a head was begun; set the timer of most steps without asking what for | 1 516 | 1 101 |
//! | ask only what is at work when a turn ends; keep the parsed head out of memory | 1 487 | 1 083 |
//!
//! The last two steps are from 840 to 826 and 816 with 64 connections. What did not help there: to take all steps in
//! one place, so that the whole of a step is inlined into the loop, and to let the handler's response be made where it
//! is used (886), since there are not enough registers; to call the function that answers a request (843), or the one
//! that writes its response (878), instead of inlining it, since the response is then in memory.
#![forbid(unsafe_code)]

mod body;
mod build;
mod codec;
mod coding;
mod conditional;
mod date;
mod decode;
mod encode;
mod ending;
#[cfg(any(fuzzing, test))]
mod feed;
mod field_summary;
mod forwarded;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod grammar;
mod head;
mod headers;
mod host;
mod lines;
mod media_type;
mod message;
mod negotiate;
mod parse;
mod partial;
mod pieces;
mod range;
mod recall;
mod reject;
mod request;
mod respond;
mod response;
mod response_mode;
mod rules;
#[cfg(test)]
mod tests;
mod tls;
mod trailer;

pub(crate) use crate::shared::config::{Limits, FIELDS_MAX};
pub use build::RequestBuilder;
pub(crate) use codec::{Codec, Next, Phase, Scratch};
pub(crate) use coding::{preferred as preferred_codings, Coding};
pub(crate) use conditional::{evaluate, single, Validators, Verdict};
pub(crate) use date::{fixdate, CommonFields};
pub use decode::Pairs;
pub(crate) use encode::{chunk, last_chunk, Encoder, CONTINUE};
pub(crate) use forwarded::{Origin, TrustedProxies};
pub use headers::Headers;
pub use media_type::media_type_of;
pub(crate) use media_type::{extension, media_type};
pub(crate) use pieces::Piece;
pub(crate) use range::{parse as parse_range, Ranges};
pub(crate) use recall::Recall;
pub(crate) use reject::Reject;
pub(crate) use request::Via;
pub use request::{Request, Version};
pub(crate) use respond::{Length, Transfer};
pub use response::InvalidHeader;
pub(crate) use response::{is_value, ResponseHead};
pub use tls::TlsInfo;
pub(crate) use trailer::{add_trailer, announce_trailer, early_hints, takes_trailers};
