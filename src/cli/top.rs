//! `forkpool top`: the status with rates, live.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::termios::{tcgetattr, tcsetattr, LocalFlags, SetArg, Termios};
use nix::unistd::read;
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::client::{Client, Failure};
use super::table::{table, Sort, KEYS, SORTS};

/// Shows the pool until the user quits.
pub(super) fn run(client: &Client, interval: Duration, mut sort: Sort) -> Result<u8, String> {
    let ends = Arc::new(AtomicBool::new(false));
    let screen = if io::stdout().is_terminal() { Some(Screen::open(&ends)?) } else { None };
    let mut before = Value::Null;
    loop {
        let due = Instant::now() + interval;
        let status = client.status().map_err(Failure::text)?;
        loop {
            let shown = table(&status, &before, sort);
            let drawn = match &screen {
                Some(_) => draw(&shown),
                None => io::stdout().write_all(format!("{shown}\n").as_bytes()),
            };
            // The reader of the output has gone.
            if drawn.is_err() {
                return Ok(0);
            }
            match wait(screen.as_ref(), due, &ends) {
                Next::Refresh => break,
                Next::Sort(by) => sort = by,
                Next::Quit => return Ok(0),
            }
        }
        before = status;
    }
}

/// What to do after the wait.
enum Next {
    Refresh,
    Sort(Sort),
    Quit,
}

/// Draws each line at its place, and the keys on the last line; the terminal cuts off what does not fit.
fn draw(shown: &str) -> io::Result<()> {
    let mut drawn = String::new();
    for (line, number) in shown.lines().zip(1..) {
        drawn.push_str(&format!("\x1b[{number};1H{line}\x1b[K"));
    }
    // The terminal takes its last row for one below it.
    drawn.push_str(&format!("\x1b[J\x1b[999;1H\x1b[K{KEYS}"));
    let mut out = io::stdout();
    out.write_all(drawn.as_bytes())?;
    out.flush()
}

/// Waits for the next refresh, or a key.
fn wait(screen: Option<&Screen>, due: Instant, ends: &AtomicBool) -> Next {
    let stdin = io::stdin();
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if ends.load(Ordering::Relaxed) {
            return Next::Quit;
        }
        if left.is_zero() {
            return Next::Refresh;
        }
        // In whole milliseconds, rounded up.
        let left = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
        let mut keys = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        let has_keys = screen.is_some_and(|screen| screen.saved.is_some());
        let watched = if has_keys { &mut keys[..] } else { &mut [] };
        // A signal interrupts the call, and is checked above.
        if poll(watched, left).is_ok_and(|ready| ready > 0) {
            let mut key = [0];
            match read(&stdin, &mut key) {
                Ok(1) if !matches!(key[0], b'q' | b'Q' | CTRL_C) => {
                    let sort = SORTS.iter().find(|(known, ..)| *known == key[0].to_ascii_lowercase());
                    if let Some((_, _, sort)) = sort {
                        return Next::Sort(*sort);
                    }
                }
                _ => return Next::Quit,
            }
        }
    }
}

const CTRL_C: u8 = 3;

/// The terminal's alternate screen, until this is dropped.
struct Screen {
    /// The terminal's previous mode; `None` if stdin is no terminal.
    saved: Option<Termios>,
}

impl Screen {
    fn open(ends: &Arc<AtomicBool>) -> Result<Screen, String> {
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(ends))
                .map_err(|error| format!("cannot handle signals with sigaction(2): {error}"))?;
        }
        let saved = tcgetattr(io::stdin()).ok();
        if let Some(mut raw) = saved.clone() {
            raw.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
            // If this fails, the terminal only echoes what is typed.
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &raw);
        }
        // Alternate screen, no wrapping, no cursor.
        say("\x1b[?1049h\x1b[?7l\x1b[?25l\x1b[2J");
        Ok(Screen { saved })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        say("\x1b[?25h\x1b[?7h\x1b[?1049l");
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, saved);
        }
    }
}

/// Writes to the terminal; ignores errors, since a terminal that has gone needs nothing.
fn say(sequence: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(sequence.as_bytes()).and_then(|()| out.flush());
}
