//! The output of the log: standard error, written only if that does not block.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use memchr::memchr_iter;

use crate::shared::outlet::{count_lost, Outlet};
use crate::sys::clock;
use crate::time::Time;

/// How often a parent that has lost lines checks whether it can write again.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Standard error for a logger, in any process of a pool. A write never blocks.
///
/// Lines are lost while a pipe is full, a terminal is stopped (Ctrl-S) or a disk has no space. Each process counts its
/// lost lines, and the status shows the count. Once there is space again, a line says how many were lost: the parent
/// checks four times a second, and a worker with its next line. The flags of standard error are not changed, since
/// other processes share them.
///
/// The binary `forkpool` logs through this writer. If your own logger should not block the pool either, give it this
/// writer before the pool runs; with `env_logger`:
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

/// The state that all writers of this process share.
#[derive(Debug)]
struct Log {
    outlet: Option<Outlet>,
    tell: fn(u64) -> String,
    /// Lost lines that have not been reported.
    untold: u64,
    /// When to try to report them.
    retry: Option<Time>,
}

static LOG: Mutex<Option<Log>> = Mutex::new(None);

impl LogWriter {
    /// Makes a writer. `tell` formats the line, or lines, that report how many were lost. All writers of a process
    /// share one state, and the latest `tell` applies.
    pub fn new(tell: fn(u64) -> String) -> LogWriter {
        let mut log = lock();
        let untold = log.as_ref().map_or(0, |log| log.untold);
        *log = Some(Log { outlet: standard_error(), tell, untold, retry: None });
        LogWriter(())
    }
}

impl Default for LogWriter {
    /// The existing writer of the process, or one that reports in plain English.
    fn default() -> LogWriter {
        let is_there = lock().is_some();
        match is_there {
            true => LogWriter(()),
            false => LogWriter::new(|lost| format!("{lost} log lines lost: nobody read them, or there was no room\n")),
        }
    }
}

/// Each write should be a whole record. A write always reports success; lost records are counted.
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
        self.retry.get_or_insert_with(|| clock::now() + RETRY_INTERVAL);
    }

    /// Reports how many lines were lost, as soon as that can be written.
    fn tell(&mut self) {
        let Some(outlet) = self.outlet.as_mut().filter(|_| self.untold > 0) else { return };
        let line = (self.tell)(self.untold);
        match outlet.write(line.as_bytes()) {
            (_, None) => (self.untold, self.retry) = (0, None),
            (written, Some(_)) => {
                if written > 0 {
                    outlet.give_up();
                }
                self.retry = Some(clock::now() + RETRY_INTERVAL);
            }
        }
    }
}

/// `None` if no descriptor is free, or standard error is closed.
fn standard_error() -> Option<Outlet> {
    Some(Outlet::new(io::stderr().as_fd().try_clone_to_owned().ok()?))
}

fn lock() -> MutexGuard<'static, Option<Log>> {
    // The state is consistent even after a panic.
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When to call [`tell_lost`], if lines were lost.
pub(crate) fn deadline() -> Option<Time> {
    lock().as_ref()?.retry
}

/// Reports how many lines were lost, if that is due and can be written.
pub(crate) fn tell_lost(now: Time) {
    if let Some(log) = lock().as_mut().filter(|log| log.retry.is_some_and(|due| due <= now)) {
        log.tell();
    }
}

/// Opens standard error again, since it is another file or this is another process.
pub(crate) fn reopen() {
    if let Some(log) = &mut *lock() {
        log.outlet = standard_error();
    }
}

/// Called in a new child process. The parent reports what was lost before the fork.
pub(crate) fn begin_anew() {
    reopen();
    if let Some(log) = &mut *lock() {
        (log.untold, log.retry) = (0, None);
    }
}
