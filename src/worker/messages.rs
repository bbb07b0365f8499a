//! The worker's side of its messages with the parent.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use log::warn;

use super::Worker;
use crate::server::inbox::{Hook, Inbox};
use crate::shared::message::{MessageEnd, MessageError, Received, BUFFER};

impl Worker {
    /// Sends a message to the parent, whose hook receives it as [`Event::Message`](crate::Event::Message). It never
    /// blocks.
    ///
    /// Messages arrive in the order in which this process has sent them, and before
    /// [`Event::Exited`](crate::Event::Exited), however this worker ends.
    ///
    /// # Errors
    ///
    /// [`MessageError::TooLarge`] beyond [`MESSAGE_MAX`](crate::MESSAGE_MAX), [`MessageError::Full`] while the parent
    /// has not read earlier messages, [`MessageError::Gone`] when the parent has died or has no hook.
    pub fn send(&self, message: &[u8]) -> Result<(), MessageError> {
        send(self.messaging.end.as_deref(), message, None)
    }

    /// As [`send`](Worker::send), with a copy of a file descriptor: a connection, for example.
    ///
    /// # Errors
    ///
    /// As [`send`](Worker::send), and [`MessageError::NoDescriptors`] unless the pool takes them
    /// ([`Builder::accept_descriptors`](crate::Builder::accept_descriptors)).
    pub fn send_with(&self, message: &[u8], fd: impl AsFd) -> Result<(), MessageError> {
        send(self.messaging.end.as_deref(), message, Some(fd.as_fd()))
    }

    /// Returns a sender of messages to the parent, for any thread of this worker.
    pub fn sender(&self) -> Sender {
        Sender { end: self.messaging.end.clone() }
    }

    /// Has [`serve`](Worker::serve) call `hook` for each message from the parent, on this thread, between requests.
    ///
    /// Call it before `serve`. When the worker finishes, `serve` first delivers all messages that the parent had sent
    /// before it told the worker to finish. A panic in `hook` is handled like one in the handler.
    pub fn on_message(&self, mut hook: impl FnMut(&[u8]) + 'static) {
        self.on_message_with(move |message, _fd| hook(message));
    }

    /// As [`on_message`](Worker::on_message), with the file descriptor that came with the message.
    pub fn on_message_with(&self, hook: impl FnMut(&[u8], Option<OwnedFd>) + 'static) {
        self.messaging.hook.replace(Some(OnMessage(Box::new(hook))));
    }

    /// Returns the messages from the parent, for servers other than [`serve`](Worker::serve). Wait in your reactor
    /// until it is readable, then receive until there are none. When the worker is told to finish, receive what is left
    /// first.
    ///
    /// # Errors
    ///
    /// When the pool has no [hook](crate::Builder::on_event), and so nothing sends messages.
    pub fn messages(&self) -> io::Result<Messages> {
        let no_hook = || io::Error::new(ErrorKind::NotConnected, "a pool without a hook (on_event) has no messages");
        self.messaging.end.clone().map(|end| Messages { end, buffer: Mutex::default() }).ok_or_else(no_hook)
    }

    /// Asks the parent to replace this worker: the worker is told to finish its connections, its slot gets a
    /// replacement, and its exit counts as requested. Returns at once.
    pub fn disconnect(&self) {
        self.lifeline.leave();
    }

    /// The messages of the parent and their hook, if one was set.
    pub(crate) fn take_inbox(&self) -> Option<Inbox> {
        let (end, hook) = (self.messaging.end.clone()?, self.messaging.hook.take()?);
        Some(Inbox::new(end, hook.0))
    }
}

/// Sends messages to the parent, as [`Worker::send`] does, from any thread of the worker.
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

/// The messages from the parent to this worker: see [`Worker::messages`].
///
/// Its file descriptor is non-blocking. It is readable when there is a message or the parent has died, and writable
/// when there is room for messages to the parent.
#[derive(Debug)]
pub struct Messages {
    end: Arc<MessageEnd>,
    /// Has [`BUFFER`] bytes once it is used.
    buffer: Mutex<Vec<u8>>,
}

/// A message from the parent.
#[derive(Debug)]
#[non_exhaustive]
pub struct Message {
    /// The content.
    pub bytes: Vec<u8>,
    /// The file descriptor that came with it.
    pub fd: Option<OwnedFd>,
}

impl Messages {
    /// Receives the next message. It never blocks.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WouldBlock`] when there is no message, [`ErrorKind::UnexpectedEof`] when the parent has died.
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

/// What a worker needs for its messages with the parent.
#[derive(Debug)]
pub(super) struct Messaging {
    /// `None` in a pool without a hook, in which nobody receives them.
    end: Option<Arc<MessageEnd>>,
    hook: RefCell<Option<OnMessage>>,
}

impl Messaging {
    pub(super) fn new(end: Option<MessageEnd>) -> Messaging {
        Messaging { end: end.map(Arc::new), hook: RefCell::new(None) }
    }

    pub(super) fn end(&self) -> Option<&MessageEnd> {
        self.end.as_deref()
    }
}

/// The hook of [`Worker::on_message_with`].
struct OnMessage(Box<Hook>);

impl fmt::Debug for OnMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnMessage")
    }
}
