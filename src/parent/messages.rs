//! Messages from and to workers, and the ticks of the application's clock.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};

use super::*;
use crate::parent::handle::Target;
use crate::parent::supervisor::Stage;
use crate::shared::message::{MessageError, Received, BUFFER};

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
pub(super) struct Ration {
    /// Of the time that passes, in percent.
    share: u32,
    /// In microseconds; what was read for more than there was is owed.
    left: i64,
    /// It was used up, and is left alone until there is enough for more than a message or two.
    is_resting: bool,
    since: Time,
}

impl Ration {
    pub(super) fn new(share: u32, now: Time) -> Ration {
        Ration { share: share.clamp(1, 100), left: micros(AT_ONCE), is_resting: false, since: now }
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

/// What it takes to talk with workers, and to tick.
#[derive(Debug)]
pub(super) struct Talk {
    /// How many processes have been forked.
    forked: u64,
    /// Workers that have messages which were not read yet.
    unread: BTreeSet<Pid>,
    /// Where messages are read into; made when the first comes.
    buffer: Vec<u8>,
    /// When those are read whose workers have used up their rations, unless they come first.
    resume: Option<Time>,
    /// When the log has said that messages find no descriptor.
    complained: Option<Time>,
    tick: Option<(Time, Duration)>,
}

impl Talk {
    pub(super) fn new(hook: Option<&Hook>, now: Time) -> Talk {
        let tick = hook.and_then(Hook::tick).map(|period| (now + period, period));
        Talk { forked: 0, unread: BTreeSet::new(), buffer: Vec::new(), resume: None, complained: None, tick }
    }

    /// A worker's messages have become readable.
    pub(super) fn note(&mut self, pid: usize) {
        self.unread.extend(i32::try_from(pid).map(Pid));
    }

    /// What the next process is told apart by.
    pub(super) fn next_unique(&self) -> u64 {
        self.forked + 1
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
    pub(super) fn talk(&mut self) {
        let now = clock::now();
        self.talk.resume = None;
        let mut waiting = BTreeSet::new();
        let mut resume: Option<Time> = None;
        let mut is_any_ready = false;
        for pid in std::mem::take(&mut self.talk.unread) {
            let Some(process) = self.processes.get_mut(&pid) else { continue };
            process.ration.refill(now);
            let next = process.ration.next(now);
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
        self.talk.unread.append(&mut waiting);
        self.talk.resume = resume.filter(|_| !is_any_ready);
        if self.talk.ticks(clock::now()) {
            self.emit(&event::Event::Tick);
        }
    }

    /// The process has just been forked.
    pub(super) fn begin_to_talk(&mut self, process: &Process, pid: Pid) {
        self.talk.forked += 1;
        let Some(messages) = &process.messages else { return };
        let token = Token(MESSAGES + usize::try_from(pid.0).unwrap_or_default());
        if let Err(error) = self.listen_to(messages, token) {
            error!("{} cannot be heard: {error}", self.tag(pid));
        }
    }

    /// All that a process had sent before it exited. Another one that holds its socket adds nothing.
    pub(super) fn hear_last_messages(&mut self, pid: Pid) {
        self.talk.unread.remove(&pid);
        if let Some(messages) = self.processes.get(&pid).and_then(|process| process.messages.as_ref()) {
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
        let messages = self.processes.get_mut(&pid).and_then(|process| process.messages.take());
        self.discard.add(messages.and_then(MessageEnd::with_descriptors));
    }

    /// Tells the application what one worker says in one turn.
    fn hear_slice(&mut self, pid: Pid) -> Rest {
        let end = clock::now_micros() + SLICE;
        let mut buffer = std::mem::take(&mut self.talk.buffer);
        buffer.resize(BUFFER, 0);
        let rests = (0..TURN).try_for_each(|_| match self.hear_message(pid, &mut buffer) {
            Rest::Next if clock::now_micros() < end => ControlFlow::Continue(()),
            rest => ControlFlow::Break(rest),
        });
        self.talk.buffer = buffer;
        rests.break_value().unwrap_or(Rest::Next)
    }

    fn hear_message(&mut self, pid: Pid, buffer: &mut [u8]) -> Rest {
        let Some(process) = self.processes.get_mut(&pid).filter(|process| process.violation.is_none()) else {
            return Rest::Nothing;
        };
        let begun = clock::now_micros();
        let received = process.messages.as_ref().map_or(Received::End, |messages| messages.receive(buffer));
        process.ration.pay(Duration::from_micros(clock::now_micros().saturating_sub(begun)));
        match received {
            Received::Message(message, fd) => {
                // What it reported before it sent this comes first.
                if self.supervisor.process(pid).is_some_and(|(_, process)| process.stage == Stage::Starting) {
                    self.hear(pid);
                }
                let (process, borrowed) = (self.process(pid), fd.as_ref().map(AsFd::as_fd));
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
        if self.talk.complained.is_none_or(|at| now >= at + COMPLAINT) {
            let tag = self.tag(pid);
            warn!("{tag} {what}: no descriptor is free for what comes with the next; is RLIMIT_NOFILE too low?");
            self.talk.complained = Some(now);
        }
    }

    pub(super) fn unique(&self, pid: Pid) -> u64 {
        self.processes.get(&pid).map_or(0, |process| process.unique)
    }
}

/// What a hook asks for that is done while it runs.
impl Parent {
    pub(crate) fn send(&self, target: Target, message: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), MessageError> {
        let process = self.find(target).and_then(|pid| self.processes.get(&pid));
        process.and_then(|process| process.messages.as_ref()).ok_or(MessageError::Gone)?.send(message, fd)
    }

    pub(crate) fn broadcast(&self, message: &[u8]) -> Vec<(event::Process, MessageError)> {
        let staying = self.supervisor.processes().filter(|(_, process)| !process.stage.is_leaving());
        let processes = staying.filter_map(|(_, process)| Some(self.process(process.pid?)));
        processes.filter_map(|it| Some((it, self.send(Target::Process(it), message, None).err()?))).collect()
    }

    pub(crate) fn kill_by_request(&self, target: Target, signal: i32) -> io::Result<()> {
        let pid =
            self.find(target).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such worker"))?;
        let signal = Signal::try_from(signal)?;
        if let Some(process) = self.processes.get(&pid) {
            process.signalled.set(Some(signal as i32));
        }
        info!("{} is sent {signal}: asked by the application", self.tag(pid));
        Ok(kill(SystemPid::from_raw(pid.0), signal)?)
    }

    /// The process that is meant.
    pub(crate) fn find(&self, target: Target) -> Option<Pid> {
        match target {
            // Its number tells it from a later one with the same pid.
            Target::Process(it) => {
                i32::try_from(it.pid).ok().map(Pid).filter(|pid| it.unique_id != 0 && self.unique(*pid) == it.unique_id)
            }
            Target::Slot(slot) => {
                let staying = self.supervisor.processes().filter(|(id, it)| *id == slot && !it.stage.is_leaving());
                staying.max_by_key(|(_, it)| (it.serves(), it.generation))?.1.pid
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds of reading that a worker gets in ten seconds, which says something all the time.
    fn read_in_ten_seconds(share: u32) -> u64 {
        let (mut ration, mut read, mut now) = (Ration::new(share, Time::default()), 0, Time::default());
        while now < Time::from_millis(10_000) {
            ration.refill(now);
            let next = ration.next(now);
            if next > now {
                now = next;
            } else {
                ration.pay(Duration::from_millis(1));
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
