//! The access log of a worker: a line for each response, once it is complete or will never be.
//!
//! The bytes of a connection are counted, and the body of each response lies between two of these counts. So a line
//! says how many of its bytes the client's socket has accepted, even if several responses are sent at once, or the
//! connection ends in between.
//!
//! Most responses are sent in the step of their request. In the formats `common` and `combined`, and those like them,
//! the line of such a response is made in one go and waits for the end of the step (`whole.rs`). All other lines are
//! drafts of their connection, and are finished later.

mod buffer;
mod escape;
mod file;
mod format;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod plan;
mod whole;

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
use self::whole::{Marks, ResponseText};

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
    /// The lines of the connection that takes a step, whose responses will be sent at once. They are whole, and in the
    /// sink's space.
    whole: Vec<WholeLine>,
    latest: ResponseText,
    /// The milliseconds from 1970 to the beginning of the monotonic clock, as last determined.
    epoch: u64,
    /// When to determine it again, in microseconds of that clock.
    compare_at: u64,
    /// When the second ends that the formatter has formatted, or the clocks are to be compared, if that is earlier.
    second_ends: u64,
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
    /// What its lines begin with; the same with the time of a second, in milliseconds since 1970.
    prefix: Vec<u8>,
    dated: Vec<u8>,
    dated_at: u64,
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

