//! Messages whose contents are values of the application's types.

mod support;

use std::collections::BTreeMap;

use forkpool::{decode, encode, TypedError};
use support::{example, Server};

#[test]
fn values_go_both_ways_and_others_are_typed_errors() {
    let (status, log) = Server::spawn(example("typed")).finish();
    assert!(status.success(), "{log:?}");
    let expected = [
        "not sent: the message has 200001 bytes, more than 65536; split it",
        "not understood: the JSON is not a value of the expected type",
        "worker 0 is there",
        "12 * 12 = 144",
    ];
    for line in expected {
        assert_eq!(log.iter().filter(|it| *it == line).count(), 1, "{line}: {log:?}");
    }
}

#[test]
fn values_that_cannot_be_converted_are_refused() {
    let value = BTreeMap::from([((1, 2), 3)]);
    assert!(matches!(encode(&value), Err(TypedError::Encode(_))));
    for message in [&b""[..], b"1", b"[1]", b"[1,2] 3", b"\xff"] {
        assert!(matches!(decode::<(u8, u8)>(message), Err(TypedError::Decode(_))), "{message:?}");
    }
}
