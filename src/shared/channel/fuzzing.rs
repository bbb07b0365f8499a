//! What a fuzzer sends as a worker ([`crate::fuzzing`]).
#![allow(missing_docs, unreachable_pub)]

use std::time::Duration;

use super::protocol::{Protocol, Record, REASON_MAX};
use crate::time::Time;

/// Runs the protocol on a series of reads. Each is preceded by its length and by the milliseconds since the one before,
/// in a byte each.
pub fn records(bytes: &[u8]) {
    let (mut protocol, mut records, mut now, mut rest) = (Protocol::new(2), Vec::new(), Time::default(), bytes);
    let mut violation = None;
    while let [len, later, behind @ ..] = rest {
        let (reading, behind) = behind.split_at(usize::from(*len).min(behind.len()));
        rest = behind;
        now = now + Duration::from_millis(u64::from(*later));
        let before = records.len();
        let taken = protocol.take(reading, now, &mut records);
        assert!(violation.is_none() || (taken.is_ok() && records.len() == before), "nothing counts behind a violation");
        violation = violation.or(taken.err());
        if reading.len() > 200 {
            protocol.ordered_release();
        }
    }
    let count = |wanted: Record| records.iter().filter(|record| **record == wanted).count();
    for once in [Record::Listening, Record::Due, Record::Leave] {
        assert!(count(once) <= 1, "{records:?}");
    }
    // Once as a worker, and once for the program that it then keeps.
    assert!(count(Record::Ready) <= 2, "{records:?}");
    let programs = records.iter().filter(|record| matches!(record, Record::Program { .. })).count();
    assert!(programs <= 1, "{records:?}");
    let first = records.first().copied();
    assert!(matches!(first, None | Some(Record::Listening)), "{records:?}");
    assert!(records.iter().all(|record| !matches!(record, Record::Broken { address } if *address >= 2)), "{records:?}");
    assert!(count(Record::Executes) <= 8, "{records:?}");
    assert!(protocol.reason().is_none_or(|reason| reason.chars().count() <= REASON_MAX + 1));
    let _ = violation.map(|violation| violation.to_string());
}
