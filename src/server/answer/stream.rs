//! Bodies that are written while they are sent.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::server::mailbox::Bell;

/// Bytes that may wait for the client. A writer that is faster than its client waits, or is told to.
const CAPACITY: usize = 64 * 1024;

/// Writes the body of a response made by [`Response::stream`](crate::Response::stream).
///
/// It can be sent to any thread. What is written is sent as soon as the client takes it; when 64 KiB wait for the
/// client, [`write`](Write::write) waits too: do not call it on the worker's own thread, where it would wait for
/// itself, but [`try_write`](BodyWriter::try_write). Once the client has gone, both fail with
/// [`ErrorKind::BrokenPipe`].
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
    let count = bytes.len().min(CAPACITY - state.buffer.len());
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
}

/// What there is of a body.
pub(crate) enum Written {
    Data(Vec<u8>),
    /// Nothing yet; the bell will be rung.
    Nothing,
    /// All of it has been taken.
    End,
    Aborted,
}

impl BodyReader {
    pub(crate) fn take(&self, bell: impl FnOnce() -> Bell) -> Written {
        let mut state = self.shared.lock();
        match state.ending {
            Some(Ending::Aborted) => return Written::Aborted,
            Some(Ending::Complete) if state.buffer.is_empty() => return Written::End,
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
        drop(state);
        self.shared.room.notify_all();
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when the buffer has been taken, or the reader has gone.
    room: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct State {
    buffer: Vec<u8>,
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

pub(crate) fn pair() -> (BodyWriter, BodyReader) {
    let shared = Arc::new(Shared::default());
    (BodyWriter { shared: Arc::clone(&shared) }, BodyReader { shared })
}
