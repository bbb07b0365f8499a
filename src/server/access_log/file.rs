//! The file of the access log, as workers write to it.

use std::fmt::Display;
use std::io::ErrorKind;
use std::mem;
use std::os::fd::OwnedFd;
use std::time::Duration;

use log::warn;

use super::buffer::{Buffer, Space};
use super::format::Formatter;
use crate::shared::outlet::{count_lost, Outlet, ATOMIC};
use crate::shared::scoreboard::{LinesPage, LINES_MAX};
use crate::sys::clock;
use crate::time::Time;

/// The bytes that a worker collects for one write(2), and the maximum that it keeps while nobody reads.
const BUFFER: usize = LINES_MAX;

/// The minimum space for a line whose response will be sent at once, if there is any.
const SPACE_MIN: usize = 256;

/// How long a line may wait before it is written.
const DELAY_MAX: Duration = Duration::from_secs(1);

/// How often lost lines are reported while lines are lost, and once writing works again.
const WARN_INTERVAL: Duration = Duration::from_secs(60);
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How often to check whether somebody reads again.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// At the end, how many milliseconds the reader may pause before the rest is lost.
const FLUSH_PAUSE_MAX: u8 = 100;

/// Collects lines and writes whole lines only, since several workers share the file. Waits for no reader: lines that
/// cannot be written are kept for a while and then lost.
#[derive(Debug)]
pub(super) struct Sink {
    outlet: Outlet,
    buffer: Buffer,
    line_max: usize,
    /// Where the parent finds what this process has not written.
    shared_copy: Option<LinesPage>,
    /// How much of the buffer is stored there as well.
    copied: usize,
    /// How much of the space behind the buffer is filled with lines whose responses were not sent yet.
    filled: usize,
    /// Since when the first line in the buffer waits.
    oldest: Time,
    /// When to check again whether somebody reads.
    retry: Option<Time>,
    /// Lost lines that were not reported yet.
    lost: u64,
    /// When lost lines were last reported.
    warned: Option<Time>,
    /// How the log names this worker.
    tag: String,
}

impl Sink {
    pub(super) fn new(file: OwnedFd, shared_copy: Option<LinesPage>, tag: String) -> Sink {
        let outlet = Outlet::new(file);
        let (line_max, oldest) = (line_max(&outlet), Time::default());
        Sink {
            outlet,
            buffer: Buffer::default(),
            line_max,
            shared_copy,
            copied: 0,
            filled: 0,
            oldest,
            retry: None,
            lost: 0,
            warned: None,
            tag,
        }
    }

    /// The maximum length of a line.
    pub(super) fn line_max(&self) -> usize {
        self.line_max
    }

    /// Returns the buffer, with space for a line of at most this many bytes. It is this time, in microseconds.
    #[inline]
    pub(super) fn room_for(&mut self, bound: usize, micros: u64) -> &mut Buffer {
        if self.buffer.is_empty() || self.buffer.len() + bound > self.line_max {
            self.make_room(bound, Time::from_millis(micros / 1000));
        }
        &mut self.buffer
    }

