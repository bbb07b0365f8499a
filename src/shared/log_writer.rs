//! Where the log goes: standard error, written only when that does not block.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use memchr::memchr_iter;

use crate::shared::outlet::{count_lost, Outlet};
use crate::sys::clock;
use crate::time::Time;

/// How often a parent that has lost lines looks whether somebody reads again.
const RETRY: Duration = Duration::from_millis(250);

/// Standard error for a log, as every process of a pool may use it: a write never waits for whoever reads.
///
/// While a pipe is full, a terminal is stopped (Ctrl-S) or a disk has no room, lines are lost. They are counted for each
/// process, which the status shows; and once there is room again, a line says how many they were. The parent looks for that
/// four times a second, a worker with its next line. The flags of standard error stay as they are, since other processes
/// have it, too.
///
/// The `forkpool` binary logs through this. Give it to a logger of your own, before the pool runs, if it shall not stop the
/// pool either; with `env_logger`:
///
/// ```no_run
/// use env_logger::{Builder, Target};
/// use forkpool::LogWriter;
///
/// let told = |lost| format!("WARN {lost} log lines lost: nobody read them\n");
/// Builder::from_default_env().target(Target::Pipe(Box::new(LogWriter::new(told)))).init();
/// ```
#[derive(Debug)]
pub struct LogWriter(());

/// What all writers of this process share.
#[derive(Debug)]
struct Log {
    outlet: Option<Outlet>,
    tell: fn(u64) -> String,
    /// Lines whose loss was not told.
    untold: u64,
    /// When to try to tell.
    retry: Option<Time>,
}

static LOG: Mutex<Option<Log>> = Mutex::new(None);

impl LogWriter {
    /// The writer; `tell` makes the whole line, or lines, that say how many were lost. All writers of a process are one,
    /// and what the latest was made with holds.
    pub fn new(tell: fn(u64) -> String) -> LogWriter {
        let mut log = lock();
        let untold = log.as_ref().map_or(0, |log| log.untold);
        *log = Some(Log { outlet: standard_error(), tell, untold, retry: None });
        LogWriter(())
    }
}

impl Default for LogWriter {
    /// The writer that the process has already, or one that tells in plain English.
    fn default() -> LogWriter {
        let is_there = lock().is_some();
        match is_there {
            true => LogWriter(()),
            false => LogWriter::new(|lost| format!("{lost} log lines lost: nobody read them, or there was no room\n")),
        }
    }
}

/// Each write should be a whole record. It says that all was written: what was not is counted.
impl Write for LogWriter {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        if let Some(log) = &mut *lock() {
            log.write(record);
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn write(&mut self, record: &[u8]) {
        self.tell();
        let mut rest = record;
        if let (0, Some(outlet)) = (self.untold, &mut self.outlet) {
            let (written, _) = outlet.write(record);
            rest = &record[written..];
            if rest.is_empty() {
                return;
            }
            outlet.give_up();
        }
        let lines = (memchr_iter(b'\n', rest).count() as u64).max(1);
        count_lost(lines);
        self.untold += lines;
        self.retry.get_or_insert_with(|| clock::now() + RETRY);
    }

    /// Says how many were lost, as soon as that can be said.
    fn tell(&mut self) {
        let Some(outlet) = self.outlet.as_mut().filter(|_| self.untold > 0) else { return };
        let line = (self.tell)(self.untold);
        match outlet.write(line.as_bytes()) {
            (_, None) => (self.untold, self.retry) = (0, None),
            (written, Some(_)) => {
                if written > 0 {
                    outlet.give_up();
                }
                self.retry = Some(clock::now() + RETRY);
            }
        }
    }
}

/// None where no descriptor is free, and where it is closed.
fn standard_error() -> Option<Outlet> {
    Some(Outlet::new(io::stderr().as_fd().try_clone_to_owned().ok()?))
}

fn lock() -> MutexGuard<'static, Option<Log>> {
    // It is whole whenever somebody panics.
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When to call [`tell_lost`], if there is something to tell.
pub(crate) fn deadline() -> Option<Time> {
    lock().as_ref()?.retry
}

/// Says how many lines were lost, if that is due and somebody reads.
pub(crate) fn tell_lost(now: Time) {
    if let Some(log) = lock().as_mut().filter(|log| log.retry.is_some_and(|due| due <= now)) {
        log.tell();
    }
}

/// Standard error is another file, or this is another process: what it writes to is its own.
pub(crate) fn reopen() {
    if let Some(log) = &mut *lock() {
        log.outlet = standard_error();
    }
}

/// A fork has made this process: what was lost before, its parent will tell.
pub(crate) fn begin_anew() {
    reopen();
    if let Some(log) = &mut *lock() {
        (log.untold, log.retry) = (0, None);
    }
}
