//! Prints text.

use std::fmt::{self, Write as _};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use forkpool::LogWriter;

/// Prints a text. A reader that goes away, as `head` does, is not an error (`println!` would panic). Any other write
/// error ends the process, so that nobody takes half of the text for the whole.
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
    // Like the log: the end of the pool waits for no reader.
    let _ = LogWriter::default().write_all(format!("forkpool: {problem}\n").as_bytes());
    ExitCode::from(code)
}

/// Appends formatted text.
pub(super) fn put(out: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = out.write_fmt(text);
}

/// Replaces control characters, which could command a terminal, but keeps line feeds.
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
