//! Bodies that are written while they are sent.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::server::answer::notice::Notices;
use crate::server::http::{add_trailer, InvalidHeader};
use crate::server::mailbox::{self, Bell};

/// Bytes that may wait for the client. A writer that is faster than its client waits, or is told to.
const CAPACITY: usize = 64 * 1024;

/// Writes the body of a response made by [`Response::stream`](crate::Response::stream).
///
/// It can be sent to any thread. What is written is sent as soon as the client takes it; when 64 KiB wait for the
/// client, [`write`](Write::write) waits too. On the worker's own thread it would wait for itself, and fails with
/// [`ErrorKind::Deadlock`] instead: write there by [`try_write`](BodyWriter::try_write), or move the writer to
/// a thread. Once the connection is over, all fail with [`ErrorKind::BrokenPipe`]; who does not write learns by
/// [`on_gone`](BodyWriter::on_gone) that the client has left.
///
/// Dropping it ends the body. Dropped by a panic, or by [`abort`](BodyWriter::abort), it breaks the connection
/// instead, so that the client does not take half a body for a whole one.
#[derive(Debug)]
pub struct BodyWriter {
    shared: Arc<Shared>,
}

impl BodyWriter {
    /// Writes as much as there is room for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldBlock`] when there is none, [`ErrorKind::BrokenPipe`] when the client has gone.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let state = self.shared.lock();
        if state.reader_is_gone {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if state.buffer.len() >= CAPACITY && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(append(state, bytes))
    }

    /// Writes all of it if there is room for that, and else nothing: for events, of which no half is to be sent. What is
    /// longer than 64 KiB has room when nothing else waits.
    ///
    /// # Errors
    ///
    /// As [`try_write`](BodyWriter::try_write).
    pub fn try_write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.shared.lock();
        if state.reader_is_gone {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if !state.buffer.is_empty() && bytes.len() > CAPACITY.saturating_sub(state.buffer.len()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        state.buffer.extend_from_slice(bytes);
        ring(state);
        Ok(())
    }

    /// Adds a field to the trailer section, which is sent behind the body: a checksum, or how long it took to make
    /// (RFC 9110 section 6.5).
    ///
    /// Only clients that say `TE: trailers` get it, in HTTP/1.1; most proxies drop it. So nothing may depend on it. Announce
    /// its name by [`Response::stream_with_trailers`](crate::Response::stream_with_trailers).
    ///
    /// # Errors
    ///
    /// As with [`Response::try_header`](crate::Response::try_header), and when the field has to come before the content:
    /// Content-Type, Set-Cookie, Cache-Control and the like.
    pub fn add_trailer(&mut self, name: &str, value: &str) -> Result<(), InvalidHeader> {
        add_trailer(&mut self.shared.lock().trailers, name, value)
    }

    /// Whether the client has closed the connection.
    ///
    /// A client that only shuts down its sending side, to mark the end of its requests, looks the same at first. So what
    /// is written goes on to be sent: to a client that has left, only once or twice. A stream to which nothing is
    /// written for five seconds is closed then. Where clients of that kind have to wait for longer, see
    /// [`half_close`](crate::Builder::half_close).
    pub fn is_gone(&self) -> bool {
        self.shared.notices.gone.has_come()
    }

    /// Runs `hook` as soon as [`is_gone`](BodyWriter::is_gone) is true, so that nobody has to ask: once, and never after
    /// the end of the body. It runs in the worker, on its only thread, or at once if it is true already; send a
    /// message from it, or set a flag.
    pub fn on_gone(&self, hook: impl FnOnce() + Send + 'static) {
        self.shared.notices.gone.when(hook);
    }

    /// Whether the worker drains and waits for the end of this body: one that has no end of its own had better
    /// end now. Streams are told one after the other, over five seconds at most, so that their clients do not all
    /// come back at once.
    pub fn is_draining(&self) -> bool {
        self.shared.notices.drain.has_come()
    }

    /// Runs `hook` as soon as [`is_draining`](BodyWriter::is_draining) is true, in the same way as
    /// [`on_gone`](BodyWriter::on_gone).
    pub fn on_drain(&self, hook: impl FnOnce() + Send + 'static) {
        self.shared.notices.drain.when(hook);
    }

    /// Breaks the connection without ending the body.
    pub fn abort(self) {
        self.end(Ending::Aborted);
    }

    fn end(&self, ending: Ending) {
        let mut state = self.shared.lock();
        state.ending.get_or_insert(ending);
        ring(state);
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.shared.lock();
        while state.buffer.len() >= CAPACITY && !state.reader_is_gone && !bytes.is_empty() {
            if mailbox::is_in_loop() {
                let cure =
                    "writing to a stream of which 64 KiB wait already would wait for the thread that it runs on, \
                            the worker's own; move the BodyWriter to another thread, or use try_write";
                return Err(io::Error::new(ErrorKind::Deadlock, cure));
            }
            state = self.shared.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.reader_is_gone {
            return Err(ErrorKind::BrokenPipe.into());
        }
        Ok(append(state, bytes))
    }

    /// Does nothing: what is written is on its way.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        self.end(if std::thread::panicking() { Ending::Aborted } else { Ending::Complete });
    }
}

fn append(mut state: MutexGuard<'_, State>, bytes: &[u8]) -> usize {
    let count = bytes.len().min(CAPACITY.saturating_sub(state.buffer.len()));
    state.buffer.extend_from_slice(&bytes[..count]);
    ring(state);
    count
}

/// Wakes the loop, once for all that it will then find.
fn ring(mut state: MutexGuard<'_, State>) {
    let bell = state.bell.take();
    drop(state);
    if let Some(bell) = bell {
        bell.ring();
    }
}

/// The loop's side.
#[derive(Debug)]
pub(crate) struct BodyReader {
    shared: Arc<Shared>,
    announced: Option<Box<str>>,
}

/// What there is of a body.
pub(crate) enum Written {
    Data(Vec<u8>),
    /// Nothing yet; the bell will be rung.
    Nothing,
    /// All of it has been taken. Behind it come trailers, rendered.
    End(Vec<u8>),
    Aborted,
}

impl BodyReader {
    pub(crate) fn take(&self, bell: impl FnOnce() -> Bell) -> Written {
        let mut state = self.shared.lock();
        match state.ending {
            Some(Ending::Aborted) => return Written::Aborted,
            Some(Ending::Complete) if state.buffer.is_empty() => {
                return Written::End(std::mem::take(&mut state.trailers));
            }
            None if state.buffer.is_empty() => {
                state.bell = Some(bell());
                return Written::Nothing;
            }
            _ => {}
        }
        let data = std::mem::take(&mut state.buffer);
        drop(state);
        self.shared.room.notify_all();
        Written::Data(data)
    }
}

impl BodyReader {
    pub(crate) fn notices(&self) -> &Notices {
        &self.shared.notices
    }

