//! Messages from and to workers, and the ticks of the application's clock.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};

use super::*;
use crate::handle::Whom;
use crate::message::{MessageError, Received, BUFFER};
use crate::supervisor::Stage;

/// Messages of one worker that the hook is told in one turn: signals, lifelines and the other workers have theirs in
/// between.
const TURN: usize = 64;

/// What it takes to talk with workers, and to tick.
#[derive(Debug)]
pub(super) struct Talk {
    /// How many processes have been forked.
    forked: u64,
    /// Workers that have messages which were not read yet.
    unread: BTreeSet<Pid>,
    /// Where messages are read into; made when the first comes.
    buffer: Vec<u8>,
    tick: Option<(Time, Duration)>,
}

impl Talk {
    pub(super) fn new(hook: Option<&Hook>, now: Time) -> Talk {
        let tick = hook.and_then(Hook::tick).map(|period| (now + period, period));
        Talk { forked: 0, unread: BTreeSet::new(), buffer: Vec::new(), tick }
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
        let now = (!self.unread.is_empty()).then(|| Time::from_millis(0));
        now.or(self.tick.map(|(at, _)| at))
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
        for pid in std::mem::take(&mut self.talk.unread) {
            if self.hear_messages(pid, TURN) {
                self.talk.unread.insert(pid);
            }
        }
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
            while self.hear_messages(pid, TURN) {}
        }
    }

    /// Tells the application up to `most` messages of a worker; returns whether there may be more.
    fn hear_messages(&mut self, pid: Pid, most: usize) -> bool {
        let mut buffer = std::mem::take(&mut self.talk.buffer);
        buffer.resize(BUFFER, 0);
        let may_be_more = (0..most).all(|_| self.hear_message(pid, &mut buffer));
        self.talk.buffer = buffer;
        may_be_more
    }

    fn hear_message(&mut self, pid: Pid, buffer: &mut [u8]) -> bool {
        let messages = self.processes.get(&pid).and_then(|process| process.messages.as_ref());
        match messages.map_or(Received::End, |messages| messages.receive(buffer)) {
            Received::Message(message, fd) => {
                // What it reported before it sent this comes first.
                if self.supervisor.process(pid).is_some_and(|(_, process)| process.stage == Stage::Starting) {
                    self.hear(pid);
                }
                let (process, fd) = (self.process(pid), fd.as_ref().map(AsFd::as_fd));
                self.emit(&event::Event::Message { process, message, fd });
                true
            }
            Received::Malformed(why) => {
                warn!("{} dropped its message: {why}", self.tag(pid));
                true
            }
            Received::Nothing | Received::End => false,
        }
    }

    pub(super) fn unique(&self, pid: Pid) -> u64 {
        self.processes.get(&pid).map_or(0, |process| process.unique)
    }
}

/// What a hook asks for that is done while it runs.
impl Parent {
    pub(crate) fn send(&self, whom: Whom, message: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), MessageError> {
        let process = self.find(whom).and_then(|pid| self.processes.get(&pid));
        process.and_then(|process| process.messages.as_ref()).ok_or(MessageError::Gone)?.send(message, fd)
    }

    pub(crate) fn broadcast(&self, message: &[u8]) -> Vec<(event::Process, MessageError)> {
        let staying = self.supervisor.processes().filter(|(_, process)| !process.stage.is_leaving());
        let processes = staying.filter_map(|(_, process)| Some(self.process(process.pid?)));
        processes.filter_map(|it| Some((it, self.send(Whom::Process(it), message, None).err()?))).collect()
    }

    pub(crate) fn kill_by_request(&self, whom: Whom, signal: i32) -> io::Result<()> {
        let pid = self.find(whom).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such worker"))?;
        let signal = Signal::try_from(signal)?;
        info!("{} is sent {signal}: asked by the application", self.tag(pid));
        Ok(kill(SystemPid::from_raw(pid.0), signal)?)
    }

    /// The process that is meant.
    pub(crate) fn find(&self, whom: Whom) -> Option<Pid> {
        match whom {
            // Its number tells it from a later one with the same pid.
            Whom::Process(it) => Some(Pid(it.pid)).filter(|pid| it.unique != 0 && self.unique(*pid) == it.unique),
            Whom::Slot(slot) => {
                let staying = self.supervisor.processes().filter(|(id, it)| *id == slot && !it.stage.is_leaving());
                staying.max_by_key(|(_, it)| (it.serves(), it.generation))?.1.pid
            }
        }
    }
}
