//! The `forkpool` binary. Uses the library's public API only.

fn main() {}