/// A line that is whole.
#[derive(Clone, Copy, Debug)]
struct WholeLine {
    entry: Entry,
    marks: Marks,
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
        let (spare, whole, latest) = (Vec::new(), Vec::new(), ResponseText::default());
        AccessLog { formatter, sink, spare, whole, latest, epoch: 0, compare_at: 0, second_ends: 0 }
    }

    /// Registers a request whose response has this status and a body of this length, all of which will be sent in this
    /// step, in a turn that began at this time in microseconds.
    pub(crate) fn begin_whole(
        &mut self,
        connection: &mut LoggedConnection,
        request: &Request<'_>,
        turn: u64,
        (status, length): (u16, u64),
    ) {
        let is_client_known = request.via.is_none() && connection.client.is_some();
        let has_body = !matches!(status, 204 | 205 | 304) && request.method() != "HEAD";
        if !is_client_known || !has_body || !self.formatter.is_known_early() || connection.draft.is_some() {
            return self.begin(connection, request, turn);
        }
        if connection.dated_at != self.formatter.second {
            connection.dated = self.formatter.dated(&connection.prefix);
            connection.dated_at = self.formatter.second;
        }
        let client = client_text(&connection.remote, &connection.dated, connection.peer);
        let outcome = (status, length);
        let space = self.sink.space();
        let Some(marks) = self.formatter.make_whole(space, &client, request, outcome, &mut self.latest) else {
            // The way of drafts makes space for the next line.
            return self.begin(connection, request, turn);
        };
        self.sink.has_filled(marks[3]);
        // Where the body begins is known once its end is.
        self.whole.push(WholeLine { entry: Entry { began: turn, status, body: length, end: OPEN }, marks });
    }

    /// Registers a request that was passed to the handler, in a turn that began at this time in microseconds.
    pub(crate) fn begin(&mut self, connection: &mut LoggedConnection, request: &Request<'_>, turn: u64) {
        self.keep_whole(connection);
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
            self.keep_whole(connection);
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
            connection.dated_at = u64::MAX;
        }
    }

    /// The response to the current request is complete, and its last `unsent` bytes still have to be sent.
    #[inline]
    pub(crate) fn answered(&mut self, connection: &mut LoggedConnection, unsent: usize) {
        let end = connection.sent + unsent as u64;
        if let Some(WholeLine { entry, .. }) = self.whole.last_mut().filter(|line| line.entry.end == OPEN) {
            debug_assert!(unsent as u64 > entry.body, "the output ends with a head and this body");
            (entry.body, entry.end) = (end - entry.body, end);
            return;
        }
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
        match self.whole.last() {
            None => self.write_sent(connection),
            Some(last) if last.entry.end <= connection.sent => self.write_whole(),
            Some(_) => {
                self.keep_whole(connection);
                self.write_sent(connection);
            }
        }
    }

    /// Writes the whole lines, since all of their responses are sent.
    fn write_whole(&mut self) {
        let micros = clock::now_micros();
        if micros >= self.second_ends {
            self.begin_second(micros);
        }
        self.sink.confirm(micros);
        self.whole.clear();
    }

    /// Sets the time of the whole lines, and how long that is the time of further ones.
    #[cold]
    #[inline(never)]
    fn begin_second(&mut self, micros: u64) {
        if micros >= self.compare_at {
            self.compare_clocks(micros);
        }
        let marks = self.whole.iter().map(|line| line.marks);
        self.formatter.set_time(self.sink.buffer(), marks, self.epoch + micros / 1000);
        let end = (self.formatter.second + 1000).saturating_sub(self.epoch) * 1000;
        self.second_ends = end.min(self.compare_at);
    }

    /// Keeps the whole lines with their connection, since it is not certain that all of their responses will be sent.
    #[inline]
    fn keep_whole(&mut self, connection: &mut LoggedConnection) {
        if !self.whole.is_empty() {
            self.reopen_whole(connection);
        }
    }

    #[cold]
    #[inline(never)]
    fn reopen_whole(&mut self, connection: &mut LoggedConnection) {
        debug_assert!(connection.draft.is_none(), "lines are whole only if none are kept");
        let draft = draft(&mut connection.draft, &mut self.spare);
        let whole = self.whole.iter().map(|WholeLine { entry, marks }| (*marks, entry.end - entry.body));
        draft.lines = self.formatter.reopen(self.sink.withdraw(), whole);
        draft.entries.extend(self.whole.drain(..).map(|line| line.entry));
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
        self.keep_whole(connection);
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
        let first = draft.written * self.formatter.marks();
        draft.written += 1;
        let buffer = self.sink.room_for(self.formatter.bound(&draft.lines, first), micros);
        self.formatter.finish(&mut draft.lines, first, self.epoch + micros / 1000, outcome, buffer);
        self.sink.added();
    }

    /// Keeps a draft whose lines are written for the next request.
    fn put_back(&mut self, draft: &mut Option<Box<Draft>>) {
        let Some(mut draft) = draft.take() else { return };
        if self.spare.len() < SPARE_DRAFTS && draft.lines.capacity() <= SPARE_BYTES {
            draft.clear();
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

impl Draft {
    /// The current request, whose response is not complete.
    #[inline]
    fn current(&mut self) -> Option<&mut Entry> {
        self.entries.last_mut().filter(|entry| entry.end == OPEN)
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.lines.clear();
        self.written = 0;
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
        let (client, remote, prefix, dated, dated_at) = (None, String::new(), Vec::new(), Vec::new(), u64::MAX);
        Box::new(LoggedConnection { peer, known, client, remote, prefix, dated, dated_at, sent: 0, draft: None })
    }

    /// The current request, whose response is not complete.
    #[inline]
    fn current(&mut self) -> Option<&mut Entry> {
        self.draft.as_mut()?.current()
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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::server::http::{Codec, Limits, Next, Scratch};

    const LIMITS: Limits = Limits { target: 100, head: 1000, fields: 10, body: 0, requests: 0, utf8_query: true };
    const BODY: u64 = 10;
    const WHOLE: usize = 100;

    /// Logs a request whose response of a hundred bytes, ten of them its body, is sent in its step or a later one.
    fn answer(
        log: &mut AccessLog,
        connection: &mut LoggedConnection,
        path: &str,
        is_at_once: bool,
        unsent: &mut usize,
    ) {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let (mut codec, mut scratch) = (Codec::new(), Scratch::new());
        let Next::Request(request) = codec.next(head.as_bytes(), &mut scratch, &LIMITS, &mut |_| false).1 else {
            panic!("{head} is a request");
        };
        request.peer = connection.peer;
        match is_at_once {
            true => log.begin_whole(connection, request, 0, (200, BODY)),
            false => log.begin(connection, request, 0),
        }
        connection.head(200, *unsent + WHOLE - BODY as usize);
        *unsent += WHOLE;
        log.answered(connection, *unsent);
    }

    #[test]
    fn lines_say_what_was_sent_in_their_order_however_they_were_made() {
        let (socket, mut reader) = UnixStream::pair().expect("a socket pair");
        let mut log = AccessLog::new(socket.into(), None, AccessLogFormat::Common, 0, 1, "worker 0".to_owned());
        let mut connection = LoggedConnection::new(Some(([192, 0, 2, 7], 80).into()), None);
        for (requests, missing) in [
            (&[("/first", true)][..], 0),
            (&[("/a", true)], 0),
            (&[("/b", true), ("/c", true)], 0),
            (&[("/d", true), ("/later", false), ("/e", true)], 0),
            (&[("/f", true), ("/g", true), ("/h", true)], 6),
        ] {
            let mut unsent = 0;
            for (path, is_at_once) in requests {
                answer(&mut log, &mut connection, path, *is_at_once, &mut unsent);
            }
            log.sent(&mut connection, unsent as u64 - missing);
        }
        log.end(&mut connection);
        drop(log);
        let mut written = String::new();
        reader.read_to_string(&mut written).expect("the log's lines");
        let ends: Vec<_> = written.lines().filter_map(|line| line.split_once(" +0000] \"GET ")).collect();
        let full = ["/first", "/a", "/b", "/c", "/d", "/later", "/e", "/f", "/g"];
        let mut expected = full.map(|path| format!("{path} HTTP/1.1\" 200 10")).to_vec();
        expected.push("/h HTTP/1.1\" 200 4".to_owned());
        assert_eq!(ends.iter().map(|(_, end)| *end).collect::<Vec<_>>(), expected);
        assert!(
            ends.iter().all(|(begin, _)| begin.starts_with("192.0.2.7 - - [") && !begin.contains("1970")),
            "{written}"
        );
    }

    #[test]
    fn lines_that_fill_the_buffer_while_they_are_made_are_all_written_in_order() {
        for at_once in [1, 7] {
            let (socket, mut reader) = UnixStream::pair().expect("a socket pair");
            let mut log = AccessLog::new(socket.into(), None, AccessLogFormat::Combined, 0, 1, "worker 0".to_owned());
            let mut connection = LoggedConnection::new(Some(([192, 0, 2, 7], 80).into()), None);
            let paths: Vec<String> = (0..300).map(|number| format!("/{number}")).collect();
            for paths in paths.chunks(at_once) {
                let mut unsent = 0;
                for path in paths {
                    answer(&mut log, &mut connection, path, true, &mut unsent);
                }
                log.sent(&mut connection, unsent as u64);
            }
            drop(log);
            let mut written = String::new();
            reader.read_to_string(&mut written).expect("the log's lines");
            let found: Vec<_> = written.lines().filter_map(|line| line.split(' ').nth(6)).collect();
            assert_eq!(found, paths);
            assert!(written.lines().all(|line| line.ends_with(" HTTP/1.1\" 200 10 \"-\" \"-\"")), "{written}");
        }
    }
}
