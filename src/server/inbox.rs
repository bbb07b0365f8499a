//! The parent's messages in the built-in server.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use log::{error, warn};

use crate::server::station::Station;
use crate::shared::log_text::panic_message;
use crate::shared::message::{MessageEnd, Received, BUFFER};

/// The number of messages handled in one turn, so that connections have theirs.
const MESSAGES_PER_TURN: usize = 64;

/// Called with each message and its descriptor.
pub(crate) type Hook = dyn FnMut(&[u8], Option<OwnedFd>);

/// The parent's messages in the built-in server.
pub(crate) struct Inbox {
    end: Arc<MessageEnd>,
    hook: Box<Hook>,
    buffer: Vec<u8>,
    /// Whether the latest turn may have left messages.
    pub(crate) has_more: bool,
}

impl Inbox {
    pub(crate) fn new(end: Arc<MessageEnd>, hook: Box<Hook>) -> Inbox {
        Inbox { end, hook, buffer: vec![0; BUFFER], has_more: false }
    }

    /// Delivers the messages that have arrived, up to the limit of a turn.
    pub(crate) fn deliver(&mut self, station: &Station<'_>) {
        self.has_more = (0..MESSAGES_PER_TURN).all(|_| self.deliver_one(station));
    }

    /// Delivers all messages that have arrived, and refuses later ones.
    pub(crate) fn finish(&mut self, station: &Station<'_>) {
        self.end.close();
        while self.deliver_one(station) {}
    }

    /// Delivers one message; returns whether there may be more.
    fn deliver_one(&mut self, station: &Station<'_>) -> bool {
        match self.end.receive(&mut self.buffer) {
            Received::Message(message, fd) => {
                if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| (self.hook)(message, fd))) {
                    station.row().count_panic();
                    error!("{} panicked in a message: {}", station.tag, panic_message(&*panic));
                    if station.config.exits_on_panic() {
                        panic::resume_unwind(panic);
                    }
                }
                true
            }
            Received::Malformed(why, _) => {
                warn!("{} dropped a message from the parent: {why}", station.tag);
                true
            }
            Received::Cut(_) => {
                let why = "no descriptor is free for the one that came with it";
                warn!("{} dropped a message from the parent: {why}", station.tag);
                true
            }
            Received::Nothing | Received::NoRoom | Received::End => false,
        }
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("end", &self.end).finish_non_exhaustive()
    }
}