    /// The space for a line whose response will be sent at once. Such a line is not written until it is
    /// [confirmed](Sink::confirm).
    #[inline(always)]
    pub(super) fn space(&mut self) -> Space<'_> {
        if self.buffer.len() + self.filled + SPACE_MIN > self.line_max {
            self.make_room(self.filled + SPACE_MIN, clock::now());
        }
        self.buffer.space(self.filled, self.line_max)
    }

    /// The space was filled with a line of this length.
    #[inline(always)]
    pub(super) fn has_filled(&mut self, len: usize) {
        self.filled += len;
    }

    /// The buffer behind which the space is.
    pub(super) fn buffer(&mut self) -> &mut Buffer {
        &mut self.buffer
    }

    /// The responses of the lines in the space were sent. It is this time, in microseconds.
    #[inline]
    pub(super) fn confirm(&mut self, micros: u64) {
        if self.buffer.is_empty() {
            self.oldest = Time::from_millis(micros / 1000);
        }
        self.buffer.add_filled(mem::take(&mut self.filled));
        self.added();
    }

    /// The lines in the space will be drafts of their connection.
    pub(super) fn withdraw(&mut self) -> &[u8] {
        self.buffer.in_space(mem::take(&mut self.filled))
    }

    /// A line was added to the buffer. From now on it will be written, however this process ends.
    pub(super) fn added(&mut self) {
        if let Some(shared_copy) = &self.shared_copy {
            shared_copy.store(self.buffer.as_words(), self.buffer.len(), self.copied);
        }
        self.copied = self.buffer.len();
    }

    /// Part of the buffer was written. Called after the write, so a process that is killed in between has its lines
    /// written twice rather than never.
    fn taken(&mut self) {
        self.copied = 0;
        self.added();
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self, bound: usize, now: Time) {
        if self.buffer.len() + bound > self.line_max {
            if self.retry.is_none_or(|due| due <= now) {
                self.flush(now);
            }
            // An empty buffer has nothing to lose, however much of its space is filled.
            if !self.buffer.is_empty() && self.buffer.len() + bound > BUFFER {
                self.lose(&NOBODY_READS, now);
            }
        }
        if self.buffer.is_empty() {
            self.buffer.reserve(self.line_max);
            self.oldest = now;
        }
    }

    pub(super) fn due(&self) -> Option<Time> {
        (!self.buffer.is_empty()).then(|| self.retry.unwrap_or(self.oldest + DELAY_MAX))
    }

    pub(super) fn reopen(&mut self, file: OwnedFd) {
        let now = clock::now();
        self.flush(now);
        if !self.buffer.is_empty() {
            self.lose(&NOBODY_READS, now);
        }
        self.outlet = Outlet::new(file);
        (self.line_max, self.retry) = (line_max(&self.outlet), None);
    }

    /// Writes the buffer, as far as somebody reads it; to a file with one write(2), if that accepts it.
    pub(super) fn flush(&mut self, now: Time) {
        let (written, error) = self.outlet.write(self.buffer.as_slice());
        self.buffer.drop_first(written, self.filled);
        self.taken();
        self.retry = None;
        match error {
            None => self.tell_of_more(now),
            Some(error) if error.kind() == ErrorKind::WouldBlock => self.retry = Some(now + RETRY_INTERVAL),
            Some(error) => self.lose(&error, now),
        }
    }

    /// The contents of the buffer will never be written.
    fn lose(&mut self, why: &dyn Display, now: Time) {
        let lines = memchr::memchr_iter(b'\n', self.buffer.as_slice()).count() as u64;
        self.buffer.drop_first(self.buffer.len(), self.filled);
        self.taken();
        self.outlet.give_up();
        self.lost += lines;
        count_lost(lines);
        if self.warned.is_none_or(|warned| now.since(warned) >= WARN_INTERVAL) {
            warn!("{} lost {} lines of the access log: {why}", self.tag, self.lost);
            (self.warned, self.lost) = (Some(now), 0);
        }
    }

    /// Writing works again.
    fn tell_of_more(&mut self, now: Time) {
        if self.lost > 0 && self.warned.is_none_or(|warned| now.since(warned) >= REPORT_INTERVAL) {
            warn!("{} lost {} more lines of the access log; writing works again", self.tag, self.lost);
            (self.warned, self.lost) = (Some(now), 0);
        }
    }
}

impl Drop for Sink {
    /// However the worker's code ends. If the kernel kills the process, the unwritten lines are lost here.
    fn drop(&mut self) {
        let now = clock::now();
        self.flush(now);
        let mut left = usize::MAX;
        while (1..left).contains(&self.buffer.len()) && self.outlet.wait(FLUSH_PAUSE_MAX.into()) {
            left = self.buffer.len();
            self.flush(now);
        }
        if !self.buffer.is_empty() {
            self.lose(&NOBODY_READS, now);
        }
        if self.lost > 0 {
            warn!("{} lost {} more lines of the access log", self.tag, self.lost);
        }
    }
}

const NOBODY_READS: &str = "nobody reads it";

/// How much to collect and write at once: if it is not a file, only as much as the kernel does not mix with the output
/// of others.
fn line_max(outlet: &Outlet) -> usize {
    const { assert!(ATOMIC >= Formatter::ROOM_MIN) };
    if outlet.is_file() {
        BUFFER
    } else {
        ATOMIC
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;

    use super::*;

    /// A client that pipelines requests with long values fills all of the space in one step.
    #[test]
    fn nothing_is_lost_when_lines_that_wait_for_their_responses_leave_no_space() {
        let path = std::env::temp_dir().join(format!("forkpool-space-{}", std::process::id()));
        let file = fs::File::options().read(true).write(true).create_new(true).open(&path).expect("a new file");
        fs::remove_file(&path).expect("it is there");
        let written = file.try_clone().expect("a descriptor");
        let mut sink = Sink::new(file.into(), None, "worker 0".to_owned());
        sink.room_for(1, 0).append(b"a\n");
        sink.added();
        let long = [&vec![b'b'; BUFFER - SPACE_MIN / 2][..], b"\n"].concat();
        sink.space().append(&long).expect("enough space");
        sink.has_filled(long.len());
        let left = sink.space().left();
        assert!((left, sink.warned, sink.lost) == (SPACE_MIN / 2 - 1, None, 0), "{left} {:?}", sink.warned);
        sink.confirm(0);
        drop(sink);
        let mut all = vec![0; BUFFER + 2];
        let len = written.read_at(&mut all, 0).expect("a file");
        assert!(all[..len] == [b"a\n", &long[..]].concat());
    }
}
