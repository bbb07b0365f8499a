//! A client's socket, and the state of its receiving side.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};

use mio::event::Event;
use mio::{Registry, Token};

use super::Step;
use crate::server::client::Client;

/// A client's socket.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(super) client: Client,
    input: Input,
    /// Whether the socket has failed, or both sides have closed.
    is_broken: bool,
    /// Whether the connection is among those that have more to do in the next turn. Here it takes no space.
    pub(crate) is_again: bool,
}

/// The unread input of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// None; the next byte brings an edge.
    Drained,
    /// Perhaps some: an edge has arrived, and no short read since.
    Readable,
    /// The end of file, which was announced, and perhaps bytes before it.
    Ending,
    /// None ever again: the end of file was read.
    Ended,
}

impl Transport {
    pub(super) fn new(client: Client) -> Transport {
        Transport { client, input: Input::Drained, is_broken: false, is_again: false }
    }

    /// Registers the socket for its whole life, edge-triggered and in both directions: one epoll_ctl(2) per connection.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.client.register(registry, token)
    }

    /// Whether another process has passed it to this one, and may have a copy.
    pub(crate) fn is_taken(&self) -> bool {
        self.client.is_taken()
    }

    /// Ends its handshake in favour of another.
    pub(crate) fn end_handshake(&mut self) {
        self.client.end_handshake();
    }

    /// Must be called before this is dropped if another process has the socket as well: the registration belongs to the
    /// socket, and not to this copy.
    pub(crate) fn deregister(&mut self, registry: &Registry) {
        // It was registered, and a failure would leave nothing to do.
        let _ = self.client.deregister(registry);
    }

    /// Learns from an event.
    #[inline]
    pub(crate) fn notice(&mut self, event: &Event) {
        // The end of both sides says that of the receiving one, too.
        if event.is_read_closed() || event.is_error() {
            self.notice_end(event);
        } else if event.is_readable() || self.client.wants_write() {
            self.look();
        }
    }

    #[cold]
    fn notice_end(&mut self, event: &Event) {
        match event.is_read_closed() {
            true => self.end_announced(),
            false => self.look(),
        }
        self.is_broken |= event.is_write_closed() || event.is_error();
    }

    fn end_announced(&mut self) {
        if self.input != Input::Ended {
            self.input = Input::Ending;
        }
    }

    /// Makes the next step read the socket, whatever events have said.
    #[inline]
    pub(crate) fn look(&mut self) {
        if self.input == Input::Drained {
            self.input = Input::Readable;
        }
    }

    /// Whether there may be something to read.
    #[inline]
    pub(super) fn is_readable(&self) -> bool {
        matches!(self.input, Input::Readable | Input::Ending)
    }

    /// Whether the client has sent its end of file, though it may not have been read yet.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.input, Input::Ending | Input::Ended)
    }

    /// Whether the end of file was read.
    #[inline]
    pub(super) fn is_ended(&self) -> bool {
        self.input == Input::Ended
    }

    /// Whether the socket has failed, or both sides have closed.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// What to do while nothing that was read can be answered.
    pub(super) fn wait(&self) -> Step {
        match self.input {
            Input::Ended => Step::Close,
            Input::Readable | Input::Ending => Step::Again,
            Input::Drained => Step::Wait,
        }
    }

    /// Reads once; returns zero if there is nothing, and at the end.
    #[inline]
    pub(super) fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.client.read(room) {
                Ok(count) => {
                    self.has_read(count, room.len());
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.client.has_more() != Some(true) {
                        self.input = Input::Drained;
                    }
                    return Ok(0);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A short read has emptied the socket. Only an end of file that was already announced brings no new edge.
    #[inline]
    fn has_read(&mut self, count: usize, room: usize) {
        self.input = match self.input {
            _ if count == 0 => Input::Ended,
            Input::Ending => Input::Ending,
            _ if self.client.has_more().unwrap_or(count == room) => Input::Readable,
            _ => Input::Drained,
        };
    }
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.client.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transport() -> Transport {
        let (socket, _) = mio::net::UnixStream::pair().expect("a socket pair");
        Transport::new(Client::Unix(socket))
    }

    #[test]
    fn a_short_read_empties_the_socket_unless_its_end_is_announced() {
        let mut transport = transport();
        assert!(!transport.is_readable());
        transport.look();
        transport.has_read(8, 8);
        assert!(transport.is_readable(), "there may be more");
        transport.has_read(7, 8);
        assert!(!transport.is_readable());
        transport.end_announced();
        transport.has_read(7, 8);
        assert!(transport.is_readable() && transport.is_ending() && !transport.is_ended());
        transport.has_read(0, 8);
        assert!(!transport.is_readable() && transport.is_ending() && transport.is_ended());
        transport.look();
        transport.end_announced();
        assert!(!transport.is_readable(), "nothing comes behind the end");
    }
}
