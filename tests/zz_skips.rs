//! The last of the test programs by its name, so cargo runs it last: it says what the others have skipped, and why.

mod support;

use std::fs;
use std::io::Write;

#[test]
fn what_was_skipped_in_this_run() {
    let path = support::skips();
    let skipped = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::remove_file(&path);
    let count = skipped.lines().count();
    let summary = format!("\n{count} skips in this run; FORKPOOL_TESTS=all makes each a failure\n{skipped}");
    // Not by a macro: what those print of a test that passes, nobody sees.
    std::io::stderr().write_all(summary.as_bytes()).expect("somebody reads it");
}
