//! The unread messages of workers: whose turn it is, and how much of its quota reading them takes.
//!
//! Its input: workers whose messages are readable. Its output: their messages, in portions. The loop passes them on to
//! the application, and violations of the protocol to the supervisor.

use std::collections::BTreeSet;
use std::time::Duration;

use log::warn;

use crate::parent::discard::Discard;
use crate::parent::process::Roster;
use crate::parent::supervisor::Pid;
use crate::shared::message::{MessageEnd, Received, BUFFER};
use crate::sys::clock;
use crate::time::Time;

/// The limits of one turn of reading one worker's messages: their number, and the time in microseconds, whatever the
/// hook does. Then signals, reports and the other workers have their turn.
pub(super) const MESSAGES_PER_TURN: usize = 64;
pub(super) const TURN_MICROS_MAX: u64 = 2000;

/// How long messages wait that cannot be received.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// How often at most the log reports that there are no descriptors for messages.
const WARN_INTERVAL: Duration = Duration::from_secs(1);

/// What a worker may still have to say after a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// Perhaps another message.
    Next,
    /// A message for which no descriptor is free.
    NoRoom,
    /// It was not read, because too many descriptors from other messages wait to be closed.
    NotRead,
    Nothing,
}

/// The workers with unread messages.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    unread: BTreeSet<Pid>,
    /// The buffer for messages; allocated with the first one.
    buffer: Vec<u8>,
    /// When to read the messages that wait, unless others come first; `None` while some need not wait.
    resume: Option<Time>,
    /// When the log last reported that there are no descriptors for messages.
    complained: Option<Time>,
}

impl Inbox {
    /// A worker's messages have become readable.
    pub(super) fn note(&mut self, pid: Pid) {
        self.unread.insert(pid);
        self.resume = None;
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        (!self.unread.is_empty()).then(|| self.resume.unwrap_or_default())
    }

    /// The workers whose messages are read in this turn. A worker that has used up its quota has to wait.
    pub(super) fn take_due(&mut self, roster: &mut Roster, now: Time) -> Vec<Pid> {
        let mut due = Vec::new();
        let mut resume: Option<Time> = None;
        self.unread.retain(|pid| {
            let Some(process) = roster.get_mut(*pid) else { return false };
            process.ends.quota.refill(now);
            let next = process.ends.quota.next(now);
            if next <= now {
                due.push(*pid);
                return false;
            }
            resume = Some(resume.map_or(next, |it| it.min(next)));
            true
        });
        self.resume = resume;
        due
    }

    /// Registers what is left of a worker's messages after its turn.
    pub(super) fn put_back(&mut self, pid: Pid, unread: Unread, roster: &Roster, now: Time) {
        match unread {
            Unread::Nothing => return,
            Unread::Next => return self.note(pid),
            Unread::NoRoom => self.complain(pid, "its messages wait", roster),
            Unread::NotRead => {}
        }
        let is_any_due = !self.unread.is_empty() && self.resume.is_none();
        let next = now + RETRY_DELAY;
        self.resume = Some(self.resume.map_or(next, |it| it.min(next))).filter(|_| !is_any_due);
        self.unread.insert(pid);
    }

    /// Lends the buffer for messages, until it is [given back](Inbox::take_back).
    pub(super) fn lend_buffer(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(BUFFER, 0);
        buffer
    }

    pub(super) fn take_back(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }

    /// A worker has exited, and its last messages were read as far as possible.
    pub(super) fn end(&mut self, pid: Pid, unread: Unread, roster: &mut Roster, discard: &mut Discard) {
        self.unread.remove(&pid);
        if unread == Unread::NoRoom {
            self.complain(pid, "its last messages are lost", roster);
        }
        // Nothing is read after an empty message, or one that breaks the protocol. The rest must not be received, since
        // descriptors without a free number would be closed here, nor dropped: both could block.
        let messages = roster.get_mut(pid).and_then(|process| process.ends.messages.take());
        discard.add(messages.and_then(MessageEnd::with_descriptors));
    }

    /// A message cannot be received through no fault of the worker. Logs that from time to time.
    fn complain(&mut self, pid: Pid, what: &str, roster: &Roster) {
        let now = clock::now();
        if self.complained.is_none_or(|at| now >= at + WARN_INTERVAL) {
            let tag = roster.tag(pid);
            warn!("{tag} {what}: no descriptor is free for what comes with the next; is RLIMIT_NOFILE too low?");
            self.complained = Some(now);
        }
    }
}

