//! What the binary prints.

use std::fmt::{self, Write as _};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use forkpool::LogWriter;

/// A reader that goes away, as `head` does, is no error; `println!` would panic. What cannot be written for another
/// reason ends the process: nobody shall take half of it for the whole.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            fail(&format!("cannot write to standard output: {error}"), 1);
            std::process::exit(1)
        }
        _ => {}
    }
}

pub(crate) fn fail(problem: &str, code: u8) -> ExitCode {
    // As the log: the pool's end waits for nobody who reads.
    let _ = LogWriter::default().write_all(format!("forkpool: {problem}\n").as_bytes());
    ExitCode::from(code)
}

/// Appends what is formatted.
pub(super) fn put(out: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = out.write_fmt(text);
}

/// A text without what a terminal would obey, but for the ends of its lines.
pub(super) fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n', "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_commands_the_terminal() {
        assert_eq!(printable("a\x1b[2J\rb\u{9b}c\n\u{e9}\n"), "a?[2J?b?c\n\u{e9}\n");
    }
}