    /// The names of the trailers that will come, as a Trailer field says them.
    pub(crate) fn announced(&self) -> Option<&str> {
        self.announced.as_deref()
    }

    /// Memory that is held for the client.
    pub(crate) fn held(&self) -> usize {
        self.shared.lock().buffer.capacity()
    }
}

impl Drop for BodyReader {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.reader_is_gone = true;
        state.buffer = Vec::new();
        let is_open = state.ending.is_none();
        drop(state);
        self.shared.room.notify_all();
        if is_open {
            self.shared.notices.gone.tell();
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when the buffer has been taken, or the reader has gone.
    room: Condvar,
    notices: Notices,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct State {
    buffer: Vec<u8>,
    trailers: Vec<u8>,
    ending: Option<Ending>,
    /// There while the loop waits.
    bell: Option<Bell>,
    reader_is_gone: bool,
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Complete,
    Aborted,
}

pub(crate) fn pair(announced: Option<Box<str>>) -> (BodyWriter, BodyReader) {
    let shared = Arc::new(Shared::default());
    (BodyWriter { shared: Arc::clone(&shared) }, BodyReader { shared, announced })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_written_whole_or_not_at_all() {
        let (mut writer, _reader) = pair(None);
        writer.try_write_all(&[b'x'; CAPACITY + 1]).expect("nothing waits");
        assert_eq!(writer.try_write_all(b"y").map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
        let (mut writer, reader) = pair(None);
        writer.try_write_all(&[b'x'; CAPACITY - 1]).expect("there is room");
        assert_eq!(writer.try_write_all(b"yz").map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
        writer.try_write_all(b"y").expect("there is room");
        assert_eq!(writer.shared.lock().buffer.len(), CAPACITY);
        drop(reader);
        assert_eq!(writer.try_write_all(b"").map_err(|error| error.kind()), Err(ErrorKind::BrokenPipe));
        assert!(writer.is_gone());
    }

    #[test]
    fn nobody_is_told_after_the_end_of_the_body() {
        let (writer, reader) = pair(None);
        writer.on_gone(|| panic!("nobody has gone"));
        let shared = Arc::clone(&writer.shared);
        drop(writer);
        drop(reader);
        assert!(!shared.notices.gone.has_come());
    }
}
