//! The access log of a worker: a line for each response, once it is complete or will never be.
//!
//! The bytes of a connection are counted, and the body of each response lies between two of these counts. So a line
//! says how many of its bytes the client's socket has accepted, even if several responses are sent at once, or the
//! connection ends in between.

mod file;
mod format;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;

use std::collections::VecDeque;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::server::http::Request;
use crate::shared::config::AccessLogFormat;
use crate::shared::scoreboard::LinesPage;
use crate::sys::clock;
use crate::time::Time;

use self::file::Sink;
use self::format::{remote, Formatter, Line, Outcome, Who};

/// The status for a client that disconnected before there was a response, as in nginx.
const CLIENT_GONE: u16 = 499;

/// How often to compare the clocks, since the system's time may be set.
const COMPARED: Duration = Duration::from_secs(1);

/// The number of lines that are kept for reuse, and the maximum length of each.
const SPARE_LINES: usize = 64;
const SPARE_BYTES: usize = 2048;

/// A worker's access log.
#[derive(Debug)]
pub(crate) struct AccessLog {
    formatter: Formatter,
    sink: Sink,
    spare: Vec<Line>,
    /// The milliseconds from 1970 to the beginning of the monotonic clock, and when that was determined.
    epoch: u64,
    compared: Option<Time>,
}

/// What the log knows about a connection.
#[derive(Debug)]
pub(crate) struct Track {
    /// `None` on a Unix socket.
    pub(crate) peer: Option<SocketAddr>,
    /// The client, from the header of the PROXY protocol.
    known: Option<IpAddr>,
    /// The client of the latest request, and its formatted address.
    client: Option<IpAddr>,
    remote: String,
    /// The bytes that the client's socket has accepted.
    sent: u64,
    /// The current request, whose response is not complete yet.
    current: Option<Entry>,
    /// Requests whose complete responses wait to be sent.
    answered: VecDeque<Entry>,
}

/// A request.
#[derive(Debug)]
struct Entry {
    line: Line,
    /// In microseconds.
    began: u64,
    status: u16,
    /// The range of the response's body within everything that is sent.
    body: u64,
    end: u64,
}

impl AccessLog {
    pub(crate) fn new(
        file: OwnedFd,
        lasting: Option<LinesPage>,
        format: AccessLogFormat,
        worker: usize,
        process: u32,
        tag: String,
    ) -> AccessLog {
        let sink = Sink::new(file, lasting, tag);
        let formatter = Formatter::new(&format, sink.room(), worker, process);
        AccessLog { formatter, sink, spare: Vec::new(), epoch: 0, compared: None }
    }

    /// Registers a request that is passed to the handler, in a turn that began at this time in microseconds.
    pub(crate) fn begin(&mut self, track: &mut Track, request: &Request<'_>, turn: u64) {
        let origin = request.origin();
        track.name(origin.address);
        let mut line = self.spare.pop().unwrap_or_default();
        self.formatter.begin(&mut line, track.who(), request, &origin);
        track.current = Some(Entry { line, began: turn, status: CLIENT_GONE, body: u64::MAX, end: u64::MAX });
    }

    /// Registers a request that will be refused, unless it is already registered.
    pub(crate) fn begin_refused(&mut self, track: &mut Track, head: &[u8], turn: u64) {
        if track.current.is_none() {
            // Its fields about the client are not believed.
            track.name(track.known);
            let mut line = self.spare.pop().unwrap_or_default();
            self.formatter.begin_refused(&mut line, track.who(), head);
            track.current = Some(Entry { line, began: turn, status: CLIENT_GONE, body: u64::MAX, end: u64::MAX });
        }
    }

    /// The response to the current request is complete, and its last `unsent` bytes still have to be sent.
    pub(crate) fn answered(&mut self, track: &mut Track, unsent: usize) {
        let Some(mut entry) = track.current.take() else { return };
        entry.end = track.sent + unsent as u64;
        track.answered.push_back(entry);
        self.write_sent(track);
    }

    /// The client's socket has accepted this many bytes.
    pub(crate) fn sent(&mut self, track: &mut Track, bytes: u64) {
        track.sent += bytes;
        self.write_sent(track);
    }

    fn write_sent(&mut self, track: &mut Track) {
        if track.answered.front().is_some_and(|entry| entry.end <= track.sent) {
            let now = clock::now_micros();
            while track.answered.front().is_some_and(|entry| entry.end <= track.sent) {
                let Some(entry) = track.answered.pop_front() else { break };
                self.write(entry, track.sent, now);
            }
        }
    }

    /// The connection has ended; what was not sent never will be.
    pub(crate) fn end(&mut self, track: &mut Track) {
        let now = clock::now_micros();
        for entry in track.answered.drain(..).chain(track.current.take()) {
            self.write(entry, track.sent, now);
        }
    }

    fn write(&mut self, entry: Entry, sent: u64, micros: u64) {
        let now = Time::from_millis(micros / 1000);
        let bytes = sent.min(entry.end).saturating_sub(entry.body);
        let outcome = Outcome {
            status: entry.status,
            bytes,
            duration: Duration::from_micros(micros.saturating_sub(entry.began)),
        };
        let millis = self.unix_millis(now);
        let buffer = self.sink.room_for(self.formatter.bound(&entry.line), now);
        self.formatter.finish(&entry.line, millis, outcome, buffer);
        self.sink.added();
        if self.spare.len() < SPARE_LINES && entry.line.capacity() <= SPARE_BYTES {
            self.spare.push(entry.line);
        }
    }

    fn unix_millis(&mut self, now: Time) -> u64 {
        if self.compared.is_none_or(|compared| now.since(compared) >= COMPARED) {
            self.epoch = clock::unix_millis().saturating_sub(now.as_millis());
            self.compared = Some(now);
        }
        self.epoch + now.as_millis()
    }

    /// When lines must be written to the file, if no more come before.
    pub(crate) fn due(&self) -> Option<Time> {
        self.sink.due()
    }

    /// Writes lines that have waited long enough.
    pub(crate) fn expire(&mut self, now: Time) {
        if self.due().is_some_and(|due| due <= now) {
            self.sink.flush(now);
        }
    }

    /// Continues in another file; earlier lines go to the old one.
    pub(crate) fn reopen(&mut self, file: File) {
        self.sink.reopen(file.into());
        self.formatter.set_room(self.sink.room());
    }
}

impl Track {
    /// For a connection made on behalf of `source`, if that is known.
    pub(crate) fn new(peer: Option<SocketAddr>, source: Option<SocketAddr>) -> Box<Track> {
        let known = source.or(peer).map(|known| known.ip().to_canonical());
        let (client, remote) = (known, remote(known));
        Box::new(Track { peer, known, client, remote, sent: 0, current: None, answered: VecDeque::new() })
    }

    #[inline]
    fn name(&mut self, client: Option<IpAddr>) {
        if self.client != client {
            (self.client, self.remote) = (client, remote(client));
        }
    }

    fn who(&self) -> Who<'_> {
        Who { client: &self.remote, peer: self.peer.map(|peer| peer.ip()) }
    }

    /// The head of a response is in the output, and its body begins after `unsent` bytes.
    #[inline]
    pub(crate) fn head(&mut self, status: u16, unsent: usize) {
        if let Some(entry) = &mut self.current {
            entry.status = status;
            entry.body = self.sent + unsent as u64;
        }
    }
}
