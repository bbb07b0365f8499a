//! The access log of a worker: a line for each answer, once it is complete or will never be.
//!
//! A connection's bytes are counted, and each answer's body lies between two of these counts: so a line says how much of
//! it the client's socket has taken, also when many answers are sent at once, or when the connection ends in between.

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

/// A request whose client has gone before there was an answer: nginx's word for it.
const CLIENT_GONE: u16 = 499;

/// How often the clocks are compared, since the system's time may be set.
const COMPARED: Duration = Duration::from_secs(1);

/// Lines, and bytes of each, that are kept to be used again.
const SPARE_LINES: usize = 64;
const SPARE_BYTES: usize = 2048;

/// A worker's access log.
#[derive(Debug)]
pub(crate) struct AccessLog {
    formatter: Formatter,
    sink: Sink,
    spare: Vec<Line>,
    /// Milliseconds from the beginning of 1970 to that of the monotonic clock, and when that was found.
    epoch: u64,
    compared: Option<Time>,
}

/// What one connection has to say to the log.
#[derive(Debug)]
pub(crate) struct Track {
    /// None on a Unix socket.
    pub(crate) peer: Option<SocketAddr>,
    /// For whom the connection was made.
    known: Option<IpAddr>,
    /// Who has made the latest request, and how that is written.
    client: Option<IpAddr>,
    remote: String,
    /// Bytes that the client's socket has taken.
    sent: u64,
    /// The request that was given out and is not answered whole.
    current: Option<Entry>,
    /// Those whose answers wait to be sent.
    answered: VecDeque<Entry>,
}

/// A request.
#[derive(Debug)]
struct Entry {
    line: Line,
    /// In microseconds.
    began: u64,
    status: u16,
    /// Where in all that is sent its answer's body begins, and where it ends.
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

    /// Takes note of a request that is given out, in a turn that began at so many microseconds.
    pub(crate) fn begin(&mut self, track: &mut Track, request: &Request<'_>, turn: u64) {
        let origin = request.origin();
        track.name(origin.address);
        let mut line = self.spare.pop().unwrap_or_default();
        self.formatter.begin(&mut line, track.who(), request, &origin);
        track.current = Some(Entry { line, began: turn, status: CLIENT_GONE, body: u64::MAX, end: u64::MAX });
    }

    /// Takes note of a request that will be refused, unless it was given out before.
    pub(crate) fn begin_refused(&mut self, track: &mut Track, head: &[u8], turn: u64) {
        if track.current.is_none() {
            // What it says of its client is not believed.
            track.name(track.known);
            let mut line = self.spare.pop().unwrap_or_default();
            self.formatter.begin_refused(&mut line, track.who(), head);
            track.current = Some(Entry { line, began: turn, status: CLIENT_GONE, body: u64::MAX, end: u64::MAX });
        }
    }

    /// The answer to the request that was given out last is complete, and `unsent` bytes up to its end are to be sent.
    pub(crate) fn answered(&mut self, track: &mut Track, unsent: usize) {
        let Some(mut entry) = track.current.take() else { return };
        entry.end = track.sent + unsent as u64;
        track.answered.push_back(entry);
        self.write_sent(track);
    }

    /// The client's socket has taken so many bytes.
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

    /// The connection is over: what has not been sent never will be.
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

    /// When there is something to be written to the file, if nothing more comes before.
    pub(crate) fn due(&self) -> Option<Time> {
        self.sink.due()
    }

    /// Writes what has waited long enough.
    pub(crate) fn expire(&mut self, now: Time) {
        if self.due().is_some_and(|due| due <= now) {
            self.sink.flush(now);
        }
    }

    /// Goes on in another file; what there was before goes to the old one.
    pub(crate) fn reopen(&mut self, file: File) {
        self.sink.reopen(file.into());
        self.formatter.set_room(self.sink.room());
    }
}

impl Track {
    /// Of a connection that was made for `source`, if that is known.
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

    /// The head of an answer is in the output, and its body begins behind `unsent` bytes.
    #[inline]
    pub(crate) fn head(&mut self, status: u16, unsent: usize) {
        if let Some(entry) = &mut self.current {
            entry.status = status;
            entry.body = self.sent + unsent as u64;
        }
    }
}
