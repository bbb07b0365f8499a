//! A worker's side of the messages between it and the parent.

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use log::warn;

use super::Worker;
use crate::server::inbox::{Hook, Inbox};
use crate::shared::message::{MessageEnd, MessageError, Received, BUFFER};

impl Worker {
    /// Sends the parent a message, which its hook gets as [`Event::Message`](crate::Event::Message): in the order in
    /// which this process has sent them, and before [`Event::Exited`](crate::Event::Exited) however this worker ends.
    /// It never waits.
    ///
    /// # Errors
    ///
    /// [`MessageError::TooLarge`] beyond [`MESSAGE_MAX`](crate::MESSAGE_MAX), [`MessageError::Full`] while the parent
    /// is behind with reading, [`MessageError::Gone`] when it is gone or has no hook.
    pub fn send(&self, message: &[u8]) -> Result<(), MessageError> {
        send(self.messages.as_deref(), message, None)
    }

    /// As [`send`](Worker::send), with a copy of a file descriptor: a connection, for example.
    ///
    /// # Errors
    ///
    /// As [`send`](Worker::send), and [`MessageError::NoDescriptors`] unless the pool takes them
    /// ([`Builder::accept_descriptors`](crate::Builder::accept_descriptors)).
    pub fn send_with(&self, message: &[u8], fd: impl AsFd) -> Result<(), MessageError> {
        send(self.messages.as_deref(), message, Some(fd.as_fd()))
    }

    /// What sends the parent messages from any thread of this worker.
    pub fn sender(&self) -> Sender {
        Sender { end: self.messages.clone() }
    }

    /// Has [`serve`](Worker::serve) call `hook` for each message of the parent's, on this thread, between requests.
    /// To be called before `serve`, which at its end delivers all that the parent had sent before this worker was
    /// told to finish. A panic in `hook` counts as one in the handler.
    pub fn on_message(&self, mut hook: impl FnMut(&[u8]) + 'static) {
        self.on_message_with(move |message, _fd| hook(message));
    }

    /// As [`on_message`](Worker::on_message), with the descriptor that came with the message.
    pub fn on_message_with(&self, hook: impl FnMut(&[u8], Option<OwnedFd>) + 'static) {
        self.on_message.replace(Some(OnMessage(Box::new(hook))));
    }

    /// The parent's messages, for servers other than [`serve`](Worker::serve): a reactor waits until it is readable,
    /// then takes messages until there is none. Whoever is told to finish takes what is left first.
    ///
    /// # Errors
    ///
    /// When the pool has no [hook](crate::Builder::on_event), which is what sends messages.
    pub fn messages(&self) -> io::Result<Messages> {
        let no_hook = || io::Error::new(ErrorKind::NotConnected, "a pool without a hook (on_event) has no messages");
        self.messages.clone().map(|end| Messages { end, buffer: Mutex::default() }).ok_or_else(no_hook)
    }

    /// Asks the parent to have this worker leave: it is told to finish what it has, its slot gets a new worker, and its
    /// exit counts as asked for. Returns at once.
    pub fn disconnect(&self) {
        self.lifeline.leave();
    }

    /// The parent's messages and who gets them, if anybody does.
    pub(crate) fn take_inbox(&self) -> Option<Inbox> {
        let (end, hook) = (self.messages.clone()?, self.on_message.take()?);
        Some(Inbox::new(end, hook.0))
    }
}

/// Sends the parent messages, as [`Worker::send`] does, from any thread of the worker.
#[derive(Clone, Debug)]
pub struct Sender {
    end: Option<Arc<MessageEnd>>,
}

impl Sender {
    /// As [`Worker::send`].
    ///
    /// # Errors
    ///
    /// As [`Worker::send`].
    pub fn send(&self, message: &[u8]) -> Result<(), MessageError> {
        send(self.end.as_deref(), message, None)
    }

    /// As [`Worker::send_with`].
    ///
    /// # Errors
    ///
    /// As [`Worker::send`].
    pub fn send_with(&self, message: &[u8], fd: impl AsFd) -> Result<(), MessageError> {
        send(self.end.as_deref(), message, Some(fd.as_fd()))
    }
}

fn send(end: Option<&MessageEnd>, message: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), MessageError> {
    end.ok_or(MessageError::Gone)?.send(message, fd)
}

/// The parent's messages to this worker: see [`Worker::messages`].
///
/// As a file descriptor it is non-blocking, readable when there is a message or the parent is gone, and writable when
/// there is room for messages to the parent.
#[derive(Debug)]
pub struct Messages {
    end: Arc<MessageEnd>,
    /// Of [`BUFFER`] bytes, once it is used.
    buffer: Mutex<Vec<u8>>,
}

/// A message of the parent's.
#[derive(Debug)]
#[non_exhaustive]
pub struct Message {
    /// What it says.
    pub bytes: Vec<u8>,
    /// What came with it.
    pub fd: Option<OwnedFd>,
}

impl Messages {
    /// The next message, if there is one. It never waits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldBlock`] when there is none at the moment, [`ErrorKind::UnexpectedEof`] when the parent is gone.
    pub fn try_recv(&self) -> io::Result<Message> {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.resize(BUFFER, 0);
        loop {
            return match self.end.receive(&mut buffer) {
                Received::Message(bytes, fd) => Ok(Message { bytes: bytes.to_vec(), fd }),
                Received::Malformed(why, _) => {
                    warn!("dropped a message from the parent: {why}");
                    continue;
                }
                Received::Cut(_) => {
                    warn!("dropped a message from the parent: no descriptor is free for the one that came with it");
                    continue;
                }
                Received::Nothing | Received::NoRoom => Err(ErrorKind::WouldBlock.into()),
                Received::End => Err(ErrorKind::UnexpectedEof.into()),
            };
        }
    }
}

impl AsFd for Messages {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

/// What [`Worker::on_message_with`] was given.
pub(super) struct OnMessage(Box<Hook>);

impl fmt::Debug for OnMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnMessage")
    }
}
