//! Bodies that are written while they are sent.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::server::answer::notice::Notices;
use crate::server::http::{add_trailer, InvalidHeader};
use crate::server::mailbox::{self, ConnectionWaker};

/// The number of bytes that may wait for the client before a writer has to wait.
const CAPACITY: usize = 64 * 1024;

/// Writes the body of a response made by [`Response::stream`](crate::Response::stream).
///
/// It can be sent to any thread. What is written is sent as soon as the client reads. While 64 KiB wait for the client,
/// [`write`](Write::write) blocks. On the worker's own thread it would wait for itself, so it fails with
/// [`ErrorKind::Deadlock`]: use [`try_write`](BodyWriter::try_write) there, or move the writer to a thread. Once the
/// connection is closed, writing fails with [`ErrorKind::BrokenPipe`]. A program that does not write learns from
/// [`on_gone`](BodyWriter::on_gone) that the client has disconnected.
///
/// Dropping the writer ends the body. If it is dropped in a panic, or by [`abort`](BodyWriter::abort), the connection
/// is reset instead, so that the client does not take half of a body for the whole.
#[derive(Debug)]
#[must_use = "dropping it ends the body"]
pub struct BodyWriter {
    shared: Arc<Shared>,
}

impl BodyWriter {
    /// Writes as much as there is space for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldBlock`] if there is no space, [`ErrorKind::BrokenPipe`] if the client has disconnected.
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

    /// Writes all bytes if there is space for them, and otherwise nothing, as for events that must not be sent in part.
    /// More than 64 KiB are accepted if nothing else waits.
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
        wake(state);
        Ok(())
    }

    /// Adds a field to the trailer section, which is sent after the body: a checksum, for example, or how long the body
    /// took to make (RFC 9110 section 6.5).
    ///
    /// Only clients that send `TE: trailers` in HTTP/1.1 get it, and most proxies drop it, so nothing may depend on it.
    /// Announce its name by [`Response::stream_with_trailers`](crate::Response::stream_with_trailers).
    ///
    /// # Errors
    ///
    /// As [`Response::try_header`](crate::Response::try_header), and if the field must precede the content:
    /// Content-Type, Set-Cookie, Cache-Control and the like.
    pub fn add_trailer(&mut self, name: &str, value: &str) -> Result<(), InvalidHeader> {
        add_trailer(&mut self.shared.lock().trailers, name, value)
    }

    /// Whether the client has closed the connection.
    ///
    /// A client that only shuts down its sending side, to mark the end of its requests, looks the same at first. So the
    /// body is still sent; a client that has disconnected resets the connection after one or two writes. A stream to
    /// which nothing is written for five seconds is then closed. If such clients must wait for longer, see
    /// [`half_close`](crate::Builder::half_close).
    pub fn is_gone(&self) -> bool {
        self.shared.notices.gone.has_come()
    }

    /// Runs `hook` as soon as [`is_gone`](BodyWriter::is_gone) is true, or at once if it is already. Runs it once at
    /// most, and never after the end of the body. The hook runs on the worker's only thread; send a message from it, or
    /// set a flag.
    pub fn on_gone(&self, hook: impl FnOnce() + Send + 'static) {
        self.shared.notices.gone.when(hook);
    }

    /// Whether the worker drains and waits for the end of this body. A body without an end of its own should end now.
    /// Streams are notified one after the other, over at most five seconds, so that their clients do not all reconnect
    /// at once.
    pub fn is_draining(&self) -> bool {
        self.shared.notices.drain.has_come()
    }

    /// Runs `hook` as soon as [`is_draining`](BodyWriter::is_draining) is true, in the same way as
    /// [`on_gone`](BodyWriter::on_gone).
    pub fn on_drain(&self, hook: impl FnOnce() + Send + 'static) {
        self.shared.notices.drain.when(hook);
    }

    /// Resets the connection without ending the body.
    pub fn abort(self) {
        self.end(Ending::Aborted);
    }

    fn end(&self, ending: Ending) {
        let mut state = self.shared.lock();
        state.ending.get_or_insert(ending);
        wake(state);
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

    /// Does nothing, since written bytes are already on their way.
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
    wake(state);
    count
}

/// Wakes the loop, once for everything that it will find.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The side of the loop.
#[derive(Debug)]
pub(crate) struct StreamReader {
    shared: Arc<Shared>,
    announced: Option<Box<str>>,
}

/// The state of a body.
pub(crate) enum Written {
    Data(Vec<u8>),
    /// No bytes yet; the waker will be called.
    Nothing,
    /// The end was read. The rendered trailers follow.
    End(Vec<u8>),
    Aborted,
}

impl StreamReader {
    pub(crate) fn take(&self, waker: impl FnOnce() -> ConnectionWaker) -> Written {
        let mut state = self.shared.lock();
        match state.ending {
            Some(Ending::Aborted) => return Written::Aborted,
            Some(Ending::Complete) if state.buffer.is_empty() => {
                return Written::End(std::mem::take(&mut state.trailers));
            }
            None if state.buffer.is_empty() => {
                state.waker = Some(waker());
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

impl StreamReader {
    pub(crate) fn notices(&self) -> &Notices {
        &self.shared.notices
    }

    /// The names of the announced trailers, as the value of a Trailer field.
    pub(crate) fn announced(&self) -> Option<&str> {
        self.announced.as_deref()
    }

    /// Memory that is held for the client.
    pub(crate) fn held(&self) -> usize {
        self.shared.lock().buffer.capacity()
    }
}

impl Drop for StreamReader {
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
    /// Notified when the buffer was taken, or the reader has gone.
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
    /// Set while the loop waits.
    waker: Option<ConnectionWaker>,
    reader_is_gone: bool,
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Complete,
    Aborted,
}

pub(crate) fn pair(announced: Option<Box<str>>) -> (BodyWriter, StreamReader) {
    let shared = Arc::new(Shared::default());
    (BodyWriter { shared: Arc::clone(&shared) }, StreamReader { shared, announced })
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
