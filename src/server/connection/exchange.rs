//! The request that was passed to the handler, while its response takes more than one step.

use std::os::fd::{AsFd, BorrowedFd};

use crate::server::answer::notice::Notices;
use crate::server::answer::receive::Receiver;
use crate::server::answer::response::Response;
use crate::server::mailbox::ConnectionWaker;
use crate::server::outgoing::Outgoing;

/// The request that was passed to the handler, if its response takes more than one step.
#[derive(Debug, Default)]
pub(super) struct Exchange(Option<Box<Stage>>);

#[derive(Debug)]
enum Stage {
    /// The application receives the body of the request as it arrives.
    Receiving(Receiver<Response>),
    /// The response is being made or sent.
    Sending(Outgoing),
}

impl Exchange {
    #[inline]
    pub(super) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// The application receives the body of the request from now on.
    pub(super) fn receive(&mut self, receiver: Receiver<Response>) {
        self.0 = Some(Box::new(Stage::Receiving(receiver)));
    }

    /// The response is being made or sent from now on; `None` if it is complete.
    pub(super) fn send(&mut self, outgoing: Option<Outgoing>) {
        self.0 = outgoing.map(|outgoing| Box::new(Stage::Sending(outgoing)));
    }

    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    /// Whether the application receives the body of the request as it arrives.
    #[inline]
    pub(super) fn is_receiving(&self) -> bool {
        matches!(self.0.as_deref(), Some(Stage::Receiving(_)))
    }

    pub(super) fn receiver(&mut self) -> Option<&mut Receiver<Response>> {
        match self.0.as_deref_mut() {
            Some(Stage::Receiving(receiver)) => Some(receiver),
            _ => None,
        }
    }

    /// Checks whether a thread that reads the body has space for more. If not, `waker` will be called.
    pub(super) fn check_room(&mut self, waker: &ConnectionWaker) -> bool {
        self.receiver().is_none_or(|receiver| receiver.check_room(waker))
    }

    /// Whether a thread that reads the body had no space for more at the last check.
    #[inline]
    pub(super) fn waits_for_reader(&self) -> bool {
        matches!(self.0.as_deref(), Some(Stage::Receiving(receiver)) if receiver.is_full())
    }

    /// The response that is being made or sent.
    #[inline]
    pub(super) fn outgoing(&self) -> Option<&Outgoing> {
        match self.0.as_deref() {
            Some(Stage::Sending(outgoing)) => Some(outgoing),
            _ => None,
        }
    }

    pub(super) fn outgoing_mut(&mut self) -> Option<&mut Outgoing> {
        match self.0.as_deref_mut() {
            Some(Stage::Sending(outgoing)) => Some(outgoing),
            _ => None,
        }
    }

    pub(super) fn take_outgoing(&mut self) -> Option<Outgoing> {
        match *self.0.take_if(|stage| matches!(**stage, Stage::Sending(_)))? {
            Stage::Sending(outgoing) => Some(outgoing),
            Stage::Receiving(_) => None,
        }
    }

    /// Whether the application has not made the response.
    pub(super) fn is_pending(&self) -> bool {
        matches!(self.0.as_deref(), Some(Stage::Receiving(_) | Stage::Sending(Outgoing::Deferred { .. })))
    }

    pub(super) fn is_stream(&self) -> bool {
        matches!(self.outgoing(), Some(Outgoing::Stream { .. }))
    }

    /// The file that is sent.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        match self.outgoing() {
            Some(Outgoing::File(file)) => Some(file.as_fd()),
            _ => None,
        }
    }

    /// How much memory it takes.
    pub(super) fn memory(&self) -> usize {
        match self.0.as_deref() {
            Some(Stage::Receiving(receiver)) => receiver.held(),
            Some(Stage::Sending(outgoing)) => outgoing.held(),
            None => 0,
        }
    }

    /// The notices for the application that makes the response.
    pub(super) fn notices(&self) -> Option<&Notices> {
        self.outgoing().and_then(Outgoing::notices)
    }

    /// The worker drains, and a response without an end of its own should end.
    pub(super) fn tell_drain(&self) {
        if let Some(notices) = self.notices() {
            notices.drain.tell();
        }
    }

    /// The client seems to have disconnected.
    pub(super) fn tell_gone(&self) {
        if let Some(notices) = self.notices() {
            notices.gone.tell();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_received_before_its_response_is_sent() {
        let mut exchange = Exchange::default();
        assert!(!exchange.is_some() && exchange.take_outgoing().is_none());
        exchange.receive(Receiver::new(|_| None));
        assert!(exchange.is_some() && exchange.is_receiving() && exchange.is_pending());
        assert!(exchange.take_outgoing().is_none() && exchange.is_receiving(), "nothing is sent yet");
        exchange.send(Some(Outgoing::Bytes { bytes: crate::server::outgoing::Bytes::Shared([0; 3].into()), sent: 1 }));
        assert!(!exchange.is_receiving() && !exchange.is_pending());
        assert_eq!(exchange.outgoing().map(Outgoing::left), Some(2));
        assert!(exchange.take_outgoing().is_some() && !exchange.is_some());
    }
}
