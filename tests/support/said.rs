//! What a program has printed by its end.

use std::process::{Command, Stdio};

/// What it has printed and said, and its exit code.
#[derive(Debug)]
pub struct Said {
    pub out: String,
    pub problem: String,
    pub code: i32,
}

/// Runs a program to its end, without input.
#[track_caller]
pub fn run(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output().expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Said { out: text(output.stdout), problem: text(output.stderr), code: output.status.code().expect("it exits") }
}
