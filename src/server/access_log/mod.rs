//! The access log of a worker: a line for each response, once it is complete or will never be.
//!
//! The bytes of a connection are counted, and the body of each response lies between two of these counts. So a line
//! says how many of its bytes the client's socket has accepted, even if several responses are sent at once, or the
//! connection ends in between.

mod buffer;
mod escape;
mod file;
mod format;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod plan;

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use crate::server::http::{Origin, Request};
use crate::shared::config::AccessLogFormat;
use crate::shared::scoreboard::LinesPage;
use crate::sys::clock;
use crate::time::Time;

use self::file::Sink;
use self::format::{remote, ClientText, DraftLines, Formatter, Outcome};

/// The status for a client that disconnected before there was a response, as in nginx.
const CLIENT_GONE: u16 = 499;

/// How often to compare the clocks, in microseconds, since the system's time may be set.
const COMPARED: u64 = 1_000_000;

/// The number of drafts that are kept for reuse, and the maximum size of each.
const SPARE_DRAFTS: usize = 64;
const SPARE_BYTES: usize = 8192;

/// A worker's access log.
#[derive(Debug)]
pub(crate) struct AccessLog {
    formatter: Formatter,
    sink: Sink,
    spare: Drafts,
    /// The milliseconds from 1970 to the beginning of the monotonic clock, as last determined.
    epoch: u64,
    /// When to determine it again, in microseconds of that clock.
    compare_at: u64,
}

/// What the log knows about a connection.
#[derive(Debug)]
pub(crate) struct LoggedConnection {
    /// `None` on a Unix socket.
    pub(crate) peer: Option<SocketAddr>,
    /// The client, from the header of the PROXY protocol.
    known: Option<IpAddr>,
    /// The client of the latest request, if there was one, and its formatted address.
    client: Option<Option<IpAddr>>,
    remote: String,
    /// What its lines begin with.
    prefix: Vec<u8>,
    /// The bytes that the client's socket has accepted.
    sent: u64,
    /// The lines that are not written yet, if there are any.
    draft: Option<Box<Draft>>,
}

/// Lines of a connection that are not written yet.
#[derive(Debug, Default)]
struct Draft {
    /// Nearly always one. The last one may be the current request, whose response is not complete.
    entries: Vec<Entry>,
    /// How many of them are written.
    written: usize,
    lines: DraftLines,
}

/// Boxed, since they move to connections and back.
#[allow(clippy::vec_box)]
type Drafts = Vec<Box<Draft>>;

/// A request.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// In microseconds.
    began: u64,
    status: u16,
    /// The range of the response's body within everything that is sent. The end is [`OPEN`] until it is known.
    body: u64,
    end: u64,
}

const OPEN: u64 = u64::MAX;

impl AccessLog {
    pub(crate) fn new(
        file: OwnedFd,
        shared_copy: Option<LinesPage>,
        format: AccessLogFormat,
        worker: usize,
        process: u32,
        tag: String,
    ) -> AccessLog {
        let sink = Sink::new(file, shared_copy, tag);
        let formatter = Formatter::new(&format, sink.line_max(), worker, process);
        AccessLog { formatter, sink, spare: Vec::new(), epoch: 0, compare_at: 0 }
    }

    /// Registers a request that is passed to the handler, in a turn that began at this time in microseconds.
    pub(crate) fn begin(&mut self, connection: &mut LoggedConnection, request: &Request<'_>, turn: u64) {
        let origin = match request.via {
            // Without a proxy, the client stays the same.
            None if connection.client.is_some() => Origin::default(),
            _ => {
                let origin = request.origin();
                self.name(connection, origin.address);
                origin
            }
        };
        let draft = draft(&mut connection.draft, &mut self.spare);
        self.formatter.begin(
            &mut draft.lines,
            client_text(&connection.remote, &connection.prefix, connection.peer),
            request,
            &origin,
        );
        draft.entries.push(Entry { began: turn, status: CLIENT_GONE, body: OPEN, end: OPEN });
    }

    /// Registers a request that will be refused, unless it is already registered.
    pub(crate) fn begin_refused(&mut self, connection: &mut LoggedConnection, head: &[u8], turn: u64) {
        if connection.current().is_none() {
            // Its fields about the client are not believed.
            self.name(connection, connection.known);
            let draft = draft(&mut connection.draft, &mut self.spare);
            self.formatter.begin_refused(
                &mut draft.lines,
                client_text(&connection.remote, &connection.prefix, connection.peer),
                head,
            );
            draft.entries.push(Entry { began: turn, status: CLIENT_GONE, body: OPEN, end: OPEN });
        }
    }

    /// The next lines of this connection are about this client.
    #[inline]
    fn name(&self, connection: &mut LoggedConnection, client: Option<IpAddr>) {
        if connection.client != Some(client) {
            connection.client = Some(client);
            connection.remote = remote(client);
            connection.prefix = self.formatter.prefix(&connection.remote, connection.peer);
        }
    }

