//! Passes messages from workers on to the application.

use std::os::fd::AsFd;

use crate::parent::event::Event;
use crate::parent::inbox::{self, Unread, MESSAGES_PER_TURN, TURN_MICROS_MAX};
use crate::parent::supervisor::Pid;
use crate::parent::Parent;
use crate::shared::message::Received;
use crate::sys::clock;

impl Parent {
    /// Passes one turn of the workers' messages on to the application.
    pub(super) fn read_messages(&mut self) {
        let now = clock::now();
        for pid in self.application.inbox.take_due(&mut self.roster, now) {
            let unread = if self.discard.is_full() { Unread::NotRead } else { self.read_messages_of(pid) };
            self.application.inbox.put_back(pid, unread, &self.roster, now);
        }
    }

    /// Passes on everything that a process had sent before it exited. Another process that holds its socket cannot add
    /// anything.
    pub(super) fn read_last_messages(&mut self, pid: Pid) {
        let mut unread = Unread::Nothing;
        if let Some(messages) = self.roster.get(pid).and_then(|process| process.ends.messages.as_ref()) {
            messages.close();
            unread = Unread::Next;
        }
        while unread == Unread::Next {
            unread = self.read_messages_of(pid);
        }
        self.application.inbox.end(pid, unread, &mut self.roster, &mut self.discard);
    }

    /// Passes the application one turn of one worker's messages.
    fn read_messages_of(&mut self, pid: Pid) -> Unread {
        let end = clock::now_micros() + TURN_MICROS_MAX;
        let mut buffer = self.application.inbox.lend_buffer();
        let (mut unread, mut count) = (Unread::Next, 0);
        while unread == Unread::Next && count < MESSAGES_PER_TURN && (count == 0 || clock::now_micros() < end) {
            count += 1;
            match inbox::receive(&mut self.roster, pid, &mut buffer) {
                Received::Message(message, fd) => {
                    // What the worker reported before it sent this comes first.
                    if self.roster.is_starting(pid) {
                        self.read_reports(pid);
                    }
                    let (process, borrowed) = (self.roster.identify(pid), fd.as_ref().map(AsFd::as_fd));
                    let event = Event::Message { process, message, fd: borrowed };
                    self.application.emit(&event, &self.roster, &self.journal);
                    self.discard.add(fd);
                    self.obey_application();
                }
                other => unread = inbox::refuse(other, pid, &mut self.roster, &mut self.discard),
            }
        }
        self.application.inbox.take_back(buffer);
        unread
    }
}
