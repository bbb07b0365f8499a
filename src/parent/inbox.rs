//! Messages from and to workers, and the ticks of the application's clock.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::fd::AsFd;

use super::*;
use crate::shared::message::{Received, BUFFER};

/// Messages of one worker that the hook is told in one turn, and how many microseconds that may take, whatever the hook does,
/// before signals, lifelines and the other workers have their turn.
const TURN: usize = 64;
const SLICE: u64 = 2000;

/// How much of its share the reading of one worker's messages may take at once.
const AT_ONCE: Duration = Duration::from_millis(100);

/// How long a worker waits that has used up its share.
const PAUSE: Duration = Duration::from_millis(50);

/// How often the log says at most that messages find no descriptor.
const COMPLAINT: Duration = Duration::from_secs(1);

/// What reading the messages of one worker may still cost: a worker that floods the parent waits, as its messages do.
#[derive(Debug)]
pub(super) struct Quota {
    /// Of the time that passes, in percent.
    share: u32,
    /// In microseconds; what was read for more than there was is owed.
    left: i64,
    /// It was used up, and is left alone until there is enough for more than a message or two.
    is_resting: bool,
    since: Time,
}

impl Quota {
    pub(super) fn new(share: u32, now: Time) -> Quota {
        Quota { share: share.clamp(1, 100), left: micros(AT_ONCE), is_resting: false, since: now }
    }

    /// What is worth going on for.
    fn enough(&self) -> i64 {
        micros(PAUSE) * i64::from(self.share) / 100
    }

    /// When messages may be read; now, unless it is used up.
    fn next(&self, now: Time) -> Time {
        if !self.is_resting {
            return now;
        }
        let wanting = (self.enough() - self.left).max(0) * 100 / i64::from(self.share);
        self.since + Duration::from_micros(wanting.unsigned_abs().next_multiple_of(1000))
    }

    fn refill(&mut self, now: Time) {
        let passed = now.since(self.since);
        self.since = now;
        let more = micros(passed).saturating_mul(self.share.into()) / 100;
        self.left = self.left.saturating_add(more).min(micros(AT_ONCE));
        self.is_resting &= self.left < self.enough();
    }

    fn pay(&mut self, cost: Duration) {
        // All of the parent's time is no limit: what one turn may take is one all the same.
        if self.share < 100 {
            self.left = self.left.saturating_sub(micros(cost));
            self.is_resting |= self.left <= 0;
        }
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// What a worker may have to say besides what was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// The next message, perhaps.
    Next,
    /// Something, for which no descriptor is free.
    NoRoom,
    Nothing,
}

/// What workers have sent and nobody has read yet, and when to tick.
#[derive(Debug)]
pub(super) struct Inbox {
    /// Workers that have messages which were not read yet.
    unread: BTreeSet<Pid>,
    /// Where messages are read into; made when the first comes.
    buffer: Vec<u8>,
    /// When those are read whose workers have used up their quotas, unless they come first.
    resume: Option<Time>,
    /// When the log has said that messages find no descriptor.
    complained: Option<Time>,
    tick: Option<(Time, Duration)>,
}

impl Inbox {
    pub(super) fn new(hook: Option<&Hook>, now: Time) -> Inbox {
        let tick = hook.and_then(Hook::tick).map(|period| (now + period, period));
        Inbox { unread: BTreeSet::new(), buffer: Vec::new(), resume: None, complained: None, tick }
    }

    /// A worker's messages have become readable.
    pub(super) fn note(&mut self, pid: Pid) {
        self.unread.insert(pid);
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        let next = (!self.unread.is_empty()).then(|| self.resume.unwrap_or_default());
        next.into_iter().chain(self.tick.map(|(at, _)| at)).min()
    }

    /// Whether it is time, once for all the time that has passed.
    fn ticks(&mut self, now: Time) -> bool {
        let Some((at, period)) = &mut self.tick else { return false };
        let is_due = *at <= now;
        if is_due {
            *at = if *at + *period > now { *at + *period } else { now + *period };
        }
        is_due
    }
}

impl Parent {
    /// Tells the application a turn's worth of what workers say, and of the time.
    pub(super) fn read_messages(&mut self) {
        let now = clock::now();
        self.inbox.resume = None;
        let mut waiting = BTreeSet::new();
        let mut resume: Option<Time> = None;
        let mut is_any_ready = false;
        for pid in std::mem::take(&mut self.inbox.unread) {
            let Some(process) = self.roster.get_mut(pid) else { continue };
            process.ends.quota.refill(now);
            let next = process.ends.quota.next(now);
            if next > now || self.discard.is_full() {
                waiting.insert(pid);
                let next = if next > now { next } else { now + PAUSE };
                resume = Some(resume.map_or(next, |it| it.min(next)));
            } else {
                match self.hear_slice(pid) {
                    Rest::Next => {
                        waiting.insert(pid);
                        is_any_ready = true;
                    }
                    Rest::NoRoom => {
                        self.complain(pid, "its messages wait");
                        waiting.insert(pid);
                        let next = now + PAUSE;
                        resume = Some(resume.map_or(next, |it| it.min(next)));
                    }
                    Rest::Nothing => {}
                }
            }
        }
        self.inbox.unread.append(&mut waiting);
        self.inbox.resume = resume.filter(|_| !is_any_ready);
        if self.inbox.ticks(clock::now()) {
            self.emit(&event::Event::Tick);
        }
    }