    /// The response to the current request is complete, and its last `unsent` bytes still have to be sent.
    #[inline]
    pub(crate) fn answered(&mut self, connection: &mut LoggedConnection, unsent: usize) {
        let end = connection.sent + unsent as u64;
        let Some(entry) = connection.current() else { return };
        entry.end = end;
        if unsent == 0 {
            self.write_sent(connection);
        }
    }

    /// The client's socket has accepted this many bytes.
    #[inline]
    pub(crate) fn sent(&mut self, connection: &mut LoggedConnection, bytes: u64) {
        connection.sent += bytes;
        self.write_sent(connection);
    }

    /// Writes the lines of responses that the client's socket has accepted.
    fn write_sent(&mut self, connection: &mut LoggedConnection) {
        let Some(draft) = &mut connection.draft else { return };
        let is_sent = |entry: &Entry| entry.end <= connection.sent;
        if draft.entries.get(draft.written).is_some_and(is_sent) {
            // One reading of the clock for all that were sent at once. Not one for the turn, since a handler may have
            // taken long since its beginning.
            let now = clock::now_micros();
            while let Some(entry) = draft.entries.get(draft.written).copied().filter(is_sent) {
                self.write(draft, entry, connection.sent, now);
            }
        }
        if draft.written == draft.entries.len() {
            self.put_back(&mut connection.draft);
        }
    }

    /// The connection has ended; what was not sent never will be.
    pub(crate) fn end(&mut self, connection: &mut LoggedConnection) {
        let Some(draft) = &mut connection.draft else { return };
        let now = clock::now_micros();
        while let Some(entry) = draft.entries.get(draft.written).copied() {
            self.write(draft, entry, connection.sent, now);
        }
        self.put_back(&mut connection.draft);
    }

    /// Writes the next line of a draft.
    fn write(&mut self, draft: &mut Draft, entry: Entry, sent: u64, micros: u64) {
        let bytes = sent.min(entry.end).saturating_sub(entry.body);
        let outcome = Outcome { status: entry.status, bytes, micros: micros.saturating_sub(entry.began) };
        if micros >= self.compare_at {
            self.compare_clocks(micros);
        }
        let now = Time::from_millis(micros / 1000);
        let first = draft.written * self.formatter.marks();
        draft.written += 1;
        let buffer = self.sink.room_for(self.formatter.bound(&draft.lines, first), now);
        self.formatter.finish(&mut draft.lines, first, self.epoch + now.as_millis(), outcome, buffer);
        self.sink.added();
    }

    /// Keeps a draft whose lines are written for the next request.
    fn put_back(&mut self, draft: &mut Option<Box<Draft>>) {
        let Some(mut draft) = draft.take() else { return };
        if self.spare.len() < SPARE_DRAFTS && draft.lines.capacity() <= SPARE_BYTES {
            draft.entries.clear();
            draft.lines.clear();
            draft.written = 0;
            self.spare.push(draft);
        }
    }

    #[cold]
    fn compare_clocks(&mut self, micros: u64) {
        self.epoch = clock::unix_millis().saturating_sub(micros / 1000);
        self.compare_at = micros + COMPARED;
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
        self.formatter.set_room(self.sink.line_max());
    }
}

/// The draft of a connection; a spare one if it has none.
#[inline]
fn draft<'d>(draft: &'d mut Option<Box<Draft>>, spare: &mut Drafts) -> &'d mut Draft {
    draft.get_or_insert_with(|| spare.pop().unwrap_or_default())
}

#[inline]
fn client_text<'a>(address: &'a str, prefix: &'a [u8], peer: Option<SocketAddr>) -> ClientText<'a> {
    ClientText { address, peer, prefix }
}

impl LoggedConnection {
    /// For a connection made on behalf of `source`, if that is known.
    pub(crate) fn new(peer: Option<SocketAddr>, source: Option<SocketAddr>) -> Box<LoggedConnection> {
        let known = source.or(peer).map(|known| known.ip().to_canonical());
        let (remote, prefix) = (String::new(), Vec::new());
        Box::new(LoggedConnection { peer, known, client: None, remote, prefix, sent: 0, draft: None })
    }

    /// The current request, whose response is not complete.
    #[inline]
    fn current(&mut self) -> Option<&mut Entry> {
        self.draft.as_mut()?.entries.last_mut().filter(|entry| entry.end == OPEN)
    }

    /// The head of a response is in the output, and its body begins after `unsent` bytes.
    #[inline]
    pub(crate) fn head(&mut self, status: u16, unsent: usize) {
        let body = self.sent + unsent as u64;
        if let Some(entry) = self.current() {
            (entry.status, entry.body) = (status, body);
        }
    }
}
