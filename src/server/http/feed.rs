//! What a client would see, for tests and fuzzers.

use super::{Codec, CommonFields, Encoder, Length, Limits, Next, Recall, Reject, Request, ResponseHead, Scratch};

/// What a client would see of one request or refusal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Request { line: String, host: Option<String>, fields: Vec<(String, Vec<u8>)>, body: Vec<u8>, keeps_alive: bool },
    Refused(Reject),
}

/// Feeds pieces as a connection does: bytes that are not consumed are offered again with the next ones.
pub(super) fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Vec<Seen> {
    feed_with(pieces, limits, None)
}

/// The same, with what other connections have left in the recall.
pub(super) fn feed_with<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limits: &Limits,
    mut recall: Option<&mut Recall>,
) -> Vec<Seen> {
    let (mut codec, mut encoder, mut out) = (Codec::new(), Encoder::new(CommonFields::new()), Vec::new());
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
                    assert!(!codec.ending.is_last(), "something was read behind the last answer");
                    codec.reject(reject, &mut encoder, &mut out);
                    seen.push(Seen::Refused(reject));
                }
                Next::Request(request) => {
                    let mut request = see(request);
                    codec.respond(&ResponseHead::new(200, None), Length::Known(0), &mut encoder, &mut out);
                    if let Seen::Request { keeps_alive, .. } = &mut request {
                        *keeps_alive = !codec.ending.is_last();
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
