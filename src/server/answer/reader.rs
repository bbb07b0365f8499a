//! Request bodies that a thread reads as they arrive.

use std::io::{self, BufRead, ErrorKind, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::server::mailbox::{self, ConnectionWaker};

/// The number of bytes that may wait for the reader before the client has to wait. What was read at once may exceed it.
const CAPACITY: usize = 64 * 1024;

/// Reads the body of a request as it arrives; see [`Response::read_body`](crate::Response::read_body).
///
/// Move it to a thread: [`read`](Read::read) waits for the client. On the worker's own thread it would wait for itself,
/// so it fails there with [`ErrorKind::Deadlock`]. It returns 0 at the end of the body. If the client disconnects
/// before, sends something malformed or is too slow, reading fails with [`ErrorKind::UnexpectedEof`], so that half of a
/// body never looks like the whole.
#[derive(Debug)]
#[must_use = "dropping it refuses the rest of the body"]
pub struct BodyReader {
    shared: Arc<Shared>,
    /// Bytes that this thread has, and how many of them were read.
    taken: Vec<u8>,
    read: usize,
}

impl BodyReader {
    /// Waits for bytes, unless some were taken before.
    fn take(&mut self) -> io::Result<()> {
        if self.read < self.taken.len() {
            return Ok(());
        }
        let mut state = self.shared.lock();
        while state.buffer.is_empty() {
            match state.end {
                Some(End::Complete) => return Ok(()),
                Some(End::CutOff) => {
                    let problem = "the client has not sent the whole body of the request";
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, problem));
                }
                None if mailbox::is_in_loop() => {
                    let cure = "reading a body that has not arrived would wait for the thread that it runs on, the \
                                worker's own; move the BodyReader to another thread";
                    return Err(io::Error::new(ErrorKind::Deadlock, cure));
                }
                None => state = self.shared.arrival.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        self.taken.clear();
        self.read = 0;
        std::mem::swap(&mut state.buffer, &mut self.taken);
        state.ring_if_full();
        Ok(())
    }
}

impl Read for BodyReader {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if room.is_empty() {
            return Ok(0);
        }
        let count = self.fill_buf()?.read(room)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for BodyReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.take()?;
        Ok(&self.taken[self.read..])
    }

    fn consume(&mut self, count: usize) {
        self.read = (self.read + count).min(self.taken.len());
    }
}

impl Drop for BodyReader {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.reader_is_gone = true;
        state.buffer = Vec::new();
        // Nobody reads what the client still sends, so the response may be sent.
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

/// The side of the loop. Dropped before the end of the body, it cuts it off.
#[derive(Debug)]
pub(crate) struct Intake {
    shared: Arc<Shared>,
    is_full: bool,
}

impl Intake {
    /// Checks whether there is space. If not, `waker` will be called. It is also called if the reader is dropped.
    pub(crate) fn check_room(&mut self, waker: &ConnectionWaker) -> bool {
        let mut state = self.shared.lock();
        self.is_full = state.buffer.len() >= CAPACITY && !state.reader_is_gone;
        state.is_awaited = self.is_full;
        if state.waker.is_none() && !state.reader_is_gone {
            state.waker = Some(waker.clone());
        }
        !self.is_full
    }

    /// Whether there was no space at the last check.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    pub(crate) fn push(&self, piece: &[u8]) {
        let mut state = self.shared.lock();
        if !state.reader_is_gone {
            state.buffer.extend_from_slice(piece);
            drop(state);
            self.shared.arrival.notify_all();
        }
    }

    /// The body is complete.
    pub(crate) fn end(&self) {
        self.shared.end(End::Complete);
    }

    /// Whether the reader was dropped.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.shared.lock().reader_is_gone
    }

    /// Memory that is held for the client.
    pub(crate) fn held(&self) -> usize {
        self.shared.lock().buffer.capacity()
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.shared.end(End::CutOff);
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when bytes have arrived, and at the end.
    arrival: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, end: End) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        state.waker = None;
        drop(state);
        self.arrival.notify_all();
    }
}

#[derive(Debug, Default)]
struct State {
    buffer: Vec<u8>,
    end: Option<End>,
    /// Set once the loop receives the body.
    waker: Option<ConnectionWaker>,
    /// Whether the loop waits for space.
    is_awaited: bool,
    reader_is_gone: bool,
}

impl State {
    fn ring_if_full(&mut self) {
        if let (true, Some(waker)) = (std::mem::take(&mut self.is_awaited), &self.waker) {
            waker.wake();
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum End {
    Complete,
    CutOff,
}

pub(crate) fn pair() -> (BodyReader, Intake) {
    let shared = Arc::new(Shared::default());
    (BodyReader { shared: Arc::clone(&shared), taken: Vec::new(), read: 0 }, Intake { shared, is_full: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_ends_once_and_only_a_whole_one_ends_well() {
        let (mut reader, intake) = pair();
        intake.push(b"ab");
        intake.push(b"c");
        intake.end();
        drop(intake);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("a whole body");
        assert_eq!((text.as_str(), reader.read(&mut [0]).expect("its end")), ("abc", 0));

        let (mut reader, intake) = pair();
        intake.push(b"ab");
        drop(intake);
        let error = reader.read_to_end(&mut Vec::new()).expect_err("half a body");
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_reader_waits_for_what_arrives() {
        let (mut reader, intake) = pair();
        let thread = std::thread::spawn(move || {
            let mut lines = Vec::new();
            while let Some(line) = (&mut reader).lines().next() {
                lines.push(line.expect("a line"));
            }
            lines
        });
        intake.push(b"one\ntw");
        intake.push(b"o\n");
        intake.end();
        assert_eq!(thread.join().expect("it has read"), ["one", "two"]);
    }

    #[test]
    fn the_workers_thread_must_not_wait_for_itself() {
        let (mut reader, intake) = pair();
        mailbox::set_in_loop(true);
        let error = reader.read(&mut [0]).expect_err("nothing has arrived");
        intake.push(b"a");
        let count = reader.read(&mut [0]);
        mailbox::set_in_loop(false);
        assert_eq!((error.kind(), count.expect("it is there")), (ErrorKind::Deadlock, 1));
    }
}