    /// All that a process had sent before it exited. Another one that holds its socket adds nothing.
    pub(super) fn hear_last_messages(&mut self, pid: Pid) {
        self.inbox.unread.remove(&pid);
        if let Some(messages) = self.roster.get(pid).and_then(|process| process.ends.messages.as_ref()) {
            messages.close();
            let rest = loop {
                match self.hear_slice(pid) {
                    Rest::Next => {}
                    rest => break rest,
                }
            };
            if rest == Rest::NoRoom {
                self.complain(pid, "its last messages are lost");
            }
        }
        // Nothing is heard behind an empty message, or one that breaks the protocol. What is there is neither received,
        // since what finds no free number is closed here, nor dropped: both may wait.
        let messages = self.roster.get_mut(pid).and_then(|process| process.ends.messages.take());
        self.discard.add(messages.and_then(MessageEnd::with_descriptors));
    }

    /// Tells the application what one worker says in one turn.
    fn hear_slice(&mut self, pid: Pid) -> Rest {
        let end = clock::now_micros() + SLICE;
        let mut buffer = std::mem::take(&mut self.inbox.buffer);
        buffer.resize(BUFFER, 0);
        let rests = (0..TURN).try_for_each(|_| match self.hear_message(pid, &mut buffer) {
            Rest::Next if clock::now_micros() < end => ControlFlow::Continue(()),
            rest => ControlFlow::Break(rest),
        });
        self.inbox.buffer = buffer;
        rests.break_value().unwrap_or(Rest::Next)
    }

    fn hear_message(&mut self, pid: Pid, buffer: &mut [u8]) -> Rest {
        let Some(process) = self.roster.get_mut(pid).filter(|process| process.violation.is_none()) else {
            return Rest::Nothing;
        };
        let begun = clock::now_micros();
        let received = process.ends.messages.as_ref().map_or(Received::End, |messages| messages.receive(buffer));
        process.ends.quota.pay(Duration::from_micros(clock::now_micros().saturating_sub(begun)));
        match received {
            Received::Message(message, fd) => {
                // What it reported before it sent this comes first.
                if self.roster.is_starting(pid) {
                    self.hear(pid);
                }
                let (process, borrowed) = (self.roster.identify(pid), fd.as_ref().map(AsFd::as_fd));
                self.emit(&event::Event::Message { process, message, fd: borrowed });
                self.discard.add(fd);
                Rest::Next
            }
            Received::Malformed(why, fds) => {
                self.discard.add(fds);
                self.misbehaved(pid, format!("it sent what is no message: {why}"));
                Rest::Nothing
            }
            Received::Cut(fds) => {
                self.discard.add(fds);
                self.misbehaved(pid, "it sent a descriptor with a message".to_owned());
                Rest::Nothing
            }
            Received::NoRoom => Rest::NoRoom,
            Received::Nothing | Received::End => Rest::Nothing,
        }
    }

    /// A message cannot be received, for which the worker cannot help it; the log says so now and then.
    fn complain(&mut self, pid: Pid, what: &str) {
        let now = clock::now();
        if self.inbox.complained.is_none_or(|at| now >= at + COMPLAINT) {
            let tag = self.roster.tag(pid);
            warn!("{tag} {what}: no descriptor is free for what comes with the next; is RLIMIT_NOFILE too low?");
            self.inbox.complained = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds of reading that a worker gets in ten seconds, which says something all the time.
    fn read_in_ten_seconds(share: u32) -> u64 {
        let (mut quota, mut read, mut now) = (Quota::new(share, Time::default()), 0, Time::default());
        while now < Time::from_millis(10_000) {
            quota.refill(now);
            let next = quota.next(now);
            if next > now {
                now = next;
            } else {
                quota.pay(Duration::from_millis(1));
                read += 1;
                now = now + Duration::from_millis(1);
            }
        }
        read
    }

    #[test]
    fn a_flood_takes_its_share_and_what_may_come_at_once() {
        for (share, expected) in [(1, 100..=210), (2, 200..=310), (50, 5000..=5200), (100, 10_000..=10_000)] {
            let read = read_in_ten_seconds(share);
            assert!(expected.contains(&read), "{share} %: {read} ms of 10 s");
        }
    }
}