/// Receives the next message of a worker, and charges its quota.
pub(super) fn receive<'b>(roster: &mut Roster, pid: Pid, buffer: &'b mut [u8]) -> Received<'b> {
    let Some(process) = roster.get_mut(pid).filter(|process| !process.trust.is_broken()) else {
        return Received::Nothing;
    };
    let begun = clock::now_micros();
    let received = process.ends.messages.as_ref().map_or(Received::End, |messages| messages.receive(buffer));
    process.ends.quota.pay(Duration::from_micros(clock::now_micros().saturating_sub(begun)));
    received
}

/// Handles what is not a message; returns what may be left.
pub(super) fn refuse(received: Received<'_>, pid: Pid, roster: &mut Roster, discard: &mut Discard) -> Unread {
    let (why, fds) = match received {
        Received::NoRoom => return Unread::NoRoom,
        Received::Nothing | Received::End => return Unread::Nothing,
        Received::Message(_, fd) => ("it sent a message at the wrong time".to_owned(), Vec::from_iter(fd)),
        Received::Malformed(why, fds) => (format!("it sent an invalid message: {why}"), fds),
        Received::Cut(fds) => ("it sent a descriptor with a message".to_owned(), fds),
    };
    discard.add(fds);
    roster.misbehaved(pid, why, clock::now());
    Unread::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parent::process;
    use crate::parent::program::ReadyCheck;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn who_has_more_to_say_goes_on_at_once_and_who_cannot_be_heard_a_moment_later() {
        let (mut roster, _board, _ours) = process::tests::roster(ReadyCheck::Execution);
        let mut inbox = Inbox::default();
        assert_eq!(inbox.deadline(), None);
        inbox.note(Pid(10));
        // One that is gone.
        inbox.note(Pid(11));
        assert_eq!(inbox.deadline(), Some(Time::default()));
        assert_eq!(inbox.take_due(&mut roster, at(1_000)), [Pid(10)]);
        assert_eq!(inbox.deadline(), None);
        inbox.put_back(Pid(10), Unread::Next, &roster, at(1_000));
        assert_eq!(inbox.deadline(), Some(Time::default()));
        assert_eq!(inbox.take_due(&mut roster, at(1_000)), [Pid(10)]);
        for unread in [Unread::NoRoom, Unread::NotRead] {
            inbox.put_back(Pid(10), unread, &roster, at(1_000));
            assert_eq!(inbox.deadline(), Some(at(1_000) + RETRY_DELAY), "{unread:?}");
            assert_eq!(inbox.take_due(&mut roster, at(1_000)), [Pid(10)]);
        }
        inbox.put_back(Pid(10), Unread::Nothing, &roster, at(1_000));
        assert_eq!(inbox.deadline(), None);
    }

    #[test]
    fn who_has_used_up_its_quota_waits_for_a_part_of_it() {
        let (mut roster, _board, _ours) = process::tests::roster(ReadyCheck::Execution);
        let mut inbox = Inbox::default();
        inbox.note(Pid(10));
        let quota = &mut roster.get_mut(Pid(10)).expect("it is there").ends.quota;
        quota.pay(Duration::from_secs(1));
        assert_eq!(inbox.take_due(&mut roster, at(0)), []);
        let resume = inbox.deadline().expect("it waits");
        assert!(resume > at(1_000), "{resume:?}");
        assert_eq!(inbox.take_due(&mut roster, resume), [Pid(10)]);
    }

    #[test]
    fn messages_are_received_and_what_is_none_breaks_the_protocol() {
        let (mut roster, _board, (_worker_end, worker)) = process::tests::roster(ReadyCheck::Execution);
        let (mut inbox, mut discard) = (Inbox::default(), Discard::default());
        let mut buffer = inbox.lend_buffer();
        assert!(matches!(receive(&mut roster, Pid(10), &mut buffer), Received::Nothing));
        worker.send(b"hello", None).expect("there is room");
        assert!(matches!(receive(&mut roster, Pid(10), &mut buffer), Received::Message(b"hello", None)));
        let malformed = Received::Malformed("it was not sent by this library", Vec::new());
        assert_eq!(refuse(malformed, Pid(10), &mut roster, &mut discard), Unread::Nothing);
        assert!(roster.get(Pid(10)).is_some_and(|process| process.trust.is_broken()));
        worker.send(b"more", None).expect("there is room");
        assert!(matches!(receive(&mut roster, Pid(10), &mut buffer), Received::Nothing), "it is not reports any more");
        inbox.take_back(buffer);
    }
}
