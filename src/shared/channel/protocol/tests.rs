//! The module's table cell by cell, and the limits on rates.

use super::*;

/// Runs the protocol on a series of reads; returns the records and the violation.
fn all(protocol: &mut Protocol, readings: &[&[u8]], now: Time) -> (Vec<Record>, Option<Violation>) {
    let mut records = Vec::new();
    for reading in readings {
        if let Err(violation) = protocol.take(reading, now, &mut records) {
            return (records, Some(violation));
        }
    }
    (records, None)
}

fn in_state(prefix: &[u8]) -> Protocol {
    let mut protocol = Protocol::new(2);
    let (_, violation) = all(&mut protocol, &[prefix], Time::default());
    assert_eq!(violation, None);
    protocol
}

/// The module's table, cell by cell.
#[test]
fn each_record_has_its_time() {
    let states: [&[u8]; 6] = [b"", b"L", b"LR", b"LRX", b"LXP\x01\0\0\0", b"LXP\x01\0\0\0R"];
    let remark = [&b"N\x05"[..], &[0; 38]].concat();
    let cells: [(&[u8], [bool; 6]); 17] = [
        (b"L", [true, false, false, false, false, false]),
        (b"R", [false, true, false, false, true, false]),
        (b"A", [false, true, true, false, false, false]),
        (b"S", [false, false, true, false, false, false]),
        (b"O", [false, false, true, false, false, false]),
        (b"D", [false, true, true, false, false, false]),
        (b"M", [false, true, true, false, false, false]),
        (b"Q", [false, true, true, false, false, false]),
        (b"B\x01\x00", [false, true, true, false, false, false]),
        (b"X", [false, true, true, true, false, false]),
        (b"P\x07\0\0\0", [false, false, false, true, false, false]),
        (b"W", [false, false, false, false, true, false]),
        (b"H\x94\x01", [false, false, false, false, true, false]),
        (&remark, [false, false, false, false, true, true]),
        (b"Z", [false, false, false, false, true, true]),
        (b"C", [false, false, false, false, true, true]),
        (b"F", [true, true, true, true, true, true]),
    ];
    for (record, legal) in cells {
        for (state, legal) in states.iter().zip(legal) {
            let mut protocol = in_state(state);
            protocol.ordered_release();
            let (_, violation) = all(&mut protocol, &[record], Time::default());
            assert_eq!(violation.is_none(), legal, "{record:?} after {state:?}: {violation:?}");
        }
    }
}

#[test]
fn what_may_be_said_once_is_not_said_twice() {
    for record in [b"M", b"Q", b"D"] {
        let mut protocol = in_state(b"LR");
        protocol.ordered_release();
        let (records, violation) = all(&mut protocol, &[record, record], Time::default());
        assert_eq!(records.len(), 1);
        assert!(matches!(violation, Some(Violation::TooOften(_))), "{violation:?}");
    }
}

#[test]
fn records_may_come_in_pieces() {
    let bytes = b"LB\x01\x00RAMQXP\x07\x01\0\0ZCR";
    let whole = all(&mut Protocol::new(2), &[bytes], Time::default());
    let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(all(&mut Protocol::new(2), &pieces, Time::default()), whole);
    let expected = [
        Record::Listening,
        Record::Broken { address: 1 },
        Record::Ready,
        Record::Awake,
        Record::Due,
        Record::Leave,
        Record::Executes,
        Record::Program { pid: 0x107 },
        Record::Stopped,
        Record::Resumed,
        Record::Ready,
    ];
    assert_eq!(whole, (expected.to_vec(), None));
}

#[test]
fn junk_and_addresses_that_are_not_there_break_it_and_silence_the_worker() {
    for (junk, expected) in
        [(&b"-"[..], Violation::Unknown(b'-')), (b"\0", Violation::Unknown(0)), (b"B\x02\0", Violation::Address(2))]
    {
        let mut protocol = in_state(b"L");
        let (records, violation) = all(&mut protocol, &[&[b"A", junk, b"R"].concat()], Time::default());
        assert_eq!((records, violation), (vec![Record::Awake], Some(expected)));
        assert_eq!(all(&mut protocol, &[b"RRR---"], Time::default()), (vec![], None), "it was told once");
    }
}

#[test]
fn a_flood_breaks_it_and_what_a_pause_has_gathered_does_not() {
    for (record, name) in [(b'A', "awake"), (b'S', "steer"), (b'O', "overflow")] {
        let mut protocol = in_state(b"LR");
        let gathered = [record; 4096];
        assert_eq!(all(&mut protocol, &[&gathered[..]; 16], Time::default()).0.len(), 16);
        // As often as allowed.
        for ms in (0..5000).step_by(4) {
            assert_eq!(all(&mut protocol, &[&[record]], Time::from_millis(ms)).1, None, "{ms}");
        }
        let flood = vec![&gathered[..]; 1000];
        assert_eq!(all(&mut protocol, &flood, Time::from_millis(5000)).1, Some(Violation::TooOften(name)));
    }
}

/// A worker's requests to steer stay within what the parent allows, even if they are read late.
#[test]
fn a_worker_that_does_as_agreed_never_asks_too_often() {
    let (mut own, mut protocol, mut asked, mut late) = (Pace::default(), in_state(b"LR"), 0, 0);
    for ms in 0..20_000 {
        if own.take(REQUESTS, Time::from_millis(ms)).is_ok() {
            asked += 1;
            late += 1;
        }
        // The parent reads at intervals.
        if ms % 700 < 300 && late > 0 {
            late = 0;
            assert_eq!(all(&mut protocol, &[b"S"], Time::from_millis(ms)).1, None, "{ms}");
        }
    }
    assert!((5000..5000 + 130).contains(&asked), "{asked} in 20 s");
}

#[test]
fn a_listener_may_break_now_and_then() {
    let mut protocol = in_state(b"LR");
    let seconds = |at: u64| Time::from_millis(at * 1000);
    for second in 0..100 {
        assert_eq!(all(&mut protocol, &[b"B\0\0"], seconds(second)).1, None);
    }
    let (records, violation) = all(&mut protocol, &[&b"B\0\0"[..]; 100], seconds(100));
    assert!(records.len() <= 17, "{}", records.len());
    assert_eq!(violation, Some(Violation::TooOften("broken")));
}

#[test]
fn a_few_programs_may_be_tried_and_one_is_kept() {
    let programs = [EXECUTES; EXECUTIONS as usize + 1];
    assert_eq!(all(&mut in_state(b"L"), &[&programs], Time::default()).1, Some(Violation::TooOften("executes")));
    let (stopped, violation) = all(&mut in_state(b"LXP\x01\0\0\0"), &[&[STOPPED; 300]], Time::default());
    assert_eq!((stopped.len(), violation), (256, Some(Violation::TooOften("stopped"))));
}

#[test]
fn a_reason_is_one_line_and_ends() {
    let mut protocol = in_state(b"L");
    assert_eq!(protocol.reason(), None);
    assert_eq!(all(&mut protocol, &[b"Fno", b" such\nfile L"], Time::default()), (vec![], None));
    assert_eq!(protocol.reason().as_deref(), Some("no such file L"));
    assert_eq!(all(&mut protocol, &[&[b'x'; REASON_MAX]], Time::default()).1, Some(Violation::Endless));
    assert!(protocol.reason().is_some_and(|reason| reason.len() <= REASON_MAX + 1));
}
