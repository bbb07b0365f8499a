//! What `tests/tools/load` counts: for the tests and for `tests/tools`.

/// Each request is in one class.
pub(crate) const CLASSES: [&str; 12] = [
    "ok",
    "late",
    "refused",
    "reset_connecting",
    "reset_waiting",
    "reset_mid_answer",
    "reset_after_answer",
    "truncated",
    "dropped",
    "bad",
    "timed_out",
    "local",
];

/// The classes of lost requests.
pub(crate) const LOSSES: &[&str] = CLASSES.split_at(2).1.split_at(9).0;
